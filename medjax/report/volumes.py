"""NIfTI volumes with a PNG montage beside them."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from medjax.atomic import replacing
from medjax.io.nifti import write_nifti
from medjax.report.figures import Scale, montage, png

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
    """Write a volume as NIfTI and a PNG montage of the same name, both or neither, and its SD as …_sd.nii.gz first.

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
        OSError: one cannot be written; volume and montage are then what they were.
    """
    montage_file = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".png")
    shown = {title: image} | ({} if sd is None else {"standard deviation": sd})
    drawn = png(montage(shown, affine, scale=scale, note=note))
    deviation = montage_file.with_name(montage_file.stem + "_sd.nii.gz")
    if sd is not None:
        write_nifti(deviation, sd, affine)
    with replacing(montage_file) as file:
        file.write(drawn)
        file.flush()
        write_nifti(path, image, affine)
    return (path, montage_file) if sd is None else (path, montage_file, deviation)
