"""The largest connected pieces of each class: what is left of a segmentation when its specks are taken away.

labels = keep_largest(labels)                      one piece of every class
labels = keep_largest(labels, keep={1: 2, 2: 1})   two lungs, one heart; other classes stay as they are
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Int
from scipy import ndimage

from medjax.errors import ConfigError


def keep_largest(
    labels: Int[np.ndarray, "*space"] | Int[Array, "*space"],
    keep: int | Mapping[int, int] = 1,
    least: float = 0.1,
    full: bool = True,
) -> Int[np.ndarray, "*space"]:
    """Labels with all but the `keep` largest pieces of each class made background, 0.

    A number is for every class, a mapping for those it names. With two lungs keep two: the largest piece alone would
    lose one. Further pieces stay only if they have at least `least` of the voxels of the largest: if there is one lung,
    the second largest piece is a speck. Of two equal pieces the one that comes first stays. With `full`, voxels that
    touch at an edge or a corner are connected (26 neighbours in 3-D), otherwise only those with a common face (6). Any
    number of axes; the labels given are not changed.

    Raises:
        ConfigError: a number of pieces below 1, the background named, a share outside [0, 1].

    Source: nnU-Net's post-processing, Isensee et al., Nature Methods 18, 2021, which keeps one piece of a class.
    """
    found = np.array(labels)
    classes = {int(name) for name in np.unique(found)} - {0}
    wanted = dict(keep) if isinstance(keep, Mapping) else dict.fromkeys(classes, keep)
    if 0 in wanted or any(number < 1 for number in wanted.values()):
        raise ConfigError(f"keep: {keep}; expected at least 1 piece of each class, and no background, 0")
    if not 0 <= least <= 1:
        raise ConfigError(f"least: {least}; expected a share of the largest piece, from 0 to 1")
    neighbours = ndimage.generate_binary_structure(found.ndim, found.ndim if full else 1)
    for name in classes & set(wanted):
        found[_specks(found == name, neighbours, wanted[name], least)] = 0
    return found


def _specks(mask: np.ndarray, neighbours: np.ndarray, keep: int, least: float) -> np.ndarray:
    """The places of a class that belong to none of its `keep` largest pieces, or to one that is too small."""
    pieces, number = ndimage.label(mask, neighbours)
    sizes = np.bincount(pieces.ravel(), minlength=number + 1)[1:]
    largest = np.argsort(-sizes, kind="stable")[:keep]
    stays = np.zeros(number + 1, bool)
    stays[1 + largest[sizes[largest] >= least * sizes.max()]] = True
    return mask & ~stays[pieces]
