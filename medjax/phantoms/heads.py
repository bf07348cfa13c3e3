"""Other heads from one: a random affine map and a smooth random displacement, applied to images and phantoms.

A deformation says for each place in the new head where to look in the old one:

    source(p) = centre + M (p − centre) + shift + u(p),      u smooth, of two widths

    deformation(key, …) → Deformation      deform(phantom, deformation, …) → Brain      family(key, …) → activity
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from medjax.errors import DataError
from medjax.io.nifti import Number, grid_affine
from medjax.phantoms.brain import Brain, Lesion
from medjax.phantoms.mni import Tissues, mix

LATTICE_MM = 4.0  # on which displacements are drawn
COARSE_MM, COARSE_WIDTH_MM = 3.5, 14.0  # standard deviation of the displacement, of the filter that makes it smooth
FINE_MM, FINE_WIDTH_MM = 1.2, 6.0
# Range of activities of the training family, around FDG as `brain` has it; white matter is near 1.
FAMILY = (
    Tissues(2.6, 0.8, thalamus=2.2, brainstem=1.4, fluid=0.02, sinus=0.5, skull=0.05, scalp=0.3, soft=0.15),
    Tissues(4.8, 1.3, thalamus=4.2, brainstem=3.0, fluid=0.20, sinus=1.4, skull=0.25, scalp=0.8, soft=0.45),
)


class Deformation(NamedTuple):
    """Where each place of the new head comes from, in mm."""

    matrix: Float[np.ndarray, "3 3"]
    shift_mm: Float[np.ndarray, "3"]
    centre_mm: Float[np.ndarray, "3"]
    field_mm: Float[np.ndarray, "3 x y z"]
    affine: Float[np.ndarray, "4 4"]  # of the field's lattice


def generator(key: int | PRNGKeyArray) -> np.random.Generator:
    """NumPy's generator for a seed or a JAX key."""
    return np.random.default_rng(key if isinstance(key, int) else np.asarray(jax.random.key_data(key)).tolist())


def deformation(
    key: int | PRNGKeyArray,
    extent_mm: tuple[Number, Number, Number] = (240, 260, 240),
    centre_mm: tuple[Number, Number, Number] = (0, -18, 10),
    strength: Number = 1.0,
) -> Deformation:
    """A random head shape: sizes vary by 6 %, angles by 4°, places by 3.5 mm smoothly and by 1.2 mm gyrus by gyrus.

    All are standard deviations and are multiplied by `strength`. `extent_mm` around `centre_mm` is where it is defined;
    further out the displacement is that of the edge.
    """
    from scipy import ndimage

    draw = generator(key)
    scale = np.diag(np.exp(strength * 0.06 * draw.standard_normal(3)))
    tilt = np.radians(4) * strength * draw.standard_normal(3)
    matrix = _rotation(tilt) @ scale
    shift = strength * 2.0 * draw.standard_normal(3)
    nx, ny, nz = (int(np.ceil(side / LATTICE_MM)) + 1 for side in extent_mm)
    shape = (nx, ny, nz)
    field = np.zeros((3, *shape))
    for amplitude, width in ((COARSE_MM, COARSE_WIDTH_MM), (FINE_MM, FINE_WIDTH_MM)):
        for axis in range(3):
            smooth = ndimage.gaussian_filter(draw.standard_normal(shape), width / LATTICE_MM, mode="wrap")
            field[axis] += strength * amplitude * smooth / smooth.std()
    return Deformation(matrix, shift, np.asarray(centre_mm, float), field, grid_affine(shape, LATTICE_MM, centre_mm))


def deform(
    phantom: Brain,
    change: Deformation,
    voxel_mm: Number | tuple[Number, Number, Number],
    shape: tuple[int, int, int],
    centre_mm: tuple[Number, Number, Number] | None = None,
) -> Brain:
    """`phantom` with another head shape, on a grid around `centre_mm` (default: the deformation's centre).

    Images are smoothed by the grid's voxel, then interpolated; lesion labels are taken from the nearest voxel. Build
    the phantom at 1 mm. What comes from outside of it is 0.
    """
    x, y, z = (change.centre_mm if centre_mm is None else np.asarray(centre_mm, float)).tolist()
    affine = grid_affine(shape, voxel_mm, (x, y, z))
    sizes = np.broadcast_to(np.asarray(voxel_mm, float), 3)
    places = source_voxels(change, shape, affine, phantom.affine)
    own = np.linalg.norm(phantom.affine[:3, :3], axis=0)

    def moved(image: np.ndarray) -> np.ndarray:
        return sample(image, places, np.sqrt(np.maximum(sizes**2 - own**2, 0) / 12) / own)

    def nearest(labels: np.ndarray) -> np.ndarray:
        return sample(labels, places, np.zeros(3), order=0).astype(labels.dtype)

    return Brain(
        *(moved(image) for image in (phantom.activity, phantom.t1, phantom.mu, phantom.grey, phantom.white)),
        brain_mask=moved(phantom.brain_mask.astype(np.float32)) >= 0.5,
        head_mask=moved(phantom.head_mask.astype(np.float32)) >= 0.5,
        lesions=nearest(phantom.lesions),
        lesion_ids=nearest(phantom.lesion_ids),
        affine=affine,
    )


def white_matter_lesions(
    key: int | PRNGKeyArray | np.random.Generator,
    plain: Brain,
    change: Deformation,
    affine: Float[np.ndarray, "4 4"],
    number: int,
    radius_mm: Number = 6.0,
    contrast: Number = 4.0,
    apart_mm: Number = 25.0,
) -> tuple[Lesion, ...]:
    """Hot spheres for the head from which `change` made `plain`, a slice: where that has most white matter.

    At most `number` of them, `apart_mm` or more from centre to centre; in PET only. Centres are in mm of the
    undeformed head, whose voxel → mm matrix is `affine`, so that `brain(…, lesions=…)` takes them.

    Raises:
        DataError: `plain` is no slice.
    """
    from scipy import ndimage

    if plain.white.shape[2] != 1:
        raise DataError(f"lesions: {plain.white.shape[2]} planes; expected a slice")
    draw = key if isinstance(key, np.random.Generator) else generator(key)
    voxel = float(np.linalg.norm(plain.affine[:3, 0]))
    room = ndimage.gaussian_filter(plain.white[..., 0], radius_mm / voxel)
    candidates = np.argwhere(room > np.quantile(room[plain.brain_mask[..., 0]], 0.93))
    chosen: list[np.ndarray] = []
    for voxels in draw.permutation(candidates):
        if len(chosen) < number and all(np.linalg.norm(voxels - other) * voxel > apart_mm for other in chosen):
            chosen.append(voxels)
    source = source_voxels(change, plain.white.shape, plain.affine, affine)
    centres = ((affine[:3, :3] @ source[:, i, j, 0] + affine[:3, 3]).tolist() for i, j in chosen)
    return tuple(Lesion((x, y, z), radius_mm, "pet", contrast=contrast) for x, y, z in centres)


def family(
    key: int | PRNGKeyArray,
    tissues: dict[str, Float[np.ndarray, "x y z"]],
    affine: Float[np.ndarray, "4 4"],
    voxel_mm: Number,
    shape: tuple[int, int, int],
) -> Float[np.ndarray, "a b c"]:
    """One member of the family that the shipped prior learns: FDG-like activity of a head of its own shape, no lesions.

    Activities are uniform within `FAMILY` and vary smoothly by 12 % over some 30 mm, as metabolism does over regions.
    `tissues` and `affine` come from `brain.tissue_shares`.
    """
    from scipy import ndimage

    draw = generator(key)
    change = deformation(int(draw.integers(2**31)))
    low, high = (np.asarray(ends) for ends in FAMILY)
    values = Tissues(*draw.uniform(low, high).tolist())
    grid = grid_affine(shape, voxel_mm, tuple(change.centre_mm.tolist()))
    places = source_voxels(change, shape, grid, affine)
    own = np.linalg.norm(affine[:3, :3], axis=0)
    image = sample(mix(tissues, values._asdict()), places, np.sqrt(np.maximum(voxel_mm**2 - own**2, 0) / 12) / own)
    regional = ndimage.gaussian_filter(draw.standard_normal(shape), 12.0 / voxel_mm, mode="wrap")
    return (image * np.exp(0.12 * regional / regional.std())).astype(np.float32)


def source_voxels(
    change: Deformation,
    shape: tuple[int, int, int],
    affine: Float[np.ndarray, "4 4"],
    source_affine: Float[np.ndarray, "4 4"],
) -> Float[np.ndarray, "3 x y z"]:
    """For each voxel of a grid, the (fractional) voxel of the source image that it comes from."""
    from scipy import ndimage

    index = np.indices(shape).reshape(3, -1)
    place = affine[:3, :3] @ index + affine[:3, 3:]
    lattice = np.linalg.solve(change.affine[:3, :3], place - change.affine[:3, 3:])
    moved = np.stack([ndimage.map_coordinates(u, lattice, order=1, mode="nearest") for u in change.field_mm])
    centre = change.centre_mm[:, None]
    source = centre + change.matrix @ (place - centre) + change.shift_mm[:, None] + moved
    voxel = np.linalg.solve(source_affine[:3, :3], source - source_affine[:3, 3:])
    return voxel.reshape(3, *shape).astype(np.float32)


def sample(
    image: Float[np.ndarray, "i j k"] | np.ndarray,
    places: Float[np.ndarray, "3 x y z"],
    smoothing: Float[np.ndarray, "3"],
    order: int = 1,
) -> Float[np.ndarray, "x y z"]:
    """`image`, smoothed by a Gaussian of so many voxels along each axis, at fractional voxels; 0 outside.

    Raises:
        DataError: the image is no volume.
    """
    from scipy import ndimage

    if image.ndim != 3:
        raise DataError(f"image: {image.ndim} axes; expected a volume")
    smooth = ndimage.gaussian_filter(np.asarray(image, np.float32), smoothing) if np.any(smoothing > 0) else image
    return ndimage.map_coordinates(np.asarray(smooth, np.float32), places, order=order, mode="constant")


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation about x, then y, then z."""
    out = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (k for k in range(3) if k != axis)
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    return out
