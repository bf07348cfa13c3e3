"""Results of a comparison: its metrics, two tables and figures of the images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.pet.comparison import Study
from experiments.pet.methods import MEAN_SUFFIX, title
from experiments.pet.scans import Scans, evaluate
from medjax.errors import pluralize
from medjax.metrics.summary import cell, confidence_interval, mean_sd
from medjax.report.figures import montage
from medjax.report.html import Figure, Report, Section, Table
from medjax.running.experiment import Result
from medjax.running.tuning import tuning_table
from medjax.running.workdir import save_figure

COLUMNS = {
    "nrmse": "NRMSE", "ssim": "SSIM", "lesion_contrast": "lesion contrast", "background_sd": "background SD",
    "nrmse_full_count": "NRMSE against full counts", "projector_calls": "projector calls",
}  # fmt: skip

CONVENTIONAL = ("osem", "map_em", "mr_map_em", "patch_map_em", "bsrem", "supervised", "unrolled")  # compared with means
PAIRED_NOTE = "NRMSE of the mean of the samples against others, paired over heads (realisations averaged)."
TUNING_NOTE = "For each count level. Methods with a default are not tuned: their rows show what other values do."


def summarize(
    study: Study, heading: str, remark: str, metrics: Mapping[str, float], sections: Sequence[Section], heads: int,
    lesions: int, realizations: int,
) -> Result:  # fmt: skip
    """Result of a study: metrics, images, figures of merit and tuning, then the experiment's own metrics and sections.

    `heads`, `lesions` in each and `realizations` are those of the test scans; `remark` ends the report's summary.
    """
    setup, levels, found = study.inputs.setup, study.inputs.levels, study_metrics(study) | paired_metrics(study)
    table = study_table(found, tuple(study.results), levels)
    tuned = {title(name): tuning for name, tuning in study.tunings.items()}
    shared = [
        Section("Images", "", [plot_images(study, level) for level in levels]),
        Section("Figures of merit", "In the brain, against the truth.", table=table),
        Section("Means against conventional reconstructions", PAIRED_NOTE, table=paired_table(study, found)),
        Section("Tuning", TUNING_NOTE, table=tuning_table(tuned, study.validation.number, "NRMSE", "calls")),
    ]
    scanner = f"the {setup.scanner.name} ring"
    if setup.michelogram is not None:
        scanner = (
            f"{pluralize(setup.scanner.rings, 'ring')} ({setup.michelogram.planes} oblique planes), thinned from "
            f"{setup.full_trues_per_mm3:g} trues/mm³"
        )
    data = (
        f"Simulated FDG-like scans on {scanner}, {setup.background:.0%} of the prompts background, "
        f"{pluralize(heads, 'held-out deformation')} of the MNI152 head with {pluralize(lesions, 'lesion')} each, "
        f"{pluralize(realizations, 'noise realisation')}; counts come from a 1 mm grid through finer rays, images "
        f"have voxels of {setup.grid.voxel_mm[0]:g} mm."
    )
    return Result({**found, **metrics}, Report(heading, [data, remark], [*shared, *sections]), table)


def by_level(values: np.ndarray, cases: Scans) -> dict[float, tuple[float, float]]:
    """Mean and standard deviation over the cases of each count level."""
    return {float(level): mean_sd(values[cases.level == level]) for level in np.unique(cases.level)}


def study_metrics(study: Study) -> dict[str, float]:
    """Metrics `MEASURE/METHOD/COUNTS`, their SD as `MEASURE_sd/…`, costs, tuned hyper-parameters and sensitivity."""
    out: dict[str, float] = {}
    for name, done in study.results.items():
        values = evaluate(done.image, study.cases) | {"projector_calls": done.projector_calls}
        for measure, each in values.items():
            for level, (mean, deviation) in by_level(each, study.cases).items():
                out[f"{measure}/{name}/{level:g}"] = mean
                out[f"{measure}_sd/{name}/{level:g}"] = deviation
    for name in study.methods:
        out |= _tuning_metrics(study, name)
    return out


def _tuning_metrics(study: Study, name: str) -> dict[str, float]:
    grid, tuned = study.methods[name].grid, study.tunings[name]
    reconstructions = len(tuned.settings) * study.validation.number if grid else 0
    out = {f"tuning_reconstructions/{name}": float(reconstructions)}
    if not grid:
        return out
    out[f"tuning_projector_calls/{name}"] = tuned.cost * reconstructions
    first, default = next(iter(grid)), study.methods[name].default
    if default:
        changes = tuned.change_around(default, first)
        pairs = zip(tuned.groups, changes, strict=True)
        return out | {f"change_within_half_and_twice/{name}/{level:g}": float(one) for level, one in pairs}
    shared, sensitivity = tuned.shared_loss(), tuned.sensitivity(first)
    for column, (level, hyperparameters) in enumerate(tuned.best.items()):
        out |= {
            f"hyperparameter_{hyperparameter}/{name}/{level:g}": value
            for hyperparameter, value in hyperparameters.items()
        }
        out[f"hyperparameter_sensitivity/{name}/{level:g}"] = float(sensitivity[column])
        out[f"shared_hyperparameter_loss/{name}/{level:g}"] = float(shared[column])
    return out


def by_head(values: np.ndarray, cases: Scans, level: float, realizations: int) -> np.ndarray:
    """Mean over the realisations of each head, at one count level."""
    return values[cases.level == np.float32(level)].reshape(-1, realizations).mean(axis=1)


def paired_metrics(study: Study) -> dict[str, float]:
    """Metrics of the paired comparison of means of samples with other methods, over heads.

    `nrmse_ratio/MEAN/OTHER/COUNTS` is the ratio of the mean errors, `nrmse_difference/…` the mean paired difference and
    `nrmse_difference_low/…`, `…_high/…` its 95 % interval (t over heads); `nrmse_ratio/METHOD/MEAN/COUNTS` is the ratio
    of a single sample's error to that of the mean.
    """
    out: dict[str, float] = {}
    errors = {name: evaluate(done.image, study.cases)["nrmse"] for name, done in study.results.items()}
    for name in study.draws:
        mean = name + MEAN_SUFFIX
        others = {other: values for other, values in errors.items() if other in CONVENTIONAL}
        for level in study.inputs.levels:
            own, one = (by_head(errors[key], study.cases, level, study.realizations) for key in (mean, name))
            out[f"nrmse_ratio/{name}/{mean}/{level:g}"] = float(one.mean() / own.mean())
            for other, values in others.items():
                against = by_head(values, study.cases, level, study.realizations)
                low, high = confidence_interval(own - against)
                key = f"{mean}/{other}/{level:g}"
                out |= {
                    f"nrmse_ratio/{key}": float(own.mean() / against.mean()),
                    f"nrmse_difference/{key}": float(np.mean(own - against)),
                    f"nrmse_difference_low/{key}": low,
                    f"nrmse_difference_high/{key}": high,
                }
    return out


def paired_table(study: Study, metrics: Mapping[str, float]) -> Table:
    """Table of the `paired_metrics`: a row for each count level, mean of samples and other method."""
    rows = list[list[Any]]()
    for level in study.inputs.levels:
        for name in study.draws:
            for other in study.results:
                key = f"{name}{MEAN_SUFFIX}/{other}/{level:g}"
                if f"nrmse_ratio/{key}" not in metrics:
                    continue
                ends = (metrics[f"nrmse_difference{end}/{key}"] for end in ("", "_low", "_high"))
                row = [f"{level:g}", title(name + MEAN_SUFFIX), title(other), f"{metrics[f'nrmse_ratio/{key}']:.3f}"]
                rows.append([*row, "{:+.4f} ({:+.4f} to {:+.4f})".format(*ends)])
    return Table(["trues/mm³", "method", "against", "ratio of NRMSE", "paired difference (95 % interval)"], rows)


def study_table(metrics: Mapping[str, float], names: Sequence[str], levels: Sequence[float]) -> Table:
    """Table of the measures: one row for each count level and method."""
    rows: list[list[Any]] = []
    columns = {
        key: column for key, column in COLUMNS.items() if any(metric.startswith(f"{key}/") for metric in metrics)
    }
    for level in levels:
        for name in names:
            keys = [(f"{m}/{name}/{level:g}", f"{m}_sd/{name}/{level:g}", 0 if "calls" in m else 3) for m in columns]
            rows.append([f"{level:g}", title(name), *(cell(metrics, key, digits, sd=sd) for key, sd, digits in keys)])
    note = "Mean ± SD over realisations and heads, with hyper-parameters tuned for each count level."
    return Table(["trues/mm³", "method", *columns.values()], rows, note)


def plot_images(study: Study, level: float) -> Figure:
    """Figure of the first test scan of a count level, reconstructed by every method."""
    setup, work = study.inputs.setup, study.inputs.work
    first = int(np.flatnonzero(study.cases.level == np.float32(level))[0])
    shown = {"Truth": study.cases.truth[first]}
    shown |= {title(name): done.image[first] for name, done in study.results.items()}
    figure = montage(shown, np.diag([*setup.grid.voxel_mm, 1.0]), note=f"Simulated, {level:g} trues/mm³")
    return Figure(save_figure(work, f"images_{level:g}", figure), f"{level:g} trues per mm³.")
