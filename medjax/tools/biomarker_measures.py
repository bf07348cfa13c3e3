"""Biomarkers of one case of `medjax biomarkers`: volumes of its frames, values at ED and ES, what is implausible.

row = measure_volumes(case, Options(ACDC, 0.0, "as-labelled", None), None)
measure_biomarkers(row, Frames(0, 12), "mosteller")["LVEF"]
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from medjax.errors import DataError
from medjax.tools.biomarker_case import Case, read_case
from medjax.uncertainty.basal_slices import drop_basal_slices
from medjax.uncertainty.biomarkers import LabelCodes, Volumes, biomarkers, check_labels, volumes
from medjax.uncertainty.body_surface import body_surface_area
from medjax.uncertainty.label_plausibility import missing_of_structures, missing_slices, warnings_of_codes
from medjax.uncertainty.papillary_muscles import assign_papillary, papillary_muscles
from medjax.uncertainty.volume_curve import MIN_FRAMES, Frames, peak_rates, volumes_at
from medjax.uncertainty.wall_thickness import wall_thickness

PAPILLARY = ("as-labelled", "cavity", "myocardium")
RATES = {"LVPER": "ml/s", "LVPFR": "ml/s"}  # peak ejection and filling rate
THICKNESS = {"LVWT_mean": "mm", "LVWT_max": "mm"}  # wall thickness at ED
MIN_MUSCLES = 0.01  # of the cavity's voxels; where labels leave them out, papillary muscles are several times as much


class Options(NamedTuple):
    """What is measured of a label map."""

    codes: LabelCodes
    gap_mm: float
    papillary: str
    basal: float | None


class Row(NamedTuple):
    """A case measured: its curve of volumes, and what is peculiar about it."""

    case: Case
    curve: Volumes  # of its frames
    frame_s: float
    spacing: tuple[float, float, float]  # mm, of slice centres along z
    warnings: list[str]


def measure_volumes(case: Case, options: Options, frame_ms: float | int | None) -> Row:
    """Volumes of each frame; NaN where it, a slice or a structure was not segmented.

    A slice without a label between labelled ones leaves all volumes unknown, one without a ventricle between slices
    with it that ventricle's.
    """
    maps = read_case(case)
    pair = len(case.files) == 2
    parts = np.split(maps.labels, 2, axis=3) if pair else [maps.labels]
    checked = [check_labels(part, options.codes, file) for part, file in zip(parts, case.files, strict=True)]
    known = np.concatenate(checked, axis=3)
    names = ("ED", "ES") if pair else tuple(f"frame {k}" for k in range(known.shape[3]))
    outcome = "NaN" if pair or case.frames is not None else "ED and ES are chosen among the other frames, no rates"
    used = range(known.shape[3]) if case.frames is None else sorted({int(case.frames.ed), int(case.frames.es)})
    curve = np.full((3, known.shape[3]), np.nan)
    warnings = list[str]()
    for k in used:
        if not known[..., k].any():
            warnings.append(f"{names[k]} has no label: {outcome}")
        elif len(gaps := missing_slices(known[..., k])):
            warnings.append(f"{names[k]} has no label in slice {gaps[0]}, between labelled ones: {outcome}")
        else:
            frame = _with_options(known[..., k], options)
            found = np.array(volumes(frame, options.codes, maps.spacing, options.gap_mm))
            absent = [name for name, ml in zip(("LV", "myocardium", "RV"), found, strict=True) if ml == 0]
            warnings += [f"{name} has no voxel at {names[k]}: NaN" for name in absent]
            left, right = missing_of_structures(known[..., k], options.codes).items()
            for (name, gaps), which, then in ((left, slice(2), outcome), (right, slice(2, 3), "NaN")):
                if len(gaps):
                    found[which] = np.nan
                    warnings.append(f"{names[k]} has no {name} in slice {gaps[0]}, between slices with it: {then}")
            curve[:, k] = np.where(found > 0, found, np.nan)
    if maps.labels.any():
        largest = int(np.sum(known == options.codes.lv, axis=(0, 1, 2)).argmax())
        warnings += warnings_of_codes(known[..., largest], options.codes)
    if max(maps.spacing[:2]) > 1.01 * maps.spacing[2]:
        warnings.append("the z spacing is not the largest; expected slices along the third axis")
    warnings += _without_effect(known[..., list(used)], options)
    x, y, z = maps.spacing
    spacing = x, y, z + options.gap_mm
    return Row(case, Volumes(*curve), maps.frame_s if frame_ms is None else frame_ms / 1000, spacing, warnings)


def _without_effect(labels: Int[np.ndarray, "x y z frame"], options: Options) -> list[str]:
    """One line where papillary muscles are to be myocardium, and the labels count them as cavity already."""
    if options.papillary != "myocardium":
        return []
    found = sum(papillary_muscles(one, options.codes).sum() for one in np.moveaxis(labels, 3, 0))
    if found >= MIN_MUSCLES * np.sum(labels == options.codes.lv):
        return []
    return ["--papillary myocardium changes nothing: the labels count the muscles as cavity, as ACDC's and M&Ms' do"]


def _with_options(labels: np.ndarray, options: Options) -> np.ndarray:
    if options.basal is not None:
        labels = drop_basal_slices(labels, options.codes, options.basal)
    if options.papillary == "as-labelled":
        return labels
    return assign_papillary(labels, options.codes, "cavity" if options.papillary == "cavity" else "myocardium")


def measure_biomarkers(row: Row, frames: Frames, bsa: str) -> dict[str, float]:
    """Biomarkers of a case by name, indexed ones where height and weight are known, rates of a cine with a frame time.

    Raises:
        DataError: an impossible height or weight; it names the case.
    """
    try:
        area = float(body_surface_area(row.case.height_cm, row.case.weight_kg, bsa))
    except DataError as error:
        raise DataError(f"{row.case.name}: {error}") from error
    ed, es = volumes_at(row.curve, frames)
    found = {name: float(value) for name, value in biomarkers(ed, es, None if math.isnan(area) else area).items()}
    if len(row.case.files) == 1 and np.shape(row.curve.lv)[0] >= MIN_FRAMES and math.isfinite(row.frame_s):
        rates = peak_rates(row.curve.lv, row.frame_s)
        found |= {"LVPER": float(rates.ejection), "LVPFR": float(rates.filling)}
    return found


def measure_thickness(case: Case, frames: Frames, options: Options) -> dict[str, float]:
    """Mean and maximum wall thickness at ED in mm; nothing where a slice is missing."""
    maps = read_case(case)  # again: label maps of all cases are not held
    labels = _with_options(maps.labels[..., int(frames.ed)], options)
    if len(missing_of_structures(labels, options.codes)["LV or myocardium"]):
        return {}
    found = wall_thickness(labels, options.codes, maps.spacing)
    return {"LVWT_mean": found.mean, "LVWT_max": found.max}


def implausible(values: dict[str, float]) -> list[str]:
    """One line for each ventricle whose volume at ED is below that at ES."""
    return [
        f"{side}EDV {values[side + 'EDV']:.4g} ml is below {side}ESV {values[side + 'ESV']:.4g} ml: "
        "are ED and ES exchanged?"
        for side in ("LV", "RV")
        if values[side + "EDV"] < values[side + "ESV"]
    ]
