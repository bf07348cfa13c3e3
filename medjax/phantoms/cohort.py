"""Simulated cohort of brain MRI with a disease and two attributes, from MNI152 anatomy at a few millimetres.

    cohort = draw_cohort(seed, 300, SITES["A"])           images, labels and region volumes of 300 subjects
    to_template(map, template_points(cohort, 7))          a map of subject 7 in template space, by its known field

Every subject is the template under a random smooth deformation of its own. Onto it come, each with a strength that
varies between subjects,

    diagnosis   atrophy: hippocampus and temporal pole shrink, lateral ventricles widen      (AD-like)
    anatomy     frontal lobes and the whole head are larger                                  (sex-like)
    contrast    white matter is darker, everywhere                                           (race-like)

The three are independent in the cohort and equally frequent. Anatomy is real (an average of 152 people); disease,
attributes and sites are simulated, and stand for no demographic group.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.io.nifti import grid_affine
from medjax.phantoms.brain_regions import landmark_regions
from medjax.phantoms.heads import deformation, sample, source_voxels
from medjax.phantoms.mni import mni_anatomy

CENTER_MM = (0.0, -18.0, 10.0)
Point = tuple[float, float, float]


class LocalScaling(NamedTuple):
    """Structure on both sides that is scaled: by 1 − `amount` · strength at its centre, fading over `radius_mm`."""

    center_mm: Point  # on the right, MNI
    radius_mm: float  # standard deviation of the fading
    amount: float  # above 0: it shrinks


ATROPHY = (
    LocalScaling((27, -20, -13), 13, 1.0),
    LocalScaling((38, 8, -28), 13, 0.6),
    LocalScaling((18, -30, 17), 15, -0.8),
)
LARGER_FRONTAL = (LocalScaling((28, 42, 14), 18, -1.0),)
ATROPHY_REGIONS = ("hippocampus", "amygdala", "parahippocampal", "temporal pole", "lateral ventricle")
FRONTAL_REGIONS = ("superior frontal", "middle frontal", "inferior frontal", "orbitofrontal", "anterior cingulate")


class Effect(NamedTuple):
    """Strength of an effect where its label is 0 and where it is 1, and its standard deviation over subjects."""

    absent: float
    present: float
    sd: float


class Effects(NamedTuple):
    """Effects of the diagnosis, the anatomical and the contrast attribute."""

    atrophy: Effect = Effect(0.05, 0.34, 0.09)  # fraction by which the hippocampus is shorter
    frontal: Effect = Effect(-0.06, 0.06, 0.03)  # fraction by which the frontal lobe is wider
    size: Effect = Effect(-0.012, 0.012, 0.0)  # log of the scale of the head
    darkening: Effect = Effect(0.0, 0.10, 0.03)  # of white matter, fraction of its signal


class Site(NamedTuple):
    """Scanner: noise, amplitude of the bias field, exponent of the signal, and blur."""

    noise: float  # standard deviation, fraction of white matter
    bias: float  # standard deviation of the log of the bias field
    gamma: float  # exponent of the signal
    blur_voxels: float  # standard deviation of a Gaussian


SITES = {"A": Site(0.04, 0.04, 1.0, 0.0), "B": Site(0.06, 0.08, 1.15, 0.35)}


class Cohort(NamedTuple):
    """Images of a cohort, arbitrary units and 0 outside the brain, and what is known of each subject."""

    image: Float[np.ndarray, "subject x y z"]
    diagnosis: Int[np.ndarray, " subject"]  # 0 healthy, 1 diseased
    anatomy: Int[np.ndarray, " subject"]  # sex-like attribute
    contrast: Int[np.ndarray, " subject"]  # race-like attribute
    volume_mm3: Float[np.ndarray, "subject region"]  # of each region, counted in voxels of the image
    subject: Int[np.ndarray, "subject 2"]  # seed and number, of which all else follows
    effects: Effects
    variation: float  # strength of the random deformations
    voxel_mm: float


class Template(NamedTuple):
    """Template on a cohort's grid: T1, region labels (−1 outside the brain) and names, and the affine to MNI mm."""

    t1: Float[np.ndarray, "x y z"]
    regions: Int[np.ndarray, "x y z"]
    names: tuple[str, ...]
    affine: Float[np.ndarray, "4 4"]


def draw_cohort(
    seed: int,
    subjects: int,
    site: Site,
    effects: Effects = Effects(),  # noqa: B008 (immutable)
    variation: float = 0.35,
    voxel_mm: float = 4.0,
    shape: tuple[int, int, int] = (48, 56, 48),
) -> Cohort:
    """Cohort of `subjects`, equally many (to one) of each combination of diagnosis and attributes.

    Subject n depends on `seed` and n alone. At 4 mm a subject takes about 0.2 s of a core.

    Args:
        seed: random seed.
        subjects: number of subjects.
        site: the scanner.
        effects: strengths of the diagnosis and of the attributes.
        variation: strength of each subject's own deformation, of which `heads.deformation` has 1: what a registration
            to the template would leave.
        voxel_mm: side of a voxel.
        shape: voxels of an image, around the middle of the brain.

    Raises:
        DataError: nilearn, which holds the anatomy, is not installed.
    """
    combination = np.arange(subjects) % 8
    labels = np.stack([combination // 4, combination // 2 % 2, combination % 2], axis=1)
    numbers = np.stack([np.full(subjects, seed), np.arange(subjects)], axis=1)
    every = [_Subject(n, own, effects, variation, voxel_mm, shape) for n, own in zip(numbers, labels, strict=True)]
    _smooth(voxel_mm)  # read once, before threads ask for it
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(lambda one: _image_and_volumes(one, site), every))
    image, volume = (np.stack(some) for some in zip(*made, strict=True))
    diagnosis, anatomy, contrast = labels.T
    return Cohort(image, diagnosis, anatomy, contrast, volume, numbers, effects, variation, voxel_mm)


def template(voxel_mm: float = 4.0, shape: tuple[int, int, int] = (48, 56, 48)) -> Template:
    """Template on the grid of a cohort."""
    affine, fine = grid_affine(shape, voxel_mm, CENTER_MM), _fine()
    index = np.indices(shape).reshape(3, -1)
    to_fine = np.linalg.solve(fine.affine, affine)
    coordinates = (to_fine[:3, :3] @ index + to_fine[:3, 3:]).reshape(3, *shape)
    regions = sample(fine.regions + 1, coordinates, np.zeros(3), order=0).astype(np.int32) - 1
    return Template(sample(fine.t1, coordinates, _antialias(voxel_mm)), regions, fine.names, affine)


def template_points(cohort: Cohort, number: int, steps: int = 8) -> Float[np.ndarray, "3 x y z"]:
    """Voxel coordinates in the image of subject `number` of every template voxel, by the subject's known field.

    A template voxel q is at the p with source(p) = q, found by the fixed point p ← p + q − source(p).
    """
    x, y, z = cohort.image.shape[1:]
    space = (x, y, z)
    to_grid = np.linalg.solve(grid_affine(space, cohort.voxel_mm, CENTER_MM), _fine().affine)
    labels = np.array([cohort.diagnosis[number], cohort.anatomy[number], cohort.contrast[number]])
    own = _Subject(cohort.subject[number], labels, cohort.effects, cohort.variation, cohort.voxel_mm, space)
    source = np.tensordot(to_grid[:3, :3], own.source(), 1) + to_grid[:3, 3].reshape(3, 1, 1, 1)
    index = np.indices(space).astype(np.float32)
    shift, point = source - index, index
    for _ in range(steps):
        point = index - np.stack([_linear(axis, point) for axis in shift])
    return point.astype(np.float32)


def to_template(image: Float[np.ndarray, "x y z"], points: Float[np.ndarray, "3 x y z"]) -> Float[np.ndarray, "x y z"]:
    """Image or map of a subject in template space, by its `template_points`; 0 outside."""
    return sample(image, points, np.zeros(3))


def standardize(image: Float[np.ndarray, "subject x y z"], within: str = "brain") -> Float[np.ndarray, "subject x y z"]:
    """Intensities z-scored within the brain (voxels above 0; 0 outside it) or over the whole volume.

    Over the volume the background counts, so that the size of the head changes all intensities.
    """
    space = (1, 2, 3)
    mask = np.broadcast_to(image > 0 if within == "brain" else np.True_, image.shape)
    mean, sd = (f(image, axis=space, where=mask, keepdims=True) for f in (np.mean, np.std))
    return np.where(mask, (image - mean) / sd, 0).astype(np.float32)


class _Fine(NamedTuple):
    t1: np.ndarray
    white: np.ndarray
    regions: np.ndarray
    names: tuple[str, ...]
    affine: np.ndarray


class _Subject(NamedTuple):
    """Subject of a cohort; random numbers of a subject do not depend on its labels."""

    number: np.ndarray
    labels: np.ndarray
    effects: Effects
    variation: float
    voxel_mm: float
    shape: tuple[int, int, int]

    def draw(self) -> np.random.Generator:
        return np.random.default_rng([*self.number.tolist(), 1])

    def strengths(self) -> tuple[float, float, float, float]:
        diagnosis, anatomy, contrast = self.labels.tolist()
        e, normal = self.effects, self.draw().standard_normal(4)
        pairs = ((e.atrophy, diagnosis), (e.frontal, anatomy), (e.size, anatomy), (e.darkening, contrast))
        a, b, c, d = (
            (one.present if label else one.absent) + one.sd * z for (one, label), z in zip(pairs, normal, strict=True)
        )
        return a, b, c, d

    def source(self) -> np.ndarray:
        """Voxels of the template of each voxel of the subject."""
        atrophy, frontal, size, _ = self.strengths()
        key = int(np.random.default_rng([*self.number.tolist(), 0]).integers(2**31))
        x, y, z = (side * self.voxel_mm for side in self.shape)
        warp = deformation(key, (x, y, z), CENTER_MM, self.variation)
        warp = warp._replace(matrix=warp.matrix * np.exp(-size))  # a larger head: a smaller source
        affine = _fine().affine
        voxels = source_voxels(warp, self.shape, grid_affine(self.shape, self.voxel_mm, CENTER_MM), affine)
        points = voxels + affine[:3, 3].reshape(3, 1, 1, 1)  # the template's voxels are 1 mm along x, y and z
        for strength, scalings in ((atrophy, ATROPHY), (frontal, LARGER_FRONTAL)):
            for one in scalings:
                for side in (-1, 1):
                    points = _scaled(points, one, side, strength)
        return points - affine[:3, 3].reshape(3, 1, 1, 1)


def _scaled(points: np.ndarray, one: LocalScaling, side: int, strength: float) -> np.ndarray:
    x, y, z = one.center_mm
    away = points - np.array([side * x, y, z], np.float32).reshape(3, 1, 1, 1)
    near = np.exp(-(away**2).sum(0) / (2 * one.radius_mm**2))
    return points + np.float32(one.amount * strength) * near * away


def _image_and_volumes(one: _Subject, site: Site) -> tuple[np.ndarray, np.ndarray]:
    fine, source = _fine(), one.source()
    regions = sample(fine.regions + 1, source, np.zeros(3), order=0).astype(int)
    voxels = np.bincount(regions.ravel(), minlength=len(fine.names) + 1)[1:]
    return _image(one, source, site).astype(np.float32), (voxels * one.voxel_mm**3).astype(np.float32)


def _image(one: _Subject, source: np.ndarray, site: Site) -> np.ndarray:
    from scipy import ndimage

    draw = np.random.default_rng([*one.number.tolist(), 2])
    t1, white = _smooth(one.voxel_mm)
    *_, darkening = one.strengths()
    signal = sample(t1, source, np.zeros(3)) - darkening * sample(white, source, np.zeros(3))
    brain = signal > 0.1
    if site.blur_voxels:
        signal = ndimage.gaussian_filter(signal, site.blur_voxels)
    field = ndimage.gaussian_filter(draw.standard_normal(one.shape), 50 / one.voxel_mm, mode="wrap")
    gain = np.exp(site.bias * field / field.std() + 0.1 * draw.standard_normal())
    noisy = np.clip(signal, 0, None) ** site.gamma * gain + site.noise * draw.standard_normal(one.shape)
    return np.where(brain, np.clip(noisy, 1e-3, None), 0)


@cache
def _fine() -> _Fine:
    """Template of 1 mm and its regions."""
    anatomy = mni_anatomy()
    regions, names = landmark_regions(anatomy.t1 > 0, anatomy.affine)
    regions.setflags(write=False)
    return _Fine(anatomy.t1, anatomy.white, regions, names, anatomy.affine)


@cache
def _smooth(voxel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """T1 and white matter, smoothed for voxels of this size."""
    from scipy import ndimage

    fine, sd = _fine(), _antialias(voxel_mm)
    t1, white = (ndimage.gaussian_filter(np.asarray(image, np.float32), sd) for image in (fine.t1, fine.white))
    return t1, white


def _antialias(voxel_mm: float) -> np.ndarray:
    return np.full(3, np.sqrt(max(voxel_mm**2 - 1, 0) / 12))


def _linear(values: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Linear interpolation of a field at voxel coordinates; the edge's value outside."""
    from scipy import ndimage

    return ndimage.map_coordinates(values, point, order=1, mode="nearest")
