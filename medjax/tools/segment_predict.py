"""What `medjax segment predict` does: the networks of a model's folder label NIfTI files.

Images in memory need no files: `segment_model.load_model`, then `segmentation.nnunet_predict.predict_case`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax.atomic import replacing
from medjax.errors import ConfigError
from medjax.io.nifti import write_nifti
from medjax.io.nnunet_raw import cases_of, read_scan
from medjax.running.progress import track
from medjax.segmentation.nnunet_predict import predict_case
from medjax.tools.checks import as_paths
from medjax.tools.segment_model import Given, load_model, naming


class Predicted(NamedTuple):
    """What was labelled."""

    cases: list[str]
    networks: int  # that were averaged
    keep: dict[int, int] | None  # components that were kept of each class
    folder: Path  # CASE.nii.gz, and CASE.npz with `probabilities`


def predict(
    model: Path | str,
    images: Path | str,
    output: Path | str,
    *,
    folds: Sequence[int] | None = None,
    mirror: bool = True,
    keep: Mapping[str, int | str] | None = None,
    probabilities: bool = False,
    best: bool = False,
    network: Given | None = None,
) -> Predicted:
    """Labels of every case of a folder, CASE_0000 … for the channels, as `output`/CASE with the image's affine.

    Args:
        keep: how many components of which class, by its name or number; {} keeps all; default: as the folds determined.
        network: the network that the model was trained with, where it is none that comes with medjax; what a command
            was given as FILE.py:NAME is `medjax.running.parts.load_part("FILE.py:NAME")`.

    Raises:
        ConfigError, DataError, WorkdirError: something given cannot be used.
    """
    model, images, output = as_paths(model, images, output)
    trained = load_model(model, folds=folds, best=best, network=network)
    pieces = trained.keep if keep is None else _pieces(keep, trained.labels)
    cases = cases_of(images, len(trained.plan.channels), trained.ending)
    axes = (0, 1, 2) if mirror else ()
    output.mkdir(parents=True, exist_ok=True)
    for files in track(cases, "predicting"):
        scan = read_scan(files, trained.plan.classes)
        with naming(files.images[0]):
            prediction = predict_case(
                trained.network, trained.params, scan.image, scan.spacing, trained.plan, mirror=axes, keep=pieces
            )
        write_nifti(output / f"{files.name}{trained.ending}", prediction.labels, scan.affine)
        if probabilities:
            with replacing(output / f"{files.name}.npz") as file:
                np.savez_compressed(file, probabilities=prediction.probabilities)
    return Predicted([files.name for files in cases], len(trained.params), pieces or None, output)


def _pieces(keep: Mapping[str, int | str], labels: Mapping[str, int]) -> dict[int, int]:
    """Components to keep by class number."""
    known = {**{str(number): number for number in labels.values()}, **labels}
    for name, count in keep.items():
        if known.get(name, 0) == 0 or not str(count).isdecimal() or int(count) < 1:
            expected = f"CLASS=N with one of {', '.join(list(labels)[1:])}, or none"
            raise ConfigError(f"--keep {name}={count}; expected {expected}")
    return {known[name]: int(count) for name, count in keep.items()}
