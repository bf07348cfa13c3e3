"""Decay, dead time, kBq/ml, SUV and CT → μ against closed forms, quadrature, simulated events and published numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from medjax.errors import ConfigError, DataError
from medjax.pet import quantification
from medjax.pet.attenuation import check_mu
from medjax.pet.ct_attenuation import BONE, mu_from_ct
from medjax.pet.dead_time import nonparalyzable_correction, paralyzable_correction
from medjax.pet.decay import NUCLIDES, decay_correction, nuclide, remaining_fraction

F18 = NUCLIDES["F-18"].half_life_s


@given(st.floats(1, 1e6), st.floats(0, 3), st.floats(1e-3, 3))
def test_decay_correction_is_that_of_the_mean_activity(half_life, start, duration):
    """Against the integral of 2^(−t / T½) by quadrature, with start and duration in half-lives."""
    mean = quad(lambda t: 2.0**-t, start, start + duration)[0] / duration
    assert decay_correction(half_life, start * half_life, duration * half_life) == pytest.approx(1 / mean, rel=1e-9)


def test_decay():
    assert remaining_fraction(F18, F18) == 0.5 and remaining_fraction(F18, -2 * F18) == 4
    assert decay_correction(F18, F18, 1e-9) == pytest.approx(2) and decay_correction(100.0, 0.0, 1e-20) == 1
    assert remaining_fraction(F18, 3600.0) == pytest.approx(0.6846, abs=1e-4)  # F-18: 31.5 % decay in an hour
    assert {nuclide(name) for name in ("F-18", "18F", "f18", "[18F]", "¹⁸F", "18-F")} == {NUCLIDES["F-18"]}
    for call, message in [
        (lambda: nuclide("Tc-99m"), "nuclide 'Tc-99m' is not known; expected one of C-11"),
        (lambda: remaining_fraction(0.0, 1.0), "half-life: 0 s; expected more than 0"),
        (lambda: remaining_fraction(1.0, -1e9), "expected fewer half-lives"),
        (lambda: decay_correction(F18, 0.0, 0.0), "duration of a frame: 0 s"),
        (lambda: decay_correction(F18, np.inf, 1.0), "time: inf s"),
        (lambda: decay_correction(np.nan, 0.0, 1.0), "half-life: nan s"),
    ]:
        with pytest.raises(ConfigError, match=message):
            call()


@given(st.floats(0, 1), st.floats(1e-7, 1e-4))
def test_dead_time_corrections_invert_their_models(load, tau):
    """n τ from 0 to 1, beyond which a paralyzable detector measures less again."""
    true = np.array([load / tau])
    blind = true / (1 + true * tau)
    np.testing.assert_allclose(blind * nonparalyzable_correction(blind, tau), true, rtol=1e-9)
    paralysed = true * np.exp(-true * tau)
    # near the maximum the measured rate hardly tells the true one: its error is the root of rounding
    np.testing.assert_allclose(paralysed * paralyzable_correction(paralysed, tau), true, rtol=1e-6)


def test_dead_time_of_simulated_events():
    rng, tau, rate = np.random.default_rng(0), 1e-6, 3e5
    times = np.cumsum(rng.exponential(1 / rate, 400_000))
    extended = 1 + np.count_nonzero(np.diff(times) > tau)
    last, taken = -1.0, 0
    for time in times.tolist():
        if time - last > tau:
            last, taken = time, taken + 1
    for counted, correction in ((taken, nonparalyzable_correction), (extended, paralyzable_correction)):
        measured = counted / times[-1]
        assert measured * correction(measured, tau) == pytest.approx(rate, rel=0.01)


def test_impossible_dead_times():
    for call, error, message in [
        (lambda: nonparalyzable_correction(1e6, 1e-6), DataError, "less than 1 / τ = 1e[+]06"),
        (lambda: paralyzable_correction(np.array([1.0, 4e5]), 1e-6), DataError, r"less than 1 / \(e τ\) = 367879"),
        (lambda: paralyzable_correction(-1.0, 1e-6), DataError, "measured rates: -1 to -1"),
        (lambda: nonparalyzable_correction(np.nan, 1e-6), DataError, "measured rates: nan"),
        (lambda: paralyzable_correction(1.0, 2.0), ConfigError, "dead time: 2 s; expected 0 to 0.001 s"),
    ]:
        with pytest.raises(error, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert paralyzable_correction(1e6, 0.0) == 1 == nonparalyzable_correction(1e6, 0.0)


def test_a_phantom_calibrates_the_scanner():
    options = {"positron_fraction": 0.969, "decay_correction": 1.2, "dead_time_correction": 1.05}
    factor = quantification.calibration_factor(0.4, 600.0, 5.0, **options)
    image = np.full((2, 2, 1), 0.4, np.float32)
    np.testing.assert_allclose(quantification.concentration(image, factor, 600.0, **options), 5, rtol=1e-6)
    assert quantification.concentration(image, factor, 600.0, **options).dtype == np.float32
    doubled = quantification.concentration(image, factor, 300.0, **options | {"positron_fraction": 0.4845})
    np.testing.assert_allclose(doubled, 20, rtol=1e-6)


def test_uptake_values():
    """All of the dose, evenly in a body of 1 g/ml, is an SUV of 1; the formulas against worked numbers."""
    dose, weight, delay = 300.0, 75.0, 3600.0
    even = np.array([dose * 1000 * remaining_fraction(F18, delay) / (weight * 1000)])  # kBq/ml
    np.testing.assert_allclose(quantification.suv(even, dose, weight, F18, delay), 1, rtol=1e-12)
    surface = quantification.suv_body_surface(even, dose, 1.8, F18, delay)
    np.testing.assert_allclose(surface, 1.8e4 / 75e3, rtol=1e-12)  # cm² / ml of body
    assert quantification.lean_body_mass_kg(80.0, 1.8, female=False) == pytest.approx(61.73, abs=0.01)
    assert quantification.lean_body_mass_kg(60.0, 1.65, female=True) == pytest.approx(39.29, abs=0.02)
    assert quantification.body_surface_m2(70.0, 1.7) == pytest.approx(1.810, abs=0.001)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantification.suv(np.ones(1), 300.0, 75000.0, F18, 0.0), r"at most 700 \(75 if it was in g\)"),
        (lambda: quantification.suv(np.ones(1), 3e8, 75.0, F18, 0.0), r"at most 100000 \(300 if it was in Bq\)"),
        (lambda: quantification.suv(np.ones(1), 300.0, 0.0, F18, 0.0), "body weight in kg: 0; expected more than 0"),
        (lambda: quantification.suv(np.ones(1), 300.0, 75.0, F18, -5.0), "to scan: -5 s; expected 0 or more"),
        (lambda: quantification.suv(np.ones(1), 300.0, 75.0, 1.0, 1e6), "nothing left after 1e[+]06 s"),
        (lambda: quantification.suv(np.ones(1), 300.0, 75.0, 0.0, 1.0), "half-life: 0 s"),
        (lambda: quantification.lean_body_mass_kg(75.0, 180.0, female=True), r"at most 3 \(1\.8 if it was in cm\)"),
        (lambda: quantification.body_surface_m2(np.nan, 1.8), "body weight in kg: nan"),
        (lambda: quantification.concentration(np.ones(1), 0.0, 1.0), "calibration factor: 0"),
        (lambda: quantification.concentration(np.ones(1), 1.0, 1.0, positron_fraction=96.9), "expected at most 1"),
    ],
)
def test_nonsense_is_refused_in_one_line(call, message):
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kvp", "published_break"), [(80, 50), (100, 52), (110, 43), (120, 47), (130, 37), (140, 30)])
def test_attenuation_of_ct_numbers(kvp, published_break):
    hu = np.linspace(-1100, 3000, 41001)
    mu = mu_from_ct(hu, kvp)
    assert mu.dtype == np.float32 and mu[0] == 0 and (np.diff(mu) >= -1e-9).all()
    assert np.diff(mu).max() < 1.01e-6  # of 0.1 HU: no jump at the break
    air, water = mu_from_ct(np.array([-1000.0, 0.0]), kvp)
    assert air == 0 and water == pytest.approx(0.0096, rel=1e-6)
    slope = np.diff(mu.astype(float)[::10])
    first_above = hu[::10][np.flatnonzero(slope < 0.99 * 9.6e-6)[hu[::10][:-1][slope < 0.99 * 9.6e-6] > -900][0]]
    assert first_above == pytest.approx(published_break, abs=1.5)
    check_mu(mu_from_ct(np.array([[0.0, 40.0, 60.0, 1000.0]]), kvp))
    assert kvp in BONE


def test_cortical_bone_does_not_depend_on_the_voltage():
    """1.92 g/cm³ (ICRU 44) has μ = 0.0170 mm⁻¹ at 511 keV; at 120 kVp its CT number is about 1500 HU."""
    assert mu_from_ct(np.array([1500.0]), 120)[0] == pytest.approx(0.0172, rel=0.03)
    with pytest.raises(ConfigError, match="tube voltage: 125 kVp; expected one of 80, 100"):
        mu_from_ct(np.zeros(1), 125)
    with pytest.raises(DataError, match="CT image: 1 NaN"):
        mu_from_ct(np.array([0.0, np.nan]), 120)
