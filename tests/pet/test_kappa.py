"""κ against the whole Hessian, and what it is for: equal resolution where the data are not equally certain."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.penalty import Neighbors, Quadratic, RelativeDifference, edge_weights, neighbors
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.kappa import hessian_row_sums, kappa
from medjax.pet.projection import project
from medjax.pet.scanner import Scanner, lors
from medjax.pet.svrg import svrg
from medjax.pet.system import build_system

GRID = Grid((16, 16, 1), (5.0, 5.0, 2.0))
CLEAR, DENSE = (4, 8, 0), (11, 8, 0)  # a voxel within each of two discs


@pytest.fixture(scope="module")
def data() -> tuple[jax.Array, Acquisition]:
    """Two equal discs, one of which absorbs most of what it emits, and their expected counts, in float64."""
    with jax.enable_x64(True):
        system = build_system(lors(Scanner("test", 72, 1, 80.0, 4.0, 35, 4.0)), GRID)
        x, y, _ = centers_mm(GRID)
        clear, dense = (np.hypot(x - at, y) < 16 for at in (-18.0, 18.0))
        image = jnp.asarray(0.1 + 1.0 * (clear | dense))
        factors = jnp.exp(-project(system, jnp.asarray(0.06 * dense)))  # six times water
        return image, acquire(system, factors * project(system, image) + 0.5, factors, 0.5)


def test_it_is_the_root_of_the_hessians_row_sums(data, x64: None):
    image, whole = data
    other = image * jnp.asarray(np.random.default_rng(0).uniform(0.5, 2, GRID.shape))

    def cost(x: jax.Array) -> jax.Array:
        return -whole.log_likelihood(whole.expected(x))

    _, want = jax.jit(lambda x: jax.jvp(jax.grad(cost), (x,), (jnp.ones_like(x),)))(other)
    np.testing.assert_allclose(hessian_row_sums(whole, other), want, rtol=1e-9)
    np.testing.assert_allclose(kappa(whole, other), np.sqrt(want), rtol=1e-9)
    np.testing.assert_allclose(kappa(ordered_subsets(whole, 6), other), np.sqrt(want), rtol=1e-9)


def recovery(data: tuple[jax.Array, Acquisition], pairs: Neighbors, kind: str, weight: float) -> np.ndarray:
    """Contrast recovery of an impulse in each disc: what one of 5 % of the disc adds to the converged image there."""
    image, whole = data
    penalty = Quadratic(pairs) if kind == "quadratic" else RelativeDifference(pairs, epsilon=0.02)
    stacked = ordered_subsets(whole, 6)
    order = [stacked.counts]
    for at in (CLEAR, DENSE):
        changed = replace(whole, counts=whole.expected(image.at[at].multiply(1.05)))
        order.append(ordered_subsets(changed, 6).counts)

    @jax.jit
    def reconstruct(counts: jax.Array) -> jax.Array:
        algorithm = svrg(replace(stacked, counts=counts), penalty, weight)
        return iterate.repeat(algorithm, algorithm.init(image), 6 * 60).image

    plain, clear, dense = (reconstruct(counts) for counts in order)
    return np.array([float((new - plain)[at] / (0.05 * image[at])) for new, at in ((clear, CLEAR), (dense, DENSE))])


@pytest.mark.optimized
@pytest.mark.parametrize("kind", ["quadratic", "relative difference"])
def test_resolution_is_more_uniform_with_it(kind: str, data, x64: None):
    plain = neighbors(GRID.shape, GRID.voxel_mm)
    certainty = kappa(data[1], data[0])
    weight = 3.0 if kind == "quadratic" else 20.0
    constant = recovery(data, plain, kind, weight)
    varying = recovery(data, edge_weights(plain, certainty), kind, weight / float(certainty.mean()) ** 2)
    assert np.ptp(varying) < np.ptp(constant) / 2
