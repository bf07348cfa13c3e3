"""Thickness of the left ventricle's myocardium in short-axis slices, by sectors around the cavity's centre.

    found = wall_thickness(labels, ACDC, spacing)              36 sectors of 10 degrees
    found.mean, found.max                                      mm, of all slices
    wall_thickness(labels, ACDC, spacing, 6).sectors           (slice, sector), as the six segments of a slice (AHA)

The radial method, by areas: in a sector of angle δ, cavity and cavity + myocardium have areas A and B, so that the
mean radii are √(2A/δ) and √(2B/δ), and the thickness is their difference. Areas average over voxels, so thickness is
finer than a voxel: annuli of a constant thickness have no bias (error of a sector: 0.2 voxels RMS of 36, 0.1 of 6).
Known biases: a wall whose normal is at angle φ to the radius is measured too thick by 1/cos φ, in plane (cavities that
are not round) and through plane (towards the apex); the maximum over sectors is too large by noise, half a voxel of 36
sectors and a tenth of 6; papillary muscles labelled as myocardium count as wall unless `assign_papillary` has made
them cavity.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Real

from medjax.errors import ConfigError
from medjax.uncertainty.biomarkers import LabelCodes, voxel_ml

AnyArray = Array | np.ndarray
SUBVOXELS = 4  # along x and y, whose centres tell the sector of a part of a voxel
MIN_SECTORS = 3


class Thickness(NamedTuple):
    """Wall thickness in mm; NaN without a cavity or without myocardium in the sector."""

    sectors: Float[np.ndarray, "z sector"]  # the first begins at the direction to the RV, from x towards y
    slice_mean: Float[np.ndarray, " z"]
    slice_max: Float[np.ndarray, " z"]
    mean: float
    max: float


def wall_thickness(
    labels: Int[np.ndarray, "x y z"],
    codes: LabelCodes,
    spacing: Sequence[float | int] | Real[AnyArray, "3"],
    sectors: int = 36,
) -> Thickness:
    """Radial thickness of the myocardium in each slice and sector, its mean and maximum.

    Sectors are counted from the direction of the right ventricle's centre (that of x, where there is none), from x
    towards y: with six, the first and the last are septal. Which of them is anterior depends on the orientation of
    the axes.

    Args:
        labels: label map of one frame.
        codes: label values of the structures.
        spacing: mm along x, y and z.
        sectors: number of sectors, 3 or more.

    Raises:
        ConfigError: fewer sectors.
        DataError: a spacing that is not positive.
    """
    if sectors < MIN_SECTORS:
        raise ConfigError(f"sectors: {sectors}; expected {MIN_SECTORS} or more")
    voxel_ml(spacing)  # checks it
    mm = np.asarray(spacing, np.float64)[:2]
    right = np.argwhere(labels == codes.rv)
    septum = right[:, :2].mean(axis=0) * mm if len(right) else None
    found = np.stack([_slice(labels[..., z], codes, mm, sectors, septum) for z in range(labels.shape[2])])
    known = np.isfinite(found)
    number = known.sum(axis=1)
    mean = np.where(number > 0, np.where(known, found, 0).sum(axis=1) / np.maximum(number, 1), np.nan)
    largest = np.where(number > 0, np.where(known, found, -np.inf).max(axis=1), np.nan)
    values = found[known] if known.any() else np.array([np.nan])
    return Thickness(found, mean, largest, float(values.mean()), float(values.max()))


def _slice(
    labels: np.ndarray, codes: LabelCodes, mm: np.ndarray, sectors: int, septum: np.ndarray | None
) -> Float[np.ndarray, " sector"]:
    cavity, wall = labels == codes.lv, labels == codes.myocardium
    if not (cavity.any() and wall.any()):
        return np.full(sectors, np.nan)
    center = np.argwhere(cavity).mean(axis=0) * mm
    start = 0.0 if septum is None else float(np.arctan2(*(septum - center)[::-1]))
    width = 2 * np.pi / sectors
    inner, middle = (_sector_areas(mask, center, mm, sectors, start) for mask in (cavity, wall))
    radii = (np.sqrt(2 * area / width) for area in (inner, inner + middle))
    thickness = -np.subtract(*radii)
    return np.where(middle > 0, thickness, np.nan)


def _sector_areas(mask: np.ndarray, center: np.ndarray, mm: np.ndarray, sectors: int, start: float) -> np.ndarray:
    """Area in mm² of a mask in each sector; each voxel is divided into `SUBVOXELS`² parts."""
    parts = (np.arange(SUBVOXELS) + 0.5) / SUBVOXELS - 0.5
    offset = np.stack(np.meshgrid(parts, parts, indexing="ij"), axis=-1).reshape(-1, 2)
    points = (np.argwhere(mask)[:, None] + offset) * mm - center
    angle = (np.arctan2(points[..., 1], points[..., 0]) - start) % (2 * np.pi)
    sector = np.minimum((angle / (2 * np.pi) * sectors).astype(int), sectors - 1)
    return np.bincount(sector.ravel(), minlength=sectors) * float(np.prod(mm)) / SUBVOXELS**2
