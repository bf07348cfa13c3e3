"""Displacement fields in NIfTI as SimpleITK and ANTs write them: axes (x, y, z, 1, component), vector intent (1007).

Files hold components along LPS+ in mm, for a map of points of the fixed image to the moving one, x + d(x); arrays have
their components first and along RAS+, as affines are. A 2-D field is (x, y, 1, 1, 2), on an affine of 3 × 3.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from medjax.atomic import replacing_together
from medjax.errors import DataError
from medjax.io.nifti import affine_of
from medjax.io.nifti_file import SUFFIXES, float_values, load_nifti

VECTOR = 1007  # NIfTI's intent code
LPS = np.array([-1.0, -1.0, 1.0])  # signs of LPS+ axes along RAS+


class DisplacementField(NamedTuple):
    """Displacement of each voxel's world position, mm along RAS+, with the grid's affine."""

    displacement_mm: Float[np.ndarray, "dim *space"]
    affine: Float[np.ndarray, "size size"]  # voxel index → RAS+ mm, (dim + 1, dim + 1)


def read_displacement_field(path: str | Path) -> DisplacementField:
    """Read a displacement field from a NIfTI file of SimpleITK, ANTs or this module.

    Raises:
        DataError: missing, damaged, without affine, not 5-D with one frame and a component for each axis of space, or
            with NaN or infinite values.
    """
    path = Path(path)
    image = load_nifti(path)
    shape = image.shape
    planar = len(shape) == 5 and shape[2] == 1 and shape[4] == 2
    if len(shape) != 5 or shape[3] != 1 or not (planar or shape[4] == 3):
        raise DataError(f"{path}: shape {shape}; expected a displacement field, (x, y, z, 1, 3) or (x, y, 1, 1, 2)")
    affine = affine_of(path, image)
    values = float_values(path, image)[:, :, :, 0]
    if not np.isfinite(values).all():
        raise DataError(f"{path}: NaN or infinite displacements; expected finite values")
    along_ras = np.moveaxis(values * LPS[: shape[4]].astype(np.float32), -1, 0)
    if planar:
        return DisplacementField(np.ascontiguousarray(along_ras[..., 0]), planar_affine(affine, path))
    return DisplacementField(np.ascontiguousarray(along_ras), affine)


def write_displacement_field(
    path: str | Path,
    displacement_mm: Float[np.ndarray, "dim *space"] | Float[Array, "dim *space"],
    affine: Float[np.ndarray, "size size"],
) -> None:
    """Write a displacement field, mm along RAS+, as SimpleITK and ANTs read it; whole or not at all.

    Raises:
        DataError: another name than .nii or .nii.gz, not 2-D or 3-D, an affine of another size, or not finite.
        OSError: it cannot be written.
    """
    import nibabel

    path, field = Path(path), np.asarray(displacement_mm, np.float32)
    size = len(field)
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: expected a name that ends in .nii or .nii.gz")
    if size not in (2, 3) or field.ndim != size + 1 or np.shape(affine) != (size + 1, size + 1):
        found = f"shape {field.shape} and a {'×'.join(map(str, np.shape(affine)))} affine"
        raise DataError(f"{path}: a field of {found} to write; expected (2, x, y) or (3, x, y, z)")
    if not np.isfinite(field).all():
        raise DataError(f"{path}: NaN or infinite displacements to write; expected finite values")
    stored = np.moveaxis(field, 0, -1) * LPS[:size].astype(np.float32)
    stored = stored.reshape(*field.shape[1:], *[1] * (3 - size), 1, size)
    matrix = spatial_affine(np.asarray(affine, float))
    image = nibabel.Nifti1Image(stored, matrix)
    image.set_qform(matrix, code="scanner")
    image.set_sform(matrix, code="scanner")
    image.header.set_intent(VECTOR)
    image.header.set_xyzt_units("mm")
    with replacing_together(path) as (part,):
        nibabel.save(image, part)


def planar_affine(affine: Float[np.ndarray, "4 4"], name: Path | str) -> Float[np.ndarray, "3 3"]:
    """Affine of a slice within its plane, 3 × 3, from one of NIfTI; the plane must be axial.

    Raises:
        DataError: the slice is tilted out of the axial plane.
    """
    tilt = max(np.abs(affine[2, :2]).max(), np.abs(affine[:2, 2]).max())
    if tilt > 1e-4 * np.abs(affine[:3, :3]).max():
        raise DataError(f"{name}: a slice tilted out of the axial plane; expected a 2-D image of axes x and y")
    return np.delete(np.delete(affine, 2, 0), 2, 1)


def spatial_affine(affine: Float[np.ndarray, "size size"]) -> Float[np.ndarray, "4 4"]:
    """Affine for NIfTI, 4 × 4: a planar one gets an axis z of 1 mm at height 0; others stay."""
    if affine.shape == (4, 4):
        return affine
    out = np.eye(4)
    out[np.ix_([0, 1, 3], [0, 1, 3])] = affine
    return out
