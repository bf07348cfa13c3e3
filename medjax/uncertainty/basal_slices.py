"""Basal slices of the left ventricle: a rule for those whose ring of myocardium is incomplete.

labels = drop_basal_slices(labels, ACDC)            half of the cavity's border must be myocardium
labels = drop_basal_slices(labels, ACDC, 1.0)       only complete rings

Readers differ in where the base ends, and a basal slice holds about a tenth of EDV. Dropping slices lowers volumes and
mass; EF rises where a slice is dropped at ES alone, and falls where at ED alone. Protocols ask that half of the
circumference be myocardium, at ED alone or at ED and ES; here each frame is judged by itself.
"""

import numpy as np
from jaxtyping import Int

from medjax.errors import ConfigError
from medjax.uncertainty.biomarkers import LabelCodes
from medjax.uncertainty.label_plausibility import enclosed_fraction

Number = float | int


def drop_basal_slices(
    labels: Int[np.ndarray, "x y z"], codes: LabelCodes, min_enclosed: Number = 0.5
) -> Int[np.ndarray, "x y z"]:
    """Labels without left ventricle and myocardium in basal slices that myocardium encloses too little.

    From the base on, slices are dropped until one has at least the fraction `min_enclosed` of the cavity's border
    touched by myocardium; those after it all stay. The base is the end at which the cavity is larger. The right
    ventricle stays as it is. 0 drops only basal slices of myocardium without a cavity.

    Raises:
        ConfigError: a fraction outside 0–1.

    Source: the rule of one half, Schulz-Menger et al., Journal of Cardiovascular Magnetic Resonance 15, 2013.
    """
    if not 0 <= min_enclosed <= 1:
        raise ConfigError(f"min_enclosed: {min_enclosed:g}; expected a fraction from 0 to 1")
    left = (labels == codes.lv) | (labels == codes.myocardium)
    slices = np.flatnonzero(left.any(axis=(0, 1)))
    area = np.sum(labels == codes.lv, axis=(0, 1))[slices]
    half = len(slices) // 2
    if area[len(slices) - half :].sum() > area[:half].sum():
        slices = slices[::-1]
    enclosed = np.nan_to_num(enclosed_fraction(labels, codes), nan=-1.0)[slices]
    enough = np.flatnonzero(enclosed >= min_enclosed)
    dropped = slices[: enough[0]] if len(enough) else slices
    result = labels.copy()
    result[..., dropped] = np.where(left[..., dropped], 0, labels[..., dropped])
    return result
