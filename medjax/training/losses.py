"""Segmentation losses, one value an image: cross-entropy, focal, soft Dice, of regions, deep supervision.

Labels are class numbers `(batch, *space)`, or soft ones `(batch, *space, class)` that sum to 1. A `mask` holds the
pixels that count; of class numbers, `ignore` is the one of pixels that do not. Regions are unions of classes, each with
a logit of its own: they may overlap.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from medjax.errors import DataError
from medjax.training.spatial import block_means, mean

Logits = Float[Array, "batch *space class"]
Labels = Int[Array, "batch *space"] | Float[Array, "batch *space class"]
Mask = Bool[Array, "batch *space"]
PerImage = Float[Array, " batch"]
Loss = Callable[[Array, Array], Array]


def soft_labels(labels: Labels, classes: int) -> Float[Array, "batch *space class"]:
    """Soft labels: one-hot encoding of class numbers; labels that are soft already are returned as they are."""
    return labels if jnp.issubdtype(labels.dtype, jnp.floating) else jax.nn.one_hot(labels, classes)


def cross_entropy(logits: Logits, labels: Labels, mask: Mask | None = None) -> PerImage:
    """Cross-entropy −Σ_c q_c log p_c, mean over pixels; of a `mask` see `masked_mean`."""
    values = -jnp.sum(soft_labels(labels, logits.shape[-1]) * jax.nn.log_softmax(logits), axis=-1)
    return masked_mean(values, mask)


def masked_mean(values: Float[Array, "batch *space"], mask: Mask | None) -> PerImage:
    """Sum over the pixels of the mask, divided by their mean number in an image; 0 if there are none.

    Its mean over the batch is the mean over all pixels of the mask, in whichever image they are. None: all pixels.
    """
    if mask is None:
        return mean(values)
    space = tuple(range(1, values.ndim))
    number = jnp.sum(mask, dtype=values.dtype) / len(values)
    return jnp.sum(jnp.where(mask, values, 0), axis=space) / jnp.where(number > 0, number, 1)


def focal(logits: Logits, labels: Labels, gamma: float = 2.0) -> PerImage:
    """Focal loss −Σ_c q_c (1 − p_c)^γ log p_c, mean over pixels. Source: Lin et al., ICCV 2017."""
    log_p = jax.nn.log_softmax(logits)
    return -mean(jnp.sum(soft_labels(labels, logits.shape[-1]) * (1 - jnp.exp(log_p)) ** gamma * log_p, axis=-1))


def soft_dice(
    logits: Logits, labels: Labels, smooth: float = 1.0, batch: bool = False, mask: Mask | None = None
) -> PerImage:
    """Soft Dice loss, 1 − mean over foreground classes of (2 Σ p q + s) / (Σ p + Σ q + s), s = `smooth` voxels.

    With `batch`, sums go over the pixels of all images (batch Dice), and every image has the same loss. They go over
    the `mask` if there is one.

    Source: Milletari et al., 3DV 2016, with sums instead of squares as in nnU-Net.
    """
    p, q = jax.nn.softmax(logits), soft_labels(labels, logits.shape[-1])
    return 1 - jnp.mean(_dice(p, q, smooth, batch, mask)[:, 1:], axis=-1)


def _dice(p: Array, q: Array, smooth: float, batch: bool, mask: Mask | None) -> Float[Array, "batch class"]:
    if mask is not None:
        p, q = p * mask[..., None], q * mask[..., None]
    space = tuple(range(1, p.ndim - 1))
    both, total = jnp.sum(p * q, axis=space), jnp.sum(p + q, axis=space)
    if batch:
        both, total = (jnp.broadcast_to(jnp.sum(each, axis=0, keepdims=True), each.shape) for each in (both, total))
    return (2 * both + smooth) / (total + smooth)


def dice_cross_entropy(
    logits: Logits, labels: Labels, smooth: float = 1.0, batch: bool = False, ignore: int | None = None
) -> PerImage:
    """Dice loss + cross-entropy; `smooth` and `batch` are those of `soft_dice`, voxels of class `ignore` do not count.

    With a small `smooth`, as nnU-Net's (`NNUNET_LOSS`), an absent class that is predicted anywhere costs as much as one
    that is missed; with 1 voxel it costs little. Source: Isensee et al., Nature Methods 18, 2021; there Dice is counted
    from 0 down to −1, here from 1 down to 0.
    """
    known, mask = _split_ignored(labels, ignore)
    return soft_dice(logits, known, smooth, batch, mask) + cross_entropy(logits, known, mask)


def _split_ignored(labels: Array, ignore: int | None) -> tuple[Array, Mask | None]:
    """Class numbers, any where they are ignored, and the mask of the others."""
    if ignore is None:
        return labels, None
    mask = labels != ignore
    return jnp.where(mask, labels, 0), mask


def region_masks(labels: Int[Array, "*space"], regions: Sequence[Sequence[int]]) -> Bool[Array, "*space region"]:
    """Masks of regions, each the union of some classes."""
    return jnp.stack([jnp.isin(labels, jnp.array(region)) for region in regions], axis=-1)


def region_dice_cross_entropy(
    logits: Float[Array, "batch *space region"],
    labels: Int[Array, "batch *space"],
    regions: Sequence[Sequence[int]],
    smooth: float = 1.0,
    batch: bool = False,
    ignore: int | None = None,
) -> PerImage:
    """Loss of regions p_r = σ(logit r): 1 − mean Dice over regions + mean binary cross-entropy over pixels and regions.

    `smooth`, `batch` and `ignore` are those of `dice_cross_entropy`. Nothing is background: every region counts.

    Source: nnU-Net v2's region-based training. With an ignore label, and only then, nnU-Net sums the cross-entropy over
    the regions; here it is the mean, whether or not pixels are ignored.
    """
    known, mask = _split_ignored(labels, ignore)
    q = region_masks(known, regions).astype(logits.dtype)
    entropy = jnp.mean(jax.nn.softplus(logits) - q * logits, axis=-1)
    dice = jnp.mean(_dice(jax.nn.sigmoid(logits), q, smooth, batch, mask), axis=-1)
    return 1 - dice + masked_mean(entropy, mask)


NNUNET_LOSS = partial(dice_cross_entropy, smooth=1e-5)
NNUNET_REGION_LOSS = partial(region_dice_cross_entropy, smooth=1e-5)


def deep_supervision(
    levels: Sequence[Array],
    labels: Array,
    strides: Sequence[tuple[int, ...]] | None = None,
    loss: Loss = NNUNET_LOSS,
) -> PerImage:
    """Deep supervision loss Σ_i w_i loss(levels[i], labels at level i), w_i ∝ 2^−i, 0 for the coarsest of several.

    Levels are finest first, Σ w_i = 1. A coarse level's labels are every f-th class number, where strided convolutions
    have their centre, f fine voxels being a coarse one; or the means of soft labels. `strides` are those of the
    network's stages, the first all 1, and are checked against the levels' shapes. Weights and default loss are
    nnU-Net's.

    Raises:
        DataError: no levels, or a level whose shape is not the labels' divided by its strides.
    """
    if not levels:
        raise DataError("levels: none; expected the logits of at least one level")
    weights = [2.0**-depth for depth in range(max(len(levels) - 1, 1))]
    value = jnp.zeros(len(labels))
    for depth, (weight, logits) in enumerate(zip(weights, levels, strict=False)):
        factors = _factors(depth, logits.shape[1:-1], labels.shape, strides)
        value = value + weight / sum(weights) * loss(logits, _downsample(labels, factors))
    return value


def _factors(
    depth: int, space: tuple[int, ...], fine: tuple[int, ...], strides: Sequence[tuple[int, ...]] | None
) -> tuple[int, ...]:
    """Number of fine voxels in one of a level, along each axis."""
    found = tuple(side // max(coarse, 1) for side, coarse in zip(fine[1:], space, strict=False))
    expected = tuple(math.prod(along) for along in zip(*strides[: depth + 1], strict=True)) if strides else found
    if expected != found or any(side != coarse * f for side, coarse, f in zip(fine[1:], space, found, strict=False)):
        raise DataError(f"levels: level {depth} has sides {space}; expected labels of {fine[1:]} divided by {expected}")
    return found


def _downsample(labels: Array, factors: tuple[int, ...]) -> Array:
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return block_means(labels, tuple(side // f for side, f in zip(labels.shape[1:], factors, strict=False)))
    return labels[(slice(None), *(slice(None, None, f) for f in factors))]
