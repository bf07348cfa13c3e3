"""`medjax segment`: train a segmentation and predict with it; `flips`: the right region under the wrong name."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from medjax.errors import ConfigError, DataError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train segmentation, predict, find what went wrong.")

ENDINGS = (".nii.gz", ".nii", ".png")
SCORE_ENDINGS = (".nii.gz", ".nii", ".npy", ".npz")
TINY = 1e-30  # below which a probability's logarithm is not taken

Predicted = Annotated[
    Path, typer.Argument(metavar="PRED", help="Label image, or a folder of them: NIfTI or PNG.", show_default=False)
]
Truth = Annotated[
    Path, typer.Argument(metavar="GT", help="Ground truth: the same, under the same names.", show_default=False)
]
Logits = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|DIR", help="The network's outputs, for flip-risk: .npy, .npz or 4-D NIfTI, classes last."
    ),
]
Probabilities = Annotated[Path | None, typer.Option(metavar="FILE|DIR", help="Its softmax instead.")]
Groups = Annotated[
    Path | None,
    typer.Option(metavar="CSV", help="Columns image (name without ending) and group; 2·class + scene gives gaps."),
]
Labels = Annotated[
    str | None,
    typer.Option(metavar="B,L,L…", help="All label values, background first.", show_default="0 and those in GT"),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="CSV", help="One row an image.")]

# Of train and predict
Dataset = Annotated[
    Path,
    typer.Argument(metavar="DATASET", help="Folder in nnU-Net v2's raw layout: dataset.json, …", show_default=False),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that `train` wrote.", show_default=False)]
Images = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Folder of CASE_0000.nii.gz, …, as imagesTs.", show_default=False)
]
OutputDir = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.", show_default=False)]
Patch = Annotated[str | None, typer.Option(metavar="X,Y,Z", help="Voxels of a patch, overruling the plan.")]
Folds = Annotated[str | None, typer.Option(metavar="K,K…", help="Networks to average.", show_default="all there are")]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS=N", help="Largest components to keep of a structure, or none.", show_default="as validation says"
    ),
]


class Cases(NamedTuple):
    """Image by image: counts of true (row) and predicted classes, and flip-risk where there are logits."""

    names: list[str]
    confusion: np.ndarray  # (image, true, predicted)
    risk: np.ndarray  # NaN without logits


@app.callback()
def _segment() -> None:
    pass


@app.command("flips")
def flips_command(
    pred: Predicted,
    gt: Truth,
    logits: Logits = None,
    probabilities: Probabilities = None,
    groups: Groups = None,
    labels: Labels = None,
    output: Output = Path("flips.csv"),
) -> None:
    """Split the true foreground into correct, flipped to another class, and missed to background.

    medjax segment flips predictions/ truth/ --logits logits/ --groups groups.csv -o flips.csv

    Flip-risk is the entropy of the foreground classes' probabilities alone, averaged over what is predicted as
    foreground: 0 where the name is sure, 1 where it is a guess. It needs no truth.
    """
    if logits is not None and probabilities is not None:
        raise ConfigError("--logits and --probabilities: expected one of them")
    from medjax.running.environment import prepare_process

    prepare_process()
    known = _named_labels(labels)
    group_of = {} if groups is None else _read_groups(groups)
    pairs = _pairs(pred, gt)
    if known is None:
        known = sorted({0}.union(*(np.unique(_read_labels(truth)[0]).tolist() for _, truth in pairs.values())))
    cases = _cases(pairs, known, probabilities or logits, probabilities is not None)
    _write(output, cases, group_of)
    _say(cases, group_of)
    typer.echo(f"\nwrote {output}")


@app.command("train")
def train_command(
    dataset: Dataset,
    output: OutputDir,
    fold: Annotated[str, typer.Option(help="0 to 4, or all, one after the other.")] = "all",
    epochs: Annotated[int, typer.Option(help="Of each fold.", min=1)] = 1000,
    iterations: Annotated[int, typer.Option(help="Steps in an epoch.", min=1)] = 250,
    rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = 0.01,
    base_width: Annotated[int, typer.Option(help="Channels of the finest level.", min=1)] = 32,
    memory_gb: Annotated[float, typer.Option(help="Accelerator memory to plan for.")] = 8.0,
    patch: Patch = None,
    seed: Annotated[int, typer.Option(help="Of folds, networks and patches.", min=0)] = 0,
) -> None:
    """Train nnU-Net's 3-D U-Net: plan from the data, five folds, each case validated by the fold that did not see it.

    medjax segment train Dataset004_Hippocampus -o model --fold 0

    The same command continues a run that was stopped. For a try on a CPU: --base-width 8 --memory-gb 1
    --patch 32,32,16 --epochs 40 --iterations 25.
    """
    from medjax.running.environment import prepare_process
    from medjax.tools.segment_train import train

    prepare_process()
    train(dataset, output, fold, epochs, iterations, rate, base_width, memory_gb, patch, seed)


@app.command("predict")
def predict_command(
    model: Model,
    images: Images,
    output: OutputDir,
    folds: Folds = None,
    mirror: Annotated[bool, typer.Option(help="Average over all mirrored images: 8 times the work.")] = True,
    keep: Keep = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also CASE.npz, classes last.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The best average pseudo-Dice, not the last epoch.")] = False,
) -> None:
    """Label every image of a folder with the networks of a model; NIfTI on the images' own grids.

    medjax segment predict model Dataset004_Hippocampus/imagesTs -o predicted --keep Anterior=1
    """
    from medjax.running.environment import prepare_process
    from medjax.tools.segment_predict import predict

    prepare_process()
    predict(model, images, output, folds, mirror, keep or [], probabilities, best)


def _cases(pairs: Mapping[str, tuple[Path, Path]], known: list[int], scores: Path | None, softmax: bool) -> Cases:
    import jax.numpy as jnp

    from medjax.metrics.overlap import confusion_matrix
    from medjax.shortcuts.flips import flip_risk

    files = None if scores is None else _files(scores, SCORE_ENDINGS)
    counts: list[np.ndarray] = []
    risks: list[float] = []
    for name, (pred, gt) in pairs.items():
        (predicted, place), (truth, true_place) = _read_classes(pred, known), _read_classes(gt, known)
        if predicted.shape != truth.shape:
            raise DataError(f"{pred}: shape {predicted.shape}; expected that of {gt}, {truth.shape}")
        if place is not None and true_place is not None and not np.allclose(place, true_place, rtol=0, atol=1e-2):
            raise DataError(f"{pred}: another affine than {gt}; expected labels on one grid")
        counts.append(np.asarray(confusion_matrix(predicted, truth, len(known))))
        if files is not None:
            values = _read_scores(_only(files, name, scores, len(pairs)), (*truth.shape, len(known)), softmax)
            risks.append(float(flip_risk(jnp.asarray(values)[None])[0]))
    confusion = np.stack(counts)
    if not confusion[:, 1:].any():
        raise DataError(
            f"{next(iter(pairs.values()))[1]}: no foreground in the ground truth, nothing to take shares of"
        )
    for name in np.array(list(pairs))[~confusion[:, 1:].any(axis=(1, 2))]:
        typer.echo(f"medjax: {name}: no foreground in its ground truth; left out of the means", err=True)
    return Cases(list(pairs), confusion, np.array(risks or [np.nan] * len(pairs)))


def _say(cases: Cases, group_of: Mapping[str, str]) -> None:
    """The decomposition over all pixels, over all images, and by group; gaps; deciles of flip-risk."""
    from medjax.report.html import Table
    from medjax.report.terminal import print_table
    from medjax.shortcuts import flips

    group = np.array([group_of.get(name, "") for name in cases.names])
    chosen = {
        "all pixels": flips.decompose(cases.confusion.sum(0)),
        "mean of images": flips.image_mean(cases.confusion),
    }
    for one in sorted(set(group) - {""}):
        chosen[f"group {one}"] = flips.decompose(cases.confusion[group == one].sum(0))
    rows = [[name, *(float(value) for value in shares)] for name, shares in chosen.items()]
    print_table(Table(["true foreground", "correct", "flip", "miss"], rows))
    classes = cases.confusion.shape[-1] - 1
    if set(group) == {str(number) for number in range(2 * classes)}:
        gaps = flips.gaps(flips.by_group(cases.confusion, group.astype(int), 2 * classes))
        said = ", ".join(f"class {kind} {float(gap):.4f}" for kind, gap in enumerate(gaps))
        typer.echo(f"\nIoU, common minus rare group: {said}")
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
    from medjax.atomic import write_csv
    from medjax.shortcuts.flips import decompose

    shares = decompose(cases.confusion)
    rows: list[list[Any]] = []
    for k, name in enumerate(cases.names):
        values = [*(float(share[k]) for share in shares), float(cases.risk[k])]
        said = ["" if np.isnan(value) else f"{value:.6f}" for value in values]
        rows.append([name, group_of.get(name, ""), int(cases.confusion[k, 1:].sum()), *said])
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


def _named_labels(text: str | None) -> list[int] | None:
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
