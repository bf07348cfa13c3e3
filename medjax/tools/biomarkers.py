"""Cardiac biomarkers of label maps, as in `medjax biomarkers`: a table of one row for each subject, or for each sample.

    table = biomarkers_of_files(["patients.csv"], "biomarkers.csv", labels="acdc")
    table.values["LVEF_percent"]                    of table.subjects and table.samples, in their order

What was not segmented is NaN, never a number: a structure without a voxel, a frame without a label, and a frame with
a slice without a label, or without a ventricle, between such with it. `warnings` names the cases.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.atomic import replacing_together, write_csv
from medjax.errors import ConfigError, DataError
from medjax.tools.biomarker_case import Case
from medjax.tools.biomarker_curves import Curve, check_curve_output, write_curves
from medjax.tools.biomarker_inputs import check_unique, list_cases, parse_codes
from medjax.tools.biomarker_measures import (
    PAPILLARY,
    RATES,
    THICKNESS,
    Options,
    Row,
    implausible,
    measure_biomarkers,
    measure_thickness,
    measure_volumes,
)  # fmt: skip
from medjax.tools.checks import as_paths, check_choice, check_no_overwrite, check_output, check_range
from medjax.tools.sample_tables import SPACING
from medjax.uncertainty.biomarkers import INDEXED_UNITS, UNITS
from medjax.uncertainty.body_surface import FORMULAS
from medjax.uncertainty.volume_curve import Frames, ed_es_frames

Number = float | int

FRAMES = ("sample", "subject")
SUFFIXES = {"%": "percent"}  # of a column's name; other units are spelt out
ALL_UNITS = {**UNITS, **THICKNESS, **RATES, **INDEXED_UNITS}


class BiomarkerTable(NamedTuple):
    """Biomarkers of each case, by the column's name, which ends in the unit."""

    subjects: list[str]
    samples: list[str] | None  # None: one row for each subject
    values: dict[str, Float[np.ndarray, " case"]]
    spacing: list[str]  # mm of voxels, such as 1.4x1.4x10; along z of slice centres
    curves: list[Curve]  # volume–time curves of the cases that are cines
    assumptions: list[str]  # a line each
    warnings: list[str]  # a line each


def biomarkers_of_files(
    inputs: Sequence[Path | str],
    output: Path | str | None = None,
    *,
    labels: str | None = None,
    gap_mm: Number = 0.0,
    papillary: str = "as-labelled",
    basal: Number | None = None,
    frames: str = "sample",
    bsa: str = "mosteller",
    thickness: bool = False,
    frame_ms: Number | None = None,
    curve: Path | str | None = None,
) -> BiomarkerTable:
    """Volumes, ejection fractions, stroke volumes and left-ventricular mass of label maps.

    Args:
        inputs: CSV lists (subject, ed, es or cine, sample, height_cm, weight_kg, ed_frame, es_frame), cines in NIfTI,
            and folders in the layout of ACDC or M&Ms.
        output: CSV to write; None: nothing is written.
        labels: label codes: acdc, mnms or LV,MYOCARDIUM,RV; default: those of the layout.
        gap_mm: mm between slices that the files' z spacing leaves out; 0: it is the distance of slice centres.
        papillary: papillary muscles as-labelled, or counted as cavity or as myocardium, see `papillary_muscles`; as
            myocardium only where the labels do not count them as cavity, for no image is read.
        basal: fraction of the cavity's border that myocardium must enclose in the most basal slice, see
            `basal_slices`; None: all slices as labelled.
        frames: ED and ES of a cine without fixed frames: chosen for each `sample`, or once for each `subject`, on the
            mean curve of its samples.
        bsa: formula of the body surface area.
        thickness: also the wall thickness at ED.
        frame_ms: ms between frames of a cine; default: the file's, where it has one in a unit of time.
        curve: volume–time curves to write, as CSV, or as PNG of one subject.

    Raises:
        ConfigError: an option out of its range, or label codes that nothing tells.
        DataError: an input that cannot be used, or an output that is an input.
    """
    paths, (output, curve) = as_paths(*inputs), as_paths(output, curve)
    _check(gap_mm, papillary, basal, frames, bsa, frame_ms)
    cases = [case for path in paths for case in list_cases(path)]
    check_unique(cases)
    codes, source = parse_codes(labels, cases)
    outputs = [path for path in (output, curve) if path is not None]
    if output is not None:
        check_output(output, (".csv",))
    if curve is not None:
        check_curve_output(curve, cases)
    check_no_overwrite(outputs, [*paths, *(file for case in cases for file in case.files)])
    options = Options(codes, float(gap_mm), papillary, None if basal is None else float(basal))
    table = _measure(cases, options, frames, bsa, thickness, frame_ms)
    table = table._replace(assumptions=_assumptions(options, source, frames, cases))
    with replacing_together(*outputs) as parts:
        for path, part in zip(outputs, parts, strict=True):
            write_curves(part, table.curves) if path is curve else _write(part, table)
    return table


def _check(
    gap_mm: Number, papillary: str, basal: Number | None, frames: str, bsa: str, frame_ms: Number | None
) -> None:
    check_range("--gap-mm", gap_mm, 0, 1000)
    check_choice("--papillary", papillary, PAPILLARY)
    check_choice("--frames", frames, FRAMES)
    check_choice("--bsa", bsa, FORMULAS)
    if basal is not None and not 0 <= basal <= 1:
        raise ConfigError(f"--basal {basal:g}; expected a fraction from 0 to 1")
    if frame_ms is not None:
        check_range("--frame-ms", frame_ms, 0.001, 1e6)


def _measure(
    cases: Sequence[Case], options: Options, frames: str, bsa: str, thickness: bool, frame_ms: Number | None
) -> BiomarkerTable:
    names = [name for name in ALL_UNITS if thickness or name not in THICKNESS]
    rows = [measure_volumes(case, options, frame_ms) for case in cases]
    chosen = _choose_frames(rows, frames)
    values = {name: np.full(len(rows), np.nan) for name in names}
    warnings, curves = list[tuple[str, str]](), list[Curve]()
    for k, (row, one) in enumerate(zip(rows, chosen, strict=True)):
        warnings += [(row.case.name, text) for text in row.warnings]
        if len(row.case.files) == 1:
            curves.append(Curve(row.case.subject, row.case.sample, row.curve, row.frame_s, one))
        if one is None:
            warnings.append((row.case.name, "fewer than two frames with a left ventricle: no biomarker"))
            continue
        found = measure_biomarkers(row, one, bsa)
        if thickness:
            found |= measure_thickness(row.case, one, options)
        for name, value in found.items():
            values[name][k] = value
        warnings += [(row.case.name, text) for text in implausible(found)]
    kept = {column_name(name): values[name] for name in names if name in UNITS or np.isfinite(values[name]).any()}
    samples = [case.sample for case in cases] if cases[0].sample else None
    spacing = ["x".join(f"{mm:.6g}" for mm in row.spacing) for row in rows]
    return BiomarkerTable([case.subject for case in cases], samples, kept, spacing, curves, [], _grouped(warnings))


def column_name(name: str) -> str:
    """Column of a biomarker: its name and unit, such as LVEDV_ml, LVEF_percent, LVMi_g_per_m2."""
    unit = ALL_UNITS[name]
    return f"{name}_{SUFFIXES.get(unit, unit.replace('/', '_per_').replace('²', '2'))}"


def _choose_frames(rows: Sequence[Row], frames: str) -> list[Frames | None]:
    """ED and ES of each case; None where fewer than two frames have a left ventricle."""
    cines: dict[str, list[np.ndarray]] = {}
    for row in rows:
        if len(row.case.files) == 1:
            cines.setdefault(row.case.subject, []).append(row.curve.lv)
    chosen: list[Frames | None] = []
    for row in rows:
        if len(row.case.files) == 2 or row.case.frames is not None:
            chosen.append(row.case.frames or Frames(0, 1))
            continue
        own = cines[row.case.subject] if frames == "subject" else [row.curve.lv]
        if len(lengths := {len(one) for one in own}) > 1:
            raise DataError(f"{row.case.subject}: cines of {sorted(lengths)} frames; expected one number of frames")
        number = np.isfinite(own).sum(axis=0)
        mean = np.where(number > 0, np.nansum(own, axis=0) / np.maximum(number, 1), np.nan)
        chosen.append(ed_es_frames(mean) if np.sum(number > 0) > 1 else None)
    return chosen


def _grouped(warnings: Sequence[tuple[str, str]]) -> list[str]:
    """One line for each kind of warning: its first case, and how many more there are."""
    groups: dict[str, list[str]] = {}
    for name, text in warnings:
        kind = "".join(mark for mark in text if not mark.isdigit() and mark not in ".%")
        groups.setdefault(kind, []).append(f"{name}: {text}")
    return [one[0] + (f" (and {len(one) - 1} more like it)" if len(one) > 1 else "") for one in groups.values()]


def _assumptions(options: Options, source: str, frames: str, cases: Sequence[Case]) -> list[str]:
    codes, gap = options.codes, options.gap_mm
    lines = [
        f"label codes: LV {codes.lv}, myocardium {codes.myocardium}, RV {codes.rv} ({source})",
        f"slice distance: the files' z spacing + a gap of {gap:g} mm" if gap else
        "slice distance: the files' z spacing, taken to be thickness + gap (else: --gap-mm)",
        f"papillary muscles: {options.papillary}; basal slices: " + (
            "as labelled" if options.basal is None else f"at least {options.basal:.0%} enclosed by myocardium"
        ),
    ]  # fmt: skip
    if any(len(case.files) == 1 and case.frames is None for case in cases):
        lines.append(f"ED and ES of cines: largest and smallest LV volume, chosen for each {frames}")
    return lines


def _write(path: Path, table: BiomarkerTable) -> None:
    ids = [table.subjects] if table.samples is None else [table.subjects, table.samples]
    numbers = [[f"{value:.6g}" for value in column] for column in table.values.values()]
    header = [*("subject", "sample")[: len(ids)], SPACING, *table.values]
    write_csv(path, header, zip(*ids, table.spacing, *numbers, strict=True))


def summary(table: BiomarkerTable) -> list[tuple[str, float, float, int]]:
    """Name, mean and standard deviation over the cases, and number of cases without a value, of each biomarker."""
    rows = []
    for name, column in table.values.items():
        known = column[np.isfinite(column)]
        sd = float(known.std(ddof=1)) if len(known) > 1 else math.nan
        rows.append((name, float(known.mean()) if len(known) else math.nan, sd, len(column) - len(known)))
    return rows
