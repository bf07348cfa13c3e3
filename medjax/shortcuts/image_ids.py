"""Images of several sources matched by their ids, and not by their order."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from medjax.errors import DataError


def match_ids(ids: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[str, Int[np.ndarray, " image"]]]:
    """Sorted ids, and of each source the indices of its images in that order, so that any order gives the same.

    Args:
        ids: ids of the images of each source, by its name.

    Raises:
        DataError: an id that a source has twice or has not; the message names the first.
    """
    for name, given in ids.items():
        if len(set(given)) < len(given):
            twice = next(one for number, one in enumerate(given) if one in given[:number])
            raise DataError(f"{name}: two images of id {twice}; expected one of each id")
    (first, known), *others = ids.items()
    for name, given in others:
        for lacking, missing, has in ((name, set(known) - set(given), first), (first, set(given) - set(known), name)):
            if missing:
                numbers = f"{len(missing)} images of {has} are missing, {min(missing)} first"
                same = set(map(_without_ending, known)) == set(map(_without_ending, given))
                hint = "; without endings such as .nii.gz they match: leave these out" if same else ""
                raise DataError(f"{lacking}: {numbers}; expected the same ids in each{hint}")
    every = sorted(known)
    return every, {name: _indices(given, every) for name, given in ids.items()}


def _without_ending(name: str) -> str:
    return re.sub(r"\.(nii|nii\.gz|npy|png)$", "", name)


def _indices(given: Sequence[str], every: Sequence[str]) -> np.ndarray:
    index = {one: number for number, one in enumerate(given)}
    return np.array([index[one] for one in every], int)
