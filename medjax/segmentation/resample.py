"""nnU-Net's preprocessing: crop to nonzero, intensity normalisation, resampling; and the way back for logits.

    box, mask = nonzero_box(image)                                     crop to the nonzero region
    normalized = zscore_normalize(image[box][..., k], mask[box])       of each channel; ct_normalize for CT
    resample(image, spacing, target)                                   cubic; resample_labels for class numbers
    uncrop(resample_logits(logits, ...), box, shape, background)       logits on the image's own grid

Arrays are NumPy, on the host, in the order (x, y, z, channel); spacings are mm. Resampling keeps the outer faces of the
field of view, so that the first and last centres move when voxels get larger.

Source: Isensee et al., Nature Methods 18, 2021 (nnU-Net), supplementary note 2.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage

from medjax.errors import DataError

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
Box = tuple[slice, slice, slice]
ANISOTROPY_THRESHOLD = 3.0  # ratio of spacings above which the low-resolution axis is resampled separately


class IntensityProperties(NamedTuple):
    """Intensity statistics of a channel, over the foreground voxels of all training cases."""

    mean: float
    std: float  # standard deviation
    percentile_00_5: float  # 0.5th percentile
    percentile_99_5: float  # 99.5th percentile


def nonzero_box(image: Float[np.ndarray, "x y z channel"]) -> tuple[Box, Bool[np.ndarray, "x y z"]]:
    """Bounding box of the nonzero voxels (nonzero in any channel), and their mask with its holes filled.

    Raises:
        DataError: every voxel is 0.
    """
    mask = np.any(image != 0, axis=-1)
    if not mask.any():
        raise DataError("image: every voxel is 0; expected something to segment")
    mask = np.asarray(ndimage.binary_fill_holes(mask))
    x, y, z = ndimage.find_objects(mask.astype(np.uint8))[0]
    return (x, y, z), mask


def uncrop(
    values: Shaped[np.ndarray, "u v w *rest"], box: Box, shape: Shape, background: Shaped[np.ndarray, "*rest"]
) -> Shaped[np.ndarray, "x y z *rest"]:
    """Inverse of the crop: `values` in their box of a grid of `shape`, `background` everywhere else."""
    whole = np.broadcast_to(np.asarray(background, values.dtype), (*shape, *values.shape[3:])).copy()
    whole[box] = values
    return whole


def zscore_normalize(
    image: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"] | None = None
) -> Float[np.ndarray, "x y z"]:
    """Z-score normalisation, (x − mean) / standard deviation, over the image or a mask, then 0 outside it."""
    values = image if mask is None else image[mask]
    scaled = (image - values.mean()) / max(float(values.std()), 1e-8)
    return (scaled if mask is None else np.where(mask, scaled, 0)).astype(np.float32)


def ct_normalize(image: Float[np.ndarray, "x y z"], properties: IntensityProperties) -> Float[np.ndarray, "x y z"]:
    """CT normalisation: Hounsfield units clipped to percentiles of the training foreground, and z-scored by it."""
    clipped = np.clip(image, properties.percentile_00_5, properties.percentile_99_5)
    return ((clipped - properties.mean) / max(properties.std, 1e-8)).astype(np.float32)


def new_shape(shape: Shape, spacing: Spacing, target: Spacing) -> Shape:
    """Shape at the `target` spacing of the same field of view: round(voxels · spacing / target), 1 at least."""
    x, y, z = (max(round(n * old / new), 1) for n, old, new in zip(shape, spacing, target, strict=True))
    return x, y, z


def lowres_axis(spacing: Spacing, target: Spacing) -> int | None:
    """Low-resolution axis: spacing over 3 times the smallest, now or at the target; None if none or several."""
    for sizes in (spacing, target):
        if max(sizes) / min(sizes) > ANISOTROPY_THRESHOLD:
            thick = [axis for axis in range(3) if sizes[axis] == max(sizes)]
            return thick[0] if len(thick) == 1 else None
    return None


def resample(
    image: Float[np.ndarray, "x y z channel"],
    spacing: Spacing,
    target: Spacing,
    shape: Shape | None = None,
    order: int = 3,
) -> Float[np.ndarray, "u v w channel"]:
    """Image resampled to the `target` spacing by splines, by nearest neighbour along a low-resolution axis.

    `shape` is that of the result; default `new_shape`. Nothing is smoothed before it gets coarser.

    Args:
        spacing, target: voxel size of the image and of the result, mm.
        order: order of the splines; 3 is cubic.

    Source: nnU-Net's resampling with order 3, order_z 0 and separate z above an anisotropy of 3.
    """
    wanted = new_shape(_space(image), spacing, target) if shape is None else shape
    if wanted == _space(image):
        return image.astype(np.float32)
    lowres = lowres_axis(spacing, target)
    channels = [_resize(image[..., k], wanted, order, lowres) for k in range(image.shape[-1])]
    return np.stack(channels, axis=-1)


def resample_labels(
    labels: Int[np.ndarray, "x y z"], spacing: Spacing, target: Spacing, classes: int, shape: Shape | None = None
) -> Int[np.ndarray, "u v w"]:
    """Labels resampled as one-hot maps with linear interpolation, see `resample`; the class of the largest fraction.

    Args:
        labels: class numbers.
        spacing: voxel size along each axis in mm.
        target: target spacing in mm.
        classes: number of classes, background included.
        shape: shape of the result; None: as `new_shape`.
    """
    wanted = new_shape(_space(labels), spacing, target) if shape is None else shape
    if wanted == _space(labels):
        return labels
    lowres, best = lowres_axis(spacing, target), np.zeros(wanted, np.float32)
    found = np.zeros(wanted, labels.dtype)
    for kind in range(classes):
        if kind in labels:
            fraction = _resize((labels == kind).astype(np.float32), wanted, 1, lowres)
            found, best = np.where(fraction > best, kind, found).astype(labels.dtype), np.maximum(fraction, best)
    return found


def resample_logits(
    logits: Float[np.ndarray, "x y z kind"], spacing: Spacing, target: Spacing, shape: Shape
) -> Float[np.ndarray, "u v w kind"]:
    """Logits resampled with linear interpolation to `shape`, the grid of the cropped image."""
    return resample(logits, spacing, target, shape, order=1)


def _resize(array: np.ndarray, shape: Shape, order: int, lowres: int | None) -> np.ndarray:
    """Array on `shape` voxels of the same field of view; the value of the nearest slice along the axis `lowres`."""
    array = array.astype(np.float32)
    if lowres is not None:
        old, new = array.shape[lowres], shape[lowres]
        slices = np.clip(np.rint((np.arange(new) + 0.5) * old / new - 0.5), 0, old - 1).astype(int)
        flat = list(shape)
        flat[lowres] = old
        return np.take(_spline(array, flat, order), slices, axis=lowres)
    return _spline(array, list(shape), order)


def _spline(array: np.ndarray, shape: list[int], order: int) -> np.ndarray:
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    return ndimage.zoom(array, factors, output=np.float32, order=order, mode="nearest", grid_mode=True)


def _space(array: np.ndarray) -> Shape:
    x, y, z = array.shape[:3]
    return x, y, z
