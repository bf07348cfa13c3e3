"""Reweighting makes label and attribute independent, projection removes a direction, the SVM is scikit-learn's."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from medjax.errors import DataError
from medjax.shortcuts.attribute_projection import attribute_projection, leakage, project
from medjax.shortcuts.reweighting import reweighting
from medjax.shortcuts.volume_svm import region_volumes, relative_volumes, svm_scores, volume_svm


def groups(*counts):
    """Labels and attributes with these numbers of (0, 0), (0, 1), (1, 0), (1, 1)."""
    return np.repeat([0, 0, 1, 1], counts), np.repeat([0, 1, 0, 1], counts)


def test_weighted_label_and_attribute_are_independent():
    label, attribute = groups(25, 475, 480, 20)
    w = reweighting(label, attribute)
    joint = np.zeros((2, 2))
    np.add.at(joint, (label, attribute), w / len(w))
    np.testing.assert_allclose(joint, np.outer([0.5, 0.5], [0.505, 0.495]), rtol=1e-6)  # fractions of the data
    assert w.mean() == pytest.approx(1)
    assert w[0] == pytest.approx(500 * 505 / (1000 * 25))
    np.testing.assert_allclose(reweighting(*groups(30, 60, 10, 20)), 1, rtol=1e-6)


def test_an_empty_group_has_no_weight():
    with pytest.raises(DataError, match="label 1, attribute 0: no example"):
        reweighting(*groups(5, 5, 0, 5))


def features(cases=600, size=12, seed=0):
    """Features that tell the label and the attribute along two directions, of very different scales."""
    rng = np.random.default_rng(seed)
    label, attribute = rng.integers(0, 2, cases), rng.integers(0, 2, cases)
    z = rng.normal(size=(cases, size))
    z[:, 0] += 2.5 * attribute
    z[:, 1] += 2.5 * label
    z[:, 0] *= 10
    return z.astype(np.float32), label, attribute


def test_the_direction_is_removed_and_the_label_stays():
    (z, label, attribute), (other, other_label, other_attribute) = features(), features(seed=1)
    projection = attribute_projection(z, attribute)
    before, after = z, np.asarray(project(projection, z))
    shift = after - before
    np.testing.assert_allclose(np.linalg.matrix_rank(shift, tol=1e-3), 1)
    np.testing.assert_allclose(np.matmul(after - after.mean(0), projection.probe), 0, atol=1e-4)
    np.testing.assert_allclose(after.mean(0), before.mean(0), atol=1e-4)
    np.testing.assert_allclose(project(projection, after), after, atol=1e-4)  # once is enough
    assert leakage(z, attribute, other, other_attribute) > 0.93
    other_after = project(projection, other)
    assert leakage(after, attribute, other_after, other_attribute) < 0.62
    assert leakage(after, label, other_after, other_label) > 0.93


def test_leakage_is_that_of_scikit_learns_probe():
    (z, _, attribute), (other, _, other_attribute) = features(), features(seed=1)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(z, attribute)
    wanted = roc_auc_score(other_attribute, probe.decision_function(other))
    assert leakage(z, attribute, other, other_attribute, c=0.1) == pytest.approx(wanted, abs=1e-4)


def test_maps_are_projected_before_pooling():
    z, _, attribute = features()
    projection = attribute_projection(z, attribute)
    maps = np.random.default_rng(2).normal(size=(3, 4, 5, 12)).astype(np.float32)
    pooled = project(projection, maps.mean((1, 2)))
    np.testing.assert_allclose(jax.jit(project)(projection, jnp.asarray(maps)).mean((1, 2)), pooled, atol=1e-5)


def test_features_that_cannot_be_probed(monkeypatch):
    z, _, attribute = features(40)
    with pytest.raises(DataError, match="expected both 0 and 1"):
        attribute_projection(z, np.zeros(40, int))
    with pytest.raises(DataError, match="1 NaN or infinite"):
        attribute_projection(np.where(z == z[3, 4], np.nan, z), attribute)
    with pytest.raises(DataError, match="direction is 0"):
        attribute_projection(np.ones((40, 3)), np.tile([0, 1], 20))


def volumes(cases=200, regions=6, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, cases)
    brain = rng.normal(1.2e6, 1e5, cases)
    fractions = np.array([0.4, 0.3, 0.2, 0.09, 0.01, 0.0])[:regions] * np.exp(0.05 * rng.normal(size=(cases, regions)))
    fractions[:, 4] *= 1 - 0.2 * label  # a small region shrinks
    return brain[:, None] * fractions, label


def test_svm_is_scikit_learns_on_standardised_volumes():
    (v, label), (other, other_label) = volumes(), volumes(seed=1)
    found = volume_svm(v[:, :5], label, c=0.3)
    wanted = make_pipeline(StandardScaler(), LinearSVC(C=0.3, dual=False)).fit(v[:, :5], label)
    np.testing.assert_allclose(svm_scores(found, other[:, :5]), wanted.decision_function(other[:, :5]), rtol=1e-9)
    assert np.abs(found.weights).argmax() == 4
    assert roc_auc_score(other_label, svm_scores(volume_svm(v, label), other)) > 0.9  # the constant one adds nothing
    assert volume_svm(v, label).weights[5] == 0


def test_size_tells_nothing_of_relative_volumes():
    v, label = volumes()
    doubled = v * np.where(label == 1, 2.0, 1.0)[:, None]
    np.testing.assert_allclose(relative_volumes(doubled), relative_volumes(v), rtol=1e-12)
    np.testing.assert_allclose(relative_volumes(v).sum(1), 1)
    with pytest.raises(DataError, match="scan 1 sums to 0"):
        relative_volumes(np.array([[1.0, 2.0], [0.0, 0.0]]))


def test_volumes_of_a_label_image():
    labels = np.full((4, 5, 6), -1)
    labels[:2], labels[2, 0] = 0, 2
    np.testing.assert_allclose(region_volumes(labels, 4, (1.0, 2.0, 0.5)), [60, 0, 6, 0])
    np.testing.assert_allclose(region_volumes(labels[0], 1, 2), [120])
    with pytest.raises(DataError, match="expected −1 to 1"):
        region_volumes(labels, 2, 1.0)


def test_volumes_that_cannot_be_classified(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    v, label = volumes()
    with pytest.raises(DataError, match="1 NaN or infinite"):
        volume_svm(np.where(v == v[0, 0], np.nan, v), label)
    with pytest.raises(DataError, match=r"label: values \[0, 2\]"):
        volume_svm(v, 2 * label)
