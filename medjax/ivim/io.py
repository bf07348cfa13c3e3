"""Diffusion MRI scans from NIfTI and b-value files, or from arrays: frames, mask, regions, noise level.

scan = read_scan(Path("dwi.nii.gz"), Path("dwi.bval"), Path("lungs.nii.gz"))
maps(scan.series.array[scan.usable].T, scan.bvalues)        signals (frame, voxel)
read_regions(Path("labels.nii.gz"), scan)                   {"all": …, "1": …}: which of these voxels
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from medjax.errors import ConfigError, DataError
from medjax.io.bvalues import read_bvalues
from medjax.io.grids import check_same_grid
from medjax.io.label_images import as_labels
from medjax.io.nifti import SUFFIXES, Series, read_nifti, read_nifti_series
from medjax.ivim.fit import check_bvalues
from medjax.ivim.noise import sigma_of_background

SIGNAL_RESOLUTION = float(np.finfo(np.float32).eps)  # of the fits: noise below that of the largest signal is none
ImageOnGrid = Path | Shaped[np.ndarray, "_ _ _"]  # a NIfTI, or an array on the scan's grid


class DiffusionScan(NamedTuple):
    """Frames of a diffusion scan, their b-values, and the mask of voxels that can be fitted."""

    series: Series
    bvalues: Float[np.ndarray, " frame"]
    usable: Bool[np.ndarray, "x y z"]
    remark: str  # numbers of voxels that were left out, and why


def read_scan(
    scan: Path | Series | Float[np.ndarray, "x y z frame"],
    bvals: Path | Float[np.ndarray, " _"],
    mask: ImageOnGrid | None = None,
) -> DiffusionScan:
    """Read a diffusion scan: frames, b-values, and the voxels of the mask with finite signals, above 0 in one frame.

    Raises:
        DataError: b-values do not fit the frames, the mask lies on another grid, or no voxel is left.
    """
    series = scan if isinstance(scan, Series) else None
    if series is None:
        series = read_nifti_series(scan) if isinstance(scan, Path) else Series(np.asarray(scan), np.eye(4))
    bvalues = read_bvalues(bvals) if isinstance(bvals, Path) else bvals
    what, where = (str(it) if isinstance(it, Path) else name for it, name in ((scan, "the scan"), (bvals, "b-values")))
    frames = series.array.shape[3]
    if len(bvalues) != frames:
        raise DataError(f"{where}: {len(bvalues)} b-values; {what} has {frames} frames, expected one for each")
    try:
        check_bvalues(series.array.reshape(-1, frames).T, bvalues)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return select_voxels(series, bvalues, None if mask is None else _on_grid(mask, series, what) > 0, what)


def select_voxels(
    series: Series, bvalues: Float[np.ndarray, " frame"], mask: Bool[np.ndarray, "x y z"] | None, name: str = "the scan"
) -> DiffusionScan:
    """Scan of the voxels of a mask (None: all) whose signals are finite, and above 0 in one frame.

    Raises:
        DataError: there are none; it begins with the `name` of the scan.
    """
    inside = np.ones(series.array.shape[:3], bool) if mask is None else mask
    finite = np.isfinite(series.array).all(-1)
    above = np.nan_to_num(series.array).max(-1) > 0
    usable = inside & finite & above
    if not usable.any():
        raise DataError(f"{name}: {inside.sum()} voxels to fit, none of them finite with signal above 0")
    counts = {
        "with NaN or infinite values left out": (inside & ~finite).sum(),
        "without signal above 0 left out": (inside & finite & ~above).sum() if mask is not None else 0,
        "with values of 0 or below in some frame, fitted": (usable & (series.array <= 0).any(-1)).sum(),
    }
    remark = "; ".join(f"{count} voxels {outcome}" for outcome, count in counts.items() if count)
    return DiffusionScan(series, bvalues, usable, remark)


def read_regions(labels: ImageOnGrid | None, scan: DiffusionScan) -> dict[str, Bool[np.ndarray, " voxel"]]:
    """Masks of regions over the fitted voxels, by name: `all`, and one for each label above 0.

    Raises:
        DataError: labels on another grid, or not whole numbers.
    """
    regions = {"all": np.ones(int(scan.usable.sum()), bool)}
    if labels is None:
        return regions
    values = _on_grid(labels, scan.series, "the scan")
    values = as_labels(values, _name(labels))
    inside = values[scan.usable]
    return regions | {str(int(label)): inside == label for label in np.unique(values[values > 0])}


def read_sigma(sigma: str | float, scan: DiffusionScan) -> float | None:
    """Noise level σ of a measurement: a number, or measured in a NIfTI mask of air; None for "residual".

    Raises:
        ConfigError: `sigma` is none of these, below the signals' resolution or above them, or the mask is not of air.
        DataError: the mask lies on another grid.
    """
    if sigma == "residual":
        return None
    if isinstance(sigma, str) and sigma.endswith(SUFFIXES):
        air = _on_grid(Path(sigma), scan.series, "the scan") > 0
        try:
            return sigma_of_background(scan.series.array[air])
        except ConfigError as error:
            raise ConfigError(f"{sigma}: {error}") from error
    try:
        value = float(sigma)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"--sigma {sigma}; expected residual, a number above 0 or a mask of air (.nii.gz)")
    largest = float(scan.series.array[scan.usable].max())
    if not SIGNAL_RESOLUTION * largest <= value <= largest:
        raise ConfigError(
            f"--sigma {value:g}, signals up to {largest:g}; expected from {SIGNAL_RESOLUTION * largest:.2g} to that, "
            "in their unit"
        )
    return value


def _name(image: ImageOnGrid) -> str:
    return str(image) if isinstance(image, Path) else "array"


def _on_grid(image: ImageOnGrid, series: Series, scan: str) -> np.ndarray:
    if isinstance(image, Path):
        read = read_nifti(image)
        array, affine = read.array, read.affine
    else:
        array, affine = np.asarray(image), series.affine
    check_same_grid(_name(image), array.shape, affine, scan, series.array.shape[:3], series.affine)
    return array
