"""Quantification: reconstructed image → activity concentration in kBq/ml → standardised uptake value (SUV).

An image x of counts ~ Poisson(m · P x + b) is in counts per mm; a scanner's calibration factor, measured with a phantom
of known activity, makes Bq/ml of counts per mm and second.
"""

import numpy as np
from jaxtyping import Array, Float

from medjax.errors import ConfigError
from medjax.pet.decay import remaining_fraction

Image = Float[np.ndarray | Array, "*space"]
HEAVIEST_KG, TALLEST_M = 700.0, 3.0
LARGEST_DOSE_MBQ = 1e5  # a hundred times what is ever injected


def concentration(
    image: Image,
    calibration: float,
    duration_s: float,
    *,
    positron_fraction: float = 1.0,
    decay_correction: float = 1.0,
    dead_time_correction: float = 1.0,
) -> Image:
    """Activity concentration in kBq/ml: image / duration · calibration / positron fraction · corrections / 1000.

    Args:
        image: image in counts per mm.
        calibration: (Bq/ml) / (image / s), of a nuclide that decays by positrons alone.
        duration_s: duration of the frame in s.
        positron_fraction: fraction of the decays that emit a positron: `decay.NUCLIDES`.
        decay_correction: factor of `decay.decay_correction`.
        dead_time_correction: mean factor of `dead_time`, where the multiplicative factors do not hold it.

    Raises:
        ConfigError: a factor or the duration is not positive, or the positron fraction above 1.
    """
    factors = (calibration, duration_s, positron_fraction, decay_correction, dead_time_correction)
    names = ("calibration factor", "duration in s", "positron fraction", "decay correction", "dead-time correction")
    for name, value in zip(names, factors, strict=True):
        _check_positive(name, value)
    if positron_fraction > 1:
        raise ConfigError(f"positron fraction: {positron_fraction:g}; expected at most 1")
    return image * (calibration / duration_s / positron_fraction * decay_correction * dead_time_correction / 1000)


def calibration_factor(
    phantom_mean: float,
    duration_s: float,
    known_kbq_per_ml: float,
    *,
    positron_fraction: float = 1.0,
    decay_correction: float = 1.0,
    dead_time_correction: float = 1.0,
) -> float:
    """Calibration factor, (Bq/ml) / (image / s), from the mean of a phantom's image whose concentration is known.

    Its other arguments are those of `concentration`, of which it is the inverse.

    Raises:
        ConfigError: one is not positive.
    """
    _check_positive("phantom's mean", phantom_mean)
    _check_positive("known concentration in kBq/ml", known_kbq_per_ml)
    one = concentration(
        np.full(1, phantom_mean),
        1.0,
        duration_s,
        positron_fraction=positron_fraction,
        decay_correction=decay_correction,
        dead_time_correction=dead_time_correction,
    )
    return known_kbq_per_ml / float(one[0])


def suv(kbq_per_ml: Image, dose_mbq: float, body_kg: float, half_life_s: float, delay_s: float) -> Image:
    """Standardised uptake value in g/ml: concentration / (dose at the reference time / body weight).

    With the lean body mass in the place of the weight it is SUL.

    Args:
        kbq_per_ml: activity concentration, corrected for decay to the reference time (scan start).
        dose_mbq: injected activity at the time of injection, without what is left in the syringe.
        body_kg: body weight, or `lean_body_mass_kg`.
        half_life_s: half-life of the nuclide.
        delay_s: time from injection to the reference time.

    Raises:
        ConfigError: a dose, weight or half-life that is not positive, a weight above 700 kg or a dose above 100 GBq,
            which are in other units, or a negative delay.
    """
    _check_positive("body weight in kg", body_kg, HEAVIEST_KG, "g", 1000)
    return kbq_per_ml * (body_kg / _dose_mbq(dose_mbq, half_life_s, delay_s))


def suv_body_surface(
    kbq_per_ml: Image, dose_mbq: float, surface_m2: float, half_life_s: float, delay_s: float
) -> Image:
    """Standardised uptake value in cm²/ml: concentration / (dose at the reference time / body surface area).

    Raises:
        ConfigError: as of `suv`; a body surface area that is not positive or above 10 m².
    """
    _check_positive("body surface area in m²", surface_m2, 10.0, "cm²", 10_000)
    return kbq_per_ml * (10 * surface_m2 / _dose_mbq(dose_mbq, half_life_s, delay_s))


def lean_body_mass_kg(weight_kg: float, height_m: float, *, female: bool) -> float:
    """Lean body mass: 9270 w / (6680 + 216 BMI) of men, 9270 w / (8780 + 244 BMI) of women, in kg.

    Raises:
        ConfigError: weight or height not positive, or in other units.

    Source: Janmahasatian et al., Clinical Pharmacokinetics 44(10), 2005.
    """
    _check_body(weight_kg, height_m)
    bmi = weight_kg / height_m**2
    return 9270 * weight_kg / (8780 + 244 * bmi if female else 6680 + 216 * bmi)


def body_surface_m2(weight_kg: float, height_m: float) -> float:
    """Body surface area 0.007184 · w^0.425 · (100 h)^0.725, in m².

    Raises:
        ConfigError: weight or height not positive, or in other units.

    Source: Du Bois & Du Bois, Archives of Internal Medicine 17(6), 1916.
    """
    _check_body(weight_kg, height_m)
    return 0.007184 * weight_kg**0.425 * (100 * height_m) ** 0.725


def _dose_mbq(dose_mbq: float, half_life_s: float, delay_s: float) -> float:
    _check_positive("injected activity in MBq", dose_mbq, LARGEST_DOSE_MBQ, "Bq", 1_000_000)
    if not 0 <= delay_s < np.inf:
        raise ConfigError(f"time from injection to scan: {delay_s:g} s; expected 0 or more")
    dose = dose_mbq * remaining_fraction(half_life_s, delay_s)
    if not dose > 0:
        raise ConfigError(f"injected activity: nothing left after {delay_s:g} s at a half-life of {half_life_s:g} s")
    return dose


def _check_body(weight_kg: float, height_m: float) -> None:
    _check_positive("body weight in kg", weight_kg, HEAVIEST_KG, "g", 1000)
    _check_positive("height in m", height_m, TALLEST_M, "cm", 100)


def _check_positive(name: str, value: float, largest: float = np.inf, unit: str = "", number: int = 1) -> None:
    if not 0 < value < np.inf:
        raise ConfigError(f"{name}: {value:g}; expected more than 0")
    if value > largest:
        raise ConfigError(f"{name}: {value:g}; expected at most {largest:g} ({value / number:g} if it was in {unit})")
