"""Labels and regions that `medjax segment evaluate` evaluates: those of a dataset.json, or numbers.

description = find_description(Path("labelsTr"), None)                       dataset.json, or None
choose_labels(description, ["Anterior", "1+2"], None).structures             {"Anterior": 1, "1+2": (1, 2)}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medjax.errors import ConfigError, DataError
from medjax.io.files import read_json_object, real_path
from medjax.io.label_images import ENDINGS
from medjax.io.nnunet_labels import Structure, parse_labels
from medjax.tools.checks import MAX_DIGITS

EXPECTED_LABELS = "names of dataset.json or numbers, of a region 1+2, as in --labels 1,2,1+2"


class Labels(NamedTuple):
    """What is evaluated."""

    structures: dict[str, Structure]  # by name
    known: set[int] | None  # labels that an image may have; None: any
    ignore: int | None  # label of the reference that counts for nothing
    endings: tuple[str, ...]  # of the label images


def find_description(references: Path, dataset: Path | None) -> Path | None:
    """dataset.json: the file, or that of the folder, that is given; else the one beside the references' folder."""
    if dataset is None:
        there = real_path(references).parent / "dataset.json"
        return there if there.is_file() else None
    return dataset / "dataset.json" if dataset.is_dir() else dataset


def choose_labels(file: Path | None, labels: Sequence[str] | None, ignore: int | None) -> Labels:
    """Structures to evaluate: all of dataset.json or those asked for, of it or of any numbers.

    Raises:
        ConfigError: a label that is not there, or none and no dataset.json.
        DataError: dataset.json cannot be read, or as `parse_labels`.
    """
    if file is None:
        if not labels:
            raise ConfigError(f"--labels: none, and no dataset.json; expected --dataset, or {EXPECTED_LABELS}")
        return Labels({text: _parse_structure(text, {}, None) for text in labels}, None, ignore, ENDINGS)
    content = _read_description(file)
    named, ending = parse_labels(file, content), content["file_ending"]
    if ending not in ENDINGS:
        raise DataError(f"{file}: file_ending {ending!r}; expected {' or '.join(ENDINGS)}")
    known, numbers = named.foreground, set(range(named.classes))
    chosen = {text: _parse_structure(text, known, numbers) for text in labels} if labels else known
    return Labels(chosen, numbers, named.ignore if ignore is None else ignore, (ending,))


def _read_description(file: Path) -> dict[str, Any]:
    """Content of dataset.json, with labels and file_ending."""
    content = read_json_object(file, "nnU-Net's description of a data set")
    for key, kind in (("labels", dict), ("file_ending", str)):
        if not isinstance(content.get(key), kind):
            raise DataError(f"{file}: no {key} of kind {kind.__name__}; expected nnU-Net's description of a data set")
    return content


def _parse_structure(text: str, named: Mapping[str, Structure], known: set[int] | None) -> Structure:
    """Structure of that name; or label of that number, or region of numbers joined by +."""
    if text in named:
        return named[text]
    parts = [part.strip() for part in text.split("+")]
    numbers = tuple(int(part) for part in parts if part.isdecimal() and len(part) < MAX_DIGITS)
    if len(numbers) < len(parts) or not (known is None or known.issuperset(numbers)):
        expected = f"some of {', '.join(named)}, or {EXPECTED_LABELS}" if named else EXPECTED_LABELS
        raise ConfigError(f"--labels {text}; expected {expected}")
    return numbers if len(numbers) > 1 else numbers[0]
