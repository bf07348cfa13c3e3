"""Tail fitting of scatter, and its estimation by rounds: against scales that were put in."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.pet.compton import EnergyWindow
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.michelogram import Michelogram, michelogram
from medjax.pet.projector3d import backproject, project
from medjax.pet.scanner import Scanner, lors
from medjax.pet.scatter import ScatterSampling, simulate_scatter
from medjax.pet.scatter_estimate import estimate_scatter
from medjax.pet.scatter_tails import fit_scatter_scale, tail_mask
from medjax.pet.system3d import build_system3d

PLANES = michelogram(6, 3, 4)  # segments 0, +1 and −1
SEGMENTS = np.repeat([0, 1, 2], PLANES.planes_per_segment)


def _arrays(level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scatter, randoms, trues and tails: a body in the middle bins of 40 views × 41 bins."""
    distance = np.abs(np.arange(41) - 20)[None, :, None]
    shape = (40, 41, PLANES.planes)
    axial = 1 + 0.3 * np.cos(np.arange(PLANES.planes))
    scatter = np.broadcast_to(level * np.exp(-((distance / 12) ** 2)) * axial, shape)
    trues = np.broadcast_to(np.where(distance < 10, 8.0 * level, 0.0), shape)
    attenuation = np.broadcast_to(np.where(distance < 10, 0.2, 1.0), shape)
    return scatter, np.full(shape, 0.4 * level), trues, tail_mask(attenuation, margin=2)


def test_tails_lie_outside_the_body_and_its_margin():
    factors = np.ones((2, 30, 3))
    factors[0, 10:15, 1] = 0.3
    tails = tail_mask(factors, margin=4)
    assert tails[1].all() and tails[:, :, [0, 2]].all()
    np.testing.assert_array_equal(np.flatnonzero(~tails[0, :, 1]), np.arange(6, 19))
    assert tail_mask(factors, margin=0)[0, :, 1].sum() == 25
    with pytest.raises(DataError, match=r"attenuation factors: 1 to 3.33; expected e\^−∫μ, from 0 to 1"):
        tail_mask(1 / factors)


@pytest.mark.parametrize("method", ["poisson", "least-squares"])
def test_scales_are_exact_without_noise(method):
    scatter, randoms, trues, tails = _arrays(5.0)
    of_segment = np.array([1.4, 0.7, 2.5])[SEGMENTS]
    fit = fit_scatter_scale(of_segment * scatter + randoms + trues, randoms, scatter, tails, PLANES, method=method)
    np.testing.assert_allclose(fit.scale, of_segment, rtol=1e-9)
    assert not fit.at_bound.any()
    of_plane = 1 + 0.02 * np.arange(PLANES.planes)
    counts = of_plane * scatter + randoms + trues
    fit = fit_scatter_scale(counts, randoms, scatter, tails, PLANES, method=method, fwhm_planes=0.3)
    np.testing.assert_allclose(fit.scale, of_plane, rtol=1e-4)  # a Gaussian of a third of a plane: neighbors have 1e-13
    nothing = np.zeros_like(randoms)
    fit = fit_scatter_scale(of_segment * scatter, nothing, scatter, tails, PLANES, method=method)
    np.testing.assert_allclose(fit.scale, of_segment, rtol=1e-9)


@pytest.mark.parametrize("method", ["poisson", "least-squares"])
def test_noisy_scales_scatter_by_their_standard_deviation(method):
    """About one count a bin in the tails; over 60 realizations of 3 segments."""
    scatter, randoms, trues, tails = _arrays(1.0)
    expected = 1.4 * scatter + randoms + trues
    rng = np.random.default_rng(0)
    pulls, planes, deviations = [], [], []
    for _ in range(60):
        counts = rng.poisson(expected).astype(float)
        fit = fit_scatter_scale(counts, randoms, scatter, tails, PLANES, method=method)
        first = np.searchsorted(SEGMENTS, [0, 1, 2])
        pulls.append((fit.scale[first] - 1.4) / fit.deviation[first])
        smooth = fit_scatter_scale(counts, randoms, scatter, tails, PLANES, method=method, fwhm_planes=4.0)
        planes.append((smooth.scale - 1.4) / smooth.deviation)
        deviations.append((fit.deviation.max(), smooth.deviation.min()))
    assert abs(np.mean(pulls)) < 0.25 and 0.85 < np.std(pulls) < 1.15
    assert abs(np.mean(planes)) < 0.25
    if method == "poisson":  # the weights are those of maximum likelihood
        assert 0.85 < np.std(planes) < 1.15
    assert all(one < each for one, each in deviations)  # a scale a plane is less certain than one a segment


def test_what_is_below_the_randoms_and_bounds():
    scatter, randoms, trues, tails = _arrays(2.0)
    fit = fit_scatter_scale(0.5 * randoms + trues, randoms, scatter, tails, PLANES, bounds=(0.0, 5.0))
    assert fit.scale.max() < 1e-6  # no scatter at all is the most likely
    fit = fit_scatter_scale(randoms + trues + 9 * scatter, randoms, scatter, tails, PLANES, bounds=(0.2, 3.0))
    assert fit.at_bound.all() and np.all(fit.scale == 3.0)
    fit = fit_scatter_scale(np.zeros_like(randoms), randoms, scatter, tails, PLANES)
    assert fit.at_bound.all() and np.all(fit.scale == 0.2)


def test_bad_input_is_one_line():
    scatter, randoms, trues, tails = _arrays(2.0)
    counts = scatter + randoms + trues
    none = tails & (SEGMENTS != 1)
    with pytest.raises(
        DataError, match="segment of ring differences 2 to 4: no bin with scatter lies outside the body"
    ):
        fit_scatter_scale(counts, randoms, scatter, none, PLANES)
    with pytest.raises(DataError, match="scatter: holds values that are negative or not finite"):
        fit_scatter_scale(counts, randoms, np.where(tails, np.nan, scatter), tails, PLANES)
    with pytest.raises(DataError, match=r"bounds of the scatter scale: 5 to 0.2"):
        fit_scatter_scale(counts, randoms, scatter, tails, PLANES, bounds=(5.0, 0.2))
    with pytest.raises(DataError, match=r"counts: 25 planes; the Michelogram has 11"):
        fit_scatter_scale(counts, randoms, scatter, tails, michelogram(6, 3, 1))
    with pytest.raises(ConfigError, match="rounds of scatter estimation: 0"):
        estimate_scatter(lambda b: jnp.zeros((2, 2, 1)), lambda x: x, counts, randoms, scatter, tails, PLANES, rounds=0)


# ── reconstruct, simulate, scale ──

SCANNER = Scanner("test", 48, 5, 320.0, 32.0, 37, 16.0)
RINGS: Michelogram = michelogram(5, 3, 4)
GRID = Grid((26, 26, 9), (16.0, 16.0, 16.0))


def test_rounds_find_the_scatter_of_a_body():
    """Counts of a body with 1.3 times its single scatter; MLEM of 20 iterations in each round."""
    x, y, z = centers_mm(GRID)
    body = (np.hypot(x, y / 0.8) < 110) & (np.abs(z) < 70)
    activity = jnp.asarray(body * (1 + 2.0 * (np.hypot(x - 40, y) < 30)), jnp.float32)
    mu = jnp.asarray(0.0096 * body, jnp.float32)
    system = build_system3d(lors(SCANNER), RINGS, 32.0, GRID)
    attenuation = np.exp(-np.asarray(project(system, mu)))
    normalization = np.broadcast_to(RINGS.ring_pairs / 100.0, attenuation.shape).astype(np.float32)
    sampling = ScatterSampling(rings=5, crystals=24, cell_mm=40.0, voxel_mm=16.0)
    window = EnergyWindow(430.0, 610.0, 0.15)
    simulate = partial(
        simulate_scatter, mu=mu, grid=GRID, scanner=SCANNER, planes=RINGS, window=window, sampling=sampling
    )
    factors = jnp.asarray(normalization * attenuation)
    trues, scatter = factors * project(system, activity), 1.3 * normalization * np.asarray(simulate(activity))
    randoms = np.full(attenuation.shape, 0.2 * float(trues.mean()), np.float32)
    counts = np.asarray(trues) + scatter + randoms
    sensitivity = jnp.maximum(backproject(system, factors), 1e-6)

    def reconstruct(additive: np.ndarray) -> np.ndarray:
        image = jnp.asarray(body, jnp.float32)
        for _ in range(20):
            ratio = jnp.asarray(counts) / (factors * project(system, image) + jnp.asarray(additive))
            image = image * backproject(system, factors * ratio) / sensitivity
        return np.asarray(image)

    tails = tail_mask(attenuation, margin=1)
    estimate = estimate_scatter(
        reconstruct, lambda image: simulate(jnp.asarray(image)), counts, randoms, normalization, tails, RINGS, rounds=3
    )
    fraction = scatter.sum() / (scatter.sum() + np.asarray(trues).sum())
    assert 0.15 < fraction < 0.5  # a scatter fraction as bodies have
    assert np.abs(estimate.scatter - scatter).max() < 0.04 * scatter.max()
    assert estimate.scatter.sum() == pytest.approx(scatter.sum(), rel=0.02)
    np.testing.assert_allclose(estimate.scale.scale, 1.3, rtol=0.05)
    assert estimate.changes[0] == 1.0 and estimate.changes[2] < 0.3 * estimate.changes[1] < 0.1
