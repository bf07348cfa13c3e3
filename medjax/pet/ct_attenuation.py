"""Attenuation at 511 keV from CT numbers: a curve of two straight lines, water and air below, water and bone above."""

import numpy as np
from jaxtyping import Float, Real

from medjax.errors import ConfigError, DataError

WATER_SLOPE = 9.6e-5  # cm⁻¹ / HU, of air at −1000 HU and water at 0
BONE = {  # tube voltage in kVp: slope in cm⁻¹ / HU and intercept in cm⁻¹ of the upper line, against HU + 1000
    80: (3.64e-5, 6.26e-2),
    100: (4.43e-5, 5.44e-2),
    110: (4.92e-5, 4.88e-2),
    120: (5.10e-5, 4.71e-2),
    130: (5.51e-5, 4.24e-2),
    140: (5.64e-5, 4.08e-2),
}


def mu_from_ct(hu: Real[np.ndarray, "*shape"], kvp: int) -> Float[np.ndarray, "*shape"]:
    """Linear attenuation coefficient μ at 511 keV in mm⁻¹ from CT numbers in HU, as float32.

    μ = min(9.6e-5 (HU + 1000), a (HU + 1000) + b) cm⁻¹, and 0 below −1000 HU (padding); the lines cross at 30 to 52 HU,
    at the break of the published table to within 1 HU.

    Args:
        hu: CT numbers: air −1000, water 0.
        kvp: tube voltage.

    Raises:
        ConfigError: a voltage that is not in the table.
        DataError: NaN or infinite values.

    Source: Carney, Townsend, Rappoport & Bendriem, Medical Physics 33(4), 2006.
    """
    if kvp not in BONE:
        raise ConfigError(f"tube voltage: {kvp} kVp; expected one of {', '.join(map(str, BONE))}")
    if faults := np.count_nonzero(~np.isfinite(hu)):
        raise DataError(f"CT image: {faults} NaN or infinite voxels; expected CT numbers in HU (air −1000, water 0)")
    slope, intercept = BONE[kvp]
    above_air = np.maximum(np.asarray(hu, np.float32) + np.float32(1000), np.float32(0))
    water = np.float32(WATER_SLOPE / 10) * above_air
    return np.minimum(water, np.float32(slope / 10) * above_air + np.float32(intercept / 10))
