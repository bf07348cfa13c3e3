"""Brain PET/MR phantoms on real anatomy: the MNI152 average T1 and its grey- and white-matter maps.

The maps come with nilearn and end at the brain's surface. What lies around it here, fluid, skull, scalp and neck, is
drawn as shells of constant thickness; the tracer is simulated. The brain is real (an average of 152), the rest is not.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from medjax.errors import DataError
from medjax.io.nifti import Number, Volume, grid_affine, read_nifti, resample

FILES = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"  # inside nilearn
Kind = Literal["pet", "mr", "both"]
KINDS = {"pet": 1, "mr": 2, "both": 3}
MU_SOFT, MU_BONE = 0.0096, 0.0151  # mm⁻¹ at 511 keV: water; skull, between trabecular and cortical bone
FLUID_MM, SKULL_MM, SCALP_MM = 3.0, 7.0, 6.0  # thickness of what surrounds the brain's hull
HULL_MM = 16.0  # clefts narrower than twice this are inside the hull
MARGIN = 18  # voxels of 1 mm around the brain, enough for the head
MIDLINE_MM = 3.5  # half the width of the sagittal sinus


class Tissues(NamedTuple):
    """One value for each tissue of the head."""

    grey: float
    white: float
    thalamus: float
    brainstem: float
    fluid: float
    sinus: float  # blood in the superior sagittal sinus
    skull: float
    scalp: float
    soft: float  # below the skull


# FDG: contrasts customary in PET/MR simulations on BrainWeb anatomy (grey 4, white 1, fluid 0.05, skin 0.5, fat 0.25,
# bone 0.1). DPA-714-like: made to look like a tracer of the translocator protein, with little contrast but in thalamus,
# brain stem, blood and scalp; simulated, not fitted to data.
ACTIVITY = {
    "fdg": Tissues(4.0, 1.0, thalamus=3.2, brainstem=2.2, fluid=0.05, sinus=0.8, skull=0.1, scalp=0.5, soft=0.25),
    "dpa714": Tissues(1.2, 1.0, thalamus=1.8, brainstem=1.6, fluid=0.3, sinus=1.5, skull=0.5, scalp=0.9, soft=0.6),
}
T1_FLUID, T1_AROUND = 0.3, {"skull": 0.1, "scalp": 0.8, "soft": 0.55}  # the brain has its own
# Ellipsoids in MNI space, centre and radii in mm, within which grey and white matter count as deep.
DEEP = {
    "thalamus": [((-11.0, -19.0, 7.0), (9.0, 13.0, 9.0)), ((11.0, -19.0, 7.0), (9.0, 13.0, 9.0))],
    "brainstem": [((0.0, -25.0, -14.0), (14.0, 11.0, 10.0)), ((0.0, -27.0, -33.0), (17.0, 13.0, 14.0))],
}


class Lesion(NamedTuple):
    """A smooth-edged ellipsoid that multiplies what is there: the activity by `contrast`, the T1 by `mr_contrast`."""

    centre_mm: tuple[Number, Number, Number]  # in the brain's space (MNI, RAS+)
    radius_mm: Number | tuple[Number, Number, Number]
    kind: Kind = "both"  # where it shows
    contrast: Number = 1.5
    mr_contrast: Number = 0.6


@dataclass(frozen=True)
class Brain:
    """A head in PET and MR on one grid; images are float32."""

    activity: Float[np.ndarray, "x y z"]  # per volume, white matter = 1
    t1: Float[np.ndarray, "x y z"]  # arbitrary units, white matter about 0.9
    mu: Float[np.ndarray, "x y z"]  # attenuation at 511 keV, mm⁻¹
    grey: Float[np.ndarray, "x y z"]  # probability
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
    centre_mm: tuple[Number, Number, Number] | None = None,
) -> Brain:
    """A head on a grid of any voxel size: built at 1 mm, then averaged over the voxels, so that total activity is kept.

    The grid is centred on the head, or on `centre_mm` (MNI); without a `shape` it just holds the head; (128, 128, 1) is
    a slice. Tracers: "fdg", grey to white 4 : 1; "dpa714", DPA-714-like, simulated, grey to white 1.2 : 1.

    Raises:
        DataError: nilearn is not installed; no such tracer; a voxel size, radius or contrast that cannot be; a lesion
            of unknown kind or centred outside the brain.

    Source: ICBM 152 nonlinear symmetric 2009a template, Fonov et al., NeuroImage 54(1), 2011, as shipped with nilearn.
    """
    _check(tracer, voxel_mm, lesions)
    t1, grey, white, affine = _anatomy()
    tissues, head = _tissues(t1 > 0, grey, white, affine)
    images = {
        "activity": mix(tissues, ACTIVITY[tracer]._asdict()),
        "t1": _t1(t1, tissues),
        "mu": MU_SOFT * (head - tissues["skull"]) + MU_BONE * tissues["skull"],
        "grey": grey,
        "white": white,
        "brain": head - tissues["skull"] - tissues["scalp"] - tissues["soft"],
        "head": head,
    }
    for number, lesion in enumerate(lesions, 1):
        _add_lesion(images, affine, lesion, number)
    shape, grid = _grid(head, affine, voxel_mm, shape, centre_mm)
    moved = {name: resample(Volume(array, affine), shape, grid).array for name, array in images.items()}
    masks = {"brain_mask": moved.pop("brain") >= 0.5, "head_mask": moved.pop("head") >= 0.5}
    ids = _lesion_ids(lesions, shape, grid)
    kinds = np.array([0, *(KINDS[lesion.kind] for lesion in lesions)], np.int32)
    return Brain(**moved, **masks, lesions=kinds[ids], lesion_ids=ids, affine=grid)


def random_lesions(
    key: int | PRNGKeyArray,
    anatomy: Brain,
    count: int,
    kind: Kind = "both",
    *,
    radius_mm: tuple[Number, Number] = (4, 8),
    contrast: Number = 1.5,
    mr_contrast: Number = 0.6,
) -> tuple[Lesion, ...]:
    """Spheres centred in grey or white matter, wholly inside the skull and 4 mm or more apart; their radii are uniform.

    `key` is a seed or a JAX key; the same one and the same anatomy give the same lesions.

    Raises:
        DataError: there is no room for so many.
    """
    from scipy import ndimage

    seed = key if isinstance(key, int) else np.asarray(jax.random.key_data(key)).tolist()
    generator = np.random.default_rng(seed)
    spacing = np.linalg.norm(anatomy.affine[:3, :3], axis=0)
    depth = ndimage.distance_transform_edt(anatomy.brain_mask, sampling=spacing)
    tissue = anatomy.grey + anatomy.white > 0.8
    lesions: list[Lesion] = []
    for radius in generator.uniform(*radius_mm, size=count):
        room = np.argwhere(tissue & (depth > radius))
        places = room @ anatomy.affine[:3, :3].T + anatomy.affine[:3, 3]
        for other in lesions:
            places = places[np.linalg.norm(places - other.centre_mm, axis=1) > radius + np.max(other.radius_mm) + 4]
        if not len(places):
            raise DataError(f"count: room for {len(lesions)} lesions of {radius_mm} mm; asked for {count}")
        x, y, z = generator.choice(places).tolist()
        lesions.append(Lesion((x, y, z), float(radius), kind, contrast, mr_contrast))
    return tuple(lesions)


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


def _anatomy() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """T1, grey and white matter, 0 … 1 at 1 mm, cut to what a head needs, and their affine; nilearn is not imported."""
    found = importlib.util.find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        raise DataError("brain: the package nilearn, which holds the anatomy, is missing; pip install 'medjax[data]'")
    folder = Path(found.submodule_search_locations[0])
    volumes = [read_nifti(folder / FILES.format(name)) for name in ("t1", "gm", "wm")]
    first, last = _box(volumes[0].array > 0)
    first = np.maximum(first - MARGIN, 0)
    cut = tuple(slice(start, stop) for start, stop in zip(first, last + MARGIN + 1, strict=True))
    affine = volumes[0].affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    t1, grey, white = (volume.array[cut] / 255 for volume in volumes)
    return t1, grey, white, affine


def _box(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last index of what the mask holds, along each axis."""
    along = [np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    return np.array([indices[0] for indices in along]), np.array([indices[-1] for indices in along])


def _tissues(
    brain: np.ndarray, grey: np.ndarray, white: np.ndarray, affine: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The share of each tissue in each 1 mm voxel, and their sum, the head."""
    distance = _distance_to_hull(brain)
    neck = np.minimum.accumulate(distance[..., ::-1], axis=2)[..., ::-1]  # all that lies under the head
    skull_mm = FLUID_MM + SKULL_MM
    inner, bone = _within(distance, FLUID_MM), _within(distance, skull_mm)
    under_skin, head = np.maximum(_within(neck, skull_mm), bone), _within(neck, skull_mm + SCALP_MM)
    x, _, z = coordinates = _coordinates(brain.shape, affine)
    matter = np.clip(grey + white, None, inner)
    fluid = inner - matter
    sinus = fluid * _within(np.abs(x), MIDLINE_MM) * _within(-distance, 5) * _within(-z, 0)
    deep = {
        name: np.maximum.reduce([_ellipsoid(coordinates, *ellipsoid, edge_mm=4) for ellipsoid in ellipsoids])
        for name, ellipsoids in DEEP.items()
    }
    superficial = (1 - deep["thalamus"]) * (1 - deep["brainstem"])
    share = matter / np.maximum(grey + white, 1e-6)
    tissues = {
        "grey": grey * share * superficial,
        "white": white * share * superficial,
        "thalamus": matter * deep["thalamus"],
        "brainstem": matter * deep["brainstem"] * (1 - deep["thalamus"]),
        "fluid": fluid - sinus,
        "sinus": sinus,
        "skull": bone - inner,
        "scalp": head - under_skin,
        "soft": under_skin - bone,
    }
    return tissues, head


def _distance_to_hull(brain: np.ndarray) -> np.ndarray:
    """Signed distance in mm from the brain with its clefts filled, negative inside; smooth, made from 2 mm voxels."""
    from scipy import ndimage

    def depth(mask: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.distance_transform_edt(mask, sampling=2), np.float32)

    near = depth(~brain[::2, ::2, ::2]) <= HULL_MM
    hull = depth(near) > HULL_MM
    distance = ndimage.gaussian_filter(depth(~hull) - depth(hull), 1.5)
    fine = Volume(distance, np.diag([2.0, 2.0, 2.0, 1.0]))
    return resample(fine, brain.shape, np.eye(4)).array


def _within(distance: np.ndarray, limit: Number, edge_mm: Number = 1) -> np.ndarray:
    """1 where the distance is below the limit, 0 above, a ramp of `edge_mm` between."""
    ramp = (np.float32(limit + edge_mm / 2) - distance) * np.float32(1 / edge_mm)
    return np.clip(ramp, 0, 1, out=ramp)


def _coordinates(shape: tuple[int, ...], affine: np.ndarray) -> list[np.ndarray]:
    """x, y and z in mm of an upright grid's voxels, each an array along its own axis; together they broadcast."""
    axes = [affine[axis, 3] + affine[axis, axis] * np.arange(side) for axis, side in enumerate(shape)]
    return [values.astype(np.float32) for values in np.ix_(*axes)]


def _ellipsoid(
    coordinates: list[np.ndarray],
    centre_mm: tuple[Number, ...],
    radius_mm: Number | tuple[Number, ...],
    edge_mm: Number,
) -> np.ndarray:
    """1 inside, 0 outside, a ramp of about `edge_mm` between."""
    radii = np.broadcast_to(np.asarray(radius_mm, np.float32), 3)
    squares = [((x - centre) / radius) ** 2 for x, centre, radius in zip(coordinates, centre_mm, radii, strict=True)]
    return _within(np.sqrt(squares[0] + squares[1] + squares[2]) * radii.mean(), float(radii.mean()), edge_mm)


def tissue_shares() -> tuple[dict[str, Float[np.ndarray, "x y z"]], Float[np.ndarray, "4 4"]]:
    """The share of each of `Tissues` in each 1 mm voxel of the head, and the voxels' affine.

    Raises:
        DataError: nilearn is not installed.
    """
    t1, grey, white, affine = _anatomy()
    return _tissues(t1 > 0, grey, white, affine)[0], affine


def mix(tissues: dict[str, Float[np.ndarray, "x y z"]], values: dict[str, float]) -> Float[np.ndarray, "x y z"]:
    """Σ share · value, over the tissues that have a value."""
    total = np.zeros_like(tissues["grey"])
    for name, value in values.items():
        total += np.float32(value) * tissues[name]
    return total


def _t1(brain: np.ndarray, tissues: dict[str, np.ndarray]) -> np.ndarray:
    """The template where it is brain, fluid around that inside the skull, then the tissues outside."""
    outside = tissues["skull"] + tissues["scalp"] + tissues["soft"]
    inside = sum(tissues.values()) - outside
    return inside * np.where(brain > 0, brain, np.float32(T1_FLUID)) + mix(tissues, T1_AROUND)


def _add_lesion(images: dict[str, np.ndarray], affine: np.ndarray, lesion: Lesion, number: int) -> None:
    """Multiply the lesion into the images, in place."""
    index = np.rint(np.linalg.solve(affine, [*lesion.centre_mm, 1])[:3]).astype(int)
    inside = np.all((index >= 0) & (index < images["brain"].shape))
    if not inside or images["brain"][tuple(index)] < 0.5:
        raise DataError(
            f"lesion {number}: centre {lesion.centre_mm} mm lies outside the brain; expected MNI mm inside it"
        )
    weight = _ellipsoid(_coordinates(images["brain"].shape, affine), lesion.centre_mm, lesion.radius_mm, edge_mm=2)
    if lesion.kind != "mr":
        images["activity"] *= 1 + (lesion.contrast - 1) * weight
    if lesion.kind != "pet":
        images["t1"] *= 1 + (lesion.mr_contrast - 1) * weight


def _lesion_ids(lesions: Sequence[Lesion], shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """Of each voxel the lesion that its centre lies in, counted from 1."""
    ids = np.zeros(shape, np.int32)
    for number, lesion in enumerate(lesions, 1):
        weight = _ellipsoid(_coordinates(shape, affine), lesion.centre_mm, lesion.radius_mm, edge_mm=2)
        ids[weight >= 0.5] = number
    return ids


def _grid(
    head: np.ndarray,
    affine: np.ndarray,
    voxel_mm: Number | tuple[Number, Number, Number],
    shape: tuple[int, int, int] | None,
    centre_mm: tuple[Number, Number, Number] | None,
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of the grid asked for; by default around the head."""
    first, last = _box(head > 0)
    middle = affine[:3, :3] @ ((first + last) / 2) + affine[:3, 3]
    if shape is None:
        sizes = np.broadcast_to(np.asarray(voxel_mm, float), 3)
        sides = np.ceil((last - first + 1) / sizes).astype(int)
        shape = (int(sides[0]), int(sides[1]), int(sides[2]))
    x, y, z = (middle if centre_mm is None else np.asarray(centre_mm, float)).tolist()
    return shape, grid_affine(shape, voxel_mm, (x, y, z))
