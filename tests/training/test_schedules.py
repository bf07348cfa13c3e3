"""The schedules, written down."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.training.schedules import warmup_cosine, warmup_stable_decay


@pytest.mark.parametrize(("steps", "end"), [(100, 0.0), (60, 0.2)])
def test_it_is_written_down(steps: int, end: float):
    schedule, warm = warmup_cosine(2.0, steps, end), steps // 20
    n = np.arange(steps + 5)
    down = end + (2.0 - end) * (1 + np.cos(np.pi * np.clip((n - warm) / (steps - warm), 0, 1))) / 2
    np.testing.assert_allclose([schedule(k) for k in n], np.where(n < warm, 2.0 * n / warm, down), rtol=1e-5, atol=1e-6)


def test_one_step_has_a_schedule_too():
    assert float(warmup_cosine(1.0, 1)(0)) == 0.0 and float(warmup_cosine(1.0, 1)(1)) == 1.0


@pytest.mark.parametrize("end", [0.0, 0.02])
def test_a_traced_rate_is_vmapped_and_compiles_once(end: float):
    rates, n = jnp.array([0.003, 0.1]), jnp.arange(70)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def schedules(rates):
        return jax.vmap(lambda rate: jax.vmap(warmup_cosine(rate, 60, end * rate))(n))(rates)

    for given in (rates, 2 * rates):
        optaxs = [optax.warmup_cosine_decay_schedule(0.0, rate, 3, 60, end * rate)(n) for rate in np.asarray(given)]
        np.testing.assert_allclose(schedules(given), optaxs, rtol=1e-5, atol=1e-8)


def test_warmup_stable_decay_is_written_down():
    """A fiftieth up, flat, the last quarter down to 0, and 0 after the end."""
    n = np.arange(220)
    expected = np.interp(n, [0, 4, 150, 200], [0, 0.3, 0.3, 0])
    np.testing.assert_allclose(jax.vmap(warmup_stable_decay(0.3, 200))(n), expected, rtol=1e-5, atol=1e-7)
    tenth = np.interp(n, [0, 4, 180, 200], [0, 0.3, 0.3, 0])
    np.testing.assert_allclose(jax.vmap(warmup_stable_decay(0.3, 200, 0.1))(n), tenth, rtol=1e-5, atol=1e-7)
    assert [float(warmup_stable_decay(1.0, 1)(k)) for k in range(3)] == [0, 0, 0]
    assert float(warmup_stable_decay(1.0, 4)(1)) == 1


def test_its_traced_rates_are_vmapped():
    rates, n = jnp.array([0.003, 0.1]), jnp.arange(60)
    found = jax.jit(jax.vmap(lambda rate: jax.vmap(warmup_stable_decay(rate, 60))(n)))(rates)
    unit = np.asarray(jax.vmap(warmup_stable_decay(1.0, 60))(n))
    np.testing.assert_allclose(found, np.outer(rates, unit), rtol=1e-6)
