"""Parameter randomisation test: does a map depend on what the network has learned?

    fresh = model.init(key, images[:1])
    test = randomization_test(build, params, fresh, images, layers=("head", "features/stage_3", …))
    test.similarity.mean(axis=1)                       one number a layer; high: the map ignores it

Layers are re-initialised one after the other, from the output to the input, and stay so (cascading), or each alone
(independent). Maps are compared with those of the trained network by Spearman's correlation over voxels.

Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim, Sanity checks for saliency maps, NeurIPS 2018.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from medjax.errors import DataError
from medjax.metrics.correlation import spearman
from medjax.shortcuts.attribution.batches import Build, attribution_maps
from medjax.shortcuts.attribution.target import AnyArray


class RandomizationTest(NamedTuple):
    """Similarity of maps before and after layers were re-initialised."""

    layers: tuple[str, ...]  # in the order of re-initialisation
    similarity: Float[np.ndarray, "layer image"]  # Spearman's correlation; NaN where a map is constant


def randomization_test(
    build: Build,
    params: PyTree,
    fresh: PyTree,
    images: Float[AnyArray, "image *space channel"],
    layers: Sequence[str],
    cascading: bool = True,
    absolute: bool = False,
    batch: int = 16,
    key: PRNGKeyArray | None = None,
) -> RandomizationTest:
    """Parameter randomisation test of a method on some images.

    Args:
        build: the method as `attribution_maps` takes it; compiled once.
        params: trained parameters.
        fresh: initial parameters of the same network, by another key than the training's.
        images: images.
        layers: names of parameters or of groups of them, "/" between levels, from the output to the input.
        cascading: what was re-initialised stays so; False: each layer alone.
        absolute: compare absolute maps, where a sign means nothing.
        batch: number of images at a time.
        key: random key of a random method: the same draws before and after.

    Raises:
        DataError: there is no layer, no parameter of a name, or trees differ; as `attribution_maps`.
    """
    if not layers:
        raise DataError(f"layers: none; expected some of {', '.join(layer_names(params))}")

    def maps_of(weights: PyTree) -> np.ndarray:
        maps = attribution_maps(build, weights, images, batch, key).reshape(len(images), -1)
        return np.abs(maps) if absolute else maps

    trained = maps_of(params)
    chosen = [tuple(layers[: n + 1]) if cascading else (layers[n],) for n in range(len(layers))]
    similarity = [np.asarray(spearman(trained, maps_of(randomize(params, fresh, names)))) for names in chosen]
    return RandomizationTest(tuple(layers), np.stack(similarity))


def randomize(params: PyTree, fresh: PyTree, layers: Sequence[str]) -> PyTree:
    """Parameters with those of some layers taken from `fresh`.

    Raises:
        DataError: a layer has no parameter, or the trees differ.
    """
    if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, fresh):
        raise DataError("fresh: parameters of another network; expected the names and shapes of params")
    known = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for layer in layers:
        if not any(_within(name, layer) for name in known):
            raise DataError(f"layers: no parameter in {layer!r}; expected some of {', '.join(layer_names(params))}")

    def pick(path: tuple, trained: AnyArray, initial: AnyArray) -> AnyArray:
        return initial if any(_within(_name(path), layer) for layer in layers) else trained

    return jax.tree_util.tree_map_with_path(pick, params, fresh)


def layer_names(params: PyTree, depth: int = 2) -> tuple[str, ...]:
    """Names of groups of parameters down to `depth` levels, "/" between levels, in the order of the tree."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return tuple(dict.fromkeys(_name(path[: min(depth, max(len(path) - 1, 1))]) for path in paths))


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _within(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}/")
