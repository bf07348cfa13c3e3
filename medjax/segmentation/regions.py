"""Regions that a network predicts instead of classes: unions of classes, which may overlap or lie in each other.

    regions, order = ((1, 2, 3), (2, 3), (3,)), (1, 2, 3)        whole tumor, core, enhancing part
    paint_regions(probabilities, order)                         1 in the whole, over it 2 in the core, over it 3

Source: nnU-Net v2's region-based training; its dataset.json has `order` as regions_class_order.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError

THRESHOLD = 0.5  # probability above which a voxel is in a region


def check_regions(regions: Sequence[Sequence[int]], order: Sequence[int], classes: int) -> None:
    """Check that every region has classes and is written as one of them all.

    Raises:
        DataError: an empty region, another class, or another number of regions than `order` has.
    """
    known, named = {*range(classes)}, {*order, *chain.from_iterable(regions)}
    if len(order) != len(regions) or not all(regions) or not named <= known:
        raise DataError(
            f"regions: {list(regions)}, written as {list(order)}; expected one for each, of classes 0 to {classes - 1}"
        )


def paint_regions(probabilities: Float[np.ndarray, "*space region"], order: Sequence[int]) -> Int[np.ndarray, "*space"]:
    """Labels of regions: where a region's probability is above 0.5, its number of `order`, the last one on top."""
    labels = np.zeros(probabilities.shape[:-1], np.int32)
    for region, number in enumerate(order):
        labels[probabilities[..., region] > THRESHOLD] = number
    return labels
