"""BSREM against itself written in NumPy, EM, and SciPy's optimiser."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from medjax import iterate
from medjax.penalty import Penalty, RelativeDifference, from_function, neighbors
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, select_subset
from medjax.pet.bsrem import Info, State, bsrem
from tests.pet.test_em import GRID, project, scan

NONE = from_function(lambda image: 0.0 * jnp.sum(image))


def rdp() -> RelativeDifference:
    return RelativeDifference(neighbors(GRID.shape, GRID.voxel_mm), 2.0, 1e-3)


def init(stacked: Acquisition, image: jax.Array | None = None) -> State:
    return bsrem(stacked, NONE, 0.0).init(image)


@jax.jit
def step(
    stacked: Acquisition,
    state: State,
    penalty: Penalty,
    weight: float,
    relaxation: float | jax.Array = 0.1,
    floor: float | jax.Array = 1e-6,
) -> tuple[State, Info]:
    return bsrem(stacked, penalty, weight, relaxation, floor).step(state)


def numpy_bsrem(stacked: Acquisition, weight: float, updates: int, relaxation: float, floor: float) -> np.ndarray:
    """The docstring's equation, one subset after another."""
    counts, factors, additive, matrix = (
        np.asarray(a) for a in (stacked.counts, stacked.multiplicative, stacked.additive, stacked.system)
    )
    slope_of_penalty = jax.jit(rdp().gradient)
    image, number = np.asarray(em.init(stacked).image), len(counts)
    order = np.asarray(em.subset_order(number))
    parts = np.einsum("kvbxy,kvbp->kxyp", matrix, factors)
    for n in range(updates):
        k = order[n % number]
        expected = factors[k] * np.einsum("vbxy,xyp->vbp", matrix[k], image) + additive[k]
        ratio = np.divide(counts[k], expected, out=np.zeros_like(expected), where=expected > 0)
        slope = np.einsum("vbxy,vbp->xyp", matrix[k], factors[k] * ratio) - parts[k]
        direction = number * slope - weight * np.asarray(slope_of_penalty(jnp.asarray(image)))
        size = 1 / (1 + relaxation * (n // number))
        image = np.maximum(image + size * (image + floor * image.mean()) / parts.sum(axis=0) * direction, 0)
    return image


@pytest.mark.parametrize("number", [1, 3])
def test_it_is_numpys(number: int, x64: None):
    stacked = scan(number, background=1.0)
    state = init(stacked)
    for n in range(3 * number):
        before = state
        state, info = step(stacked, state, rdp(), 0.2, 0.3, 0.01)
        part = select_subset(stacked, int(em.subset_order(number)[n % number]))
        np.testing.assert_allclose(info.deviance, part.deviance(part.expected(before.image)), rtol=1e-10)
        moved = np.linalg.norm(state.image - before.image) / np.linalg.norm(before.image)
        np.testing.assert_allclose(info.change, moved, rtol=1e-10)
    np.testing.assert_allclose(state.image, numpy_bsrem(stacked, 0.2, 3 * number, 0.3, 0.01), rtol=1e-9, atol=1e-12)


def test_without_penalty_and_relaxation_it_is_em(x64: None):
    stacked = scan(background=1.0)
    whole = select_subset(stacked, 0)
    state, image = init(stacked), em.init(stacked).image
    for _ in range(3):
        state, _ = step(stacked, state, NONE, 0.0, relaxation=0.0, floor=0.0)
        image = whole.update(image)
    np.testing.assert_allclose(state.image, image, rtol=1e-10, atol=1e-12)
    near, _ = step(stacked, init(stacked), NONE, 0.0, relaxation=0.0)
    np.testing.assert_allclose(near.image, whole.update(em.init(stacked).image), rtol=1e-4, atol=1e-6)


def test_it_approaches_scipys_optimum(x64: None):
    stacked, weight = scan(3, background=1.0), 6.0
    whole, penalty = scan(background=1.0), rdp()

    @jax.jit
    @jax.value_and_grad
    def slope(x: jax.Array) -> jax.Array:
        one, image = select_subset(whole, 0), x.reshape(GRID.shape)
        return weight * penalty.value(image) - one.log_likelihood(one.expected(image))

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = slope(jnp.asarray(x))
        return float(value), np.asarray(gradient)

    start = np.asarray(em.init(whole).image)
    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 1e-15, "gtol": 1e-9}
    best = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", bounds=[(0, None)] * start.size, options=options)
    state = init(stacked)
    errors: list[float] = []
    for _ in range(3 * 320):
        state, _ = step(stacked, state, rdp(), weight, 0.1, 1e-6)
        errors.append(float(np.linalg.norm(np.ravel(state.image) - best.x) / np.linalg.norm(best.x)))
    assert errors[-1] < errors[60] / 3 and errors[-1] < 1e-2
    assert abs(cost(np.ravel(state.image))[0] - best.fun) < 1e-4 * abs(cost(start.ravel())[0] - best.fun)


def test_a_run_is_its_steps(x64: None):
    stacked = scan(3, background=1.0)
    state, info = jax.jit(lambda: iterate.scan(bsrem(stacked, rdp(), 0.2, 0.3), init(stacked), 6))()
    want = init(stacked)
    for row in range(6):
        want, seen = step(stacked, want, rdp(), 0.2, 0.3, 1e-6)
        np.testing.assert_allclose(info.deviance[row], seen.deviance, rtol=1e-10)
    np.testing.assert_allclose(state.image, want.image, rtol=1e-10, atol=1e-12)
    assert state.step == 6 and info.change.shape == (6,)


def test_it_stays_non_negative_and_finite(x64: None):
    stacked = scan(3)
    stacked = replace(
        stacked, counts=stacked.counts.at[:, :, 20:].set(0.0), sensitivity=stacked.sensitivity.at[:, 0].set(0.0)
    )
    for weight in (0.0, 1e3):
        state = init(stacked)
        for _ in range(9):
            state, info = step(stacked, state, rdp(), weight, 0.1, 1e-6)
            assert np.all(np.isfinite(state.image)) and np.all(state.image >= 0) and np.isfinite(info.change)
        assert np.all(state.image[0] == 0)  # nothing is seen there
    bright = init(stacked, jnp.ones(GRID.shape))
    assert np.all(step(stacked, bright, rdp(), 0.0, 0.1, 1e-6)[0].image[0] == 0)  # whatever came in


def test_the_floor_lets_a_voxel_leave_zero(x64: None):
    stacked = scan(level=50.0)
    image = em.init(stacked).image.at[6, 6].set(0.0)
    for floor, leaves in ((0.0, False), (1e-3, True)):
        state, _ = step(stacked, init(stacked, image), NONE, 0.0, 0.1, floor)
        assert bool(np.all(state.image[6, 6] > 0)) is leaves
    assert np.sum(project(stacked.system[0], image)) > 0


def test_nothing_is_traced_twice(x64: None):
    stacked = scan(3)
    chex.clear_trace_counter()
    traced = jax.jit(chex.assert_max_traces(lambda state, *settings: bsrem(stacked, rdp(), *settings).step(state), n=1))
    state = init(stacked)
    for weight, relaxation in ((1e-3, 0.1), (2.0, 0.2), (0.5, 0.0)):
        state, _ = traced(state, weight, relaxation)
