"""Preprocessed cases, and batches of patches cropped from them as a function of (seed, number of the batch).

    prepared = [prepare(case, plan) for case in cases]
    batches = patches(prepared, source=(40, 40, 40), patch=(32, 32, 32), batch=2, seed=0)
    images, labels = batches(7)         (2, 40, 40, 40, channel) and (2, 40, 40, 40), the same at every call

All of it is NumPy, on the host. Source: Isensee et al., Nature Methods 18, 2021; nnU-Net v2's data loader.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import DataError
from medjax.memory import check_memory
from medjax.segmentation.plan import Case, Plan, case_spacing
from medjax.segmentation.resample import (
    Box,
    Shape,
    Spacing,
    ct_normalize,
    new_shape,
    nonzero_box,
    resample,
    resample_labels,
    zscore_normalize,
)
from medjax.training.batches import batch_indices

OVERSAMPLE_FOREGROUND = 0.33  # fraction of a batch that is centred on a foreground voxel
MAX_CLASS_LOCATIONS = 10_000  # voxels of a class and case that patches may be centred on
Batches = Callable[[int], tuple[np.ndarray, np.ndarray]]


class PreparedCase(NamedTuple):
    """Preprocessed case: normalised and resampled to the plan's spacing."""

    image: Float[np.ndarray, "x y z channel"]
    labels: Int[np.ndarray, "x y z"]
    class_locations: tuple[Int[np.ndarray, "voxel 3"], ...]  # indices of voxels of each foreground class, or region
    labeled: Int[np.ndarray, "voxel 3"] | None = None  # indices of voxels that are not ignored; None: no voxel is


def prepare(case: Case, plan: Plan) -> PreparedCase:
    """Preprocessed case for training: cropped, normalised and resampled as planned; the same for all folds.

    Raises:
        DataError: channels or shapes are not those of the plan, a label is not a class, or every voxel is 0.
    """
    if case.labels.shape != case.image.shape[:3]:
        raise DataError(f"labels: shape {case.labels.shape}; expected that of the image, {case.image.shape[:3]}")
    values = plan.label_values
    if case.labels.min() < 0 or case.labels.max() >= values:
        raise DataError(
            f"labels: from {case.labels.min()} to {case.labels.max()}; expected 0 to {values - 1}, as planned"
        )
    image, box = prepare_image(case.image, case.spacing, plan)
    x, y, z = image.shape[:3]
    target = case_spacing(plan, case.spacing)
    labels = resample_labels(case.labels[box].astype(np.int32), case.spacing, target, values, (x, y, z))
    structures = plan.regions or [(kind,) for kind in range(1, plan.classes)]
    masks = [np.isin(labels, structure) for structure in structures]
    locations = tuple(_subsample(np.argwhere(mask)) for mask in masks if mask.any())
    labeled = None if plan.ignore is None else _subsample(np.argwhere(labels != plan.ignore))
    return PreparedCase(image, labels, locations, labeled)


def prepare_image(
    image: Float[np.ndarray, "x y z channel"], spacing: Spacing, plan: Plan
) -> tuple[Float[np.ndarray, "u v w channel"], Box]:
    """Preprocessed image, cropped to nonzero, normalised and resampled as planned; and the box of the crop.

    A channel named CT is normalised by the intensities of the training cases, others by their own z-score. Of a 2-D
    plan an image keeps its own slices.

    Raises:
        DataError: another number of channels than planned, NaN or infinite voxels, or every voxel is 0.
    """
    if image.shape[-1] != len(plan.channels):
        raise DataError(f"image: {image.shape[-1]} channels; expected {len(plan.channels)}, as planned")
    if not (np.isfinite(image).all() and min(spacing) > 0):
        raise DataError(f"image: NaN or infinite voxels, or spacing {spacing} mm; expected finite ones and mm above 0")
    box, mask = nonzero_box(image)
    normalized = [
        ct_normalize(image[box][..., k], plan.intensities[k])
        if name.upper() == "CT"
        else zscore_normalize(image[box][..., k], mask[box] if plan.use_mask_for_norm else None)
        for k, name in enumerate(plan.channels)
    ]
    target = case_spacing(plan, spacing)
    x, y, z, channels = (*image[box].shape[:3], len(normalized))
    size = new_shape((x, y, z), spacing, target)
    copies = 3 * channels + plan.outputs  # of single precision; logits are resampled too
    shape = " × ".join(map(str, size))
    check_memory(f"image of {shape} voxels at the plan's spacing", 4 * copies * math.prod(size), "look at its spacing")
    return resample(np.stack(normalized, axis=-1), spacing, target), box


def patches(
    prepared: Sequence[PreparedCase],
    source: Shape,
    patch: Shape,
    batch: int,
    seed: int | tuple[int, ...],
    oversample_foreground: float = OVERSAMPLE_FOREGROUND,
) -> Batches:
    """Batches of random patches by number: images (batch, *source, channel) and labels (batch, *source).

    The central `patch` of the `source` voxels, as `augment_nnunet` crops it, lies in the volume where it fits; beyond
    the volume images are 0 and labels background. Cases come in shuffled epochs. Where voxels may be ignored, every
    patch is centred on one that is not, if the case has any.

    Args:
        source: voxels of a patch before augmentation.
        patch: voxels after it.
        batch: patches in a batch.
        oversample_foreground: fraction of a batch, its last ones, centred on a voxel of one of the case's structures,
            each as likely as the others.

    Raises:
        DataError: there is no case.
    """
    if not prepared:
        raise DataError("cases: none to train on; expected at least one")
    entropy = (seed,) if isinstance(seed, int) else seed
    anywhere = round(batch * (1 - oversample_foreground))

    def batches(number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((*entropy, 1, number))
        images, labels = list[np.ndarray](), list[np.ndarray]()
        for position, which in enumerate(batch_indices(number, len(prepared), batch, (*entropy, 0))):
            one = prepared[which]
            low = _corner(rng, one, source, patch, position >= anywhere)
            images.append(_crop(one.image, low, source))
            labels.append(_crop(one.labels, low, source))
        return np.stack(images), np.stack(labels)

    return batches


def _subsample(locations: np.ndarray) -> np.ndarray:
    if len(locations) <= MAX_CLASS_LOCATIONS:
        return locations
    rng = np.random.default_rng(len(locations))
    return locations[rng.choice(len(locations), MAX_CLASS_LOCATIONS, replace=False)]


def _corner(rng: np.random.Generator, one: PreparedCase, source: Shape, patch: Shape, structure: bool) -> list[int]:
    """First voxel of a patch, which may lie outside the volume."""
    sides, wanted, own = np.array(one.labels.shape), np.array(source), np.array(patch)
    middle = (wanted - 1) // 2 - (own - 1) // 2  # where augmentation without a warp crops the patch from the source
    low = -middle - np.maximum(own - sides, 0) // 2
    high = low + np.maximum(sides - own, 0)
    locations = np.empty((0, 3), int) if one.labeled is None else one.labeled
    if structure and one.class_locations:
        locations = one.class_locations[rng.integers(len(one.class_locations))]
    if len(locations):
        return np.clip(locations[rng.integers(len(locations))] - wanted // 2, low, high).tolist()
    return rng.integers(low, high, endpoint=True).tolist()


def _crop(array: np.ndarray, low: list[int], source: Shape) -> np.ndarray:
    """`source` voxels from `low` on, 0 outside the array."""
    piece = np.zeros((*source, *array.shape[3:]), array.dtype)
    ends = [(max(a, 0), min(a + n, side)) for a, n, side in zip(low, source, array.shape, strict=False)]
    into = tuple(slice(first - a, last - a) for (first, last), a in zip(ends, low, strict=True))
    piece[into] = array[tuple(slice(*end) for end in ends)]
    return piece
