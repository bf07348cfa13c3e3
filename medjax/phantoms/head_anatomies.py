"""Real anatomies of heads for simulated cohorts: MNI152, a T1 with FreeSurfer's labels, or a skull-stripped T1 alone.

    mni152()   read_anatomy(Path("subject_1"))   read_anatomy(Path("ch2bet.nii.gz"))    of Colin27, mricron-data

Each is fractions of the tissues of `mni.Tissues` on an axis-aligned grid, RAS+, moved so that its brain is
centred where that of MNI152 is, with what its T1 shows beyond a mixture of tissues. No anatomy comes with medjax.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError
from medjax.io.grids import check_same_grid
from medjax.io.label_images import as_labels
from medjax.io.nifti import Number, Volume, grid_affine, read_nifti, resample
from medjax.phantoms.brain import T1_OUTSIDE_BRAIN
from medjax.phantoms.freesurfer import FREESURFER_LABELS, MARGIN, tissues_of_labels
from medjax.phantoms.mni import Tissues, bounding_box, head_tissues, mix, mni_anatomy

CENTER_MM = (0.0, -18.0, 10.0)  # middle of a brain, MNI
INSIDE = ("gray", "white", "thalamus", "brainstem", "fluid", "sinus")  # tissues of the T1
CLASS_ITERATIONS = 50  # of the three tissue classes' means


class HeadAnatomy(NamedTuple):
    """A head: fractions of its tissues, and its T1 as Σ fraction · value + texture."""

    name: str
    tissues: dict[str, Float[np.ndarray, "x y z"]]  # fraction of each of `mni.Tissues`
    t1_values: Tissues  # T1 of each tissue, white matter about 0.9
    texture: Float[np.ndarray, "x y z"]  # what the T1 shows beyond that, inside the brain
    affine: Float[np.ndarray, "4 4"]  # voxel → mm, axis-aligned, RAS+


def mni152(voxel_mm: Number = 1.0) -> HeadAnatomy:
    """MNI152, averaged over voxels of `voxel_mm`; 1 mm is its own.

    Raises:
        DataError: nilearn, which holds the anatomy, is not installed.
    """
    found = mni_anatomy()
    return _head("mni152", found.t1, found.tissues, found.affine, voxel_mm)


def read_anatomy(path: Path, voxel_mm: Number = 1.0) -> HeadAnatomy:
    """Anatomy of a folder with t1.nii.gz and labels.nii.gz (FreeSurfer's aseg), or of one skull-stripped T1.

    A T1 alone is divided into fluid, grey and white matter by three classes of intensity, a voxel between two classes
    being a mixture of both; then skull and scalp are drawn around it as around MNI152, in whose space it is to be.

    Raises:
        DataError: a file cannot be read, the grids differ, or it shows no brain.
        FileNotFoundError: there is no such file.
    """
    if not path.is_dir():
        volume = _canonical(read_nifti(path), voxel_mm)
        gray, white = _two_tissues(path, volume.array)
        tissues, _ = head_tissues(volume.array > 0, gray, white, volume.affine)
        return _head(path.name, volume.array, tissues, volume.affine, voxel_mm)
    t1, labels = (read_nifti(path / name) for name in ("t1.nii.gz", "labels.nii.gz"))
    file = path / "labels.nii.gz"
    check_same_grid(file, labels.array.shape, labels.affine, "t1.nii.gz", t1.array.shape, t1.affine)
    numbers = np.pad(as_labels(labels.array, file), MARGIN)
    if not all(np.isin(numbers, FREESURFER_LABELS[name]).any() for name in ("gray", "white")):
        raise DataError(f"{file}: no grey or white matter; expected FreeSurfer's label numbers")
    affine = t1.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, MARGIN)
    images = tissues_of_labels(numbers) | {"t1": np.pad(t1.array, MARGIN) * (numbers > 0)}
    moved = {
        name: _canonical(Volume(np.asarray(image, np.float32), affine), voxel_mm) for name, image in images.items()
    }
    grid = moved["t1"].affine
    return _head(path.name, moved.pop("t1").array, {name: one.array for name, one in moved.items()}, grid, voxel_mm)


def _head(
    name: str, t1: np.ndarray, tissues: dict[str, np.ndarray], affine: np.ndarray, voxel_mm: Number
) -> HeadAnatomy:
    """The anatomy, averaged over its voxels, with its brain in the middle and its T1 taken apart."""
    every = {one: tissues.get(one, np.zeros_like(t1)) for one in Tissues._fields} | {"t1": t1}
    if voxel_mm > 1.2 * float(np.min(np.abs(np.diag(affine)[:3]))):
        grids = {one: _canonical(Volume(image, affine), voxel_mm) for one, image in every.items()}
        every, affine = {one: volume.array for one, volume in grids.items()}, grids["t1"].affine
    t1 = every.pop("t1")
    brain = np.sum([every[one] for one in ("gray", "white", "thalamus", "brainstem")], axis=0)
    if not brain.any():
        raise DataError(f"{name}: no grey or white matter; expected a brain")
    first, last = bounding_box(brain > 0.5)
    affine = affine.copy()
    affine[:3, 3] += np.asarray(CENTER_MM) - (affine[:3, :3] @ ((first + last) / 2) + affine[:3, 3])
    t1 = t1 / max(float(np.percentile(t1[brain > 0.5], 95)), 1e-6)
    seen = (t1 > 0) & (sum(every[one] for one in INSIDE) > 0.99)
    mixtures = np.stack([every[one][seen][::5] for one in INSIDE], axis=1).astype(np.float64)
    ridge = 1e-3 * len(mixtures) * np.eye(len(INSIDE))
    near = np.array([0.6, 0.9, 0.75, 0.85, 0.3, 0.3])  # of tissues that the anatomy does not show
    fitted = np.linalg.solve(
        mixtures.T @ mixtures + ridge, mixtures.T @ np.asarray(t1[seen][::5], np.float64) + ridge @ near
    )
    values = Tissues(**T1_OUTSIDE_BRAIN, **dict(zip(INSIDE, fitted.tolist(), strict=True)))
    texture = np.where(seen, t1 - mix(every, values._asdict()), 0).astype(np.float32)
    return HeadAnatomy(name, every, values, texture, affine)


def _canonical(volume: Volume, voxel_mm: Number) -> Volume:
    """The volume on an axis-aligned grid, RAS+, that covers it."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    corners[:, :3] *= np.asarray(volume.array.shape) - 1
    ends = (volume.affine @ corners.T)[:3]
    low, high = ends.min(axis=1), ends.max(axis=1)
    x, y, z = (int(np.ceil(side / voxel_mm)) + 1 for side in (high - low).tolist())
    a, b, c = ((low + high) / 2).tolist()
    affine = grid_affine((x, y, z), voxel_mm, (a, b, c))
    return resample(volume, (x, y, z), affine)


def _two_tissues(path: Path, t1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractions of grey and white matter: mixtures of the two nearest of three class means (k-means)."""
    inside = t1[t1 > 0]
    if len(inside) < 1000:
        raise DataError(f"{path}: {len(inside)} voxels above 0; expected a skull-stripped T1")
    means = np.percentile(inside, (10, 45, 85))
    for _ in range(CLASS_ITERATIONS):
        nearest = np.digitize(inside, (means[:-1] + means[1:]) / 2)
        means = np.array([inside[nearest == k].mean() if (nearest == k).any() else means[k] for k in range(3)])
    if not means[0] < means[1] < means[2]:
        raise DataError(f"{path}: classes of means {means.tolist()}; expected three tissues")
    gray = np.interp(t1, means, [0.0, 1.0, 0.0])
    white = np.interp(t1, means[1:], [0.0, 1.0])
    return gray.astype(np.float32) * (t1 > 0), white.astype(np.float32) * (t1 > 0)
