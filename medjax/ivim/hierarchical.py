"""Hierarchical (empirical-Bayes) IVIM fit: a Gaussian prior learnt from the region, and each voxel's MAP under it.

In a region the transformed parameters θ = (logit f, log D, log D*) are taken as draws of one Gaussian N(μ, Σ). With
these each voxel has a most likely θ given its signal (MAP) and, by Laplace's approximation, a covariance C; with those

    μ ← mean of θ,      Σ ← covariance of θ + mean of C

and so on: expectation–maximisation. Where the signal determines little (D* above all) a voxel is drawn to its region's
mean (shrinkage). The variance of such maps is not that of the tissue, and regions should be fitted apart.

Source: Efron & Morris, Journal of the American Statistical Association 68, 1973; for IVIM, Orton et al., Magnetic
Resonance in Medicine 71(1), 2014.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.ivim.bounds import LOWER, UPPER
from medjax.ivim.information import inverse
from medjax.ivim.levenberg_marquardt import Model, jacobian, levenberg_marquardt
from medjax.ivim.signal import UM2_PER_MS, Ivim, signal

EM_ITERATIONS, STEPS = 6, 8  # number of steps of EM, and of Levenberg–Marquardt in each
MIN_D = 1e-4  # µm²/ms: a bound of 0 has no logarithm
MAX_PRIOR_SD = 3.0  # upper limit of the first prior's standard deviation of θ


class HierarchicalFit(NamedTuple):
    """MAP maps of a region, and the mean and covariance of its learnt prior."""

    parameters: Ivim  # absolute D*
    mean: Float[Array, " 3"]  # mean of logit f, log D and log D* (µm²/ms)
    covariance: Float[Array, "3 3"]


def hierarchical_fit(
    signals: Float[Array, "b voxel"],
    bvalues: Float[Array | np.ndarray, " b"],
    initial: Ivim,
    sigma: Float[Array, "#voxel"] | Float[Array, ""] | float,
    lower: Ivim = LOWER,
    upper: Ivim = UPPER,
    weights: Float[Array, " b"] | None = None,
    em_iterations: int = EM_ITERATIONS,
) -> HierarchicalFit:
    """Hierarchical fit of the voxels of one region: MAP maps under a prior learnt from them.

    Args:
        initial: maps of `fit`, absolute D*.
        sigma: standard deviation of the noise of one measurement, in units of the signal.
        lower: lower bounds, absolute D*.
        upper: upper bounds, absolute D*.
        weights: number of measurements averaged for each b-value; 0 leaves one out.
        em_iterations: iterations of expectation–maximisation.

    Raises:
        DataError: fewer than eight voxels, too few to learn a prior of three parameters from.
    """
    if signals.shape[1] < 8:
        raise DataError(f"{signals.shape[1]} voxels in the region; expected at least 8 to learn a prior from")
    count = jnp.ones(len(signals)) if weights is None else jnp.maximum(weights, 1e-6)  # 0: a frame left out
    noise = jnp.asarray(sigma, signals.dtype) / jnp.sqrt(count)[:, None]
    return _hierarchical_fit(signals, jnp.asarray(bvalues), initial, noise, lower, upper, em_iterations)


@partial(jax.jit, static_argnames="em_iterations")
def _hierarchical_fit(
    signals: Array, bvalues: Array, initial: Ivim, sigma: Array, lower: Ivim, upper: Ivim, em_iterations: int
) -> HierarchicalFit:
    scale = jnp.maximum(jnp.asarray(initial.s0), 1e-20)
    noise = sigma / scale[None]
    y = signals / scale[None]
    low, top = (_transformed(bound, 0.0 if bound is lower else jnp.inf)[:, None] for bound in (lower, upper))
    start = jnp.clip(_transformed(initial, jnp.ones_like(scale)), low, top)
    middle = jnp.median(start[1:], axis=1)
    variance = jnp.diag(jnp.minimum(_robust_variance(start[1:]), MAX_PRIOR_SD**2))

    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def model(p: Array) -> Array:
        return signal(_natural(p), bvalues) / noise

    def iteration(_: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        p, mean, covariance = state
        white = jnp.linalg.inv(jnp.linalg.cholesky(covariance + 1e-4 * jnp.eye(3)))

        def both(p: Array) -> Array:  # the prior is three more measurements
            return jnp.concatenate([model(p), product(white, p[1:] - mean[:, None])])

        data = jnp.concatenate([y / noise, jnp.zeros_like(p[1:])])
        p = levenberg_marquardt(both, p, data, low, top, steps=STEPS).parameters
        laplace = _mean_covariance(both, p)
        mean = jnp.mean(p[1:], axis=1)
        centered = p[1:] - mean[:, None]  # jnp.cov takes no precision
        return p, mean, product(centered, centered.T) / (p.shape[1] - 1) + laplace

    p, mean, covariance = jax.lax.fori_loop(0, em_iterations, iteration, (start, middle, variance))
    maps = _natural(p)
    return HierarchicalFit(maps._replace(s0=maps.s0 * scale), mean, covariance)


def _transformed(p: Ivim, s0: Array | float) -> Array:
    """(S0 unchanged, logit f, log D, log D*)."""
    f, d, fast = jnp.asarray(p.f), jnp.asarray(p.d) / UM2_PER_MS, jnp.asarray(p.d_star) / UM2_PER_MS
    f, d = jnp.clip(f, 1e-3, 1 - 1e-3), jnp.maximum(d, MIN_D)
    return jnp.stack(jnp.broadcast_arrays(jnp.asarray(s0), jnp.log(f / (1 - f)), jnp.log(d), jnp.log(fast)))


def _natural(p: Array) -> Ivim:
    return Ivim(p[0], jax.nn.sigmoid(p[1]), jnp.exp(p[2]) * UM2_PER_MS, jnp.exp(p[3]) * UM2_PER_MS)


def _robust_variance(values: Array) -> Array:
    low, high = jnp.quantile(values, jnp.array([0.1587, 0.8413]), axis=1)
    return ((high - low) / 2) ** 2


def _mean_covariance(model: Model, p: Array) -> Array:
    """The mean over voxels of (JᵀJ)⁻¹, without S0."""
    _, derivatives = jacobian(model, p)
    lower = inverse([[jnp.sum(a * c, axis=0) for c in derivatives[: i + 1]] for i, a in enumerate(derivatives)])
    rows = [[jnp.mean(lower[max(i, j)][min(i, j)]) for j in range(1, len(p))] for i in range(1, len(p))]
    return jnp.stack([jnp.stack(row) for row in rows])
