"""Label flips: the fraction of the foreground that a segmentation gives to another class, and the risk of it.

    confusion = jax.vmap(confusion_matrix, (0, 0, None))(prediction, truth, classes)     (image, true, predicted)
    decompose(confusion.sum(0))        over all pixels                 decompose(confusion)       of each image
    mean_over_images(confusion)        mean over images                flip_risk(logits)          needs no ground truth

Class 0 is background. A foreground pixel is correct, flipped to another foreground class, or missed to background; the
three fractions sum to 1. Groups are g = 2 · class + scene; a class's own scene, in which it is common, is class mod 2.

Source: Achara et al., Right Regions, Wrong Labels, arXiv 2604.13326, 2026, and the definitions of its evaluation code.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from medjax.errors import DataError
from medjax.metrics.overlap import overlap_from_confusion

AnyArray = Array | np.ndarray
Logits = Float[Array, "image *space class"]


class FlipFractions(NamedTuple):
    """Fractions of the true foreground: correct, flipped, missed; they sum to 1, or are NaN where there is none."""

    correct: Float[Array, "*batch"]
    flip: Float[Array, "*batch"]  # predicted as another foreground class
    miss: Float[Array, "*batch"]  # predicted as background


class Deciles(NamedTuple):
    """Mean risk and mean flip of images in bins of equally many, sorted by risk."""

    risk: Float[np.ndarray, " bin"]  # mean of each bin, lowest first
    flip: Float[np.ndarray, " bin"]
    top_decile_fraction: float  # fraction of all flips that is in the last bin; NaN if nothing flips


def decompose(confusion: Integer[AnyArray, "*batch true predicted"]) -> FlipFractions:
    """Correct, flip and miss fractions, Σ_c n_cc / N, Σ_{c ≠ d > 0} n_cd / N and Σ_c n_c0 / N, true classes c > 0."""
    return _decompose(_floating(confusion))


@partial(jax.jit, inline=True)
def _decompose(confusion: Array) -> FlipFractions:
    counts = confusion[..., 1:, :].astype(float)
    total = counts.sum((-2, -1))
    correct = jnp.trace(counts[..., 1:], axis1=-2, axis2=-1)
    miss = counts[..., 0].sum(-1)
    return FlipFractions(correct / total, (counts[..., 1:].sum((-2, -1)) - correct) / total, miss / total)


def mean_over_images(confusion: Integer[AnyArray, "image true predicted"]) -> FlipFractions:
    """Mean over images of their flip fractions; images without foreground are left out."""
    return _nanmeans(_floating(confusion))


@jax.jit
def _nanmeans(confusion: Array) -> FlipFractions:
    return FlipFractions(*(jnp.nanmean(fraction) for fraction in _decompose(confusion)))


def foreground_iou(confusion: Integer[AnyArray, "*batch true predicted"]) -> Float[Array, "*batch"]:
    """Intersection over union of the whole foreground against background, whatever its classes."""
    return _foreground_iou(_floating(confusion))


@partial(jax.jit, inline=True)
def _foreground_iou(confusion: Array) -> Array:
    counts = confusion.astype(float)
    return counts[..., 1:, 1:].sum((-2, -1)) / (counts.sum((-2, -1)) - counts[..., 0, 0])


def _floating(confusion: AnyArray) -> AnyArray:
    """As floating point where it is NumPy's, before JAX could cut a NumPy sum of more than 2³¹ pixels to 32 bits."""
    return confusion.astype(float) if isinstance(confusion, np.ndarray) else confusion


@partial(jax.jit, static_argnames="groups", inline=True)
def confusion_by_group(
    confusion: Integer[AnyArray, "image true predicted"], group: Integer[AnyArray, " image"], groups: int
) -> Integer[Array, "{groups} true predicted"]:
    """Confusion matrix of each group, summed over its images; zeros where a group has none."""
    return jax.ops.segment_sum(jnp.asarray(confusion), jnp.asarray(group), groups)


@partial(jax.jit, inline=True)
def iou_gaps(grouped: Integer[AnyArray, "group classes classes"]) -> Float[Array, " foreground"]:
    """IoU gap of each class, common minus rare: its IoU in its own scene minus that in the other scene.

    `grouped` is that of `confusion_by_group`. With two classes these are the paper's IoU(g0) − IoU(g1) and IoU(g3) −
    IoU(g2).
    """
    iou = jax.vmap(overlap_from_confusion)(jnp.asarray(grouped)).iou
    kinds = np.arange(iou.shape[-1] - 1)
    common = 2 * kinds + kinds % 2
    return iou[common, 1 + kinds] - iou[common ^ 1, 1 + kinds]


@partial(jax.jit, inline=True)
def identity_entropy(logits: Logits) -> Float[Array, "image *space"]:
    """Entropy of the foreground class, −Σ_c q_c ln q_c / ln C, q the softmax over the C foreground logits: 0 … 1.

    q is p_c / Σ p of the full softmax without its division, which is 0/0 where background is certain. The paper has
    C = 2 and nats: its values are ln 2 times these.

    Raises:
        DataError: fewer than two foreground classes.
    """
    if logits.shape[-1] < 3:
        raise DataError(f"logits: {logits.shape[-1]} classes; expected background and at least two others")
    return _entropy(logits[..., 1:])


@partial(jax.jit, inline=True)
def class_entropy(logits: Logits) -> Float[Array, "image *space"]:
    """Predictive entropy −Σ_c p_c ln p_c / ln(classes) of the softmax over all classes."""
    return _entropy(logits)


@partial(jax.jit, inline=True)
def least_confidence(logits: Logits) -> Float[Array, "image *space"]:
    """Least confidence, 1 − max_c p_c of the softmax over all classes."""
    return 1 - jnp.max(jax.nn.softmax(logits), axis=-1)


@partial(jax.jit, inline=True)
def mean_over_predicted_foreground(
    values: Float[Array, "image *space"], prediction: Integer[AnyArray, "image *space"]
) -> Float[Array, " image"]:
    """Mean of `values` over each image's predicted foreground; NaN where nothing is predicted."""
    inside, space = jnp.asarray(prediction) > 0, tuple(range(1, values.ndim))
    return jnp.sum(values, axis=space, where=inside) / jnp.sum(inside, axis=space)


@partial(jax.jit, inline=True)
def flip_risk(logits: Logits) -> Float[Array, " image"]:
    """Flip-risk of each image, 0 … 1: mean of `identity_entropy` over its predicted foreground; high: a flip is likely.

    Raises:
        DataError: fewer than two foreground classes.
    """
    return mean_over_predicted_foreground(identity_entropy(logits), jnp.argmax(logits, axis=-1))


def deciles(risk: Float[AnyArray, " image"], flip: Float[AnyArray, " image"], bins: int = 10) -> Deciles:
    """Mean risk and flip in `bins` equal parts of the images, sorted by risk; images where either is NaN are left out.

    Bin k holds ranks ⌊k n / bins⌋ … ⌊(k + 1) n / bins⌋ − 1 of n.

    Raises:
        DataError: fewer images than bins.
    """
    risk, flip = np.asarray(risk, np.float64), np.asarray(flip, np.float64)
    known = np.isfinite(risk) & np.isfinite(flip)
    risk, flip = risk[known], flip[known]
    if len(risk) < bins:
        raise DataError(f"{len(risk)} images with a risk and a flip; expected at least {bins}, one a bin")
    order = np.argsort(risk, kind="stable")
    parts = [order[k * len(order) // bins : (k + 1) * len(order) // bins] for k in range(bins)]
    total = flip.sum()
    top_decile_fraction = float(flip[parts[-1]].sum() / total) if total > 0 else float("nan")
    return Deciles(
        np.array([risk[part].mean() for part in parts]),
        np.array([flip[part].mean() for part in parts]),
        top_decile_fraction,
    )


def _entropy(logits: Array) -> Array:
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    return -jnp.sum(jnp.where(p > 0, p * log_p, 0.0), axis=-1) / np.log(logits.shape[-1])
