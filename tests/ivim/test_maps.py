"""From frames to maps: directions, methods, precision, spoilt frames."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from medjax.errors import ConfigError
from medjax.ivim.averaging import average
from medjax.ivim.bounds import PRESETS, Bounds
from medjax.ivim.maps import _noise_level, maps, named_maps
from medjax.ivim.signal import Ivim, signal

B = np.array([0, 10, 20, 30, 50, 75, 100, 200, 400, 700, 1000], np.float32)


def region(snr: float, bvalues: np.ndarray = B, number: int = 600) -> np.ndarray:
    truth = Ivim(*(np.full(number, v, np.float32) for v in (100.0, 0.3, 1.7e-3, 22e-3)))
    clean = np.asarray(signal(truth, bvalues))
    return (clean + 100 / snr * np.random.default_rng(0).normal(size=clean.shape)).astype(np.float32)


def test_directions_of_one_b_value_are_averaged():
    bvalues = np.array([1000, 0, 995, 50, 1005, 0, 52], np.float32)
    y = np.random.default_rng(0).uniform(1, 2, (7, 3)).astype(np.float32)
    y[2, 1] = np.nan
    found = average(y, bvalues)
    np.testing.assert_allclose(found.bvalues, [0, 50, 52, 1000])  # 50 and 52 differ by more than 2 %
    np.testing.assert_array_equal(found.averages, [2, 1, 1, 3])
    np.testing.assert_allclose(found.signals[0], y[[1, 5]].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.signals[3], np.nanmean(y[[0, 2, 4]], 0), rtol=1e-6)
    geometric = average(y, bvalues, "geometric").signals[3, [0, 2]]
    np.testing.assert_allclose(geometric, stats.gmean(y[[0, 2, 4]][:, [0, 2]]), rtol=1e-5)


def test_averages_count_as_many_times_as_they_were_measured():
    """Three of each frame, averaged and weighted, give the fit of all of them, and its precision."""
    bvalues = np.repeat(B, 3)
    y = region(30.0, bvalues)
    whole = maps(y, bvalues, sigma=3.3)
    shells = average(y, bvalues)
    again = maps(shells.signals, shells.bvalues, sigma=3.3, weights=shells.averages)
    np.testing.assert_allclose(np.median(again.parameters.d), np.median(whole.parameters.d), rtol=1e-3)
    assert np.quantile(np.abs(again.parameters.f - whole.parameters.f), 0.9) < 0.003
    np.testing.assert_allclose(np.median(again.crlb.f), np.median(whole.crlb.f), rtol=0.02)


@pytest.mark.parametrize("method", ["full", "segmented", "hierarchical"])
def test_every_method_knows_how_many_were_averaged(method):
    bvalues = np.repeat(B, 6)
    y = region(20.0, bvalues, 300)
    whole, shells = maps(y, bvalues, method=method), average(y, bvalues)
    again = maps(shells.signals, shells.bvalues, method=method, weights=shells.averages)
    assert np.median(again.sigma) == pytest.approx(5.0, rel=0.1)
    spread = [float(np.std(np.asarray(one.parameters.f))) for one in (whole, again)]
    assert spread[1] == pytest.approx(spread[0], rel=0.25)
    np.testing.assert_allclose(np.median(again.crlb.f), np.median(whole.crlb.f), rtol=0.1)
    assert again.frame_misfit.outlier_fraction.max() < 0.05


def test_precision_follows_the_noise():
    clear, noisy = maps(region(400.0), B), maps(region(8.0), B)
    assert np.mean(clear.identifiable) > 0.95 > 0.2 > np.mean(noisy.identifiable)
    assert np.median(clear.sigma) == pytest.approx(0.25, rel=0.1)
    spread = np.std(np.asarray(clear.parameters.f))
    assert np.median(clear.crlb.f) == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize(("snr", "few"), [(20.0, 6), (20.0, 11), (60.0, 6), (60.0, 11)])
def test_the_noise_is_that_of_the_scan(snr, few):
    """The typical σ, by which frames are judged, from 2 or 7 degrees of freedom, where bounds hold some voxels."""
    bvalues = B[np.linspace(0, 10, few).round().astype(int)]
    y = region(snr, bvalues, 2000)
    held = maps(y, bvalues)
    level = _noise_level(jnp.asarray(y), jnp.asarray(bvalues), jnp.ones(few), PRESETS["default"])[1]
    assert level == pytest.approx(100 / snr, rel=0.03)
    assert np.sqrt(np.mean(np.asarray(held.sigma) ** 2)) == pytest.approx(100 / snr, rel=0.04)


def test_a_voxel_at_a_bound_is_not_identifiable():
    y = region(2000.0)
    free = maps(y, B)
    assert free.identifiable.all() and not free.at_bound.any.any() and not free.at_bound.code.any()
    narrow = Bounds(PRESETS["default"].lower, PRESETS["default"].upper._replace(d=np.asarray(1.5e-3)))
    tight = maps(y, B, bounds=narrow)
    assert tight.at_bound.d.all() and not tight.identifiable.any() and (tight.at_bound.code.astype(int) & 2).all()


@pytest.mark.parametrize("method", ["full", "segmented", "hierarchical"])
def test_d_may_be_below_the_default_bound(method):
    truth = Ivim(*(np.full(50, v, np.float32) for v in (100.0, 0.3, 3e-5, 22e-3)))
    y = np.asarray(signal(truth, B)) + 0.05 * np.random.default_rng(0).normal(size=(11, 50))
    found = maps(y.astype(np.float32), B, method=method, bounds=PRESETS["osipi"])
    assert float(np.median(found.parameters.d)) == pytest.approx(3e-5, rel=0.25)
    assert float(np.median(maps(y.astype(np.float32), B, method=method).parameters.d)) == pytest.approx(1e-4, rel=0.01)


def test_a_spoilt_frame_is_told_from_noise():
    """σ is not given: the frame must not hide in what it adds to the residuals."""
    y = region(40.0)
    y[8] *= 0.6
    plain, robust, dropped = maps(y, B), maps(y, B, noise="student"), maps(y, B, drop_outliers=True)
    for found in (plain, robust, dropped):
        np.testing.assert_array_equal(np.flatnonzero(found.outliers), [8])
        assert np.median(found.sigma) == pytest.approx(2.5, rel=0.1)
    assert (
        robust.frame_misfit.outlier_fraction.argmax() == 8
        and np.delete(robust.frame_misfit.outlier_fraction, 8).max() < 0.2
    )
    off = [abs(float(np.median(one.parameters.d)) / 1.7e-3 - 1) for one in (plain, robust, dropped)]
    assert off[0] > 0.3 and off[1] < 0.1 and off[2] < 0.05
    assert not maps(region(40.0), B).outliers.any()


def test_methods_and_conventions():
    y = region(60.0)
    full, two_step, shrunk = (maps(y, B, method=method) for method in ("full", "segmented", "hierarchical"))
    spread = [float(np.std(np.asarray(one.parameters.d_star))) for one in (full, shrunk)]
    assert spread[1] < 0.5 * spread[0]
    assert float(np.median(two_step.parameters.f)) == pytest.approx(0.3, abs=0.04)
    excess = maps(y, B, convention="excess").parameters
    np.testing.assert_allclose(excess.d_star, full.parameters.d_star - full.parameters.d, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "hierarchical", "noise": "rician"}, "expected gaussian noise"),
        ({"few": True}, "no residual is left"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    few = options.pop("few", False)
    y, bvalues = (region(50.0), B) if not few else (region(50.0)[:4], B[:4])
    with pytest.raises(ConfigError, match=message):
        maps(y, bvalues, **options)


def test_named_maps_are_float64_products_too():
    parameters = Ivim(*(np.array([value], np.float32) for value in (1.0, 0.3, 1e-3, 2e-2)))
    named = named_maps(parameters)
    assert list(named) == ["f", "d", "d_star", "f_d_star"] and named["f_d_star"].dtype == np.float64
    np.testing.assert_allclose(np.concatenate(list(named.values())), [0.3, 1e-3, 2e-2, 6e-3], rtol=1e-7)
