"""Label flips of segmentations read from files: the right region under the wrong name.

What `medjax shortcuts flips` does: `label_flips` compares label images with their ground truth, prints the fractions of
the true foreground that are correct, flipped to another class and missed, and writes one row an image.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import typer
from jaxtyping import Float, Int

from medjax.atomic import write_csv
from medjax.errors import ConfigError, DataError
from medjax.metrics.overlap import confusion_matrix
from medjax.report.html import Table
from medjax.report.terminal import print_table
from medjax.shortcuts import flips

ENDINGS = (".nii.gz", ".nii", ".png")
SCORE_ENDINGS = (".nii.gz", ".nii", ".npy", ".npz")
TINY = 1e-30  # below which a probability's logarithm is not taken


class Cases(NamedTuple):
    """Image by image: counts of true (row) and predicted classes, and flip-risk where there are logits."""

    names: list[str]
    confusion: Int[np.ndarray, "image true predicted"]
    risk: Float[np.ndarray, " image"]  # NaN without logits


def label_flips(
    pred: Path,
    gt: Path,
    output: Path,
    logits: Path | None = None,
    probabilities: Path | None = None,
    groups: Path | None = None,
    labels: str | None = None,
) -> Cases:
    """Compare label images with their ground truth, print the decomposition and write one row an image to `output`.

    Raises:
        ConfigError: logits and probabilities are both given, or `labels` is no list of different whole numbers.
        DataError: files that are missing, unreadable, of different grids or names, or without any true foreground.
    """
    if logits is not None and probabilities is not None:
        raise ConfigError("--logits and --probabilities: expected one of them")
    known = parse_labels(labels)
    group_of = {} if groups is None else _read_groups(groups)
    pairs = _pairs(pred, gt)
    if known is None:
        known = sorted({0}.union(*(np.unique(_read_labels(truth)[0]).tolist() for _, truth in pairs.values())))
    cases = compare(pairs, known, probabilities or logits, probabilities is not None)
    _write(output, cases, group_of)
    _print(cases, group_of)
    typer.echo(f"\nwrote {output}")
    return cases


def compare(
    pairs: Mapping[str, tuple[Path, Path]], known: list[int], scores: Path | None, probabilities: bool
) -> Cases:
    """The confusion of each pair (prediction, truth) among the label values `known`, and flip-risk of its scores.

    Raises:
        DataError: a file that does not fit its pair, or no foreground in any truth.
    """
    files = None if scores is None else _files(scores, SCORE_ENDINGS)
    counts: list[np.ndarray] = []
    risks: list[float] = []
    for name, (pred, gt) in pairs.items():
        (predicted, affine), (truth, true_affine) = _read_classes(pred, known), _read_classes(gt, known)
        if predicted.shape != truth.shape:
            raise DataError(f"{pred}: shape {predicted.shape}; expected that of {gt}, {truth.shape}")
        if affine is not None and true_affine is not None and not np.allclose(affine, true_affine, rtol=0, atol=1e-2):
            raise DataError(f"{pred}: another affine than {gt}; expected labels on one grid")
        counts.append(np.asarray(confusion_matrix(predicted, truth, len(known))))
        if files is not None:
            values = _read_scores(_only(files, name, scores, len(pairs)), (*truth.shape, len(known)), probabilities)
            risks.append(float(flips.flip_risk(jnp.asarray(values)[None])[0]))
    confusion = np.stack(counts)
    if not confusion[:, 1:].any():
        raise DataError(
            f"{next(iter(pairs.values()))[1]}: no foreground in the ground truth, nothing to take shares of"
        )
    for name in np.array(list(pairs))[~confusion[:, 1:].any(axis=(1, 2))]:
        typer.echo(f"medjax: {name}: no foreground in its ground truth; left out of the means", err=True)
    return Cases(list(pairs), confusion, np.array(risks or [np.nan] * len(pairs)))


def _print(cases: Cases, group_of: Mapping[str, str]) -> None:
    """The decomposition over all pixels, over all images, and by group; gaps; deciles of flip-risk."""
    group = np.array([group_of.get(name, "") for name in cases.names])
    chosen = {
        "all pixels": flips.decompose(cases.confusion.sum(0)),
        "mean of images": flips.image_mean(cases.confusion),
    }
    for one in sorted(set(group) - {""}):
        chosen[f"group {one}"] = flips.decompose(cases.confusion[group == one].sum(0))
    rows = [[name, *(float(value) for value in fractions)] for name, fractions in chosen.items()]
    print_table(Table(["true foreground", "correct", "flip", "miss"], rows))
    classes = cases.confusion.shape[-1] - 1
    if set(group) == {str(number) for number in range(2 * classes)}:
        gaps = flips.gaps(flips.by_group(cases.confusion, group.astype(int), 2 * classes))
        text = ", ".join(f"class {kind} {float(gap):.4f}" for kind, gap in enumerate(gaps))
        typer.echo(f"\nIoU, common minus rare group: {text}")
    flip = np.asarray(flips.decompose(cases.confusion).flip)
    known = np.isfinite(cases.risk) & np.isfinite(flip)
    if known.sum() >= 10:
        bins = flips.deciles(cases.risk, flip)
        typer.echo("")
        print_table(
            Table(["decile of flip-risk", "risk", "flip"], [*zip(range(1, 11), bins.risk, bins.flip, strict=True)])
        )
        typer.echo(f"\n{bins.top_share:.1%} of all flips are in the last decile")


def _write(output: Path, cases: Cases, group_of: Mapping[str, str]) -> None:
    fractions = flips.decompose(cases.confusion)
    rows: list[list[Any]] = []
    for k, name in enumerate(cases.names):
        values = [*(float(fraction[k]) for fraction in fractions), float(cases.risk[k])]
        cells = ["" if np.isnan(value) else f"{value:.6f}" for value in values]
        rows.append([name, group_of.get(name, ""), int(cases.confusion[k, 1:].sum()), *cells])
    write_csv(output, ["image", "group", "foreground", "correct", "flip", "miss", "flip_risk"], rows)


def _pairs(pred: Path, gt: Path) -> dict[str, tuple[Path, Path]]:
    """Name → (prediction, truth). Two single files are a pair whatever their names."""
    predicted, true = _files(pred, ENDINGS), _files(gt, ENDINGS)
    if pred.is_file() and gt.is_file():
        return {next(iter(true)): (next(iter(predicted.values())), next(iter(true.values())))}
    if odd := sorted(predicted.keys() ^ true.keys()):
        where = (gt, pred) if odd[0] in predicted else (pred, gt)
        raise DataError(f"{where[0]}: no {odd[0]}, which {where[1]} has; expected the same names in both")
    return {name: (predicted[name], true[name]) for name in sorted(true)}


def _files(path: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Name without ending → file, of a file or a folder."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        ending = next((one for one in endings if file.name.endswith(one)), None)
        if ending is None:
            continue
        if (name := file.name.removesuffix(ending)) in found:
            raise DataError(f"{path}: two files named {name}; expected one")
        found[name] = file
    if not found:
        raise DataError(f"{path}: no file that ends in {', '.join(endings)}")
    return found


def _only(files: Mapping[str, Path], name: str, folder: Path | None, count: int) -> Path:
    if count == 1 and len(files) == 1:
        return next(iter(files.values()))
    if name not in files:
        raise DataError(f"{folder}: nothing named {name}; expected one file for each image")
    return files[name]


def parse_labels(text: str | None) -> list[int] | None:
    """The label values of `0,85,170`, background first; None for None.

    Raises:
        ConfigError: fewer than two, repeated, or no whole numbers.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) < 2 or not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise ConfigError(f"--labels {text}; expected different whole numbers, background first, as in --labels 0,1,2")
    return [int(part) for part in parts]


def _read_classes(path: Path, known: list[int]) -> tuple[np.ndarray, np.ndarray | None]:
    """The image with its label values as classes 0, 1, …, in the order of `known`; its affine, if it has one."""
    image, affine = _read_labels(path)
    if odd := sorted(set(np.unique(image).tolist()) - set(known)):
        raise DataError(f"{path}: label {odd[0]}; expected {', '.join(map(str, known))}, or name all with --labels")
    order = np.argsort(known)
    return order[np.searchsorted(np.asarray(known)[order], image)].astype(np.int32), affine


def _read_labels(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    from medjax.io.pictures import read_picture

    try:
        image, affine = read_picture(path)
    except ImportError as error:
        raise DataError(f"{path}: PNG needs pillow; install medjax[data], or use NIfTI") from error
    if not np.array_equal(image, np.floor(image)) or image.min(initial=0) < 0:
        raise DataError(f"{path}: values that are no labels; expected whole numbers from 0")
    return image.astype(np.int64), affine


def _read_scores(path: Path, shape: tuple[int, ...], softmax: bool) -> np.ndarray:
    """Logits of an image, or logarithms of its probabilities, whose softmax they are."""
    values = _read_array(path)
    if [side for side in values.shape if side != 1] == [side for side in shape if side != 1]:
        values = values.reshape(shape)  # a slice is a volume of one
    if values.shape != shape:
        raise DataError(f"{path}: shape {values.shape}; expected {shape}, the image's with a value for each label")
    if not np.isfinite(values).all() or (softmax and not (values.min() >= 0 and values.max() <= 1 + 1e-3)):
        raise DataError(f"{path}: values that are no {'probabilities' if softmax else 'logits'}; expected finite ones")
    return (np.log(np.maximum(values, TINY)) if softmax else values).astype(np.float32)


def _read_array(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            return np.load(path)
        if path.suffix == ".npz":
            with np.load(path) as file:
                (name,) = file.files
                return file[name]
        import nibabel

        image: Any = nibabel.load(path)
        return np.asarray(image.get_fdata(dtype=np.float32))
    except Exception as error:  # a damaged file can fail anywhere inside NumPy or nibabel
        raise DataError(f"{path}: cannot be read as one array of scores") from error


def _read_groups(file: Path) -> dict[str, str]:
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected a CSV with columns image, group")
    with file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    if not rows or not {"image", "group"} <= rows[0].keys():
        raise DataError(f"{file}: {len(rows)} rows; expected a CSV with columns image, group")
    return {row["image"]: row["group"] for row in rows}
