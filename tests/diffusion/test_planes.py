"""2-D denoisers on volumes: slices, padding, batches, joining."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from medjax.diffusion import guidance, planes
from medjax.diffusion.denoiser import Denoiser
from medjax.diffusion.sde import Sde, vp

T = jnp.asarray([0.5, 0.9])


def slope(x, t):
    """It knows which way a slice lies: its first axis counts once, its second twice; and the slice's own time."""
    a = jnp.arange(x.shape[1], dtype=x.dtype)[None, :, None]
    b = 2 * jnp.arange(x.shape[2], dtype=x.dtype)[None, None, :]
    return x * t[:, None, None] + a + b


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("batch", [2, 3, 100])
def test_each_slice_is_seen_alone_in_its_own_axes(axis, batch):
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 5))
    found = planes.slice_wise(Denoiser(Partial(slope), vp()), axis, batch=batch)(x, T)
    for volume in range(2):
        for k in range(x.shape[axis + 1]):
            one = slope(jnp.take(x[volume], k, axis)[None], T[volume : volume + 1])[0]
            np.testing.assert_allclose(jnp.take(found[volume], k, axis), one, rtol=1e-6)


def test_sides_are_extended_by_air_and_cut_again():
    seen = []

    def denoiser(x, t):
        seen.append(x)
        return -x

    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    sde = Sde((0.1,), lambda t, parameters: (0 * t, (parameters[0] * t) ** 2))
    found = planes.slice_wise(Denoiser(Partial(denoiser), sde), 2, 4)(x, jnp.asarray([1.0, 2.0]))
    np.testing.assert_array_equal(found, -x)
    assert seen[0].shape == (6, 8, 8)
    air = np.asarray(seen[0][:, 5:])
    np.testing.assert_allclose(air[3:], 2 * air[:3], rtol=1e-6)  # each volume has its own ν
    assert 0.05 < air[:3].std() < 0.15


def test_slices_of_a_condition_go_along():
    condition = jnp.arange(4.0 * 6 * 5).reshape(4, 6, 5)
    one = Denoiser(Partial(lambda x, t, condition: x + condition), vp())
    for batch in (2, 16):
        found = planes.slice_wise(one, 1, batch=batch, condition=condition)(jnp.zeros((2, 4, 6, 5)), T)
        np.testing.assert_array_equal(found[0], condition)
        np.testing.assert_array_equal(found[1], condition)


def denoisers():
    return [Denoiser(Partial(lambda value, x, t: 0 * x + value, value), vp()) for value in (1.0, 2.0, 6.0)]


def test_alternation_takes_turns():
    guided = guidance.prior_only(planes.alternate(denoisers()))
    said = [float(guided(jnp.zeros((2, 2, 2)), T[0], jnp.asarray(n))[0].x0[0, 0, 0]) for n in range(5)]
    assert said == [1, 2, 6, 1, 2]
    np.testing.assert_allclose(planes.alternate(denoisers())(jnp.zeros((1, 2, 2, 2)), T[:1]), 3.0)


def test_averaging_takes_the_mean():
    x, (gamma, nu) = jnp.ones((2, 2, 2)), vp().marginal(T[0])
    estimate, _ = guidance.prior_only(planes.average(denoisers()))(x, T[0], jnp.asarray(0))
    np.testing.assert_allclose(estimate.x0, 3.0)
    np.testing.assert_allclose(estimate.noise, (1 - 3 * gamma) / nu, rtol=1e-5)


def test_denoisers_that_alternate_may_be_arguments_of_a_program():
    """A prior that is traced, so that priors of one network share what is compiled."""
    x, t = jax.random.normal(jax.random.key(0), (1, 2, 2, 2)), jnp.asarray([0.5])

    @jax.jit
    def second(scales, x):
        each = [Denoiser(Partial(lambda scale, x, t: scale * x, scale), vp()) for scale in scales]
        return planes.alternate(each).at_step(jnp.asarray(1), x, t)

    np.testing.assert_allclose(second(jnp.asarray([2.0, 3.0]), x), 3 * x, rtol=1e-6)
