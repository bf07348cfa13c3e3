"""NIfTI volumes with a PNG montage beside them."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medjax.atomic import replacing_together
from medjax.io.nifti import write_nifti
from medjax.report.figures import DEVIATION, Scale, montage, png

Image = Float[np.ndarray, "x y z"]


def write_volume(
    path: Path,
    image: Image,
    affine: Float[np.ndarray, "4 4"],
    scale: Scale,
    title: str,
    sd: Image | None = None,
    note: str = "",
) -> tuple[Path, ...]:
    """Write a volume as NIfTI, a PNG montage of the same name and its SD as …_sd.nii.gz, all or none.

    Without an SD, one of that name from before stays; a line on stderr says that it is of another run.

    Args:
        path: NIfTI file.
        image: the volume.
        affine: voxel → RAS+ mm.
        scale: intensity scale of the montage.
        title: name of the image in the montage.
        sd: standard deviation of the image.
        note: line at the foot of the montage.

    Returns the files: volume, montage and, if any, standard deviation.

    Raises:
        DataError: an image or the affine is not finite.
        OSError: one cannot be written; all are then what they were.
    """
    files = volume_files(path, sd=sd is not None)
    deviation = "standard deviation"  # far below the image, so on a scale of its own
    shown = {title: image} | ({} if sd is None else {deviation: sd})
    own = {deviation: DEVIATION._replace(unit=f"{deviation} of {scale.unit}")}
    drawn = png(montage(shown, affine, scale=scale, other_scales=own, note=note))
    with replacing_together(*files) as parts:
        write_nifti(parts[0], image, affine)
        parts[1].write_bytes(drawn)
        if sd is not None:
            write_nifti(parts[2], sd, affine)
    if sd is None and (other := volume_files(path, sd=True)[2]).exists():
        warnings.warn(f"{other}: was there before, of another run than {path.name}; it stays", stacklevel=3)
    return files


def volume_files(path: Path, *, sd: bool) -> tuple[Path, ...]:
    """Names of the files of a volume: the volume, its montage and, with `sd`, its standard deviation."""
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    names = (path.name, f"{stem}.png", f"{stem}_sd.nii.gz")
    return tuple(path.with_name(name) for name in names[: 2 + sd])
