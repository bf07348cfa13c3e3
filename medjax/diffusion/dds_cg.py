"""Decomposed diffusion sampling (DDS) with a solved data step: the fast sampler.

    x0 ← argmin ½ ‖y − b − A x‖²_W + ½ ‖x − D(x(t), σ)‖² / v,   v = k σ² d² / (σ² + d²)

by preconditioned conjugate gradients from the denoised image D, then clipped at 0. v is the variance of an image of
deviation d given one with noise σ, for Gaussians; the one hyper-parameter is k.

DDS replaces the data step by few updates of EM's surrogate, which at few counts obey neither the data nor the denoised
image. Source: Chung, Lee & Ye, ICLR 2024, whose data step of MRI is conjugate gradients; the variance is ours.
"""

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Int, Scalar

from medjax.diffusion.data_step import Info, NormalEquations, solve
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.guidance import Estimate, GuidedDenoiser, estimate
from medjax.iterate import static_partial

SIGMA_DATA = 0.85  # standard deviation d of head slices of mean emission 1, background included

Number = float | Scalar


def dds_cg(
    denoiser: Any,
    equations: NormalEquations,
    variance_factor: Number = 1.0,
    iterations: int | Int[Array, ""] = 2,
    sigma_data: Number = SIGMA_DATA,
    nonnegative: bool = True,
) -> GuidedDenoiser:
    """DDS guidance whose data step is solved. Info has the residual of each step.

    Args:
        denoiser: the prior.
        equations: normal equations of the data, with the intensity scale: `data_step.normal_equations`.
        variance_factor: k, factor on the variance of the denoised image's error; more of it fits the data closer.
        iterations: iterations of conjugate gradients in each step of the sampler.
        sigma_data: standard deviation d of the prior's images.
        nonnegative: whether the image is clipped at 0 after its data step.
    """
    arguments = (equations, variance_factor, iterations, sigma_data)
    return Partial(static_partial(_dds_cg, nonnegative), as_denoiser(denoiser), *arguments)


def _dds_cg(
    nonnegative: bool,
    denoiser: Any,
    equations: NormalEquations,
    variance_factor: Any,
    iterations: Any,
    sigma_data: Any,
    x: Array,
    t: Scalar,
    index: Array,
) -> tuple[Estimate, Info]:
    prior = estimate(denoiser, x, t, index)
    x0, info = solve(
        equations, prior.x0, denoised_variance(denoiser.sde.sigma(t), variance_factor, sigma_data), iterations
    )
    return prior._replace(x0=jnp.maximum(x0, 0) if nonnegative else x0), info


def denoised_variance(sigma: Number, factor: Number = 1.0, sigma_data: Number = SIGMA_DATA) -> Scalar:
    """Variance of the image given one with noise σ: k σ² d² / (σ² + d²)."""
    sigma = jnp.asarray(sigma)
    return factor * sigma**2 * sigma_data**2 / (sigma**2 + sigma_data**2)
