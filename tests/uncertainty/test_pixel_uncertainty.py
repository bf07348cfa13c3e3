"""Maps of pixel-wise uncertainty against torch-uncertainty, SciPy and their definitions."""

import jax
import numpy as np
import pytest
from scipy import stats

from medjax.errors import DataError
from medjax.uncertainty.pixel_uncertainty import init, maps, merge, uncertainty_maps, update


def probabilities():
    z = 1.5 * np.random.default_rng(9).normal(size=(6, 2, 3, 4))  # sample, image, pixel, class
    return (np.exp(z) / np.exp(z).sum(-1, keepdims=True)).astype(np.float32)


P = probabilities()


def test_maps_equal_torch_uncertainty_and_scipy():
    """torch-uncertainty 0.13.0: MutualInformation, and Entropy of the mean, of each pixel."""
    found = uncertainty_maps(P)
    mutual = [[0.41004866, 0.34031653, 0.49503595], [0.45029813, 0.4703657, 0.5033607]]
    entropy = [[1.2407889, 1.3536495, 1.3176169], [1.154576, 1.3656844, 1.277065]]
    np.testing.assert_allclose(found.mutual_information, mutual, atol=1e-6)
    np.testing.assert_allclose(found.predictive_entropy, entropy, atol=1e-6)
    np.testing.assert_allclose(found.expected_entropy, stats.entropy(P, axis=-1).mean(0), atol=1e-6)
    np.testing.assert_allclose(found.probability, P.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.variation_ratio, 1 - stats.mode(P.argmax(-1), axis=0).count / 6, atol=1e-6)


def test_a_stream_of_samples_gives_the_same():
    step = jax.jit(update)
    one = two = init(P.shape[1:])
    for k, p in enumerate(P):
        one, two = (step(one, p), two) if k < 4 else (one, step(two, p))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), maps(merge(one, two)), uncertainty_maps(P))


def test_extremes():
    certain = np.eye(4, dtype=np.float32)[np.array([[0, 1], [0, 2]])][:, None]  # two samples of one image of two pixels
    found = uncertainty_maps(certain)
    np.testing.assert_allclose(found.expected_entropy, 0)
    np.testing.assert_allclose(found.mutual_information, [[0, np.log(2)]], atol=1e-6)
    np.testing.assert_allclose(found.variation_ratio, [[0, 0.5]])
    agreed = uncertainty_maps(np.full((3, 1, 2, 4), 0.25, np.float32))
    np.testing.assert_allclose(agreed.predictive_entropy, np.log(4), rtol=1e-6)
    np.testing.assert_allclose(agreed.mutual_information, 0, atol=1e-6)
    single = uncertainty_maps(P[:1])
    assert not np.any(single.mutual_information) and not np.any(single.variation_ratio)


def test_nan_stays_where_it_is():
    broken = P.copy()
    broken[2, 0, 1, 3] = np.nan
    found = uncertainty_maps(broken)
    for each in found[1:4:2] + found[4:]:
        np.testing.assert_array_equal(np.isnan(each), [[False, True, False], [False] * 3])
    assert all(np.isnan(each).all() for each in maps(init((1, 2, 3))))


def test_shapes_are_checked():
    with pytest.raises(DataError, match="no sample"):
        uncertainty_maps(P[:0])
    with pytest.raises(DataError, match="expected \\(image"):
        init((5, 1))
    with pytest.raises(DataError, match=r"shape \(2, 3, 3\); expected \(2, 3, 4\)"):
        update(init((2, 3, 4)), P[0, ..., :3])
