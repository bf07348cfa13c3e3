"""The area under the risk–coverage curve against its definition, every order of ties, and torch-uncertainty."""

from itertools import permutations

import numpy as np
import pytest
from scipy import integrate

from medjax.errors import DataError
from medjax.uncertainty.risk_coverage import aurc, risk_coverage


def area_by_definition(risk_in_order):
    return np.mean([np.mean(risk_in_order[: k + 1]) for k in range(len(risk_in_order))])


def values(seed, n):
    rng = np.random.default_rng(seed)
    risk = rng.gamma(1.5, 0.1, n)
    return risk + rng.normal(0, 0.1, n), risk


def test_the_area_is_that_of_the_definition():
    u, r = values(0, 30)
    found = aurc(u, r)
    assert found.area == pytest.approx(area_by_definition(r[np.argsort(u)]))
    assert found.optimal == pytest.approx(area_by_definition(np.sort(r)))
    assert found.random == pytest.approx(r.mean())
    assert found.excess == pytest.approx(found.area - found.optimal)
    assert found.normalized == pytest.approx(found.excess / (r.mean() - found.optimal))
    curve = risk_coverage(u, r)
    np.testing.assert_allclose(curve.risk, np.cumsum(r[np.argsort(u)]) / np.arange(1, 31))
    np.testing.assert_allclose(curve.coverage, np.arange(1, 31) / 30)


def test_ties_are_the_mean_over_their_orders():
    u, r = np.array([1, 2, 2, 2, 3, 3]), np.array([0.3, 0.0, 0.5, 0.9, 0.1, 0.7])
    orders = [np.array(order) for order in permutations(range(6)) if (np.diff(u[list(order)]) >= 0).all()]
    assert aurc(u, r).area == pytest.approx(np.mean([area_by_definition(r[order]) for order in orders]))
    np.testing.assert_allclose(risk_coverage(u, r).coverage, [1 / 6, 4 / 6, 1])


def test_extremes():
    _, r = values(1, 25)
    assert aurc(r**2, r).normalized == pytest.approx(0)
    constant = aurc(np.zeros(25), r)
    assert constant.area == pytest.approx(r.mean()) and constant.normalized == pytest.approx(1)
    np.testing.assert_allclose(risk_coverage(np.zeros(25), r), [[1 / 25, 1], [r.mean()] * 2])  # flat
    assert aurc(-r, r).normalized > 1
    equal = aurc(r, np.full(25, 0.2))
    assert equal.area == pytest.approx(0.2) and np.isnan(equal.normalized)
    assert aurc(np.array([1.0]), np.array([0.4])).area == pytest.approx(0.4)


def test_counts_are_that_many_predictions():
    u, r, n = np.array([0.1, 0.1, 0.4, 0.2, 0.9]), np.array([0.0, 1.0, 0.0, 1.0, 1.0]), np.array([7, 2, 4, 1, 0])
    one, each = aurc(u, r, n), aurc(np.repeat(u, n), np.repeat(r, n))
    np.testing.assert_allclose(one, each)
    np.testing.assert_allclose(risk_coverage(u, r, n), risk_coverage(np.repeat(u, n), np.repeat(r, n)))


def test_classification_errors_as_torch_uncertainty_has_them():
    """torch-uncertainty 0.13.0: AURC() of these pixels, which is the trapezium rule from coverage 1/n on."""
    rng = np.random.default_rng(7)
    logits = 2 * rng.normal(size=(2, 30, 40, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = np.argmax(2 * np.tanh(logits) + rng.gumbel(size=logits.shape), -1)
    curve = risk_coverage(1 - p.max(-1).ravel(), (p.argmax(-1) != labels).ravel().astype(float))
    area = integrate.trapezoid(curve.risk, curve.coverage) / (1 - 1 / labels.size)
    assert area == pytest.approx(0.19124992191791534, abs=2e-6)


@pytest.mark.parametrize(
    ("uncertainty", "risk", "count", "message"),
    [
        (np.ones(3), np.ones(2), None, "3, 2, 3 values"),
        (np.ones(0), np.ones(0), None, "0 predictions"),
        (np.ones(2), np.ones(2), np.zeros(2), "0 predictions"),
        (np.ones(2), np.ones(2), np.array([2, -1]), "expected as many of each"),
        (np.array([1, np.nan]), np.ones(2), None, "uncertainty: 1 of 2 values not finite"),
        (np.ones(2), np.array([1, np.inf]), None, "risk: 1 of 2 values not finite"),
    ],
)
def test_unusable_values_are_refused(uncertainty, risk, count, message):
    for measure in (risk_coverage, aurc):
        with pytest.raises(DataError, match=message):
            measure(uncertainty, risk, count)


def test_counts_are_whole():
    with pytest.raises(DataError, match="whole numbers"):
        aurc(np.ones(2), np.ones(2), np.array([1.5, 1.0]))
