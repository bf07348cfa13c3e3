"""Tables of the fetal lung study: Dice, agreement of masks, regression on age, what a reading is worth, the outline."""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments._fetal import PARAMETERS
from medjax.report.html import Table

MASKS = ("manual", "automatic")
AGREEMENT = ("bias", "lower", "upper", "icc", "tost_p", "tost_power", "paired_p", "detectable", "power_of_a_tenth")
CLEANED = "automatic, frames left out"


def cell(metrics: dict[str, float], name: str, digits: int = 3, percent: bool = False) -> str:
    """A metric as mean ± SD over cohorts; a p-value as least to most of them."""
    if f"least/{name}" in metrics:
        least, most = (f"{metrics[f'{end}/{name}']:.2g}" for end in ("least", "most"))
        return least if least == most else f"{least} to {most}"
    factor, unit = (100, " %") if percent else (1, "")
    sd = f" ± {factor * metrics[f'sd/{name}']:.{digits}f}" if f"sd/{name}" in metrics else ""
    return f"{factor * metrics[name]:.{digits}f}{sd}{unit}"


def dice_table(found: list[dict[str, Any]]) -> Table:
    rows = [
        [k, f"{one['dice'].mean():.3f} ± {one['dice'].std(ddof=1):.3f}", f"{one['dice'].min():.3f}", _volume_error(one)]
        for k, one in enumerate(found)
    ]
    return Table(["cohort", "Dice, mean ± SD over fetuses", "least", "volume, automatic − true"], rows)


def _volume_error(one: dict[str, Any]) -> str:
    return f"{np.mean(one['volume'][:, 1] / one['volume'][:, 0] - 1):+.1%}"


def agreement_table(metrics: dict[str, float]) -> Table:
    shares = ("bias", "lower", "upper", "detectable")
    rows = [
        [name, *(cell(metrics, f"{key}/{name}", 1 if key in shares else 3, key in shares) for key in AGREEMENT)]
        for name in PARAMETERS
    ]
    head = ["median", "bias", "lower limit", "upper limit", "ICC(2,1)", "p of TOST", "its power", "p of paired t"]
    caption = (
        "Automatic − manual, as shares of the manual mean; p: least to most of the cohorts. TOST: a small p says "
        "equivalent within the margin. Detectable: the difference that a paired t test would find four times in five; "
        "last column: its power to find a difference of a tenth of the margin."
    )
    return Table([*head, "detectable", "power at a tenth"], rows, caption)


def regression_table(metrics: dict[str, float]) -> Table:
    rows = []
    for mask in ("truth", *MASKS, CLEANED):
        for term in ("intercept", "age", "hinge", "group"):
            name = f"regression/{mask}/{term}"
            rows.append([mask, term, cell(metrics, name, 4), cell(metrics, f"{name}_p")])
        rows.append([mask, "R²", cell(metrics, f"regression/{mask}/r_squared"), ""])
    caption = (
        "f on age in weeks: two pieces that meet at the knot, and a growth-restricted group. Mean ± SD over cohorts; "
        "p: least to most of them."
    )
    return Table(["f from", "term", "coefficient", "p"], rows, caption)


def reading_table(metrics: dict[str, float], one: dict[str, Any]) -> Table:
    rows = []
    for reading in one["read"]:
        cells = [reading]
        for name in PARAMETERS[:3]:
            whole = [cell(metrics, f"{key}/{reading}/{name}", 1, True) for key in ("bias", "spread")]
            cells += [*whole, cell(metrics, f"correlation/{reading}/{name}", 2)]
        rows.append(cells)
    head = [f"{what} {name}" for name in PARAMETERS[:3] for what in ("bias of", "SD of", "correlation of")]
    caption = (
        "In the manual mask, against the median of the true maps where a voxel is all lung, over fetuses: noise, "
        "motion and partial volume together. `voxels` is what the study reads."
    )
    return Table(["fit", *head], rows, caption)


def boundary_table(config: ConfigDict, metrics: dict[str, float]) -> Table:
    rows = [
        [f"{mm:+g} mm", *(cell(metrics, f"boundary/{mm:+g}_mm/{name}", 1, True) for name in PARAMETERS)]
        for mm in config.boundary_mm
    ]
    return Table(["manual mask", *PARAMETERS], rows, "How the median changes when the mask is shrunk or grown.")
