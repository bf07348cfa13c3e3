"""Intervals equal a loop over resampled cases; subjects are clusters; two models are compared on equal resamples."""

from functools import partial

import jax
import jaxtyping
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.shortcuts import fairness, group_metrics
from medjax.shortcuts.group_bootstrap import bootstrap
from medjax.shortcuts.group_metrics import cases

KEY = jax.random.key(3)


def columns(number=120, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    label, attribute = np.tile([0, 0, 1, 1], number // 4), np.tile([0, 1], number // 2)
    return label, attribute, 1 / (1 + np.exp(1 - 2 * label + noise * rng.normal(size=number)))


def metric(data, weights):
    """A few numbers of several shapes."""
    return {"gap": fairness.gap(group_metrics.auroc(data, weights)), "each": group_metrics.accuracy(data, weights)}


compiled = jax.jit(metric)


def test_a_loop_over_resampled_subjects_gives_the_same():
    label, attribute, score = columns()
    subject = np.array([f"S{k // 2}" for k in range(len(label))])  # two scans each
    intervals = bootstrap(KEY, metric, cases(label, attribute, score), subject=subject, resamples=100, level=0.8)
    names, values = np.unique(subject), {"gap": [], "each": []}
    for key in jax.random.split(KEY, 100):
        drawn = names[np.asarray(jax.random.randint(key, (60,), 0, 60))]
        chosen = np.concatenate([np.flatnonzero(subject == name) for name in drawn])
        again = compiled(cases(label[chosen], attribute[chosen], score[chosen]), None)
        for name, value in again.items():
            values[name].append(np.asarray(value))
    for name, interval in intervals.items():
        low, high = np.quantile(values[name], [0.1, 0.9], axis=0)
        np.testing.assert_allclose(interval.low, low, atol=2e-6)
        np.testing.assert_allclose(interval.high, high, atol=2e-6)
    assert intervals["each"].estimate.shape == (2,)
    np.testing.assert_allclose(
        intervals["gap"].estimate, metric(cases(label, attribute, score), None)["gap"], rtol=1e-6
    )


def test_scans_of_a_subject_count_once():
    """Every case four times: as subjects the interval stays, as independent cases it halves."""
    columns_once = columns()
    data, four = cases(*columns_once), cases(*(np.repeat(values, 4) for values in columns_once))
    accuracy = fairness.adjusted_accuracy
    once = bootstrap(KEY, accuracy, data, resamples=400)
    clustered = bootstrap(KEY, accuracy, four, subject=np.repeat(np.arange(120), 4), resamples=400)
    naive = bootstrap(KEY, accuracy, four, resamples=400)
    np.testing.assert_allclose([clustered.low, clustered.high], [once.low, once.high], atol=1e-6)
    assert (naive.high - naive.low) / (once.high - once.low) == pytest.approx(0.5, abs=0.12)


def test_models_are_paired():
    label, attribute, score = columns()
    _, _, other = columns(seed=1, noise=1.5)
    first, second = cases(label, attribute, score), cases(label, attribute, 0.9 * score + 0.1 * other)
    same = bootstrap(KEY, metric, first, first, resamples=100)
    assert all(np.all(np.asarray(values) == 0) for values in jax.tree.leaves(same))
    difference = bootstrap(KEY, metric, first, second, resamples=100)["gap"]
    gaps = [compiled(data, None)["gap"] for data in (first, second)]
    np.testing.assert_allclose(difference.estimate, gaps[0] - gaps[1], atol=1e-6)
    alone = [bootstrap(KEY, metric, data, resamples=100)["gap"] for data in (first, second)]
    assert difference.high - difference.low < sum(one.high - one.low for one in alone) / 2


def test_intervals_cover_the_truth():
    """The signed difference of two groups' accuracies, 0.3 in truth, lies in about 90 % of 90 % intervals."""

    def signed(data, weights):
        each = group_metrics.accuracy(data, weights)
        return each[1] - each[0]

    def covered(key):
        right = jax.random.bernoulli(key, np.where(member[1], 0.9, 0.6))
        data = example._replace(predicted=example.positive == right)
        interval = bootstrap(jax.random.fold_in(key, 1), signed, data, resamples=200, level=0.9)
        return (interval.low <= 0.3) & (interval.high >= 0.3)

    label, attribute, score = columns()
    example = cases(label, attribute, score)
    member = np.asarray(example.member)
    rate = float(np.mean(jax.jit(partial(jax.lax.map, covered))(jax.random.split(KEY, 150))))
    assert 0.83 < rate < 0.96  # standard error 0.024


def test_resamples_without_a_small_group_are_counted():
    label, attribute = np.array([0, 1] * 20 + [0, 1]), np.array([0] * 40 + [1, 1])
    interval = bootstrap(KEY, metric, cases(label, attribute, np.linspace(0, 1, 42)), resamples=400)["gap"]
    expected = 1 - (1 - (1 - 1 / 42) ** 42) ** 2  # lacks one or the other of two cases, nearly
    assert float(interval.undefined) == pytest.approx(expected, abs=0.08)
    assert np.isfinite(interval.low) and np.isfinite(interval.high)
    never = bootstrap(KEY, metric, cases(np.ones(4, int), np.array([0, 0, 1, 1]), np.zeros(4)), resamples=10)["gap"]
    assert np.isnan(never.low) and never.undefined == 1


def test_wrong_settings_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for users
    label, attribute, score = columns()
    data = cases(label, attribute, score)
    for settings in ({"resamples": 0}, {"level": 1.0}):
        with pytest.raises(DataError, match="resamples, level"):
            bootstrap(KEY, metric, data, **settings)
    with pytest.raises(DataError, match="expected one for each of 120 cases"):
        bootstrap(KEY, metric, data, subject=np.arange(4))
    with pytest.raises(DataError, match="the same cases in the same order"):
        bootstrap(KEY, metric, data, cases(1 - label, attribute, score))
