"""Label audit of `medjax labels audit`: train a network, rank the labels by a score of its training dynamics, report.

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
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from medjax import defaults
from medjax.datasets.labeled_folders import MAX_CLASSES, LabeledImages, digest, read, read_trusted
from medjax.errors import ConfigError, DataError, pluralize
from medjax.labels import scores, thresholds
from medjax.labels.audit import ImageLabels, Images, predict, training_dynamics
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.scores import LabelScore
from medjax.metrics.overlap import mean_dice
from medjax.models.model import Network, check_network
from medjax.models.unet import unet
from medjax.running.config import did_you_mean
from medjax.running.network_part import network_part
from medjax.running.part_identity import as_part
from medjax.running.parts import Part
from medjax.running.progress import say, track
from medjax.running.workdir import WorkDir, open_workdir, stage
from medjax.tools.checks import (
    MAX_SIDE,
    MAX_STEPS,
    as_paths,
    check_no_overwrite,
    check_output_files,
    check_output_folder,
    check_range,
    check_seed,
)
from medjax.tools.labels_report import OUTPUTS, AuditTable, write_outputs
from medjax.training.parallel import mesh_for_batches

MIN_IMAGES = 16
BATCH = 8  # images in a training step
MIN_AGREEMENT = 0.6  # median Dice of the labels with the network's prediction, below which a user is told
WIDTHS = (8, 16, 32, 48)  # channels of the default network, by level

Threshold = Callable[[np.ndarray], np.ndarray]  # scores → flags


class Audit(NamedTuple):
    """Result of a label audit: scores of every image (high: suspect), ranking and flags."""

    names: list[str]  # names of the images
    scores: dict[str, Float[np.ndarray, " image"]]  # label scores by name
    ranking: Float[np.ndarray, " image"]  # the score that ranks, oriented by the trusted set
    flags: Bool[np.ndarray, " image"]  # whether a label is suspect
    order: Int[np.ndarray, " image"]  # indices of the images, the most suspect first
    prediction: ImageLabels  # prediction of the network at the end of early learning
    agreement: Float[np.ndarray, " image"]  # Dice of each label with that prediction
    score: str  # name of the score that ranks
    folder: Path | None  # folder of ranked.csv and report.html


def audit(
    images: Path | str | Images,
    masks: Path | str | ImageLabels,
    output: Path | str | None = None,
    *,
    score: str | Part | Sequence[str | Part] = defaults.AUDIT_SCORE,
    threshold: str | float | Threshold | Part = defaults.AUDIT_THRESHOLD,
    trusted: Path | str | None = None,
    size: int = defaults.AUDIT_SIZE,
    classes: int | None = None,
    epochs: int = defaults.AUDIT_EPOCHS,
    seed: int = 0,
    network: Network | Callable[[int], Network] | Part | None = None,
    label_scores: Mapping[str, LabelScore] | None = None,
    devices: int = 1,
    command: str = "",
) -> Audit:
    """Ranking of the labels in `masks` by suspicion; with `output`, a work directory, a stopped audit is resumed.

    Args:
        images: folder of files, which are resampled to `size`; or an array (image, *space, channel) of about 0 … 1.
        masks: folder of files of the same names; or class numbers (image, *space).
        output: work directory of ranked.csv and report.html; None: nothing is written.
        score: name of the score that ranks and flags, or several, of which the first one does; a part FILE.py:NAME adds
            its own column NAME.
        threshold: a name, a fraction such as 0.1, or a function scores → flags.
        trusted: CSV of labels that were checked, see `read_trusted`.
        size: voxels along each axis in training, of files.
        classes: number of classes, with background; default: from the masks.
        epochs: number of training epochs.
        seed: random seed of the network's weights, the order of images and their augmentation.
        network: a Model, or a function of the number of classes that makes one; default: a small U-Net.
        label_scores: columns of the table by name; default: `scores.built_in()`.
        devices: number of devices that each batch is divided among.
        command: command line that repeats this call, for the report.

    Raises:
        ConfigError, DataError: an option, the data or a part cannot be used, or an output is an input.
        WorkdirError: `output` holds another audit: of other data, settings, network or scores.
    """
    images, masks, output, trusted = as_paths(images, masks, output, trusted)
    given = [score] if isinstance(score, str | Part) else list(score)
    columns, custom = _columns(label_scores, [one for one in given if isinstance(one, Part)])
    ranking = _ranking(given, tuple(columns))
    rule = _rule(threshold)
    _check(size, epochs, classes, network is None)
    check_seed(seed)
    if output is not None:
        check_output_folder(output)
        check_output_files(output / name for name in OUTPUTS)
        check_no_overwrite([output, *(output / name for name in OUTPUTS)], _inputs(images, masks, trusted))
    data = _data(images, masks, size, classes)
    mesh = mesh_for_batches(devices, min(BATCH, len(data.images)))
    checked = None if trusted is None else read_trusted(trusted, data.names)
    number = int(data.labels.max()) + 1 if classes is None else classes
    part = network_part(network or small_unet, number)
    check_network(part.value, data.images.shape[1:], number)
    config = {
        **{name: str(it) if isinstance(it, Path) else "array" for name, it in (("images", images), ("masks", masks))},
        "size": size, "classes": classes or 0, "epochs": epochs, "seed": seed,
        "content": digest(data),  # other images or corrected masks are another audit
        **({"network": part.identity} if network else {}), **({"scores": custom} if custom else {}),
    }  # fmt: skip
    with nullcontext() if output is None else open_workdir(output, config) as work:
        say(f"{len(data.names)} images, {pluralize(number - 1, 'structure')}{_empty(data.labels)}")
        compute = partial(_dynamics, data, number, epochs, seed, part.value, columns, mesh)
        found = compute(None) if work is None else _stage(work, compute, columns)
        values = found["scores"][ranking] if checked is None else _orient(found["scores"][ranking], *checked)
        prediction, order = found["prediction"], np.argsort(-values, kind="stable")
        agreement = np.array([mean_dice(one, given) for one, given in zip(prediction, data.labels, strict=True)])
        if (typical := float(np.median(agreement))) < MIN_AGREEMENT:
            text = f"the network's Dice with half of the labels is below {typical:.2f}: it has learned little"
            say(f"{text}, and ranks poorly; use more --epochs than {epochs}")
        flags = _flags(rule, values)
        result = Audit(data.names, found["scores"], values, flags, order, prediction, agreement, ranking, output)
        if work is not None:
            table = AuditTable(data.names, found["scores"], values, flags, order, agreement, ranking)
            shown = config | {"classes": number if classes else f"{number} (automatic, from the masks)"}
            shown["content (SHA-256 of the data, its first digits)"] = shown.pop("content")
            write_outputs(work, table, data, prediction, {"Command": command, "Settings": shown})
    return result


def small_unet(classes: int) -> Network:
    """Default network of an audit: a U-Net of widths `WIDTHS`."""
    return unet(classes, WIDTHS)


def _inputs(*paths: Any) -> list[Path]:
    """Files and folders that are read, with the files of the folders."""
    given = [path for path in paths if isinstance(path, Path)]
    return [*given, *(file for path in given if path.is_dir() for file in path.iterdir() if file.is_file())]


def _data(images: Path | Images, masks: Path | ImageLabels, size: int, classes: int | None) -> LabeledImages:
    if isinstance(images, Path) and isinstance(masks, Path):
        return read(images, masks, size, classes, MIN_IMAGES)
    found = [str(it) if isinstance(it, Path) else np.shape(it) for it in (images, masks)]
    if isinstance(images, Path) or isinstance(masks, Path) or found[0][:-1] != found[1]:
        expected = "two folders, or arrays (image, *space, channel) and (image, *space)"
        raise DataError(f"images {found[0]}, masks {found[1]}; expected {expected}")
    labels = np.asarray(masks)
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"masks of {labels.dtype}; expected class numbers, whole ones")
    return LabeledImages([str(number) for number in range(len(images))], np.asarray(images), labels)


def _columns(
    label_scores: Mapping[str, LabelScore] | None, custom: Sequence[Part]
) -> tuple[dict[str, LabelScore], dict[str, dict[str, str]]]:
    """The scores by name, and the identities of those that are not built in."""
    known = scores.built_in()
    parts: dict[str, Any] = dict(known if label_scores is None else label_scores)
    for part in custom:
        if (name := _name(part)) in parts:
            raise ConfigError(f"--score {part.name}: there is a score {name} already; expected another name")
        parts[name] = part
    columns = {name: part.value if isinstance(part, Part) else part for name, part in parts.items()}
    for name, one in columns.items():
        if not isinstance(one, LabelScore):
            called = parts[name].name if isinstance(parts[name], Part) else name
            raise ConfigError(f"--score {called}: {type(one).__name__}; expected a LabelScore")
    return columns, {name: as_part(parts[name]).identity for name, one in columns.items() if known.get(name) != one}


def _name(score: str | Part) -> str:
    return score if isinstance(score, str) else score.name.rpartition(":")[2]


def _ranking(given: Sequence[str | Part], known: tuple[str, ...]) -> str:
    """The first score's name, if all are known."""
    for name in map(_name, given):
        if name not in known:
            expected = f"{', '.join(known)} or FILE.py:NAME"
            raise ConfigError(f"--score {name}; expected {expected}{did_you_mean(name, known)}")
    return _name(given[0])


def _rule(threshold: str | float | Threshold | Part) -> Threshold:
    if isinstance(threshold, str | float):
        return thresholds.by_name(str(threshold), "--threshold")
    name, rule = (threshold.name, threshold.value) if isinstance(threshold, Part) else (repr(threshold), threshold)
    if not callable(rule):
        raise ConfigError(f"--threshold {name}: {type(rule).__name__}; expected a function scores → flags")
    return rule


def _check(size: int, epochs: int, classes: int | None, default_network: bool) -> None:
    check_range("--size", size, 16, MAX_SIDE)
    if default_network and size % 2 ** (len(WIDTHS) - 1):
        raise ConfigError(f"--size {size}; expected a multiple of {2 ** (len(WIDTHS) - 1)}, 16 or more")
    check_range("--epochs", epochs, 4, MAX_STEPS)
    if classes is not None:
        check_range("--classes", classes, 2, MAX_CLASSES)


def _flags(rule: Threshold, score: np.ndarray) -> np.ndarray:
    flags = np.asarray(rule(score))
    if flags.shape != score.shape or flags.dtype != bool:
        raise ConfigError(f"threshold gave {flags.dtype} of {flags.shape}; expected bool of {score.shape}")
    return flags


def _empty(labels: np.ndarray) -> str:
    empty = int((~labels.any(axis=tuple(range(1, labels.ndim)))).sum())
    return f"; {empty} masks are empty" if empty else ""


def _orient(score: np.ndarray, trusted: np.ndarray, corrupted: np.ndarray) -> np.ndarray:
    oriented = thresholds.orient(score, trusted, corrupted)
    say(f"trusted set of {len(trusted)} labels: the ranking is {'kept' if oriented is score else 'inverted'}")
    return oriented


def _stage(work: WorkDir, compute: Callable[[Path], dict[str, Any]], columns: Mapping[str, LabelScore]) -> Any:
    """Scores and prediction as a stage of the work directory; a stopped training is resumed."""
    training = work.checkpoints / "training"
    like = {"scores": dict.fromkeys(columns, 0.0), "prediction": 0}
    found = stage(work, "scores", partial(compute, training), like)
    shutil.rmtree(training, ignore_errors=True)  # the maps of VOG are large
    return found


def _dynamics(
    data: LabeledImages,
    classes: int,
    epochs: int,
    seed: int,
    model: Network,
    columns: dict[str, LabelScore],
    mesh: Mesh | None,
    checkpoints: Path | None,
) -> dict[str, Any]:
    """Scores and the network's prediction at the end of early learning."""
    batch = min(BATCH, len(data.images))
    an_epoch = len(data.images) // batch
    every = max(epochs // 8, 1) * an_epoch
    settings = TrainingSettings(classes, 8e-3, batch, epochs * an_epoch, every, epochs * an_epoch // 2)
    keywords: dict[str, Any] = {"checkpoints": checkpoints, "mesh": mesh}
    snapshots = training_dynamics(seed, model, data.images, data.labels, settings, columns, **keywords)
    for snapshot in track(snapshots, "training"):
        if snapshot.memorization:
            return {
                "scores": scores.evaluate(columns, snapshot.states, data.labels),
                "prediction": predict(model, snapshot.state.ema_params, data.images),
            }
    raise DataError("training ended before early learning did")
