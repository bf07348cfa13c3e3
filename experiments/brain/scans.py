"""Subjects of `brain_mri_bias` from scans on disk, in the layout of ADNI, OASIS-3 or HCP: sex, race and diagnosis.

Images are expected brain-extracted and registered to MNI space. Of each subject one random scan is taken. The test set
is drawn first, balanced; all other subjects are the training pool. Another data set of the same layout is site B.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from ml_collections import FrozenConfigDict

from experiments.brain.subjects import (
    Averages,
    Labels,
    Source,
    Space,
    Subjects,
    averages,
    draw_balanced_subset,
    normalized_map,
    read_regions,
)
from medjax.datasets import adni, hcp, oasis3
from medjax.datasets.image_list import CodedColumn, ImageList, read_volumes
from medjax.errors import DataError
from medjax.io.nifti import grid_affine
from medjax.phantoms.cohort import CENTER_MM
from medjax.shortcuts.imbalance import one_case_per_subject, other_subjects
from medjax.shortcuts.regions import label_regions

HCP_IN_MNI = "{Subject}/MNINonLinear/T1w_restore_brain.nii.gz"


class Files(NamedTuple):
    """Files of a data set: its tables, where the layout has them, and the folder of images."""

    table: Path
    races: Path
    diagnoses: Path
    folder: Path


class Layout(NamedTuple):
    """Layout of a data set on disk: (files, attribute) → its images, and the columns of both attributes."""

    name: str
    images: Callable[[Files, CodedColumn], ImageList]
    sex: CodedColumn
    race: CodedColumn
    diagnoses: int


class Scans(NamedTuple):
    """Scans, one a subject."""

    paths: tuple[Path, ...]
    subject: tuple[str, ...]
    labels: Labels


def _adni(files: Files, attribute: CodedColumn) -> ImageList:
    return adni.adni(files.table, files.folder, attribute=attribute, race=files.races)


def _oasis3(files: Files, attribute: CodedColumn) -> ImageList:
    return oasis3.oasis3(files.table, files.folder, attribute=attribute, cognition=files.diagnoses)


def _hcp(files: Files, attribute: CodedColumn) -> ImageList:
    """All healthy: the label is 0."""
    images = hcp.hcp(files.table, files.folder, attribute, attribute, restricted=files.races, file=HCP_IN_MNI)
    return images._replace(label=np.zeros_like(images.label))


LAYOUTS = {
    "adni": Layout("ADNI", _adni, adni.SEX, adni.RACE, 2),
    "oasis3": Layout("OASIS-3", _oasis3, oasis3.SEX, oasis3.RACE, 2),
    "hcp": Layout("HCP", _hcp, hcp.SEX, hcp.RACE, 1),
}


def on_disk(data: FrozenConfigDict) -> Source:
    """A data set on disk, whose attributes are sex and race.

    Raises:
        DataError: its tables or its folder cannot be read, or too few subjects of a group for the test set.
    """
    layout, sets = LAYOUTS[data.layout], split(data)
    pool, tests = sets["pool"], {site: scans for site, scans in sets.items() if site != "pool"}

    def subjects(scans: Scans, intensities: str) -> Subjects:
        image = _images(scans.paths, tuple(data.shape), data.voxel_mm, intensities)
        return Subjects(image, *scans.labels, np.zeros((len(image), 0), np.float32))

    def in_template(maps: Float[np.ndarray, "subject x y z"]) -> Averages:
        return averages(map(normalized_map, maps), _space(data, pool.paths).regions)

    sizes = ", ".join(f"{len(scans.paths)} in the test set of site {site}" for site, scans in tests.items())
    return Source(
        attributes=("sex", "race"),
        diagnoses=layout.diagnoses,
        classes={"diagnosis": ("CN", "AD"), "sex": ("F", "M"), "race": ("White", "Black")},
        labels=lambda: pool.labels,
        pool=partial(subjects, pool),
        tests=lambda intensities: {site: subjects(scans, intensities) for site, scans in tests.items()},
        space=partial(_space, data, pool.paths),
        in_template=in_template,
        true_regions={},
        description=f"{layout.name}, one scan a subject, brain-extracted and in MNI space: {len(pool.paths)} subjects "
        f"in the training pool, of whom {data.train} are drawn for each training set, {sizes}; voxels of "
        f"{data.voxel_mm:g} mm.",
        caution="In a set tied to one attribute, and in balanced ones, the other attribute is balanced as nearly as "
        "there are subjects, see the table of subjects; age, scanner and all else are not balanced.",
    )


def split(data: FrozenConfigDict) -> dict[str, Scans]:
    """Disjoint subjects: the training `pool`, the test set `A`, and `B` of another data set, if there is one.

    Raises:
        DataError: a table or folder cannot be read, or too few subjects of a group for a test set.
    """
    layout, key = LAYOUTS[data.layout], jax.random.key(data.seed)
    here = Files(Path(data.table), Path(data.races), Path(data.diagnoses), Path(data.folder))
    own = scans_of(layout, here, key)
    what = f"{here.table}: data.test {data.test}"
    chosen = draw_balanced_subset(own.labels, data.test, jax.random.fold_in(key, 0), what, layout.diagnoses)
    sets = {"pool": _take(own, other_subjects(own.subject, chosen)), "A": _take(own, chosen)}
    if data.external_folder:
        tables = (Path(data[f"external_{name}"]) for name in ("table", "races", "diagnoses", "folder"))
        there = Files(*tables)
        other = scans_of(layout, there, key)
        other = _take(other, np.flatnonzero(~np.isin(other.subject, own.subject)))  # a subject is at one site only
        what = f"{there.table}: data.test {data.test}"
        chosen = draw_balanced_subset(other.labels, data.test, jax.random.fold_in(key, 1), what, layout.diagnoses)
        sets["B"] = _take(other, chosen)
    return sets


def scans_of(layout: Layout, files: Files, key: jax.Array) -> Scans:
    """One random scan of each subject that has a diagnosis, a sex and a race.

    Raises:
        DataError: a table or folder cannot be read, or no scan has all of them.
    """
    sexes, races = layout.images(files, layout.sex), layout.images(files, layout.race)
    race_of = dict(zip(races.ids, races.attribute.tolist(), strict=True))
    both = np.array([k for k, name in enumerate(sexes.ids) if name in race_of], int)
    if not both.size:
        raise DataError(f"{files.table}: no scan with both sex and race; expected some")
    attributes = {"sex": sexes.attribute[both], "race": np.array([race_of[sexes.ids[k]] for k in both])}
    labels = Labels(sexes.label[both], attributes)
    every = Scans(tuple(sexes.paths[k] for k in both), tuple(sexes.subjects[k] for k in both), labels)
    return _take(every, one_case_per_subject(key, every.subject))


def _take(scans: Scans, chosen: Int[np.ndarray, " _"]) -> Scans:
    """Scans of these numbers."""
    attributes: Mapping[str, np.ndarray] = scans.labels.attributes
    labels = Labels(scans.labels.diagnosis[chosen], {name: one[chosen] for name, one in attributes.items()})
    return Scans(tuple(scans.paths[k] for k in chosen), tuple(scans.subject[k] for k in chosen), labels)


@lru_cache(maxsize=6)  # three sets, two intensities
def _images(
    paths: tuple[Path, ...], shape: tuple[int, int, int], voxel_mm: float, intensities: str
) -> Float[np.ndarray, "subject x y z 1"]:
    within = "volume" if intensities == "volume" else "brain"
    return read_volumes(paths, shape, voxel_mm, z_score=within, center_mm=CENTER_MM)


@lru_cache(maxsize=2)
def _space(data: FrozenConfigDict, pool: tuple[Path, ...]) -> Space:
    """Mean image of the training pool, and the regions of a label volume within its brain."""
    images = _images(pool, tuple(data.shape), data.voxel_mm, "brain")[..., 0]
    brain, mean = np.count_nonzero(images, axis=0) > len(images) / 2, images.mean(0)
    if not brain.any():
        raise DataError(f"{data.folder}: brains that do not overlap; expected images registered to MNI space")
    affine = grid_affine(tuple(data.shape), data.voxel_mm, CENTER_MM)
    regions = label_regions(read_regions(data.regions, affine, brain))
    return Space(np.where(brain, mean - mean[brain].min(), 0), regions, affine)
