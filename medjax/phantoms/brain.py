"""Brain PET/MR phantoms on real anatomy: the MNI152 average T1 and its grey- and white-matter maps.

The maps come with nilearn and end at the brain's surface. What lies around it here, fluid, skull, scalp and neck, is
drawn as shells of constant thickness; the tracer is simulated. The brain is real (an average of 152), the rest is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from medjax.errors import DataError
from medjax.io.nifti import Number, Volume, grid_affine, resample
from medjax.phantoms.mni import (
    Tissues,
    bounding_box,
    ellipsoid,
    mix,
    mni_anatomy,
    voxel_coordinates,
)

LesionKind = Literal["pet", "mr", "both"]
KINDS = {"pet": 1, "mr": 2, "both": 3}
MU_SOFT, MU_BONE = 0.0096, 0.0151  # mm⁻¹ at 511 keV: water; skull, between trabecular and cortical bone


# FDG: contrasts customary in PET/MR simulations on BrainWeb anatomy (grey 4, white 1, fluid 0.05, skin 0.5, fat 0.25,
# bone 0.1). DPA-714-like: made to look like a tracer of the translocator protein, with little contrast but in thalamus,
# brain stem, blood and scalp; simulated, not fitted to data.
ACTIVITY = {
    "fdg": Tissues(4.0, 1.0, thalamus=3.2, brainstem=2.2, fluid=0.05, sinus=0.8, skull=0.1, scalp=0.5, soft=0.25),
    "dpa714": Tissues(1.2, 1.0, thalamus=1.8, brainstem=1.6, fluid=0.3, sinus=1.5, skull=0.5, scalp=0.9, soft=0.6),
}
T1_FLUID, T1_OUTSIDE_BRAIN = 0.3, {"skull": 0.1, "scalp": 0.8, "soft": 0.55}  # inside the brain: the template's own T1


class Lesion(NamedTuple):
    """A smooth-edged ellipsoidal lesion, which multiplies the activity by `contrast` and the T1 by `mr_contrast`."""

    center_mm: tuple[Number, Number, Number]  # centre in the brain's space (MNI, RAS+)
    radius_mm: Number | tuple[Number, Number, Number]
    kind: LesionKind = "both"  # modality that shows it: pet, mr or both
    contrast: Number = 1.5
    mr_contrast: Number = 0.6


@dataclass(frozen=True)
class Brain:
    """PET/MR phantom of a head on one grid: activity, T1, μ-map, tissues, masks and lesions; images are float32."""

    activity: Float[np.ndarray, "x y z"]  # per volume, relative to white matter
    t1: Float[np.ndarray, "x y z"]  # arbitrary units, white matter about 0.9
    mu: Float[np.ndarray, "x y z"]  # attenuation at 511 keV, mm⁻¹
    gray: Float[np.ndarray, "x y z"]  # probability
    white: Float[np.ndarray, "x y z"]  # probability
    brain_mask: Bool[np.ndarray, "x y z"]  # brain with the fluid around it, inside the skull
    head_mask: Bool[np.ndarray, "x y z"]
    lesions: Int[np.ndarray, "x y z"]  # 0 none, 1 in PET only, 2 in MR only, 3 in both
    lesion_ids: Int[np.ndarray, "x y z"]  # 0 none, k the k-th lesion counted from 1; of overlapping ones the later
    affine: Float[np.ndarray, "4 4"]  # voxel index → MNI mm, RAS+


def brain(
    voxel_mm: Number | tuple[Number, Number, Number] = 1.0,
    tracer: str = "fdg",
    shape: tuple[int, int, int] | None = None,
    lesions: Sequence[Lesion] = (),
    center_mm: tuple[Number, Number, Number] | None = None,
) -> Brain:
    """PET/MR phantom of the MNI152 head, built at 1 mm and averaged over voxels, so that total activity is kept.

    Args:
        voxel_mm: voxel size, mm.
        tracer: "fdg", grey to white 4 : 1; or "dpa714", DPA-714-like, simulated, grey to white 1.2 : 1.
        shape: voxels; by default the head's bounding box; (128, 128, 1) is a slice.
        lesions: lesions to add.
        center_mm: centre of the grid in MNI mm; by default that of the head.

    Raises:
        DataError: nilearn is not installed; no such tracer; an impossible voxel size, radius or contrast; a lesion
            of unknown kind or centred outside the brain.

    Source: ICBM 152 nonlinear symmetric 2009a template, Fonov et al., NeuroImage 54(1), 2011, as shipped with nilearn.
    """
    _check(tracer, voxel_mm, lesions)
    t1, gray, white, tissues, head, affine = mni_anatomy()
    images = {
        "activity": mix(tissues, ACTIVITY[tracer]._asdict()),
        "t1": _t1(t1, tissues),
        "mu": MU_SOFT * (head - tissues["skull"]) + MU_BONE * tissues["skull"],
        "gray": gray,
        "white": white,
        "brain": head - tissues["skull"] - tissues["scalp"] - tissues["soft"],
        "head": head,
    }
    for number, lesion in enumerate(lesions, 1):
        _add_lesion(images, affine, lesion, number)
    shape, grid = _grid(head, affine, voxel_mm, shape, center_mm)
    moved = {name: resample(Volume(array, affine), shape, grid).array for name, array in images.items()}
    masks = {"brain_mask": moved.pop("brain") >= 0.5, "head_mask": moved.pop("head") >= 0.5}
    ids = _lesion_ids(lesions, shape, grid)
    kinds = np.array([0, *(KINDS[lesion.kind] for lesion in lesions)], np.int32)
    return Brain(**moved, **masks, lesions=kinds[ids], lesion_ids=ids, affine=grid)


def random_lesions(
    key: int | PRNGKeyArray,
    anatomy: Brain,
    count: int,
    kind: LesionKind = "both",
    *,
    radius_mm: tuple[Number, Number] = (4, 8),
    contrast: Number = 1.5,
    mr_contrast: Number = 0.6,
) -> tuple[Lesion, ...]:
    """Random spherical lesions centred in grey or white matter, inside the skull, 4 mm or more apart; uniform radii.

    Args:
        key: random seed or JAX key.
        anatomy: the phantom.
        count: number of lesions.
        kind: modality that shows them: pet, mr or both.
        radius_mm: minimum and maximum radius.
        contrast: factor of the activity.
        mr_contrast: factor of the T1.

    Raises:
        DataError: there is no room for so many.
    """
    from scipy import ndimage

    seed = key if isinstance(key, int) else np.asarray(jax.random.key_data(key)).tolist()
    generator = np.random.default_rng(seed)
    spacing = np.linalg.norm(anatomy.affine[:3, :3], axis=0)
    depth = ndimage.distance_transform_edt(anatomy.brain_mask, sampling=spacing)
    tissue = anatomy.gray + anatomy.white > 0.8
    lesions: list[Lesion] = []
    for radius in generator.uniform(*radius_mm, size=count):
        room = np.argwhere(tissue & (depth > radius))
        coordinates = room @ anatomy.affine[:3, :3].T + anatomy.affine[:3, 3]
        for other in lesions:
            coordinates = coordinates[
                np.linalg.norm(coordinates - other.center_mm, axis=1) > radius + np.max(other.radius_mm) + 4
            ]
        if not len(coordinates):
            raise DataError(f"count: room for {len(lesions)} lesions of {radius_mm} mm; expected {count}")
        x, y, z = generator.choice(coordinates).tolist()
        lesions.append(Lesion((x, y, z), float(radius), kind, contrast, mr_contrast))
    return tuple(lesions)


def add_lesions(phantom: Brain, lesions: Sequence[Lesion]) -> Brain:
    """The phantom with lesions, drawn on its own voxels; centres are in mm of its affine. Ids follow those it has.

    Raises:
        DataError: a lesion of unknown kind, of an impossible radius or contrast, or centred outside the brain.
    """
    _check(next(iter(ACTIVITY)), 1, lesions)
    images = {"activity": phantom.activity.copy(), "t1": phantom.t1.copy(), "brain": phantom.brain_mask.astype(float)}
    first = int(phantom.lesion_ids.max(initial=0))
    for number, lesion in enumerate(lesions, 1):
        _add_lesion(images, phantom.affine, lesion, number)
    ids = _lesion_ids(lesions, phantom.brain_mask.shape, phantom.affine)
    kinds = np.array([0, *(KINDS[lesion.kind] for lesion in lesions)], np.int32)
    return replace(
        phantom,
        activity=images["activity"],
        t1=images["t1"],
        lesions=np.where(ids > 0, kinds[ids], phantom.lesions),
        lesion_ids=np.where(ids > 0, first + ids, phantom.lesion_ids),
    )


def _check(tracer: str, voxel_mm: Number | tuple[Number, Number, Number], lesions: Sequence[Lesion]) -> None:
    if tracer not in ACTIVITY:
        raise DataError(f"tracer: {tracer!r}; expected {' or '.join(ACTIVITY)}")
    if not np.min(voxel_mm) > 0:
        raise DataError(f"voxel_mm: {voxel_mm}; expected positive sizes")
    for number, lesion in enumerate(lesions, 1):
        if lesion.kind not in KINDS:
            raise DataError(f"lesion {number}: kind {lesion.kind!r}; expected one of {', '.join(KINDS)}")
        if not (np.min(lesion.radius_mm) > 0 and min(lesion.contrast, lesion.mr_contrast) >= 0):
            raise DataError(f"lesion {number}: {lesion}; expected radii above 0 and contrasts of 0 or more")


def _t1(brain: np.ndarray, tissues: dict[str, np.ndarray]) -> np.ndarray:
    """The template where it is brain, fluid around that inside the skull, then the tissues outside."""
    outside = tissues["skull"] + tissues["scalp"] + tissues["soft"]
    inside = sum(tissues.values()) - outside
    return inside * np.where(brain > 0, brain, np.float32(T1_FLUID)) + mix(tissues, T1_OUTSIDE_BRAIN)


def _add_lesion(images: dict[str, np.ndarray], affine: np.ndarray, lesion: Lesion, number: int) -> None:
    """Multiply the lesion into the images, in place."""
    index = np.rint(np.linalg.solve(affine, [*lesion.center_mm, 1])[:3]).astype(int)
    inside = np.all((index >= 0) & (index < images["brain"].shape))
    if not inside or images["brain"][tuple(index)] < 0.5:
        raise DataError(
            f"lesion {number}: centre {lesion.center_mm} mm lies outside the brain; expected MNI mm inside it"
        )
    weight = ellipsoid(voxel_coordinates(images["brain"].shape, affine), lesion.center_mm, lesion.radius_mm, edge_mm=2)
    if lesion.kind != "mr":
        images["activity"] *= 1 + (lesion.contrast - 1) * weight
    if lesion.kind != "pet":
        images["t1"] *= 1 + (lesion.mr_contrast - 1) * weight


def _lesion_ids(lesions: Sequence[Lesion], shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """Of each voxel the lesion that its centre lies in, counted from 1."""
    ids = np.zeros(shape, np.int32)
    for number, lesion in enumerate(lesions, 1):
        weight = ellipsoid(voxel_coordinates(shape, affine), lesion.center_mm, lesion.radius_mm, edge_mm=2)
        ids[weight >= 0.5] = number
    return ids


def _grid(
    head: np.ndarray,
    affine: np.ndarray,
    voxel_mm: Number | tuple[Number, Number, Number],
    shape: tuple[int, int, int] | None,
    center_mm: tuple[Number, Number, Number] | None,
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of the requested grid; by default around the head."""
    first, last = bounding_box(head > 0)
    middle = affine[:3, :3] @ ((first + last) / 2) + affine[:3, 3]
    if shape is None:
        sizes = np.broadcast_to(np.asarray(voxel_mm, float), 3)
        sides = np.ceil((last - first + 1) / sizes).astype(int)
        shape = (int(sides[0]), int(sides[1]), int(sides[2]))
    x, y, z = (middle if center_mm is None else np.asarray(center_mm, float)).tolist()
    return shape, grid_affine(shape, voxel_mm, (x, y, z))
