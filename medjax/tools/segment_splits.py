"""Cross-validation folds of `medjax segment train`: the user's splits_final.json, or five folds of the seed.

    splits = choose_splits(read_dataset(folder), file=None, seed=0)
    for training, validation in splits.folds: ...

MODEL/splits_final.json   the folds that a model is of, for `--splits` and for nnU-Net
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.atomic import write_text
from medjax.errors import ConfigError, WorkdirError, pluralize
from medjax.io.nnunet_raw import RawDataset
from medjax.io.nnunet_splits import SPLITS_FILE, Split, read_splits, splits_text
from medjax.running.progress import say
from medjax.segmentation.nnunet import FOLDS, folds
from medjax.segmentation.nnunet_predict import foreground_mean_dice

OF_SEED = "of the seed"  # the setting `splits` of models whose folds medjax has drawn

Fold = tuple[Int[np.ndarray, " training"], Int[np.ndarray, " validation"]]


class Splits(NamedTuple):
    """Folds of a data set."""

    folds: list[Fold]  # indices of training and validation cases
    seeds: int  # how far the random seeds of fold 0 lie apart for seeds that follow each other: no two folds share one
    setting: str  # what a model folder records: where the folds are from
    text: str  # content of splits_final.json


def choose_splits(data: RawDataset, file: Path | None, seed: int) -> Splits:
    """Folds of `file`, else of the data set's splits_final.json, else five drawn from the seed (one a case of fewer).

    Raises:
        ConfigError: a seed that JAX would take for another.
        DataError: as `read_splits`, or there is one case only.
    """
    names = [case.name for case in data.training]
    there = data.folder / SPLITS_FILE
    file = there if file is None and there.is_file() else file
    own = None if file is None else read_splits(file, names)
    seeds = max(FOLDS, len(own or ()))
    if not 0 <= seed <= 2**32 // seeds - 1:
        raise ConfigError(f"--seed {seed}; expected 0 to {2**32 // seeds - 1}")
    drawn = folds(len(names), seed, min(FOLDS, len(names)))
    drawn_text = splits_text([_named(one, names) for one in drawn])
    if own is None:
        return Splits(drawn, seeds, OF_SEED, drawn_text)
    unseen = set(names).difference(*(one.val for one in own))
    left = f"; {len(unseen)} of {len(names)} cases are in no validation set" if unseen else ""
    say(f"splits of {file}: {pluralize(len(own), 'fold')}{left}")
    text = splits_text(own)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    setting = OF_SEED if text == drawn_text else f"of {pluralize(len(own), 'fold')}, SHA-256 {digest}…"
    return Splits([_numbered(one, names) for one in own], seeds, setting, text)


def check_splits(folder: Path, splits: Splits, data: RawDataset) -> None:
    """Check that the splits_final.json of a model folder, if there is one, has the same folds.

    Raises:
        DataError: as `read_splits`.
        WorkdirError: it has others.
    """
    file = folder / SPLITS_FILE
    if file.is_file() and splits_text(read_splits(file, [case.name for case in data.training])) != splits.text:
        raise WorkdirError(f"{file}: other folds than those {splits.setting}; expected the same, or no such file")


def write_splits(folder: Path, splits: Splits, data: RawDataset) -> None:
    """Write the splits_final.json of a model folder, or check that which is there. Raises as `check_splits`."""
    check_splits(folder, splits, data)
    if not (folder / SPLITS_FILE).is_file():
        write_text(folder / SPLITS_FILE, splits.text)


def cross_validation_text(dice: Mapping[int, Mapping[str, Float[np.ndarray, " structure"]]], cases: int) -> str:
    """Foreground mean Dice of all folds and of how many cases it is: not of all where some validate no fold."""
    scores = [values for fold in dice.values() for values in fold.values()]
    seen = len({name for fold in dice.values() for name in fold})
    number = f"{seen} of {cases}" if seen < cases else f"{cases}"
    more = f", {len(scores)} predictions" if len(scores) > seen else ""
    return f"cross-validation: Dice {foreground_mean_dice(np.array(scores)):.4f} of {number} cases{more}"


def _named(fold: Fold, names: Sequence[str]) -> Split:
    training, validation = (tuple(sorted(names[k] for k in part)) for part in fold)
    return Split(training, validation)


def _numbered(split: Split, names: Sequence[str]) -> Fold:
    number = {name: k for k, name in enumerate(names)}
    training, validation = (np.sort([number[name] for name in part]) for part in split)
    return training, validation
