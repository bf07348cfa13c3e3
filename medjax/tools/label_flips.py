"""Label flips of segmentations read from files, as in `medjax shortcuts flips`.

`label_flips` compares label images with their ground truth: the fractions of the true foreground that are correct,
flipped to another class and missed, and a CSV of one row an image if asked. For arrays: `medjax.shortcuts.flips`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from medjax.atomic import write_csv
from medjax.errors import ConfigError, DataError
from medjax.io.label_images import SCORE_ENDINGS, list_files, pair_files, read_labels, read_pair, read_scores
from medjax.io.tables import is_missing, read_table
from medjax.metrics.overlap import confusion_matrix
from medjax.shortcuts import flips
from medjax.tools.checks import as_paths, check_no_overwrite, check_output


class LabelFlips(NamedTuple):
    """Confusion matrix and flip-risk of each image; flip fractions, IoU gaps and deciles of flip-risk over all."""

    names: list[str]
    confusion: Int[np.ndarray, "image true predicted"]
    risk: Float[np.ndarray, " image"]  # NaN without logits
    fractions: dict[str, flips.FlipFractions]  # over all pixels, mean over images, and of each group
    iou_gaps: Float[np.ndarray, " class"] | None  # IoU, common minus rare group; where the groups are 2 · class + scene
    deciles: flips.Deciles | None  # deciles of flip-risk, for ten images or more
    without_foreground: list[str]  # names of images that are left out of the means


def label_flips(
    pred: Path | str,
    gt: Path | str,
    output: Path | str | None = None,
    *,
    logits: Path | str | None = None,
    probabilities: Path | str | None = None,
    groups: Path | str | None = None,
    labels: Sequence[int] | None = None,
) -> LabelFlips:
    """Label flips of predicted label images, a file or a folder, against their ground truth.

    Args:
        pred, gt: label images; a folder's are paired by name.
        output: CSV of one row an image.
        logits: outputs of the network, for flip-risk; or `probabilities`, their softmax.
        groups: a CSV with columns image (name without ending) and group.
        labels: all label values, background first; default: 0 and those of the truth.

    Raises:
        ConfigError: logits and probabilities are both given.
        DataError: files that are missing, unreadable, of different grids or names, or without any true foreground; or
            the output is one of them.
    """
    pred, gt, output, logits, probabilities, groups = as_paths(pred, gt, output, logits, probabilities, groups)
    if logits is not None and probabilities is not None:
        raise ConfigError("--logits and --probabilities: expected one of them")
    pairs = pair_files(pred, gt)
    scores = None if (file := probabilities or logits) is None else list_files(file, SCORE_ENDINGS)
    if output is not None:
        check_output(output, ("",))
        read = [groups, *(file for pair in pairs.values() for file in pair), *(scores or {}).values()]
        check_no_overwrite([output], read)
    table = read_table(groups, ("image", "group")) if groups else ()
    group_of = {row["image"]: "" if is_missing(row["group"]) else row["group"] for row in table}
    found = {0}.union(*(np.unique(read_labels(truth)[0]).tolist() for _, truth in pairs.values() if not labels))
    known = list(labels or sorted(found))
    confusion, risk = _compare(pairs, known, scores, probabilities is not None)
    group = np.array([group_of.get(name, "") for name in pairs])
    fractions = {"all pixels": flips.decompose(confusion.sum(0)), "mean of images": flips.mean_over_images(confusion)}
    named = sorted(set(group) - {""})
    fractions |= {f"group {one}": flips.decompose(confusion[group == one].sum(0)) for one in named}
    each, number = flips.decompose(confusion), 2 * (len(known) - 1)
    scenes = set(group) == {str(one) for one in range(number)}
    iou_gaps = (
        np.asarray(flips.iou_gaps(flips.confusion_by_group(confusion, group.astype(int), number))) if scenes else None
    )
    known_risk = np.isfinite(risk) & np.isfinite(each.flip)
    deciles = flips.deciles(risk, np.asarray(each.flip)) if known_risk.sum() >= 10 else None
    empty = [name for name, total in zip(pairs, confusion[:, 1:].sum((1, 2)).tolist(), strict=True) if not total]
    if output is not None:
        _write(output, list(pairs), group, confusion, [*each, risk])
    return LabelFlips(list(pairs), confusion, risk, fractions, iou_gaps, deciles, empty)


def _compare(
    pairs: Mapping[str, tuple[Path, Path]], known: list[int], scores: Mapping[str, Path] | None, softmax: bool
) -> tuple[Int[np.ndarray, "image true predicted"], Float[np.ndarray, " image"]]:
    """Confusion matrix of each pair (prediction, truth) for the label values `known`, and flip-risk of its scores."""
    counts: list[np.ndarray] = []
    risks: list[float] = []
    for name, (pred, gt) in pairs.items():
        predicted, truth = read_pair(pred, gt, known)
        counts.append(np.asarray(confusion_matrix(predicted, truth, len(known))))
        if scores is not None:
            file = next(iter(scores.values())) if len(scores) == len(pairs) == 1 else scores.get(name)
            if file is None:
                folder = next(iter(scores.values())).parent
                raise DataError(f"{folder}: nothing named {name}; expected one file for each image")
            values = read_scores(file, (*truth.shape, len(known)), softmax)
            risks.append(float(flips.flip_risk(jnp.asarray(values)[None])[0]))
    confusion = np.stack(counts)
    if not confusion[:, 1:].any():
        (_, gt), *_ = pairs.values()
        raise DataError(f"{gt}: no foreground in the ground truth; expected some, of which to take fractions")
    return confusion, np.array(risks or [np.nan] * len(pairs))


def _write(output: Path, names: list[str], group: np.ndarray, confusion: np.ndarray, columns: Sequence) -> None:
    values = np.stack([np.asarray(column, float) for column in columns], axis=1)
    cells = [["" if np.isnan(value) else f"{value:.6f}" for value in row] for row in values]
    counts = confusion[:, 1:].sum((1, 2)).tolist()
    rows = [[*first, *rest] for *first, rest in zip(names, group, counts, cells, strict=True)]
    write_csv(output, ["image", "group", "foreground", "correct", "flip", "miss", "flip_risk"], rows)
