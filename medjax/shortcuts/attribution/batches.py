"""Maps of many images, a batch at a time, by one program for all networks of an architecture.

    build = from_score(integrated_gradients, model, target=1, steps=50)       build(params) → (x → map)
    maps = attribution_maps(build, params, images)                            for params of every seed and strength

A `build` of yours is a module-level function, or `iterate.static_partial` of one: it is static to `jit`, which finds
its program again for an equal one. Arrays that it needs (a baseline, labels) travel with the parameters.
"""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from medjax.errors import ConfigError, DataError
from medjax.iterate import StaticPartial, static_partial
from medjax.models.model import Network
from medjax.running.chunks import map_in_chunks
from medjax.shortcuts.attribution.target import AnyArray, Target, class_features, class_score

Build = Callable[..., Callable[..., PyTree]]  # (params) → (x, … → result), or (params, key) → …


def from_score(
    method: Callable[..., Any], model: Network, target: Target = None, **settings: Hashable
) -> StaticPartial:
    """build(params) → method(class_score(model, params, target), **settings); with a key, method(key, …)."""
    return static_partial(_of_score, method, model, target, tuple(sorted(settings.items())))


def from_features(
    method: Callable[..., Any], model: Network, target: Target = None, **settings: Hashable
) -> StaticPartial:
    """build(params) → method(features, head, **settings) of `class_features(model, params, target)`."""
    return static_partial(_of_features, method, model, target, tuple(sorted(settings.items())))


def from_model(
    method: Callable[..., Any], model: Network, target: Target = None, **settings: Hashable
) -> StaticPartial:
    """build(params) → method(model, params, target=target, **settings): for LRP, which needs the network itself."""
    return static_partial(_of_model, method, model, target, tuple(sorted(settings.items())))


def attribution_maps(
    build: Build,
    params: PyTree,
    images: Float[AnyArray, "image *space channel"],
    batch: int = 16,
    key: PRNGKeyArray | None = None,
) -> Float[np.ndarray, "image *space"]:
    """Attribution maps of images, summed over channels.

    A method with `chunk` has batch × chunk evaluations in memory.

    Args:
        build: build(params) → (x → map), or build(params, key) with a `key`; hashable. It is compiled once for all
            parameters of one architecture.
        params: parameters of the network.
        images: images; read a batch at a time, so that a memory map will do.
        batch: number of images at a time.
        key: random key; image n has `fold_in(key, n)`, whatever the batches are.

    Raises:
        ConfigError: `build` is not hashable.
        DataError: there is no image, an image or a map is not finite, or `batch` is below 1.
    """
    maps = map_images(build, params, images, batch=batch, key=key)
    _check_finite("maps", "the map of image", maps)
    return maps.sum(axis=-1)


def map_images(build: Build, params: PyTree, *arrays: Any, batch: int = 16, key: PRNGKeyArray | None = None) -> PyTree:
    """Results of build(params)(x, …) for each image x and what belongs to it (its map, say): NumPy, image first.

    As `attribution_maps`, for functions of any arguments and results, such as measures of faithfulness.

    Raises:
        ConfigError: `build` is not hashable.
        DataError: there is no image, arrays differ in their number, an image is not finite, or `batch` is below 1.
    """
    try:
        hash(build)
    except TypeError as error:
        expected = "a module-level function or iterate.static_partial of hashable settings"
        raise ConfigError(f"build: {error}; expected {expected}") from error
    images = arrays[0]
    count = len(images)
    for first in range(0, count, max(batch, 1)):
        _check_finite("images", "image", np.asarray(images[first : first + batch]), first)
    numbers = np.arange(count, dtype=np.int32)

    def results(numbers: np.ndarray, *arrays: Any) -> PyTree:
        return _results(build, params, key, jnp.asarray(numbers), *map(jnp.asarray, arrays))

    return map_in_chunks(results, min(batch, max(count, 1)))(numbers, *arrays)


def _of_score(method: Callable, model: Network, target: Target, settings: tuple, params: PyTree, *key: Array) -> Any:
    return method(*key, class_score(model, params, target), **dict(settings))


def _of_features(method: Callable, model: Network, target: Target, settings: tuple, params: PyTree) -> Any:
    return method(*class_features(model, params, target), **dict(settings))


def _of_model(method: Callable, model: Network, target: Target, settings: tuple, params: PyTree) -> Any:
    return method(model, params, target=target, **dict(settings))


def _map_batch(build: Build, params: PyTree, key: Array | None, numbers: Array, *arrays: Array) -> PyTree:
    def one(number: Array, *own: Array) -> PyTree:
        function = build(params) if key is None else build(params, jax.random.fold_in(key, number))
        return function(*own)

    return jax.vmap(one)(numbers, *arrays)


_results = jax.jit(_map_batch, static_argnums=0)


def _check_finite(name: str, one: str, values: np.ndarray, first: int = 0) -> None:
    finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not finite.all():
        raise DataError(f"{name}: {one} {first + int(np.argmin(finite))} is not finite; {np.sum(~finite)} such")
