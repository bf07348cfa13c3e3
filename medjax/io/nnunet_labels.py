"""Labels of nnU-Net's dataset.json: classes, regions, and an ignore label.

    {"labels": {"background": 0, "liver": 1, "spleen": 2}}                    classes
    {"labels": {"background": 0, "liver": 1, "ignore": 2}}                    2 marks voxels that nobody has labelled
    {"labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, "regions_class_order": [1, 2, 3]}

    labels = parse_labels(path, content)           checked
    labels.structures["whole"]                     (1, 2, 3)

Class numbers are 0, 1, … without gaps, and "ignore" is the next one. Regions are written in a prediction one over the
other: `regions_class_order` says as which number, in the order of the regions in the file.

Source: nnU-Net v2's documentation, dataset_format.md, region_based_training.md and ignore_label.md.
"""

import warnings
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from medjax.errors import DataError

Structure = int | tuple[int, ...]  # a class number, or those of a region


class DatasetLabels(NamedTuple):
    """Labels of a data set: classes or regions by name, and what marks voxels without a label."""

    structures: dict[str, Structure]  # background 0 first; without "ignore"
    classes: int  # number of classes, background included
    order: tuple[int, ...] = ()  # number that each region is written as; (): there are no regions
    ignore: int | None = None

    @property
    def foreground(self) -> dict[str, Structure]:
        """Structures but for the background."""
        return {name: one for name, one in self.structures.items() if name != "background"}

    @property
    def regions(self) -> tuple[tuple[int, ...], ...]:
        """Classes of each region, if there are regions."""
        return tuple(map(_numbers, self.foreground.values())) if self.order else ()

    @property
    def class_names(self) -> list[str]:
        """Name of each class, or its number in words where only regions have names."""
        own = {_numbers(one)[0]: name for name, one in self.structures.items() if len(_numbers(one)) == 1}
        return [own.get(number, f"label {number}") for number in range(self.classes)]


def parse_labels(path: Path, content: Mapping[str, Any]) -> DatasetLabels:
    """Labels of the `content` of a dataset.json.

    Warns of a class that is predicted as another, because a later region has it too.

    Raises:
        DataError: labels that are no class numbers or lists of some, background that is not 0, numbers with gaps, an
            ignore label that is not the highest, regions without regions_class_order, or with another number of it.
    """
    named = dict(content["labels"])
    ignore = named.pop("ignore", None)
    if named.get("background") != 0 or type(named["background"]) is not int:
        raise DataError(f"{path}: background is {named.get('background')}; expected 'background': 0 among the labels")
    structures = {name: _structure(path, name, value) for name, value in named.items()}
    values, numbers = list(named.values()), {*chain.from_iterable(map(_numbers, structures.values()))}
    regions = any(len(_numbers(one)) > 1 for one in structures.values())
    if numbers != {*range(max(len(numbers), 2))} or (len(structures) > len(numbers) and not regions):
        raise DataError(f"{path}: labels {values}; expected the numbers 0, 1, … without gaps, two or more")
    if ignore is not None and (type(ignore) is not int or ignore != len(numbers)):
        raise DataError(f"{path}: 'ignore' is {ignore}; expected {len(numbers)}, one above the highest label")
    if not regions:
        plain = sorted(((name, _numbers(one)[0]) for name, one in structures.items()), key=lambda item: item[1])
        return DatasetLabels(dict(plain), len(numbers), (), ignore)
    chosen = {name: one for name, one in structures.items() if one not in (0, (0,))}
    order = _order(path, content.get("regions_class_order"), list(chosen), len(numbers))
    labels = DatasetLabels({"background": 0, **chosen}, len(numbers), order, ignore)
    _warn_of_hidden(path, labels)
    return labels


def labels_content(labels: DatasetLabels) -> dict[str, Any]:
    """Content of a dataset.json that has these labels."""
    named: dict[str, Any] = {
        name: list(one) if isinstance(one, tuple) else one for name, one in labels.structures.items()
    }
    named |= {} if labels.ignore is None else {"ignore": labels.ignore}
    return {"labels": named, **({"regions_class_order": list(labels.order)} if labels.order else {})}


def structure_text(structure: Structure) -> str:
    """Class number or region as nnU-Net writes its keys: `3`, `(1, 2, 3)`."""
    return str(structure)


def parse_structure(text: str) -> Structure:
    """Class number or region of `structure_text`."""
    parts = [part for part in text.strip("()").split(",") if part.strip()]
    return tuple(map(int, parts)) if text.startswith("(") else int(text)


def _numbers(structure: Structure) -> tuple[int, ...]:
    return structure if isinstance(structure, tuple) else (structure,)


def _structure(path: Path, name: str, value: Any) -> Structure:
    """A class number, or a tuple of them."""
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(type(number) is int and number >= 0 for number in numbers):
        raise DataError(f"{path}: label {name!r} is {value}; expected a number 0, 1, …, or a list of some: a region")
    if len(set(numbers)) < len(numbers):
        raise DataError(f"{path}: label {name!r} is {value}; expected every number once")
    return tuple(numbers) if isinstance(value, list) else value


def _order(path: Path, order: Any, regions: list[str], classes: int) -> tuple[int, ...]:
    expected = f"expected a number from 1 to {classes - 1} for each of {len(regions)} regions: {', '.join(regions)}"
    if not isinstance(order, list):
        raise DataError(f"{path}: regions, and no regions_class_order; {expected}")
    if len(order) != len(regions) or not all(type(number) is int and 0 < number < classes for number in order):
        raise DataError(f"{path}: regions_class_order {order}; {expected}")
    return tuple(order)


def _warn_of_hidden(path: Path, labels: DatasetLabels) -> None:
    """Warn where even right predictions of all regions are written as another class."""
    for number in sorted({*labels.order}):
        over = [name for name, one in labels.foreground.items() if number in _numbers(one)]
        written = [own for own, region in zip(labels.order, labels.regions, strict=True) if number in region]
        if written and written[-1] != number:
            warnings.warn(
                f"{path}: label {number} is predicted as {written[-1]}, for {over[-1]} is the last region that has it; "
                "expected regions that hold others before them, and regions_class_order in their order",
                stacklevel=3,
            )
