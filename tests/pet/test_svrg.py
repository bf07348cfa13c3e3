"""SVRG and BSREM converge to the maximum that a long run of another algorithm finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.errors import ConfigError, DataError
from medjax.penalty import Quadratic, RelativeDifference, from_function, neighbors
from medjax.pet import em
from medjax.pet.acquisition import acquire, ordered_subsets
from medjax.pet.bsrem import bsrem
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.projection import project
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import Scanner, lors
from medjax.pet.svrg import objective, preconditioner, svrg
from medjax.pet.system import build_system

GRID = Grid((16, 16, 3), (5.0, 5.0, 2.0))


@pytest.fixture(scope="module")
def data():
    """Whole and in nine subsets, in float64."""
    with jax.enable_x64(True):
        scanner = Scanner("test", 72, 2, 80.0, 4.0, 35, 4.0)
        system = build_system(lors(scanner), GRID)
        x, y, _ = centers_mm(GRID)
        image = jnp.asarray(np.broadcast_to((np.hypot(x, y) < 30) + 2.0 * (np.hypot(x - 8, y) < 8), GRID.shape), float)
        expected = 2 * project(system, image) + 5
        counts = jnp.asarray(np.random.default_rng(0).poisson(expected), float)
        whole = acquire(system, counts, 2.0, 5.0)
        return whole, ordered_subsets(whole, 9)


@pytest.mark.optimized
@pytest.mark.parametrize("kind", ["quadratic", "relative difference"])
def test_the_gap_to_the_maximum_closes(kind: str, data, x64):
    """(Φ* − Φ) / (Φ* − Φ of the first image) ≤ 1e-6 after 40 epochs, Φ* after 200; and MAP-EM's, where there is one."""
    whole, stacked = data
    pairs = neighbors(GRID.shape, GRID.voxel_mm)
    smoothed = RelativeDifference(pairs, epsilon=3e-3)  # 1e-3 of the maximum, as in PETRIC
    penalty, weight = (Quadratic(pairs), 2.0) if kind == "quadratic" else (smoothed, 20.0)
    start = iterate.scan(em.osem(stacked), em.init(stacked), 9)[0].image
    algorithm = svrg(stacked, penalty, weight, gaussian_psf(GRID, 5.0))
    value = jax.jit(lambda image: objective(stacked, penalty, weight, image))
    run = jax.jit(lambda state, n: iterate.repeat(algorithm, state, n))
    state = run(algorithm.init(start), 9 * 40)
    best = value(run(state, 9 * 200).image)
    gap = float((best - value(state.image)) / (best - value(start)))
    assert -1e-9 < gap < 1e-6
    if kind == "quadratic":  # another algorithm's maximum, from another image
        one = ordered_subsets(whole, 1)
        other = jax.jit(lambda state: iterate.repeat(em.map_em(one, penalty, weight), state, 3000))(em.init(one))
        assert 0 <= float((best - value(other.image)) / (best - value(start))) < 5e-6  # it is still rising
        np.testing.assert_allclose(run(state, 9 * 200).image, other.image, atol=1e-3 * float(other.image.max()))


@pytest.mark.optimized
@pytest.mark.parametrize("kind", ["quadratic", "relative difference"])
def test_bsrem_reaches_the_maximum_of_svrg(kind: str, data, x64):
    """A gap of 1e-6 after 20 epochs of nine subsets, relaxed, and 260 of one; subsets alone: it falls as 1 / epoch."""
    whole, stacked = data
    pairs = neighbors(GRID.shape, GRID.voxel_mm)
    smoothed = RelativeDifference(pairs, epsilon=3e-3)
    penalty, weight = (Quadratic(pairs), 2.0) if kind == "quadratic" else (smoothed, 20.0)
    start = iterate.scan(em.osem(stacked), em.init(stacked), 9)[0].image
    run = jax.jit(lambda algorithm, state, n: iterate.repeat(algorithm, state, n))
    reference = svrg(stacked, penalty, weight, gaussian_psf(GRID, 5.0))
    value = jax.jit(lambda image: objective(stacked, penalty, weight, image))
    best, first = value(run(reference, reference.init(start), 9 * 200).image), value(start)
    fixed = preconditioner(stacked, penalty, weight, start, gaussian_psf(GRID, 5.0))
    relaxed = bsrem(stacked, penalty, weight, 0.3, preconditioner=fixed)
    alone = bsrem(ordered_subsets(whole, 1), penalty, weight, 0.0, preconditioner=fixed)
    state = run(relaxed, relaxed.init(start), 9 * 20)
    gaps = [float((best - value(state.image)) / (best - first))]
    for epochs in (60, 80):
        state = run(relaxed, state, 9 * epochs)
        gaps.append(float((best - value(state.image)) / (best - first)))
    assert 3 < gaps[0] / gaps[1] < 6 and 1.6 < gaps[1] / gaps[2] < 2.6 and gaps[2] > 1e-4
    relaxed = bsrem(stacked, penalty, weight, 0.1, preconditioner=fixed)
    image = run(alone, alone.init(run(relaxed, relaxed.init(start), 9 * 20).image), 260).image
    assert -1e-9 < float((best - value(image)) / (best - first)) < 1e-6


def test_what_it_needs(data):
    whole, stacked = data
    with pytest.raises(ConfigError, match="SVRG needs a penalty with gradient, curvature"):
        svrg(stacked, from_function(jnp.sum), 1.0)
    with pytest.raises(DataError, match="without subsets"):
        svrg(whole, Quadratic(neighbors(GRID.shape, GRID.voxel_mm)), 1.0)
