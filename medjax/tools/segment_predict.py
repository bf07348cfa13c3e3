"""Segmentation of NIfTI files with a trained model, as in `medjax segment predict`.

Images in memory need no files: `segment_model.load_model`, then `segmentation.nnunet_predict.predict_case`.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from medjax import __version__
from medjax.atomic import replacing
from medjax.errors import ConfigError, DataError
from medjax.io.digest import content_digest
from medjax.io.files import read_text, real_path
from medjax.io.nifti import read_nifti
from medjax.io.nnunet_labels import Structure, structure_text
from medjax.io.nnunet_raw import CaseFiles, list_cases, read_scan, write_label_nifti
from medjax.segmentation.laterality import lateral_labels, left_right_axes, orientation, same_orientation
from medjax.segmentation.nnunet_predict import predict_case
from medjax.tools.checks import as_paths, check_no_overwrite
from medjax.tools.segment_model import NetworkSource, TrainedModel, load_model, prefix_errors
from medjax.tools.segment_outputs import RECORD, publish


class Predictions(NamedTuple):
    """Predicted label images of a folder of cases."""

    cases: list[str]
    new: list[str]  # those of the cases that were not there already
    networks: int  # number of networks of the ensemble
    keep: dict[Structure, int] | None  # postprocessing: components kept of each class or region
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

    They are unsigned integers of the smallest type that holds all classes. A stopped run goes on where it was, and all
    cases are published together at its end; those that are there already, by their contents, are not computed again.

    Args:
        model: folder that `segment_train.train` wrote.
        images: folder of CASE_0000.nii.gz …, a file for each channel.
        output: folder of CASE.nii.gz.
        folds: networks of the ensemble; default: all.
        mirror: test-time mirroring along the axes that training mirrored.
        keep: number of largest components to keep of a class, by its name or number; {} keeps all; default: as
            determined by cross-validation.
        probabilities: also write CASE.npz, classes last.
        best: parameters of the best average pseudo-Dice instead of the final ones.
        network: the user's network that the model was trained with; of FILE.py:NAME it is
            `medjax.running.parts.load_part("FILE.py:NAME")`.

    Raises:
        ConfigError, DataError, WorkdirError: an option, the images or the model cannot be used; an output would take
            the place of an image, of a reference label or of the model; another process writes there.
    """
    model, images, output = as_paths(model, images, output)
    trained = load_model(model, folds=folds, best=best, network=network)
    components = trained.keep if keep is None else _components(keep, trained.labels)
    axes = trained.plan.mirror if mirror else ()
    cases = {files.name: files for files in list_cases(images, len(trained.plan.channels), trained.ending)}
    endings = (trained.ending, ".npz") if probabilities else (trained.ending,)
    names = {case: [f"{case}{ending}" for ending in endings] for case in cases}
    _check_outputs(output, names, model, images, cases.values())

    def write(case: str, folder: Path) -> None:
        scan = read_scan(cases[case], trained.plan.classes)
        with prefix_errors(cases[case].images[0]):
            prediction = predict_case(
                trained.network, trained.params, scan.image, scan.spacing, trained.plan, mirror=axes, keep=components
            )
        if probabilities:
            with replacing(folder / f"{case}.npz") as file:
                np.savez_compressed(file, probabilities=prediction.probabilities)
        write_label_nifti(folder / names[case][0], prediction.labels, scan.affine, trained.plan.classes)

    kept = None if components is None else {structure_text(one): count for one, count in components.items()}
    of_model = _model_digest(model, trained, [kept, axes, probabilities])
    sources = {case: _digest(of_model, content_digest(files.images)) for case, files in cases.items()}
    new = publish(output, sources, names, write)
    _warn_of_findings(output, {case: output / names[case][0] for case in cases}, trained)
    return Predictions(list(cases), new, len(trained.params), components or None, output)


def _warn_of_findings(output: Path, labels: Mapping[str, Path], trained: TrainedModel) -> None:
    """Say which cases may be wrong, by their label images, whichever run has computed them."""
    cases = dict[str, list[str]]()
    for case, file in labels.items():
        image = read_nifti(file)  # on the grid of the case's own image
        empty = [] if image.array.any() else ["no structure was found"]
        for what in (*empty, *orientation_findings(image.affine, trained)):
            cases.setdefault(what, []).append(case)
    for what, found in cases.items():
        listed = f"{', '.join(found[:4])}{', …' if len(found) > 4 else ''}"
        warnings.warn(f"{output}: {what}: {len(found)} of {len(labels)} cases, {listed}", stacklevel=3)


def orientation_findings(affine: Float[np.ndarray, "4 4"], trained: TrainedModel) -> list[str]:
    """What may be wrong with labels of an image for how it is oriented: otherwise than the training cases, or sides."""
    known, mirror = trained.plan.orientations, trained.plan.mirror
    own, lateral = orientation(affine), lateral_labels(list(trained.labels))
    out = list[str]()
    if known and not any(same_orientation(own, one, mirror) for one in known):
        out.append(f"another orientation than {' and '.join(known)}, that of the training cases")
    if lateral and set(left_right_axes(affine)) & set(mirror):
        out.append(f"{' and '.join(lateral[:2])} may be exchanged, for training mirrored left and right")
    return out


def _check_outputs(
    output: Path, names: Mapping[str, Sequence[str]], model: Path, images: Path, cases: Iterable[CaseFiles]
) -> None:
    """Check that predictions replace no image, no label of the data set that the images are of, and no file of a model.

    Raises:
        DataError: one would.
    """
    if real_path(output) == real_path(images):
        raise DataError(f"{output}: is the folder of the images; expected another one for the predictions")
    folds = [real_path(path) for path in model.glob("fold_*")]
    if any(real_path(output).is_relative_to(fold) for fold in folds):
        raise DataError(f"{output}: is in a fold of the model; expected another folder for the predictions")
    inputs = [path for one in cases for path in one.images]
    inputs += [model / name for name in ("plan.json", "dataset.json", "keep.json")]
    inputs += [path for fold in folds for path in fold.rglob("*") if path.is_file()]
    for folder in (images.parent / name for name in ("labelsTr", "labelsTs")):
        inputs += [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    check_no_overwrite([*(output / name for each in names.values() for name in each), output / RECORD], inputs)


def _model_digest(folder: Path, trained: TrainedModel, options: Any) -> str:
    """What predictions depend on but for the image: version, plan, network, labels, parameters and options."""
    plan = read_text(folder / "plan.json", "a plan")
    digest = hashlib.sha256(json.dumps([__version__, plan, trained.labels, options]).encode())
    for leaf in jax.tree.leaves(trained.params):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode(errors="surrogateescape")).hexdigest()


def _components(keep: Mapping[str, int | str], labels: Mapping[str, Structure]) -> dict[Structure, int]:
    """Components to keep by class number, or by region."""
    known = {**{structure_text(one): one for one in labels.values()}, **labels}
    for name, count in keep.items():
        if known.get(name, 0) == 0 or not str(count).isdecimal() or int(count) < 1:
            expected = f"CLASS=N with one of {', '.join(list(labels)[1:])}, or none"
            raise ConfigError(f"--keep {name}={count}; expected {expected}")
    return {known[name]: int(count) for name, count in keep.items()}
