"""How well scores of labels find those that are wrong, where it is known which."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from medjax.metrics.detection import auroc, average_precision


def auroc_curves(
    scores: Mapping[str, Float[np.ndarray, "probe image"]], corrupted: Bool[np.ndarray, " image"]
) -> dict[str, Float[np.ndarray, " probe"]]:
    """The AUROC of each score for wrong labels, after every probe of a training."""
    return {name: np.array([float(auroc(one, corrupted)) for one in each]) for name, each in scores.items()}


def detection(
    scores: Mapping[str, Float[np.ndarray, " image"]],
    corrupted: Bool[np.ndarray, " image"],
    hard: Bool[np.ndarray, " image"],
) -> dict[str, dict[str, float]]:
    """`average_precision` of each score for wrong labels, and `poor_among_right`.

    That is its AUROC for hard images among those with right labels: 0.5 for a score that tells wrong from difficult.
    """
    right = ~corrupted
    return {
        "average_precision": {name: float(average_precision(one, corrupted)) for name, one in scores.items()},
        "poor_among_right": {name: float(auroc(one[right], hard[right])) for name, one in scores.items()},
    }
