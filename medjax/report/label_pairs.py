"""Pictures of labels beside what a network makes of the same images: the gallery of an audit of labels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from medjax.report.gallery import gallery

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = 22  # letters that fit above a picture


def label_pairs(
    images: Float[np.ndarray, "image *space"],
    labels: Int[np.ndarray, "image *space"],
    prediction: Int[np.ndarray, "image *space"],
    names: Sequence[str],
) -> "Figure":
    """Two pictures of each image, with outlines of its label and of the prediction; of volumes the middle slice.

    Raises:
        DataError: no image, or not as many names as images.
    """
    middle = (Ellipsis, images.shape[-1] // 2) if images.ndim == 4 else Ellipsis
    pairs = np.stack([labels[middle], prediction[middle]], axis=1)
    titles = [title for name in names for title in (name[:NAME], "network")]
    return gallery(np.repeat(images[middle], 2, axis=0), pairs.reshape(-1, *pairs.shape[2:]), titles, 8)
