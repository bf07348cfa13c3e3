"""What `medjax segment predict` does: the networks of a model's folder label NIfTI files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import typer

from medjax.atomic import replacing
from medjax.errors import ConfigError, DataError
from medjax.io.nifti import write_nifti
from medjax.io.nnunet_raw import cases_of, read_scan
from medjax.running.progress import track
from medjax.segmentation.nnunet_predict import predict_case
from medjax.tools.segment_model import default_model, naming, read_json, read_model, read_params


def predict(
    model: Path,
    images: Path,
    output: Path,
    which: str | None,
    mirror: bool,
    keep: Sequence[str],
    probabilities: bool,
    best: bool,
) -> None:
    """Labels of every case of a folder, CASE_0000 … for the channels, as `output`/CASE with the image's affine.

    Raises:
        ConfigError, DataError: something given cannot be used.
    """
    design, description = read_model(model)
    network = default_model(design)
    params = [read_params(model, name, network, design, best) for name in _trained_folds(model, which)]
    pieces = _keep(model, keep, description["labels"])
    cases = cases_of(images, len(design.channels), description["file_ending"])
    output.mkdir(parents=True, exist_ok=True)
    for files in track(cases, "predicting"):
        scan = read_scan(files, design.classes)
        axes = (0, 1, 2) if mirror else ()
        with naming(files.images[0]):
            prediction = predict_case(network, params, scan.image, scan.spacing, design, mirror=axes, keep=pieces)
        write_nifti(output / f"{files.name}{description['file_ending']}", prediction.labels, scan.affine)
        if probabilities:
            with replacing(output / f"{files.name}.npz") as file:
                np.savez_compressed(file, probabilities=prediction.probabilities)
    kept = f", {pieces} components kept" if pieces else ""
    typer.echo(f"{len(cases)} cases by {len(params)} networks{kept}; wrote {output}")


def _trained_folds(model: Path, which: str | None) -> list[str]:
    there = sorted(path.parent.name for path in model.glob("fold_*/params.npz"))
    wanted = there if which is None else [f"fold_{part.strip()}" for part in which.split(",")]
    if twice := [name for name in wanted if wanted.count(name) > 1]:
        raise ConfigError(f"--folds {which}: {twice[0]} more than once; expected every fold once")
    if absent := sorted(set(wanted) - set(there)):
        raise ConfigError(f"--folds {which}: {absent[0]} is not there; expected some of {', '.join(there) or 'none'}")
    if not wanted:
        raise DataError(f"{model}: no fold_0/params.npz, …; expected a model that was trained to the end")
    return wanted


def _keep(model: Path, given: Sequence[str], labels: Mapping[str, int]) -> dict[int, int] | None:
    """CLASS=N by name or number; without any, what the folds determined."""
    if not given:
        file = model / "keep.json"
        return {int(k): count for k, count in read_json(file).items()} if file.is_file() else None
    known = {**{str(number): number for number in labels.values()}, **labels}
    pieces = dict[int, int]()
    for text in given:
        name, _, count = text.partition("=")
        if text == "none":
            return None
        if known.get(name, 0) == 0 or not count.isdecimal() or int(count) < 1:
            raise ConfigError(f"--keep {text}; expected CLASS=N with one of {', '.join(list(labels)[1:])}, or none")
        pieces[known[name]] = int(count)
    return pieces
