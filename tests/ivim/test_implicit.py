"""Derivatives of fits against differences of fits in float64, and where there are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.ivim.fit import fit
from medjax.ivim.implicit import differentiable_minimum
from medjax.ivim.signal import Ivim, signal

B = np.array([0, 10, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800], float)


def noisy(number: int, snr: float) -> jax.Array:
    truth = Ivim(*(np.full(number, v) for v in (1.0, 0.32, 1.7e-3, 22e-3)))
    clean = np.asarray(signal(truth, B))
    return jnp.asarray(clean + np.random.default_rng(3).normal(size=clean.shape) / snr)


def units(maps: Ivim) -> jax.Array:
    return jnp.stack([maps.s0, maps.f, 1e3 * maps.d, 1e2 * maps.d_star])


@pytest.mark.parametrize(("noise", "reverse"), [("rician", True), ("student", False)])
def test_fits_have_the_derivatives_of_refitting(x64, noise, reverse):
    y, b = noisy(6, 40.0), jnp.asarray(B)

    def maps(y):
        return units(fit(y, b, noise=noise, sigma=0.025, steps=300).parameters)

    weight = jnp.asarray(np.random.default_rng(4).normal(size=(4, 6)))
    direction = jnp.asarray(np.random.default_rng(5).normal(size=y.shape))
    step = 1e-5
    moved = (maps(y + step * direction) - maps(y - step * direction)) / (2 * step)
    if reverse:
        backward = jax.grad(lambda y: jnp.sum(weight * maps(y)))(y)
        along, expected = jnp.sum(backward * direction, axis=0), jnp.sum(weight * moved, axis=0)
    else:
        along, expected = jax.jvp(maps, (y,), (direction,))[1], moved
    np.testing.assert_allclose(along, expected, rtol=2e-3, atol=1e-4)


def test_the_curvature_of_the_model_matters(x64):
    """With JᵀJ for the Hessian, as Gauss–Newton has it, the derivative would be off at low SNR."""
    x = jnp.linspace(0, 2, 8)[:, None]
    y = jnp.exp(-x) + 0.3 * jnp.asarray(np.random.default_rng(0).normal(size=(8, 1)))

    @jax.jit
    def least(y):
        def cost(p):
            return jnp.sum((y - jnp.exp(-x * p)) ** 2, axis=0)

        def newton():
            slope = jax.grad(lambda p: jnp.sum(cost(p)))
            curvature = jax.grad(lambda p: jnp.sum(slope(p)))
            return jax.lax.fori_loop(0, 40, lambda _, p: p - slope(p) / curvature(p), jnp.ones((1, 1)))

        return differentiable_minimum(cost, newton, jnp.zeros((1, 1)), jnp.full((1, 1), 9.0))

    step = 1e-6 * jnp.zeros_like(y).at[3].set(1.0)
    moved = (least(y + step) - least(y - step)) / 2e-6
    exact = jax.grad(lambda y: jnp.sum(least(y)))(y)[3, 0]
    np.testing.assert_allclose(exact, moved[0, 0], rtol=1e-5)
    slopes = -x * jnp.exp(-x * least(y))
    gauss_newton = slopes[3, 0] / jnp.sum(slopes**2)
    assert abs(gauss_newton / exact - 1) > 0.02


def test_a_bound_that_holds_does_not_move():
    y = noisy(20, 40.0).astype(jnp.float32)
    lower, upper = Ivim(*map(np.asarray, (0.0, 0.2, 1e-4, 3e-3))), Ivim(*map(np.asarray, (np.inf, 0.21, 6e-3, 0.5)))
    b = jnp.asarray(B, jnp.float32)

    def f(y):
        return jnp.sum(fit(y, b, lower=lower, upper=upper, steps=40).parameters.f)

    assert float(f(y)) == np.float32(0.21) * 20 or abs(float(f(y)) - 4.2) < 1e-4
    assert not np.asarray(jax.grad(f)(y)).any()


def test_without_signal_the_derivative_is_zero():
    y = jnp.zeros((16, 3), jnp.float32)
    slope = jax.grad(lambda y: jnp.sum(units(fit(y, jnp.asarray(B, jnp.float32)).parameters)))(y)
    assert np.isfinite(slope).all() and not np.asarray(slope).any()
