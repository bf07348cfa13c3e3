"""Grad-CAM and Grad-CAM++ in any number of spatial dimensions, from a network split into features and head.

    A = features(x), g = ∂head/∂A                     N locations of k channels
    Grad-CAM        a_k = (1/N) Σ g_k                 map = ReLU(Σ_k a_k A_k), upsampled linearly to the image
    Grad-CAM++      a_k = Σ α_k ReLU(g_k),            α_k = g_k² / (2 g_k² + g_k³ Σ A_k) = 1 / (2 + g_k Σ A_k)

The map is as fine as the features are: choose where the network is split, and read no more of it than that. A network
of stride 32 gives 7×7 numbers for an image of 224². For shifted-window transformers, features are the tokens of the
last stage, (*coarse, channel) as they are.

Source: Selvaraju et al., Grad-CAM, ICCV 2017; Chattopadhay et al., Grad-CAM++, WACV 2018.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from medjax.errors import DataError
from medjax.shortcuts.attribution.target import Attribution, Image

Weights = Callable[[Array, Array], Array]  # features and gradients (location, channel) → weight of each channel


def grad_cam(features: Callable[[Image], Array], head: Callable[[Array], Scalar], relu: bool = True) -> Attribution:
    """Grad-CAM: x → map (*space, 1).

    NaN where the score is not finite.

    Args:
        features: x (*space, channel) → A (*coarse, k), as `class_features` gives it.
        head: A → score.
        relu: only what raises the score, as published; False keeps the sign.

    Raises:
        DataError: (when called) features do not have the image's number of axes.
    """

    def weights(maps: Array, slopes: Array) -> Array:
        return jnp.mean(slopes, axis=0)

    return _class_activation_map(features, head, weights, relu)


def grad_cam_plus_plus(features: Callable[[Image], Array], head: Callable[[Array], Scalar]) -> Attribution:
    """Grad-CAM++: x → map (*space, 1), for features that are not negative (after a ReLU), as published.

    The factor exp(score) of all weights, which comes of the published score exp(f), is left out: it overflows, and
    scales the whole map of an image. NaN where α is undefined, 2 + g_k Σ A_k ≤ 0, which negative features may bring
    about, and where the score is not finite.

    Raises:
        DataError: (when called) features do not have the image's number of axes.
    """

    def weights(maps: Array, slopes: Array) -> Array:
        below = 2 + slopes * jnp.sum(maps, axis=0, keepdims=True)
        return jnp.sum(jnp.where(slopes > 0, slopes / jnp.where(below > 0, below, jnp.nan), 0), axis=0)

    return _class_activation_map(features, head, weights, relu=True)


def _class_activation_map(features: Callable, head: Callable, weights: Weights, relu: bool) -> Attribution:
    def attribute(x: Image) -> Float[Array, "*space 1"]:
        maps = features(x)
        if maps.ndim != x.ndim:
            raise DataError(f"features: shape {maps.shape} for an image of {x.shape}; expected (*space, channel)")
        value, slopes = jax.value_and_grad(head)(maps)
        channels = maps.shape[-1]
        weight = weights(maps.reshape(-1, channels), slopes.reshape(-1, channels))
        coarse = jnp.sum(maps * weight.reshape(*[1] * (maps.ndim - 1), channels), axis=-1, keepdims=True)
        coarse = jnp.maximum(coarse, 0) if relu else coarse
        fine = jax.image.resize(coarse, (*x.shape[:-1], 1), "linear", antialias=False)
        return jnp.where(jnp.isfinite(value), fine, jnp.nan)

    return attribute
