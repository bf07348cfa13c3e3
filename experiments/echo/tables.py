"""Tables and figures of `echo_label_errors`, by condition: (kind of label error, fraction of wrong labels)."""

from collections.abc import Mapping, Sequence

import numpy as np

from medjax.labels.comparison import Cell
from medjax.labels.errors import corrupt
from medjax.labels.scores import built_in
from medjax.metrics.summary import cell
from medjax.report.figures import curves
from medjax.report.gallery import gallery
from medjax.report.html import Figure, Table
from medjax.running.workdir import WorkDir, save_figure

LABEL_METRICS = ("all", "corrupted", "flagged", "falsely_flagged", "recall", "precision")
PLOTTED = {"vog", "vog_published", "gradient", "loss", "dice_mean", "aum", "softmin"}
NOT_PLOTTED = built_in().keys() - PLOTTED  # built-in scores that are not plotted; custom ones are plotted
Condition = tuple[str, float]
Metrics = Mapping[str, float]


def detection(metrics: Metrics, scores: Sequence[str], conditions: Sequence[Condition]) -> Table:
    """Table of the AUROC of every label score for corrupted labels."""
    rows = [[name, *(cell(metrics, f"auroc/{name}/{kind}/{x:g}", 2) for kind, x in conditions)] for name in scores]
    header = ["AUROC", *(f"{kind} {fraction:g}" for kind, fraction in conditions)]
    return Table(header, rows, "Mean ± SD over seeds; 0.5 is chance, below it the ranking is upside down.")


def test_dice(metrics: Metrics, strategies: Sequence[str], conditions: Sequence[Condition]) -> Table:
    """Table of the test Dice of every strategy."""
    rows = [
        [kind, f"{x:g}", *(cell(metrics, f"dice/{name}/{kind}/{x:g}") for name in strategies)] for kind, x in conditions
    ]
    return Table(["error", "fraction wrong", *strategies], rows, "Dice of clean test labels, mean ± SD over seeds.")


def label_dice(
    metrics: Metrics, loss: str, vog: str, conditions: Sequence[Condition], trusted: Sequence[float]
) -> Table:
    """Table of the labels' Dice with the truth before and after refurbishment; recall and precision of the flags.

    At the fractions `trusted` also of those that a trusted set oriented.
    """
    rows = [
        [f"{kind} {x:g}", name, *(cell(metrics, f"labels_{group}/{name}/{kind}/{x:g}") for group in LABEL_METRICS)]
        for kind, x in conditions
        for by in (("", "_trusted") if x in trusted else ("",))
        for each in (f"uncorrected_{loss}", "refurbish_loss", f"uncorrected_{vog}", "refurbish_vog")
        for name in (each + by,)
    ]
    return Table(
        ["error", "labels", *LABEL_METRICS], rows, "Dice of labels with the truth; recall and precision of flags."
    )


def auroc_curves(
    work: WorkDir, kind: str, fraction: float, seeds: Sequence[Mapping[str, np.ndarray]], probe_every: int
) -> Figure:
    """Figure of the AUROC of label scores against epoch, mean over seeds."""
    plotted = {name: np.mean([one[name] for one in seeds], axis=0) for name in seeds[0] if name not in NOT_PLOTTED}
    x = probe_every * np.arange(1, len(seeds[0]["vog"]) + 1)
    drawn = curves(x, plotted, "epoch", "AUROC", title=f"{kind}, {fraction:g} of the labels wrong")
    return Figure(save_figure(work, f"auroc_{kind}_{fraction:g}".replace(".", "_"), drawn))


def error_examples(
    cell: Cell, target_dice: Mapping[str, float], conditions: Sequence[Condition], simulated: bool
) -> Figure:
    """Figure of some images with their true labels, and with each kind of error at its target Dice."""
    few = np.r_[np.flatnonzero(~cell.hard)[:6], np.flatnonzero(cell.hard)[:2]]
    labels, names = [cell.clean[few]], [("hard" if hard else "true label") for hard in cell.hard[few]]
    for kind in dict.fromkeys(kind for kind, _ in conditions):
        labels.append(corrupt(cell.seed, cell.clean, kind, 1.0, target_dice[kind]).labels[few])
        names += [kind] * len(few)
    images = np.tile(cell.images[few, ..., 0], (len(labels), 1, 1))
    drawn = gallery(images, np.concatenate(labels), names, len(few), "Simulated" * simulated)
    return Figure(save_figure(cell.work, "images", drawn), "Outlines: left ventricle, its wall, left atrium.")
