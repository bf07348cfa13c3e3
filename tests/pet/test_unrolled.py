"""Unrolled EM: without a regulariser it is OSEM; its gradient is that of finite differences."""

import jax
import jax.numpy as jnp
import numpy as np

from medjax import iterate
from medjax.pet import em
from medjax.pet.acquisition import acquire, ordered_subsets
from medjax.pet.grid import Grid
from medjax.pet.scanner import parallel_lors
from medjax.pet.system import build_system
from medjax.pet.unrolled_em import unrolled_em

GRID = Grid((12, 12, 1), (4.0, 4.0, 4.0))


def stacked(subsets=3):
    system = build_system(parallel_lors(24, 20, 4.0), GRID)
    counts = jnp.asarray(np.random.default_rng(0).poisson(5.0, (24, 20, 1)), jnp.float32)
    return ordered_subsets(acquire(system, counts, 0.1, 0.5), subsets)


def test_without_strength_it_is_osem():
    parts = stacked()
    start = em.init(parts)
    expected = iterate.scan(em.osem(parts), start, 6)[0].image
    np.testing.assert_allclose(unrolled_em(parts, start.image, lambda x: 0 * x, 0.0, 6), expected, rtol=1e-5)


def test_updates_share_an_output_of_the_network():
    """Three of five updates at once, the last two: the anchor is of the image before them."""
    parts, seen = stacked(), []
    start = em.init(parts).image

    def regularize(x):
        seen.append(x)
        return 0.5 * x + 1

    made = unrolled_em(parts, start, regularize, 1.0, 5, 3)
    first = unrolled_em(parts, start, lambda x: 0.5 * start + 1, 1.0, 3)
    assert len(seen) == 2
    np.testing.assert_allclose(seen[1], first, rtol=1e-5)
    assert np.abs(made - first).max() > 1e-3


def test_great_strength_gives_the_regulariser():
    parts = stacked()
    made = unrolled_em(parts, em.init(parts).image, lambda x: jnp.full_like(x, 2.0), 1e6, 3)
    np.testing.assert_allclose(made, 2.0, rtol=1e-3)


def test_gradients_go_through_projector_and_fusion():
    parts = stacked()
    start = iterate.scan(em.osem(parts), em.init(parts), 3)[0].image

    def loss(weight):
        return jnp.sum(unrolled_em(parts, start, lambda x: weight * x, 1.0, 4) ** 2) / 1e4

    slope = jax.grad(loss)(jnp.asarray(0.8))
    step = 2e-2
    np.testing.assert_allclose(slope, (loss(0.8 + step) - loss(0.8 - step)) / (2 * step), rtol=5e-3)
