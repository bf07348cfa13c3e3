"""Pixel-level label errors by confident learning over a whole data set.

A network is *sure* of class c where its probability for c reaches the mean of that probability over all pixels labelled
c. As many pixels as are surely of another class than their label are taken, those of the least probability of their
label, without those where the network agrees. Probabilities should come from a network that did not train on the labels
(cross-validation): one that did has learnt their errors too.

Source: Northcutt, Jiang & Chuang, JAIR 70, 2021; for segmentation Lad & Mueller, 2023 (cleanlab).
"""

import numpy as np
from jaxtyping import Bool, Float, Int

TOLERANCE = 1e-6  # tolerance of floating-point comparisons


def confident_thresholds(
    labels: Int[np.ndarray, "image *space"], probabilities: Float[np.ndarray, "image *space class"]
) -> Float[np.ndarray, " class"]:
    """Confidence threshold of each class c: mean probability of c over the pixels labelled c; 1 if there are none."""
    classes = probabilities.shape[-1]
    chosen = [probabilities[labels == c][:, c] for c in range(classes)]
    return np.array([float(p.mean(dtype=float)) if len(p) else 1.0 for p in chosen])


def pixel_issues(
    labels: Int[np.ndarray, "image *space"], probabilities: Float[np.ndarray, "image *space class"]
) -> Bool[np.ndarray, "image *space"]:
    """Mask of suspect label pixels, by confident learning."""
    own = probabilities.argmax(-1)
    given = np.take_along_axis(probabilities, labels[..., None], -1)[..., 0]
    sure = probabilities.max(-1) >= confident_thresholds(labels, probabilities)[own] - TOLERANCE
    number = int((sure & (own != labels)).sum())
    issues = np.zeros(labels.size, bool)
    issues[np.argsort(given.ravel(), kind="stable")[:number]] = True
    return issues.reshape(labels.shape) & (own != labels)
