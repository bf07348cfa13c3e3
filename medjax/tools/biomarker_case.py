"""One case of `medjax biomarkers`: the label maps of a sample of a subject, and their reading.

case = Case("P1", "", (Path("ed.nii.gz"), Path("es.nii.gz")), None)
maps = read_case(case)                     labels (x, y, z, frame) with spacing; ED and ES are a cine of two frames
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from medjax.errors import DataError
from medjax.io.label_images import as_labels
from medjax.io.nifti import MM_PER_UNIT, voxel_sizes
from medjax.io.nifti_file import float_values, load_nifti
from medjax.uncertainty.volume_curve import Frames

if TYPE_CHECKING:
    from nibabel import Nifti1Image

SECONDS_PER_UNIT = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
FRAME_S = (0.005, 0.2)  # seconds between frames of a cine; beyond, the header's number is another one
SPACING_TOLERANCE = 0.01  # relative difference of two spacings that counts as none


class Case(NamedTuple):
    """Label maps of one sample of a subject: of ED and ES, or of a cine, with fixed frames or not."""

    subject: str
    sample: str  # "" where there is one map of each subject
    files: tuple[Path, ...]  # (ED, ES), or (cine,)
    frames: Frames | None  # of the cine, fixed
    height_cm: float = math.nan
    weight_kg: float = math.nan
    layout: str = ""  # of LAYOUTS, whose label codes it has

    @property
    def name(self) -> str:
        """Name of the case in messages."""
        return f"{self.subject} sample {self.sample}" if self.sample else self.subject


class LabelMaps(NamedTuple):
    """Label maps of the frames of one case."""

    labels: Int[np.ndarray, "x y z frame"]
    spacing: tuple[float, float, float]  # mm
    frame_s: float  # seconds between frames, NaN if not known


def read_case(case: Case) -> LabelMaps:
    """Read the label maps of a case: a cine, or ED and ES as its two frames.

    Raises:
        DataError: a file that cannot be read, holds no labels, has no positive spacing, one that contradicts its
            affine, or another grid at ES than at ED; a cine of one frame, or without the frames that are named.
    """
    maps = [_read(path) for path in case.files]
    first = maps[0]
    if len(maps) == 1:
        if first.labels.shape[3] < 2:
            raise DataError(f"{case.files[0]}: one frame; expected a cine, 4-D with frames last")
        if case.frames is not None and not 0 <= min(case.frames) <= max(case.frames) < first.labels.shape[3]:
            found = f"ED frame {case.frames.ed}, ES frame {case.frames.es}"
            raise DataError(f"{case.files[0]}: {found}; expected 0 to {first.labels.shape[3] - 1}, its frames")
        return first
    for path, one in zip(case.files, maps, strict=True):
        if one.labels.shape[3] != 1:
            raise DataError(f"{path}: {one.labels.shape[3]} frames; expected one")
        if one.labels.shape != first.labels.shape or not np.allclose(one.spacing, first.spacing, SPACING_TOLERANCE):
            raise DataError(
                f"{path}: shape {one.labels.shape[:3]}, spacing {_mm(one.spacing)}; expected those of "
                f"{case.files[0]}, {first.labels.shape[:3]} and {_mm(first.spacing)}"
            )
    return LabelMaps(np.concatenate([one.labels for one in maps], axis=3), first.spacing, math.nan)


def _read(path: Path) -> LabelMaps:
    image = load_nifti(path)
    shape = image.shape[:3] + tuple(side for side in image.shape[3:] if side != 1)
    if len(shape) not in (3, 4):
        raise DataError(f"{path}: shape {image.shape}; expected (x, y, z) or (x, y, z, frame)")
    labels = as_labels(float_values(path, image), path)
    return LabelMaps(labels.reshape(*shape[:3], -1), _spacing(path, image), _frame_s(image))


def _spacing(path: Path, image: "Nifti1Image") -> tuple[float, float, float]:
    """Voxel size of the header (pixdim) in mm, which its affine must not contradict."""
    x, y, z = voxel_sizes(path, image)
    unit = MM_PER_UNIT[str(image.header.get_xyzt_units()[0])]
    affine, code = image.header.get_sform(coded=True)
    if affine is not None and code:
        other = np.linalg.norm(affine[:3, :3], axis=0) * unit
        if not np.allclose(other, (x, y, z), SPACING_TOLERANCE):
            raise DataError(
                f"{path}: spacing (pixdim) {_mm((x, y, z))}, but {_mm(other.tolist())} by its affine (sform); "
                "expected one: correct the header"
            )
    return x, y, z


def _frame_s(image: "Nifti1Image") -> float:
    unit = SECONDS_PER_UNIT.get(str(image.header.get_xyzt_units()[1]), math.nan)
    seconds = float((*image.header.get_zooms(), math.nan)[3]) * unit
    return seconds if FRAME_S[0] <= seconds <= FRAME_S[1] else math.nan


def _mm(spacing: Sequence[float]) -> str:
    return " × ".join(f"{size:g}" for size in spacing) + " mm"
