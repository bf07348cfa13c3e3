"""Tissues of the MNI152 head: grey and white matter of the template, and shells of constant thickness around the brain.

Everything is on the template's 1 mm grid. `brain.brain` makes PET/MR phantoms of it.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.errors import DataError
from medjax.io.nifti import Number, Volume, read_nifti, resample

FILES = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"  # inside nilearn
FLUID_MM, SKULL_MM, SCALP_MM = 3.0, 7.0, 6.0  # thickness of what surrounds the brain's hull
HULL_MM = 16.0  # clefts narrower than twice this are inside the hull
MARGIN = 18  # voxels of 1 mm around the brain, enough for the head
MIDLINE_MM = 3.5  # half the width of the sagittal sinus
# Ellipsoids in MNI space, centre and radii in mm, within which grey and white matter count as deep.
DEEP_STRUCTURES = {
    "thalamus": [((-11.0, -19.0, 7.0), (9.0, 13.0, 9.0)), ((11.0, -19.0, 7.0), (9.0, 13.0, 9.0))],
    "brainstem": [((0.0, -25.0, -14.0), (14.0, 11.0, 10.0)), ((0.0, -27.0, -33.0), (17.0, 13.0, 14.0))],
}


class Tissues(NamedTuple):
    """One value, such as an activity, for each tissue of the head."""

    gray: float
    white: float
    thalamus: float
    brainstem: float
    fluid: float
    sinus: float  # blood in the superior sagittal sinus
    skull: float
    scalp: float
    soft: float  # below the skull


class Anatomy(NamedTuple):
    """MNI152 head at 1 mm, cropped; arrays are read-only."""

    t1: Float[np.ndarray, "x y z"]
    gray: Float[np.ndarray, "x y z"]  # probability
    white: Float[np.ndarray, "x y z"]
    tissues: dict[str, Float[np.ndarray, "x y z"]]  # fraction of each of `Tissues`
    head: Float[np.ndarray, "x y z"]  # their sum
    affine: Float[np.ndarray, "4 4"]  # voxel index → MNI mm, RAS+


def mni_anatomy() -> Anatomy:
    """Anatomy of the MNI152 head, read and segmented into tissues once a process.

    Raises:
        DataError: nilearn is not installed.
    """
    found = importlib.util.find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        raise DataError("brain: the package nilearn, which holds the anatomy, is missing; pip install 'medjax[data]'")
    return _anatomy(Path(found.submodule_search_locations[0]))


@cache
def _anatomy(folder: Path) -> Anatomy:
    t1, gray, white, affine = read_anatomy(folder)
    tissues, head = head_tissues(t1 > 0, gray, white, affine)
    for array in (t1, gray, white, head, affine, *tissues.values()):
        array.setflags(write=False)
    return Anatomy(t1, gray, white, tissues, head, affine)


def read_anatomy(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """T1, grey and white matter of MNI152 (0 … 1, 1 mm, cropped to the head) and their affine, from nilearn's files."""
    volumes = [read_nifti(folder / FILES.format(name)) for name in ("t1", "gm", "wm")]
    first, last = bounding_box(volumes[0].array > 0)
    first = np.maximum(first - MARGIN, 0)
    cut = tuple(slice(start, stop) for start, stop in zip(first, last + MARGIN + 1, strict=True))
    affine = volumes[0].affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    t1, gray, white = (volume.array[cut] / 255 for volume in volumes)
    return t1, gray, white, affine


def bounding_box(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounding box of a mask: first and last index along each axis."""
    along = [np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    return np.array([indices[0] for indices in along]), np.array([indices[-1] for indices in along])


def head_tissues(
    brain: np.ndarray, gray: np.ndarray, white: np.ndarray, affine: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Fraction of each tissue in each 1 mm voxel, and their sum, the head."""
    distance = _distance_to_hull(brain)
    neck = np.minimum.accumulate(distance[..., ::-1], axis=2)[..., ::-1]  # all that lies under the head
    skull_mm = FLUID_MM + SKULL_MM
    inner, bone = _within(distance, FLUID_MM), _within(distance, skull_mm)
    under_skin, head = np.maximum(_within(neck, skull_mm), bone), _within(neck, skull_mm + SCALP_MM)
    x, _, z = coordinates = voxel_coordinates(brain.shape, affine)
    matter = np.clip(gray + white, None, inner)
    fluid = inner - matter
    sinus = fluid * _within(np.abs(x), MIDLINE_MM) * _within(-distance, 5) * _within(-z, 0)
    deep = {
        name: np.maximum.reduce([ellipsoid(coordinates, *one, edge_mm=4) for one in ellipsoids])
        for name, ellipsoids in DEEP_STRUCTURES.items()
    }
    superficial = (1 - deep["thalamus"]) * (1 - deep["brainstem"])
    scale = matter / np.maximum(gray + white, 1e-6)
    tissues = {
        "gray": gray * scale * superficial,
        "white": white * scale * superficial,
        "thalamus": matter * deep["thalamus"],
        "brainstem": matter * deep["brainstem"] * (1 - deep["thalamus"]),
        "fluid": fluid - sinus,
        "sinus": sinus,
        "skull": bone - inner,
        "scalp": head - under_skin,
        "soft": under_skin - bone,
    }
    return tissues, head


def tissue_fractions() -> tuple[dict[str, Float[np.ndarray, "x y z"]], Float[np.ndarray, "4 4"]]:
    """Fraction of each of `Tissues` in each 1 mm voxel of the MNI152 head, and the voxels' affine.

    Raises:
        DataError: nilearn is not installed.
    """
    anatomy = mni_anatomy()
    return anatomy.tissues, anatomy.affine


def mix(tissues: dict[str, Float[np.ndarray, "x y z"]], values: dict[str, float]) -> Float[np.ndarray, "x y z"]:
    """Mixture of the tissues in each voxel: Σ fraction · value, over the tissues that have a value."""
    total = np.zeros_like(tissues["gray"])
    for name, value in values.items():
        total += np.float32(value) * tissues[name]
    return total


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


def voxel_coordinates(shape: tuple[int, ...], affine: np.ndarray) -> list[np.ndarray]:
    """Coordinates x, y and z in mm of the voxels of an axis-aligned grid; three arrays that broadcast together."""
    axes = [affine[axis, 3] + affine[axis, axis] * np.arange(side) for axis, side in enumerate(shape)]
    return [values.astype(np.float32) for values in np.ix_(*axes)]


def ellipsoid(
    coordinates: list[np.ndarray],
    center_mm: tuple[Number, ...],
    radius_mm: Number | tuple[Number, ...],
    edge_mm: Number,
) -> np.ndarray:
    """Ellipsoid as an image: 1 inside, 0 outside, a ramp of about `edge_mm` between."""
    radii = np.broadcast_to(np.asarray(radius_mm, np.float32), 3)
    squares = [((x - center) / radius) ** 2 for x, center, radius in zip(coordinates, center_mm, radii, strict=True)]
    return _within(np.sqrt(squares[0] + squares[1] + squares[2]) * radii.mean(), float(radii.mean()), edge_mm)
