"""Splits keep subjects apart and strata in proportion; training sets have exactly the groups that were asked for."""

import jax
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.errors import ConfigError, DataError
from medjax.shortcuts.imbalance import (
    balanced_subset,
    biased_counts,
    biased_subset,
    draw_groups,
    group_counts,
    one_case_per_subject,
    other_subjects,
    subject_split,
    swap_pools,
)
from medjax.shortcuts.reweighting import reweighting

KEY = jax.random.key(0)


def cohort(subjects=400, seed=0, scans=3):
    """Subjects of one label and attribute each, with one to `scans` scans, in random order."""
    rng = np.random.default_rng(seed)
    y, a = rng.random(subjects) < 0.4, rng.random(subjects) < 0.6
    index = rng.permutation(np.repeat(np.arange(subjects), rng.integers(1, scans + 1, subjects)))
    return np.array([f"S{k:03d}" for k in index]), y[index].astype(int), a[index].astype(int)


def subjects_of_group(subject, label, attribute, indices):
    """Number of subjects of each (label, attribute) among the cases."""
    rows = {(subject[k], label[k], attribute[k]) for k in indices}
    return np.array([[sum(row[1:] == (y, a) for row in rows) for a in range(2)] for y in range(2)])


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 60), st.integers(0, 1000), st.sampled_from([(0.8, 0.2), (0.7, 0.1, 0.2), (1.0, 0.0)]))
def test_splits_are_disjoint_complete_and_stratified(subjects, seed, fractions):
    subject, label, attribute = cohort(subjects, seed)
    parts = subject_split(jax.random.key(seed), subject, fractions, label, attribute)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(subject)))
    names = [set(subject[part]) for part in parts]
    assert not any(names[i] & names[j] for i in range(len(parts)) for j in range(i))
    whole = subjects_of_group(subject, label, attribute, range(len(subject)))
    for part, fraction in zip(parts, fractions, strict=True):
        inside = subjects_of_group(subject, label, attribute, part)
        assert (np.abs(inside - fraction * whole) < 1 + 1e-9).all()
        assert abs(inside.sum() - fraction * whole.sum()) < len(fractions)


def test_small_strata_add_up():
    """A hundred subjects, each a stratum of its own: 80 and 20, not 100 and 0."""
    train, test = subject_split(KEY, np.arange(100), (0.8, 0.2), np.arange(100))
    assert (len(train), len(test)) == (80, 20)


def test_a_subject_whose_label_changes_is_in_one_part():
    subject = np.repeat(np.arange(40), 2)
    label = np.tile([0, 1], 40)
    train, test = subject_split(KEY, subject, (0.5, 0.5), label)
    assert not set(subject[train]) & set(subject[test])
    assert len(train) == len(test) == 40


def test_keys_decide():
    subject, label, attribute = cohort()
    first, again, other = (
        subject_split(jax.random.key(seed), subject, (0.5, 0.5), label, attribute)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0.0, 0.005, 0.1, 0.5])
def test_the_published_numbers_of_anti_correlated_cases(fraction):
    """10,000 cases: 25 anti-correlated ones a label at 0.5 %, 500 at 10 %."""
    label, attribute = np.tile([0, 0, 1, 1], 6000), np.tile([0, 1], 12000)
    chosen = biased_subset(KEY, label, attribute, 10_000, fraction)
    anti = round(5000 * fraction)
    counts = group_counts(label[chosen], attribute[chosen])
    wanted = [[anti, 5000 - anti], [5000 - anti, anti]]
    np.testing.assert_array_equal(counts, np.array(wanted)[:, : counts.shape[1]])
    assert len(set(chosen)) == 10_000
    flipped = biased_subset(KEY, label, attribute, 10_000, fraction, majority=(0, 1))
    np.testing.assert_array_equal(group_counts(label[flipped], attribute[flipped]), np.array(wanted)[:, ::-1])


def test_three_attributes():
    np.testing.assert_array_equal(biased_counts(100, 0.2, (2, 0), 3), [[5, 5, 40], [40, 5, 5]])


def test_balanced_and_exact_counts():
    _, label, attribute = cohort()
    chosen = balanced_subset(KEY, label, attribute, 80)
    np.testing.assert_array_equal(group_counts(label[chosen], attribute[chosen]), np.full((2, 2), 20))
    counts = np.array([[3, 0], [7, 1]])
    np.testing.assert_array_equal(
        group_counts(*(values[draw_groups(KEY, label, attribute, counts)] for values in (label, attribute))), counts
    )
    assert 0.3 < label[chosen[:40]].mean() < 0.7  # not one label after the other


def test_too_few_cases_are_said_with_their_numbers():
    label, attribute = np.array([0] * 50 + [1] * 50), np.array([0] * 47 + [1] * 53)
    with pytest.raises(DataError, match=r"label 0, attribute 1: 3 cases of 25 needed; label 1, attribute 0: 0 cases"):
        balanced_subset(KEY, label, attribute, 100)
    with pytest.raises(ConfigError, match="size 30; expected a multiple of 4"):
        balanced_subset(KEY, label, attribute, 30)
    with pytest.raises(ConfigError, match=r"50 cases a label, of which 0.25 in each anti-correlated group"):
        biased_subset(KEY, label, attribute, 100, 0.005)
    with pytest.raises(ConfigError, match="majority"):
        biased_counts(100, 0.1, (1, 1))
    with pytest.raises(ConfigError, match=r"anti_fraction 1\.2"):
        biased_counts(100, 1.2)
    with pytest.raises(DataError, match="label: -1"):
        group_counts(np.array([-1, 0]), np.array([0, 0]))
    with pytest.raises(DataError, match="up to 2 and 0"):
        draw_groups(KEY, np.array([2, 0]), np.array([0, 0]), np.ones((2, 2), int))
    with pytest.raises(ConfigError, match="add up to 1"):
        subject_split(KEY, np.arange(4), (0.8, 0.3))


def test_class_numbers_of_any_type(monkeypatch):
    """Bool and whole floats count as integers do; text and fractions are refused."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for users
    label, attribute = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 1])
    counts, weights = group_counts(label, attribute), reweighting(label, attribute)
    for dtype in (bool, float, np.uint8):
        y, a = label.astype(dtype), attribute.astype(dtype)
        np.testing.assert_array_equal(group_counts(y, a), counts)
        np.testing.assert_array_equal(reweighting(y, a), weights)
        np.testing.assert_array_equal(balanced_subset(KEY, y, a, 4), balanced_subset(KEY, label, attribute, 4))
        assert len(swap_pools(KEY, np.arange(5), y, a, 0.5)) == 2
    for wrong, found in (
        (np.array(list("FFMMM")), "F"),
        (np.array([0, 0.5, 1, 1, 1]), r"0\.5"),
        (np.full(5, np.nan), "nan"),
    ):
        for refuse in (group_counts, reweighting):
            with pytest.raises(DataError, match=f"attribute: {found}; expected class numbers"):
                refuse(label, wrong)


def test_columns_of_different_lengths_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for users
    with pytest.raises(DataError, match=r"shapes \(2,\), \(3,\)"):
        group_counts(np.array([1, 0]), np.array([0, 0, 1]))
    with pytest.raises(DataError, match="strata"):
        subject_split(KEY, np.arange(4), (0.5, 0.5), np.arange(3))


def test_pools_after_the_swap():
    """Half and half: no tie; 2 %: an extreme one; each stratum gives its fraction."""
    subject, label, attribute = cohort(1000)
    age = np.array([int(name[1:]) % 2 for name in subject])
    for fraction in (0.0, 0.02, 0.2, 0.5):
        tied, anti = swap_pools(KEY, subject, label, attribute, fraction, strata=[age])
        np.testing.assert_array_equal(np.sort(np.append(tied, anti)), np.arange(len(subject)))
        assert not set(subject[tied]) & set(subject[anti])
        whole = subjects_of_group(subject, label, attribute, range(len(subject)))
        inside = subjects_of_group(subject, label, attribute, tied)
        expected = np.array([[fraction, 1 - fraction], [1 - fraction, fraction]]) * whole
        assert (np.abs(inside - expected) <= 2).all()  # two age bins, each within one


def test_swaps_of_labels_that_change_are_refused():
    with pytest.raises(DataError, match="subject 7: cases in both pools"):
        swap_pools(KEY, np.array([7, 7]), np.array([0, 1]), np.array([0, 0]), 0.1)
    with pytest.raises(ConfigError, match=r"fraction 1\.5"):
        swap_pools(KEY, np.array([7, 8]), np.array([0, 1]), np.array([0, 0]), 1.5)


def test_the_rest_of_the_subjects_and_one_case_of_each():
    subject, label, attribute = cohort()
    chosen = balanced_subset(KEY, label, attribute, 40)
    rest = other_subjects(subject, chosen)
    assert not set(subject[rest]) & set(subject[chosen])
    assert set(subject[rest]) | set(subject[chosen]) == set(subject)
    single = one_case_per_subject(KEY, subject)
    assert len(single) == len(set(subject)) and set(subject[single]) == set(subject)
    assert not np.array_equal(single, one_case_per_subject(jax.random.key(1), subject))
