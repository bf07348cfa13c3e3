"""What a PET reconstruction leaves: the image, a picture beside it, the samples' standard deviation, its error."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from medjax.atomic import replacing
from medjax.io.nifti import Volume, write_nifti
from medjax.metrics.image import nrmse
from medjax.report.figures import PET, montage, png

Image = Float[np.ndarray, "x y z"]
Affine = Float[np.ndarray, "4 4"]


def picture_path(output: Path) -> Path:
    """The PNG beside an image: its name with another ending."""
    return output.with_name(output.name.removesuffix(".gz").removesuffix(".nii") + ".png")


def write_reconstruction(
    output: Path, image: Image, spread: Image | None, affine: Affine, title: str, said: str
) -> None:
    """Image and picture, both or neither; before them the samples' standard deviation as …_sd.nii.gz."""
    shown = {title: image} | ({} if spread is None else {"standard deviation": spread})
    drawn = png(montage(shown, affine, scale=PET._replace(unit="activity, arbitrary units"), note=said))
    if spread is not None:
        write_nifti(picture_path(output).with_name(picture_path(output).stem + "_sd.nii.gz"), spread, affine)
    with replacing(picture_path(output)) as picture:
        picture.write(drawn)
        picture.flush()
        write_nifti(output, image, affine)


def nrmse_note(image: Image, affine: Affine, truth: Volume | None) -> str:
    """The error against a truth on the same grid, as the end of a sentence; empty without one."""
    if (
        truth is None
        or not truth.array.any()
        or truth.array.shape != image.shape
        or not np.allclose(truth.affine, affine, atol=1e-3)
    ):
        return ""
    return f", NRMSE {float(nrmse(image, truth.array)):.3f} against the file's truth"
