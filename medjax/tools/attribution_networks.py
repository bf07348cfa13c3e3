"""Attribution maps of trained classifiers in files, by a method's name, as `medjax shortcuts audit --method` has them.

    maps = network_maps(Path("ts.npz"), "grad_cam", open_maps(Path("images.npz")), ids)

Files are those of `classifier_file`. What is explained is the logit of the network's own arg-max class, as published.
Images are what the network was trained on, (image, *space) of one channel: preprocess them in the same way. Maps have
their signs: `importance` of `attribution.methods` makes of them what an audit ranks.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from medjax.errors import DataError
from medjax.shortcuts.attribution.batches import attribution_maps
from medjax.shortcuts.attribution.methods import METHODS, RANDOM, build
from medjax.tools.attribution_maps import MapSet, from_arrays
from medjax.tools.checks import check_choice
from medjax.tools.classifier_file import load_classifier


def network_maps(path: Path, method: str, images: MapSet, ids: list[str], network: Any = None, seed: int = 0) -> MapSet:
    """Attribution maps of the classifier in a file, for the images of these ids.

    Args:
        path: file of the classifier.
        method: name of a method, of `METHODS`.
        images: the images.
        ids: those to explain.
        network: network in place of the file's, see `load_classifier`.
        seed: random seed of methods that draw noise.

    Raises:
        ConfigError: no such method, or one that this network has no rule for; or as `load_classifier`.
        DataError: images of different shapes, maps that are not finite, or as `load_classifier`.
    """
    check_choice("--method", method, METHODS)
    inputs, affine = _stack(images, ids)
    model, params = load_classifier(path, inputs.shape[1:], network)
    key = jax.random.key(seed) if method in RANDOM else None
    try:
        maps = attribution_maps(build(method, model), params, inputs, key=key)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return from_arrays(str(path), maps, ids, affine)


def _stack(images: MapSet, ids: list[str]) -> tuple[Float[np.ndarray, "image *space 1"], np.ndarray | None]:
    """Images in one array, and the affine of the first."""
    each = [images.read(one) for one in ids]
    for name, one in zip(ids, each, strict=True):
        if one.values.shape != each[0].values.shape:
            expected = f"that of {ids[0]}, {each[0].values.shape}"
            raise DataError(f"{images.name}: {name}: shape {one.values.shape}; expected {expected}")
        if one.values.dtype.kind not in "fiub" or not np.isfinite(one.values).all():
            raise DataError(f"{images.name}: {name}: NaN, infinite values or no numbers; expected finite ones")
    return np.stack([one.values for one in each]).astype(np.float32)[..., None], each[0].affine
