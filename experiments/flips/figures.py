"""Figures of `label_flips`: flips against correlation, deciles of flip-risk, examples."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.flips.members import NAMES, TrainedNetwork
from medjax.models.model import Network, finest_logits
from medjax.phantoms.scenes import Scenes
from medjax.report.figures import Scale, curves
from medjax.report.gallery import image_rows
from medjax.report.html import Figure
from medjax.running.arrays import from_numbered_leaves
from medjax.running.workdir import WorkDir, save_figure
from medjax.shortcuts import flips

CURVES = {
    "flip": "flip, fraction of the foreground",
    "flip_rare": "flip in the rare groups",
    "miss": "miss, fraction of the foreground",
    "iou_gap": "IoU gap, common − rare groups",
}


def against_correlation(
    work: WorkDir, metrics: Mapping[str, float], methods: Sequence[str], correlations: Sequence[float]
) -> list[Figure]:
    """Figures of flip, flip of rare groups, miss and IoU gap against the correlation, by method, ± one sd."""
    figures = []
    for name, label in CURVES.items():
        keys = {NAMES[m]: [f"{name}/{m}/{correlation:g}" for correlation in correlations] for m in methods}
        series = {method: [metrics[key] for key in some] for method, some in keys.items()}
        sd = {method: [metrics[f"sd/{key}"] for key in some] for method, some in keys.items()}
        figure = curves(list(correlations), series, "correlation ρ in training", label, sd=sd)
        figures.append(Figure(save_figure(work, name, figure), f"{label[0].upper()}{label[1:]}."))
    return figures


def deciles(work: WorkDir, networks: Mapping[str, Sequence[TrainedNetwork]], correlation: float) -> Figure:
    """Figure of the mean flip by decile of flip-risk, by method, at one correlation, with sd over seeds."""
    series, sd = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for method, several in networks.items():
        risks = [(one.assessment.flip_risk, flips.decompose(one.assessment.confusion).flip) for one in several]
        each = [flips.deciles(risk, flip).flip for risk, flip in risks if np.isfinite(risk).sum() >= 10]
        series[NAMES[method]] = np.mean(each, axis=0) if each else np.full(10, np.nan)
        sd[NAMES[method]] = np.std(each, axis=0, ddof=1) if len(each) > 1 else np.zeros(10)
    figure = curves(list(range(1, 11)), series, "decile of flip-risk", "mean flip", sd=sd)
    return Figure(save_figure(work, "deciles", figure), f"Images in order of their flip-risk, ρ = {correlation:g}.")


def flip_examples(
    work: WorkDir, model: Network, network: TrainedNetwork, test: Scenes, min_flip: float, count: int, note: str
) -> Figure:
    """Figure of test images with flips above `min_flip`: image, truth, prediction, and entropy of the class."""
    flip = np.nan_to_num(np.asarray(flips.decompose(network.assessment.confusion).flip))
    worst = np.argsort(-flip, kind="stable")[: max(int((flip > min_flip).sum()), count)]
    some = worst[np.linspace(0, len(worst) - 1, count).astype(int)]
    image = np.asarray(test.image)[some]
    params = from_numbered_leaves(network.params, jax.eval_shape(model.init, jax.random.key(0), image))
    logits = finest_logits(model, params, jnp.asarray(image))
    prediction, entropy = np.asarray(logits).argmax(-1), np.asarray(flips.identity_entropy(logits))
    classes = Scale("class", "viridis", 0.0, 2.0, classes=("background", "class 0", "class 1"))
    figure = image_rows(
        {
            "image": image[..., 0],
            "truth": np.asarray(test.label)[some],
            "prediction": prediction,
            "entropy of the class": np.where(prediction > 0, entropy, 0.0),
        },
        {
            "image": Scale("image", "gray", -1.5, 2.0),
            "truth": classes,
            "prediction": classes,
            "entropy of the class": Scale("entropy", "inferno", 0.0, 1.0),
        },
        note,
    )
    caption = "Test images with flips, the most flipped first; entropy of the class where foreground is predicted."
    return Figure(save_figure(work, "flipped", figure), caption)
