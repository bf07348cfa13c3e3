"""Report of the fetal lung study: figures of the first cohort, tables over all cohorts, and fetuses.csv."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.fetal.readings import FITS, MEAN_SIGNAL_FIT, PARAMETERS, VOXEL_FIT, WITHOUT_OUTLIERS, lung_f
from medjax.atomic import write_csv
from medjax.errors import pluralize
from medjax.metrics.agreement import bland_altman
from medjax.metrics.paired import PairedAgreement
from medjax.metrics.regression import Regression, predict
from medjax.metrics.summary import cell
from medjax.report.gallery import gallery
from medjax.report.html import Figure, Report, Section, Table
from medjax.report.points import Curve, plot_bland_altman, points
from medjax.running.workdir import WorkDir, save_figure

AGREEMENT = PairedAgreement._fields  # the last one: power of the t test for a tenth of the margin
PLOTTED = {"f": "f", "d": "d mm²/s"}
WEEKS = "gestational age, weeks"
COLUMNS = (
    *("cohort", "age_weeks", "restricted", "dice", "lung_ml_true", "lung_ml_automatic"),
    *("f_true", "f_manual", "f_automatic", "f_automatic_frames_left_out"),
)

Cohort = Mapping[str, Any]  # readings of `read_scan`, as arrays over fetuses
Metrics, Fits = Mapping[str, float], Mapping[str, Regression]


def report(
    cohorts: Sequence[Cohort], metrics: Metrics, fits: Fits, boundary_mm: Sequence[float], work: WorkDir
) -> Report:
    """Report of all cohorts; `fits` are the first cohort's regressions of f on age, by mask."""
    first = cohorts[0]
    write_fetuses(work.path / "fetuses.csv", cohorts)
    sections = [
        Section("Segmentation", "", [plot_outlines(first, work), plot_dice(cohorts, work)], dice_table(cohorts)),
        Section("Manual against automatic", "", plot_agreement(first, work), agreement_table(metrics)),
        Section("Maturity", "", plot_maturity(first, fits, work), regression_table(metrics, fits)),
        Section("Accuracy of the fits", "", table=reading_table(metrics)),
        Section("Sensitivity to the outline", "", table=boundary_table(metrics, boundary_mm)),
    ]
    summary = [
        f"Simulated fetal scans: networks of {pluralize(len(cohorts), 'cohort')} read {len(first['age'])} other "
        f"fetuses each. Dice {cell(metrics, 'dice/mean')} over cohorts; {metrics['identifiable']:.0%} of the lungs' "
        "voxels are identifiable: f, D and D* to half their value or better.",
        "The published study is of patients, with a protocol that its abstract does not give: its Dice of 0.8214 is of "
        "different data.",
    ]
    return Report("Fetal lung maturity", summary, sections)


def groups(cohort: Cohort) -> dict[str, np.ndarray]:
    """Masks of the fetuses of each group: normal, growth-restricted."""
    restricted = cohort["restricted"].astype(bool)
    return {"normal": ~restricted, "growth-restricted": restricted}


def plot_outlines(cohort: Cohort, work: WorkDir) -> Figure:
    """Slices through the lungs of four fetuses, with the true outline and the network's."""
    chosen = np.linspace(0, len(cohort["age"]) - 1, 4).astype(int)
    images = [cohort["slice"][k] / np.quantile(cohort["slice"][k], 0.99) for k in chosen for _ in range(2)]
    upright = np.stack(images).clip(0, 1).astype(np.float32).swapaxes(1, 2)[:, ::-1]
    labels = np.concatenate(cohort["outlines"][chosen]).astype(np.int32).swapaxes(1, 2)[:, ::-1]
    names = [f"{mask}, {cohort['age'][k]:.0f} weeks" for k in chosen for mask in ("true", "network")]
    return Figure(save_figure(work, "lungs", gallery(upright, labels, names, 4, "Simulated, b = 0")))


def plot_dice(cohorts: Sequence[Cohort], work: WorkDir) -> Figure:
    """Dice against gestational age."""
    dots = {f"cohort {k}": (cohort["age"], cohort["dice"]) for k, cohort in enumerate(cohorts)}
    return Figure(save_figure(work, "dice", points(dots, WEEKS, "Dice")), "Each fetus; fetuses.csv")


def plot_agreement(cohort: Cohort, work: WorkDir) -> list[Figure]:
    """Bland–Altman plots of f and D, automatic − manual."""
    out = list[Figure]()
    for name, quantity in PLOTTED.items():
        manual, automatic = cohort["read"][VOXEL_FIT][name].T
        seen = np.isfinite(automatic)
        if seen.sum() > 2:
            found = bland_altman(automatic[seen], manual[seen])
            pairs = {
                group: (automatic[inside & seen], manual[inside & seen]) for group, inside in groups(cohort).items()
            }
            limits = (found.lower, found.bias, found.upper)
            drawn = plot_bland_altman(pairs, limits, quantity, "automatic − manual")
            out.append(Figure(save_figure(work, f"bland_altman_{name}", drawn), f"Bland–Altman: {name}"))
    return out


def plot_maturity(cohort: Cohort, fits: Fits, work: WorkDir) -> list[Figure]:
    """Lung f against gestational age with its regression: true, and in the automatic mask."""
    out, x = list[Figure](), np.linspace(cohort["age"].min(), cohort["age"].max(), 60)
    for mask, values in lung_f(cohort).items():
        if mask != "manual":
            dots = {group: (cohort["age"][inside], values[inside]) for group, inside in groups(cohort).items()}
            curves = {group: Curve(x, predict(fits[mask], x, group == "growth-restricted")) for group in dots}
            title = f"f of the lungs, {'true' if mask == 'truth' else mask}"
            drawn = points(dots, WEEKS, "f", curves=curves, title=title)
            out.append(Figure(save_figure(work, "maturity_" + mask.replace(",", "").replace(" ", "_"), drawn)))
    return out


def write_fetuses(file: Path, cohorts: Sequence[Cohort]) -> None:
    """Write fetuses.csv: Dice, lung volumes and lung f of each test fetus."""
    rows: list[list[str]] = []
    for k, cohort in enumerate(cohorts):
        numbers = np.column_stack([cohort["dice"], cohort["volume"], *lung_f(cohort).values()])
        for age, restricted, values in zip(cohort["age"], cohort["restricted"], numbers, strict=True):
            rows.append([str(k), f"{age:.2f}", str(int(restricted)), *(f"{value:.4f}" for value in values)])
    write_csv(file, COLUMNS, rows)


def dice_table(cohorts: Sequence[Cohort]) -> Table:
    """Table of Dice and lung volume in each cohort."""
    rows = []
    for k, cohort in enumerate(cohorts):
        dice, change = cohort["dice"], np.mean(cohort["volume"][:, 1] / cohort["volume"][:, 0] - 1)
        rows.append([k, f"{dice.mean():.3f} ± {dice.std(ddof=1):.3f}", f"{dice.min():.3f}", f"{change:+.1%}"])
    return Table(["cohort", "Dice, mean ± SD over fetuses", "min", "volume, automatic − true"], rows)


def agreement_table(metrics: Metrics) -> Table:
    """Table of the agreement of medians in the manual and the automatic mask."""
    fractions = ("bias", "lower", "upper", "detectable")
    rows = [
        [name, *(cell(metrics, f"{key}/{name}", 1 if key in fractions else 3, key in fractions) for key in AGREEMENT)]
        for name in PARAMETERS
    ]
    head = ["median", "bias", "lower limit", "upper limit", "ICC(2,1)", "p of TOST", "power of TOST", "p of paired t"]
    caption = (
        "Automatic − manual, as fractions of the manual mean; p: minimum to maximum over cohorts. TOST: a small p says "
        "equivalent within the margin. Detectable: the difference that a paired t test would find four times in five; "
        "last column: its power to find a difference of a tenth of the margin."
    )
    return Table([*head, "detectable difference", "power of paired t"], rows, caption)


def regression_table(metrics: Metrics, fits: Fits) -> Table:
    """Table of the regression of lung f on gestational age."""
    rows = []
    for mask, fitted in fits.items():
        for term in fitted.terms:
            name = f"regression/{mask}/{term}"
            rows.append([mask, term, cell(metrics, name, 4), cell(metrics, f"{name}_p")])
        rows.append([mask, "R²", cell(metrics, f"regression/{mask}/r_squared"), ""])
    caption = (
        "f on age in weeks: two pieces that meet at the knot, and a growth-restricted group. Mean ± SD over cohorts; "
        "p: minimum to maximum over them."
    )
    return Table(["f from", "term", "coefficient", "p"], rows, caption)


def reading_table(metrics: Metrics) -> Table:
    """Table of the accuracy of each fit against the truth."""
    kinds = {"bias": (1, True), "error_sd": (1, True), "correlation": (2, False)}
    columns = [(key, name) for name in PARAMETERS[:3] for key in kinds]
    rows = [
        [fit, *(cell(metrics, f"{key}/{fit}/{name}", *kinds[key]) for key, name in columns)]
        for fit in (*FITS, WITHOUT_OUTLIERS, MEAN_SIGNAL_FIT)
    ]
    caption = (
        "Relative error in the manual mask, over fetuses, against the median of the true maps where a voxel is all "
        "lung: noise, motion and partial volume together. error_sd: its standard deviation. The study reads `voxels`."
    )
    return Table(["fit", *(f"{key} of {name}" for key, name in columns)], rows, caption)


def boundary_table(metrics: Metrics, boundary_mm: Sequence[float]) -> Table:
    """Table of the change of medians with the outline of the mask."""
    keys = [f"boundary/{mm:+g}_mm" for mm in boundary_mm]
    rows = [[key[9:-3], *(cell(metrics, f"{key}/{name}", 1, True) for name in PARAMETERS)] for key in keys]
    return Table(["mm", *PARAMETERS], rows, "How the median changes when the manual mask is eroded or dilated.")
