"""Region of interest of a cine: the heart is what moves.

center = heart_center(frames, spacing)              frames (x, y, slice, frame); in-plane voxel coordinates
box = square_box(frames.shape[:2], center, spacing[:2], side_mm=150)
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from medjax.errors import DataError

SMOOTHING_MM = 8.0  # standard deviation of the blur: more than a moving edge is wide, less than a ventricle
FRACTION = 0.2  # of the largest value, above which pixels move


def heart_center(frames: Float[np.ndarray, "x y slice frame"], spacing: Sequence[float]) -> Float[np.ndarray, "2"]:
    """In-plane centre of the heart, voxels: middle of the largest region that moves, from end to end along x and y.

    Motion is the temporal standard deviation, summed over slices and blurred, above 20 % of its maximum. Its centroid
    would lie some 15 mm off: the right ventricle moves more than the left. `spacing` is that of x and y, or of x, y and
    slices, in mm.

    Raises:
        DataError: fewer than two frames, or frames that are all equal.

    Source: regions of interest by temporal variation are common practice in cine segmentation, as in Khened et al.,
    Medical Image Analysis 51, 2019.
    """
    if frames.shape[-1] < 2:
        raise DataError(f"frames: {frames.shape[-1]}; expected two or more, of which the differences show the heart")
    motion = frames.std(axis=-1).sum(axis=-1)
    smooth = ndimage.gaussian_filter(motion, [SMOOTHING_MM / mm for mm in spacing[:2]], mode="nearest")
    smooth = smooth - np.median(smooth)  # noise varies everywhere
    if not smooth.max() > 0:
        raise DataError("frames: nothing moves; expected frames of several phases of the cardiac cycle")
    regions, number = ndimage.label(smooth > FRACTION * smooth.max())
    largest = 1 + int(np.argmax(ndimage.sum(smooth, regions, range(1, number + 1))))
    ends = ndimage.find_objects(regions)[largest - 1]
    return np.array([(one.start + one.stop - 1) / 2 for one in ends])


def square_box(
    shape: tuple[int, int], center: Float[np.ndarray, "2"], spacing: Sequence[float], side_mm: float | int
) -> tuple[slice, slice]:
    """In-plane box of `side_mm` about `center` (voxels), moved inside the image, whole where the image is smaller."""
    slices = []
    for side, middle, mm in zip(shape, center.tolist(), spacing, strict=False):
        wanted = min(round(side_mm / mm), side)
        low = min(max(round(middle - (wanted - 1) / 2), 0), side - wanted)
        slices.append(slice(low, low + wanted))
    return slices[0], slices[1]
