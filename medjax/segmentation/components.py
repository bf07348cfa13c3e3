"""Largest connected components of each class of a segmentation, or of regions that join classes.

labels = keep_largest(labels)                      one component of every class
labels = keep_largest(labels, keep={1: 2, 2: 1})   two lungs, one heart; other classes stay as they are
labels = keep_largest(labels, keep={(1, 2, 3): 1})  one whole tumor of three classes
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Int
from scipy import ndimage

from medjax.errors import ConfigError
from medjax.io.nnunet_labels import Structure
from medjax.segmentation.evaluation import label_numbers, structure_mask


def keep_largest(
    labels: Int[np.ndarray, "*space"] | Int[Array, "*space"],
    keep: int | Mapping[Structure, int] | Mapping[int, int] = 1,
    min_fraction: float = 0.1,
    full_connectivity: bool = True,
) -> Int[np.ndarray, "*space"]:
    """Labels with all but the `keep` largest connected components of each class set to background, 0.

    Any number of axes; a copy is returned. Of two components of equal size the one that comes first stays. Structures
    are taken in the order of the mapping, so that regions that hold others come first.

    Args:
        keep: number of components of every class, or of those that a mapping names, a region by the tuple of its
            classes. Of two lungs keep two.
        min_fraction: size of a component, in voxels of the class's largest, from which on it may stay: if there is one
            lung, the second largest component is a speck.
        full_connectivity: voxels that touch at an edge or a corner are connected (26 neighbours in 3-D), otherwise only
            those with a common face (6).

    Raises:
        ConfigError: a number of components below 1, the background named, a fraction outside [0, 1].

    Source: nnU-Net's post-processing, Isensee et al., Nature Methods 18, 2021, which keeps one component of a class.
    """
    found = np.array(labels)
    classes = {int(name) for name in np.unique(found)} - {0}
    wanted = dict(keep) if isinstance(keep, Mapping) else dict.fromkeys(classes, keep)
    if 0 in label_numbers(wanted) or any(number < 1 for number in wanted.values()):
        raise ConfigError(f"keep: {keep}; expected at least 1 component of each class, and no background, 0")
    if not 0 <= min_fraction <= 1:
        raise ConfigError(f"min_fraction: {min_fraction}; expected a fraction of the largest component, from 0 to 1")
    neighbors = ndimage.generate_binary_structure(found.ndim, found.ndim if full_connectivity else 1)
    for structure, number in wanted.items():
        mask = structure_mask(found, structure)
        if mask.any():
            found[_specks(mask, neighbors, number, min_fraction)] = 0
    return found


def _specks(mask: np.ndarray, neighbors: np.ndarray, keep: int, min_fraction: float) -> np.ndarray:
    """Voxels of a class in none of its `keep` largest components, or in one that is too small."""
    components, number = ndimage.label(mask, neighbors)
    sizes = np.bincount(components.ravel(), minlength=number + 1)[1:]
    largest = np.argsort(-sizes, kind="stable")[:keep]
    stays = np.zeros(number + 1, bool)
    stays[1 + largest[sizes[largest] >= min_fraction * sizes.max()]] = True
    return mask & ~stays[components]
