"""Figures of `shortcut_audit`: images with cues, correlations against the tie, maps of scores, accuracies."""

from collections.abc import Mapping
from itertools import product

import numpy as np

from experiments.audit.images import CUES
from experiments.audit.measures import Audits, Where, mean_scores
from experiments.audit.mitigation import NAMES
from experiments.audit.networks import METHODS, Setup
from medjax.report.bars import bars
from medjax.report.figures import Scale, curves
from medjax.report.gallery import image_rows
from medjax.report.html import Figure
from medjax.report.overlay import overlay
from medjax.running.workdir import save_figure

CURVES = {
    "shortcut": "ρ(TS, SA | BA)",
    "task": "ρ(TS, BA | SA)",
    "effective_area": "effective area of the RCS",
    "agreement_seeds": "agreement of the RCS between seeds",
}
TIE = "fraction of anti-correlated training images"


def cue_examples(setup: Setup, count: int = 8) -> Figure:
    """Figure of hold-out images with the cue of either attribute; of volumes, the plane through the middle."""
    rows = dict[str, np.ndarray]()
    for cue, holdout in setup.holdouts.items():
        for attribute in (0, 1):
            some = holdout.image[holdout.attribute == attribute][:: max(len(holdout.label) // 2 // count, 1)][:count]
            rows[f"{CUES[cue]}, attribute {attribute}"] = plane(some.mean(-1))
    scale = Scale("intensity, SD from the mean", "gray", -2.5, 2.5)
    figure = image_rows(rows, dict.fromkeys(rows, scale), setup.source.name)
    return Figure(save_figure(setup.work, "cues", figure), "Hold-out images with their cues.")


def against_tie(setup: Setup, metrics: Mapping[str, float]) -> list[Figure]:
    """Figures of correlations, effective area and agreement against the tie, by cue and architecture, ± one sd."""
    fractions, figures = sorted(setup.config.fractions), list[Figure]()
    if len(fractions) < 2:
        return []
    methods = setup.config.attribution.methods
    shown = [(name, method) for name in CURVES for method in methods[: None if name == "effective_area" else 1]]
    for name, method in shown:
        label = f"{CURVES[name]}, {METHODS[method]}"
        series, sd = dict[str, list[float]](), dict[str, list[float]]()
        for cue, architecture in product(setup.config.cues, setup.models):
            each = [first(setup, cue, architecture, one)._replace(method=method) for one in fractions]
            keys = [where.metric(name) for where in each]
            if keys[0] in metrics:
                line = f"{cue}, {architecture}"
                series[line] = [metrics[key] for key in keys]
                sd[line] = [metrics.get(f"sd/{key}", 0.0) for key in keys]
        if series:
            figure = curves(fractions, series, TIE, label, sd=sd, log_x=True)
            path = save_figure(setup.work, f"{name}_{method}", figure)
            figures.append(Figure(path, f"{label[0].upper()}{label[1:]}."))
    return figures


def score_maps(setup: Setup, audits: Audits) -> Figure:
    """Figure of the scores over the mean image at the strongest tie, means over seeds."""
    fraction, holdout = min(setup.config.fractions), next(iter(setup.holdouts.values()))
    maps = {
        f"{cue}, {architecture}": mean_scores(setup, audits, first(setup, cue, architecture, fraction))
        for cue, architecture in product(setup.config.cues, setup.models)
    }
    mean = holdout.image.mean((0, -1))
    figure = overlay(
        maps, mean, unit="region contribution score", note=f"{fraction:g} anti-correlated, mean over seeds"
    )
    return Figure(save_figure(setup.work, "scores", figure), "Region contribution scores of the strongest tie.")


def accuracy_bars(setup: Setup, metrics: Mapping[str, float]) -> list[Figure]:
    """Figures of worst-group accuracy before and after mitigation against the tie, of each cue."""
    figures, architecture = list[Figure](), next(iter(setup.models))
    fractions = sorted(setup.config.fractions)
    for cue in setup.config.cues:
        keys = {
            label: [f"worst_group/{name}/{cue}/{architecture}/{fraction:g}" for fraction in fractions]
            for name, label in NAMES.items()
        }
        shown = {label: each for label, each in keys.items() if any(key in metrics for key in each)}
        heights = {label: [metrics.get(key, np.nan) for key in each] for label, each in shown.items()}
        sd = {label: [metrics.get(f"sd/{key}", np.nan) for key in each] for label, each in shown.items()}
        figure = bars([f"{one:g}" for one in fractions], heights, TIE, "worst-group accuracy", sd=sd)
        caption = f"Worst-group accuracy, {CUES[cue]}, {architecture}; mean ± sd over seeds."
        figures.append(Figure(save_figure(setup.work, f"worst_group_{cue}", figure), caption))
    return figures


def first(setup: Setup, cue: str, architecture: str, fraction: float) -> Where:
    """What figures and tables show: the first method and partition of the config."""
    return Where(setup.config.attribution.methods[0], cue, architecture, setup.config.regions[0], fraction)


def plane(images: np.ndarray) -> np.ndarray:
    """Images (image, row, column), or the middle plane across the last axis of volumes."""
    return images if images.ndim == 3 else images[..., images.shape[-1] // 2]
