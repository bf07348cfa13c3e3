"""Short-axis cine MRI of one subject at end-diastole (ED) and end-systole (ES), with expert labels.

A study has the names of a simulated scan (`phantoms.cine.CineScan`): image, labels, spacing, ed, es; its labels are in
ACDC's codes (RV 1, myocardium 2, LV 3), whatever the data set's.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError
from medjax.io.grids import check_same_grid
from medjax.io.label_images import as_labels
from medjax.io.nifti import voxel_sizes
from medjax.io.nifti_file import float_values, load_nifti

CODES = {"RV": 1, "MYO": 2, "LV": 3}  # of ACDC


class CineStudy(NamedTuple):
    """Images and labels at ED and ES of one subject, on one grid."""

    image: Float[np.ndarray, "x y z frame"]
    labels: Int[np.ndarray, "x y z frame"]  # background 0, RV 1, myocardium 2, LV 3
    spacing: tuple[float, float, float]  # mm; along z the distance of slice centres
    ed: int  # positions in the frame axis
    es: int
    name: str
    group: str  # diagnosis, as the data set abbreviates it; "" where unknown
    height_cm: float  # NaN where unknown
    weight_kg: float


class CineSeries(NamedTuple):
    """All that an image file of a cine holds; `affine` is nibabel's."""

    array: Float[np.ndarray, "x y z *frame"]
    spacing: tuple[float, float, float]  # mm
    affine: Float[np.ndarray, "4 4"]


def read_series(path: Path, axes: int) -> CineSeries:
    """Read a 3-D or 4-D NIfTI file as float32; a header without qform and sform is accepted: only spacing is used.

    Raises:
        DataError: missing, damaged, another number of axes, not finite, or a voxel size that is not positive.
    """
    file = load_nifti(path)
    if file.ndim != axes:
        raise DataError(f"{path}: shape {file.shape}; expected {axes} axes")
    dx, dy, dz = voxel_sizes(path, file)
    array = float_values(path, file)
    if not np.isfinite(array).all():
        raise DataError(f"{path}: NaN or infinite voxels; expected finite values")
    return CineSeries(array, (dx, dy, dz), np.asarray(file.affine, float))


def to_acdc_codes(values: Float[np.ndarray, "*space"], codes: dict[str, int], path: Path) -> Int[np.ndarray, "*space"]:
    """Labels with a data set's own codes of RV, MYO and LV, in ACDC's; 0 is the background.

    Raises:
        DataError: another label than these, or values that are no labels; `path` is the file in the message.
    """
    labels = as_labels(values, path)
    if unknown := sorted(set(np.unique(labels).tolist()) - {0, *codes.values()}):
        known = ", ".join(f"{name} {code}" for name, code in codes.items())
        raise DataError(f"{path}: label {unknown[0]}; expected 0 and {known}")
    out = np.zeros_like(labels)
    for name, code in codes.items():
        out[labels == code] = CODES[name]
    return out


def check_annotation(labels: Int[np.ndarray, "*space"], path: Path, phase: str) -> None:
    """Refuse a frame without any left ventricle.

    Raises:
        DataError: there is no voxel of it.
    """
    if not np.any(labels == CODES["LV"]):
        raise DataError(f"{path}: no left ventricle at {phase}; expected the annotated frame")


def check_same_series(path: Path, series: CineSeries, image: Path, expected: CineSeries) -> None:
    """Refuse labels that do not lie on their image's grid.

    Raises:
        DataError: another shape or affine.
    """
    check_same_grid(path, series.array.shape, series.affine, image.name, expected.array.shape, expected.affine)


def check_phases(ed: int, es: int, first: int, last: int | None, source: str) -> None:
    """Refuse ED and ES that are one frame or no frame of the cine, numbered from `first` to `last` (None: unknown).

    Raises:
        DataError: they are; `source` is where they are written.
    """
    if ed == es:
        raise DataError(f"{source}: ED and ES are both frame {ed}; expected two frames")
    for phase, frame in (("ED", ed), ("ES", es)):
        if frame < first or (last is not None and frame > last):
            to = "" if last is None else f" to {last}"
            raise DataError(f"{source}: {phase} is frame {frame}; expected a frame from {first}{to}")


def parse_number(text: str) -> float | None:
    """A number, or None where the cell is empty or no finite number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def parse_body(cells: Mapping[str, str]) -> tuple[float, float]:
    """Height in cm and weight in kg of a table's cells, NaN where one is not there, no number, or 0."""
    height, weight = (parse_number(cells.get(name, "")) or math.nan for name in ("Height", "Weight"))
    return height, weight


def parse_frame(text: str, phase: str, source: str) -> int:
    """Number of a frame.

    Raises:
        DataError: no whole number; `source` is where it is written.
    """
    value = parse_number(text)
    if value is None or value != int(value):
        raise DataError(f"{source}: {phase} is '{text}'; expected the number of a frame")
    return int(value)
