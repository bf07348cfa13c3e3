"""Files of a label audit: ranked.csv of every image, and report.html with both ends of the ranking."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.atomic import replacing_together, write_csv
from medjax.datasets.labeled_folders import LabeledImages
from medjax.report.html import Figure, Report, Section, Table, write_report
from medjax.report.label_pairs import label_pairs
from medjax.running.workdir import WorkDir, save_figure

OUTPUTS = ("ranked.csv", "report.html")
REPORT_IMAGES = 24  # images shown of each end of the ranking
PAIRS = "Pairs: outlines of the label, then of the network's prediction. Above each: rank, name and flag."


class AuditTable(NamedTuple):
    """Scores of every image (high: suspect), ranking and flags."""

    names: list[str]  # names of the images
    scores: dict[str, Float[np.ndarray, " image"]]  # label scores by name
    ranking: Float[np.ndarray, " image"]  # the score that ranks, oriented by the trusted set
    flags: Bool[np.ndarray, " image"]  # whether a label is suspect
    order: Int[np.ndarray, " image"]  # indices of the images, the most suspect first
    agreement: Float[np.ndarray, " image"]  # Dice of each label with the network's prediction
    score: str  # name of the score that ranks


def write_outputs(
    work: WorkDir,
    table: AuditTable,
    data: LabeledImages,
    prediction: Int[np.ndarray, "image *space"],
    details: Mapping[str, str | Mapping[str, object]],
) -> None:
    """Write `OUTPUTS` to a work directory, together or not at all, and the report's figures.

    Args:
        work: the work directory.
        table: scores, ranking and flags.
        data: images and labels.
        prediction: labels that the network predicts.
        details: command and settings, for the foot of the report.

    Raises:
        OSError: a file cannot be written.
    """
    rows = [
        [rank + 1, table.names[k], int(table.flags[k]), f"{table.agreement[k]:.4f}"]
        + [f"{float(values[k]):.6g}" for values in table.scores.values()]
        for rank, k in enumerate(table.order)
    ]
    page = _report(work, table, data, prediction)
    with replacing_together(*(work.path / name for name in OUTPUTS)) as (ranked, report):
        write_csv(ranked, ["rank", "name", "flagged", "agreement", *table.scores], rows)
        write_report(report, page, details)


def _report(work: WorkDir, table: AuditTable, data: LabeledImages, prediction: np.ndarray) -> Report:
    ends = {"suspect": table.order[:REPORT_IMAGES], "least_suspect": table.order[::-1][:REPORT_IMAGES]}
    figures = {name: _figure(work, name, end, table, data, prediction) for name, end in ends.items()}
    head = [
        [
            rank + 1, table.names[k], "flagged" if table.flags[k] else "–", round(float(table.agreement[k]), 3),
            round(float(table.ranking[k]), 4),
        ]
        for rank, k in enumerate(ends["suspect"])
    ]  # fmt: skip
    text = (
        f"{int(table.flags.sum())} of {len(table.names)} labels are flagged by {table.score}. ranked.csv holds the "
        "scores of all images: high is suspect in every column but agreement, the Dice of the label with the network's "
        "prediction. --threshold sets which labels are flagged."
    )
    first = Table(["rank", "image", "flag", "Dice with the prediction", table.score], head)
    return Report(
        "Label audit",
        [text],
        [
            Section("Most suspect labels", "", [figures["suspect"]], first),
            Section("Least suspect labels", "If these are the wrong ones, give --trusted.", [figures["least_suspect"]]),
        ],
    )


def _titles(table: AuditTable, some: np.ndarray) -> list[str]:
    """Rank, name and flag of some images, such as `1 · heart_0018 · flagged`."""
    ranks = np.argsort(table.order) + 1
    return [f"{ranks[k]} · {table.names[k]}{' · flagged' if table.flags[k] else ''}" for k in some]


def _figure(
    work: WorkDir, name: str, end: np.ndarray, table: AuditTable, data: LabeledImages, prediction: np.ndarray
) -> Figure:
    voxels = None if data.voxels is None else data.voxels[end]
    names = _titles(table, end)
    figure = label_pairs(data.images[end, ..., 0], data.labels[end], prediction[end], names, voxels)
    return Figure(save_figure(work, name, figure), PAIRS)
