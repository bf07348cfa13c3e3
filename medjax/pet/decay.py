"""Radioactive decay: half-lives and positron fractions of nuclides, and factors that correct activity for decay.

Half-lives are those of ENSDF as NuDat 3 of the National Nuclear Data Center lists them; other evaluations differ by up
to 0.3 %, so the half-life that a scan's own file names goes first. Positron fractions: Conti & Eriksson, EJNMMI Physics
3:8, 2016, all branches of a nuclide added.
"""

import re
from typing import NamedTuple

import numpy as np

from medjax.errors import ConfigError


class Nuclide(NamedTuple):
    """What quantification needs of a nuclide."""

    half_life_s: float
    positron_fraction: float  # branching: fraction of the decays that emit a positron


NUCLIDES = {
    "C-11": Nuclide(20.364 * 60, 0.998),
    "N-13": Nuclide(9.965 * 60, 0.998),
    "O-15": Nuclide(122.24, 0.999),
    "F-18": Nuclide(109.77 * 60, 0.969),
    "Cu-64": Nuclide(12.701 * 3600, 0.175),
    "Ga-68": Nuclide(67.71 * 60, 0.889),
    "Rb-82": Nuclide(1.2575 * 60, 0.949),
    "Zr-89": Nuclide(78.41 * 3600, 0.227),
}


def nuclide(name: str) -> Nuclide:
    """Nuclide of that name, in any of the spellings F-18, F18, 18F, ¹⁸F and [18F].

    Raises:
        ConfigError: not known.
    """
    plain = re.sub(r"[\s\[\]^-]", "", name.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789"))).lower()
    for key, value in NUCLIDES.items():
        symbol, mass = key.lower().split("-")
        if plain in (symbol + mass, mass + symbol):
            return value
    raise ConfigError(f"nuclide {name!r} is not known; expected one of {', '.join(NUCLIDES)}")


def remaining_fraction(half_life_s: float, elapsed_s: float) -> float:
    """Fraction 2^(−t / T½) of an activity that is left after a time; above 1 for one before it.

    Raises:
        ConfigError: a half-life that is not positive, a time that is not finite, or one of which no number is left.
    """
    _check(half_life_s, elapsed_s)
    try:
        return 2.0 ** (-elapsed_s / half_life_s)
    except OverflowError:
        raise ConfigError(f"{elapsed_s:g} s at a half-life of {half_life_s:g} s; expected fewer half-lives") from None


def decay_correction(half_life_s: float, start_s: float, duration_s: float) -> float:
    """Factor from the mean activity during a frame to the activity at the reference time 0.

    e^(λ t) · λ Δt / (1 − e^(−λ Δt)), λ = ln 2 / T½, with the frame from t to t + Δt. With t = 0 it corrects to the
    start of the frame.

    Args:
        half_life_s: half-life in s.
        start_s: time in s from the reference (scan start, injection) to the start of the frame; negative before it.
        duration_s: duration of the frame in s.

    Raises:
        ConfigError: a half-life or a duration that is not positive, or a time that is not finite.

    Source: Cherry, Sorenson & Phelps, Physics in Nuclear Medicine, 4th edition, 2012, chapter 4.
    """
    _check(half_life_s, start_s)
    if not 0 < duration_s < np.inf:
        raise ConfigError(f"duration of a frame: {duration_s:g} s; expected more than 0")
    x = float(np.log(2)) * duration_s / half_life_s
    return (x / -float(np.expm1(-x)) if x > 1e-12 else 1.0) / remaining_fraction(half_life_s, start_s)


def _check(half_life_s: float, time_s: float) -> None:
    if not 0 < half_life_s < np.inf:
        raise ConfigError(f"half-life: {half_life_s:g} s; expected more than 0")
    if not np.isfinite(time_s):
        raise ConfigError(f"time: {time_s:g} s; expected a finite one")
