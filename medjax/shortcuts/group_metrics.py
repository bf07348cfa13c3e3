"""Metrics of a binary classifier in the groups of an attribute: accuracy, rates, AUROC, calibration error.

    data = cases(label, attribute, score)                    arrays of one value a case
    auroc(data)                                              of each attribute group
    accuracy_by_label(data)                                  of each label and attribute

Every function takes weights of the cases, by default 1: counts of a bootstrap resample, say. A group without cases of
the kind (no positive one for a true-positive rate, one class only for AUROC) is NaN, as is whatever is taken of it. All
functions jit and vmap over weights. Scores are ranked in their own precision, so that confident probabilities such as
1 − 1e-9 and 1 − 1e-12, which are one number in float32, are no ties.

Positive is label 1. Shapes: (attribute,), the groups in the order of their numbers.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real, Scalar

from medjax.errors import DataError
from medjax.shortcuts.imbalance import Codes, class_numbers

AnyArray = Array | np.ndarray
Weights = Float[AnyArray, " case"] | None
HIGHEST = jax.lax.Precision.HIGHEST
BINS = 15  # of the calibration error
TOLERANCE = 1e-6  # of a rate, for rounding


class GroupedPredictions(NamedTuple):
    """Labels and predictions of a classifier, and the cases of each attribute group; made by `cases`."""

    positive: Bool[Array, " case"]  # label 1
    predicted: Bool[Array, " case"]  # as positive
    score: Float[Array, " case"]  # higher for the positive class; NaN where only predictions are known
    rank: Int[Array, " case"]  # of the score, from 0; equal scores have one rank
    member: Bool[Array, "attribute case"]


def cases(
    label: Real[AnyArray, " case"] | Bool[AnyArray, " case"],
    attribute: Codes,
    score: Real[AnyArray, " case"] | None = None,
    predicted: Real[AnyArray, " case"] | Bool[AnyArray, " case"] | None = None,
    *,
    threshold: float | int = 0.5,
    attributes: int | None = None,
) -> GroupedPredictions:
    """Checked cases of a classifier.

    Args:
        label: 0 or 1.
        attribute: attribute group, from 0.
        score: score of class 1; a probability where calibration is asked for.
        predicted: predicted class, 0 or 1; default: 1 where the score is `threshold` or more.
        threshold: threshold of the score.
        attributes: number of groups; default: up to the last one present.

    Raises:
        DataError: no case, different lengths, labels or predictions other than 0 and 1, scores that are not finite,
            neither scores nor predictions, or attributes that are no group numbers.
    """
    columns = {"label": label, "attribute": attribute, "score": score, "predicted": predicted}
    arrays = {name: np.asarray(values) for name, values in columns.items() if values is not None}
    shape = arrays["label"].shape
    if len(shape) != 1 or not shape[0] or any(values.shape != shape for values in arrays.values()):
        shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
        raise DataError(f"{shapes}; expected one value for each case")
    if score is None and predicted is None:
        raise DataError("score, predicted: neither; expected one of them")
    for name in ("label", "predicted"):
        if name in arrays and not (binary := np.isin(arrays[name], (0, 1))).all():
            raise DataError(f"{name}: {arrays[name][~binary][0]}; expected 0 and 1 (two classes)")
    if score is not None and not np.isfinite(arrays["score"]).all():
        raise DataError(f"score: {np.sum(~np.isfinite(arrays['score']))} NaN or infinite; expected finite numbers")
    group = class_numbers("attribute", arrays["attribute"])
    groups = int(group.max()) + 1 if attributes is None else attributes
    if group.min() < 0 or group.max() >= groups or not np.isfinite(threshold):
        found = f"attribute {group.min()} to {group.max()}, threshold {threshold}"
        raise DataError(f"{found}; expected groups 0 to {groups - 1}, and a finite threshold")
    dtype = jnp.result_type(float)
    values = np.full(shape, np.nan) if score is None else arrays["score"]
    positives = arrays["predicted"] == 1 if "predicted" in arrays else values >= threshold
    with np.errstate(over="ignore"):  # beyond the dtype's range a score is infinite: only calibration takes its value
        rounded = jnp.asarray(values.astype(dtype))
    return GroupedPredictions(
        jnp.asarray(arrays["label"] == 1),
        jnp.asarray(positives),
        rounded,
        jnp.asarray(np.unique(values, return_inverse=True)[1]),
        jnp.asarray(group == np.arange(groups)[:, None]),
    )


def count(data: GroupedPredictions, weights: Weights = None) -> Float[Array, "label attribute"]:
    """Number (sum of weights) of cases of each label and attribute."""
    return jnp.matmul(_by_label(data).astype(data.score.dtype), _ones(data, weights), precision=HIGHEST)


def accuracy_by_label(data: GroupedPredictions, weights: Weights = None) -> Float[Array, "label attribute"]:
    """Accuracy of the cases of each label and attribute: true-negative rates, then true-positive ones."""
    return _mean(data.predicted == data.positive, _by_label(data), data, weights)


def accuracy(data: GroupedPredictions, weights: Weights = None) -> Float[Array, " attribute"]:
    """Accuracy in each attribute group."""
    return _mean(data.predicted == data.positive, data.member, data, weights)


def balanced_accuracy(data: GroupedPredictions, weights: Weights = None) -> Float[Array, " attribute"]:
    """Balanced accuracy in each attribute group: the mean of true-positive and true-negative rate."""
    return jnp.mean(accuracy_by_label(data, weights), axis=0)


def true_positive_rate(data: GroupedPredictions, weights: Weights = None) -> Float[Array, " attribute"]:
    """True-positive rate (sensitivity, recall) in each attribute group."""
    return accuracy_by_label(data, weights)[1]


def false_positive_rate(data: GroupedPredictions, weights: Weights = None) -> Float[Array, " attribute"]:
    """False-positive rate (1 − specificity) in each attribute group."""
    return 1 - accuracy_by_label(data, weights)[0]


def selection_rate(data: GroupedPredictions, weights: Weights = None) -> Float[Array, " attribute"]:
    """Fraction of each attribute group that is predicted positive."""
    return _mean(data.predicted, data.member, data, weights)


def auroc(data: GroupedPredictions, weights: Weights = None) -> Float[Array, " attribute"]:
    """Area under the ROC curve in each attribute group: P(a positive scores above a negative) + ½ P(they tie).

    Source: Hanley & McNeil, Radiology 143(1), 1982.
    """
    inside = data.member * _ones(data, weights)[None]
    area = jax.vmap(partial(_auroc, data.rank, data.positive))(inside)
    return jnp.where(jnp.isnan(data.score).any(), jnp.nan, area)


def calibration_error(
    data: GroupedPredictions, weights: Weights = None, bins: int = BINS
) -> Float[Array, " attribute"]:
    """Expected calibration error (ECE) of the positive class's probability in each attribute group.

    Σ_b n_b/n · |fraction of positives in bin b − mean score in bin b| over `bins` of equal width (k/bins, (k+1)/bins],
    0 in the first one. NaN where a score is outside 0–1: then it is no probability.

    Source: Naeini et al., AAAI 2015, with bins of equal width.
    """
    bin_of = jnp.searchsorted(jnp.linspace(0, 1, bins + 1)[1:-1], data.score)
    in_bin = jax.nn.one_hot(bin_of, bins, dtype=data.score.dtype)
    inside = data.member * _ones(data, weights)[None]
    off = jnp.matmul(inside * (data.positive - data.score)[None], in_bin, precision=HIGHEST)
    total = inside.sum(-1)
    error = jnp.abs(off).sum(-1) / jnp.where(total > 0, total, jnp.nan)
    return jnp.where(jnp.all((data.score >= 0) & (data.score <= 1)), error, jnp.nan)


def tpr_at_tnr(data: GroupedPredictions, weights: Weights = None, tnr: float = 0.9) -> Float[Array, " attribute"]:
    """True-positive rate in each attribute group at one threshold for all: the lowest with this true-negative rate.

    The threshold is the lowest score s of a case such that flagging scores ≥ s leaves a fraction `tnr` or more of *all*
    negatives unflagged.
    """
    negative = _ones(data, weights) * ~data.positive
    threshold = _rank_at_tnr(data.rank, negative, tnr)
    rate = _mean(data.rank >= threshold, data.member & data.positive[None], data, weights)
    return jnp.where((negative.sum() > 0) & ~jnp.isnan(data.score).any(), rate, jnp.nan)


def _ones(data: GroupedPredictions, weights: Weights) -> Float[Array, " case"]:
    return jnp.ones_like(data.score) if weights is None else jnp.asarray(weights, data.score.dtype)


def _by_label(data: GroupedPredictions) -> Bool[Array, "label attribute case"]:
    return jnp.stack([data.member & ~data.positive[None], data.member & data.positive[None]])


def _mean(
    hit: Bool[Array, " case"], among: Bool[Array, "*group case"], data: GroupedPredictions, weights: Weights
) -> Float[Array, "*group"]:
    """Weighted fraction of `hit` among the cases of each group; NaN where there is none."""
    w = _ones(data, weights)
    total, part = (jnp.matmul(among.astype(w.dtype), one, precision=HIGHEST) for one in (w, w * hit))
    return part / jnp.where(total > 0, total, jnp.nan)


def _auroc(rank: Int[Array, " case"], positive: Bool[Array, " case"], weights: Float[Array, " case"]) -> Scalar:
    order = jnp.argsort(rank)
    ordered, w, is_positive = rank[order], weights[order], positive[order]
    first, end = (jnp.searchsorted(ordered, ordered, side=side) for side in ("left", "right"))
    negatives = jnp.append(0, jnp.cumsum(w * ~is_positive))  # below the k-th case
    below = (negatives[first] + negatives[end]) / 2  # ties half
    pairs = jnp.sum(w * is_positive) * negatives[-1]
    return jnp.sum(w * is_positive * below) / jnp.where(pairs > 0, pairs, jnp.nan)


def _rank_at_tnr(rank: Int[Array, " case"], negative: Float[Array, " case"], tnr: float) -> Scalar:
    """Lowest rank with enough of the negatives' weight below it; one above all ranks if there is none."""
    order = jnp.argsort(rank)
    ordered = rank[order]
    unflagged = jnp.append(0, jnp.cumsum(negative[order]))[jnp.searchsorted(ordered, ordered)]  # below each score
    enough = unflagged >= (tnr - TOLERANCE) * negative.sum()
    return jnp.min(ordered, where=enough, initial=jnp.iinfo(rank.dtype).max)
