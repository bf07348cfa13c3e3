"""From the frames of a scan to maps, their precision, and which frames fit badly: one call for tools and experiments.

    found = maps(signals, bvalues)                              signals (frame, voxel), usable voxels only
    found = maps(signals, bvalues, noise="student")             single measurements that motion spoilt count less
    found = maps(signals, bvalues, drop=True)                   frames that do not go with the others are left out
    found = maps(signals, bvalues, method="shrunk")             voxels of a region help each other

σ is taken from what the frames that go together leave over, so that a spoilt one does not hide in it. Frames are taken
as aligned. Where they are not, align them to each other first and give the result here.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from medjax.errors import ConfigError
from medjax.ivim.fit import check, fit
from medjax.ivim.information import cramer_rao, identifiable
from medjax.ivim.noise import Frames, Kind, frames, sigma_of_residuals
from medjax.ivim.outliers import LEAST, outlier_frames
from medjax.ivim.segmented import THRESHOLD, segmented
from medjax.ivim.shrinkage import shrink
from medjax.ivim.signal import Convention, Ivim, converted, signal

Method = Literal["full", "segmented", "shrunk"]
STEPS = {"gaussian": 40, "rician": 60, "student": 60}  # the others are expectation–maximisation, which is slower


class Maps(NamedTuple):
    """What is known of each voxel, and of each frame."""

    parameters: Ivim
    residual: Float[Array, " voxel"]  # √ mean w (S − model)²
    sigma: Float[Array, " voxel"]  # of the noise of a frame: given, or from the residuals of the voxel
    bounds: Ivim  # Cramér–Rao: the least standard deviation of each parameter, for Gaussian noise of that σ
    identifiable: Bool[Array, " voxel"]  # f, D and D* are each at least twice their bound
    frames: Frames
    spoilt: Bool[np.ndarray, " b"]  # frames that do not go with the others


def maps(
    signals: Float[np.ndarray, "b voxel"],
    bvalues: Float[np.ndarray, " b"],
    method: Method = "full",
    noise: Kind = "gaussian",
    sigma: float | None = None,
    convention: Convention = "absolute",
    weights: Float[np.ndarray, " b"] | None = None,
    threshold: float = THRESHOLD,
    drop: bool = False,
) -> Maps:
    """Fit every voxel; `sigma` None takes each voxel's own residuals, and their median for the noise model.

    `sigma` is that of one measurement, `weights` says how many were averaged for each frame, `threshold` parts the
    b-values of a segmented fit, s/mm², and `drop` leaves out the frames that are found spoilt.

    Raises:
        ConfigError: no such method, or σ is neither given nor to be had because four parameters take up all frames.
        DataError: no fit can come of these b-values.
    """
    check(signals, bvalues)
    if method not in ("full", "segmented", "shrunk"):
        raise ConfigError(f"method '{method}'; expected full, segmented or shrunk")
    if method != "full" and noise != "gaussian":
        raise ConfigError(f"method {method}, noise {noise}; expected gaussian noise, or method full")
    if sigma is None and len(bvalues) <= 4:
        raise ConfigError(f"{len(bvalues)} frames: no residual is left to take σ from; give it (--sigma)")
    y, b = jnp.asarray(signals), jnp.asarray(bvalues)
    every = np.ones(len(bvalues), np.float32) if weights is None else weights
    left_out = outlier_frames(signals, bvalues, every) if len(bvalues) > LEAST else np.zeros(len(bvalues), bool)
    kept = jnp.asarray(np.where(left_out, 0.0, every), jnp.float32)
    w = kept if drop else jnp.asarray(every)
    clean = fit(y, b, weights=kept, steps=STEPS["gaussian"])
    given = sigma_of_residuals(clean.cost, int((~left_out).sum())) if sigma is None else jnp.full(y.shape[1], sigma)
    typical = jnp.median(given)
    if method == "segmented":
        absolute = segmented(y, bvalues, threshold=threshold, weights=w).parameters
    else:
        absolute = fit(y, b, noise=noise, sigma=typical, weights=w, steps=STEPS[noise]).parameters
    if method == "shrunk":
        absolute = shrink(y, b, absolute, typical, weights=w).parameters
    predicted = signal(absolute, b)
    said = frames(signals, predicted, float(typical) / np.sqrt(every)[:, None])
    parameters = converted(absolute, "absolute", convention)
    bounds = cramer_rao(parameters, b, given, convention, w)
    residual = jnp.sqrt(jnp.sum(w[:, None] * (y - predicted) ** 2, axis=0) / jnp.sum(w))
    return Maps(parameters, residual, given, bounds, identifiable(parameters, bounds), said, left_out)


def named_maps(parameters: Ivim) -> dict[str, Float[np.ndarray, "*voxels"]]:
    """f, D, D* and f · D*, in float64, under the names f, d, d_star and f_d_star: what is read of a region.

    They are what `metrics.regions` takes. D, D* and f · D* are in mm²/s, D* in the parameters' own convention.
    """
    f, d, d_star = (np.asarray(values, np.float64) for values in parameters[1:])
    return {"f": f, "d": d, "d_star": d_star, "f_d_star": f * d_star}


def volume(
    values: Shaped[Array | np.ndarray, " voxel"], usable: Bool[np.ndarray, "x y z"]
) -> Float[np.ndarray, "x y z"]:
    """Values of the usable voxels on the scan's grid, float32; 0 elsewhere, and where they are not finite."""
    out = np.zeros(usable.shape, np.float32)
    out[usable] = np.nan_to_num(np.asarray(values), posinf=0.0, neginf=0.0)
    return out
