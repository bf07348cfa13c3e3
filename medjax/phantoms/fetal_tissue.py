"""IVIM parameters of fetal tissues: published values of the lung and its course with age, and our own choices.

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

KNOT, F_AT_KNOT, SLOPE_BEFORE, SLOPE_AFTER = (
    26.0,
    0.33,
    0.012,
    0.004,
)  # course of lung f: weeks, fraction, fraction a week
LUNG_D, LUNG_D_STAR = (1.39e-3, 1.97e-3), (13.06e-3, 32.78e-3)  # mm²/s, ranges
LUNG_F_SD = 0.015  # standard deviation of lung f between fetuses of one age
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


class TissueMaps(NamedTuple):
    """S0 and IVIM parameters of each voxel, absolute D*; in the order of `medjax.ivim.signal.Ivim`."""

    s0: Float[np.ndarray, "*voxels"]
    f: Float[np.ndarray, "*voxels"]
    d: Float[np.ndarray, "*voxels"]  # mm²/s
    d_star: Float[np.ndarray, "*voxels"]  # mm²/s


class Effects(NamedTuple):
    """Effects of growth restriction on the perfusion fraction and on volumes; our choice."""

    lung_f: Number = -0.04  # added to f of the lungs
    volume: Number = -0.2  # relative change, of the lungs and of the whole fetus with them
    organ_f: Number = -0.05  # added to f of liver and placenta


def lung_volume_ml(age: Number) -> float:
    """Volume of both lungs at a gestational age in weeks, V = 45 ml (age / 28)^2.86.

    Form and numbers are ours.
    """
    return 45.0 * (age / 28) ** 2.86


def lung_f(age: Number) -> float:
    """Mean perfusion fraction f of normal lungs at an age in weeks: linear, and less steep after 26 weeks."""
    return F_AT_KNOT + (SLOPE_BEFORE if age < KNOT else SLOPE_AFTER) * (age - KNOT)


def signal(maps: TissueMaps, b: Number) -> Float[np.ndarray, "*voxels"]:
    """Noise-free bi-exponential signal S(b)."""
    slow, fast = np.exp(np.float32(-b) * maps.d), np.exp(np.float32(-b) * maps.d_star)
    return maps.s0 * (slow + maps.f * (fast - slow))


def tissue_table(rng: np.random.Generator, age: Number, effects: Effects) -> np.ndarray:
    """Mean S0, f, D and D* of each tissue of a fetus (tissue, 4); other tissues than lung vary by some percent."""
    table = np.array([TISSUES[k] for k in range(len(TISSUES))])
    table[1:] *= np.exp(rng.normal(0, (0.08, 0.05, 0.03, 0.10), (len(table) - 1, 4)))
    f = lung_f(age) + effects.lung_f + LUNG_F_SD * rng.standard_normal()
    table[LUNGS] = 1.0, f, rng.uniform(*LUNG_D), rng.uniform(*LUNG_D_STAR)
    table[[LIVER, PLACENTA], 1] += effects.organ_f
    return table


def tissue_maps(table: np.ndarray, labels: np.ndarray, variation: list[np.ndarray]) -> TissueMaps:
    """IVIM parameters at each point of `labels`, times exp(variation) but in fluid, which is homogeneous."""
    still = np.isin(np.arange(len(table)), (FLUID, FETAL_FLUID))
    s0, f, d, d_star = (
        column.astype(np.float32)[labels] * np.exp(np.where(still, 0, 1).astype(np.float32)[labels] * field)
        for column, field in zip(table.T, variation, strict=True)
    )
    return TissueMaps(s0, np.clip(f, 0, 0.95), d, d_star)
