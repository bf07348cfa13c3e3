"""BSREM against itself written in NumPy, EM, and SciPy's optimiser."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from medjax import iterate
from medjax.errors import ConfigError
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
    image, number, length = np.asarray(em.init(stacked).image), len(counts), 1.0
    order = np.asarray(em.subset_order(number))
    parts = np.einsum("kvbxy,kvbp->kxyp", matrix, factors)
    for n in range(updates):
        k = order[n % number]
        expected = factors[k] * np.einsum("vbxy,xyp->vbp", matrix[k], image) + additive[k]
        ratio = np.divide(counts[k], expected, out=np.zeros_like(expected), where=expected > 0)
        slope = np.einsum("vbxy,vbp->xyp", matrix[k], factors[k] * ratio) - parts[k]
        direction = number * slope - weight * np.asarray(slope_of_penalty(jnp.asarray(image)))
        above, penalty = image + floor * image.mean(), weight * np.asarray(slope_of_penalty(jnp.asarray(image)))
        move, tiny = above / parts.sum(axis=0) * direction, 1e-6
        ends = (weight * np.asarray(slope_of_penalty(jnp.asarray(image + t * move))) for t in (tiny, -tiny))
        curved = np.sum(move * np.subtract(*ends)) / (2 * tiny)
        curved += np.sum(move**2 * (parts.sum(axis=0) + np.maximum(penalty, 0)) / above)
        length = min(1, np.sum(direction * move) / curved) if n % number == 0 else length
        image = np.maximum(image + length / (1 + relaxation * (n // number)) * move, 0)
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
    np.testing.assert_allclose(state.image, numpy_bsrem(stacked, 0.2, 3 * number, 0.3, 0.01), rtol=1e-6, atol=1e-9)


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


@jax.jit
@partial(jax.value_and_grad, argnums=1)
def _cost(whole: Acquisition, x: jax.Array, weight: float) -> jax.Array:
    one, image = select_subset(whole, 0), x.reshape(GRID.shape)
    return weight * rdp().value(image) - one.log_likelihood(one.expected(image))


def scipys_optimum(weight: float) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
    """The maximiser of likelihood − weight · penalty by L-BFGS-B in float64, and the function it minimised."""
    whole = scan(background=1.0)

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _cost(whole, jnp.asarray(x), weight)
        return float(value), np.asarray(gradient)

    start = np.asarray(em.init(whole).image).ravel()
    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 1e-15, "gtol": 1e-9}
    best = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * start.size, options=options)
    return best.x, lambda image: cost(np.ravel(image))[0]


def test_it_approaches_scipys_optimum(x64: None):
    stacked, weight = scan(3, background=1.0), 6.0
    best, cost = scipys_optimum(weight)
    state = start = init(stacked)
    errors: list[float] = []
    for _ in range(3 * 400):
        state, _ = step(stacked, state, rdp(), weight, 0.1, 1e-6)
        errors.append(float(np.linalg.norm(np.ravel(state.image) - best) / np.linalg.norm(best)))
    assert errors[-1] < errors[60] / 3 and errors[-1] < 1e-2
    assert abs(cost(state.image) - cost(best)) < 1e-4 * abs(cost(start.image) - cost(best))


@pytest.mark.parametrize(
    "weight", [pytest.param(6.0, marks=pytest.mark.slow), 200.0, pytest.param(5000.0, marks=pytest.mark.slow)]
)
def test_one_subset_converges_without_relaxation_at_any_strength(weight: float, x64: None):
    """EM's own step is up to 200 times too long here, and runs away from the maximum."""
    stacked = scan(background=1.0)
    best, cost = scipys_optimum(weight)
    run = jax.jit(lambda weight: iterate.repeat(bsrem(stacked, rdp(), weight, 0.0), init(stacked), 3000).image)
    image = run(weight)
    assert np.linalg.norm(np.ravel(image) - best) < 1e-3 * np.linalg.norm(best)
    assert cost(image) - cost(best) < 1e-6 * (cost(init(stacked).image) - cost(best))


@jax.custom_vjp
def _half_square(x: jax.Array) -> jax.Array:
    return x


_half_square.defvjp(lambda x: (x, None), lambda _, g: (g,))


class OwnGradient:
    """The user's R(x) = Σ x² / 2, whose gradient has its own VJP, or one that JAX does not know."""

    def __init__(self, gradient: Callable[[jax.Array], jax.Array]) -> None:
        self.gradient = gradient

    def value(self, image: jax.Array) -> jax.Array:
        return jnp.sum(image**2) / 2


def test_a_users_gradient_may_have_a_custom_vjp_and_is_named_where_it_has_no_derivative():
    stacked = scan(background=1.0)
    plain = from_function(lambda image: jnp.sum(image**2) / 2)
    states = [
        jax.jit(lambda s, penalty=penalty: bsrem(stacked, penalty, 200.0, 0.0).step(s)[0])(init(stacked)).image
        for penalty in (OwnGradient(_half_square), plain)
    ]
    np.testing.assert_allclose(*states, rtol=1e-5)
    unknown = OwnGradient(lambda x: jax.pure_callback(np.asarray, x, x))
    with pytest.raises(ConfigError, match=r"^BSREM: the gradient of the penalty OwnGradient cannot be"):
        jax.eval_shape(bsrem(stacked, unknown, 1.0).step, init(stacked))


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
