"""Validation of a prior: its denoising error on held-out slices, by noise level."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from medjax.diffusion.denoiser import Denoiser
from medjax.diffusion.prior import Prior, slice_denoiser
from medjax.diffusion.score_matching import denoising_errors

SIGMAS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # noise levels, in units of the mean emission


def validation_errors(prior: Prior, slices: dict[str, np.ndarray]) -> dict[str, float]:
    """Denoising error of `training_slices` at each of `SIGMAS`, `error/σ`: see `score_matching.denoising_errors`."""
    total = np.zeros(len(SIGMAS))
    for axis in np.unique(slices["axes"]).tolist():
        own = slices["slices"][slices["axes"] == axis].astype(np.float32)
        found = _errors(jax.random.key(axis), prior, jnp.asarray(own), jnp.asarray(SIGMAS), axis)
        total += np.asarray(found) * len(own) / len(slices["axes"])
    return {f"error/{sigma:g}": float(value) for sigma, value in zip(SIGMAS, total, strict=True)}


def select_evenly(slices: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    """At most `number` of `training_slices`, as many of each orientation, spread evenly over all of them."""
    axes = np.unique(slices["axes"])
    kept = []
    for axis in axes:
        own = np.flatnonzero(slices["axes"] == axis)
        kept.append(own[np.linspace(0, len(own) - 1, min(number // len(axes), len(own))).astype(int)])
    return {name: array[np.concatenate(kept)] for name, array in slices.items()}


@partial(jax.jit, static_argnames="axis")
def _errors(key: PRNGKeyArray, prior: Prior, slices: Array, sigmas: Array, axis: int) -> Array:
    mr = (slices[..., 1],) if prior.settings.mr_guided else ()

    def denoise(x: Array, t: Array) -> Array:
        return slice_denoiser(prior, axis)(x, t, *mr)

    return denoising_errors(key, Denoiser(denoise, prior.sde), slices[..., 0], prior.sigma_data, sigmas)
