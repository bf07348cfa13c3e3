"""Random head shapes: an affine map and a smooth displacement field (warp), applied to images and phantoms.

A deformation gives for each location p of the new head that of the old one:

    source(p) = centre + M (p − centre) + shift + u(p),      u smooth, of two widths

    deformation(key, …) → Deformation      deform(phantom, warp, …) → Brain
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from medjax.errors import DataError
from medjax.io.nifti import Number, grid_affine
from medjax.phantoms.brain import Brain, Lesion

LATTICE_MM = 4.0  # spacing of the displacement field
COARSE_MM, COARSE_WIDTH_MM = 3.5, 14.0  # standard deviation of the displacement, of the filter that makes it smooth
FINE_MM, FINE_WIDTH_MM = 1.2, 6.0


class Deformation(NamedTuple):
    """A deformation: affine map and displacement field from a new head to the old one, in mm."""

    matrix: Float[np.ndarray, "3 3"]  # linear part of the affine map, about `center_mm`
    shift_mm: Float[np.ndarray, "3"]  # translation
    center_mm: Float[np.ndarray, "3"]
    field_mm: Float[np.ndarray, "3 x y z"]  # displacement field (warp)
    affine: Float[np.ndarray, "4 4"]  # voxel index → mm, of the field's lattice


def generator(key: int | PRNGKeyArray) -> np.random.Generator:
    """NumPy random generator of a seed or a JAX key."""
    return np.random.default_rng(key if isinstance(key, int) else np.asarray(jax.random.key_data(key)).tolist())


def deformation(
    key: int | PRNGKeyArray,
    extent_mm: tuple[Number, Number, Number] = (240, 260, 240),
    center_mm: tuple[Number, Number, Number] = (0, -18, 10),
    strength: Number = 1.0,
) -> Deformation:
    """Random deformation of a head: sizes vary by 6 %, angles by 4°, locations by 3.5 mm and, gyrus by gyrus, 1.2 mm.

    All are standard deviations and are multiplied by `strength`. `extent_mm` around `center_mm` is where it is defined;
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
    return Deformation(matrix, shift, np.asarray(center_mm, float), field, grid_affine(shape, LATTICE_MM, center_mm))


def deform(
    phantom: Brain,
    warp: Deformation,
    voxel_mm: Number | tuple[Number, Number, Number],
    shape: tuple[int, int, int],
    center_mm: tuple[Number, Number, Number] | None = None,
    smooth: bool = True,
) -> Brain:
    """Deform a phantom by `warp`, onto a grid around `center_mm` (default: the deformation's centre).

    Images are smoothed by the grid's voxel, then interpolated; lesion labels are taken from the nearest voxel.

    Args:
        phantom: a phantom of 1 mm voxels; 0 outside its grid.
        warp: the deformation.
        voxel_mm: voxel size of the new grid.
        shape: voxels of the new grid.
        center_mm: centre of the new grid.
        smooth: False for a phantom of `smooth_images`, which many grids of these voxels share.
    """
    x, y, z = (warp.center_mm if center_mm is None else np.asarray(center_mm, float)).tolist()
    affine = grid_affine(shape, voxel_mm, (x, y, z))
    coordinates = source_voxels(warp, shape, affine, phantom.affine)
    smoothing = voxel_smoothing(phantom.affine, voxel_mm) if smooth else np.zeros(3)

    def moved(image: np.ndarray) -> np.ndarray:
        return sample(image, coordinates, smoothing)

    def nearest(labels: np.ndarray) -> np.ndarray:
        return sample(labels, coordinates, np.zeros(3), order=0).astype(labels.dtype)

    return Brain(
        *(moved(image) for image in (phantom.activity, phantom.t1, phantom.mu, phantom.gray, phantom.white)),
        brain_mask=moved(phantom.brain_mask.astype(np.float32)) >= 0.5,
        head_mask=moved(phantom.head_mask.astype(np.float32)) >= 0.5,
        lesions=nearest(phantom.lesions),
        lesion_ids=nearest(phantom.lesion_ids),
        affine=affine,
    )


def smooth_images(phantom: Brain, voxel_mm: Number | tuple[Number, Number, Number]) -> Brain:
    """The phantom with its images, not its masks, smoothed as `deform` does for voxels of this size."""
    from scipy import ndimage

    smoothing = voxel_smoothing(phantom.affine, voxel_mm)
    images = {name: getattr(phantom, name) for name in ("activity", "t1", "mu", "gray", "white")}
    return replace(phantom, **{name: ndimage.gaussian_filter(image, smoothing) for name, image in images.items()})


def voxel_smoothing(
    affine: Float[np.ndarray, "4 4"], voxel_mm: Number | tuple[Number, Number, Number]
) -> Float[np.ndarray, "3"]:
    """Standard deviation, in voxels of an image, of the blur that voxels of `voxel_mm` add to its own."""
    own = np.linalg.norm(affine[:3, :3], axis=0)
    return np.sqrt(np.maximum(np.broadcast_to(np.asarray(voxel_mm, float), 3) ** 2 - own**2, 0) / 12) / own


def white_matter_lesions(
    key: int | PRNGKeyArray | np.random.Generator,
    plain: Brain,
    warp: Deformation,
    affine: Float[np.ndarray, "4 4"],
    number: int,
    radius_mm: Number = 6.0,
    contrast: Number = 4.0,
    min_distance_mm: Number = 25.0,
) -> tuple[Lesion, ...]:
    """Random spherical hot lesions in the white matter of a deformed slice, in PET only.

    Centres are in mm of the undeformed head, so that `brain(…, lesions=…)` takes them.

    Args:
        key: random seed, JAX key or generator.
        plain: the deformed slice without lesions.
        warp: deformation of that slice.
        affine: voxel → mm of the undeformed head.
        number: maximum number of lesions.
        radius_mm: radius.
        contrast: factor of the activity.
        min_distance_mm: minimum distance from centre to centre.

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
        if len(chosen) < number and all(np.linalg.norm(voxels - other) * voxel > min_distance_mm for other in chosen):
            chosen.append(voxels)
    source = source_voxels(warp, plain.white.shape, plain.affine, affine)
    centers = ((affine[:3, :3] @ source[:, i, j, 0] + affine[:3, 3]).tolist() for i, j in chosen)
    return tuple(Lesion((x, y, z), radius_mm, "pet", contrast=contrast) for x, y, z in centers)


def source_voxels(
    warp: Deformation,
    shape: tuple[int, int, int],
    affine: Float[np.ndarray, "4 4"],
    source_affine: Float[np.ndarray, "4 4"],
) -> Float[np.ndarray, "3 x y z"]:
    """Coordinates, in (fractional) voxels of the source image, of each voxel of the grid of a deformed image."""
    from scipy import ndimage

    index = np.indices(shape).reshape(3, -1)
    points = affine[:3, :3] @ index + affine[:3, 3:]
    lattice = np.linalg.solve(warp.affine[:3, :3], points - warp.affine[:3, 3:])
    moved = np.stack([ndimage.map_coordinates(u, lattice, order=1, mode="nearest") for u in warp.field_mm])
    center = warp.center_mm[:, None]
    source = center + warp.matrix @ (points - center) + warp.shift_mm[:, None] + moved
    voxel = np.linalg.solve(source_affine[:3, :3], source - source_affine[:3, 3:])
    return voxel.reshape(3, *shape).astype(np.float32)


def sample(
    image: Float[np.ndarray, "i j k"] | np.ndarray,
    coordinates: Float[np.ndarray, "3 x y z"],
    smoothing: Float[np.ndarray, "3"],
    order: int = 1,
) -> Float[np.ndarray, "x y z"]:
    """Interpolate `image` at fractional voxel coordinates, after Gaussian `smoothing` (SD in voxels); 0 outside.

    Raises:
        DataError: the image is no volume.
    """
    from scipy import ndimage

    if image.ndim != 3:
        raise DataError(f"image: {image.ndim} axes; expected a volume")
    smooth = ndimage.gaussian_filter(np.asarray(image, np.float32), smoothing) if np.any(smoothing > 0) else image
    return ndimage.map_coordinates(np.asarray(smooth, np.float32), coordinates, order=order, mode="constant")


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
