"""How much two label maps overlap: Dice, IoU, precision, recall and volume similarity of each class.

All come from the confusion matrix, so matrices of many images can be added up and scored as one. With TP the voxels of
a class in both maps, P those of the prediction and R those of the reference, the empty cases are:

- P = R = 0: every score is `both_empty`, NaN unless you choose otherwise (1 is what MetricsReloaded takes for Dice);
- only one is 0: Dice, IoU and volume similarity are 0; so is the precision of an empty reference and the recall of an
  empty prediction, while the precision of an empty prediction and the recall of an empty reference are 0/0, NaN.

All functions jit and vmap but `mean_dice`, which is NumPy: it looks which structures there are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Real

from medjax.errors import DataError

AnyArray = Array | np.ndarray
Number = float | int | Real[AnyArray, ""]


class Overlap(NamedTuple):
    """Scores of each class, 0–1, background (class 0) included; [1:] leaves it out."""

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

    `both_empty` is the score of a class that neither map has; the module says what becomes of the other empty cases.

    Raises:
        DataError: shapes differ, or a label inside the mask is not a class (under jit or vmap: every score is NaN).

    Source: Taha & Hanbury, BMC Medical Imaging 15:29, 2015.
    """
    return overlap_of(confusion_matrix(prediction, reference, classes, mask=mask), both_empty)


def overlap_of(confusion: Integer[AnyArray, "true predicted"], both_empty: Number = np.nan) -> Overlap:
    """The scores of a confusion matrix, or of a sum of them: see `overlap`. A negative count makes every score NaN."""
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
    """Voxels of each true class (row) that were predicted as each class (column), inside the mask if there is one.

    A mask is also how to leave out voxels without a label: `mask=reference != 255`.

    Raises:
        DataError: shapes differ, or a label inside the mask is not among 0 … classes − 1 (under jit or vmap: every
            count is −1).
    """
    inside = jnp.ones(reference.shape, bool) if mask is None else jnp.asarray(mask)
    for name, labels in (("prediction", prediction), ("mask", inside)):
        if labels.shape != reference.shape:
            raise DataError(f"{name}: shape {labels.shape}; the reference has {reference.shape}")
    valid = _is_class("prediction", prediction, classes, inside) & _is_class("reference", reference, classes, inside)
    row, column = (jnp.asarray(labels).astype(jnp.int32) for labels in (reference, prediction))
    cell = jnp.where(inside & valid, row * classes + column, classes**2)
    counts = jnp.bincount(cell.ravel(), length=classes**2 + 1)[:-1].reshape(classes, classes)
    return jnp.where(jnp.all(valid | ~inside), counts, -1)


def _is_class(name: str, labels: AnyArray, classes: int, inside: Array) -> Bool[Array, "*space"]:
    """Whether each label is a class; raises for one inside the mask that is not, where values are known."""
    # Compared before JAX may cut NumPy's 64-bit labels to 32, and after 8 bits, to which it would cut `classes`.
    wide = labels.astype(np.int32) if labels.dtype.itemsize < 4 else labels
    valid = jnp.asarray((wide >= 0) & (wide < classes))
    wrong = inside & ~valid
    if not isinstance(wrong, jax.core.Tracer) and wrong.any():
        found = np.asarray(labels)[np.asarray(wrong)][0]
        raise DataError(f"{name}: a label {found}; expected 0 to {classes - 1}, or a mask without it")
    return valid


def mean_dice(one: Integer[np.ndarray, "*space"], other: Integer[np.ndarray, "*space"]) -> float:
    """Mean Dice over the structures, classes above 0, that either label has; 1 where neither has any."""
    present = [c for c in np.union1d(one, other) if c > 0]
    pairs = [((one == c), (other == c)) for c in present]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])) if pairs else 1.0
