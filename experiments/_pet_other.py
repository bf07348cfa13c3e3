"""A brain that is no deformation of MNI152: a T1 with FreeSurfer labels, given the tissues of the phantoms."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from experiments._pet import FINE_MM, Setup, Subject, simulated
from medjax.errors import DataError
from medjax.io.nifti import Volume, grid_affine, read_nifti, resample
from medjax.pet.grid import Grid
from medjax.phantoms.brain import ACTIVITY, MU_SOFT, Brain
from medjax.phantoms.mni import mix

# FreeSurfer's numbers (aseg); what is not named is fluid
GREY = (3, 42, 8, 47, 11, 12, 13, 17, 18, 26, 50, 51, 52, 53, 54, 58)
WHITE = (2, 41, 7, 46, 28, 60, 85, 251, 252, 253, 254, 255)
THALAMUS, BRAINSTEM = (10, 49), (16,)
ROOM = 20  # voxels of air for skull and scalp
SLICES_MM = (10.0, 30.0)  # above the brain's middle


def other_subjects(b: Setup, folder: Path) -> list[Subject]:
    """Two slices of the brain in `folder`: t1.nii.gz and labels.nii.gz on one grid, skull-stripped.

    Raises:
        DataError: the grids differ, or there is no grey or white matter.
    """
    t1, labels = read_nifti(folder / "t1.nii.gz"), read_nifti(folder / "labels.nii.gz")
    if t1.array.shape != labels.array.shape:
        raise DataError(f"{folder}: T1 {t1.array.shape} and labels {labels.array.shape}; expected one grid")
    images = _images(np.pad(t1.array, ROOM), np.pad(np.rint(labels.array).astype(int), ROOM), folder)
    affine = t1.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, ROOM)
    middle = ndimage.center_of_mass(images["brain"])
    x, y, z = (affine[:3, :3] @ middle + affine[:3, 3]).tolist()
    return [_slice(b, images, affine, (x, y, z + up)) for up in SLICES_MM]


def _images(t1: np.ndarray, labels: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    brain = labels > 0
    parts = {"grey": GREY, "white": WHITE, "thalamus": THALAMUS, "brainstem": BRAINSTEM}
    tissues = {name: np.asarray(np.isin(labels, numbers), np.float32) for name, numbers in parts.items()}
    if not (tissues["grey"].any() and tissues["white"].any()):
        raise DataError(f"{folder}/labels.nii.gz: no grey or white matter; expected FreeSurfer's label numbers")
    tissues["fluid"] = np.asarray(brain - np.sum(list(tissues.values()), axis=0), np.float32)
    distance = np.asarray(ndimage.distance_transform_edt(~brain))
    skull, head = distance < 8, distance < 14
    tissues["skull"] = np.asarray(skull & ~brain, np.float32)
    tissues["scalp"] = np.asarray(head & ~skull, np.float32)
    values = {name: value for name, value in ACTIVITY["fdg"]._asdict().items() if name in tissues}
    return {
        "activity": mix(tissues, values),
        "t1": t1 / max(float(np.percentile(t1[brain], 95)), 1e-6),
        "mu": np.asarray(MU_SOFT * head, np.float32),
        "grey": tissues["grey"],
        "white": tissues["white"],
        "brain": np.asarray(brain, np.float32),
    }


def _slice(b: Setup, images: dict[str, np.ndarray], affine: np.ndarray, centre: tuple[float, float, float]) -> Subject:
    fine = Grid((240, 240, 1), (FINE_MM, FINE_MM, b.grid.voxel_mm[2]))
    return simulated(
        b.scanner, b.resolution_mm, _brain(images, affine, b.grid, centre), _brain(images, affine, fine, centre), fine
    )


def _brain(images: dict[str, np.ndarray], affine: np.ndarray, grid: Grid, centre: tuple[float, float, float]) -> Brain:
    place = grid_affine(grid.shape, grid.voxel_mm, centre)
    moved = {name: resample(Volume(array, affine), grid.shape, place).array for name, array in images.items()}
    inside, none = moved.pop("brain") >= 0.5, np.zeros(grid.shape, np.int32)
    head = moved["mu"] > 0.5 * MU_SOFT
    return Brain(**moved, brain_mask=inside, head_mask=head, lesions=none, lesion_ids=none, affine=place)
