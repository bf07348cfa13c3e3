"""What `brain_mri_bias` asks of its subjects, wherever they come from: images, training sets, template space."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from medjax.errors import DataError
from medjax.io.label_images import read_labels
from medjax.io.nifti import Volume, resample
from medjax.shortcuts.imbalance import biased_counts, draw_groups
from medjax.shortcuts.regions import Regions, region_means

OVERLAP = 0.5  # of brain and label volume, fraction of the smaller one, below which they are not in one space
Averages = tuple[Float[np.ndarray, "subject region"], Float[np.ndarray, "x y z"]]


class Labels(NamedTuple):
    """Diagnosis of each subject and the classes of its two attributes, all 0 or 1."""

    diagnosis: Int[np.ndarray, " subject"]
    attributes: dict[str, Int[np.ndarray, " subject"]]


class Subjects(NamedTuple):
    """Images with intensities z-scored, labels, and volumes of the template's regions, or of none."""

    image: Float[np.ndarray, "subject x y z 1"]
    diagnosis: Int[np.ndarray, " subject"]
    attributes: dict[str, Int[np.ndarray, " subject"]]
    volume_mm3: Float[np.ndarray, "subject region"]

    def label(self, name: str) -> Int[np.ndarray, " subject"]:
        """Labels of the diagnosis or of an attribute."""
        return self.diagnosis if name == "diagnosis" else self.attributes[name]


class Space(NamedTuple):
    """Template space: its T1 image, the regions of the audit, and the affine to MNI mm."""

    t1: Float[np.ndarray, "x y z"]
    regions: Regions
    affine: Float[np.ndarray, "4 4"]


class Source(NamedTuple):
    """Where the subjects come from: a simulated cohort, or scans on disk."""

    attributes: tuple[str, str]
    diagnoses: int  # 2, or 1 if nobody has a disease
    classes: Mapping[str, tuple[str, str]]  # names of the classes 0 and 1 of the diagnosis and of each attribute
    labels: Callable[[], Labels]  # of the training pool
    pool: Callable[[str], Subjects]  # intensities → subjects of site A of whom the training sets are drawn
    tests: Callable[[str], dict[str, Subjects]]  # intensities → test subjects of each site
    space: Callable[[], Space]
    in_template: Callable[[Float[np.ndarray, "subject x y z"]], Averages]  # maps of site A's tests → `averages`
    true_regions: Mapping[str, tuple[str, ...]]  # regions that carry the sign of what is learned, where it is known
    description: str
    caution: str


def training_subset(
    pool: Subjects | Labels, size: int, tied: str | None, anti_fraction: float, seed: int, diagnoses: int = 2
) -> Int[np.ndarray, " train"]:
    """Numbers of training subjects: balanced, or with the attribute `tied` to the diagnosis.

    Of each diagnosis `anti_fraction` has the attribute that the other has; the other attribute is balanced within, or
    as nearly as there are subjects. Without a tie it is as in `balanced_counts`.

    Raises:
        DataError: a group has too few subjects.
    """
    if tied is None:
        return draw_balanced_subset(pool, size, jax.random.key(seed), f"data.train {size}", diagnoses)
    order = (tied, next(name for name in pool.attributes if name != tied))
    rows = 2 * biased_counts(size // 2, anti_fraction, majority=(0, 1))  # even numbers, to be halved
    groups = group_sizes(pool, order)
    halves = [[_halves(groups[y, a], int(rows[y, a])) for a in (0, 1)] for y in (0, 1)]
    return _draw(pool, order, np.array(halves), jax.random.key(seed), f"data.train {size}, tied to {tied}")


def draw_balanced_subset(
    subjects: Subjects | Labels, size: int, key: PRNGKeyArray, what: str, diagnoses: int = 2
) -> Int[np.ndarray, " train"]:
    """Numbers of random subjects, equally many of each diagnosis and, within it, of each attribute's classes.

    Raises:
        DataError: a group has too few subjects; `what` they are for is in the message.
    """
    first, second = subjects.attributes
    groups = group_sizes(subjects, (first, second))[:diagnoses]
    wanted = np.array([balanced_counts(one, size // diagnoses) for one in groups])
    return _draw(subjects, (first, second), wanted, key, what)


def group_sizes(subjects: Subjects | Labels, order: tuple[str, str]) -> Int[np.ndarray, "2 2 2"]:
    """Number of subjects of each diagnosis and of two attributes."""
    counts = np.zeros((2, 2, 2), int)
    np.add.at(counts, (subjects.diagnosis, *(subjects.attributes[name] for name in order)), 1)
    return counts


def balanced_counts(available: Int[np.ndarray, "2 2"], size: int) -> Int[np.ndarray, "2 2"]:
    """Numbers of subjects of each pair of attributes, `size` in all, both attributes balanced.

        [[k, m − k], [m − k, k]],    m = size / 2

    k is m / 2, all four equal, or as near to it as there are subjects; m / 2 too where they are too few for any k.
    """
    half = size // 2
    low, high = half - min(available[0, 1], available[1, 0]), min(available[0, 0], available[1, 1])
    k = int(np.clip(half // 2, low, high)) if low <= high else half // 2
    return np.array([[k, half - k], [half - k, k]])


def averages(maps: Iterable[Float[np.ndarray, "x y z"]], regions: Regions) -> Averages:
    """Means in the regions of each map in template space, and the mean map."""
    rows, total = list[Float[np.ndarray, " region"]](), np.zeros(regions.labels.shape)
    for one in maps:
        rows.append(region_means(one[None], regions)[0])
        total += one
    return np.array(rows, np.float32), (total / len(rows)).astype(np.float32)


def normalized_map(attribution: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    """Map divided by the sum of its magnitudes: ranks do not change, and all subjects count the same."""
    return attribution / max(float(np.abs(attribution).sum()), 1e-16)


def read_regions(
    file: str, affine: Float[np.ndarray, "4 4"], brain: Bool[np.ndarray, "x y z"]
) -> Int[np.ndarray, "x y z"]:
    """Labels of a volume in MNI space on another grid, 0 outside the `brain`.

    Raises:
        DataError: it cannot be read, has no affine, or lies elsewhere than the brain.
    """
    values, own = read_labels(Path(file))
    if own is None:
        raise DataError(f"{file}: no affine; expected a NIfTI label volume in MNI space")
    moved = resample(Volume(values.astype(np.float32), own), brain.shape, affine, order=0).array
    labels = np.where(brain, np.rint(moved).astype(np.int32), 0)
    if not labels.any():
        raise DataError(f"{file}: no label within the template's brain; expected regions in MNI space")
    overlap = np.count_nonzero(labels) / min(np.count_nonzero(moved), np.count_nonzero(brain))
    if overlap < OVERLAP:
        found = f"{100 * overlap:.0f} % of its labels in the template's brain"
        raise DataError(f"{file}: {found}; expected {100 * OVERLAP:g} % or more, images and regions in MNI space")
    return labels


def _halves(available: Int[np.ndarray, "2"], size: int) -> tuple[int, int]:
    """`size` subjects of two classes, half of each or as nearly as there are; half too where they are too few."""
    k = int(np.clip(size // 2, size - available[1], available[0])) if size <= available.sum() else size // 2
    return k, size - k


def _draw(
    subjects: Subjects | Labels,
    order: tuple[str, str],
    wanted: Int[np.ndarray, "diagnosis 2 2"],
    key: PRNGKeyArray,
    what: str,
) -> Int[np.ndarray, " _"]:
    available = group_sizes(subjects, order)
    short = np.argwhere(wanted > available[: len(wanted)])
    if short.size:
        y, a, b = short[0]
        found = f"{available[y, a, b]} subjects of diagnosis {y}, {order[0]} {a}, {order[1]} {b}"
        raise DataError(f"{what}: {found}; expected {wanted[y, a, b]} or more")
    code = 2 * subjects.attributes[order[0]] + subjects.attributes[order[1]]
    return draw_groups(key, subjects.diagnosis, code, wanted.reshape(-1, 4))
