"""Gallery of a label audit: images with the outlines of their labels beside those of a network's predictions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from medjax.report.gallery import gallery

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME_LENGTH = 22  # maximum number of letters above an image


def label_pairs(
    images: Float[np.ndarray, "image *space"],
    labels: Int[np.ndarray, "image *space"],
    prediction: Int[np.ndarray, "image *space"],
    names: Sequence[str],
) -> "Figure":
    """Gallery with each image twice, with the outlines of its label and of the prediction; volumes: middle slice.

    Raises:
        DataError: no image, or not as many names as images.
    """
    middle = (Ellipsis, images.shape[-1] // 2) if images.ndim == 4 else Ellipsis
    pairs = np.stack([labels[middle], prediction[middle]], axis=1)
    titles = [title for name in names for title in (name[:NAME_LENGTH], "network")]
    return gallery(np.repeat(images[middle], 2, axis=0), pairs.reshape(-1, *pairs.shape[2:]), titles, 8)
