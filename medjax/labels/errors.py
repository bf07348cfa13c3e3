"""Wrong labels on purpose: what annotators get wrong, at a chosen strength, in a chosen fraction of the images.

    wrong = corrupt(seed, labels, kind="random", fraction=0.25, target=0.65)

A kind is a function (draw, label, strength) → label, the stronger the further from the truth:

    random       an elastic jitter and a random over- or under-segmentation of each structure: no direction
    systematic   always the same way: the first structure too large, the last too small
    cut          truncation: the end of a structure that is farthest from the others is missing, as an apex not seen
    shift        the whole label moved along its long axis, as an annulus placed too high
    omission     a structure is missing
    swap         two structures have changed names

Sizes are relative to the structure (a distance of 1 is the radius of a disc of its area), so a strength means the same
for an atrium of 50 voxels and a brain of a million. How strong is set by the Dice that wrong labels are to have with
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
Kind = Callable[[np.random.Generator, np.ndarray, float], np.ndarray]


OWN = 0x1ABE1  # joins the seed, so that errors are not drawn with the numbers that drew the images of that seed


class Corrupted(NamedTuple):
    """Labels to train on, the true ones for audit, and which of them are wrong."""

    labels: Int[np.ndarray, "image *space"]
    clean: Int[np.ndarray, "image *space"]
    corrupted: Bool[np.ndarray, " image"]


def corrupt(
    seed: int, labels: Int[np.ndarray, "image *space"], kind: str, fraction: float | int, target: float | None = None
) -> Corrupted:
    """Exactly round(fraction · images) labels made wrong, each to a Dice of `target` with the truth (None: strongest).

    The Dice is the mean over the structures of an image, met as nearly as voxels allow. A kind that cannot reach the
    target stops at its strongest. Which images are wrong, and in what direction, depends on the seed alone: with a
    larger fraction the same ones are wrong too.

    Raises:
        ConfigError: no such kind, or a fraction or target outside 0 … 1.
        DataError: an image has no structure, or its structures are too few or small for the kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"label error '{kind}'; expected one of {', '.join(KINDS)}")
    if not 0 <= fraction <= 1 or not (target is None or 0 <= target < 1):
        raise ConfigError(f"label errors: fraction {fraction}, target Dice {target}; expected numbers from 0 to 1")
    order = np.random.default_rng((seed, OWN)).permutation(len(labels))
    corrupted = np.zeros(len(labels), bool)
    corrupted[order[: round(fraction * len(labels))]] = True
    wrong = np.array(labels)
    for k in np.flatnonzero(corrupted):
        if not labels[k].any():
            raise DataError(f"labels: image {k} has no structure; expected class numbers above 0 in every image")
        wrong[k] = _to_target((seed, OWN, int(k)), labels[k], KINDS[kind], target)
        if (wrong[k] == labels[k]).all():
            raise DataError(f"labels: '{kind}' leaves image {k} as it is; expected more or larger structures")
    return Corrupted(wrong, np.array(labels), corrupted)


def _to_target(seed: tuple[int, ...], label: np.ndarray, kind: Kind, target: float | None) -> np.ndarray:
    """The same error, drawn again with another strength, until the Dice is right (bisection)."""

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


# ── the kinds; strengths go from 0 (nothing) to 1 (more than anyone would do) ──


def random_errors(draw: np.random.Generator, label: Label, strength: float) -> Label:
    """Elastic jitter, and every structure dilated or eroded by as much, the sign of each drawn."""
    field = [ndimage.gaussian_filter(draw.standard_normal(label.shape), 0.4 * _radius(label > 0)) for _ in label.shape]
    largest = strength * _radius(label > 0)
    moved = [
        voxel + largest * f / max(f.std(), 1e-9) / 2 for voxel, f in zip(np.indices(label.shape), field, strict=True)
    ]
    out = ndimage.map_coordinates(label, moved, order=0, mode="nearest")
    for structure in _structures(label):
        out = dilate(out, structure, float(draw.choice([-1, 1])) * 0.6 * strength)
    return out


def systematic_errors(draw: np.random.Generator, label: Label, strength: float) -> Label:
    """The first structure always too large, at its neighbours' cost, and the last always too small."""
    structures = _structures(label)
    out = dilate(label, structures[0], strength)
    return dilate(out, structures[-1], -strength) if len(structures) > 1 else out


def truncation_errors(draw: np.random.Generator, label: Label, strength: float) -> Label:
    """The label without its end away from the last structure: at strength 1 nine tenths of its length are lost."""
    structures = _structures(label)
    cut = np.isin(label, structures[:-1] or structures)
    along = _along(label, structures)
    ends = along[cut].min(), along[cut].max()
    return np.where(cut & (along > ends[1] - 0.9 * strength * (ends[1] - ends[0])), 0, label).astype(label.dtype)


def shift_errors(draw: np.random.Generator, label: Label, strength: float) -> Label:
    """The label moved along the line from the last structure to the others, by up to twice its radius."""
    direction = _direction(label, _structures(label))
    return ndimage.shift(label, 2 * strength * _radius(label > 0) * direction, order=0, mode="constant")


def omission_errors(draw: np.random.Generator, label: Label, strength: float) -> Label:
    """Without one structure, drawn; strength does not matter, but 0 leaves all."""
    return np.where((label == draw.choice(_structures(label))) & (strength > 0), 0, label).astype(label.dtype)


def swap_errors(draw: np.random.Generator, label: Label, strength: float) -> Label:
    """Two structures, drawn, with each other's names; strength does not matter, but 0 leaves all."""
    structures = _structures(label)
    if len(structures) < 2 or strength == 0:
        return label.copy()
    one, other = draw.choice(structures, 2, replace=False)
    return np.where(label == one, other, np.where(label == other, one, label)).astype(label.dtype)


KINDS: dict[str, Kind] = {
    "random": random_errors,
    "systematic": systematic_errors,
    "cut": truncation_errors,
    "shift": shift_errors,
    "omission": omission_errors,
    "swap": swap_errors,
}


def dilate(label: Label, structure: int, by: float) -> Label:
    """The label with a structure dilated by the fraction `by` of its radius, or eroded where that is negative.

    What an eroded structure leaves goes to the nearest other class.
    """
    inside = label == structure
    if by == 0 or not inside.any():
        return label.copy()
    depth = _depth(inside) - _depth(~inside)
    new = depth > -by * _radius(inside)
    if by > 0:
        return np.where(new, structure, label).astype(label.dtype)
    nearest: Any = ndimage.distance_transform_edt(inside, return_distances=False, return_indices=True)
    return np.where(inside & ~new, label[tuple(nearest)], label).astype(label.dtype)


def _depth(mask: np.ndarray) -> np.ndarray:
    """Voxels from each voxel of the mask to its outside."""
    return np.asarray(ndimage.distance_transform_edt(mask))


def _radius(mask: np.ndarray) -> float:
    """Of the ball of the mask's size, in voxels."""
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
