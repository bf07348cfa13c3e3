"""Random uptake of a tracer in the MNI152 head, with lesions: what priors and supervised networks learn from.

    uptake(key, tissues, affine, FAMILY)                              activity of the undeformed head at 1 mm
    random_activity(key, tissues, affine, 2.5, (96, 96, 96), FAMILY)  the same in a random head, on a grid

Simulated: tissues have activities uniform within `ACTIVITY_RANGES`, which vary by 12 % over some 30 mm as metabolism
does over regions; lesions are hot or cold ellipsoids.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from medjax.io.nifti import Number, grid_affine
from medjax.phantoms.heads import Deformation, deformation, generator, sample, source_voxels
from medjax.phantoms.mni import Tissues, ellipsoid, mix, voxel_coordinates

# Activities of each tracer, smallest and largest, around those of `brain.ACTIVITY`; white matter is near 1.
ACTIVITY_RANGES = {
    "fdg": (
        Tissues(2.6, 0.8, thalamus=2.2, brainstem=1.4, fluid=0.02, sinus=0.5, skull=0.05, scalp=0.3, soft=0.15),
        Tissues(4.8, 1.3, thalamus=4.2, brainstem=3.0, fluid=0.20, sinus=1.4, skull=0.25, scalp=0.8, soft=0.45),
    ),
    "dpa714": (
        Tissues(0.9, 0.8, thalamus=1.2, brainstem=1.1, fluid=0.10, sinus=0.8, skull=0.20, scalp=0.4, soft=0.30),
        Tissues(1.7, 1.3, thalamus=2.6, brainstem=2.4, fluid=0.50, sinus=2.4, skull=0.90, scalp=1.6, soft=1.00),
    ),
}
REGIONAL_SD, REGIONAL_MM, LATTICE_MM = 0.12, 12.0, 4.0  # of the logarithm; SD of its filter; spacing of its lattice
LESIONS = 3, 30  # fewest and most lesions of a head that has any
LESION_RADIUS_MM = 3.0, 10.0
HOT_FRACTION, WHITE_FRACTION = 0.7, 0.6  # fractions of lesions that are hot; that lie in white matter
HOT_CONTRAST, COLD_CONTRAST = (1.3, 5.0), (0.1, 0.7)  # factors of the activity
LESION_LIMIT = 1.6  # of a hot lesion's activity, relative to grey matter's


class Family(NamedTuple):
    """A family of simulated heads: how many have which tracer, lesions, and how much their shapes vary."""

    dpa714: float = 0.3  # fraction of heads with DPA-714-like uptake; the others are FDG-like
    lesions: float = 0.5  # fraction of heads with lesions
    strengths: tuple[float, float] = (0.7, 1.2)  # of `heads.deformation`, smallest and largest


FAMILY = Family()
WITHOUT_LESIONS = Family(lesions=0.0)


def uptake(
    key: int | PRNGKeyArray | np.random.Generator,
    tissues: dict[str, Float[np.ndarray, "x y z"]],
    affine: Float[np.ndarray, "4 4"],
    family: Family = FAMILY,
) -> Float[np.ndarray, "x y z"]:
    """Random activity of the undeformed head, relative to white matter at about 1.

    Args:
        key: random seed, JAX key or generator.
        tissues: fraction of each tissue, as from `mni.tissue_fractions`.
        affine: voxel → mm of `tissues`.
        family: fractions of tracers and of lesions.
    """
    draw = key if isinstance(key, np.random.Generator) else generator(key)
    low, high = ACTIVITY_RANGES["dpa714" if draw.random() < family.dpa714 else "fdg"]
    values = Tissues(*draw.uniform(np.asarray(low), np.asarray(high)).tolist())
    activity = mix(tissues, values._asdict())
    activity *= _regional_variation(draw, activity.shape, affine)
    if draw.random() < family.lesions:
        _add_lesions(draw, activity, tissues, affine, LESION_LIMIT * max(values.gray, values.white))
    return activity


def random_activity(
    key: int | PRNGKeyArray,
    tissues: dict[str, Float[np.ndarray, "x y z"]],
    affine: Float[np.ndarray, "4 4"],
    voxel_mm: Number,
    shape: tuple[int, int, int],
    family: Family = FAMILY,
) -> Float[np.ndarray, "a b c"]:
    """Random activity in a random head, on a grid around its centre: one training image of the shipped prior.

    Args:
        key: random seed or JAX key.
        tissues: fraction of each tissue, as from `mni.tissue_fractions`.
        affine: voxel → mm of `tissues`.
        voxel_mm: voxel size of the image.
        shape: voxels of the image.
        family: fractions of tracers and of lesions, and how much shapes vary.
    """
    activity, warp = random_head(key, tissues, affine, family)
    return on_grid([activity], affine, warp, (voxel_mm, voxel_mm, voxel_mm), shape)[0]


def random_head(
    key: int | PRNGKeyArray | np.random.Generator,
    tissues: dict[str, Float[np.ndarray, "x y z"]],
    affine: Float[np.ndarray, "4 4"],
    family: Family = FAMILY,
) -> tuple[Float[np.ndarray, "x y z"], Deformation]:
    """Random activity of the undeformed head, and the deformation of its shape: arguments as of `random_activity`.

    With a generator as `key` more may be drawn of the same head afterwards.
    """
    draw = key if isinstance(key, np.random.Generator) else generator(key)
    warp = deformation(int(draw.integers(2**31)), strength=draw.uniform(*family.strengths))
    return uptake(draw, tissues, affine, family), warp


def on_grid(
    images: Sequence[Float[np.ndarray, "x y z"]],
    affine: Float[np.ndarray, "4 4"],
    warp: Deformation,
    voxel_mm: tuple[Number, Number, Number],
    shape: tuple[int, int, int],
) -> list[Float[np.ndarray, "a b c"]]:
    """Images of the undeformed head, `affine` theirs, in the deformed one on a grid around its centre.

    They are smoothed by the grid's voxel, then interpolated; 0 outside.
    """
    coordinates = source_voxels(warp, shape, grid_affine(shape, voxel_mm, tuple(warp.center_mm.tolist())), affine)
    own = np.linalg.norm(affine[:3, :3], axis=0)
    smoothing = np.sqrt(np.maximum(np.square(voxel_mm) - own**2, 0) / 12) / own
    return [sample(image, coordinates, smoothing).astype(np.float32) for image in images]


def _regional_variation(
    draw: np.random.Generator, shape: tuple[int, ...], affine: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "x y z"]:
    """Smooth factors around 1, drawn on a coarse lattice."""
    from scipy import ndimage

    own = np.abs(np.diag(affine)[:3])
    coarse = [int(np.ceil(side * step / LATTICE_MM)) + 1 for side, step in zip(shape, own, strict=True)]
    smooth = ndimage.gaussian_filter(draw.standard_normal(coarse), REGIONAL_MM / LATTICE_MM, mode="wrap")
    factors = np.exp(REGIONAL_SD * smooth / smooth.std()).astype(np.float32)
    return ndimage.affine_transform(factors, own / LATTICE_MM, output_shape=shape, order=1, mode="nearest")


def _add_lesions(
    draw: np.random.Generator,
    activity: Float[np.ndarray, "x y z"],
    tissues: dict[str, Float[np.ndarray, "x y z"]],
    affine: Float[np.ndarray, "4 4"],
    limit: float,
) -> None:
    """Multiply lesions into the activity, in place; none makes its centre hotter than `limit`."""
    white = np.flatnonzero(tissues["white"] > 0.8)
    matter = np.flatnonzero(tissues["white"] + tissues["gray"] + tissues["thalamus"] + tissues["brainstem"] > 0.5)
    for _ in range(draw.integers(LESIONS[0], LESIONS[1] + 1)):
        center = np.array(
            np.unravel_index(draw.choice(white if draw.random() < WHITE_FRACTION else matter), activity.shape)
        )
        radii = draw.uniform(*LESION_RADIUS_MM) * draw.uniform(0.8, 1.25, 3)
        if draw.random() < HOT_FRACTION:
            hot = np.exp(draw.uniform(*np.log(HOT_CONTRAST)))
            contrast = max(min(hot, limit / max(float(activity[tuple(center)]), 1e-3)), 1.0)
        else:
            contrast = draw.uniform(*COLD_CONTRAST)
        reach = np.ceil((radii + 2) / np.abs(np.diag(affine)[:3])).astype(int)
        box = tuple(slice(max(c - r, 0), c + r + 1) for c, r in zip(center, reach, strict=True))
        corner = affine.copy()
        corner[:3, 3] += affine[:3, :3] @ [one.start for one in box]
        place = (affine[:3, :3] @ center + affine[:3, 3]).tolist()
        weight = ellipsoid(voxel_coordinates(activity[box].shape, corner), tuple(place), tuple(radii.tolist()), 2)
        activity[box] *= 1 + (contrast - 1) * weight
