"""Simulated annotation errors: corrupted segmentation labels, to a chosen Dice, in a chosen fraction of the images.

    corrupted = corrupt(seed, labels, kind="random", fraction=0.25, target_dice=0.65)

A kind is a function (rng, label, strength) → label, the stronger the further from the truth:

    random       elastic jitter and random dilation or erosion of each structure: unbiased
    systematic   biased: the first structure dilated, the last eroded
    truncation   the end of a structure that is farthest from the others is missing, as an apex out of view
    shift        the whole label shifted along its long axis, as an annulus placed too high
    omission     a structure is missing
    swap         the classes of two structures are swapped

Sizes are relative to the structure (a distance of 1 is the radius of a disc of its area), so a strength means the same
for an atrium of 50 voxels and a brain of a million. It is set by the Dice that corrupted labels are to have with
true ones.

Source: scale-free erosion and dilation after ADELE, Liu et al., CVPR 2022.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy import ndimage

from medjax.errors import ConfigError, DataError
from medjax.metrics.overlap import mean_dice

Label = Int[np.ndarray, "*space"]
LabelError = Callable[[np.random.Generator, np.ndarray, float], np.ndarray]

SEED_STREAM = 0x1ABE1  # joins the seed, so that errors are independent of images drawn with that seed


class CorruptedLabels(NamedTuple):
    """Corrupted labels to train on, the correct (clean) ones, and which images are corrupted."""

    labels: Int[np.ndarray, "image *space"]
    clean: Int[np.ndarray, "image *space"]
    corrupted: Bool[np.ndarray, " image"]  # whether a label is corrupted


def corrupt(
    seed: int,
    labels: Int[np.ndarray, "image *space"],
    kind: str,
    fraction: float | int,
    target_dice: float | None = None,
) -> CorruptedLabels:
    """Labels of which exactly round(fraction · images) are corrupted, to a Dice of `target_dice` with the truth.

    The Dice is the mean over the structures of an image, met as nearly as voxels allow; a kind that cannot reach it has
    strength 1, as has any without a target. Which images are corrupted, and in what direction, depends on the seed
    alone: with a larger fraction the same ones are corrupted too.

    Args:
        seed: random seed.
        labels: correct labels.
        kind: kind of label error, a key of `KINDS`.
        fraction: fraction of the images whose labels are corrupted.
        target_dice: Dice of corrupted labels with the correct ones; None: errors of strength 1.

    Raises:
        ConfigError: no such kind, or a fraction or target Dice outside 0 … 1.
        DataError: an image has no structure, or its structures are too few or small for the kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"label error '{kind}'; expected one of {', '.join(KINDS)}")
    if not 0 <= fraction <= 1 or not (target_dice is None or 0 <= target_dice < 1):
        raise ConfigError(f"label errors: fraction {fraction}, target Dice {target_dice}; expected numbers from 0 to 1")
    order = np.random.default_rng((seed, SEED_STREAM)).permutation(len(labels))
    corrupted = np.zeros(len(labels), bool)
    corrupted[order[: round(fraction * len(labels))]] = True
    wrong = np.array(labels)
    for k in np.flatnonzero(corrupted):
        if not labels[k].any():
            raise DataError(f"labels: image {k} has no structure; expected class numbers above 0 in every image")
        wrong[k] = _corrupt_to_dice((seed, SEED_STREAM, int(k)), labels[k], KINDS[kind], target_dice)
        if (wrong[k] == labels[k]).all():
            raise DataError(f"labels: '{kind}' leaves image {k} as it is; expected more or larger structures")
    return CorruptedLabels(wrong, np.array(labels), corrupted)


def _corrupt_to_dice(seed: tuple[int, ...], label: np.ndarray, kind: LabelError, target: float | None) -> np.ndarray:
    """Label with the error drawn from `seed`, at the strength that gives the target Dice (bisection)."""

    def at(strength: float) -> np.ndarray:
        return kind(np.random.default_rng(seed), label, strength)

    low, high = 0.0, 1.0
    if target is None or mean_dice(at(high), label) >= target:
        return at(high)
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_dice(at(middle), label) > target else (low, middle)
    wrong = [one for one in (at(low), at(high)) if (one != label).any()]
    return min(wrong or [label], key=lambda one: abs(mean_dice(one, label) - target))


# ── kinds of error; strengths from 0 (none) to 1 (beyond any annotator's error) ──


def random_errors(rng: np.random.Generator, label: Label, strength: float) -> Label:
    """Random label errors: elastic jitter, and every structure dilated or eroded by as much, the sign of each drawn."""
    field = [ndimage.gaussian_filter(rng.standard_normal(label.shape), 0.4 * _radius(label > 0)) for _ in label.shape]
    largest = strength * _radius(label > 0)
    coordinates = [
        voxel + largest * f / max(f.std(), 1e-9) / 2 for voxel, f in zip(np.indices(label.shape), field, strict=True)
    ]
    out = ndimage.map_coordinates(label, coordinates, order=0, mode="nearest")
    for structure in _structures(label):
        out = dilate(out, structure, float(rng.choice([-1, 1])) * 0.6 * strength)
    return out


def systematic_errors(rng: np.random.Generator, label: Label, strength: float) -> Label:
    """Systematic label errors: the first structure dilated into its neighbours, the last eroded."""
    structures = _structures(label)
    out = dilate(label, structures[0], strength)
    return dilate(out, structures[-1], -strength) if len(structures) > 1 else out


def truncation_errors(rng: np.random.Generator, label: Label, strength: float) -> Label:
    """Truncation errors: the end away from the last structure is missing, at strength 1 nine tenths of the length."""
    structures = _structures(label)
    truncated = np.isin(label, structures[:-1] or structures)
    along = _along(label, structures)
    ends = along[truncated].min(), along[truncated].max()
    return np.where(truncated & (along > ends[1] - 0.9 * strength * (ends[1] - ends[0])), 0, label).astype(label.dtype)


def shift_errors(rng: np.random.Generator, label: Label, strength: float) -> Label:
    """Shift errors: the label shifted away from the last structure, towards the others, by up to twice its radius."""
    direction = _direction(label, _structures(label))
    return ndimage.shift(label, 2 * strength * _radius(label > 0) * direction, order=0, mode="constant")


def omission_errors(rng: np.random.Generator, label: Label, strength: float) -> Label:
    """Omission errors: one structure, drawn, is missing at any strength above 0."""
    return np.where((label == rng.choice(_structures(label))) & (strength > 0), 0, label).astype(label.dtype)


def swap_errors(rng: np.random.Generator, label: Label, strength: float) -> Label:
    """Swap errors: the classes of two structures, drawn, are swapped at any strength above 0."""
    structures = _structures(label)
    if len(structures) < 2 or strength == 0:
        return label.copy()
    one, other = rng.choice(structures, 2, replace=False)
    return np.where(label == one, other, np.where(label == other, one, label)).astype(label.dtype)


KINDS: dict[str, LabelError] = {
    "random": random_errors,
    "systematic": systematic_errors,
    "truncation": truncation_errors,
    "shift": shift_errors,
    "omission": omission_errors,
    "swap": swap_errors,
}


def dilate(label: Label, structure: int, fraction: float) -> Label:
    """Label with a structure dilated by a fraction of its radius, or eroded where that is negative.

    Voxels that an eroded structure leaves get the nearest other class.
    """
    inside = label == structure
    if fraction == 0 or not inside.any():
        return label.copy()
    depth = _depth(inside) - _depth(~inside)
    new = depth > -fraction * _radius(inside)
    if fraction > 0:
        return np.where(new, structure, label).astype(label.dtype)
    nearest: Any = ndimage.distance_transform_edt(inside, return_distances=False, return_indices=True)
    return np.where(inside & ~new, label[tuple(nearest)], label).astype(label.dtype)


def _depth(mask: np.ndarray) -> np.ndarray:
    """Distance from each voxel of the mask to its outside, in voxels."""
    return np.asarray(ndimage.distance_transform_edt(mask))


def _radius(mask: np.ndarray) -> float:
    """Radius of the ball of the mask's size, in voxels."""
    return float((mask.sum() / np.pi) ** 0.5 if mask.ndim == 2 else (mask.sum() * 3 / 4 / np.pi) ** (1 / mask.ndim))


def _structures(label: np.ndarray) -> list[int]:
    return [int(c) for c in np.unique(label) if c > 0]


def _direction(label: np.ndarray, structures: list[int]) -> np.ndarray:
    """Unit vector from the last structure's centre to that of all others; of a single one, its longest axis."""
    if len(structures) > 1:
        ends = (np.mean(np.argwhere(np.isin(label, part)), axis=0) for part in (structures[:-1], structures[-1:]))
        away = np.subtract(*ends)
    else:
        voxels = np.argwhere(label > 0)
        away = np.linalg.eigh(np.cov(voxels.T))[1][:, -1]
    return away / max(float(np.linalg.norm(away)), 1e-9)


def _along(label: np.ndarray, structures: list[int]) -> np.ndarray:
    direction = _direction(label, structures)
    return np.tensordot(direction, np.indices(label.shape), 1)
