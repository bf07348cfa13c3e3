"""MAP-EM: what its objective cannot do, SciPy's optimiser, and a penalty that changes with the image."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.optimize import minimize

from medjax import iterate
from medjax.diffusion import guidance
from medjax.diffusion.denoiser import Denoiser
from medjax.diffusion.sampler import ddim, sampler, uniform_times
from medjax.diffusion.sde import vp
from medjax.errors import ConfigError
from medjax.penalty import Patch, Quadratic, RelativeDifference, from_function, neighbors, patch_weights
from medjax.pet import em
from medjax.pet.acquisition import select_subset
from medjax.pet.bsrem import bsrem
from tests.pet.test_em import GRID, em_step, history, objective, prior, run, scan


def test_no_weight_is_mlem(x64: None):
    stacked = scan(3, background=1.0)
    plain, penalised = history(stacked, 5), history(stacked, 5, prior("quadratic"), 0.0)
    np.testing.assert_allclose(penalised[-1][0].image, plain[-1][0].image, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["quadratic", "bowsher"])
@pytest.mark.parametrize("weight", [1e-2, 1.0, 100.0])
def test_map_em_never_loses_its_objective(kind: str, weight: float, x64: None):
    stacked, penalty = scan(background=1.0), prior(kind)
    values = np.array(
        [objective(stacked, state.image, penalty, weight) for state, _ in history(stacked, 30, penalty, weight)]
    )
    assert np.all(np.diff(values) > -1e-12 * np.abs(values[0]))
    assert values[-1] > values[0] and values[1] > values[0]


@pytest.mark.parametrize("kind", ["quadratic", "bowsher"])
def test_map_em_finds_scipys_optimum(kind: str, x64: None):
    stacked, penalty, weight = scan(background=1.0), prior(kind), 0.6
    slope = jax.jit(jax.value_and_grad(lambda x: -objective(stacked, x.reshape(GRID.shape), penalty, weight)))

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = slope(jnp.asarray(x))
        return float(value), np.asarray(gradient)

    start = np.asarray(em.init(stacked).image)
    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 1e-15, "gtol": 1e-9}
    best = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", bounds=[(0, None)] * start.size, options=options)
    state, _ = run(stacked, 1500, penalty, weight)
    gained, missing = (abs(cost(np.ravel(image))[0] - best.fun) for image in (start, state.image))
    assert missing < 1e-6 * gained
    want = best.x.reshape(GRID.shape)
    assert np.linalg.norm(state.image - want) < 1e-3 * np.linalg.norm(want)
    assert np.linalg.norm(start - want) > 0.1 * np.linalg.norm(want)


def test_subsets_share_the_penalty(x64: None):
    """Three equal subsets are three times the likelihood: three times the weight gives the same steps."""
    whole, penalty = scan(background=1.0), prior("quadratic")
    thrice = jax.tree.map(lambda a: jnp.concatenate([a, a, a]), whole)
    start = em.init(whole)
    one = three = start
    for _ in range(3):
        one, three = em_step(whole, one, penalty, 0.5)[0], em_step(thrice, three, penalty, 1.5)[0]
    np.testing.assert_allclose(three.image, one.image, rtol=1e-12)
    assert np.linalg.norm(one.image - em_step(whole, start)[0].image) > 0.01 * np.linalg.norm(one.image)


@pytest.mark.parametrize("number", [1, 3])
def test_scale_of_counts_does_not_matter(number: int, x64: None):
    stacked, penalty = scan(number, background=1.0), prior("bowsher")
    louder = replace(stacked, counts=8 * stacked.counts, additive=8 * stacked.additive)
    quiet, loud = history(stacked, 6, penalty, 0.8)[-1], history(louder, 6, penalty, 0.1)[-1]
    np.testing.assert_allclose(loud[0].image, 8 * quiet[0].image, rtol=1e-10)
    np.testing.assert_allclose(loud[1].deviance, 8 * quiet[1].deviance, rtol=1e-8)


def test_penalty_weight_means_the_same_in_any_unit(x64: None):
    stacked, penalty = scan(background=1.0), prior("quadratic")
    whole = select_subset(stacked, 0)
    image = history(stacked, 6, penalty, em.penalty_weight(stacked, 30.0))[-1][0].image
    plain = history(stacked, 6)[-1][0].image
    assert np.linalg.norm(image - plain) > 0.01 * np.linalg.norm(plain)
    dimmer = replace(whole, multiplicative=whole.multiplicative / 4, sensitivity=whole.sensitivity / 4)
    restacked = jax.tree.map(lambda a: a[None], dimmer)
    again = history(restacked, 6, penalty, em.penalty_weight(restacked, 30.0))[-1][0].image
    np.testing.assert_allclose(again, 4 * image, rtol=1e-10)
    nothing = replace(stacked, counts=jnp.zeros_like(stacked.counts))
    assert np.isfinite(em.penalty_weight(nothing, 30.0))


@pytest.mark.parametrize("number", [1, 3])
def test_the_patch_penalty_changes_with_the_image_and_raises_its_objective(number: int, x64: None):
    stacked, weight = scan(number, background=1.0), 5.0
    penalty = Patch(neighbors(GRID.shape, GRID.voxel_mm), 0.2)
    rows = history(stacked, 12 * number, penalty, weight)
    whole = scan(background=1.0)
    values = np.array([objective(whole, state.image, penalty, weight) for state, _ in rows[::number]])
    assert values[-1] > values[0] and (number > 1 or np.all(np.diff(values) > -1e-9 * np.abs(values[0])))
    fixed = Quadratic(patch_weights(penalty.pairs, rows[0][0].image, 0.2))
    same, other = (history(stacked, n, fixed, weight)[-1][0].image for n in (1, 4))
    np.testing.assert_allclose(rows[1][0].image, same, rtol=1e-10)  # the first step is the quadratic's of its start
    assert np.linalg.norm(rows[4][0].image - other) > 1e-4 * np.linalg.norm(other)


def test_a_penalty_without_a_surrogate_is_refused_by_name(x64: None):
    with pytest.raises(
        ConfigError, match="MAP-EM needs a penalty with surrogate, value; FunctionPenalty has no surrogate"
    ):
        em.map_em(scan(), from_function(jnp.sum), 1.0)


def sampled(stacked):
    """DDS of a Gaussian prior given these counts."""
    guided = guidance.dds(Denoiser(Partial(lambda x, t: 0.5 * x + 0.5), vp()), select_subset(stacked, 0), 1.0)
    method = sampler(guided, vp(), uniform_times(8), ddim(1.0))
    return iterate.Algorithm(Partial(lambda: method.init(jax.random.key(0), GRID.shape)), method.step)


METHODS = {
    "map_em": lambda stacked: em.map_em(stacked, Quadratic(neighbors(GRID.shape, GRID.voxel_mm)), 0.5),
    "bsrem": lambda stacked: bsrem(stacked, RelativeDifference(neighbors(GRID.shape, GRID.voxel_mm)), 0.5),
    "dds": sampled,
}


@pytest.mark.parametrize("name", METHODS)
def test_a_loop_by_hand_has_the_bits_of_the_driver(name: str):
    with jax.enable_x64(True):
        stacked = scan(3, background=1.0)
    stacked = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), stacked)
    method = METHODS[name](stacked)
    step = jax.jit(lambda method, state: method.step(state))  # data are arguments of the program, not its constants
    by_hand = provided = method.init()
    for _ in range(5):
        by_hand, _ = step(method, by_hand)
        provided, _ = iterate.step(method, provided)
    looped = iterate.last(iterate.loop(method, method.init(), 5), None)
    for one in (by_hand, provided):
        np.testing.assert_array_equal(one[0], looped[0])
