"""Attribution methods by name, and what of their maps is importance: one choice for tools and experiments.

    maps = attribution_maps(build("lrp", model), params, images)         build(name, model)(params) → (x → map)
    importance(maps, sign_of("lrp"))                                     what regions are ranked by

A map of evidence for a class (Grad-CAM, LRP, input × gradient, integrated gradients) is important where it is positive,
as in the papers. A gradient is the sensitivity to an intensity: its sign says which way, and its magnitude how much.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from medjax.iterate import StaticPartial
from medjax.models.model import Network
from medjax.shortcuts.attribution.batches import from_features, from_model, from_score
from medjax.shortcuts.attribution.grad_cam import grad_cam, grad_cam_plus_plus
from medjax.shortcuts.attribution.gradient import gradient, input_times_gradient
from medjax.shortcuts.attribution.integrated_gradients import integrated_gradients
from medjax.shortcuts.attribution.lrp import epsilon_plus_flat, lrp
from medjax.shortcuts.attribution.smoothgrad import smooth_grad

METHODS = (
    "grad_cam", "grad_cam_plus_plus", "lrp", "gradient", "input_times_gradient", "integrated_gradients", "smooth_grad",
)  # fmt: skip
RANDOM = ("smooth_grad",)  # methods that take a key
SENSITIVITIES = ("gradient", "smooth_grad")
SIGNS = ("positive", "absolute", "signed")

OF_FEATURES: Mapping[str, Callable[..., Any]] = {"grad_cam": grad_cam, "grad_cam_plus_plus": grad_cam_plus_plus}
OF_SCORE: Mapping[str, Callable[..., Any]] = {
    "gradient": gradient,
    "input_times_gradient": input_times_gradient,
    "smooth_grad": smooth_grad,
}


def build(name: str, model: Network, steps: int = 50) -> StaticPartial:
    """Method of `METHODS` as a hashable function of the parameters, for the logit of the network's own class.

    Args:
        name: the method; those of `RANDOM` take a key too, see `attribution_maps`.
        model: the network.
        steps: nodes of integrated gradients.
    """
    if name in OF_FEATURES:
        return from_features(OF_FEATURES[name], model)
    if name == "lrp":
        return from_model(lrp, model, composite=epsilon_plus_flat())
    if name == "integrated_gradients":
        return from_score(integrated_gradients, model, steps=steps)
    return from_score(OF_SCORE[name], model)


def sign_of(name: str) -> str:
    """Which of `SIGNS` makes importance of the maps of a method: absolute of a gradient, else positive."""
    return "absolute" if name in SENSITIVITIES else "positive"


def importance(maps: Float[np.ndarray, "*shape"], sign: str) -> Float[np.ndarray, "*shape"]:
    """Importance of maps by one of `SIGNS`: max(map, 0), |map|, or the map as it is."""
    if sign == "signed":
        return maps
    return np.abs(maps) if sign == "absolute" else np.maximum(maps, 0)
