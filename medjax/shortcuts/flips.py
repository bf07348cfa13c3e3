"""Right region, wrong name: how much of the foreground a segmentation flips to another class, and where it might.

    confusion = jax.vmap(confusion_matrix, (0, 0, None))(prediction, truth, classes)     (image, true, predicted)
    decompose(confusion.sum(0))        global: all pixels alike        decompose(confusion)       of each image
    image_mean(confusion)              all images alike                flip_risk(logits)          needs no truth

Class 0 is background. A foreground pixel is correct, flipped to another foreground class, or missed to background; the
three shares sum to 1. Groups are g = 2 · class + scene; a class's own scene, in which it is common, is class mod 2.

Source: Achara et al., Right Regions, Wrong Labels, arXiv 2604.13326, 2026, and the definitions of its evaluation code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from medjax.errors import DataError
from medjax.metrics.overlap import overlap_of

AnyArray = Array | np.ndarray
Logits = Float[Array, "image *space class"]


class Shares(NamedTuple):
    """What became of the true foreground; they sum to 1, or are NaN where there is none."""

    correct: Float[Array, "*batch"]
    flip: Float[Array, "*batch"]  # given to another foreground class
    miss: Float[Array, "*batch"]  # given to background


class Deciles(NamedTuple):
    """Images in order of their risk, cut into equally many a bin."""

    risk: Float[np.ndarray, " bin"]  # mean of each bin, lowest first
    flip: Float[np.ndarray, " bin"]
    top_share: float  # of the sum of all images' flips, the part in the last bin; NaN if nothing flips


def decompose(confusion: Integer[AnyArray, "*batch true predicted"]) -> Shares:
    """Shares of the true foreground: Σ_c n_cc / N, Σ_{c ≠ d > 0} n_cd / N and Σ_c n_c0 / N over true classes c > 0."""
    counts = _counts(confusion)[..., 1:, :]
    total = counts.sum((-2, -1))
    correct = jnp.trace(counts[..., 1:], axis1=-2, axis2=-1)
    miss = counts[..., 0].sum(-1)
    return Shares(correct / total, (counts[..., 1:].sum((-2, -1)) - correct) / total, miss / total)


def image_mean(confusion: Integer[AnyArray, "image true predicted"]) -> Shares:
    """Mean of the images' own shares; images without foreground are left out."""
    return Shares(*(jnp.nanmean(share) for share in decompose(confusion)))


def foreground_iou(confusion: Integer[AnyArray, "*batch true predicted"]) -> Float[Array, "*batch"]:
    """Intersection over union of all foreground against background: whether the region is right, whatever its name."""
    counts = _counts(confusion)
    return counts[..., 1:, 1:].sum((-2, -1)) / (counts.sum((-2, -1)) - counts[..., 0, 0])


def _counts(confusion: AnyArray) -> Array:
    """As floating point, before JAX could cut a NumPy sum of more than 2³¹ pixels to 32 bits."""
    return jnp.asarray(confusion.astype(float))


def by_group(
    confusion: Integer[AnyArray, "image true predicted"], group: Integer[AnyArray, " image"], groups: int
) -> Integer[Array, "{groups} true predicted"]:
    """The confusion matrix of each group's pixels; zeros where a group has no image."""
    return jax.ops.segment_sum(jnp.asarray(confusion), jnp.asarray(group), groups)


def gaps(grouped: Integer[AnyArray, "group classes classes"]) -> Float[Array, " foreground"]:
    """Common minus rare: a class's IoU in the group of its own scene minus that in the other scene, from `by_group`.

    With two classes these are the paper's IoU(g0) − IoU(g1) and IoU(g3) − IoU(g2).
    """
    iou = jax.vmap(overlap_of)(jnp.asarray(grouped)).iou
    kinds = np.arange(iou.shape[-1] - 1)
    common = 2 * kinds + kinds % 2
    return iou[common, 1 + kinds] - iou[common ^ 1, 1 + kinds]


def identity_entropy(logits: Logits) -> Float[Array, "image *space"]:
    """−Σ_c q_c ln q_c / ln C with q the softmax over the C foreground logits alone: 0 sure of the name, 1 a guess.

    q is p_c / Σ p of the full softmax without its division, which is 0/0 where background is certain. The paper has
    C = 2 and nats: its values are ln 2 times these.

    Raises:
        DataError: fewer than two foreground classes.
    """
    if logits.shape[-1] < 3:
        raise DataError(f"logits: {logits.shape[-1]} classes; expected background and at least two others")
    return _entropy(logits[..., 1:])


def class_entropy(logits: Logits) -> Float[Array, "image *space"]:
    """−Σ_c p_c ln p_c / ln(classes) of the softmax over all classes: plain entropy, a rival of `identity_entropy`."""
    return _entropy(logits)


def least_confidence(logits: Logits) -> Float[Array, "image *space"]:
    """1 − max_c p_c of the softmax over all classes: another rival."""
    return 1 - jnp.max(jax.nn.softmax(logits), axis=-1)


def mean_over_predicted_foreground(
    values: Float[Array, "image *space"], prediction: Integer[AnyArray, "image *space"]
) -> Float[Array, " image"]:
    """Mean of `values` over each image's predicted foreground; NaN where nothing is predicted."""
    inside, space = jnp.asarray(prediction) > 0, tuple(range(1, values.ndim))
    return jnp.sum(values, axis=space, where=inside) / jnp.sum(inside, axis=space)


def flip_risk(logits: Logits) -> Float[Array, " image"]:
    """Mean of `identity_entropy` over each image's predicted foreground, 0 … 1: high where a flip is likely.

    Raises:
        DataError: fewer than two foreground classes.
    """
    return mean_over_predicted_foreground(identity_entropy(logits), jnp.argmax(logits, axis=-1))


def deciles(risk: Float[AnyArray, " image"], flip: Float[AnyArray, " image"], bins: int = 10) -> Deciles:
    """Mean flip in each of `bins` equal parts of the images, sorted by risk; images where either is NaN are left out.

    Bin k holds places ⌊k n / bins⌋ … ⌊(k + 1) n / bins⌋ − 1 of n.

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
    top_share = float(flip[parts[-1]].sum() / total) if total > 0 else float("nan")
    return Deciles(
        np.array([risk[part].mean() for part in parts]), np.array([flip[part].mean() for part in parts]), top_share
    )


def _entropy(logits: Array) -> Array:
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    return -jnp.sum(jnp.where(p > 0, p * log_p, 0.0), axis=-1) / np.log(logits.shape[-1])
