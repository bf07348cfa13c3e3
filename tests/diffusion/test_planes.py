"""2-D scores on volumes: slices, padding, batches, joining."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.diffusion import planes, sampler
from medjax.errors import ConfigError


def slope(x, t):
    """A score that knows which way a slice lies: its first axis counts once, its second twice."""
    a = jnp.arange(x.shape[1], dtype=x.dtype)[None, :, None]
    b = 2 * jnp.arange(x.shape[2], dtype=x.dtype)[None, None, :]
    return x * t + a + b


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("batch", [2, 3, 100])
def test_each_slice_is_seen_alone_in_its_own_axes(axis, batch):
    x = jax.random.normal(jax.random.key(0), (4, 6, 5))
    found = planes.across(slope, axis, batch=batch)(x, jnp.asarray(0.5))
    for k in range(x.shape[axis]):
        one = slope(jnp.take(x, k, axis)[None], 0.5)[0]
        np.testing.assert_allclose(jnp.take(found, k, axis), one, rtol=1e-6)


def test_sides_are_extended_by_air_and_cut_again():
    seen = []

    def score(x, t):
        seen.append(x)
        return -x

    x = jax.random.normal(jax.random.key(0), (5, 6, 3))
    found = planes.across(score, 2, 4, lambda t: 0.1 * t)(x, jnp.asarray(1.0))
    np.testing.assert_array_equal(found, -x)
    assert seen[0].shape == (3, 8, 8)
    assert 0 < jnp.abs(seen[0][:, 5:]).max() < 0.5
    with pytest.raises(ConfigError, match="multiples of 4"):
        planes.across(score, 2, 4)(x, jnp.asarray(1.0))


def estimators():
    def says(value):
        return lambda x, t, index: (sampler.Estimate(0 * x + value, 0 * x - value), ())

    return [says(1.0), says(2.0), says(6.0)]


def test_alternation_takes_turns():
    joined = planes.alternate(estimators())
    said = [float(joined(jnp.zeros(2), jnp.asarray(0.5), jnp.asarray(n))[0].denoised[0]) for n in range(5)]
    assert said == [1, 2, 6, 1, 2]


def test_averaging_takes_the_mean():
    estimate, _ = planes.average(estimators())(jnp.zeros(2), jnp.asarray(0.5), jnp.asarray(0))
    np.testing.assert_allclose(estimate.denoised, 3.0)
    np.testing.assert_allclose(estimate.noise, -3.0)
