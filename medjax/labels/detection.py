"""AUROC and average precision of label scores for corrupted labels, where it is known which they are."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from medjax.metrics.detection import auroc, average_precision


def auroc_curves(
    scores: Mapping[str, Float[np.ndarray, "probe image"]], corrupted: Bool[np.ndarray, " image"]
) -> dict[str, Float[np.ndarray, " probe"]]:
    """AUROC of each score for corrupted labels, after every probe of a training."""
    return {name: np.array([float(auroc(one, corrupted)) for one in each]) for name, each in scores.items()}


def detection(
    scores: Mapping[str, Float[np.ndarray, " image"]],
    corrupted: Bool[np.ndarray, " image"],
    hard: Bool[np.ndarray, " image"],
) -> dict[str, dict[str, float]]:
    """Average precision of each score for corrupted labels, and its AUROC for hard images among correct labels.

    The latter, `auroc_hard_images`, is 0.5 for a score that tells wrong from difficult.
    """
    correct = ~corrupted
    return {
        "average_precision": {name: float(average_precision(one, corrupted)) for name, one in scores.items()},
        "auroc_hard_images": {name: float(auroc(one[correct], hard[correct])) for name, one in scores.items()},
    }
