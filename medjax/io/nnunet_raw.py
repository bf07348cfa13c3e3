"""nnU-Net v2's raw data set format: reading and writing.

    DIR/dataset.json                     channel_names, labels (see `nnunet_labels`), numTraining, file_ending
    DIR/imagesTr/CASE_0000.nii.gz        one file a channel: _0000, _0001, …
    DIR/labelsTr/CASE.nii.gz             class numbers
    DIR/imagesTs/CASE_0000.nii.gz        may be absent

    data = read_dataset(folder)          names and files, checked; no voxels yet
    for case in data.training:
        scan = read_scan(case, data.label_values)   .image (x, y, z, channel), .labels, .spacing in mm, .affine

Channels named after a normalisation that medjax lacks are refused: "CT" is scaled as CT, any other name by z-score.

Source: nnU-Net v2's documentation, dataset_format.md.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.atomic import write_text
from medjax.errors import DataError
from medjax.io.files import read_json_object
from medjax.io.grids import check_same_grid
from medjax.io.label_images import as_labels
from medjax.io.nifti import read_nifti, voxel_mm, write_nifti
from medjax.io.nifti_file import SUFFIXES
from medjax.io.nnunet_labels import DatasetLabels, Structure, parse_labels

UNSUPPORTED_CHANNELS = (
    "noNorm",
    "rescale_to_0_1",
    "rgb_to_0_1",
)  # channel names without z-scores


class CaseFiles(NamedTuple):
    """The files of a case: one image a channel, and its labels."""

    name: str
    images: tuple[Path, ...]  # one a channel
    labels: Path | None


@dataclass(frozen=True)
class RawDataset:
    """A raw nnU-Net data set: channels, labels, and the files of its training and test cases."""

    folder: Path
    channels: tuple[str, ...]  # names of the channels
    naming: DatasetLabels
    ending: str  # file name ending of images
    training: tuple[CaseFiles, ...]
    test: tuple[CaseFiles, ...]

    @property
    def labels(self) -> dict[str, Structure]:
        """Class number of each name, background 0, or those of a region."""
        return self.naming.structures

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return self.naming.classes

    @property
    def label_values(self) -> int:
        """Number of values in label images: classes, and that of ignored voxels."""
        return self.classes + (self.naming.ignore is not None)


class Scan(NamedTuple):
    """A case in memory: image with channels, labels, voxel size and affine."""

    name: str
    image: Float[np.ndarray, "x y z channel"]
    labels: Int[np.ndarray, "x y z"] | None
    spacing: tuple[float, float, float]  # mm
    affine: Float[np.ndarray, "4 4"]


def read_dataset(folder: Path) -> RawDataset:
    """Read dataset.json and list the files of a raw nnU-Net data set.

    Raises:
        DataError: no or wrong dataset.json, a channel that nnU-Net does not scale as CT or by z-score, labels that
            `parse_labels` refuses, files that are missing, or another number of training cases than numTraining.
    """
    content = _json(folder / "dataset.json")
    channels = _channels(folder / "dataset.json", content["channel_names"])
    labels = parse_labels(folder / "dataset.json", content)
    ending = content["file_ending"]
    if ending not in SUFFIXES:
        raise DataError(f"{folder}/dataset.json: file_ending {ending!r}; expected {' or '.join(SUFFIXES)}")
    training = tuple(
        CaseFiles(one.name, one.images, folder / "labelsTr" / f"{one.name}{ending}")
        for one in list_cases(folder / "imagesTr", len(channels), ending)
    )
    for case in training:
        if case.labels is not None and not case.labels.is_file():
            raise DataError(f"{case.labels}: no such file; expected the labels of {case.images[0].name}")
    if content["numTraining"] != len(training):
        raise DataError(
            f"{folder}/dataset.json: numTraining {content['numTraining']}; expected {len(training)}, as imagesTr has"
        )
    tests = folder / "imagesTs"
    test = tuple(list_cases(tests, len(channels), ending)) if tests.is_dir() else ()
    return RawDataset(folder, channels, labels, ending, training, test)


def list_cases(folder: Path, channels: int, ending: str) -> list[CaseFiles]:
    """List the cases of a folder of images, CASE_0000 … by name, without labels.

    Raises:
        DataError: no such folder, no image in it, or a case that lacks a channel or has one too many.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one with CASE_0000{ending}, …")
    found: dict[str, dict[int, Path]] = {}
    for file in sorted(folder.iterdir()):
        if match := re.fullmatch(rf"([^.].*)_(\d{{4}}){re.escape(ending)}", file.name):
            found.setdefault(match[1], {})[int(match[2])] = file
    if not found:
        raise DataError(f"{folder}: no file named like CASE_0000{ending}")
    for name, files in found.items():
        if absent := sorted(set(range(channels)) - set(files)):
            raise DataError(
                f"{folder}/{name}_{absent[0]:04}{ending}: no such file; expected {channels} channels of a case"
            )
        if extra := sorted(set(files) - set(range(channels))):
            raise DataError(f"{files[extra[0]]}: channel {extra[0]}; expected {channels}, as dataset.json names")
    return [CaseFiles(name, tuple(files[k] for k in range(channels)), None) for name, files in sorted(found.items())]


def read_scan(case: CaseFiles, classes: int) -> Scan:
    """Read a case: its channels, its labels if it has any, voxel size and affine.

    Args:
        classes: number of label values.

    Raises:
        DataError: a file cannot be read, is not 3-D or has NaN; grids differ; a label is not among the classes.
    """
    volumes = [read_nifti(path) for path in case.images]
    first = volumes[0]
    for path, volume in zip(case.images, volumes, strict=True):
        check_same_grid(path, volume.array.shape, volume.affine, case.images[0].name, first.array.shape, first.affine)
    image = np.stack([volume.array for volume in volumes], axis=-1).astype(np.float32)
    labels = None
    if case.labels is not None:
        named = read_nifti(case.labels)
        check_same_grid(
            case.labels, named.array.shape, named.affine, case.images[0].name, first.array.shape, first.affine
        )
        labels = _class_numbers(case.labels, named.array, classes)
    return Scan(case.name, image, labels, voxel_mm(first.affine), first.affine)


def write_dataset(
    folder: Path,
    scans: Iterable[Scan],
    channels: Sequence[str],
    labels: Sequence[str],
    test: Iterable[Scan] = (),
    ending: str = ".nii.gz",
) -> None:
    """Write a raw nnU-Net data set; dataset.json is written last, so that an unfinished folder is no data set.

    Args:
        folder: folder of the data set.
        scans: training cases.
        channels: names of the channels.
        labels: names of the classes 0, 1, …; the first is "background".
        test: test cases, for imagesTs.
        ending: file ending.

    Raises:
        DataError: a scan for training has no labels, or another number of channels, or the first label is another.
    """
    if not labels or labels[0] != "background":
        raise DataError(f"labels: {list(labels)}; expected 'background' first")
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    count = 0
    for scan in scans:
        if scan.labels is None:
            raise DataError(f"{scan.name}: no labels; expected them for training")
        _write_channels(folder / "imagesTr", scan, len(channels), ending)
        write_label_nifti(folder / "labelsTr" / f"{scan.name}{ending}", scan.labels, scan.affine, len(labels))
        count += 1
    for scan in test:
        (folder / "imagesTs").mkdir(exist_ok=True)
        _write_channels(folder / "imagesTs", scan, len(channels), ending)
    content = {
        "channel_names": {str(k): name for k, name in enumerate(channels)},
        "labels": {name: k for k, name in enumerate(labels)},
        "numTraining": count,
        "file_ending": ending,
    }
    write_text(folder / "dataset.json", json.dumps(content, indent=2) + "\n")


def write_label_nifti(
    path: Path, labels: Int[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], classes: int
) -> None:
    """Write class numbers as NIfTI of the smallest unsigned integer type that holds all `classes`.

    Raises:
        DataError: a label is no class, or as `write_nifti`.
        OSError: as `write_nifti`.
    """
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= classes:
        raise DataError(f"{path}: labels from {labels.min()} to {labels.max()} to write; expected 0 to {classes - 1}")
    write_nifti(path, labels, affine, np.min_scalar_type(classes - 1))


def _write_channels(folder: Path, scan: Scan, channels: int, ending: str) -> None:
    if scan.image.shape[-1] != channels:
        raise DataError(f"{scan.name}: {scan.image.shape[-1]} channels; expected {channels}, one for each name")
    for k in range(channels):
        write_nifti(folder / f"{scan.name}_{k:04}{ending}", scan.image[..., k], scan.affine)


def _json(path: Path) -> dict[str, Any]:
    content = read_json_object(path, "the description of an nnU-Net v2 data set")
    wanted = {"channel_names": dict, "labels": dict, "numTraining": int, "file_ending": str}
    for key, kind in wanted.items():
        if not isinstance(content.get(key), kind) or isinstance(content[key], bool):
            raise DataError(f"{path}: no {key} of kind {kind.__name__}; expected the description of nnU-Net v2")
    return content


def _channels(path: Path, names: dict[str, Any]) -> tuple[str, ...]:
    if sorted(names) != sorted(str(k) for k in range(len(names))) or not names:
        raise DataError(f"{path}: channel_names {sorted(names)}; expected numbers from 0 without gaps")
    channels = tuple(str(names[str(k)]) for k in range(len(names)))
    refused = {name.casefold() for name in UNSUPPORTED_CHANNELS}
    if odd := [name for name in channels if name.casefold() in refused]:
        raise DataError(
            f"{path}: channel name {odd[0]!r} asks nnU-Net for another scaling; expected CT, or a name that means "
            f"z-scores, such as MR: {', '.join(UNSUPPORTED_CHANNELS)} are not supported"
        )
    return channels


def _class_numbers(path: Path, values: np.ndarray, classes: int) -> np.ndarray:
    numbers = as_labels(values, path)
    if numbers.max(initial=0) >= classes:
        raise DataError(f"{path}: label {numbers.max()}; expected 0 to {classes - 1}, as dataset.json names")
    return numbers
