"""Tables and figures of the study of wrong labels. Columns and rows are conditions: (kind of error, fraction)."""

from collections.abc import Mapping, Sequence

import numpy as np

from medjax.labels.comparison import Case
from medjax.labels.errors import corrupt
from medjax.labels.scores import built_in
from medjax.metrics.summary import cell
from medjax.report.figures import curves
from medjax.report.gallery import gallery
from medjax.report.html import Figure, Table
from medjax.running.workdir import WorkDir, save_figure

QUALITY = ("all", "bad", "flagged", "falsely_flagged", "recall", "precision")
SHOWN = {"vog", "vog_published", "gradient", "loss", "dice_mean", "aum", "softmin"}
HIDDEN = built_in().keys() - SHOWN  # of the built-in scores; those of a user are shown
Condition = tuple[str, float]
Metrics = Mapping[str, float]


def detection(metrics: Metrics, scores: Sequence[str], conditions: Sequence[Condition]) -> Table:
    """The AUROC of every score of labels."""
    rows = [[name, *(cell(metrics, f"auroc/{name}/{kind}/{x:g}", 2) for kind, x in conditions)] for name in scores]
    header = ["AUROC", *(f"{kind} {fraction:g}" for kind, fraction in conditions)]
    return Table(header, rows, "Mean ± SD over seeds; 0.5 is chance, below it the ranking is upside down.")


def repair(metrics: Metrics, strategies: Sequence[str], conditions: Sequence[Condition]) -> Table:
    """The test Dice of every strategy."""
    rows = [
        [kind, f"{x:g}", *(cell(metrics, f"dice/{name}/{kind}/{x:g}") for name in strategies)] for kind, x in conditions
    ]
    return Table(["error", "fraction wrong", *strategies], rows, "Dice of clean test labels, mean ± SD over seeds.")


def repaired_labels(metrics: Metrics, loss: str, vog: str, conditions: Sequence[Condition]) -> Table:
    """How true labels are before and after repair."""
    rows = [
        [f"{kind} {x:g}", name, *(cell(metrics, f"labels_{group}/{name}/{kind}/{x:g}") for group in QUALITY)]
        for kind, x in conditions
        for name in (f"as_given_{loss}", "refurbish_loss", f"as_given_{vog}", "refurbish_vog")
    ]
    return Table(["error", "labels", *QUALITY], rows, "Dice of labels with the truth; recall and precision of flags.")


def auroc_curves(
    work: WorkDir, kind: str, fraction: float, seeds: Sequence[Mapping[str, np.ndarray]], probe_every: int
) -> Figure:
    """AUROC of some scores against epoch, mean over seeds."""
    shown = {name: np.mean([one[name] for one in seeds], axis=0) for name in seeds[0] if name not in HIDDEN}
    x = probe_every * np.arange(1, len(seeds[0]["vog"]) + 1)
    drawn = curves(x, shown, "epoch", "AUROC", title=f"{kind}, {fraction:g} of the labels wrong")
    return Figure(save_figure(work, f"auroc_{kind}_{fraction:g}".replace(".", "_"), drawn))


def pictures(case: Case, targets: Mapping[str, float], conditions: Sequence[Condition], simulated: bool) -> Figure:
    """Some images, as labelled truly and wrongly by each kind of error to its target Dice."""
    few = np.r_[np.flatnonzero(~case.hard)[:6], np.flatnonzero(case.hard)[:2]]
    labels, names = [case.clean[few]], [("hard" if hard else "true label") for hard in case.hard[few]]
    for kind in dict.fromkeys(kind for kind, _ in conditions):
        labels.append(corrupt(case.seed, case.clean, kind, 1.0, targets[kind]).labels[few])
        names += [kind] * len(few)
    images = np.tile(case.images[few, ..., 0], (len(labels), 1, 1))
    drawn = gallery(images, np.concatenate(labels), names, len(few), "Simulated" * simulated)
    return Figure(save_figure(case.work, "images", drawn), "Outlines: left ventricle, its wall, left atrium.")
