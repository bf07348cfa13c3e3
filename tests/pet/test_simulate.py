"""Simulated scans against closed-form integrals, the statistics they promise, and the crime they must not commit."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from medjax.errors import DataError
from medjax.pet import projector, simulate
from medjax.pet.acquisition import acquire
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scanner import Scanner, coverage, lors
from medjax.pet.system import build_system
from tests.pet.oracle import ellipse_image, ellipse_integrals

SMALL = Scanner("small", 72, 2, 80.0, 8.0, 49, 4.0, depth_mm=9.6, block=9, gaps=True)
FINE = Grid((48, 48, 3), (1.5, 1.5, 4.0))
COARSE = Grid((18, 18, 3), (4.0, 4.0, 4.0))
DISC = ((0.1, 0.05, 0.7, 0.6, 0.3, 1.0),)


def disc(value: float = 1.0) -> np.ndarray:
    return np.repeat(value * ellipse_image(48, 1.5, DISC)[..., None], 3, axis=-1).astype(np.float32)


def chords(shift: float = 0.0) -> np.ndarray:
    return ellipse_integrals(lors(SMALL, shift), 36.0, DISC)


@pytest.fixture(scope="module")
def trues() -> jax.Array:
    """Expected trues of the disc with attenuation, by the usual three rays."""
    return simulate.expected_trues(SMALL, disc(), FINE, disc(0.0096))


# ── expected trues ──


def test_trues_are_the_attenuated_mean_over_rays(trues: jax.Array):
    want = np.mean([chord * np.exp(-0.0096 * chord) for chord in map(chords, (-1 / 3, 0.0, 1 / 3))], axis=0) * coverage(
        SMALL
    )
    error = np.abs(np.asarray(trues[..., 1]) - want)[want > 0]
    assert error.mean() < 0.5 and np.percentile(error, 95) < 1.5  # of up to 40 mm
    assert np.all(np.asarray(trues)[coverage(SMALL) == 0] == 0)
    np.testing.assert_allclose(trues[..., 0], trues[..., 2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(trues[..., 0], trues[..., 1], rtol=1e-4, atol=1e-4)  # it goes on beyond the stack


def test_activity_beyond_the_stack_is_blurred_into_its_end_planes():
    """A hot plane just outside: its share of the planes is the Gaussian's at their distance."""
    longer = simulate.with_margin(FINE, 6.0)
    assert longer.shape == (48, 48, 9)
    hot = np.zeros(longer.shape, np.float32)
    hot[..., 2] = disc()[..., 0]  # planes 3 to 5 are the scanner's
    got = simulate.expected_trues(SMALL, hot, longer, fwhm_mm=6.0)
    whole = simulate.expected_trues(SMALL, disc(), FINE, fwhm_mm=6.0)
    sd = np.sqrt((6 / 2.354820045 / 4) ** 2 - 1 / 12)
    share = [norm.cdf(d + 0.5, scale=sd) - norm.cdf(d - 0.5, scale=sd) for d in (1, 2, 3)]
    np.testing.assert_allclose(got.sum((0, 1)) / whole.sum((0, 1)), share, atol=2e-3)
    with pytest.raises(DataError, match="fine grid: 4 planes; the scanner has 3: expected an even number more"):
        simulate.expected_trues(SMALL, hot[..., :4], Grid((48, 48, 4), FINE.voxel_mm))


def test_a_margin_only_for_volumes():
    assert simulate.with_margin(Grid((4, 4, 1), (1.0, 1.0, 2.0)), 4.5).shape == (4, 4, 1)
    assert simulate.with_margin(Grid((4, 4, 5), (1.0, 1.0, 2.0)), 0.0).shape == (4, 4, 5)
    assert simulate.middle_planes(Grid((4, 4, 9), (1.0, 1.0, 2.0)), 3) == slice(3, 6)


def test_one_sharp_ray_without_attenuation_is_the_chord():
    got = simulate.expected_trues(SMALL, disc(), FINE, fwhm_mm=0.0, rays=1)
    want = chords() * coverage(SMALL)
    error = np.abs(np.asarray(got[..., 1]) - want)[want > 0]
    assert error.mean() < 0.3 and np.percentile(error, 95) < 1.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activity": disc()[1:], "mu": disc()[1:]}, r"activity: shape \(47, 48, 3\); the fine grid has \(48, 48, 3\)"),
        ({"activity": -disc()}, "activity: .* negative"),
        ({"activity": disc() * np.float32(np.nan)}, "activity: .* finite"),
        ({"mu": disc(0.096)}, "cm⁻¹"),
    ],
)
def test_bad_images_are_refused(change: dict[str, np.ndarray], message: str):
    images = {"activity": disc(), "mu": disc(0.0096)} | change
    with pytest.raises(DataError, match=message) as caught:
        simulate.expected_trues(SMALL, images["activity"], FINE, images["mu"])
    assert "\n" not in str(caught.value)


def test_simulation_is_not_the_reconstructions_matrix():
    """A smooth object: both see nearly the same, but not by the same numbers."""
    blob = [
        np.exp(-(((x - 6) / 14) ** 2 + ((y + 4) / 10) ** 2) / 2) * np.ones(grid.shape)
        for grid in (FINE, COARSE)
        for x, y, _ in [centers_mm(grid)]
    ]
    simulated = simulate.expected_trues(SMALL, blob[0].astype(np.float32), FINE, fwhm_mm=4.5)
    system = build_system(lors(SMALL), COARSE)
    multiplicative_factors = simulate.multiplicative_factors(SMALL, system, 1.0)
    expected = multiplicative_factors * projector.project(
        system, blur(gaussian_psf(COARSE, 4.5), jnp.asarray(blob[1], jnp.float32))
    )
    difference = float(jnp.linalg.norm(expected - simulated) / jnp.linalg.norm(simulated))
    assert 0.001 < difference < 0.05


# ── counts ──


@pytest.mark.parametrize("background", [0.0, 0.5, 0.8])
def test_totals_are_as_asked(trues: jax.Array, background: float):
    scan = simulate.sample_counts(jax.random.key(0), SMALL, trues, 2e4, background)
    np.testing.assert_allclose(scan.trues.sum(), 2e4, rtol=1e-5)
    total = float(scan.trues.sum() + scan.additive.sum())
    np.testing.assert_allclose(scan.additive.sum() / total, background, atol=1e-6)
    np.testing.assert_allclose(scan.trues, scan.scale * trues, rtol=1e-6)
    assert abs(float(scan.counts.sum()) - total) < 5 * np.sqrt(total)
    seen = np.broadcast_to(coverage(SMALL)[..., None] > 0, scan.counts.shape)
    assert np.all(np.asarray(scan.counts)[~seen] == 0)
    np.testing.assert_allclose(np.asarray(scan.additive)[seen], scan.additive.sum() / seen.sum(), rtol=1e-5)


@pytest.mark.parametrize("total", [1e9, 1e12, 1e14])
def test_counts_of_any_level_have_their_mean_and_variance(trues: jax.Array, total: float):
    scan = simulate.sample_counts(jax.random.key(0), SMALL, trues, total, 0.3)
    mean = np.asarray(scan.trues + scan.additive, float)
    seen = mean > 100
    standard = (np.asarray(scan.counts, float)[seen] - mean[seen]) / np.sqrt(mean[seen])
    assert abs(standard.mean()) < 5 / np.sqrt(seen.sum()) and standard.var() == pytest.approx(1, abs=0.07)


def test_counts_whose_noise_float32_cannot_hold_are_refused(trues: jax.Array):
    for total in (1e20, 1e30, 1e43):
        with pytest.raises(DataError, match=r"total trues: 1e\+\d\d, up to .* counts a bin; float32 holds their noise"):
            simulate.sample_counts(jax.random.key(0), SMALL, trues, total)


def test_counts_are_poisson(trues: jax.Array):
    scan = simulate.sample_counts(jax.random.key(1), SMALL, trues, 1e5, 0.5)
    expected = np.asarray(scan.trues + scan.additive)
    counts, expected = np.asarray(scan.counts)[expected > 0], expected[expected > 0]
    residual, n = (counts - expected) / np.sqrt(expected), expected.size
    assert abs(residual.mean()) < 5 / np.sqrt(n)
    kurtosis = 2 + np.mean(1 / expected)  # Var of a squared Poisson residual is 2 + 1/λ
    assert abs((residual**2).mean() - 1) < 5 * np.sqrt(kurtosis / n)
    assert np.all(counts == np.round(counts))
    again, other = (simulate.sample_counts(jax.random.key(k), SMALL, trues, 1e5, 0.5).counts for k in (1, 2))
    assert np.all(again == scan.counts) and np.any(other != scan.counts)


def test_background_follows_mashed_coverage():
    mashed = replace(SMALL, crystals=144, mash=2)
    assert mashed.sinogram_shape == (36, 49, 3)
    scan = simulate.sample_counts(jax.random.key(0), mashed, jnp.ones(mashed.sinogram_shape), 1e4, 0.5)
    share = np.asarray(scan.additive[..., 0]) / np.asarray(scan.additive).max()
    np.testing.assert_allclose(share, coverage(mashed), rtol=1e-6)
    assert set(coverage(mashed).ravel()) == {0.0, 0.5, 1.0}


@pytest.mark.parametrize(
    ("total", "background", "level", "message"),
    [
        (0.0, 0.5, 1.0, "total trues: 0"),
        (float("nan"), 0.5, 1.0, "total trues: nan"),
        (1e4, 1.0, 1.0, "background: 1 of the prompts"),
        (1e4, -0.1, 1.0, "background: -0.1"),
        (1e4, 0.5, 0.0, "no line of response sees any activity"),
    ],
)
def test_bad_count_levels_are_refused(trues: jax.Array, total: float, background: float, level: float, message: str):
    with pytest.raises(DataError, match=message):
        simulate.sample_counts(jax.random.key(0), SMALL, level * trues, total, background)


def test_factors_are_scale_coverage_and_attenuation():
    system = build_system(lors(SMALL), COARSE)
    mu = jnp.full(COARSE.shape, 0.0096, jnp.float32)
    with_mu, without = (
        simulate.multiplicative_factors(SMALL, system, 0.25, mu),
        simulate.multiplicative_factors(SMALL, system, 0.25),
    )
    np.testing.assert_allclose(without, 0.25 * coverage(SMALL)[..., None])
    half = 18 * 4.0 / 2
    through = float(with_mu[0, 24, 1])  # the line x = 0 from top to bottom, through 72 mm of water
    assert through == pytest.approx(0.25 * np.exp(-0.0096 * 2 * half) * coverage(SMALL)[0, 24], rel=1e-5)
    assert np.all(with_mu <= without)
    some = np.argwhere(coverage(SMALL)[:, 24] > 0)[0, 0]
    assert 0 < with_mu[some, 24, 0] < 0.25


# ── thinning ──


def test_thinning_is_binomial():
    rng = np.random.default_rng(0)
    for level, fraction in ((4.0, 0.25), (200.0, 0.1)):
        counts = rng.poisson(level, (30, 25, 4)).astype(np.float32)
        thinned = np.asarray(simulate.thin(jax.random.key(0), jnp.asarray(counts), fraction))
        assert np.all(thinned <= counts) and np.all(thinned >= 0) and np.all(thinned == np.round(thinned))
        n = counts.sum()
        assert abs(thinned.sum() - fraction * n) < 5 * np.sqrt(n * fraction * (1 - fraction))
        residual = (thinned - fraction * counts)[counts > 0] / np.sqrt(counts[counts > 0] * fraction * (1 - fraction))
        assert abs((residual**2).mean() - 1) < 5 * np.sqrt(2.5 / residual.size)
        assert abs(thinned.var() / thinned.mean() - 1) < 5 * np.sqrt(2 / thinned.size)  # and so Poisson again


def test_thinning_to_all_and_to_nothing():
    counts = jnp.asarray(np.random.default_rng(0).poisson(5, (30, 25, 4)), jnp.float32)
    np.testing.assert_array_equal(simulate.thin(jax.random.key(0), counts, 1.0), counts)
    np.testing.assert_array_equal(simulate.thin(jax.random.key(0), counts, 0.0), 0 * counts)
    traced = jax.eval_shape(jax.vmap(simulate.thin, (None, None, 0)), jax.random.key(0), counts, jnp.ones(5))
    assert traced.shape == (5, *counts.shape) and traced.dtype == counts.dtype


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_bad_fractions_are_refused(fraction: float):
    with pytest.raises(DataError, match=f"fraction: {fraction:g}"):
        simulate.thin(jax.random.key(0), jnp.ones((2, 2)), fraction)


# ── emission volume ──


def test_emission_volume_counts_active_voxels():
    activity = np.zeros(FINE.shape)
    activity[10:20, 10:20, 1] = 5.0
    activity[30, 30, 1] = 0.051  # just above 1 % of the largest
    activity[40, 40, 1] = 0.049
    assert simulate.emission_volume_mm3(activity, FINE) == pytest.approx(101 * 9.0)


@pytest.mark.parametrize("make", [np.zeros_like, lambda image: -np.ones_like(image), lambda image: image * np.nan])
def test_an_image_without_activity_has_no_volume(make: Callable[[np.ndarray], np.ndarray]):
    with pytest.raises(DataError, match="no voxel is above 0"):
        simulate.emission_volume_mm3(make(np.ones(FINE.shape)), FINE)


# ── an acquisition ──


def test_a_noisy_acquisition_is_what_a_reconstruction_knows(trues):
    """Its model predicts the counts that were drawn: bin sums agree within Poisson's noise; and A^T 1 is right."""
    system = build_system(lors(SMALL), COARSE)
    empty = jnp.zeros((SMALL.views, SMALL.bins, 3))
    template = acquire(system, empty, 1.0, 0.0, gaussian_psf(COARSE, 4.5))
    mu = np.repeat(0.0096 * ellipse_image(18, 4.0, DISC)[..., None], 3, axis=-1).astype(np.float32)
    made = simulate.simulate_acquisition(jax.random.key(0), template, SMALL, trues, 2e5, 0.25, jnp.asarray(mu))
    drawn = simulate.sample_counts(jax.random.key(0), SMALL, trues, 2e5, 0.25)
    np.testing.assert_array_equal(made.counts, drawn.counts)
    np.testing.assert_allclose(jnp.sum(made.additive), 2e5 / 3, rtol=1e-4)
    np.testing.assert_allclose(made.sensitivity, made.adjoint(jnp.ones_like(made.counts)), rtol=1e-5)
    image = np.repeat(ellipse_image(18, 4.0, DISC)[..., None], 3, axis=-1).astype(np.float32)
    predicted = float(jnp.sum(made.expected(jnp.asarray(image))))
    assert predicted == pytest.approx(float(jnp.sum(made.counts)), rel=0.03)  # the coarse disc's edge


def test_many_counts_are_thinned_with_their_variance():
    kept = np.asarray(simulate.thin(jax.random.key(0), jnp.full(20_000, 1e10), 0.1), float)
    standard = (kept - 1e9) / np.sqrt(1e10 * 0.1 * 0.9)
    assert abs(standard.mean()) < 0.04 and standard.var() == pytest.approx(1, abs=0.05)
