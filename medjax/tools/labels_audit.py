"""What `medjax labels audit` does: read, train and follow the training, rank, write a CSV and a report.

result = audit(Path("images"), Path("masks"), Path("out"))       files of two folders; a work directory
result = audit(images, labels, network=mine)                     arrays, and nothing is written
[result.names[k] for k in result.order[:10]]                     the most suspect
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.atomic import write_csv
from medjax.datasets.labelled_folders import LabelledImages, digest, read, read_trusted
from medjax.errors import ConfigError, DataError
from medjax.labels import scores, thresholds
from medjax.labels.audit import ImageLabels, Images, predict, training_dynamics
from medjax.labels.dynamics import Settings
from medjax.labels.scores import LabelScore
from medjax.metrics.overlap import mean_dice
from medjax.models.model import Network, check_network
from medjax.models.unet import unet
from medjax.report.html import Figure, Report, Section, Table, write_report
from medjax.report.label_pairs import label_pairs
from medjax.running.config import did_you_mean
from medjax.running.network_part import network_part
from medjax.running.part_identity import as_part
from medjax.running.parts import Part
from medjax.running.progress import say, track
from medjax.running.workdir import WorkDir, open_workdir, save_figure, stage
from medjax.tools import defaults
from medjax.tools.checks import as_paths

FEWEST = 16  # images, below which there is nothing to compare with
SHOWN = 24
WIDTHS = (8, 16, 32, 48)  # of the default network

Scores = Mapping[str, LabelScore | Part]
Threshold = Callable[[np.ndarray], np.ndarray]  # scores → flags


class Audit(NamedTuple):
    """Scores of every image, in which high is suspect, and what came of them."""

    names: list[str]
    scores: dict[str, Float[np.ndarray, " image"]]
    ranking: Float[np.ndarray, " image"]  # the detector's score, oriented by the trusted set
    flags: Bool[np.ndarray, " image"]
    order: Int[np.ndarray, " image"]  # numbers of the images, the most suspect first
    prediction: ImageLabels  # of the network at the end of early learning
    agreement: Float[np.ndarray, " image"]  # Dice of each label with that prediction
    detector: str
    folder: Path | None  # ranked.csv and report.html


def audit(
    images: Path | str | Images,
    masks: Path | str | ImageLabels,
    output: Path | str | None = None,
    *,
    detector: str = defaults.DETECTOR,
    threshold: str | float | Threshold | Part = defaults.THRESHOLD,
    trusted: Path | str | None = None,
    size: int = defaults.SIZE,
    classes: int | None = None,
    epochs: int = defaults.AUDIT_EPOCHS,
    seed: int = 0,
    network: Network | Callable[[int], Network] | Part | None = None,
    label_scores: Scores | Sequence[Part] = (),
) -> Audit:
    """Rank the labels in `masks`; with `output`, a work directory, an audit that was stopped goes on.

    Args:
        images: a folder of files, which are read on `size` voxels each way; or an array (image, *space, channel) of
            about 0 … 1, taken as it is: `size` says nothing then.
        masks: a folder of files of the same names; or class numbers (image, *space).
        detector: the name of the score that ranks and flags.
        threshold: a name, a fraction such as 0.1, or a function scores → flags.
        trusted: a CSV of labels that were checked, see `read_trusted`.
        network: a Model, or a function of the number of classes that makes one; default: a small U-Net.
        label_scores: the columns of the table; or parts that come beside `scores.built_in()`, each as its NAME.

    Raises:
        ConfigError, DataError: something given cannot be used.
        WorkdirError: `output` holds another audit: of other data, settings, network or scores.
    """
    images, masks, output, trusted = as_paths(images, masks, output, trusted)
    columns, foreign = _columns(label_scores)
    rule = _rule(threshold)
    _check(detector, size, epochs, tuple(columns), network is None)
    data = _data(images, masks, size, classes)
    checked = None if trusted is None else read_trusted(trusted, data.names)
    number = int(data.labels.max()) + 1 if classes is None else classes
    part = network_part(network or small_unet, number)
    check_network(part.value, data.images.shape[1:], number)
    config = {
        **{name: str(it) if isinstance(it, Path) else "array" for name, it in (("images", images), ("masks", masks))},
        "size": size, "classes": classes or 0, "epochs": epochs, "seed": seed,
        "content": digest(data),  # other images or corrected masks are another audit
        **({"network": part.identity} if network else {}), **({"scores": foreign} if foreign else {}),
    }  # fmt: skip
    with nullcontext() if output is None else open_workdir(output, config) as work:
        say(f"{len(data.names)} images, {number - 1} structures{_empty(data.labels)}")
        compute = partial(_dynamics, data, number, epochs, seed, part.value, columns)
        found = compute(None) if work is None else _kept(work, compute, columns)
        score = found["scores"][detector] if checked is None else _oriented(found["scores"][detector], *checked)
        prediction, order = found["prediction"], np.argsort(-score, kind="stable")
        agreement = np.array([mean_dice(one, given) for one, given in zip(prediction, data.labels, strict=True)])
        flags = _flags(rule, score)
        result = Audit(data.names, found["scores"], score, flags, order, prediction, agreement, detector, output)
        if work is not None:
            _write(work, data, result)
    return result


def small_unet(classes: int) -> Network:
    """The default network."""
    return unet(classes, WIDTHS)


def _data(images: Path | Images, masks: Path | ImageLabels, size: int, classes: int | None) -> LabelledImages:
    if isinstance(images, Path) and isinstance(masks, Path):
        return read(images, masks, size, classes, FEWEST)
    found = [str(it) if isinstance(it, Path) else np.shape(it) for it in (images, masks)]
    if isinstance(images, Path) or isinstance(masks, Path) or found[0][:-1] != found[1]:
        expected = "two folders, or arrays (image, *space, channel) and (image, *space)"
        raise DataError(f"images {found[0]}, masks {found[1]}; expected {expected}")
    labels = np.asarray(masks)
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"masks of {labels.dtype}; expected class numbers, whole ones")
    return LabelledImages([str(number) for number in range(len(images))], np.asarray(images), labels)


def _columns(given: Scores | Sequence[Part]) -> tuple[dict[str, LabelScore], dict[str, dict[str, str]]]:
    """The scores by name, and the identities of those that are not built in."""
    known = scores.built_in()
    parts: dict[str, Any] = dict(given) if isinstance(given, Mapping) else dict(known)
    for part in () if isinstance(given, Mapping) else given:
        if (name := part.name.rpartition(":")[2]) in parts:
            raise ConfigError(f"--score {part.name}: there is a score {name} already; expected another name")
        parts[name] = part
    columns = {name: part.value if isinstance(part, Part) else part for name, part in parts.items()}
    for name, one in columns.items():
        if not isinstance(one, LabelScore):
            called = parts[name].name if isinstance(parts[name], Part) else name
            raise ConfigError(f"--score {called}: {type(one).__name__}; expected a LabelScore")
    return columns, {name: as_part(parts[name]).identity for name, one in columns.items() if known.get(name) != one}


def _rule(threshold: str | float | Threshold | Part) -> Threshold:
    if isinstance(threshold, str | float):
        return thresholds.by_name(str(threshold), "--threshold")
    name, rule = (threshold.name, threshold.value) if isinstance(threshold, Part) else (repr(threshold), threshold)
    if not callable(rule):
        raise ConfigError(f"--threshold {name}: {type(rule).__name__}; expected a function scores → flags")
    return rule


def _check(detector: str, size: int, epochs: int, known: tuple[str, ...], default_network: bool) -> None:
    if detector not in known:
        raise ConfigError(f"--detector {detector}; expected {', '.join(known)}{did_you_mean(detector, known)}")
    if size < 16 or (default_network and size % 2 ** (len(WIDTHS) - 1)):
        raise ConfigError(f"--size {size}; expected a multiple of {2 ** (len(WIDTHS) - 1)}, 16 or more")
    if epochs < 4:
        raise ConfigError(f"--epochs {epochs}; expected 4 or more")


def _flags(rule: Threshold, score: np.ndarray) -> np.ndarray:
    flags = np.asarray(rule(score))
    if flags.shape != score.shape or flags.dtype != bool:
        raise ConfigError(f"threshold gave {flags.dtype} of {flags.shape}; expected bool of {score.shape}")
    return flags


def _empty(labels: np.ndarray) -> str:
    empty = int((~labels.any(axis=tuple(range(1, labels.ndim)))).sum())
    return f"; {empty} labels name no structure" if empty else ""


def _oriented(score: np.ndarray, trusted: np.ndarray, corrupted: np.ndarray) -> np.ndarray:
    oriented = thresholds.orient(score, trusted, corrupted)
    say(f"{len(trusted)} labels were looked at: the list is {'as it was' if oriented is score else 'turned'}")
    return oriented


def _kept(work: WorkDir, compute: Callable[[Path], dict[str, Any]], columns: Mapping[str, LabelScore]) -> Any:
    """Scores and prediction as a stage; a training that was stopped goes on."""
    training = work.checkpoints / "training"
    like = {"scores": dict.fromkeys(columns, 0.0), "prediction": 0}
    found = stage(work, "scores", partial(compute, training), like)
    shutil.rmtree(training, ignore_errors=True)  # the maps of VOG are large
    return found


def _dynamics(
    data: LabelledImages,
    classes: int,
    epochs: int,
    seed: int,
    model: Network,
    columns: dict[str, LabelScore],
    checkpoints: Path | None,
) -> dict[str, Any]:
    """Scores at the end of early learning, and the network's prediction then."""
    batch = min(8, len(data.images))
    an_epoch = len(data.images) // batch
    every = max(epochs // 8, 1) * an_epoch
    settings = Settings(classes, 8e-3, batch, epochs * an_epoch, every, epochs * an_epoch // 2)
    snapshots = training_dynamics(seed, model, data.images, data.labels, settings, columns, checkpoints=checkpoints)
    for snapshot in track(snapshots, "training"):
        if snapshot.memorization:
            return {
                "scores": scores.evaluate(columns, snapshot.states, data.labels),
                "prediction": predict(model, snapshot.state.ema_params, data.images),
            }
    raise DataError("training ended before the labels were judged")


def _write(work: WorkDir, data: LabelledImages, found: Audit) -> None:
    """ranked.csv, and report.html with the pictures of both ends of the list."""
    names, agreement, detector = found.names, found.agreement, found.detector
    rows = [
        [rank + 1, names[k], int(found.flags[k]), f"{agreement[k]:.4f}"]
        + [f"{float(values[k]):.6g}" for values in found.scores.values()]
        for rank, k in enumerate(found.order)
    ]
    write_csv(work.path / "ranked.csv", ["rank", "name", "flagged", "agreement", *found.scores], rows)
    ends = {"suspect": found.order[:SHOWN], "least_suspect": found.order[::-1][:SHOWN]}
    pictures: list[Figure] = []
    for name, end in ends.items():
        figure = label_pairs(data.images[end, ..., 0], data.labels[end], found.prediction[end], [names[k] for k in end])
        pictures.append(Figure(save_figure(work, name, figure)))
    head = [
        [rank + 1, names[k], round(float(agreement[k]), 3), round(float(found.ranking[k]), 4)]
        for rank, k in enumerate(found.order[:SHOWN])
    ]
    text = (
        f"{int(found.flags.sum())} of {len(names)} labels are flagged by {detector}; the other pictures follow in "
        "order of the list. ranked.csv holds all images and scores: high is suspect in every column but agreement, the "
        "Dice of the label with the network's prediction. The threshold is yours to choose: --threshold."
    )
    table = Table(["rank", "image", "Dice with the network", detector], head)
    sections = [
        Section("Most suspect", "Pairs: the label given, then the network's prediction.", pictures[:1], table),
        Section("Least suspect", "If these are the wrong ones, give --trusted.", pictures[1:]),
    ]
    write_report(work.path / "report.html", Report("Label audit", [text], sections))
