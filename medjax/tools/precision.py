"""Precision of biomarkers from tables of scan and rescan, as in `medjax precision`.

found = precision_of_tables("scan.csv", "rescan.csv", "precision")
found.biomarkers["LVEF_percent"].precision.points.limits.bias              rescan − scan, mean over subjects
found.biomarkers["LVEF_percent"].intervals["overlap/percentile/iou"]       CohortInterval(estimate, low, high, …)
"""

from pathlib import Path

import numpy as np

from medjax.errors import ConfigError, DataError, pluralize
from medjax.tools.biomarker_precision import BiomarkerPrecision, CohortPrecision, Settings, assess_biomarker
from medjax.tools.biomarker_truth import subjects_to_calibrate
from medjax.tools.checks import (
    MAX_RESAMPLES,
    MAX_SAMPLES,
    as_paths,
    check_choice,
    check_no_overwrite,
    check_output_files,
    check_output_folder,
    check_range,
    check_seed,
)
from medjax.tools.precision_outputs import output_files, write_outputs
from medjax.tools.sample_tables import SamplePairs, pair, parse_names, read_samples, read_truth
from medjax.uncertainty.interval_coverage import expected_coverage
from medjax.uncertainty.sample_intervals import KINDS, OVERLAPS
from medjax.uncertainty.sample_tests import CORRECTIONS

DEFAULTS = Settings()
SHORTFALL = 0.02  # of expected coverage below the nominal level, from which on a warning says so


def precision_of_tables(
    scan: Path | str,
    rescan: Path | str,
    output: Path | str | None = None,
    *,
    settings: Settings = DEFAULTS,
    biomarkers: str | None = None,
    samples: int | None = None,
    drop_incomplete: bool = False,
    truth: Path | str | None = None,
    rescan_truth: Path | str | None = None,
    command: str = "",
) -> CohortPrecision:
    """Agreement of biomarkers of scan and rescan, as point estimates (means of the samples) and as distributions.

    Args:
        scan: CSV of samples or point estimates, see `sample_tables`.
        rescan: that of the rescan of the same subjects.
        output: folder for precision.csv, subjects.csv, report.html and figures, created if need be; None: no file.
        settings: definitions of interval, overlap and tests.
        biomarkers: columns, separated by commas; None: all with numbers.
        samples: number of samples that are taken of each scan, the first ones; None: all.
        drop_incomplete: leave out subjects of one table only, and those without a value from that biomarker.
        truth: CSV of true values of each subject.
        rescan_truth: that of the rescan, if there was a true change; None: `truth`.
        command: command line that repeats this call, for the report.

    Raises:
        ConfigError: a setting out of its range.
        DataError: a table that cannot be used, see `sample_tables`, fewer than two subjects, or an output that is an
            input.
    """
    scan, rescan, output, truth, rescan_truth = as_paths(scan, rescan, output, truth, rescan_truth)
    _check(settings, samples, truth, rescan_truth)
    names = parse_names("--biomarkers", biomarkers)
    if output is not None:
        check_output_folder(output)
    data = pair(read_samples(scan, names, samples), read_samples(rescan, names, samples), drop_incomplete)
    known = [
        read_truth(file, data.subjects, list(data.scan)) for file in (truth, rescan_truth or truth) if file is not None
    ]
    if output is not None:
        check_output_files(output_files(output, data.scan))
        check_no_overwrite(output_files(output, data.scan), [scan, rescan, truth, rescan_truth])
    found = {name: _assess(name, data, known, settings) for name in data.scan}
    warnings = [*data.warnings, *_constant(found), *_warnings(found, len(data.samples), settings, truth is not None)]
    result = CohortPrecision(found, len(data.samples), settings, warnings)
    if output is not None:
        inputs = {"Scan": scan, "Rescan": rescan, "Truth": truth, "Truth of the rescan": rescan_truth}
        write_outputs(output, result, inputs, command)
    return result


def _check(settings: Settings, samples: int | None, truth: Path | None, rescan_truth: Path | None) -> None:
    check_seed(settings.seed)
    check_choice("--interval", settings.interval, KINDS)
    check_choice("--overlap", settings.overlap, OVERLAPS)
    check_choice("--correction", settings.correction, CORRECTIONS)
    check_range("--resamples", settings.resamples, 1, MAX_RESAMPLES)
    if samples is not None:
        check_range("--samples", samples, 1, MAX_SAMPLES)
    for option, value in (("--level", settings.level), ("--alpha", settings.alpha)):
        if not 0 < value < 1:
            raise ConfigError(f"{option} {value:g}; expected a number between 0 and 1")
    if rescan_truth is not None and truth is None:
        raise ConfigError("--rescan-truth without --truth; expected the true values of the scan too")


def _assess(name: str, data: SamplePairs, truth: list[dict[str, np.ndarray]], settings: Settings) -> BiomarkerPrecision:
    whole = ~np.isnan(data.scan[name][:, 0])  # missing values are NaN in all samples
    subjects = [one for one, kept in zip(data.subjects, whole, strict=True) if kept]
    if len(subjects) < 2:
        raise DataError(f"{name}: {pluralize(len(subjects), 'subject')} with scan and rescan; expected two or more")
    unknown = np.full(len(whole), np.nan)
    known = [values.get(name, unknown)[whole] for values in truth]
    return assess_biomarker(subjects, data.scan[name][whole], data.rescan[name][whole], known, settings)


def _constant(found: dict[str, BiomarkerPrecision]) -> list[str]:
    """One line of the columns that are the same in both tables, such as age or height."""
    names = [name for name, one in found.items() if np.array_equal(one.scan, one.rescan)]
    if not names:
        return []
    return [
        f"{', '.join(names)}: equal in scan and rescan of all subjects, which is no evidence of precision; "
        "--biomarkers chooses the columns to be compared"
    ]


def _warnings(found: dict[str, BiomarkerPrecision], samples: int, settings: Settings, truth: bool) -> list[str]:
    """What the figures cannot say with so few samples or subjects."""
    if samples < 2:
        return ["one value a scan: agreement of point estimates only; distributions need a table of samples"]
    warnings = list[str]()
    if (
        settings.interval != "mean"
        and (expected := expected_coverage(samples, settings.level, settings.interval)) < settings.level - SHORTFALL
    ):
        warnings.append(
            f"{settings.interval} intervals of {samples} samples hold a further draw of the same distribution with "
            f"probability {expected:.2f}, not {settings.level:g}: too short, however good the model"
        )
    if settings.interval == "mean":
        warnings.append("intervals of the mean shrink as samples are added: they do not say where a rescan should lie")
    for test, least in next(iter(found.values())).precision.min_p.items():
        subjects = max(len(one.subjects) for one in found.values())
        if least * (subjects if settings.correction == "holm" else 1) > settings.alpha:
            warnings.append(
                f"{test}: the smallest p-value of {samples} samples is {least:.2g}: after the correction "
                f"({settings.correction}) for {pluralize(subjects, 'subject')} none can be significant"
            )
    if truth and any(one.conformal is None for each in found.values() for one in each.truth.values()):
        need = 2 * subjects_to_calibrate(settings.level)
        warnings.append(f"too few subjects to recalibrate at level {settings.level:g} on one half: {need} are needed")
    return warnings
