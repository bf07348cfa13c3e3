"""Group metrics equal to fairlearn's and scikit-learn's, with and without weights; undefined ones are NaN.

FAIRLEARN: `MetricFrame.by_group`, `.difference()`, `.group_min()` and the differences of fairlearn 0.15.0 for the
columns of `columns()`, plain and with sample_weight.
"""

import jax
import jaxtyping
import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score, roc_curve

from medjax.errors import DataError
from medjax.metrics import detection
from medjax.shortcuts import fairness, group_metrics
from medjax.shortcuts.group_metrics import cases

FAIRLEARN = {
    "plain": {
        "demographic_parity_difference": 0.37493261455525606,
        "equalized_odds_difference": 0.3815158298688839,
        "equal_opportunity_difference": 0.3815158298688839,
        "accuracy_gap": 0.06195826645264846,
        "balanced_accuracy_gap": 0.06706036551050032,
        "balanced_accuracy_min": 0.6594702467343977,
        "accuracy": [0.6571428571428571, 0.7191011235955056, 0.6981132075471698],
        "balanced_accuracy": [0.6594702467343977, 0.726530612244898, 0.6855391272989542],
        "tpr": [0.41509433962264153, 0.6530612244897959, 0.7966101694915254],
        "fpr": [0.09615384615384616, 0.2, 0.425531914893617],
        "selection_rate": [0.2571428571428571, 0.449438202247191, 0.6320754716981132],
    },
    "weighted": {
        "demographic_parity_difference": 0.36687116564417177,
        "equalized_odds_difference": 0.36149691358024694,
        "equal_opportunity_difference": 0.36149691358024694,
        "accuracy_gap": 0.07901246784088656,
        "balanced_accuracy_gap": 0.08227754604261472,
        "balanced_accuracy_min": 0.6854862993074375,
        "accuracy": [0.6871165644171779, 0.7661290322580645, 0.7272727272727273],
        "balanced_accuracy": [0.6854862993074375, 0.7677638453500523, 0.7167119565217391],
        "tpr": [0.41975308641975306, 0.7424242424242424, 0.78125],
        "fpr": [0.04878048780487805, 0.20689655172413793, 0.34782608695652173],
        "selection_rate": [0.2331288343558282, 0.49193548387096775, 0.6],
    },
}


def columns(number=300, groups=3, seed=7):
    """Label, attribute, score with ties, and weights."""
    rng = np.random.default_rng(seed)
    label, attribute = rng.integers(0, 2, number), rng.integers(0, groups, number)
    score = np.round(1 / (1 + np.exp(-(1.2 * label - 0.6 + 0.5 * attribute - 0.5 + rng.normal(size=number)))), 2)
    return label, attribute, score, rng.integers(0, 4, number)


@jax.jit
def measure(data, weights):
    """Summary and metrics of each group, compiled once for 300 cases of three groups."""
    return fairness.summary(data, weights), fairness.by_group(data, weights)


ONES = np.ones(300, np.float32)


@pytest.mark.parametrize("kind", FAIRLEARN)
def test_equal_to_fairlearn(x64, kind):
    label, attribute, score, w = columns()
    weights = np.ones(300) if kind == "plain" else w.astype(float)
    every, groups = measure(cases(label, attribute, score), weights)
    for name, wanted in FAIRLEARN[kind].items():
        value = groups[name] if isinstance(wanted, list) else every[name]
        np.testing.assert_allclose(value, wanted, atol=1e-12, err_msg=name)
    only_classes, _ = measure(cases(label, attribute, predicted=score >= 0.5), weights)
    assert only_classes["equalized_odds_difference"] == every["equalized_odds_difference"]


@pytest.mark.parametrize("weighted", [False, True])
def test_equal_to_scikit_learn(x64, weighted):
    label, attribute, score, w = columns()
    sample = w.astype(float) if weighted else np.ones(300)
    every, groups = measure(cases(label, attribute, score), sample)
    for g in range(3):
        inside = attribute == g
        wanted = roc_auc_score(label[inside], score[inside], sample_weight=sample[inside])
        np.testing.assert_allclose(groups["auroc"][g], wanted, atol=1e-12)
        for y in range(2):
            both = inside & (label == y)
            wanted = accuracy_score(label[both], score[both] >= 0.5, sample_weight=sample[both])
            np.testing.assert_allclose(groups[f"accuracy_label_{y}"][g], wanted, atol=1e-12)
    np.testing.assert_allclose(
        every["balanced_accuracy"], balanced_accuracy_score(label, score >= 0.5, sample_weight=sample), atol=1e-12
    )
    false, true, thresholds = roc_curve(label, score, sample_weight=sample, drop_intermediate=False)
    np.testing.assert_allclose(every["tpr_at_tnr"], true[false <= 0.1 + 1e-12].max(), atol=1e-12)
    flagged = score >= thresholds[false <= 0.1 + 1e-12].min()  # one threshold for all groups
    wanted = [np.average(flagged, weights=sample * (attribute == g) * label) for g in range(3)]
    np.testing.assert_allclose(groups["tpr_at_tnr"], wanted, atol=1e-12)


def test_calibration_error_is_that_of_the_reliability_diagram(x64):
    label, attribute, score, _ = columns()
    error = group_metrics.calibration_error(cases(label, attribute, score), bins=10)
    for g in range(3):
        y, p = label[attribute == g], score[attribute == g]
        positives, means = calibration_curve(y, p, n_bins=10)
        sizes = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], p), minlength=10)
        wanted = np.sum(sizes[sizes > 0] / len(p) * np.abs(positives - means))
        np.testing.assert_allclose(error[g], wanted, atol=1e-12)


def test_weights_are_repetitions():
    """In float32: counts as weights are cases repeated as often."""
    label, attribute, score, _ = columns()
    w = np.random.default_rng(1).multinomial(300, np.full(300, 1 / 300))
    again = np.repeat(np.arange(300), w)
    weighted, _ = measure(cases(label, attribute, score), w.astype(np.float32))
    repeated, _ = measure(cases(*(values[again] for values in (label, attribute, score))), ONES)
    for name, value in weighted.items():
        np.testing.assert_allclose(value, repeated[name], atol=2e-6, err_msg=name)
    np.testing.assert_allclose(weighted["auroc"], detection.auroc(score[again], label[again] == 1), atol=2e-6)


def test_a_perfect_and_a_shortcut_classifier():
    label, attribute = np.tile([0, 1], 150), np.arange(300) % 3
    perfect, _ = measure(cases(label, attribute, label), ONES)
    assert perfect["worst_group_accuracy"] == perfect["auroc_min"] == perfect["adjusted_accuracy"] == 1
    assert perfect["equalized_odds_difference"] == perfect["demographic_parity_difference"] == perfect["ece"] == 0
    attribute_only, _ = measure(cases(label, attribute, (attribute == 1).astype(int)), ONES)
    assert attribute_only["worst_group_accuracy"] == 0 and attribute_only["adjusted_accuracy"] == 0.5
    assert attribute_only["equalized_odds_difference"] == attribute_only["demographic_parity_difference"] == 1
    assert attribute_only["auroc_min"] == 0.5


def test_empty_groups_are_nan_and_never_left_out():
    label, attribute, score, _ = columns()
    of_all = {"accuracy", "balanced_accuracy", "auroc", "tpr_at_tnr", "ece"}
    for absent, undefined_groups in (
        (attribute == 2, {*fairness.by_group(cases(label, attribute, score))}),
        ((attribute == 2) & (label == 0), {"balanced_accuracy", "fpr", "auroc", "accuracy_label_0"}),
    ):
        data, weights = cases(label, attribute, score), (~absent).astype(np.float32)
        every, groups = measure(data, weights)
        assert {name for name, values in groups.items() if np.isnan(values[2])} == undefined_groups
        assert not any(np.isnan(values[:2]).any() for values in groups.values())
        assert not any(np.isnan(every[name]) for name in of_all)
        for name in ("worst_group_accuracy", "auroc_gap", "auroc_min", "equalized_odds_difference"):
            assert np.isnan(every[name])
        number = group_metrics.count(data, weights)
        np.testing.assert_array_equal(number[0, 2], 0)
        np.testing.assert_array_equal(number[0, 0], np.sum((label == 0) & (attribute == 0)))
    one_class, _ = measure(cases(label, attribute, score), label.astype(np.float32))
    assert np.isnan(one_class["auroc"]) and np.isnan(one_class["tpr_at_tnr"]) and not np.isnan(one_class["accuracy"])


def test_what_scores_do_not_say_is_nan():
    label, attribute, score, _ = columns()
    logits, _ = measure(cases(label, attribute, 3 * score - 1, threshold=0.0), ONES)
    assert np.isnan(logits["ece"]) and np.isnan(logits["ece_max"]) and not np.isnan(logits["auroc_gap"])
    classes, _ = measure(cases(label, attribute, predicted=score > 0.5), ONES)
    undefined = {name for name, value in classes.items() if np.isnan(value)}
    assert undefined == {name for name in classes if name.startswith(("auroc", "ece", "tpr_at_tnr"))}


@pytest.mark.parametrize("monotone", [lambda p: 1 - 10 ** (-8 - 8 * p), lambda p: 1e-40 * p, lambda p: 1e40 * p])
def test_scores_that_float32_does_not_tell_apart_are_ranked(monotone):
    """Ranking metrics are those of p, of which the score is an increasing function."""
    label, attribute, p, _ = columns()
    data = cases(label, attribute, monotone(p))
    every, groups = measure(data, ONES)
    for g in range(3):
        inside = attribute == g
        np.testing.assert_allclose(groups["auroc"][g], roc_auc_score(label[inside], p[inside]), atol=1e-6)
    np.testing.assert_allclose(every["tpr_at_tnr"], measure(cases(label, attribute, p), ONES)[0]["tpr_at_tnr"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.array([0, 1, 2])}, r"label: 2; expected 0 and 1 \(two classes\)"),
        ({"label": np.array([0, 1, np.nan])}, "label: nan"),
        ({"label": np.array([-1, 1, 1])}, "label: -1"),
        ({"score": np.array([0.1, np.nan, np.inf])}, "score: 2 NaN or infinite"),
        ({"score": None}, "neither"),
        ({"predicted": np.array([0, 1, 0.5])}, r"predicted: 0\.5"),
        ({"attribute": np.array([0, -1, 1])}, "attribute -1 to 1"),
        ({"attribute": np.array([0, 0.5, 1])}, r"attribute: 0\.5"),
        ({"attribute": np.array(["F", "M", "M"])}, "attribute: F; expected class numbers"),
        ({"attributes": 1}, "attribute 0 to 1"),
        ({"threshold": np.nan}, "threshold nan"),
        ({"score": np.array([0.1, 0.2])}, r"score \(2,\)"),
        ({name: np.zeros(0, int) for name in ("label", "attribute", "score")}, r"label \(0,\)"),
    ],
)
def test_wrong_columns_are_refused(monkeypatch, change, message):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is for users
    columns = {"label": np.array([0, 1, 1]), "attribute": np.array([0, 1, 1]), "score": np.array([0.1, 0.2, 0.3])}
    with pytest.raises(DataError, match=message):
        cases(**{**columns, **change})
