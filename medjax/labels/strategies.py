"""Strategies against wrong labels: drop or refurbish the flagged ones before training continues.

    inputs = StrategyInputs(labels, scores, corrupted, partial(predict_proba, model, params, images))
    correction = refurbish_flagged("dice_mean")(inputs)               labels and weights of images to continue with
    with_trusted_set(refurbish_flagged("dice_mean"), "dice_mean")     the same, the ranking oriented by a few checks
    before, after = correction_quality(correction, inputs, clean)     where the truth is known

A strategy is any function of StrategyInputs that gives a Correction.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.labels.refurbish import label_dice, refurbish
from medjax.labels.thresholds import orient, otsu


class StrategyInputs(NamedTuple):
    """Input of a strategy: labels, their scores and the network's predictions at the end of early learning."""

    labels: Int[np.ndarray, "image *space"]  # labels trained on so far
    scores: Mapping[str, Float[np.ndarray, " image"]]  # label scores, see `scores`
    corrupted: Bool[np.ndarray, " image"]  # whether a label is wrong: for an oracle, and the labels that one checks
    teacher: Callable[[], Float[np.ndarray, "image *space class"]]  # the network's probability of every class


class Correction(NamedTuple):
    """Result of a strategy: corrected labels, and sample weights, with which training continues."""

    labels: Int[np.ndarray, "image *space"]
    weight: Float[np.ndarray, " image"]  # weight of each image in the loss
    flags: Bool[np.ndarray, " image"]  # whether a label is suspect
    refurbished_by: str | None = None  # the score whose flagged labels were refurbished; None: no label has changed


Strategy = Callable[[StrategyInputs], Correction]
Threshold = Callable[[Float[np.ndarray, " image"]], Bool[np.ndarray, " image"]]


def drop_flagged(score: str, threshold: Threshold = otsu) -> Strategy:
    """Strategy that drops images flagged by a score: their weight in the loss is 0."""
    return lambda inputs: _drop(inputs, threshold(inputs.scores[score]))


def drop_corrupted(inputs: StrategyInputs) -> Correction:
    """Oracle strategy: drops the images whose labels are truly corrupted."""
    return _drop(inputs, inputs.corrupted)


def refurbish_flagged(score: str, threshold: Threshold = otsu) -> Strategy:
    """Strategy that replaces labels flagged by a score with the network's prediction, see `refurbish`."""
    return partial(_refurbish, score, threshold)


def with_trusted_set(strategy: Strategy, score: str, each_end: int = 10) -> Strategy:
    """Strategy whose `score` is oriented by a trusted set: `each_end` labels of both ends of its ranking are checked.

    See `thresholds.orient`. A trusted set that is all right or all wrong tells nothing: the score stays as it is.
    """
    return partial(_with_trusted_set, strategy, score, each_end)


def correction_quality(
    correction: Correction, inputs: StrategyInputs, clean: Int[np.ndarray, "image *space"]
) -> tuple[dict[str, float], dict[str, float]]:
    """Dice of the labels with the truth before and after a correction, see `refurbish.label_dice`.

    After, also the flags' recall and precision for corrupted labels; 0 without any.
    """
    corrupted, flags = inputs.corrupted, correction.flags
    before, after = (label_dice(labels, clean, flags, corrupted) for labels in (inputs.labels, correction.labels))
    hits = float((flags & corrupted).sum())
    rates = {"recall": hits / max(float(corrupted.sum()), 1.0), "precision": hits / max(float(flags.sum()), 1.0)}
    return before, after | rates


def _with_trusted_set(strategy: Strategy, score: str, each_end: int, inputs: StrategyInputs) -> Correction:
    values = inputs.scores[score]
    order = np.argsort(-values, kind="stable")
    trusted = np.unique(np.concatenate([order[:each_end], order[-each_end:]]))
    wrong = inputs.corrupted[trusted]
    oriented = orient(values, trusted, wrong) if wrong.any() and not wrong.all() else values
    correction = strategy(inputs._replace(scores={**inputs.scores, score: oriented}))
    by = correction.refurbished_by
    return correction._replace(refurbished_by=None if by is None else f"{by}_trusted")


def _drop(inputs: StrategyInputs, flags: np.ndarray) -> Correction:
    return Correction(inputs.labels, (~flags).astype(np.float32), flags)


def _refurbish(score: str, threshold: Threshold, inputs: StrategyInputs) -> Correction:
    flags = threshold(inputs.scores[score])
    soft = refurbish(inputs.labels, flags, inputs.teacher()).labels
    return Correction(soft.argmax(-1).astype(np.int32), np.ones(len(flags), np.float32), flags, score)
