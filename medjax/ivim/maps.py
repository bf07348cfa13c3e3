"""From the frames of a scan to maps, their precision, and which frames fit badly: one call for tools and experiments.

    found = maps(signals, bvalues)                              signals (frame, voxel), usable voxels only
    found = maps(signals, bvalues, noise="student")             with frames that motion spoilt
    found = maps(signals, bvalues, method="shrunk")             voxels of a region help each other

Frames are taken as aligned. Where they are not, align them to each other first and give the result here.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.errors import ConfigError
from medjax.ivim.fit import Found, check, fit
from medjax.ivim.information import cramer_rao, identifiable
from medjax.ivim.noise import Frames, Kind, frames, sigma_of_residuals
from medjax.ivim.segmented import THRESHOLD, segmented
from medjax.ivim.shrinkage import shrink
from medjax.ivim.signal import Convention, Ivim, converted, signal

Method = Literal["full", "segmented", "shrunk"]
STEPS = {"gaussian": 12, "rician": 30, "student": 30}  # the others are expectation–maximisation, which is slower


class Maps(NamedTuple):
    """What is known of each voxel, and of each frame."""

    parameters: Ivim
    residual: Float[Array, " voxel"]  # √ mean (S − model)²
    sigma: Float[Array, " voxel"]  # of the noise of a frame: given, or from the residuals of the voxel
    bounds: Ivim  # Cramér–Rao: the least standard deviation of each parameter, for Gaussian noise of that σ
    identifiable: Bool[Array, " voxel"]  # f, D and D* are each at least twice their bound
    frames: Frames


def maps(
    signals: Float[np.ndarray, "b voxel"],
    bvalues: Float[np.ndarray, " b"],
    method: Method = "full",
    noise: Kind = "gaussian",
    sigma: float | None = None,
    convention: Convention = "absolute",
    weights: Float[np.ndarray, " b"] | None = None,
    threshold: float = THRESHOLD,
) -> Maps:
    """Fit every voxel; `sigma` None takes each voxel's own residuals, and their median for the noise model.

    `threshold` parts the b-values of a segmented fit, s/mm².

    Raises:
        ConfigError: no such method, or σ is neither given nor to be had because four parameters take up all frames.
        DataError: no fit can come of these b-values.
    """
    check(signals, bvalues)
    if method not in ("full", "segmented", "shrunk"):
        raise ConfigError(f"method '{method}'; expected full, segmented or shrunk")
    if method != "full" and noise != "gaussian":
        raise ConfigError(f"method {method}, noise {noise}; expected gaussian noise, or method full")
    y, b = jnp.asarray(signals), jnp.asarray(bvalues)
    w = None if weights is None else jnp.asarray(weights)
    found = segmented(y, bvalues, threshold=threshold) if method == "segmented" else fit(y, b, weights=w)
    if sigma is None and len(bvalues) <= 4:
        raise ConfigError(f"{len(bvalues)} frames: no residual is left to take σ from; give it (--sigma)")
    given = sigma_of_residuals(found.cost, len(bvalues)) if sigma is None else jnp.full(y.shape[1], sigma)
    typical = jnp.median(given)
    if noise != "gaussian":
        found = fit(y, b, noise=noise, sigma=typical, weights=w, steps=STEPS[noise])
    if method == "shrunk":
        found = Found(shrink(y, b, found.parameters, typical).parameters, found.cost)
    predicted = signal(found.parameters, b)
    count = np.ones(len(bvalues)) if weights is None else weights
    said = frames(signals, predicted, float(typical) / np.sqrt(count)[:, None])
    parameters = converted(found.parameters, "absolute", convention)
    bounds = cramer_rao(parameters, b, given, convention, w)
    residual = jnp.sqrt(jnp.mean((y - predicted) ** 2, axis=0))
    return Maps(parameters, residual, given, bounds, identifiable(parameters, bounds), said)
