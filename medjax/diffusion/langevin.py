"""Langevin corrector of a predictor–corrector sampler."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray, Scalar

from medjax.diffusion.denoiser import as_pytree
from medjax.diffusion.guidance import GuidedDenoiser
from medjax.diffusion.sampler import Corrector
from medjax.diffusion.sde import Sde, score_from_x0
from medjax.iterate import static_partial


def langevin(guided_denoiser: GuidedDenoiser, sde: Sde, snr: float | Scalar = 0.16, steps: int = 1) -> Corrector:
    """Langevin corrector: `steps` of x + ε s + √(2 ε) z with ε = 2 (snr √n / ‖s‖)², n voxels.

    Source: Song et al., ICLR 2021, algorithm 5, with ‖z‖ replaced by its expectation.
    """
    return Partial(static_partial(_langevin, steps), as_pytree(guided_denoiser), sde, snr)


def _langevin(
    steps: int,
    guided_denoiser: GuidedDenoiser,
    sde: Sde,
    snr: Any,
    key: PRNGKeyArray,
    x: Array,
    t: Scalar,
    index: Array,
) -> Array:
    def correct(number: Any, x: Array) -> Array:
        score = score_from_x0(sde, x, guided_denoiser(x, t, index)[0].x0, t)
        size = 2 * snr**2 * x.size / jnp.maximum(jnp.sum(score**2), jnp.finfo(x.dtype).tiny)
        z = jax.random.normal(jax.random.fold_in(key, number), x.shape, x.dtype)
        return x + size * score + jnp.sqrt(2 * size) * z

    return jax.lax.fori_loop(0, steps, correct, x)
