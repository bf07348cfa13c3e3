"""Subjects of `brain_mri_bias` from a simulated cohort: a training pool, and balanced test sets of two sites."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Float
from ml_collections import FrozenConfigDict

from experiments.brain.subjects import Averages, Labels, Source, Space, Subjects, averages, normalized_map, read_regions
from medjax.phantoms.cohort import (
    ATROPHY_REGIONS,
    FRONTAL_REGIONS,
    SITES,
    Cohort,
    Effect,
    Effects,
    draw_cohort,
    standardize,
    template,
    template_points,
    to_template,
)
from medjax.shortcuts.regions import label_regions

TEST_SEEDS = {"A": 1, "B": 2}  # added to the training pool's seed, a multiple of 3


def simulated_cohort(data: FrozenConfigDict) -> Source:
    """The simulated cohort, whose disease is an atrophy, with an anatomical and a contrast attribute."""
    return Source(
        attributes=("anatomy", "contrast"),  # sex-like and race-like
        diagnoses=2,
        classes={"diagnosis": ("healthy", "diseased"), "anatomy": ("no", "anatomy"), "contrast": ("no", "contrast")},
        labels=partial(_labels, data),
        pool=partial(_pool, data),
        tests=partial(_tests, data),
        space=partial(_space, data),
        in_template=partial(_in_template, data),
        true_regions={"diagnosis": ATROPHY_REGIONS, "anatomy": FRONTAL_REGIONS},
        description=f"Simulated cohort on the MNI152 anatomy, {data.train} training subjects of a pool of {data.pool} "
        f"and twice {data.test} test subjects, voxels of {data.voxel_mm:g} mm. The disease is an atrophy "
        f"({', '.join(ATROPHY_REGIONS)}); one attribute is anatomical (larger frontal lobes and head), one is the "
        "contrast of white matter.",
        caution="Disease, attributes and sites are simulated: nothing here is a finding about people of any sex or "
        "race.",
    )


def _pool(data: FrozenConfigDict, intensities: str) -> Subjects:
    return _subjects(_cohort(data, "A", 0, data.pool), intensities)


def _labels(data: FrozenConfigDict) -> Labels:
    cohort = _cohort(data, "A", 0, data.pool)
    return Labels(cohort.diagnosis, {"anatomy": cohort.anatomy, "contrast": cohort.contrast})


def _tests(data: FrozenConfigDict, intensities: str) -> dict[str, Subjects]:
    """Test subjects of each site, equally many of each diagnosis and attribute."""
    return {site: _subjects(_cohort(data, site, TEST_SEEDS[site], data.test), intensities) for site in SITES}


@lru_cache(maxsize=2)
def _space(data: FrozenConfigDict) -> Space:
    """Template with the regions of the audit: the cohort's own, or those of a label volume in MNI space."""
    own = template(data.voxel_mm, tuple(data.shape))
    if data.regions:
        return Space(own.t1, label_regions(read_regions(data.regions, own.affine, own.regions >= 0)), own.affine)
    labels = own.regions + 1
    present = {k: name for k, name in enumerate(own.names, start=1) if (labels == k).any()}
    return Space(own.t1, label_regions(labels, present), own.affine)


def _in_template(data: FrozenConfigDict, maps: Float[np.ndarray, "subject x y z"]) -> Averages:
    pairs = zip(maps, _points(data), strict=True)
    return averages((to_template(normalized_map(one), points) for one, points in pairs), _space(data).regions)


def _subjects(cohort: Cohort, intensities: str) -> Subjects:
    image = standardize(cohort.image, intensities)[..., None]
    attributes = {"anatomy": cohort.anatomy, "contrast": cohort.contrast}
    return Subjects(image, cohort.diagnosis, attributes, cohort.volume_mm3)


@lru_cache(maxsize=3)
def _cohort(data: FrozenConfigDict, site: str, offset: int, subjects: int) -> Cohort:
    effects = Effects(**{name: Effect(*values) for name, values in data.effects.items()})
    first = 3 * data.seed + offset
    return draw_cohort(first, subjects, SITES[site], effects, data.variation, data.voxel_mm, tuple(data.shape))


@lru_cache(maxsize=1)
def _points(data: FrozenConfigDict) -> Sequence[Float[np.ndarray, "3 x y z"]]:
    cohort = _cohort(data, "A", TEST_SEEDS["A"], data.test)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(template_points, cohort), range(data.test)))
