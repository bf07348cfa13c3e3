"""nnU-Net v2's splits_final.json: which cases each fold trains on, and which validate it.

    [{"train": ["case_1", "case_2"], "val": ["case_3"]}, …]        one entry a fold

    splits = read_splits(Path("splits_final.json"), ["case_1", "case_2", "case_3"])
    write_text(path, splits_text(splits))

Cases that are in no fold, or in the validation set of no fold or of several, are allowed, as in nnU-Net.

Source: nnU-Net v2's documentation, manual_data_splits.md.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medjax.errors import DataError
from medjax.io.files import read_json

SPLITS_FILE = "splits_final.json"
KEYS = ("train", "val")


class Split(NamedTuple):
    """Cases of a fold, by name, sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def read_splits(file: Path, cases: Collection[str]) -> list[Split]:
    """Read the splits of a data set whose training cases are `cases`.

    Raises:
        DataError: no such file, no such JSON, no fold; a fold without training or validation cases, or with a case that
            the data set lacks, that occurs twice, or that both trains and validates.
    """
    content = read_json(file, f"nnU-Net's {SPLITS_FILE}")
    if not isinstance(content, list) or not content:
        raise DataError(f"{file}: no list of folds; expected [{{'train': [cases], 'val': [cases]}}, …]")
    return [_split(f"{file}: fold {number}", one, cases) for number, one in enumerate(content)]


def splits_text(splits: Sequence[Split]) -> str:
    """Content of splits_final.json, as nnU-Net writes it."""
    return json.dumps([one._asdict() for one in splits], indent=4) + "\n"


def _split(name: str, content: Any, cases: Collection[str]) -> Split:
    for key in KEYS:
        names = content.get(key) if isinstance(content, dict) else None
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise DataError(f"{name}: no '{key}' that is a list of case names; expected 'train' and 'val'")
        if not names:
            raise DataError(f"{name}: '{key}' is empty; expected one case or more")
        if unknown := sorted(set(names) - set(cases)):
            raise DataError(f"{name}: '{key}' has {unknown[0]}; expected training cases, such as {min(cases)}")
        if twice := sorted({one for one in names if names.count(one) > 1}):
            raise DataError(f"{name}: '{key}' has {twice[0]} more than once; expected every case once")
    if both := sorted({*content["train"]} & {*content["val"]}):
        raise DataError(f"{name}: {both[0]} is in 'train' and in 'val'; expected it in one of them")
    return Split(tuple(sorted(content["train"])), tuple(sorted(content["val"])))
