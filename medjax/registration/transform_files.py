"""Transforms and images from files: ITK's affines and displacement fields, NIfTI images with their grids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medjax.io.displacement_fields import planar_affine, read_displacement_field, write_displacement_field
from medjax.io.itk_transforms import AFFINE_SUFFIXES, read_itk_affine, write_itk_affine
from medjax.io.nifti import Volume, read_nifti
from medjax.registration.grid import Grid, check_grid
from medjax.registration.transforms import AffineTransform, Chain, FieldTransform, Transform, invert_chain


def read_transform(path: str | Path, *, inverted: bool = False) -> Transform:
    """Transform of a file: a displacement field (.nii, .nii.gz) or an affine (.txt, .tfm, .mat); or its inverse.

    Raises:
        DataError: the file cannot be read as either, or an affine to invert is singular.
    """
    path = Path(path)
    if path.name.endswith(AFFINE_SUFFIXES):
        matrix = read_itk_affine(path)
        check_grid(Grid((1,) * (len(matrix) - 1), matrix), str(path))  # a singular one cannot be of use
        transform = AffineTransform(matrix)
    else:
        field = read_displacement_field(path)
        transform = FieldTransform(field.displacement_mm, Grid(field.displacement_mm.shape[1:], field.affine))
    return invert_chain((transform,))[0] if inverted else transform


def read_chain(paths: Sequence[Path | str], *, inverted: bool = False) -> Chain:
    """Chain of transforms of files, the first one applied first to points of the fixed image's space; or its inverse.

    Raises:
        DataError: as `read_transform`.
    """
    transforms = [read_transform(path, inverted=inverted) for path in paths]
    return tuple(reversed(transforms) if inverted else transforms)


def write_transform(path: str | Path, transform: Transform) -> None:
    """Write a transform as ITK reads it: an affine as .txt, .tfm or .mat, a field as .nii or .nii.gz.

    Raises:
        DataError: the name ends otherwise, or the transform is not finite.
        OSError: it cannot be written.
    """
    if isinstance(transform, AffineTransform):
        write_itk_affine(path, np.asarray(transform.matrix, float))
    else:
        write_displacement_field(path, transform.displacement_mm, np.asarray(transform.grid.affine, float))


def read_image_on_grid(path: Path | str) -> tuple[Float[np.ndarray, "*space"], Grid]:
    """Image of a NIfTI file, and its grid; of one slice it is 2-D, with a 3 × 3 affine.

    Raises:
        DataError: it cannot be read, or a slice is tilted out of the axial plane.
    """
    return image_on_grid(read_nifti(path), str(path))


def image_on_grid(volume: Volume, name: str = "image") -> tuple[Float[np.ndarray, "*space"], Grid]:
    """Values and grid of a volume; a volume of one slice is 2-D.

    Raises:
        DataError: a slice is tilted out of the axial plane.
    """
    if volume.array.shape[2] > 1:
        return volume.array, Grid(volume.array.shape, volume.affine)
    return volume.array[..., 0], Grid(volume.array.shape[:2], planar_affine(volume.affine, name))
