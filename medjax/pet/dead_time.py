"""Dead time: factors from measured to true rates of a detector that is blind for a time τ after an event.

    non-paralyzable  m = n / (1 + n τ)    events while it is blind are lost
    paralyzable      m = n e^(−n τ)       they also make it blind for longer

Multiply expected counts (as part of the multiplicative factors) by the reciprocals.

Source: Knoll, Radiation Detection and Measurement, 4th edition, 2010, chapter 4.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import lambertw

from medjax.errors import ConfigError, DataError

LARGEST_S = 1e-3  # dead times of detectors are microseconds


def nonparalyzable_correction(
    measured_per_s: float | Float[np.ndarray, "*shape"], dead_time_s: float
) -> Float[np.ndarray, "*shape"]:
    """Correction n / m = 1 / (1 − m τ) of measured rates.

    Raises:
        ConfigError: a dead time that is not from 0 to 1 ms.
        DataError: a rate that is negative, not finite, or 1 / τ or more.
    """
    busy = _busy(measured_per_s, dead_time_s, 1.0, "1 / τ")
    return np.asarray(1 / (1 - busy))


def paralyzable_correction(
    measured_per_s: float | Float[np.ndarray, "*shape"], dead_time_s: float
) -> Float[np.ndarray, "*shape"]:
    """Correction n / m = −W(−m τ) / (m τ) = e^(n τ) of measured rates, W Lambert's function.

    Of the two true rates that have a measured one, it is the lower: n τ ≤ 1.

    Raises:
        ConfigError: a dead time that is not from 0 to 1 ms.
        DataError: a rate that is negative, not finite, or above 1 / (e τ), the largest one there is.
    """
    busy = _busy(measured_per_s, dead_time_s, float(np.exp(-1)) * (1 + 1e-12), "1 / (e τ)")
    near = np.minimum(busy, np.exp(-1) * (1 - 1e-15))  # where SciPy's W is a number
    return np.asarray(np.exp(-lambertw(-near).real))


def _busy(measured_per_s: float | np.ndarray, dead_time_s: float, limit: float, formula: str) -> np.ndarray:
    if not 0 <= dead_time_s <= LARGEST_S:
        raise ConfigError(f"dead time: {dead_time_s:g} s; expected 0 to {LARGEST_S:g} s")
    busy = np.asarray(np.multiply(measured_per_s, dead_time_s))
    if busy.size and not (busy.min() >= 0 and busy.max() < limit):
        rates = f"{np.min(measured_per_s):g} to {np.max(measured_per_s):g} events a second"
        largest = f"{limit / dead_time_s:g}" if dead_time_s else "infinity"
        raise DataError(f"measured rates: {rates}; expected 0 or more and less than {formula} = {largest}")
    return busy
