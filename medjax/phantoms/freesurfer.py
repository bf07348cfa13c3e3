"""Brain phantoms from a T1 with FreeSurfer's segmentation: a subject's own anatomy with the phantoms' tissues.

    head = read_head(folder)                       t1.nii.gz and labels.nii.gz (aseg), skull-stripped, on one grid
    brain = resample_head(head, (2.5, 2.5, 2.5), (96, 96, 1), center_mm)

Skull and scalp are shells of constant thickness around the labelled brain; there is no fluid outside of it.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError
from medjax.io.grids import check_same_grid
from medjax.io.label_images import as_labels
from medjax.io.nifti import Number, Volume, grid_affine, read_nifti, resample
from medjax.phantoms.brain import ACTIVITY, MU_SOFT, Brain
from medjax.phantoms.mni import mix

# FreeSurfer's label numbers (aseg); all others are fluid.
FREESURFER_LABELS = {
    "gray": (3, 42, 8, 47, 11, 12, 13, 17, 18, 26, 50, 51, 52, 53, 54, 58),
    "white": (2, 41, 7, 46, 28, 60, 85, 251, 252, 253, 254, 255),
    "thalamus": (10, 49),
    "brainstem": (16,),
}
SKULL, SCALP, MARGIN = 8, 14, 20  # voxels from the brain to their outer surfaces, and of air around it


class Head(NamedTuple):
    """Images of a head on its T1's grid, by their names in `Brain`, and `brain`, 1 inside the labelled brain."""

    images: dict[str, Float[np.ndarray, "x y z"]]
    affine: Float[np.ndarray, "4 4"]

    @property
    def center_of_mass_mm(self) -> tuple[float, float, float]:
        """Centre of mass of the brain, mm."""
        from scipy import ndimage

        middle = ndimage.center_of_mass(self.images["brain"])
        x, y, z = (self.affine[:3, :3] @ middle + self.affine[:3, 3]).tolist()
        return x, y, z


def read_head(folder: Path, tracer: str = "fdg") -> Head:
    """Read a head from t1.nii.gz and labels.nii.gz (aseg) in `folder`; `tracer` is a key of `brain.ACTIVITY`.

    Raises:
        DataError: a file cannot be read, the grids differ, or there is no grey or no white matter.
        FileNotFoundError: there is no such file.
    """
    t1, labels = read_nifti(folder / "t1.nii.gz"), read_nifti(folder / "labels.nii.gz")
    file = folder / "labels.nii.gz"
    check_same_grid(file, labels.array.shape, labels.affine, "t1.nii.gz", t1.array.shape, t1.affine)
    numbers = as_labels(labels.array, file)
    if not all(np.isin(numbers, FREESURFER_LABELS[name]).any() for name in ("gray", "white")):
        raise DataError(f"{folder}/labels.nii.gz: no grey or white matter; expected FreeSurfer's label numbers")
    affine = t1.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, MARGIN)
    return Head(_images(np.pad(t1.array, MARGIN), np.pad(numbers, MARGIN), tracer), affine)


def resample_head(
    head: Head,
    voxel_mm: Number | tuple[Number, Number, Number],
    shape: tuple[int, int, int],
    center_mm: tuple[Number, Number, Number],
) -> Brain:
    """Resample a head to a grid around `center_mm`, averaged over its voxels; without lesions."""
    affine = grid_affine(shape, voxel_mm, center_mm)
    moved = {name: resample(Volume(array, head.affine), shape, affine).array for name, array in head.images.items()}
    inside, none = moved.pop("brain") >= 0.5, np.zeros(shape, np.int32)
    outside = moved["mu"] > 0.5 * MU_SOFT
    return Brain(**moved, brain_mask=inside, head_mask=outside, lesions=none, lesion_ids=none, affine=affine)


def tissues_of_labels(labels: Int[np.ndarray, "x y z"]) -> dict[str, Float[np.ndarray, "x y z"]]:
    """Tissues of FreeSurfer's labels, 0 or 1, by their names in `mni.Tissues`, with shells of skull and scalp."""
    from scipy import ndimage

    brain = labels > 0
    tissues = {name: np.asarray(np.isin(labels, numbers), np.float32) for name, numbers in FREESURFER_LABELS.items()}
    tissues["fluid"] = np.asarray(brain - np.sum(list(tissues.values()), axis=0), np.float32)
    distance = np.asarray(ndimage.distance_transform_edt(~brain))
    skull, head = distance < SKULL, distance < SCALP
    tissues["skull"] = np.asarray(skull & ~brain, np.float32)
    tissues["scalp"] = np.asarray(head & ~skull, np.float32)
    return tissues


def _images(t1: Float[np.ndarray, "x y z"], labels: Int[np.ndarray, "x y z"], tracer: str) -> dict[str, np.ndarray]:
    brain, tissues = labels > 0, tissues_of_labels(labels)
    head = brain | (tissues["skull"] + tissues["scalp"] > 0)
    values = {name: value for name, value in ACTIVITY[tracer]._asdict().items() if name in tissues}
    return {
        "activity": mix(tissues, values),
        "t1": t1 / max(float(np.percentile(t1[brain], 95)), 1e-6),
        "mu": np.asarray(MU_SOFT * head, np.float32),
        "gray": tissues["gray"],
        "white": tissues["white"],
        "brain": np.asarray(brain, np.float32),
    }
