"""Compton scatter: against quadrature, closed forms in float64 and SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from medjax.errors import ConfigError
from medjax.pet.compton import EnergyWindow, detection_efficiency, klein_nishina, scattered_energy, total_cross_section


def test_photon_energy_after_scatter():
    """mc² / (2 − cos θ): 511, 255.5 and 170.33 keV after 0, 90 and 180 degrees."""
    energy = scattered_energy(jnp.array([1.0, 0.0, -1.0, 0.5]))
    np.testing.assert_allclose(energy, [511, 255.5, 511 / 3, 511 / 1.5], rtol=1e-6)
    again = scattered_energy(jnp.array([0.0]), 255.5)  # wavelengths add: 1/E' = 1/E + 1/511 at 90 degrees
    np.testing.assert_allclose(again, [511 / 3], rtol=1e-6)


@pytest.mark.parametrize("energy", [60.0, 170.0, 300.0, 511.0])
def test_klein_nishina_integrates_to_the_total_cross_section(energy: float):
    cosine, weight = np.polynomial.legendre.leggauss(40)
    differential = np.asarray(klein_nishina(jnp.asarray(cosine, jnp.float32), energy), float)
    total = float(total_cross_section(jnp.asarray(energy, jnp.float32)))
    assert 2 * np.pi * float(weight @ differential) == pytest.approx(total, rel=1e-4)


def test_cross_sections_of_511_kev_are_the_closed_forms():
    """π (40 − 27 ln 3) / 9 in r², and r² at zero angle; at 180 degrees P = 1/3, so ½ P² (P + 1/P)."""
    total = float(total_cross_section(jnp.asarray(511.0)))
    assert total == pytest.approx(np.pi * (40 - 27 * np.log(3)) / 9, rel=1e-5)
    np.testing.assert_allclose(klein_nishina(jnp.array([1.0, -1.0])), [1, 0.5 / 9 * (3 + 1 / 3)], rtol=1e-6)


def test_efficiency_of_the_window_is_a_gaussians():
    window = EnergyWindow(430.0, 610.0, 0.15)
    energy = np.array([300.0, 400.0, 430.0, 511.0, 610.0])
    deviation = 0.15 / 2.354820045 * np.sqrt(511 * energy)
    expected = stats.norm.cdf(610, energy, deviation) - stats.norm.cdf(430, energy, deviation)
    np.testing.assert_allclose(detection_efficiency(jnp.asarray(energy, jnp.float32), window), expected, atol=1e-6)


def test_windows_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="energy window 650 to 350 keV; expected the lower level first"):
        EnergyWindow(650.0, 350.0, 0.15)
    with pytest.raises(ConfigError, match="expected one that holds 511 keV"):
        EnergyWindow(100.0, 350.0, 0.15)
    with pytest.raises(ConfigError, match="energy resolution 15; expected the FWHM at 511 keV as a fraction"):
        EnergyWindow(350.0, 650.0, 15.0)
