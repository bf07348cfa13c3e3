"""Volume–time curves of `medjax biomarkers`: a CSV of all cines, or a figure of one subject's."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medjax.atomic import write_csv
from medjax.errors import ConfigError
from medjax.tools.biomarker_case import Case
from medjax.tools.checks import check_output
from medjax.uncertainty.biomarkers import Volumes
from medjax.uncertainty.volume_curve import Frames

STRUCTURES = {"lv": "LV", "rv": "RV", "myocardium": "myocardium"}
HEADER = ("subject", "sample", "frame", "time_s", "LV_ml", "RV_ml", "myocardium_ml", "phase")


class Curve(NamedTuple):
    """Volumes of the frames of a cine."""

    subject: str
    sample: str
    volumes: Volumes  # ml, of each frame; NaN where it was not segmented
    frame_s: float  # NaN if not known
    frames: Frames | None


def check_curve_output(path: Path, cases: Sequence[Case]) -> None:
    """Check that the curves can be written there: a CSV, or a PNG of one subject's cines of equal numbers of frames.

    Raises:
        ConfigError: no case is a cine, or a PNG for several subjects.
        DataError: another suffix, or a folder of that name.
    """
    check_output(path, (".csv", ".png"))
    subjects = {case.subject for case in cases if len(case.files) == 1}
    if not subjects or (path.suffix == ".png" and len(subjects) > 1):
        found = f"{len(subjects)} subjects with a cine"
        raise ConfigError(f"--curve {path}: {found}; expected one for a PNG, one or more for a CSV")


def write_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Write curves as CSV, one row a frame, or as PNG: mean over samples ± SD."""
    if path.suffix == ".png":
        from medjax.report.figures import write_png

        write_png(path, _figure(curves))
        return
    rows = list[list[Any]]()
    for one in curves:
        frames = one.frames
        for k, values in enumerate(np.stack([getattr(one.volumes, name) for name in STRUCTURES], axis=1)):
            phase = "" if frames is None else "ED" if k == frames.ed else "ES" if k == frames.es else ""
            time = "" if math.isnan(one.frame_s) else f"{k * one.frame_s:.6g}"
            rows.append([one.subject, one.sample, k, time, *(f"{value:.6g}" for value in values), phase])
    write_csv(path, HEADER, rows)


def _figure(curves: Sequence[Curve]):
    from medjax.report.figures import curves as plot_curves

    first = curves[0]
    stacks = {label: np.stack([getattr(one.volumes, name) for one in curves]) for name, label in STRUCTURES.items()}
    step, unit = (1.0, "frame") if math.isnan(first.frame_s) else (first.frame_s * 1000, "time (ms)")
    x = np.arange(stacks["LV"].shape[1]) * step
    phases = "" if first.frames is None else f": ED frame {first.frames.ed}, ES frame {first.frames.es}"
    several = f", mean ± SD of {len(curves)} samples" if len(curves) > 1 else ""
    title = f"{first.subject}{phases if len(curves) == 1 else several}"
    mean = {label: stack.mean(axis=0) for label, stack in stacks.items()}
    sd = {label: stack.std(axis=0, ddof=1) for label, stack in stacks.items()} if len(curves) > 1 else None
    return plot_curves(x, mean, unit, "volume (ml)", sd=sd, title=title)
