"""Cases as a plan wants them, and batches of patches cut from them as a function of (seed, number).

    ready = [prepare(case, plan) for case in cases]
    batches = patches(ready, source=(40, 40, 40), patch=(32, 32, 32), batch=2, seed=0)
    images, labels = batches(7)         (2, 40, 40, 40, channel) and (2, 40, 40, 40), the same whenever it is asked for

All of it is NumPy, on the host. Source: Isensee et al., Nature Methods 18, 2021; nnU-Net v2's data loader.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError
from medjax.segmentation.plan import Case, Plan
from medjax.segmentation.resample import (
    Box,
    Shape,
    Spacing,
    ct_scored,
    labels_resampled,
    non_zero,
    resampled,
    z_scored,
)
from medjax.training.batches import batch_indices

OVERSAMPLED = 0.33  # share of a batch that is centred on a structure
REMEMBERED = 10_000  # places of a class and case that patches are centred on
Batches = Callable[[int], tuple[np.ndarray, np.ndarray]]


class Prepared(NamedTuple):
    """A case on the grid of a plan."""

    image: Float[np.ndarray, "x y z channel"]
    labels: Int[np.ndarray, "x y z"]
    places: tuple[Int[np.ndarray, "place 3"], ...]  # voxels of each class that it has, background not counted


def prepare(case: Case, plan: Plan) -> Prepared:
    """Cropped, scaled and resampled: what training takes. Once for all folds.

    Raises:
        DataError: channels or shapes are not those of the plan, a label is no class, or every voxel is 0.
    """
    if case.labels.shape != case.image.shape[:3]:
        raise DataError(f"labels: shape {case.labels.shape}; expected that of the image, {case.image.shape[:3]}")
    if case.labels.min() < 0 or case.labels.max() >= plan.classes:
        raise DataError(
            f"labels: from {case.labels.min()} to {case.labels.max()}; expected 0 to {plan.classes - 1}, as planned"
        )
    image, box = prepared_image(case.image, case.spacing, plan)
    x, y, z = image.shape[:3]
    labels = labels_resampled(case.labels[box].astype(np.int32), case.spacing, plan.spacing, plan.classes, (x, y, z))
    return Prepared(image, labels, tuple(_some(np.argwhere(labels == kind)) for kind in np.unique(labels) if kind > 0))


def prepared_image(
    image: Float[np.ndarray, "x y z channel"], spacing: Spacing, plan: Plan
) -> tuple[Float[np.ndarray, "u v w channel"], Box]:
    """The image cropped to what is not 0, its grey values scaled, at the plan's spacing; the box of the crop.

    A channel named CT is clipped and scaled by the grey values of the training cases, others by their own z-score.

    Raises:
        DataError: another number of channels than planned, NaN or infinite voxels, or every voxel is 0.
    """
    if image.shape[-1] != len(plan.channels):
        raise DataError(f"image: {image.shape[-1]} channels; expected {len(plan.channels)}, as planned")
    if not (np.isfinite(image).all() and min(spacing) > 0):
        raise DataError(f"image: NaN or infinite voxels, or spacing {spacing} mm; expected finite ones and mm above 0")
    box, inside = non_zero(image)
    scaled = [
        ct_scored(image[box][..., k], plan.greys[k])
        if name.upper() == "CT"
        else z_scored(image[box][..., k], inside[box] if plan.masked else None)
        for k, name in enumerate(plan.channels)
    ]
    return resampled(np.stack(scaled, axis=-1), spacing, plan.spacing), box


def patches(
    ready: Sequence[Prepared],
    source: Shape,
    patch: Shape,
    batch: int,
    seed: int | tuple[int, ...],
    oversampled: float = OVERSAMPLED,
) -> Batches:
    """batches(number): images (batch, *source, channel) and labels (batch, *source), cut at random places.

    The last round(batch · oversampled) of a batch are centred on a voxel of one of the case's structures, each as
    likely as the others. The middle `patch` of the `source` voxels, as `augment_volumes` cuts it, lies in the volume,
    where it fits; beyond the volume images are 0 and labels background. Cases come in shuffled epochs.

    Raises:
        DataError: there is no case.
    """
    if not ready:
        raise DataError("cases: none to train on; expected at least one")
    entropy = (seed,) if isinstance(seed, int) else seed
    anywhere = round(batch * (1 - oversampled))

    def batches(number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((*entropy, 1, number))
        images, labels = list[np.ndarray](), list[np.ndarray]()
        for place, which in enumerate(batch_indices(number, len(ready), batch, (*entropy, 0))):
            one = ready[which]
            low = _corner(rng, one, source, patch, place >= anywhere)
            images.append(_cut(one.image, low, source))
            labels.append(_cut(one.labels, low, source))
        return np.stack(images), np.stack(labels)

    return batches


def _some(places: np.ndarray) -> np.ndarray:
    if len(places) <= REMEMBERED:
        return places
    return places[np.random.default_rng(len(places)).choice(len(places), REMEMBERED, replace=False)]


def _corner(rng: np.random.Generator, one: Prepared, source: Shape, patch: Shape, structure: bool) -> list[int]:
    """The first voxel of a patch, which may lie outside."""
    sides, wanted, own = np.array(one.labels.shape), np.array(source), np.array(patch)
    middle = (wanted - 1) // 2 - (own - 1) // 2  # where augmentation without a warp cuts the patch from the source
    low = -middle - np.maximum(own - sides, 0) // 2
    high = low + np.maximum(sides - own, 0)
    if structure and one.places:
        places = one.places[rng.integers(len(one.places))]
        return np.clip(places[rng.integers(len(places))] - wanted // 2, low, high).tolist()
    return rng.integers(low, high, endpoint=True).tolist()


def _cut(array: np.ndarray, low: list[int], source: Shape) -> np.ndarray:
    """`source` voxels from `low` on, 0 outside the array."""
    piece = np.zeros((*source, *array.shape[3:]), array.dtype)
    ends = [(max(a, 0), min(a + n, side)) for a, n, side in zip(low, source, array.shape, strict=False)]
    into = tuple(slice(first - a, last - a) for (first, last), a in zip(ends, low, strict=True))
    piece[into] = array[tuple(slice(*end) for end in ends)]
    return piece
