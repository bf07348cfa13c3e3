"""Overlap of two label maps: Dice, IoU, precision, recall and volume similarity of each class.

All come from the confusion matrix, so matrices of many images can be added up and scored as one. With TP the voxels of
a class in both maps, P those of the prediction and R those of the reference, the empty cases are:

- P = R = 0: every score is `both_empty`, NaN unless you choose otherwise (1 is what MetricsReloaded takes for Dice);
- only one is 0: Dice, IoU and volume similarity are 0; so is the precision of an empty reference and the recall of an
  empty prediction, while the precision of an empty prediction and the recall of an empty reference are 0/0, NaN.

All functions jit and vmap but `mean_dice`, which is NumPy: it looks which structures there are.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Real

from medjax.errors import DataError

AnyArray = Array | np.ndarray
Number = float | int | Real[AnyArray, ""]


class Overlap(NamedTuple):
    """Overlap metrics of each class, 0–1, background (class 0) included; [1:] leaves it out."""

    dice: Float[Array, "class"]  # 2 TP / (P + R)
    iou: Float[Array, "class"]  # TP / (P + R − TP)
    precision: Float[Array, "class"]  # TP / P
    recall: Float[Array, "class"]  # TP / R
    volume_similarity: Float[Array, "class"]  # 1 − |P − R| / (P + R)


def overlap(
    prediction: Integer[AnyArray, "*space"],
    reference: Integer[AnyArray, "*space"],
    classes: int,
    *,
    mask: Bool[AnyArray, "*space"] | None = None,
    both_empty: Number = np.nan,
) -> Overlap:
    """Dice, IoU, precision, recall and volume similarity of the classes 0 … classes − 1, inside the mask if any.

    Args:
        prediction: predicted labels.
        reference: reference labels.
        classes: number of classes, background included.
        mask: voxels to count.
        both_empty: score of a class that neither map has; the module's docstring has the other empty cases.

    Raises:
        DataError: labels are no integers, shapes differ, or a label inside the mask is not a class (under jit or vmap:
            every score is NaN).

    Source: Taha & Hanbury, BMC Medical Imaging 15:29, 2015.
    """
    return overlap_from_confusion(confusion_matrix(prediction, reference, classes, mask=mask), both_empty)


@partial(jax.jit, inline=True)
def overlap_from_confusion(confusion: Integer[AnyArray, "true predicted"], both_empty: Number = np.nan) -> Overlap:
    """Overlap metrics from a confusion matrix, or a sum of them: see `overlap`. A negative count makes all NaN."""
    confusion = jnp.asarray(confusion)
    counts = jnp.where(jnp.all(confusion >= 0), confusion.astype(float), jnp.nan)
    both, predicted, true = jnp.diagonal(counts), counts.sum(0), counts.sum(1)
    total = predicted + true
    scores = Overlap(
        dice=2 * both / total,
        iou=both / (total - both),
        precision=both / predicted,
        recall=both / true,
        volume_similarity=1 - jnp.abs(predicted - true) / total,
    )
    return Overlap(*(jnp.where(total == 0, both_empty, score) for score in scores))


def confusion_matrix(
    prediction: Integer[AnyArray, "*space"],
    reference: Integer[AnyArray, "*space"],
    classes: int,
    *,
    mask: Bool[AnyArray, "*space"] | None = None,
) -> Int[Array, "true predicted"]:
    """Confusion matrix: voxels of each true class (row) predicted as each class (column), inside the mask if any.

    A mask is also how to leave out voxels without a label: `mask=reference != 255`.

    Raises:
        DataError: labels are no integers or the mask no boolean, shapes differ, or a label inside the mask is not among
            0 … classes − 1 (under jit or vmap: every count is −1).
    """
    for name, labels in (("prediction", prediction), ("reference", reference)):
        if labels.dtype.kind not in "iub":
            expected = "class numbers as integers, of probabilities their argmax over the classes"
            raise DataError(f"{name}: an array of {labels.dtype}; expected {expected}")
    if mask is not None and mask.dtype != bool:
        raise DataError(f"mask: an array of {mask.dtype}; expected a boolean one, such as reference != 255")
    for name, labels in (("prediction", prediction), ("mask", mask)):
        if labels is not None and labels.shape != reference.shape:
            raise DataError(f"{name}: shape {labels.shape}; the reference has {reference.shape}")
    both = _narrowed(prediction, classes), _narrowed(reference, classes)
    counts, wrong = _confusion_matrix(*both, mask, classes)
    if not isinstance(wrong, jax.core.Tracer) and np.any(wrong):
        name, labels = ("prediction", prediction) if np.asarray(wrong)[0] else ("reference", reference)
        label = _first_wrong(labels, mask, classes)
        raise DataError(f"{name}: a label {label}; expected 0 to {classes - 1}, or a mask without it")
    return counts


@partial(jax.jit, static_argnames="classes", inline=True)
def _confusion_matrix(
    prediction: Array, reference: Array, mask: Array | None, classes: int
) -> tuple[Array, Bool[Array, "2"]]:
    """Confusion matrix, and whether prediction and reference have a label inside the mask that is no class."""
    inside = jnp.ones(reference.shape, bool) if mask is None else mask
    each = [_is_class(labels, classes) for labels in (prediction, reference)]
    valid = each[0] & each[1]
    row, column = (jnp.asarray(labels).astype(jnp.int32) for labels in (reference, prediction))
    cell = jnp.where(inside & valid, row * classes + column, classes**2)
    counts = jnp.bincount(cell.ravel(), length=classes**2 + 1)[:-1].reshape(classes, classes)
    wrong = jnp.stack([jnp.any(inside & ~one) for one in each])
    return jnp.where(jnp.any(wrong), -1, counts), wrong


def _is_class(labels: AnyArray, classes: int) -> Bool[AnyArray, "*space"]:
    """Whether each label is a class; compared after 8 bits, to which JAX would cut `classes`."""
    wide = labels.astype(np.int32) if labels.dtype.itemsize < 4 else labels
    return (wide >= 0) & (wide < classes)


def _narrowed(labels: AnyArray, classes: int) -> AnyArray:
    """NumPy's 64-bit labels as 32-bit ones, those that are no class as −1: JAX may cut them to a class."""
    if not isinstance(labels, np.ndarray) or labels.dtype.itemsize < 8:
        return labels
    return np.where(_is_class(labels, classes), labels, -1).astype(np.int32)


def _first_wrong(labels: AnyArray, mask: AnyArray | None, classes: int) -> np.integer:
    known = np.asarray(labels)
    return known[~_is_class(known, classes) & (True if mask is None else np.asarray(mask))][0]


def mean_dice(one: Integer[np.ndarray, "*space"], other: Integer[np.ndarray, "*space"]) -> float:
    """Mean Dice over the structures, classes above 0, that either label has; 1 where neither has any."""
    present = [c for c in np.union1d(one, other) if c > 0]
    pairs = [((one == c), (other == c)) for c in present]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])) if pairs else 1.0
