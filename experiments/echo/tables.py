"""Tables and figures of the study of wrong labels. Columns and rows are conditions: (kind of error, fraction)."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.echo.cells import LOSS, STRATEGIES, VOG
from medjax.labels.errors import corrupt
from medjax.metrics.summary import cell
from medjax.phantoms.echo import Echo
from medjax.report.figures import curves
from medjax.report.gallery import gallery
from medjax.report.html import Figure, Table
from medjax.running.workdir import WorkDir, save_figure

QUALITY = ("all", "bad", "flagged", "falsely_flagged", "recall", "precision")
Condition = tuple[str, float]
Metrics = Mapping[str, float]


def detection(metrics: Metrics, scores: Sequence[str], conditions: Sequence[Condition]) -> Table:
    """The AUROC of every score of labels."""
    rows = [[name, *(cell(metrics, f"auroc/{name}/{kind}/{x:g}", 2) for kind, x in conditions)] for name in scores]
    header = ["AUROC", *(f"{kind} {fraction:g}" for kind, fraction in conditions)]
    return Table(header, rows, "Mean ± SD over seeds; 0.5 is chance, below it the ranking is upside down.")


def repair(metrics: Metrics, conditions: Sequence[Condition]) -> Table:
    """The test Dice of every strategy."""
    names = ("plain", *STRATEGIES)
    rows = [[kind, f"{x:g}", *(cell(metrics, f"dice/{name}/{kind}/{x:g}") for name in names)] for kind, x in conditions]
    return Table(["error", "fraction wrong", *names], rows, "Dice of clean test labels, mean ± SD over seeds.")


def repaired_labels(metrics: Metrics, conditions: Sequence[Condition]) -> Table:
    """How true labels are before and after repair."""
    rows = [
        [f"{kind} {x:g}", name, *(cell(metrics, f"labels_{part}/{name}/{kind}/{x:g}") for part in QUALITY)]
        for kind, x in conditions
        for name in (f"as_given_{LOSS}", "refurbish_loss", f"as_given_{VOG}", "refurbish_vog")
    ]
    return Table(["error", "labels", *QUALITY], rows, "Dice of labels with the truth; recall and precision of flags.")


def auroc_curves(
    work: WorkDir, condition: Condition, lines: Mapping[str, Sequence[np.ndarray]], probe_every: int
) -> Figure:
    """AUROC against epoch, mean over the seeds of each line."""
    kind, fraction = condition
    means = {name: np.mean(seeds, axis=0) for name, seeds in lines.items()}
    x = probe_every * np.arange(1, len(means[VOG]) + 1)
    drawn = curves(x, means, "epoch", "AUROC", title=f"{kind}, {fraction:g} of the labels wrong")
    return Figure(save_figure(work, f"auroc_{kind}_{fraction:g}".replace(".", "_"), drawn))


def pictures(work: WorkDir, data: Echo, targets: Mapping[str, float], seed: int, simulated: bool) -> Figure:
    """Some images, as labelled truly and wrongly by each kind of error to its target Dice."""
    few = np.r_[np.flatnonzero(~data.hard)[:6], np.flatnonzero(data.hard)[:2]]
    labels, names = [data.labels[few]], [("hard" if hard else "true label") for hard in data.hard[few]]
    for kind, target in targets.items():
        labels.append(corrupt(seed, data.labels, kind, 1.0, target).labels[few])
        names += [kind] * len(few)
    images = np.tile(data.images[few, ..., 0], (len(labels), 1, 1))
    drawn = gallery(images, np.concatenate(labels), names, len(few), "Simulated" * simulated)
    return Figure(save_figure(work, "images", drawn), "Outlines: left ventricle, its wall, left atrium.")
