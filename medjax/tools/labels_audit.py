"""What `medjax labels audit` does: read, train and follow the training, rank, write a CSV and a report."""

import csv
import hashlib
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import typer
from jaxtyping import Bool, Float, Int

from medjax.atomic import write_csv
from medjax.errors import ConfigError, DataError
from medjax.io.pictures import fitted, read_labelled
from medjax.labels import scores, thresholds
from medjax.labels.audit import check_network, predict, training_dynamics
from medjax.labels.dynamics import Settings
from medjax.labels.scores import LabelScore
from medjax.metrics.overlap import mean_dice
from medjax.models.model import Network
from medjax.models.unet import unet
from medjax.report.gallery import gallery
from medjax.report.html import Figure, Report, Section, Table, write_report
from medjax.running.config import did_you_mean
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, open_workdir, save_figure, stage
from medjax.tools.part_identity import identity
from medjax.training.batches import pairs

FEWEST = 16  # images, below which there is nothing to compare with
SHOWN = 24
MOST_CLASSES = 64
WIDTHS = (8, 16, 32, 48)  # of the default network

Threshold = Callable[[np.ndarray], np.ndarray]  # scores → flags


class Data(NamedTuple):
    """Images and labels on the grid of training, and their names."""

    names: list[str]
    images: Float[np.ndarray, "image *space 1"]
    labels: Int[np.ndarray, "image *space"]


def audit(
    images: Path,
    masks: Path,
    output: Path,
    detector: str,
    threshold: str | Threshold,
    trusted: Path | None,
    size: int,
    classes: int | None,
    epochs: int,
    seed: int,
    *,
    network: Callable[[int], Network] | None = None,
    label_scores: Mapping[str, LabelScore] | None = None,
) -> None:
    """Rank the labels in `masks` and write `output`/ranked.csv and report.html.

    Args:
        detector: the name of the score that ranks and flags.
        threshold: a name, a fraction such as "0.1", or a function scores → flags.
        network: makes the Model for a number of classes; default: a small U-Net.
        label_scores: the columns of the table; default: `scores.built_in()`.

    Raises:
        ConfigError, DataError: something given cannot be used.
    """
    columns = scores.built_in() if label_scores is None else dict(label_scores)
    _check(detector, threshold, size, epochs, tuple(columns), network is None)
    config: dict[str, Any] = {
        "images": str(images), "masks": str(masks), "size": size, "classes": classes or 0, "epochs": epochs,
        "seed": seed,
    }  # fmt: skip
    data = read(images, masks, size, classes)
    config["content"] = _digest(data)  # other images or corrected masks are another audit
    checked = None if trusted is None else read_trusted(trusted, data.names)
    number = int(data.labels.max()) + 1 if classes is None else classes
    model = (network or small_unet)(number)
    check_network(model, data.images, number)
    config |= {"network": identity(model)} if network else {}
    config |= {"scores": {name: identity(one) for name, one in label_scores.items()}} if label_scores else {}
    with open_workdir(output, config) as work:
        typer.echo(f"{len(data.names)} images, {number - 1} structures{_empty(data.labels)}")
        found = _scored(work, data, number, epochs, seed, model, columns)
        score = found["scores"][detector]
        if checked is not None:
            oriented = thresholds.orient(score, *checked)
            outcome = "as it was" if oriented is score else "turned"
            typer.echo(f"{len(checked[0])} labels were looked at: the list is {outcome}")
            score = oriented
        flags = _flags(score, threshold)
        _write(work, data, found, score, flags, detector)
    wrote = f"wrote {output / 'ranked.csv'} and report.html"
    typer.echo(f"{int(flags.sum())} of {len(flags)} labels flagged by {detector}; {wrote}")
    if trusted is None:
        typer.echo(
            "if more than half are wrong in the same way the list is upside down: look at ten of each end (--trusted)"
        )


def small_unet(classes: int) -> Network:
    """The default network."""
    return unet(classes, WIDTHS)


def read(images: Path, masks: Path, size: int, classes: int | None = None) -> Data:
    """Every pair of files of the two folders, on `size` voxels each way.

    Raises:
        DataError: files do not pair up or fit, there are too few, or no label names a structure.
    """
    files = pairs(images, masks)
    if len(files) < FEWEST:
        raise DataError(f"{images}: {len(files)} images; expected at least {FEWEST} to compare labels with each other")
    arrays: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for image, mask in track(files, "reading"):
        one = read_labelled(image, mask, classes)
        array, label = fitted(one, (size,) * (one.image.ndim if not arrays else arrays[0].ndim))
        arrays.append(array)
        labels.append(label)
    names, stacked = [image.name for image, _ in files], np.stack(labels)
    values = np.unique(stacked)
    if values.max() == 0:
        raise DataError(f"{masks}: every label is 0; expected class numbers above 0")
    if classes is None and len(values) <= values.max():  # masks of 0 and 255, say
        values = np.union1d(0, values)
        if len(values) > MOST_CLASSES:
            raise DataError(f"{masks}: {len(values)} different values; expected class numbers, not grey values")
        typer.echo(f"labels {', '.join(map(str, values))} are taken as classes 0 to {len(values) - 1}")
        stacked = np.searchsorted(values, stacked).astype(np.int32)
    return Data(names, np.stack(arrays)[..., None], stacked)


def _digest(data: Data) -> str:
    """Eight hex digits of names, images and labels."""
    digest = hashlib.sha256("\0".join(data.names).encode())
    for array in (data.images, data.labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:8]


def read_trusted(path: Path, names: list[str]) -> tuple[Int[np.ndarray, " some"], Bool[np.ndarray, " some"]]:
    """Images that were looked at, by number, and whether their labels are wrong.

    Raises:
        DataError: no columns name and wrong, an unknown name, or a value that is neither 0 nor 1.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = {name.partition(".")[0]: k for k, name in enumerate(names)} | {name: k for k, name in enumerate(names)}
    try:
        places = np.array([known[row["name"]] for row in rows])
        return places, np.array([(0, 1)[int(row["wrong"])] for row in rows]) > 0
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}; expected columns name (of an image) and wrong (0 or 1)") from error


def _check(
    detector: str, threshold: str | Threshold, size: int, epochs: int, known: tuple[str, ...], default_network: bool
) -> None:
    if detector not in known:
        raise ConfigError(f"--detector {detector}; expected {', '.join(known)}{did_you_mean(detector, known)}")
    if isinstance(threshold, str) and threshold not in thresholds.THRESHOLDS and not _fraction(threshold):
        raise ConfigError(
            f"--threshold {threshold}; expected {', '.join(thresholds.THRESHOLDS)} or a fraction such as 0.1"
        )
    if size < 16 or (default_network and size % 2 ** (len(WIDTHS) - 1)):
        raise ConfigError(f"--size {size}; expected a multiple of {2 ** (len(WIDTHS) - 1)}, 16 or more")
    if epochs < 4:
        raise ConfigError(f"--epochs {epochs}; expected 4 or more")


def _fraction(threshold: str) -> float:
    try:
        fraction = float(threshold)
    except ValueError:
        return 0.0
    return fraction if 0 < fraction < 1 else 0.0


def _flags(score: np.ndarray, threshold: str | Threshold) -> np.ndarray:
    if isinstance(threshold, str):
        rule = thresholds.THRESHOLDS.get(threshold)
        return thresholds.highest(score, _fraction(threshold)) if rule is None else rule(score)
    flags = np.asarray(threshold(score))
    if flags.shape != score.shape or flags.dtype != bool:
        raise ConfigError(f"threshold gave {flags.dtype} of {flags.shape}; expected bool of {score.shape}")
    return flags


def _empty(labels: np.ndarray) -> str:
    empty = int((~labels.any(axis=tuple(range(1, labels.ndim)))).sum())
    return f"; {empty} labels name no structure" if empty else ""


def _scored(
    work: WorkDir, data: Data, classes: int, epochs: int, seed: int, model: Network, columns: dict[str, LabelScore]
) -> dict[str, Any]:
    """Scores at the end of early learning and the network's prediction then, as a stage; training resumes."""
    training = work.checkpoints / "training"
    like = {"scores": dict.fromkeys(columns, 0.0), "prediction": 0}
    compute = partial(_dynamics, data, classes, epochs, seed, model, columns, training)
    found = stage(work, "scores", compute, like)
    shutil.rmtree(training, ignore_errors=True)  # the maps of VOG are large
    return found


def _dynamics(
    data: Data,
    classes: int,
    epochs: int,
    seed: int,
    model: Network,
    columns: dict[str, LabelScore],
    checkpoints: Path,
) -> dict[str, Any]:
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


def _write(
    work: WorkDir, data: Data, found: dict[str, Any], score: np.ndarray, flags: np.ndarray, detector: str
) -> None:
    order = np.argsort(-score, kind="stable")
    agreement = [
        mean_dice(prediction, given) for prediction, given in zip(found["prediction"], data.labels, strict=True)
    ]
    rows = [
        [rank + 1, data.names[k], int(flags[k]), f"{agreement[k]:.4f}"]
        + [f"{float(values[k]):.6g}" for values in found["scores"].values()]
        for rank, k in enumerate(order)
    ]
    write_csv(work.path / "ranked.csv", ["rank", "name", "flagged", "agreement", *found["scores"]], rows)
    ends = {"suspect": order[:SHOWN], "least_suspect": order[::-1][:SHOWN]}
    figures = {name: Figure(_thumbnails(work, name, data, found["prediction"], rows)) for name, rows in ends.items()}
    head = [
        [rank + 1, data.names[k], round(agreement[k], 3), round(float(score[k]), 4)] for rank, k in enumerate(order)
    ]
    table = Table(["rank", "image", "Dice with the network", detector], head[:SHOWN])
    text = (
        f"{int(flags.sum())} of {len(flags)} labels are flagged by {detector}; the other pictures follow in order of "
        "the list. ranked.csv holds all images and scores: high is suspect in every column but agreement, the Dice of "
        "the label with the network's prediction. The threshold is yours to choose: --threshold."
    )
    sections = [
        Section("Most suspect", "Pairs: the label given, then the network's prediction.", [figures["suspect"]], table),
        Section("Least suspect", "If these are the wrong ones, give --trusted.", [figures["least_suspect"]]),
    ]
    write_report(work.path / "report.html", Report("Label audit", [text], sections))


def _thumbnails(work: WorkDir, name: str, data: Data, prediction: np.ndarray, rows: np.ndarray) -> Path:
    """Two pictures of each image, with the label given and with the network's; of volumes the middle slice."""

    def flat(array: np.ndarray) -> np.ndarray:
        return array if array.ndim == 2 else array[..., array.shape[-1] // 2]

    images = np.stack([flat(data.images[k, ..., 0]) for k in rows for _ in range(2)])
    labels = np.stack([flat(one[k]) for k in rows for one in (data.labels, prediction)])
    names = [text for k in rows for text in (data.names[k][:22], "network")]
    return save_figure(work, name, gallery(images, labels, names, 8))
