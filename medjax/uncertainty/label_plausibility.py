"""Checks of short-axis label maps: slices and frames that are missing, label codes that are probably swapped.

missing_slices(labels)                     slices without a label between labelled ones: their volume is not known
missing_of_structures(labels, ACDC)        the same of each ventricle, between its own ends
enclosed_fraction(labels, ACDC)            of the cavity's in-plane border, the fraction that is myocardium
warnings_of_codes(labels, ACDC)            one line if the codes look like those of another data set
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.uncertainty.biomarkers import LabelCodes

Labels = Int[np.ndarray, "x y z"]
MIN_ENCLOSED = 0.5  # of a left ventricle's border; that of a right one has less, on one side only
SPECK = 0.01  # of the largest slice's voxels


def missing_slices(labels: Int[np.ndarray, "x y z"] | Bool[np.ndarray, "x y z"]) -> Int[np.ndarray, " missing"]:
    """Indices of slices without a label (or, of a mask, without a voxel) between slices with one.

    Slices with less than `SPECK` of the largest slice's voxels do not count as labelled: beyond the base or the apex
    they are false positives.
    """
    voxels = np.count_nonzero(labels, axis=(0, 1))
    with_label = np.flatnonzero(voxels > SPECK * voxels.max(initial=0))
    inside = np.arange(with_label[0], with_label[-1]) if len(with_label) else with_label
    return inside[voxels[inside] == 0]


def missing_of_structures(labels: Labels, codes: LabelCodes) -> dict[str, Int[np.ndarray, " missing"]]:
    """Indices of slices without a ventricle between slices with it: `missing_slices` of LV with myocardium, and of RV.

    One ventricle may be missing where the other is labelled. Cavity and myocardium are one structure: the apex has
    myocardium alone.
    """
    masks = {"LV or myocardium": np.isin(labels, (codes.lv, codes.myocardium)), "RV": labels == codes.rv}
    return {name: missing_slices(mask) for name, mask in masks.items()}


def missing_frames(labels: Int[np.ndarray, "x y z frame"]) -> Int[np.ndarray, " missing"]:
    """Indices of frames without a label."""
    return np.flatnonzero(~np.any(labels, axis=(0, 1, 2)))


def enclosed_fraction(labels: Labels, codes: LabelCodes, structure: int | None = None) -> Float[np.ndarray, " z"]:
    """Fraction of a cavity's in-plane border (faces of voxels) that touches myocardium, in each slice; NaN without it.

    1 in a slice where the ring of the left ventricle is complete. `structure` is the cavity's code, the left
    ventricle's by default.
    """
    border, touching = _border(labels, codes, codes.lv if structure is None else structure)
    return np.where(border > 0, touching / np.maximum(border, 1), np.nan)


def warnings_of_codes(labels: Labels, codes: LabelCodes) -> list[str]:
    """One line if myocardium is less than half of the left ventricle's border; none without a left ventricle.

    ACDC's and M&Ms' codes differ in just that left and right ventricle are exchanged.
    """
    left, right = (_overall(*_border(labels, codes, code)) for code in (codes.lv, codes.rv))
    if not left < MIN_ENCLOSED:
        return []
    of_right = "" if np.isnan(right) else f", of the RV's {right:.0%}"
    return [
        f"myocardium is {left:.0%} of the border of the LV, label {codes.lv}{of_right}; expected more around the LV: "
        "are these the label codes of another data set?"
    ]


def _border(labels: Labels, codes: LabelCodes, structure: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of faces in plane between a structure and anything else, and myocardium, in each slice."""
    border, touching = np.zeros(labels.shape[2]), np.zeros(labels.shape[2])
    for axis in (0, 1):
        one = np.moveaxis(np.pad(labels, ((1, 1), (1, 1), (0, 0))), axis, 0)
        for inner, outer in ((one[:-1], one[1:]), (one[1:], one[:-1])):
            edge = (inner == structure) & (outer != structure)
            border += edge.sum(axis=(0, 1))
            touching += (edge & (outer == codes.myocardium)).sum(axis=(0, 1))
    return border, touching


def _overall(border: np.ndarray, touching: np.ndarray) -> float:
    return float(touching.sum() / border.sum()) if border.any() else float("nan")
