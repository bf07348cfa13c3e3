"""An image as NIfTI with a picture of it beside it."""

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
    """Write an image and a PNG of the same name, both or neither; before them its standard deviation as …_sd.nii.gz.

    Returned are the files: image, picture and, if any, standard deviation.

    Raises:
        OSError: one cannot be written; image and picture are then what they were.
    """
    picture = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".png")
    shown = {title: image} | ({} if sd is None else {"standard deviation": sd})
    drawn = png(montage(shown, affine, scale=scale, note=note))
    deviation = picture.with_name(picture.stem + "_sd.nii.gz")
    if sd is not None:
        write_nifti(deviation, sd, affine)
    with replacing(picture) as file:
        file.write(drawn)
        file.flush()
        write_nifti(path, image, affine)
    return (path, picture) if sd is None else (path, picture, deviation)
