"""Segmentation of NIfTI files with a trained model, as in `medjax segment predict`.

Images in memory need no files: `segment_model.load_model`, then `segmentation.nnunet_predict.predict_case`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax.atomic import replacing
from medjax.errors import ConfigError
from medjax.io.nifti import write_nifti
from medjax.io.nnunet_raw import list_cases, read_scan
from medjax.running.progress import track
from medjax.segmentation.nnunet_predict import predict_case
from medjax.tools.checks import as_paths
from medjax.tools.segment_model import NetworkSource, load_model, prefix_errors


class Predictions(NamedTuple):
    """Predicted label images of a folder of cases."""

    cases: list[str]
    networks: int  # number of networks of the ensemble
    keep: dict[int, int] | None  # postprocessing: components kept of each class
    folder: Path  # folder of CASE.nii.gz, and CASE.npz with `probabilities`


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
    network: NetworkSource | None = None,
) -> Predictions:
    """Predicted labels of every case of a folder, written as `output`/CASE with the image's affine.

    Args:
        model: folder that `segment_train.train` wrote.
        images: folder of CASE_0000.nii.gz …, a file for each channel.
        output: folder of CASE.nii.gz.
        folds: networks of the ensemble; default: all.
        mirror: test-time mirroring along all axes.
        keep: number of largest components to keep of a class, by its name or number; {} keeps all; default: as
            determined by cross-validation.
        probabilities: also write CASE.npz, classes last.
        best: parameters of the best average pseudo-Dice instead of the final ones.
        network: the user's network that the model was trained with; of FILE.py:NAME it is
            `medjax.running.parts.load_part("FILE.py:NAME")`.

    Raises:
        ConfigError, DataError, WorkdirError: an option, the images or the model cannot be used.
    """
    model, images, output = as_paths(model, images, output)
    trained = load_model(model, folds=folds, best=best, network=network)
    components = trained.keep if keep is None else _components(keep, trained.labels)
    cases = list_cases(images, len(trained.plan.channels), trained.ending)
    axes = (0, 1, 2) if mirror else ()
    output.mkdir(parents=True, exist_ok=True)
    for files in track(cases, "predicting"):
        scan = read_scan(files, trained.plan.classes)
        with prefix_errors(files.images[0]):
            prediction = predict_case(
                trained.network, trained.params, scan.image, scan.spacing, trained.plan, mirror=axes, keep=components
            )
        write_nifti(output / f"{files.name}{trained.ending}", prediction.labels, scan.affine)
        if probabilities:
            with replacing(output / f"{files.name}.npz") as file:
                np.savez_compressed(file, probabilities=prediction.probabilities)
    return Predictions([files.name for files in cases], len(trained.params), components or None, output)


def _components(keep: Mapping[str, int | str], labels: Mapping[str, int]) -> dict[int, int]:
    """Components to keep by class number."""
    known = {**{str(number): number for number in labels.values()}, **labels}
    for name, count in keep.items():
        if known.get(name, 0) == 0 or not str(count).isdecimal() or int(count) < 1:
            expected = f"CLASS=N with one of {', '.join(list(labels)[1:])}, or none"
            raise ConfigError(f"--keep {name}={count}; expected {expected}")
    return {known[name]: int(count) for name, count in keep.items()}
