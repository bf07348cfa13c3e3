"""Bi-exponential (IVIM) fits of all voxels at once: grid search by variable projection, then Levenberg–Marquardt.

    found = fit(signals, bvalues)                                     signals (b, voxel) → FitResult(parameters, cost)
    found = fit(signals, bvalues, noise="rician", sigma=12.0)         magnitudes of low SNR
    found = fit(signals, bvalues, noise="student", sigma=12.0)        robust to outlier frames

The search tries pairs of decays on a grid; for a pair the two amplitudes are linear and follow in closed form
(variable projection), so every pair costs a few operations a voxel. The best pair starts Levenberg–Marquardt with
bounds. The result is differentiable with respect to signals, weights and σ, by the implicit function theorem.

Source: variable projection, Golub & Pereyra, SIAM Journal on Numerical Analysis 10(2), 1973.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.ivim.bounds import LOWER, UPPER
from medjax.ivim.implicit import differentiable_minimum
from medjax.ivim.levenberg_marquardt import levenberg_marquardt
from medjax.ivim.noise import NoiseModel, noise_model
from medjax.ivim.signal import UM2_PER_MS, Convention, Ivim, convert_d_star

GRID = (32, 10)  # decays tried for D and for D*
CHUNK = 2048  # voxels at once: what they need stays in a core's cache


class FitResult(NamedTuple):
    """Fitted IVIM parameters and the cost of the fit, in each voxel."""

    parameters: Ivim  # D* in the convention that was asked for
    cost: Float[Array, " voxel"]  # Σ_b w (S − model)², or the loss of another noise


def check_bvalues(signals: Float[np.ndarray, "frame voxel"], bvalues: Float[np.ndarray, " b"]) -> None:
    """Check that signals and b-values can determine the four IVIM parameters.

    Raises:
        DataError: not one b-value for each frame, fewer than four different ones, a negative one, or not in s/mm².
    """
    if len(bvalues) != len(signals):
        raise DataError(f"{len(bvalues)} b-values for {len(signals)} frames; expected one for each")
    if not np.isfinite(bvalues).all() or (bvalues < 0).any():
        raise DataError("b-values: negative or not finite; expected s/mm²")
    if len(np.unique(bvalues)) < 4:
        raise DataError(f"{len(np.unique(bvalues))} different b-values; four parameters need at least four")
    if bvalues.max() < 20:
        raise DataError(f"b-values up to {bvalues.max():g}; expected s/mm² (multiply ms/µm² by 1000)")
    if bvalues.max() > 50_000:
        raise DataError(f"b-values up to {bvalues.max():g}; expected s/mm² (divide s/m² by 1,000,000)")


def fit(
    signals: Float[Array, "b voxel"],
    bvalues: Float[Array, " b"],
    convention: Convention = "absolute",
    lower: Ivim = LOWER,
    upper: Ivim = UPPER,
    noise: NoiseModel = "gaussian",
    sigma: Float[Array, "#voxel"] | Float[Array, ""] | float = 1.0,
    weights: Float[Array, " b"] | None = None,
    steps: int = 12,
    chunk: int = CHUNK,
) -> FitResult:
    """Maximum-likelihood S0, f, D and D* of each voxel, within bounds; a voxel that is nowhere above 0 gives zeros.

    Args:
        convention: convention of the D* that is returned: absolute, exp(−b D*), or excess, exp(−b (D + D*)).
        lower: lower bounds, absolute D*; that of S0 in units of a voxel's largest signal.
        upper: upper bounds, likewise.
        noise: noise model: gaussian, rician or student.
        sigma: standard deviation of the noise of one measurement, in units of the signal; for rician and student.
        weights: number of measurements averaged for each frame; 0 leaves a frame out.
        steps: Levenberg–Marquardt iterations.
        chunk: voxels fitted at once.

    Raises:
        ConfigError: no such noise model or convention.
    """
    sd, bounds = jnp.asarray(sigma, signals.dtype), [_of_dtype(bound, signals.dtype) for bound in (lower, upper)]
    parts = _parts(signals, sd, bvalues, weights, *bounds, chunk)
    return _joined(*_chunks(*parts, steps, noise), signals.shape[1], convention)


@partial(jax.jit, static_argnames="chunk")
def _parts(
    signals: Array,
    sigma: Array,
    bvalues: Array,
    weights: Array | None,
    lower: Ivim,
    upper: Ivim,
    chunk: int,
) -> tuple[Array, Array, Array, Array, list[Array]]:
    """Arguments of `_chunks`, with chunks of one size, so that masks of any size share its long compilation."""
    voxels = signals.shape[1]
    count = jnp.ones(len(signals), signals.dtype) if weights is None else weights.astype(signals.dtype)

    def parts(array: Array, fill: float) -> Array:
        padded = jnp.pad(array, ((0, 0), (0, -voxels % chunk)), constant_values=fill)
        return jnp.moveaxis(padded.reshape(len(array), -1, chunk), 1, 0)

    sd = jnp.broadcast_to(sigma, (1, voxels))
    bounds = [_scaled(bound) for bound in (lower, upper)]
    b = (bvalues.astype(signals.dtype) * UM2_PER_MS)[:, None]
    return parts(signals, 0.0), parts(sd, 1.0), b, count[:, None], bounds


@partial(jax.jit, static_argnames=("voxels", "convention"))
def _joined(parameters: Array, cost: Array, voxels: int, convention: Convention) -> FitResult:
    s0, f, d, d_star = (p.reshape(-1)[:voxels] for p in jnp.moveaxis(parameters, 1, 0))
    absolute = Ivim(s0, f, d * UM2_PER_MS, d_star * UM2_PER_MS)
    return FitResult(convert_d_star(absolute, "absolute", convention), cost.reshape(-1)[:voxels])


@partial(jax.jit, static_argnames="noise")
def _chunks(
    signals: Array, sigma: Array, b: Array, count: Array, bounds: list[Array], steps: Array | int, noise: NoiseModel
) -> tuple[Array, Array]:
    """One chunk after the other, along the first axis."""
    one = partial(_fit, noise=noise, b=b, count=count, bounds=bounds, steps=steps)
    return jax.lax.map(lambda part: one(*part), (signals, sigma))


def _of_dtype(bounds: Ivim, dtype: jnp.dtype) -> Ivim:
    return Ivim(*(jnp.asarray(p, dtype) for p in bounds))


def _scaled(bounds: Ivim) -> Array:
    s0, f, d, d_star = bounds
    return jnp.stack([s0, f, d / UM2_PER_MS, d_star / UM2_PER_MS])[:, None]


def _fit(
    signals: Array, sigma: Array, *, noise: NoiseModel, b: Array, count: Array, bounds: list[Array], steps: Array | int
) -> tuple[Array, Array]:
    """(parameters (4, voxel), cost); diffusivities in µm²/ms."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.nan_to_num(signals), axis=0))
    seen = largest > 0
    scale = jnp.where(seen, largest, 1.0)[None]
    finite = jnp.isfinite(signals)
    y, w = jnp.where(finite, signals, 0.0) / scale, jnp.where(finite, count, 0.0)
    likelihood = noise_model(noise, sigma / scale / jnp.sqrt(jnp.maximum(count, 1e-6)))  # of a mean; 0: left out

    def model(p: Array) -> Array:
        s0, f, d, d_star = p[:, None]
        return s0 * ((1 - f) * jnp.exp(-b * d) + f * jnp.exp(-b * d_star))

    def cost(p: Array) -> Array:
        return jnp.sum(w * likelihood.loss(y, model(p)), axis=0)

    def solve() -> Array:
        start = _start(y, count, b, *bounds)
        return levenberg_marquardt(model, start, y, *bounds, weights=w, steps=steps, noise=likelihood).parameters

    found = _ordered(differentiable_minimum(cost, solve, *bounds), *bounds)
    return (
        jnp.where(seen[None], found, 0).at[0].multiply(scale[0]),
        jnp.where(seen, cost(found) * scale[0] ** 2, 0),
    )


def _ordered(p: Array, lower: Array, upper: Array) -> Array:
    """The faster decay is D*: where both kinds of bounds allow it, parts that came out the other way round change."""
    other = jnp.stack([p[0], 1 - p[1], p[3], p[2]])
    allowed = jnp.all((other >= lower) & (other <= upper), axis=0)
    return jnp.where((allowed & (p[2] > p[3]))[None], other, p)


def _start(y: Array, count: Array, b: Array, lower: Array, upper: Array) -> Array:
    """The best pair of a grid, amplitudes by non-negative least squares.

    With products u, v of the signal with two decays and their Gram matrix [[a, c], [c, e]], what a pair explains of
    Σ w y² is x u + y v at the least squares (x, y); where that has a negative amplitude one decay alone explains more.
    """
    slow = jnp.geomspace(jnp.maximum(lower[2, 0], 0.05), upper[2, 0], GRID[0])
    fast = jnp.geomspace(jnp.maximum(lower[3, 0], 1.0), jnp.minimum(upper[3, 0], 500.0), GRID[1])
    slows, fasts = jnp.exp(-b * slow[None]), jnp.exp(-b * fast[None])  # (b, decay)
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    first, second = product(slows.T, count * y), product(fasts.T, count * y)
    own, other, cross = jnp.sum(count * slows**2, 0), jnp.sum(count * fasts**2, 0), product(slows.T, count * fasts)

    def amplitudes(u: Array, v: Array, a: Array, e: Array, c: Array) -> tuple[Array, Array]:
        scale = 1 / jnp.maximum(a * e - c * c, 1e-9 * a * e)
        return (e * u - c * v) * scale, (a * v - c * u) * scale

    def step(i: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        u, a, e, c = first[i][None], own[i][None, None], other[:, None], cross[i][:, None]
        one, two = amplitudes(u, second, a, e, c)
        alone = jnp.maximum(jnp.maximum(u, 0) ** 2 / a, jnp.maximum(second, 0) ** 2 / e)
        gain = jnp.where((one >= 0) & (two >= 0), one * u + two * second, alone)
        largest = jnp.max(gain, axis=0)
        node = (i * GRID[1] + jnp.argmax(gain, axis=0)).astype(jnp.int32)
        return jnp.maximum(largest, best[0]), jnp.where(largest > best[0], node, best[1])

    none = jnp.full(y.shape[1], -jnp.inf, y.dtype), jnp.zeros(y.shape[1], jnp.int32)
    i, j = jnp.divmod(jax.lax.fori_loop(0, GRID[0], step, none)[1], GRID[1])
    u, v = (jnp.take_along_axis(rows, k[None], axis=0)[0] for rows, k in ((first, i), (second, j)))
    a, e = own[i], other[j]
    one, two = amplitudes(u, v, a, e, cross[i, j])
    one, two = jnp.where(two < 0, u / a, one), jnp.where(one < 0, v / e, two)
    total = jnp.maximum(jnp.maximum(one, 0) + jnp.maximum(two, 0), 1e-6)
    return jnp.clip(jnp.stack([total, jnp.maximum(two, 0) / total, slow[i], fast[j]]), lower, upper)
