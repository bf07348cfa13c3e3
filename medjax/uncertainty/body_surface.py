"""Body surface area of height and weight.

body_surface_area(180, 80)               2.0 m², Mosteller
body_surface_area(180, 80, "du_bois")    1.996 m²
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from medjax.errors import ConfigError, DataError

FORMULAS = ("mosteller", "du_bois")
HEIGHTS, WEIGHTS = (30.0, 260.0), (1.0, 500.0)  # cm and kg; beyond, the unit is another one


def body_surface_area(height_cm: Any, weight_kg: Any, formula: str = "mosteller") -> Float[np.ndarray, "*subject"]:
    """Body surface area in m²: √(h w / 3600) (Mosteller), or 0.007184 h^0.725 w^0.425 (Du Bois), of cm and kg.

    NaN where height or weight is NaN: not known.

    Raises:
        ConfigError: another formula.
        DataError: a height outside 30–260 cm or a weight outside 1–500 kg: probably in another unit.

    Source: Mosteller, New England Journal of Medicine 317, 1987; Du Bois and Du Bois, Archives of Internal Medicine 17,
    1916.
    """
    if formula not in FORMULAS:
        raise ConfigError(f"formula: {formula}; expected {' or '.join(FORMULAS)}")
    h, w = (np.asarray(value, np.float64) for value in (height_cm, weight_kg))
    for name, values, (low, high), unit in (("height", h, HEIGHTS, "cm"), ("weight", w, WEIGHTS, "kg")):
        odd = ~(np.isnan(values) | ((values >= low) & (values <= high)))
        if odd.any():
            raise DataError(f"{name}: {values[odd][0]:g} {unit}; expected {low:g} to {high:g} {unit}")
    return np.asarray(np.sqrt(h * w / 3600) if formula == "mosteller" else 0.007184 * h**0.725 * w**0.425)
