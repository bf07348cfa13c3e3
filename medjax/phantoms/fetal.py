"""Simulated fetal 4-D diffusion MRI with known truth: organs, IVIM parameters, motion, noise.

    S(b) = S0 [(1 − f) exp(−b D) + f exp(−b D*)]      D* in the absolute convention; b in s/mm², D and D* in mm²/s

Each frame is made as a scanner makes it: tissues on a grid finer than the voxels decay, the fetus is displaced over
the uterus, the receive field shades, voxels average what they hold (thick slices), noise is Rician. Frame 0 is the
baseline that labels and maps belong to. The same seed gives the same scan.

From publications: lung D 1.39–1.97e-3, f 0.2475–0.3909, D* 13.06–32.78e-3 mm²/s (the range that SUPER-IVIM-DC's
simulator uses for fetal lung); f rises with age while D and D* do not (European Journal of Radiology,
2021); the canalicular and saccular stages meet at 26 weeks. All else is our choice, made to be plausible and to look
like such a scan: slopes, spreads, the size of the group's effect, motion, and every other tissue's parameters.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from medjax.errors import DataError
from medjax.io.nifti import Number
from medjax.phantoms.fetal_anatomy import (
    CLASS_OF_TISSUE,
    CLASSES,
    LUNGS,
    Anatomy,
    Placement,
    anatomy,
    placement,
    smooth_field,
)
from medjax.phantoms.fetal_motion import SUBVOXELS, Motion, frames, random_motion, voxel_means
from medjax.phantoms.fetal_tissue import Effects, TissueMaps, lung_volume_ml, signal, tissue_maps, tissue_table

SIX_B = (0.0, 50.0, 100.0, 200.0, 400.0, 600.0)
TEN_B = (0.0, 10.0, 30.0, 50.0, 75.0, 100.0, 200.0, 400.0, 700.0, 1000.0)
LUNG_VOLUME_SD = 0.10  # between fetuses of one age, of the logarithm of the lungs' volume
WITHIN_ORGAN_SD = (0.08, 0.08, 0.06, 0.15)  # within an organ, of the logarithm of S0, f, D, D*, times `heterogeneity`
WITHIN_ORGAN_MM, RECEIVE_FIELD_SD, RECEIVE_FIELD_MM = (
    7.0,
    0.12,
    90.0,
)  # its correlation length; SD and length of the receive field's logarithm


EFFECTS, UNRESTRICTED, MOTION = Effects(), Effects(0.0, 0.0, 0.0), Motion()


class Fetal(NamedTuple):
    """A simulated fetal scan and its ground truth; maps and labels are those of frame 0."""

    signals: Float[np.ndarray, "b x y z"]
    labels: Int[
        np.ndarray, "x y z"
    ]  # class of the largest fraction of a voxel, index of CLASSES; each lung in one piece
    sides: Int[np.ndarray, "x y z"]  # 1 left lung, 2 right lung, 0 elsewhere
    lung_fraction: Float[np.ndarray, "x y z"]  # fraction of the voxel that is lung
    parameters: TissueMaps  # means over each voxel; of f, D and D* weighted by signal
    age: float  # gestational age, weeks
    restricted: bool  # fetal growth restriction
    shifts_mm: Float[np.ndarray, "b 3"]
    rotations: Float[np.ndarray, "b 3"]  # rotation vectors, radians, about the chest
    corrupted: Bool[np.ndarray, " b"]  # frames corrupted by a jump or by signal dropout
    sigma: float  # standard deviation of the noise in either channel
    bvalues: Float[np.ndarray, " b"]
    spacing: tuple[float, float, float]  # mm


def fetal(
    seed: int,
    age: Number = 28.0,
    restricted: bool = False,
    *,
    bvalues: Sequence[Number] = SIX_B,
    shape: tuple[int, int, int] = (48, 48, 20),
    spacing: tuple[Number, Number, Number] = (3.0, 3.0, 5.0),
    snr: Number = 20.0,
    motion: Motion = MOTION,
    effects: Effects = EFFECTS,
    heterogeneity: Number = 1.0,
) -> Fetal:
    """Simulated diffusion scan of one fetus; slices lie along the last axis.

    The fetus of a seed is the same for other b-values, SNR and motion.

    Args:
        seed: random seed.
        age: gestational age, weeks.
        restricted: whether the fetus is growth-restricted.
        bvalues: b-values of the frames, s/mm².
        shape: voxels.
        spacing: voxel size, mm.
        snr: mean signal of the lung at b = 0 over σ; infinite for no noise.
        motion: motion between frames.
        effects: effects of growth restriction, if restricted.
        heterogeneity: factor of the variation within organs.

    Raises:
        DataError: an age outside 16–42 weeks, no b-value or a negative one, an SNR that is not above 0, an impossible
            shape or spacing, an impossible motion, effect or heterogeneity.
    """
    _check(age, bvalues, shape, spacing, snr, motion, effects, heterogeneity)
    fine = tuple(step / n for step, n in zip(spacing, SUBVOXELS, strict=True))
    body = _body(seed, age, effects if restricted else UNRESTRICTED, shape, fine, heterogeneity)
    mover = np.random.default_rng((seed, 1))
    frame_motion = random_motion(mover, len(bvalues), motion)
    scene = partial(_scene, body, bvalues)
    inside = (body.tissue.fetus > 0).astype(np.float32)
    clean = frames(mover, frame_motion, scene, inside, body.shade, fine, body.position.center_mm, motion.smooth_mm)
    parameters = _averaged(
        TissueMaps(*(np.where(inside > 0, *pair) for pair in zip(*body.maps, strict=True))), body.shade
    )
    labels, sides, fraction = _labels(body.tissue)
    sigma = float(np.average(parameters.s0, weights=fraction)) / snr
    noise = np.random.default_rng((seed, 2))
    real, imaginary = (sigma * noise.standard_normal(clean.shape, np.float32) for _ in range(2))
    return Fetal(
        signals=np.hypot(clean + real, imaginary),
        labels=labels,
        sides=sides,
        lung_fraction=fraction,
        parameters=parameters,
        age=float(age),
        restricted=restricted,
        shifts_mm=frame_motion.shifts_mm,
        rotations=frame_motion.rotations,
        corrupted=frame_motion.corrupted,
        sigma=sigma,
        bvalues=np.asarray(bvalues, np.float32),
        spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
    )


def cohort(
    seed: int,
    number: int,
    restricted_fraction: Number = 0.5,
    ages: tuple[Number, Number] = (20.0, 38.0),
    scan: Callable[[int, float, bool], Fetal] = fetal,
) -> tuple[Fetal, ...]:
    """Scans of a cohort of `number` fetuses, ages uniform, youngest first; some are growth-restricted.

    Of the sorted ages the restricted are every (number / restricted)-th, from a random start, so that the groups' ages
    differ little.

    Args:
        seed: random seed.
        number: number of fetuses.
        restricted_fraction: fraction of the fetuses that is growth-restricted.
        ages: minimum and maximum gestational age, weeks.
        scan: (seed, age, restricted) → scan, such as `partial(fetal, snr=…)`.

    Raises:
        DataError: no fetus, a fraction outside 0–1, or ages that are not in order.
    """
    if number < 1 or not 0 <= restricted_fraction <= 1 or not ages[0] <= ages[1]:
        raise DataError(
            f"number, restricted_fraction, ages: {number}, {restricted_fraction:g}, {ages}; "
            "expected ≥ 1, 0–1, low to high"
        )
    rng = np.random.default_rng((seed, 3))
    sorted_ages = np.sort(rng.uniform(*ages, number)).tolist()
    count = round(restricted_fraction * number)
    chosen = set(np.floor((np.arange(count) + rng.uniform()) * number / max(count, 1)).astype(int).tolist())
    own = np.random.SeedSequence((seed, 4)).generate_state(number).tolist()
    return tuple(scan(own[k], age, k in chosen) for k, age in enumerate(sorted_ages))


def _check(
    age: Number,
    bvalues: Sequence[Number],
    shape: tuple[int, ...],
    spacing: tuple[Number, ...],
    snr: Number,
    motion: Motion,
    effects: Effects,
    heterogeneity: Number,
) -> None:
    if not 16 <= age <= 42:
        raise DataError(f"age: {age:g} weeks; expected 16 to 42")
    if not len(bvalues) or not min(bvalues) >= 0:
        raise DataError(f"bvalues: {tuple(bvalues)}; expected at least one, none negative")
    if min(shape) < 8 or not min(spacing) > 0:
        raise DataError(f"shape, spacing: {shape}, {spacing}; expected eight voxels or more a side, above 0 mm")
    if not snr > 0:
        raise DataError(f"snr: {snr:g}; expected above 0")
    if not (motion.rigid_mm >= 0 and motion.smooth_mm >= 0 and 0 <= motion.corrupted <= 1):
        raise DataError(f"motion: {motion}; expected sizes of 0 mm or more and a probability")
    if not (effects.volume > -1 and heterogeneity >= 0):
        raise DataError(f"effects, heterogeneity: {effects}, {heterogeneity:g}; expected volume > −1, 0 or more")


class _Body(NamedTuple):
    """One fetus in its uterus, on the fine grid."""

    position: Placement
    tissue: Anatomy
    maps: tuple[TissueMaps, TissueMaps]  # tissue maps of the fetus, of the uterus
    shade: np.ndarray


def _body(
    seed: int,
    age: Number,
    effects: Effects,
    shape: tuple[int, int, int],
    fine: tuple[Number, ...],
    heterogeneity: Number,
) -> _Body:
    # streams of their own, so that what one draws does not depend on how much another does
    build, outline, values, texture, receive = (np.random.default_rng((seed, 0, k)) for k in range(5))
    nx, ny, nz = (side * n for side, n in zip(shape, SUBVOXELS, strict=True))
    expected = lung_volume_ml(age) * (1 + effects.volume)
    volume = expected * float(np.exp(LUNG_VOLUME_SD * build.standard_normal()))
    position = placement(build, (expected / lung_volume_ml(28.0)) ** (1 / 3))
    tissue = anatomy(outline, position, (nx, ny, nz), fine, volume)
    table = tissue_table(values, age, effects)
    variation = [
        width * heterogeneity * smooth_field(texture, (nx, ny, nz), fine, WITHIN_ORGAN_MM) for width in WITHIN_ORGAN_SD
    ]
    shade = np.exp(RECEIVE_FIELD_SD * smooth_field(receive, (nx, ny, nz), fine, RECEIVE_FIELD_MM))
    return _Body(
        position,
        tissue,
        (tissue_maps(table, tissue.fetus, variation), tissue_maps(table, tissue.uterus, variation)),
        shade,
    )


def _scene(body: _Body, bvalues: Sequence[Number], k: int) -> tuple[np.ndarray, np.ndarray]:
    fetus, uterus = (signal(maps, bvalues[k]) for maps in body.maps)
    return fetus, uterus


def _averaged(fine: TissueMaps, shade: np.ndarray) -> TissueMaps:
    """Means over voxels: of S0 · shade; of f, D and D* weighted by that, or unweighted where it is 0."""
    weight = fine.s0 * shade + np.float32(1e-6)
    total = voxel_means(weight)
    return TissueMaps(voxel_means(fine.s0 * shade), *(voxel_means(weight * p) / total for p in fine[1:]))


def _labels(tissue: Anatomy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class of the largest fraction of each voxel, side of the lung where that is lung, and the lungs' fraction.

    A lung's few voxels without a face in common with the rest of it get their second class.
    """
    every = CLASS_OF_TISSUE[np.where(tissue.fetus > 0, tissue.fetus, tissue.uterus)]
    fractions = np.stack([voxel_means((every == k).astype(np.float32)) for k in range(len(CLASSES))])
    labels = fractions.argmax(axis=0).astype(np.int32)
    left = voxel_means((tissue.sides == 1).astype(np.float32))
    sides = np.where(labels == LUNGS, np.where(2 * left >= fractions[LUNGS], 1, 2), 0).astype(np.int32)
    others = np.delete(np.arange(len(CLASSES)), LUNGS)
    second = others[fractions[others].argmax(axis=0)]
    for side in (1, 2):
        parts, _ = ndimage.label(sides == side)
        stray = (sides == side) & (parts != np.bincount(parts[parts > 0], minlength=2).argmax())
        labels[stray], sides[stray] = second[stray], 0
    return labels, sides, fractions[LUNGS]
