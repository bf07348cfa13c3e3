"""Compton scatter of annihilation photons: energies, cross sections, and detection in an energy window.

    E' = E / (1 + (E / 511 keV)(1 − cos θ))                          energy after scatter by θ
    dσ/dΩ = ½ r² P² (P + 1/P − sin² θ),   P = E' / E                 Klein–Nishina

Cross sections are in units of r², the classical electron radius squared.

Source: Klein & Nishina, Zeitschrift für Physik 52, 1929; Evans, The Atomic Nucleus, 1955, chapter 23.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax.scipy.special import erf
from jaxtyping import Array, Float

from medjax.errors import ConfigError

ELECTRON_KEV = 511.0  # rest energy of the electron, as PET rounds it
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in standard deviations


@dataclass(frozen=True)
class EnergyWindow:
    """Energy window of a scanner in keV and its energy resolution. Hashable.

    `resolution` is the full width at half maximum at 511 keV as a fraction of it, 0.15 for 15 %. The standard deviation
    of a measured energy grows as the root of the energy.
    """

    lower_kev: float
    upper_kev: float
    resolution: float

    def __post_init__(self) -> None:
        if not 0 <= self.lower_kev < self.upper_kev < math.inf:
            raise ConfigError(
                f"energy window {self.lower_kev:g} to {self.upper_kev:g} keV; expected the lower level first"
            )
        if not self.lower_kev < ELECTRON_KEV < self.upper_kev:
            raise ConfigError(
                f"energy window {self.lower_kev:g} to {self.upper_kev:g} keV; expected one that holds 511 keV"
            )
        if not 0 < self.resolution < 1:
            raise ConfigError(
                f"energy resolution {self.resolution:g}; expected the FWHM at 511 keV as a fraction, such as 0.15"
            )


def scattered_energy(cosine: Float[Array, "..."], energy_kev: float = ELECTRON_KEV) -> Float[Array, "..."]:
    """Energy in keV of a photon of `energy_kev` after scatter by the angle of this cosine."""
    return energy_kev / (1 + energy_kev / ELECTRON_KEV * (1 - cosine))


def klein_nishina(cosine: Float[Array, "..."], energy_kev: float = ELECTRON_KEV) -> Float[Array, "..."]:
    """Differential cross section dσ/dΩ of a free electron, in r² a steradian."""
    ratio = scattered_energy(cosine, energy_kev) / energy_kev
    return 0.5 * ratio**2 * (ratio + 1 / ratio - (1 - cosine**2))


def total_cross_section(energy_kev: Float[Array, "..."]) -> Float[Array, "..."]:
    """Total cross section, the integral of `klein_nishina` over the sphere, in r².

    2π { (1 + a)/a² [2(1 + a)/(1 + 2a) − ln(1 + 2a)/a] + ln(1 + 2a)/(2a) − (1 + 3a)/(1 + 2a)² },  a = E / 511 keV. For
    the energies of PET: below 10 keV float32 loses its digits.
    """
    a = energy_kev / ELECTRON_KEV
    log, twice = jnp.log1p(2 * a), 1 + 2 * a
    first = (1 + a) / a**2 * (2 * (1 + a) / twice - log / a)
    return 2 * math.pi * (first + log / (2 * a) - (1 + 3 * a) / twice**2)


def detection_efficiency(energy_kev: Float[Array, "..."], window: EnergyWindow) -> Float[Array, "..."]:
    """Fraction of photons of this energy whose measured energy, Gaussian around the true one, lies in the window."""
    deviation = window.resolution / _FWHM * jnp.sqrt(ELECTRON_KEV * energy_kev)
    upper, lower = (
        erf((level - energy_kev) / (math.sqrt(2) * deviation)) for level in (window.upper_kev, window.lower_kev)
    )
    return (upper - lower) / 2
