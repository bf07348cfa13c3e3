"""Where the subjects of `brain_mri_bias` come from: a simulated cohort, or scans on disk."""

from functools import lru_cache

from ml_collections import FrozenConfigDict

from experiments.brain.scans import on_disk
from experiments.brain.simulation import simulated_cohort
from experiments.brain.subjects import Source


@lru_cache(maxsize=2)  # reading the tables of a data set takes a while
def source(data: FrozenConfigDict) -> Source:
    """The subjects of a config's `data`, by its `layout`.

    Raises:
        DataError: a data set on disk cannot be read, or has too few subjects of a group.
    """
    return simulated_cohort(data) if data.layout == "simulated" else on_disk(data)
