"""Gallery of a label audit: images with the outlines of their labels beside those of a network's predictions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from medjax.report.gallery import gallery

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, CELL = 4, 2.2  # images in a row, and their width in inches


def label_pairs(
    images: Float[np.ndarray, "image *space"],
    labels: Int[np.ndarray, "image *space"],
    prediction: Int[np.ndarray, "image *space"],
    names: Sequence[str],
    voxels: Float[np.ndarray, "image axis"] | None = None,
) -> "Figure":
    """Gallery with each image twice, with the outlines of its label and of the prediction; volumes: middle slice.

    Args:
        images: images.
        labels: their labels.
        prediction: labels that were predicted.
        names: titles of the images.
        voxels: size of the voxels of each image along each axis; default: equal ones.

    Raises:
        DataError: no image, or not as many names as images.
    """
    middle = (Ellipsis, images.shape[-1] // 2) if images.ndim == 4 else Ellipsis
    pairs = np.stack([labels[middle], prediction[middle]], axis=1)
    titles = [title for name in names for title in (name, "network")]
    classes = [f"label {number}" for number in range(1, int(pairs.max(initial=0)) + 1)]
    aspects = None if voxels is None else np.repeat(voxels[:, 0] / voxels[:, 1], 2).tolist()
    return gallery(
        np.repeat(images[middle], 2, axis=0), pairs.reshape(-1, *pairs.shape[2:]), titles, COLUMNS,
        classes=classes, aspects=aspects, cell=CELL,
    )  # fmt: skip
