"""Volumes to the grid a network is trained on, and its logits back: crop, grey values, resampling.

    box, inside = non_zero(image)                               what is not empty border
    grey = normalised(cropped(image, box), inside[box], ...)    z-scores
    resampled(grey, spacing, target)                            cubic; labels_resampled for class numbers
    restored(logits_resampled(logits, ...), box, shape)         logits on the grid the image came on

Arrays are NumPy, on the host, in the order (x, y, z, channel); spacings are mm. The outer faces of the field stay where
they are, so that the first and last centres move when voxels get larger.

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
ANISOTROPIC = 3.0  # ratio of spacings above which the thick axis is treated apart


class Grey(NamedTuple):
    """Grey values of a channel, over the foreground of all training cases."""

    mean: float
    deviation: float
    low: float  # percentile 0.5
    high: float  # percentile 99.5


def non_zero(image: Float[np.ndarray, "x y z channel"]) -> tuple[Box, Bool[np.ndarray, "x y z"]]:
    """The smallest box around voxels that are not 0 in every channel, and those voxels with their holes filled.

    Raises:
        DataError: every voxel is 0.
    """
    inside = np.any(image != 0, axis=-1)
    if not inside.any():
        raise DataError("image: every voxel is 0; expected something to segment")
    inside = np.asarray(ndimage.binary_fill_holes(inside))
    x, y, z = ndimage.find_objects(inside.astype(np.uint8))[0]
    return (x, y, z), inside


def restored(
    values: Shaped[np.ndarray, "u v w *rest"], box: Box, shape: Shape, outside: Shaped[np.ndarray, "*rest"]
) -> Shaped[np.ndarray, "x y z *rest"]:
    """The inverse of a crop: `values` in their box of a grid of `shape`, `outside` everywhere else."""
    whole = np.broadcast_to(np.asarray(outside, values.dtype), (*shape, *values.shape[3:])).copy()
    whole[box] = values
    return whole


def z_scored(
    image: Float[np.ndarray, "x y z"], inside: Bool[np.ndarray, "x y z"] | None = None
) -> Float[np.ndarray, "x y z"]:
    """(x − mean) / standard deviation of the image, or of what is `inside`, 0 outside it."""
    values = image if inside is None else image[inside]
    scaled = (image - values.mean()) / max(float(values.std()), 1e-8)
    return (scaled if inside is None else np.where(inside, scaled, 0)).astype(np.float32)


def ct_scored(image: Float[np.ndarray, "x y z"], grey: Grey) -> Float[np.ndarray, "x y z"]:
    """Hounsfield units, clipped to and scaled by what the foreground of the training cases has."""
    clipped = np.clip(image, grey.low, grey.high)
    return ((clipped - grey.mean) / max(grey.deviation, 1e-8)).astype(np.float32)


def new_shape(shape: Shape, spacing: Spacing, target: Spacing) -> Shape:
    """Voxels of the same field at the `target` spacing: round(voxels · spacing / target), 1 at least."""
    x, y, z = (max(round(n * old / new), 1) for n, old, new in zip(shape, spacing, target, strict=True))
    return x, y, z


def thick_axis(spacing: Spacing, target: Spacing) -> int | None:
    """The axis whose spacing is over 3 times the least, at present or at the target; None if none or several are."""
    for sizes in (spacing, target):
        if max(sizes) / min(sizes) > ANISOTROPIC:
            thick = [axis for axis in range(3) if sizes[axis] == max(sizes)]
            return thick[0] if len(thick) == 1 else None
    return None


def resampled(
    image: Float[np.ndarray, "x y z channel"],
    spacing: Spacing,
    target: Spacing,
    shape: Shape | None = None,
    order: int = 3,
) -> Float[np.ndarray, "u v w channel"]:
    """Each channel at the centres of voxels of `target` mm by splines of `order`; the nearest slice of a thick axis.

    `shape` is the number of voxels if it is known; default `new_shape`. Nothing is smoothed before it gets coarser.

    Source: nnU-Net's resampling with order 3, order_z 0 and separate z above an anisotropy of 3.
    """
    wanted = new_shape(_space(image), spacing, target) if shape is None else shape
    if wanted == _space(image):
        return image.astype(np.float32)
    thick = thick_axis(spacing, target)
    channels = [_zoomed(image[..., k], wanted, order, thick) for k in range(image.shape[-1])]
    return np.stack(channels, axis=-1)


def labels_resampled(
    labels: Int[np.ndarray, "x y z"], spacing: Spacing, target: Spacing, classes: int, shape: Shape | None = None
) -> Int[np.ndarray, "u v w"]:
    """The class with the largest share where shares, one-hot labels, are interpolated linearly as `resampled` does."""
    wanted = new_shape(_space(labels), spacing, target) if shape is None else shape
    if wanted == _space(labels):
        return labels
    thick, best = thick_axis(spacing, target), np.zeros(wanted, np.float32)
    found = np.zeros(wanted, labels.dtype)
    for kind in range(classes):
        if kind in labels:
            share = _zoomed((labels == kind).astype(np.float32), wanted, 1, thick)
            found, best = np.where(share > best, kind, found).astype(labels.dtype), np.maximum(share, best)
    return found


def logits_resampled(
    logits: Float[np.ndarray, "x y z kind"], spacing: Spacing, target: Spacing, shape: Shape
) -> Float[np.ndarray, "u v w kind"]:
    """Logits, or any values, interpolated linearly on `shape` voxels: what brings a prediction back to its image."""
    return resampled(logits, spacing, target, shape, order=1)


def _zoomed(array: np.ndarray, shape: Shape, order: int, thick: int | None) -> np.ndarray:
    """At the centres of `shape` voxels over the same field; the value of the nearest slice along `thick`."""
    array = array.astype(np.float32)
    if thick is not None:
        old, new = array.shape[thick], shape[thick]
        slices = np.clip(np.rint((np.arange(new) + 0.5) * old / new - 0.5), 0, old - 1).astype(int)
        flat = list(shape)
        flat[thick] = old
        return np.take(_spline(array, flat, order), slices, axis=thick)
    return _spline(array, list(shape), order)


def _spline(array: np.ndarray, shape: list[int], order: int) -> np.ndarray:
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    return ndimage.zoom(array, factors, output=np.float32, order=order, mode="nearest", grid_mode=True)


def _space(array: np.ndarray) -> Shape:
    x, y, z = array.shape[:3]
    return x, y, z
