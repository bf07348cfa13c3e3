"""IVIM parameter maps of a scan, their Cramér–Rao bounds and outlier frames: one call for tools and experiments.

    found = maps(signals, bvalues)                              signals (frame, voxel), usable voxels only
    found = maps(signals, bvalues, noise="student")             robust: outlying measurements count less
    found = maps(signals, bvalues, drop_outliers=True)          outlier frames are left out of the fit
    found = maps(signals, bvalues, method="hierarchical")       empirical Bayes: a prior learnt from the region
    found = maps(signals, bvalues, bounds=PRESETS["osipi"])     other bounds than the default ones

σ is taken from the residuals of the frames that are no outliers, so that an outlier does not hide in it. Frames are
taken as aligned; where they are not, register them to each other first.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from medjax import defaults
from medjax.errors import ConfigError
from medjax.ivim.bounds import PRESETS, AtBound, Bounds, at_bound
from medjax.ivim.fit import check_bvalues, fit
from medjax.ivim.hierarchical import hierarchical_fit
from medjax.ivim.information import cramer_rao, identifiable
from medjax.ivim.noise import FrameMisfit, NoiseModel, frame_misfit, sigma_of_region, sigma_of_residuals
from medjax.ivim.outliers import outlier_frames
from medjax.ivim.segmented_fit import segmented_fit
from medjax.ivim.signal import Convention, Ivim, convert_d_star, signal

Method = Literal["full", "segmented", "hierarchical"]
STEPS = {"gaussian": 40, "rician": 60, "student": 60}  # the others are expectation–maximisation, which is slower


class IvimMaps(NamedTuple):
    """IVIM parameters, residual, noise level and Cramér–Rao bounds of each voxel; misfit and outliers of the frames."""

    parameters: Ivim
    residual: Float[Array, " voxel"]  # √ mean w (S − model)²
    sigma: Float[Array, " voxel"]  # noise of one measurement: as passed, or from the residuals of the voxel
    crlb: Ivim  # Cramér–Rao lower bound (standard deviation) of each parameter, for Gaussian noise of that σ
    at_bound: AtBound  # voxels with f, D or D* at a bound of the fit
    identifiable: Bool[np.ndarray, " voxel"]  # f, D and D* are each at least twice their CRLB, and at no bound
    frame_misfit: FrameMisfit
    outliers: Bool[np.ndarray, " b"]  # outlier frames


def maps(
    signals: Float[np.ndarray, "b voxel"],
    bvalues: Float[np.ndarray, " b"],
    method: Method = "full",
    noise: NoiseModel = "gaussian",
    sigma: float | None = None,
    convention: Convention = "absolute",
    weights: Float[np.ndarray, " b"] | None = None,
    threshold: float = defaults.IVIM_THRESHOLD,
    drop_outliers: bool = False,
    bounds: Bounds = PRESETS["default"],
    slices: Int[np.ndarray, " voxel"] | None = None,
) -> IvimMaps:
    """IVIM parameter maps of all voxels, with residuals, Cramér–Rao bounds and outlier frames.

    Args:
        method: full (all parameters at once), segmented (two steps) or hierarchical (empirical Bayes).
        noise: noise model of a full fit: gaussian, rician or student.
        sigma: noise of one measurement; None takes each voxel's residuals, and for the noise model the region's.
        convention: convention of D*: absolute or excess.
        weights: number of measurements averaged for each frame.
        threshold: b-value from which a segmented fit neglects perfusion, s/mm².
        drop_outliers: leave outlier frames out of the fit.
        bounds: bounds of the parameters, absolute D*.
        slices: slice of each voxel, to find frames with signal dropout in some slices.

    Raises:
        ConfigError: no such method, or no σ where the four parameters leave no residual to take it from.
        DataError: these b-values cannot determine the parameters.
    """
    check_bvalues(signals, bvalues)
    if method not in ("full", "segmented", "hierarchical"):
        raise ConfigError(f"method '{method}'; expected full, segmented or hierarchical")
    if method != "full" and noise != "gaussian":
        raise ConfigError(f"method {method}, noise {noise}; expected gaussian noise, or method full")
    if sigma is None and len(bvalues) <= 4:
        raise ConfigError(f"{len(bvalues)} frames: no residual is left to take σ from; expected a value of σ (--sigma)")
    y, b = jnp.asarray(signals), jnp.asarray(bvalues)
    every = np.ones(len(bvalues), np.float32) if weights is None else weights
    left_out = outlier_frames(signals, bvalues, every, slices=slices)
    kept = jnp.asarray(np.where(left_out, 0.0, every), jnp.float32)
    w = kept if drop_outliers else jnp.asarray(every)
    level, typical = (jnp.full(y.shape[1], sigma), sigma) if sigma is not None else _noise_level(y, b, kept, bounds)
    lower, upper = bounds
    if method == "segmented":
        absolute = segmented_fit(y, bvalues, lower=lower, upper=upper, threshold=threshold, weights=w).parameters
    else:
        options: dict[str, Any] = {"noise": noise, "sigma": typical, "weights": w, "steps": STEPS[noise]}
        absolute = fit(y, b, lower=lower, upper=upper, **options).parameters
    if method == "hierarchical":
        absolute = hierarchical_fit(y, b, absolute, typical, lower, upper, weights=w).parameters
    predicted, held = signal(absolute, b), at_bound(absolute, bounds)
    misfit = frame_misfit(signals, predicted, typical / np.sqrt(every)[:, None])
    parameters = convert_d_star(absolute, "absolute", convention)
    crlb = cramer_rao(parameters, b, level, convention, w)
    estimated = np.asarray(identifiable(parameters, crlb)) & ~held.any
    return IvimMaps(parameters, _residual(y, predicted, w), level, crlb, held, estimated, misfit, left_out)


def _noise_level(signals: Array, bvalues: Array, weights: Array, bounds: Bounds) -> tuple[Array, float]:
    """σ of each voxel, and that of the region, from the residuals of a fit.

    What a bound holds is not fitted; where it is f, the decay without signal is not fitted either.
    """
    clean = fit(signals, bvalues, lower=bounds.lower, upper=bounds.upper, weights=weights, steps=STEPS["gaussian"])
    held = at_bound(clean.parameters, bounds)
    fitted = 4 - np.where(held.f, 2, held.d.astype(int) + held.d_star)
    measurements = int(np.sum(np.asarray(weights) > 0))
    level = sigma_of_residuals(clean.cost, measurements, fitted)
    return level, sigma_of_region(level, measurements - fitted)


@jax.jit
def _residual(signals: Array, predicted: Array, weights: Array) -> Array:
    return jnp.sqrt(jnp.sum(weights[:, None] * (signals - predicted) ** 2, axis=0) / jnp.sum(weights))


def named_maps(parameters: Ivim) -> dict[str, Float[np.ndarray, "*voxels"]]:
    """Maps of f, D, D* and f · D* by name (f, d, d_star, f_d_star), float64, as `metrics.regions` takes them.

    D, D* and f · D* are in mm²/s, D* in the parameters' own convention.
    """
    f, d, d_star = (np.asarray(values, np.float64) for values in parameters[1:])
    return {"f": f, "d": d, "d_star": d_star, "f_d_star": f * d_star}


def volume(
    values: Shaped[Array | np.ndarray, " voxel"], usable: Bool[np.ndarray, "x y z"]
) -> Float[np.ndarray, "x y z"]:
    """Volume on the scan's grid of values of the usable voxels, float32; 0 elsewhere, and where they are not finite."""
    out = np.zeros(usable.shape, np.float32)
    out[usable] = np.nan_to_num(np.asarray(values), posinf=0.0, neginf=0.0)
    return out
