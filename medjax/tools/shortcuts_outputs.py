"""Files of a shortcut audit: tables, figures, a map of the scores, and a report that holds all of them.

audit.json                    decision, its reasons and rule, correlations, reliabilities, settings
correlations.csv  regions.csv profile, score and quadrant of each region
*.png  report.html            figures, and the report
rcs.nii.gz or rcs.npy         score of each voxel's region, on the maps' grid; 0 in none
"""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medjax.atomic import replacing_together, write_csv, write_text
from medjax.io.nifti import write_nifti
from medjax.report.figures import png
from medjax.report.html import Figure, Report, Section, write_report
from medjax.shortcuts.oscar import SYMBOLS
from medjax.shortcuts.oscar_audit import NETWORKS, Audit
from medjax.shortcuts.oscar_figures import (
    paint,
    plot_correlations,
    plot_profiles,
    plot_residuals,
    plot_scores,
    table_of_regions,
)
from medjax.shortcuts.oscar_verdict import Limits, Verdict, rule, to_table
from medjax.tools.attribution_maps import Image, MapSet, check_map
from medjax.tools.audit_regions import Partition

TABLES = ("audit.json", "correlations.csv", "regions.csv", "report.html")
FIGURES = {
    "correlations.png": "Correlations of the rank profiles, with 95 % bootstrap intervals over images.",
    "residuals.png": "Importance of each region beyond what BA's profile predicts, in standard deviations. A shortcut "
    "lies at the upper right: more important to TS and to SA.",
    "profiles.png": "Rank profiles: median rank of each region over the images, 1 being the most important.",
    "rcs.png": "Region contribution scores: positive (red) where TS and SA deviate from BA in the same direction; and "
    "the part of them where the region is more important to both.",
}
MAPS = ("rcs.nii.gz", "rcs.npy")
REPORT_REGIONS = 20  # regions in the table of the report


class ShortcutsAudit(NamedTuple):
    """Result of a shortcut audit of files."""

    audit: Audit
    verdict: Verdict
    limits: Limits  # of the rule
    partition: Partition
    ids: list[str]  # ids of the images, in order
    constant: dict[str, int]  # number of maps of each source that are constant, and so tell nothing
    negative: dict[str, int]  # and of those with negative values
    warnings: list[str]
    settings: dict[str, Any]


def output_files(folder: Path) -> list[Path]:
    """All files that an audit may write."""
    return [folder / name for name in (*TABLES, *FIGURES, *MAPS)]


def write_outputs(folder: Path, result: ShortcutsAudit, like: Image, images: MapSet | None, command: str = "") -> None:
    """Write all files of an audit, together or not at all; those of an earlier one that this one has not are removed.

    Args:
        folder: made if it is not there.
        result: the audit.
        like: one of the maps, for their grid.
        images: the images, for their mean; or None.
        command: command line that made the audit.

    Raises:
        DataError: an image is not on the maps' grid.
        OSError: a file cannot be written.
    """
    found = result.audit
    figures = {
        "correlations.png": plot_correlations(found),
        "residuals.png": plot_residuals(found),
        "profiles.png": plot_profiles(found),
    }
    if result.partition.one:
        mean = _mean_image(images, result.ids, like)
        figures["rcs.png"] = plot_scores(found, result.partition.regions, mean, like.affine)
    drawn = {name: png(figure) for name, figure in figures.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing_together(*output_files(folder)) as parts:
        part = {path.name: path for path in parts}
        write_text(part["audit.json"], json.dumps(to_json(result), indent=2, ensure_ascii=False) + "\n")
        table, regions = to_table(found), table_of_regions(found)
        write_csv(part["correlations.csv"], table.header, table.rows)
        write_csv(part["regions.csv"], regions.header, regions.rows)
        for name, data in drawn.items():
            part[name].write_bytes(data)
        if result.partition.one:
            _write_map(part, paint(found.scores, result.partition.regions), like.affine)
        shown = {name: Figure(part[name], caption) for name, caption in FIGURES.items() if name in drawn}
        write_report(
            part["report.html"], _report(result, shown), {"Command": command, "Settings": dict(result.settings)}
        )


def to_json(result: ShortcutsAudit) -> dict[str, Any]:
    """What audit.json holds; null is undefined."""
    found = result.audit
    columns = {
        "value": found.correlations, "low": found.low, "high": found.high,
        "p_spatial": found.p_spatial, "p_torus": found.p_torus, "p_permutation": found.p_permutation,
    }  # fmt: skip
    return {
        "decision": result.verdict.decision,
        "reasons": list(result.verdict.reasons),
        "rule": rule(result.limits),
        "p": _number(result.verdict.p),
        "images": found.images,
        "regions": len(found.regions),
        "correlations": {name: {key: _number(getattr(one, name)) for key, one in columns.items()} for name in SYMBOLS},
        "undefined_resamples": found.undefined,
        "smallest_p": found.smallest_p,
        "reliability": {name: _number(one) for name, one in zip(NETWORKS, found.reliability, strict=True)},
        "effective_area": _number(found.effective_area),
        "peak": found.regions[int(found.quadrants.both_more.argmax())],
        "constant_maps": dict(result.constant),
        "negative_maps": dict(result.negative),
        "warnings": list(result.warnings),
        "settings": dict(result.settings),
    }


def _number(value: Any) -> float | None:
    return float(value) if isfinite(value) else None


def _mean_image(images: MapSet | None, ids: list[str], like: Image) -> np.ndarray | None:
    if images is None:
        return None
    return np.mean([check_map(images.read(one), f"{images.name}: {one}", like, "the maps") for one in ids], axis=0)


def _write_map(part: Mapping[str, Path], scores: np.ndarray, affine: np.ndarray | None) -> None:
    if affine is None:
        np.save(part["rcs.npy"], scores)
    else:
        write_nifti(part["rcs.nii.gz"], scores[..., None] if scores.ndim == 2 else scores, affine)


def _report(result: ShortcutsAudit, figures: Mapping[str, Figure]) -> Report:
    found, (ts, ba, sa) = result.audit, result.audit.reliability
    summary = [
        f"Decision: {result.verdict.decision}. {'; '.join(result.verdict.reasons)}.",
        rule(result.limits),
        f"Effective area of the positive scores {found.effective_area:.2f} of all regions; split-half reliability of "
        f"the profiles {ts:.2f} (TS), {ba:.2f} (BA), {sa:.2f} (SA).",
        *(f"{one[0].upper()}{one[1:]}." for one in result.warnings),
    ]
    regions = table_of_regions(found)
    head = regions._replace(rows=regions.rows[:REPORT_REGIONS])
    sections = [
        Section("Correlations", "", [figures["correlations.png"]], to_table(found)),
        Section("Regions", "", [one for name, one in figures.items() if name in ("rcs.png", "residuals.png")], head),
        Section("Rank profiles", "", [figures["profiles.png"]]),
    ]
    return Report("Shortcut audit", summary, sections)
