"""Strategies against wrong labels: what a training goes on with from the moment when its labels were judged.

    judgement = Judgement(labels, scores, corrupted, partial(predict_proba, model, params, images))
    remedy = refurbish_flagged("dice_mean")(judgement)           labels and weights of images to go on with
    before, after = remedy_quality(remedy, judgement, clean)     where the truth is known

A strategy is any function of a Judgement that gives a Remedy.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.labels.refurbish import quality, refurbish
from medjax.labels.thresholds import otsu


class Judgement(NamedTuple):
    """What is known of the labels when they are judged."""

    labels: Int[np.ndarray, "image *space"]  # as given
    scores: Mapping[str, Float[np.ndarray, " image"]]  # of labels, see `scores`
    corrupted: Bool[np.ndarray, " image"]  # which are wrong: for an oracle only
    teacher: Callable[[], Float[np.ndarray, "image *space class"]]  # the network's probability of every class


class Remedy(NamedTuple):
    """What training goes on with."""

    labels: Int[np.ndarray, "image *space"]
    weight: Float[np.ndarray, " image"]  # of images in the loss
    flags: Bool[np.ndarray, " image"]  # which labels are suspect
    repaired_by: str | None = None  # the score whose suspects have other labels now; None: labels are as given


Strategy = Callable[[Judgement], Remedy]
Threshold = Callable[[Float[np.ndarray, " image"]], Bool[np.ndarray, " image"]]


def drop_flagged(score: str, threshold: Threshold = otsu) -> Strategy:
    """Images whose score is above the threshold have no weight any more."""
    return lambda judgement: _dropped(judgement, threshold(judgement.scores[score]))


def drop_corrupted(judgement: Judgement) -> Remedy:
    """The oracle: images whose labels are truly wrong have no weight any more."""
    return _dropped(judgement, judgement.corrupted)


def refurbish_flagged(score: str, threshold: Threshold = otsu) -> Strategy:
    """Labels whose score is above the threshold are replaced by the network's own prediction, see `refurbish`."""
    return partial(_refurbished, score, threshold)


def remedy_quality(
    remedy: Remedy, judgement: Judgement, clean: Int[np.ndarray, "image *space"]
) -> tuple[dict[str, float], dict[str, float]]:
    """Dice of the labels with the truth before and after, as `refurbish.quality`; after, also recall and precision.

    These are the flags', for the labels that are wrong; 0 without any.
    """
    corrupted, flags = judgement.corrupted, remedy.flags
    before, after = (quality(labels, clean, flags, corrupted) for labels in (judgement.labels, remedy.labels))
    hits = float((flags & corrupted).sum())
    rates = {"recall": hits / max(float(corrupted.sum()), 1.0), "precision": hits / max(float(flags.sum()), 1.0)}
    return before, after | rates


def _dropped(judgement: Judgement, flags: np.ndarray) -> Remedy:
    return Remedy(judgement.labels, (~flags).astype(np.float32), flags)


def _refurbished(score: str, threshold: Threshold, judgement: Judgement) -> Remedy:
    flags = threshold(judgement.scores[score])
    soft = refurbish(judgement.labels, flags, judgement.teacher()).labels
    return Remedy(soft.argmax(-1).astype(np.int32), np.ones(len(flags), np.float32), flags, score)
