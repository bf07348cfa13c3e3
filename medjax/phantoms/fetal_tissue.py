"""IVIM parameters of a fetus's tissues: what is published of the lung and its course with age, and our choices.

`medjax.phantoms.fetal` says which numbers are from publications; it makes scans of them.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.io.nifti import Number
from medjax.phantoms.fetal_anatomy import (
    BODY,
    BOWEL,
    BRAIN,
    FAT,
    FETAL_FLUID,
    FLUID,
    HEART,
    LIVER,
    LUNGS,
    MATERNAL,
    PLACENTA,
    SPINE,
    UTERUS,
    VISCERA,
)

KNOT, F_AT_KNOT, SLOPE_BEFORE, SLOPE_AFTER = 26.0, 0.33, 0.012, 0.004  # of lung f: weeks, share, share a week
LUNG_D, LUNG_D_STAR = (1.39e-3, 1.97e-3), (13.06e-3, 32.78e-3)
BETWEEN_F = 0.015  # between fetuses of one age
# S0 at b = 0 relative to the lung, f, D, D*. Lungs are overwritten; values are ours but for fluid, water at 37 °C.
TISSUES = {
    0: (0.0, 0.0, 1e-3, 1e-2),
    LUNGS: (1.0, 0.33, 1.68e-3, 22e-3),
    LIVER: (0.42, 0.33, 1.1e-3, 40e-3),
    HEART: (0.40, 0.45, 1.8e-3, 90e-3),
    SPINE: (0.45, 0.08, 1.3e-3, 20e-3),
    BODY: (0.55, 0.12, 1.4e-3, 20e-3),
    PLACENTA: (0.95, 0.35, 1.6e-3, 40e-3),
    FLUID: (1.70, 0.0, 3.0e-3, 3.0e-2),
    MATERNAL: (0.42, 0.12, 1.4e-3, 20e-3),
    BRAIN: (1.15, 0.10, 1.6e-3, 15e-3),
    BOWEL: (0.75, 0.15, 1.6e-3, 20e-3),
    FETAL_FLUID: (1.60, 0.0, 3.0e-3, 3.0e-2),
    UTERUS: (0.55, 0.25, 1.5e-3, 30e-3),
    FAT: (0.10, 0.0, 0.3e-3, 1e-2),
    VISCERA: (0.62, 0.15, 1.6e-3, 20e-3),
}


class Maps(NamedTuple):
    """S0 and the IVIM parameters of each voxel, D* in the absolute convention; in the order of `medjax.ivim`'s."""

    s0: Float[np.ndarray, "*voxels"]
    f: Float[np.ndarray, "*voxels"]
    d: Float[np.ndarray, "*voxels"]  # mm²/s
    d_star: Float[np.ndarray, "*voxels"]  # mm²/s


class Effects(NamedTuple):
    """What growth restriction changes; ours."""

    lung_f: Number = -0.04
    volume: Number = -0.2  # of the lungs, and of the whole fetus with them, as a share
    organ_f: Number = -0.05  # of liver and placenta


def lung_volume_ml(age: Number) -> float:
    """Both lungs' volume, V = 45 ml (age / 28)^2.86.

    Form and numbers are ours.
    """
    return 45.0 * (age / 28) ** 2.86


def lung_f(age: Number) -> float:
    """Mean perfusion fraction of a normal lung: linear before and after 26 weeks, and less steep after."""
    return F_AT_KNOT + (SLOPE_BEFORE if age < KNOT else SLOPE_AFTER) * (age - KNOT)


def signal(maps: Maps, b: Number) -> Float[np.ndarray, "*voxels"]:
    """S(b) without noise."""
    slow, fast = np.exp(np.float32(-b) * maps.d), np.exp(np.float32(-b) * maps.d_star)
    return maps.s0 * (slow + maps.f * (fast - slow))


def tissue_table(draw: np.random.Generator, age: Number, effects: Effects) -> np.ndarray:
    """(tissue, 4): this fetus's mean S0, f, D and D* of each tissue; other tissues than lung vary by some percent."""
    table = np.array([TISSUES[k] for k in range(len(TISSUES))])
    table[1:] *= np.exp(draw.normal(0, (0.08, 0.05, 0.03, 0.10), (len(table) - 1, 4)))
    f = lung_f(age) + effects.lung_f + BETWEEN_F * draw.standard_normal()
    table[LUNGS] = 1.0, f, draw.uniform(*LUNG_D), draw.uniform(*LUNG_D_STAR)
    table[[LIVER, PLACENTA], 1] += effects.organ_f
    return table


def tissue_maps(table: np.ndarray, labels: np.ndarray, uneven: list[np.ndarray]) -> Maps:
    """Parameters at each point; fluid is even."""
    still = np.isin(np.arange(len(table)), (FLUID, FETAL_FLUID))
    s0, f, d, d_star = (
        column.astype(np.float32)[labels] * np.exp(np.where(still, 0, 1).astype(np.float32)[labels] * field)
        for column, field in zip(table.T, uneven, strict=True)
    )
    return Maps(s0, np.clip(f, 0, 0.95), d, d_star)
