"""Multi-subject PET–MR cohorts: real anatomies, deformed with known fields, and varied as no warp can undo.

    for head in multi_subject(0, 12, [mni152()]): image = on_grid(head, 2.5, (96, 96, 72))            12 subjects
    true_displacement(target, other, affine, shape)                    the field that a registration is to find

Each subject has an affine map and a diffeomorphism of its own, thickness of cortex, width of sulci and size of
ventricles (`tissue_variation`), activities of tissues and regions (`uptake`), contrast, bias field and noise of the MR.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError
from medjax.io.nifti import Number, grid_affine
from medjax.phantoms.brain import MU_BONE, MU_SOFT, Brain
from medjax.phantoms.head_anatomies import CENTER_MM, HeadAnatomy
from medjax.phantoms.heads import Deformation, deform, deformation
from medjax.phantoms.mni import Tissues, mix
from medjax.phantoms.tissue_variation import Variation, random_variation, vary_tissues
from medjax.phantoms.uptake import ACTIVITY_RANGES, Family, uptake

T1_CONTRAST_SD, BIAS_FIELD_SD, BIAS_FIELD_MM = 0.06, 0.06, 40.0  # of logarithms; SD of the bias field's filter
T1_NOISE_SD = 0.04  # a voxel of 1 mm, white matter about 0.9
SQUARINGS = 6  # of the exponential of a velocity field
DAMPING = 0.6  # of the inverse of a deformation: where it stretches threefold, whole steps diverge
LABELS = {"other": 1, "gray": 2, "white": 3}  # of `tissue_labels`; other: fluid, thalamus, brainstem


class SubjectHead(NamedTuple):
    """A subject: its head before deformation, on its anatomy's grid, and what deforms it."""

    anatomy: str  # name of the anatomy
    brain: Brain  # undeformed, with the subject's own tissues, activity and T1
    change: Deformation  # a location of the subject → that of the undeformed head, mm
    variation: Variation


def multi_subject(
    seed: int,
    number: int,
    anatomies: Sequence[HeadAnatomy],
    tracer: str = "fdg",
    strength: Number = 1.0,
    first: int = 0,
) -> Iterator[SubjectHead]:
    """So many subjects, one after the other since a head takes hundreds of megabytes; anatomies take turns.

    Subject n depends on `seed` and n alone.

    Args:
        seed: random seed of the cohort.
        number: number of subjects.
        anatomies: anatomies, as from `head_anatomies`.
        tracer: tracer of the activity, fdg or dpa714.
        strength: strength of the deformations, see `heads.deformation`.
        first: number of the first subject.

    Raises:
        DataError: no anatomy, or no such tracer.
    """
    if not anatomies or tracer not in ACTIVITY_RANGES:
        raise DataError(
            f"cohort: {len(anatomies)} anatomies, tracer {tracer}; expected 1, {', '.join(ACTIVITY_RANGES)}"
        )
    for n in range(first, first + number):
        draw = np.random.default_rng((seed, n))
        yield subject(draw, anatomies[n % len(anatomies)], tracer, strength)


def subject(
    draw: np.random.Generator,
    anatomy: HeadAnatomy,
    tracer: str = "fdg",
    strength: Number = 1.0,
    variation: Variation | None = None,
) -> SubjectHead:
    """A random subject of this anatomy; `variation` replaces the random one."""
    change = diffeomorphism(int(draw.integers(2**31)), strength)
    drawn = random_variation(draw)
    variation = drawn if variation is None else variation
    tissues = vary_tissues(anatomy.tissues, anatomy.affine, variation)
    family = Family(dpa714=float(tracer == "dpa714"), lesions=0.0)
    activity = uptake(draw, tissues, anatomy.affine, family)
    outside = tissues["skull"] + tissues["scalp"] + tissues["soft"]
    head = np.asarray(sum(tissues.values()), np.float32)
    none = np.zeros(head.shape, np.int32)
    brain = Brain(
        activity=np.asarray(activity, np.float32),
        t1=_t1(draw, anatomy, tissues),
        mu=np.asarray(MU_SOFT * (head - tissues["skull"]) + MU_BONE * tissues["skull"], np.float32),
        gray=tissues["gray"],
        white=tissues["white"],
        brain_mask=head - outside >= 0.5,
        head_mask=head >= 0.5,
        lesions=none,
        lesion_ids=none,
        affine=anatomy.affine,
    )
    return SubjectHead(anatomy.name, brain, change, variation)


def diffeomorphism(seed: int, strength: Number = 1.0) -> Deformation:
    """Random deformation as `heads.deformation`, its displacement replaced by a diffeomorphism of the same size.

    source(p) = centre + M (exp(v)(p) − centre) + shift, where v is the displacement field as a stationary velocity.
    """
    change = deformation(seed, center_mm=CENTER_MM, strength=strength)
    spacing = np.abs(np.diag(change.affine)[:3])[:, None, None, None]
    field = change.field_mm / spacing / 2**SQUARINGS
    for _ in range(SQUARINGS):
        field = field + _sample_field(field, np.indices(field.shape[1:]) + field)
    return change._replace(field_mm=np.tensordot(change.matrix, field * spacing, 1))


def on_grid(
    head: SubjectHead,
    voxel_mm: Number | tuple[Number, Number, Number],
    shape: tuple[int, int, int],
    center_mm: tuple[Number, Number, Number] = CENTER_MM,
) -> Brain:
    """The subject on a grid around `center_mm`: activity, T1, μ, grey and white matter, masks."""
    return deform(head.brain, head.change, voxel_mm, shape, center_mm)


def tissue_labels(brain: Brain) -> Int[np.ndarray, "x y z"]:
    """Labels of tissues, `LABELS`: whichever has most of a voxel of the brain; 0 outside."""
    fractions = np.stack([np.clip(1 - brain.gray - brain.white, 0, 1), brain.gray, brain.white])
    return np.where(brain.brain_mask, 1 + fractions.argmax(axis=0), 0).astype(np.int32)


def true_displacement(
    fixed: SubjectHead,
    moving: SubjectHead,
    shape: tuple[int, int, int],
    voxel_mm: Number | tuple[Number, Number, Number],
    center_mm: tuple[Number, Number, Number] = CENTER_MM,
    iterations: int = 20,
) -> Float[np.ndarray, "3 x y z"]:
    """Field u, in voxels of a grid, with which moving(x + u(x)) lies over fixed(x): the same point of their anatomy.

    Args:
        fixed: the subject to be registered to.
        moving: the one that is carried.
        shape: voxels of the grid.
        voxel_mm: their size.
        center_mm: centre of the grid.
        iterations: fixed-point iterations of the inverse of the moving subject's deformation.

    Raises:
        DataError: their anatomies differ, so that no field is known.
    """
    if fixed.anatomy != moving.anatomy:
        raise DataError(f"true field: anatomies {fixed.anatomy} and {moving.anatomy}; expected one anatomy")
    affine = grid_affine(shape, voxel_mm, center_mm)
    inverse = np.linalg.inv(moving.change.matrix)
    center = moving.change.center_mm[:, None, None, None]
    wanted = _source_mm(fixed.change, affine, np.indices(shape).astype(float))
    points = _to_mm(affine, np.indices(shape).astype(float))
    for _ in range(iterations):  # q ← q + DAMPING · M⁻¹ (wanted − source(q))
        error = wanted - _source_of(moving.change, points, center)
        points = points + DAMPING * np.tensordot(inverse, error, 1)
    voxels = np.tensordot(np.linalg.inv(affine[:3, :3]), points - affine[:3, 3, None, None, None], 1)
    return (voxels - np.indices(shape)).astype(np.float32)


def _t1(draw: np.random.Generator, anatomy: HeadAnatomy, tissues: dict[str, np.ndarray]) -> np.ndarray:
    """T1 of the subject's own contrast, with a bias field and noise inside the head."""
    from scipy import ndimage

    contrast = np.exp(T1_CONTRAST_SD * draw.standard_normal(len(Tissues._fields)))
    values = Tissues(*(np.asarray(anatomy.t1_values) * contrast).tolist())
    image = np.maximum(mix(tissues, values._asdict()) + anatomy.texture, 0)
    size, lattice = np.abs(np.diag(anatomy.affine)[:3]), 10.0
    coarse = [int(np.ceil(side * step / lattice)) + 2 for side, step in zip(image.shape, size, strict=True)]
    smooth = ndimage.gaussian_filter(draw.standard_normal(coarse), BIAS_FIELD_MM / lattice, mode="wrap")
    bias = np.exp(BIAS_FIELD_SD * smooth / smooth.std()).astype(np.float32)
    field = ndimage.affine_transform(bias, size / lattice, output_shape=image.shape, order=1, mode="nearest")
    noise = T1_NOISE_SD / np.sqrt(np.prod(size)) * draw.standard_normal(image.shape, dtype=np.float32)
    return np.maximum(image * field + noise * (image > 0), 0).astype(np.float32)


def _sample_field(field: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return np.stack([ndimage.map_coordinates(one, coordinates, order=1, mode="nearest") for one in field])


def _to_mm(affine: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    return np.tensordot(affine[:3, :3], voxels, 1) + affine[:3, 3, None, None, None]


def _source_mm(change: Deformation, affine: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    return _source_of(change, _to_mm(affine, voxels), change.center_mm[:, None, None, None])


def _source_of(change: Deformation, points: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Location in the undeformed head of points, mm: see `heads`."""
    lattice = np.tensordot(np.linalg.inv(change.affine[:3, :3]), points - change.affine[:3, 3, None, None, None], 1)
    moved = _sample_field(change.field_mm, lattice)
    return center + np.tensordot(change.matrix, points - center, 1) + change.shift_mm[:, None, None, None] + moved
