"""Statistics of maps over a region of interest, and their sensitivity to its boundary.

Maps of any quantities on one grid are summarised within a mask (`region_statistics`), and again with the mask dilated
and eroded (`boundary_sensitivity`: do two masks give the same because they agree, or because the boundary does not
matter?). All is NumPy in float64.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Real
from scipy import ndimage

from medjax.errors import DataError

AnyArray = Array | np.ndarray
Number = float | int


class MapStatistics(NamedTuple):
    """Statistics of one map over voxels, in the map's unit."""

    median: float
    mean: float
    sd: float  # standard deviation over n − 1; 0 for one voxel
    iqr: float  # interquartile range


class RegionStatistics(NamedTuple):
    """Number of voxels of a region, and the statistics of each map over them."""

    voxels: int  # number of voxels
    maps: dict[str, MapStatistics]  # statistics of each map, by name


def region_statistics(
    maps: Mapping[str, Real[AnyArray, "..."]],
    mask: Bool[AnyArray, "*voxels"],
    usable: Bool[AnyArray, "*voxels"] | None = None,
) -> RegionStatistics:
    """Statistics of each map over the mask's voxels that are usable (default: where every map is finite).

    Raises:
        DataError: no map, shapes differ, no voxel is left, or a usable one is not finite.
    """
    arrays, inside = _check(maps, mask, usable)
    if not inside.any():
        raise DataError(f"mask: {np.sum(np.asarray(mask))} voxels, none of them usable; expected at least one")
    return _region(arrays, inside)


def boundary_sensitivity(
    maps: Mapping[str, Real[AnyArray, "..."]],
    mask: Bool[AnyArray, "*space"],
    spacing: Sequence[Number],
    distances_mm: Sequence[Number] = (-2.0, -1.0, 0.0, 1.0, 2.0),
    usable: Bool[AnyArray, "*space"] | None = None,
) -> dict[float, RegionStatistics]:
    """Boundary sensitivity: `region_statistics` of the mask dilated (positive) or eroded (negative) by each distance.

    A region without a usable voxel has 0 voxels and NaN statistics.

    Args:
        maps: maps by name, on one grid.
        mask: region of interest.
        spacing: voxel size, mm.
        distances_mm: dilations (positive) and erosions (negative), see `dilate`; 0 is the mask itself.
        usable: voxels to read; default: where every map is finite.

    Raises:
        DataError: shapes differ, the mask is empty, a usable voxel is not finite, or the spacing is not one positive
            number per axis.
    """
    arrays, usable = _check(maps, np.ones(mask.shape, bool), usable)
    mask = np.asarray(mask)
    if mask.shape != usable.shape or not mask.any():
        raise DataError(
            f"mask: shape {mask.shape}, {mask.sum()} voxels; expected {usable.shape}, and at least one voxel"
        )
    if len(spacing) != mask.ndim or not min(spacing) > 0:
        raise DataError(f"spacing: {tuple(spacing)}; expected {mask.ndim} sizes above 0 mm")
    return {float(mm): _region(arrays, dilate(mask, spacing, mm) & usable) for mm in distances_mm}


def dilate(
    mask: Bool[np.ndarray, "*space"], spacing: Sequence[Number], distance_mm: Number
) -> Bool[np.ndarray, "*space"]:
    """Dilate a mask by a distance in mm, or erode it by a negative one.

    Distances are between middles of voxels: dilation takes in what is no further than that from a voxel of the mask,
    erosion removes what is no further than that from a voxel outside. Less than a voxel along an axis changes nothing
    along it: thick slices stay. What lies beyond the image is not outside.
    """
    start = ~mask if distance_mm > 0 else mask
    if distance_mm == 0 or start.all():
        return mask.copy()
    away = np.asarray(ndimage.distance_transform_edt(start, sampling=spacing))
    return away <= distance_mm if distance_mm > 0 else away > -distance_mm


def _check(
    maps: Mapping[str, AnyArray], mask: AnyArray, usable: AnyArray | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The maps in float64 and the voxels to read."""
    arrays = {name: np.asarray(values, np.float64) for name, values in maps.items()}
    shapes = {values.shape for values in arrays.values()}
    if len(shapes) != 1:
        raise DataError(f"maps: {', '.join(arrays) or 'none'} of shapes {sorted(shapes)}; expected one shape")
    (shape,) = shapes
    for name, array in (("mask", mask), ("usable", mask if usable is None else usable)):
        if array.shape != shape:
            raise DataError(f"{name}: shape {array.shape}; the maps have {shape}")
    finite = np.all([np.isfinite(values) for values in arrays.values()], axis=0)
    inside = np.asarray(mask) & (finite if usable is None else np.asarray(usable))
    if not finite[inside].all():
        raise DataError(f"maps: {np.sum(~finite[inside])} usable voxels are not finite; expected none")
    return arrays, inside


def _region(arrays: Mapping[str, np.ndarray], inside: np.ndarray) -> RegionStatistics:
    return RegionStatistics(int(inside.sum()), {name: _summary(values[inside]) for name, values in arrays.items()})


def _summary(values: np.ndarray) -> MapStatistics:
    if not values.size:
        return MapStatistics(np.nan, np.nan, np.nan, np.nan)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return MapStatistics(
        middle, float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else 0.0, high - low
    )
