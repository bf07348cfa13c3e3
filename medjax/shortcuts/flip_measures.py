"""Metrics of one network's label flips: their fraction, by group, and how well flip-risk predicts them.

    assessment = assess(logits, label)               of some images; chunks are joined along the first axis
    measures(assessment, group)                      {"flip": 0.12, "flip_group/1": 0.4, "flip_risk_auroc/0.1": 0.9, …}

Groups are g = 2 · class + scene, as in `flips`; a common group is one whose scene is its class's own, class mod 2.

Source: Achara et al., Right Regions, Wrong Labels, arXiv 2604.13326, 2026.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from medjax.errors import DataError
from medjax.metrics.detection import auroc
from medjax.metrics.overlap import confusion_matrix, overlap_from_confusion
from medjax.shortcuts import flips

AnyArray = Array | np.ndarray
RISKS = ("flip_risk", "entropy", "least_confidence")
BINS = 10  # deciles


class Assessment(NamedTuple):
    """Confusion matrix and uncertainties of each image's prediction; NaN where no foreground is predicted."""

    confusion: Integer[AnyArray, "image true predicted"]
    flip_risk: Float[AnyArray, " image"]
    entropy: Float[AnyArray, " image"]  # over all classes
    least_confidence: Float[AnyArray, " image"]  # 1 − max probability


@partial(jax.jit, inline=True)
def assess(logits: Float[Array, "image *space class"], label: Integer[AnyArray, "image *space"]) -> Assessment:
    """Confusion matrix, flip-risk, entropy and least confidence of each image, means over the predicted foreground.

    Raises:
        DataError: fewer than two foreground classes.
    """
    prediction = jnp.argmax(logits, axis=-1)
    count = jax.vmap(lambda predicted, truth: confusion_matrix(predicted, truth, logits.shape[-1]))
    return Assessment(
        count(prediction, jnp.asarray(label)),
        flips.flip_risk(logits),
        flips.mean_over_predicted_foreground(flips.class_entropy(logits), prediction),
        flips.mean_over_predicted_foreground(flips.least_confidence(logits), prediction),
    )


def is_common(group: Integer[np.ndarray, " image"]) -> Bool[np.ndarray, " image"]:
    """Whether an image of group 2 · class + scene shows its class in the scene in which it is common."""
    return group % 2 == group // 2 % 2


def measures(
    assessment: Assessment, group: Integer[np.ndarray, " image"], flip_prone: tuple[float, ...] = (0.1, 0.5)
) -> dict[str, float]:
    """Metrics of one network's label flips by name; "NAME/G" is of group G, "NAME/τ" of images with a flip above τ.

    flip, miss and those of groups are means over images, flip_global is over pixels; iou_gap is the mean over classes
    of IoU(common) − IoU(rare). RISK_auroc is the AUROC of a risk for the images above τ, NaN where all are or none is,
    and RISK_top_decile_fraction the fraction of all flips in the tenth of the images with the highest risk.

    Raises:
        DataError: not one group an image, or a group outside 0 … 2 · (foreground classes) − 1.
    """
    confusion = np.asarray(assessment.confusion)
    groups = 2 * (confusion.shape[-1] - 1)
    if group.shape != confusion.shape[:1] or not np.isin(group, range(groups)).all():
        raise DataError(
            f"group: {np.unique(group)} of {len(group)} images; expected 0 to {groups - 1} of {len(confusion)}"
        )
    fractions, grouped = flips.decompose(confusion), flips.confusion_by_group(confusion, group, groups)
    flip, miss = np.asarray(fractions.flip), np.asarray(fractions.miss)
    common = is_common(group)
    found: dict[str, Any] = {
        "flip": np.nanmean(flip),
        "miss": np.nanmean(miss),
        "flip_global": flips.decompose(confusion.sum(0)).flip,
        "foreground_iou": flips.foreground_iou(confusion.sum(0)),
        "iou_gap": np.mean(np.asarray(flips.iou_gaps(grouped))),
        "flip_common": _mean(flip[common]),
        "flip_rare": _mean(flip[~common]),
    }
    dice = np.asarray(jax.vmap(overlap_from_confusion)(grouped).dice)
    for number in range(groups):
        found[f"flip_group/{number}"] = _mean(flip[group == number])
        found[f"miss_group/{number}"] = _mean(miss[group == number])
        found[f"dice_group/{number}"] = dice[number, 1 + number // 2]
    for name in RISKS:
        risk = np.asarray(getattr(assessment, name))
        known = np.isfinite(risk) & np.isfinite(flip)
        for tau in flip_prone:
            found[f"{name}_auroc/{tau:g}"] = auroc(risk[known], flip[known] > tau) if known.any() else np.nan
        several = known.sum() >= BINS
        found[f"{name}_top_decile_fraction"] = (
            flips.deciles(risk, flip, BINS).top_decile_fraction if several else np.nan
        )
    found |= {f"flip_prone/{tau:g}": np.nanmean(flip > tau) for tau in flip_prone}
    return {name: float(value) for name, value in found.items()}


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN where none is."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
