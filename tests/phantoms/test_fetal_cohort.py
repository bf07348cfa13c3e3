"""Cohorts of simulated fetuses: ages are uniform, and those of the two groups differ little."""

from functools import partial

import numpy as np
import pytest
from scipy import stats

from medjax.errors import DataError
from medjax.phantoms.fetal import Fetal, Motion, TissueMaps, cohort, fetal

plain = partial(fetal, snr=np.inf, motion=Motion(0.0, 0.0, 0.0), heterogeneity=0.0, bvalues=(0.0,),
                spacing=(4.5, 4.5, 6.0))  # fmt: skip


def blank(seed: int, age: float, restricted: bool) -> Fetal:
    """A scan for its age, group and, as a shift, its seed."""
    none = np.zeros((1, 1, 1, 1), np.float32)
    number = none[0].astype(np.int32)
    return Fetal(none, number, number, none[0], TissueMaps(*none[[0] * 4]), age, restricted,
                 np.full((1, 3), float(seed)), np.zeros((1, 3)), np.zeros(1, bool), 1.0,
                 np.zeros(1, np.float32), (1.0, 1.0, 1.0))  # fmt: skip


def test_groups_of_a_cohort_have_the_same_ages():
    for seed in range(5):
        everyone = cohort(seed, 60, 0.25, (20.0, 38.0), blank)
        ages, group = np.array([one.age for one in everyone]), np.array([one.restricted for one in everyone])
        assert group.sum() == 15 and len({one.shifts_mm[0, 0] for one in everyone}) == 60
        assert 20 < ages.min() < 22 and 36 < ages.max() < 38 and (np.diff(ages) >= 0).all()
        assert stats.kstest(ages, stats.uniform(20, 18).cdf).pvalue > 1e-3
        assert abs(ages[group].mean() - ages[~group].mean()) < 1.0  # by chance alone: sd 1.5
    assert [one.age for one in cohort(0, 5, scan=blank)] == [one.age for one in cohort(0, 5, scan=blank)]
    assert [sum(one.restricted for one in cohort(0, 8, share, scan=blank)) for share in (0.0, 0.5, 1.0)] == [0, 4, 8]


def test_a_cohort_is_of_scans():
    two = cohort(0, 2, scan=partial(plain, shape=(8, 8, 8)))
    assert two[0].labels.shape == (8, 8, 8) and sum(one.restricted for one in two) == 1
    assert not np.array_equal(two[0].labels, two[1].labels)


@pytest.mark.parametrize("wrong", [(0, 0), (0, 4, 1.5), (0, 4, 0.5, (30.0, 20.0))])
def test_an_impossible_cohort_is_refused(wrong):
    with pytest.raises(DataError, match="number, restricted_fraction, ages"):
        cohort(*wrong, scan=blank)
