"""The drivers against loops written by hand: the same bits, resumed or not, with n static, traced or on the host."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from medjax import iterate
from medjax.errors import DataError
from medjax.iterate import Algorithm, static_partial


class State(NamedTuple):
    x: Any
    step: Any
    key: Any


class Info(NamedTuple):
    norm: Any


def descent(target: jax.Array, rate: float | jax.Array) -> Algorithm:
    """Noisy gradient descent to a target."""
    return Algorithm(Partial(start, target), Partial(step, target, rate))


def start(target: jax.Array, key: jax.Array) -> State:
    return State(jnp.zeros_like(target), jnp.zeros((), jnp.int32), key)


def step(target: jax.Array, rate: float | jax.Array, state: State, push: jax.Array | float = 0.0) -> tuple[State, Info]:
    noise = 0.01 * jax.random.normal(jax.random.fold_in(state.key, state.step), target.shape)
    x = state.x - rate * (state.x - target) + noise + push
    return State(x, state.step + 1, state.key), Info(jnp.sqrt(jnp.sum(x**2)))


TARGET = jnp.linspace(0.0, 1.0, 7)
KEY = jax.random.key(3)


def by_hand(n: int, rate: float = 0.3) -> tuple[State, list[float]]:
    algorithm = descent(TARGET, rate)
    state, norms = algorithm.init(KEY), []
    jitted = jax.jit(algorithm.step)
    for _ in range(n):
        state, info = jitted(state)
        norms.append(float(info.norm))
    return state, norms


def test_the_host_loop_has_the_bits_of_a_loop_written_by_hand():
    algorithm = descent(TARGET, 0.3)
    want, norms = by_hand(6)
    *_, (state, info) = iterate.loop(algorithm, algorithm.init(KEY), 6, every=6)
    np.testing.assert_array_equal(state.x, want.x)
    np.testing.assert_array_equal(info.norm, np.array(norms, np.float32))


def test_scan_and_repeat_agree_with_it_to_rounding_and_repeat_takes_a_traced_number():
    algorithm = descent(TARGET, 0.3)
    want, norms = by_hand(6)
    state, info = jax.jit(lambda a, s: iterate.scan(a, s, 6))(algorithm, algorithm.init(KEY))
    np.testing.assert_allclose(state.x, want.x, rtol=1e-6)
    np.testing.assert_allclose(info.norm, norms, rtol=1e-6)
    chex.clear_trace_counter()
    repeat = jax.jit(chex.assert_max_traces(iterate.repeat, n=1))
    for n in (0, 3, 6):
        np.testing.assert_allclose(repeat(algorithm, algorithm.init(KEY), n).x, by_hand(n)[0].x, rtol=1e-6, atol=1e-7)


def test_a_resumed_run_is_the_run():
    algorithm = descent(TARGET, 0.3)
    whole = iterate.last(iterate.loop(algorithm, algorithm.init(KEY), 7), algorithm.init(KEY))
    for half in range(8):
        first = iterate.last(iterate.loop(algorithm, algorithm.init(KEY), half), algorithm.init(KEY))
        chex.assert_trees_all_equal(
            iterate.last(iterate.loop(algorithm, first, 7 - half), first)._replace(key=0), whole._replace(key=0)
        )
    scanned, _ = iterate.scan(algorithm, iterate.scan(algorithm, algorithm.init(KEY), 3)[0], 4)
    np.testing.assert_allclose(scanned.x, whole.x, rtol=1e-6)


def test_inputs_are_a_function_of_the_step_and_go_on_when_resumed():
    algorithm, pushes = descent(TARGET, 0.3), np.arange(5.0, dtype=np.float32) / 10
    asked: list[int] = []

    def inputs(n: int) -> np.ndarray:
        asked.append(n)
        return pushes[n]

    whole = iterate.last(iterate.loop(algorithm, algorithm.init(KEY), 5, inputs=inputs), None)
    half = iterate.last(iterate.loop(algorithm, algorithm.init(KEY), 2, inputs=inputs), None)
    again = iterate.last(iterate.loop(algorithm, half, 3, inputs=inputs), None)
    assert asked == [*range(5), 0, 1, 2, 3, 4]
    np.testing.assert_array_equal(again.x, whole.x)
    scanned, _ = iterate.scan(algorithm, algorithm.init(KEY), 5, inputs=jnp.asarray(pushes))
    np.testing.assert_allclose(scanned.x, whole.x, rtol=1e-6)


def test_it_yields_every_so_many_steps_and_after_the_last_and_saves_then():
    algorithm = descent(TARGET, 0.3)
    saved: list[int] = []
    seen = [
        (int(state.step), len(info.norm))
        for state, info in iterate.loop(
            algorithm, algorithm.init(KEY), 7, every=3, save=lambda state, n: saved.append(n), donate=True
        )
    ]
    assert seen == [(3, 3), (6, 3), (7, 1)] and saved == [3, 6, 7]
    assert list(iterate.loop(algorithm, algorithm.init(KEY), 0)) == []


def test_every_is_one_step_or_more():
    algorithm = descent(TARGET, 0.3)
    with pytest.raises(DataError, match="every: 0; expected 1 or more steps"):
        next(iterate.loop(algorithm, algorithm.init(KEY), 2, every=0))


def test_progress_wraps_the_numbers_of_the_steps():
    algorithm = descent(TARGET, 0.3)
    first = iterate.last(iterate.loop(algorithm, algorithm.init(KEY), 2), None)
    ranges: list[range] = []
    list(iterate.loop(algorithm, first, 3, progress=lambda steps: ranges.append(steps) or steps))
    assert ranges == [range(2, 5)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stops_with_its_name_and_step_and_the_last_state_is_good(bad: float):
    algorithm = descent(TARGET, 0.3)
    kept = []
    with pytest.raises(DataError, match=r"^x.* not finite by step 4") as caught:
        for state, _ in iterate.loop(
            algorithm, algorithm.init(KEY), 6, every=2, inputs=lambda n: np.float32(bad if n == 2 else 0)
        ):
            kept.append(state)
    assert "\n" not in str(caught.value)
    assert len(kept) == 1 and bool(jnp.all(jnp.isfinite(kept[0].x)))


def test_an_info_of_nan_stops_though_the_state_is_finite():
    info = {"misfit": jnp.asarray(jnp.nan), "bound": jnp.asarray(jnp.inf)}
    algorithm = descent(TARGET, 0.3)
    odd = algorithm._replace(step=lambda state: (algorithm.step(state)[0], info))
    with pytest.raises(DataError, match=r"^misfit not finite by step 1$"):
        list(iterate.loop(odd, algorithm.init(KEY), 1))


def test_a_sweep_over_a_hyper_parameter_is_one_line_and_one_trace():
    algorithm = descent(TARGET, 0.3)
    rates = jnp.array([0.1, 0.3, 0.5, 0.9])
    chex.clear_trace_counter()
    counted = chex.assert_max_traces(step, n=1)

    def final(rate: jax.Array) -> jax.Array:
        return iterate.scan(Algorithm(algorithm.init, Partial(counted, TARGET, rate)), algorithm.init(KEY), 6)[0].x

    got = jax.jit(jax.vmap(final))(rates)
    for rate, x in zip(rates, got, strict=True):
        np.testing.assert_allclose(x, by_hand(6, float(rate))[0].x, rtol=1e-5, atol=1e-6)


def scaled(factor: float, x: jax.Array) -> jax.Array:
    return factor * x


def test_static_partials_built_equally_are_equal_and_compiled_once():
    one, other = static_partial(scaled, 2.0), static_partial(scaled, 2.0)
    assert one == other and hash(one) == hash(other) and one != static_partial(scaled, 3.0)
    assert static_partial(scaled, factor=1.0)(x=3.0) == 3.0
    jitted = jax.jit(lambda f, x: f(x))
    assert float(jitted(one, 1.5)) == float(jitted(other, 1.5)) == 3.0
    assert jitted._cache_size() == 1


def test_the_loop_compiles_equal_steps_once():
    before = iterate._jitted._cache_size()
    for _ in range(3):
        algorithm = Algorithm(start, static_partial(bound, 0.25))
        list(iterate.loop(algorithm, start(TARGET, KEY), 2))
    assert iterate._jitted._cache_size() == before + 1


def bound(rate: float, state: State) -> tuple[State, Info]:
    return step(TARGET, rate, state)
