"""Registration of a cohort to target subjects, by their MR or, for comparison, by their PET; and how well it did.

    registrar(fixed, moving, grid) → displacement                   voxels of the grid, affine part included

A user's own registrar, a network say, takes the place of `affine_then_greedy`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.pet.multi_subject import People
from medjax.io.nifti import grid_affine
from medjax.pet.grid import Grid as PetGrid
from medjax.phantoms.head_anatomies import CENTER_MM
from medjax.phantoms.multi_subject import LABELS, SubjectHead, true_displacement
from medjax.registration.affine_registration import register_affine
from medjax.registration.greedy import register
from medjax.registration.grid import Grid
from medjax.registration.transforms import AffineTransform, to_displacement
from medjax.registration.warp import compose, jacobian_determinant, warp, warp_labels
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, stage

Registrar = Callable[..., Any]  # (fixed, moving, grid) → displacement
MARGIN = 5  # voxels around the brain within which images are registered
RIM = 2  # voxels at the edge where a fold is none


class Fields(NamedTuple):
    """Displacements from a target's grid to those of a cohort, and measures of each."""

    displacements: Any  # (person, 3, *space), voxels
    dice: Any  # (person, label), of fluid with deep structures, grey and white matter, after registration
    dice_before: Any
    folds: Any  # (person,) fraction of voxels in the brain


def affine_then_greedy(
    fixed: Float[Array, "x y z"],
    moving: Float[Array, "x y z"],
    grid: Grid,
    *,
    factors: Sequence[int] = (4, 2, 1),
    iterations: Sequence[int] = (100, 60, 50),
) -> Float[Array, "3 x y z"]:
    """Affine registration, then a greedy deformable one; their composed displacement in voxels."""
    coarse = slice(None, max(len(factors) - 1, 1))  # an affine map needs no finest level
    matrix = register_affine(
        fixed, grid, moving, grid, factors=tuple(factors[coarse]), iterations=tuple(iterations[coarse])
    )
    start = to_displacement((AffineTransform(matrix),), grid, grid)
    moved = warp(moving, start, outside=0.0)
    found = register(fixed, moved, factors=tuple(factors), iterations=tuple(iterations))
    return compose(start, found.displacement)


def register_cohort(
    work: WorkDir,
    name: str,
    cohort: People,
    targets: People,
    target: int,
    grid: PetGrid,
    registrar: Registrar,
    images: str = "mr",
    box: tuple[slice, ...] | None = None,
) -> Fields:
    """Fields from one of the `targets` to everyone of the cohort; each is kept as stage `name_NUMBER`.

    Args:
        work: work directory.
        name: name of the stages.
        cohort: the people who are carried.
        targets: the people who are carried to.
        target: number of the one of them.
        grid: the grid of all images.
        registrar: see above.
        images: which image is registered, mr or pet, inside the brain.
        box: part of the grid that is registered, one for a whole study so that one program serves all; by default
            `bounding_box_of` these brains.
    """
    fixed, mask = getattr(targets, images)[target] * targets.mask[target], targets.mask[target]
    box = bounding_box_of(mask | cohort.mask.any(axis=0)) if box is None else box
    affine = grid_affine(grid.shape, grid.voxel_mm, CENTER_MM)
    affine[:3, 3] += affine[:3, :3] @ np.array([side.start for side in box], float)
    inner = Grid(mask[box].shape, affine)
    rows = []
    for n in track(list(range(cohort.number)), name):
        moving = getattr(cohort, images)[n] * cohort.mask[n]

        def make(moving: np.ndarray = moving) -> dict[str, np.ndarray]:
            pair = (jnp.asarray(image[box] / max(image.max(), 1e-6), jnp.float32) for image in (fixed, moving))
            return {"displacement": np.asarray(registrar(*pair, inner), np.float32)}

        field = stage(work, f"{name}_{n}", make)["displacement"]
        field = _padded(field, box, mask.shape)
        labels = np.asarray(warp_labels(jnp.asarray(cohort.labels[n]), jnp.asarray(field), outside=0))
        dice, before = (label_dice(one, targets.labels[target]) for one in (labels, cohort.labels[n]))
        rows.append((field, dice, before, folds_fraction(field, mask)))
    return Fields(*(np.stack(column) for column in zip(*rows, strict=True)))


def label_dice(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Dice coefficient of each tissue."""
    pairs = [(labels == value, truth == value) for value in LABELS.values()]
    return np.array([2 * np.sum(a & b) / max(np.sum(a) + np.sum(b), 1) for a, b in pairs])


def folds_fraction(displacement: np.ndarray, mask: np.ndarray) -> float:
    """Fraction of the brain's voxels, a rim of the grid aside, where the field folds."""
    inside = np.zeros_like(mask)
    inside[tuple(slice(RIM, side - RIM) if side > 2 * RIM else slice(None) for side in mask.shape)] = True
    return float(np.mean(np.asarray(jacobian_determinant(jnp.asarray(displacement)))[mask & inside] <= 0))


def field_error_mm(
    displacement: np.ndarray, fixed: SubjectHead, moving: SubjectHead, mask: np.ndarray, grid: PetGrid
) -> tuple[float, float]:
    """Mean distance in the brain, mm, from the known field: of the identity, and of a registration's field."""
    truth = true_displacement(fixed, moving, grid.shape, grid.voxel_mm)
    size = np.asarray(grid.voxel_mm)[:, None]
    errors = [np.linalg.norm((one - truth)[:, mask] * size, axis=0) for one in (np.zeros_like(truth), displacement)]
    return float(errors[0].mean()), float(errors[1].mean())


def bounding_box_of(mask: np.ndarray) -> tuple[slice, ...]:
    """Box around the mask with a margin, inside the grid."""
    ends = [np.flatnonzero(mask.any(axis=tuple(k for k in range(mask.ndim) if k != axis))) for axis in range(mask.ndim)]
    return tuple(
        slice(max(int(one[0]) - MARGIN, 0), min(int(one[-1]) + MARGIN + 1, side))
        for one, side in zip(ends, mask.shape, strict=True)
    )


def default_registrar(factors: Sequence[int], iterations: Sequence[int]) -> Registrar:
    """`affine_then_greedy` with these levels."""
    return partial(affine_then_greedy, factors=factors, iterations=iterations)


def _padded(field: np.ndarray, box: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The field of a box on the whole grid, continued by its values at the edges."""
    margins = [(side.start, size - side.stop) for side, size in zip(box, shape, strict=True)]
    return np.pad(field, [(0, 0), *margins], mode="edge")
