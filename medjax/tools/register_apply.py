"""`medjax register apply` and `points` as functions: a chain of transforms, applied to an image or to landmarks.

apply_transforms("pet.nii.gz", "mr.nii.gz", ["field.nii.gz", "affine.mat"], "pet_on_mr.nii.gz")
transform_points("landmarks.csv", ["field.nii.gz"], "landmarks_moving.csv")
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.atomic import write_csv
from medjax.errors import ConfigError, DataError
from medjax.io.displacement_fields import LPS
from medjax.io.label_images import as_labels
from medjax.io.nifti import SUFFIXES, Volume, write_nifti
from medjax.io.tables import read_table
from medjax.registration.transform_files import image_on_grid, read_chain
from medjax.registration.transforms import resample, transform_world_points
from medjax.tools.checks import as_paths, check_no_overwrite, check_output, check_volume

AXES = ("x", "y", "z")


def apply_transforms(
    image: Path | str | Volume,
    reference: Path | str | Volume,
    transforms: Sequence[Path | str],
    output: Path | str | None = None,
    *,
    labels: bool = False,
    invert: bool = False,
) -> Volume:
    """Image on the grid of a reference, through a chain of transforms, interpolated once; 0 outside of the image.

    Args:
        image: image to resample.
        reference: image whose grid the result is on.
        transforms: files of fields and affines, from the reference's space to the image's, the first one first.
        output: NIfTI to write; None writes nothing.
        labels: the values are labels: the nearest one is taken, and whole numbers are written.
        invert: apply the inverse of the chain: the files are those of the opposite direction, in their order.

    Raises:
        ConfigError, DataError: no transform, one of another dimension, a file that cannot be read, labels that are no
            whole numbers, or an output that is an input.
    """
    image, reference, output, *files = as_paths(image, reference, output, *transforms)
    if not files:
        raise ConfigError("no transform; expected one or more files with -t")
    if output is not None:
        check_output(output, SUFFIXES)
        check_no_overwrite([output], (image, reference, *files))
    volume, name = check_volume(image, "image")
    target, target_name = check_volume(reference, "reference")
    values, grid = image_on_grid(volume, name)
    _, target_grid = image_on_grid(target, target_name)
    if len(grid.shape) != len(target_grid.shape):
        found = f"{len(grid.shape)}-D, and {target_name} {len(target_grid.shape)}-D"
        raise DataError(f"{name}: {found}; expected two images of one dimension")
    chain = read_chain(files, inverted=invert)
    _check_dimensions(files, chain, len(grid.shape), name, invert)
    whole = as_labels(values, name) if labels else values
    found = np.asarray(resample(whole, grid, target_grid, chain, order="nearest" if labels else "linear"))
    result = Volume(found.reshape(target.array.shape).astype(np.float32), target.affine)
    if output is not None:
        write_nifti(output, result.array, result.affine, _label_type(found) if labels else np.float32)
    return result


def transform_points(
    points: Path | str,
    transforms: Sequence[Path | str],
    output: Path | str | None = None,
    *,
    invert: bool = False,
    lps: bool = False,
) -> list[dict[str, Any]]:
    """Landmarks of the fixed image's space in the moving image's, row by row; other columns are kept.

    Args:
        points: CSV with columns x, y and, in 3-D, z, in mm.
        transforms: files of fields and affines, from the fixed to the moving space, the first one first.
        output: CSV to write; None writes nothing.
        invert: apply the inverse of the chain: from the moving to the fixed space.
        lps: coordinates are along LPS+, as ITK, ANTs and Slicer have them, and not RAS+ as nibabel has them.

    Raises:
        ConfigError, DataError: no transform, files that cannot be read, coordinates that are no numbers, or an output
            that is an input.
    """
    points, output, *files = as_paths(points, output, *transforms)
    if not files:
        raise ConfigError("no transform; expected one or more files with -t")
    if output is not None:
        check_output(output, (".csv",))
        check_no_overwrite([output], (points, *files))
    chain = read_chain(files, inverted=invert)
    size = _dimension(chain[0])
    _check_dimensions(files, chain, size, str(files[0]), invert)
    rows = read_table(points, AXES[:size])
    try:
        values = np.array([[float(row[axis]) for axis in AXES[:size]] for row in rows])
    except ValueError as error:
        raise DataError(f"{points}: {error}; expected numbers in mm") from error
    if not np.isfinite(values).all():
        raise DataError(f"{points}: coordinates that are not finite; expected numbers in mm")
    signs = LPS[:size] if lps else np.ones(size)
    mapped = np.asarray(transform_world_points(chain, values * signs)) * signs
    table = [row | dict(zip(AXES, one.tolist(), strict=False)) for row, one in zip(rows, mapped, strict=True)]
    if output is not None:
        header = list(rows[0])
        cells = [[f"{row[name]:.4f}" if name in AXES[:size] else row[name] for name in header] for row in table]
        write_csv(output, header, cells)
    return table


def _dimension(transform: Any) -> int:
    return len(transform.grid.shape) if hasattr(transform, "grid") else len(transform.matrix) - 1


def _check_dimensions(files: Sequence[Path], chain: tuple[Any, ...], size: int, name: str, invert: bool) -> None:
    for file, transform in zip(files, reversed(chain) if invert else chain, strict=True):
        if _dimension(transform) != size:
            raise DataError(f"{file}: a {_dimension(transform)}-D transform; expected {size}-D, as {name}")


def _label_type(labels: np.ndarray) -> type:
    largest = int(labels.max(initial=0))
    return np.uint8 if largest < 256 else np.uint16 if largest < 65536 else np.int32
