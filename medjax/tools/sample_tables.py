"""Tables of biomarkers, as `medjax biomarkers` writes and `medjax precision` reads them: checked, and as arrays.

A sample table has one row for each subject and sample, with columns `subject` and `sample`; a point table has one row
for each subject and no column `sample`. A column `spacing_mm` is the voxel spacing; every other column with numbers is
a biomarker, and one without any number is left out.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.errors import ConfigError, DataError, pluralize
from medjax.io.tables import is_missing, read_table
from medjax.running.config import did_you_mean
from medjax.tools.biomarker_case import SPACING_TOLERANCE

SUBJECT, SAMPLE, SPACING = "subject", "sample", "spacing_mm"
MAX_NAMES = 5


class SampleTable(NamedTuple):
    """Content of a table; NaN where a cell is empty."""

    file: Path
    subjects: list[str]
    samples: list[str]  # names of the samples, the same of every subject; one, without a name, of a point table
    values: dict[str, Float[np.ndarray, "subject sample"]]  # by biomarker
    spacing: list[str] | None  # of each subject


class SamplePairs(NamedTuple):
    """Biomarkers of scan and rescan of the same subjects, sample by sample."""

    subjects: list[str]
    samples: list[str]
    scan: dict[str, Float[np.ndarray, "subject sample"]]  # by biomarker
    rescan: dict[str, Float[np.ndarray, "subject sample"]]
    warnings: list[str]


def read_samples(file: Path, biomarkers: Sequence[str] | None = None, number: int | None = None) -> SampleTable:
    """Read and check a table.

    Args:
        file: the CSV.
        biomarkers: columns to read; None: all with numbers.
        number: how many samples of each subject are taken, the first ones; None: all.

    Raises:
        DataError: no such file or column (the nearest one is suggested), no row or no biomarker, a subject or sample
            without a name, one that occurs twice, subjects with different samples or fewer than `number`, or a cell
            that is no finite number.
    """
    rows = read_table(file, (SUBJECT,))
    keys = [(_name(file, row, SUBJECT, k), _name(file, row, SAMPLE, k)) for k, row in enumerate(rows)]
    key, times = Counter(keys).most_common(1)[0]
    if times > 1:
        if SAMPLE in rows[0]:
            raise DataError(f"{file}: sample '{key[1]}' of subject '{key[0]}' occurs {times} times; expected one row")
        raise DataError(f"{file}: subject '{key[0]}' in {times} rows; expected one row, or a column '{SAMPLE}'")
    of: dict[str, dict[str, int]] = {}
    for k, (subject, sample) in enumerate(keys):
        of.setdefault(subject, {})[sample] = k
    samples = _common_samples(file, of, number)
    order = np.array([[of[subject][sample] for sample in samples] for subject in of])
    values = {name: _numbers(file, rows, name)[order] for name in _biomarkers(file, rows, biomarkers)}
    spacing = [rows[row[0]][SPACING].strip() for row in order] if SPACING in rows[0] else None
    return SampleTable(file, [*of], samples, values, spacing)


def pair(scan: SampleTable, rescan: SampleTable, drop_incomplete: bool = False) -> SamplePairs:
    """Pair scan and rescan by subject, sample and biomarker, in the order of the scan's table.

    Subjects in one table only and missing values are refused or, with `drop_incomplete`, left out: the former
    altogether, the latter as NaN in all samples of that subject and biomarker, in both scans.

    Raises:
        DataError: another number or other names of samples, another biomarker, subjects in one table only, no common
            subject, or a missing value.
    """
    _check_samples(scan, rescan)
    _check_biomarkers(scan, rescan)
    warnings = list[str]()
    subjects = [one for one in scan.subjects if one in {*rescan.subjects}]
    if unpaired := _unpaired(scan, rescan):
        if not drop_incomplete or not subjects:
            raise DataError(f"{unpaired}; expected the same subjects, or --drop-incomplete to leave them out")
        warnings.append(f"{unpaired}: left out")
    rows = [[table.subjects.index(one) for one in subjects] for table in (scan, rescan)]
    warnings += _compare_spacing(scan, rescan, subjects, rows)
    first = {name: scan.values[name][rows[0]] for name in scan.values}
    second = {name: rescan.values[name][rows[1]] for name in scan.values}
    for name, a in first.items():
        b = second[name]
        missing = np.any(np.isnan(np.concatenate([a, b], 1)), axis=1)
        if not missing.any():
            continue
        message = f"{name}: missing values of {_listed([subjects[k] for k in np.flatnonzero(missing)])}"
        if not drop_incomplete:
            where = scan.file if np.isnan(a).any() else rescan.file
            raise DataError(f"{where}: {message}; expected numbers, or --drop-incomplete to leave those subjects out")
        warnings.append(f"{message}: left out of it")
        first[name], second[name] = (np.where(missing[:, None], np.nan, one) for one in (a, b))
    return SamplePairs(subjects, scan.samples, first, second, warnings)


def read_truth(
    file: Path, subjects: Sequence[str], biomarkers: Sequence[str]
) -> dict[str, Float[np.ndarray, " subject"]]:
    """Read true values, one row for each subject; an empty cell is unknown, NaN. More subjects may be in the table.

    Raises:
        DataError: as `read_samples`; a column `sample`, subjects that it lacks, or no column of a biomarker.
    """
    table = read_samples(file)
    if len(table.samples) > 1 or table.samples != [""]:
        raise DataError(f"{file}: a column '{SAMPLE}'; expected one row of true values for each subject")
    if lacking := [one for one in subjects if one not in {*table.subjects}]:
        raise DataError(f"{file}: lacks {_listed(lacking)}; expected the true values of every subject")
    known = [name for name in biomarkers if name in table.values]
    if not known:
        found = ", ".join(table.values)
        raise DataError(f"{file}: true values of {found}; expected some of {', '.join(biomarkers)}")
    rows = [table.subjects.index(one) for one in subjects]
    return {name: table.values[name][rows, 0] for name in known}


def _name(file: Path, row: dict[str, str], column: str, k: int) -> str:
    """Name of a row's subject or sample; "" where there is no such column."""
    text = row.get(column, "").strip()
    if column in row and is_missing(text):
        raise DataError(f"{file}: {column} is {text or 'empty'} in row {k + 1}; expected its name or number")
    return text


def _common_samples(file: Path, of: dict[str, dict[str, int]], number: int | None) -> list[str]:
    """Names of the samples of every subject, in their order as numbers where they are such."""
    counts = {subject: len(samples) for subject, samples in of.items()}
    least = min(counts, key=lambda subject: counts[subject])
    greatest = max(counts, key=lambda subject: counts[subject])
    if number is not None and counts[least] < number:
        raise DataError(
            f"{file}: {pluralize(counts[least], 'sample')} of subject '{least}'; expected {number} (--samples)"
        )
    if number is None and counts[least] < counts[greatest]:
        found = f"{pluralize(counts[least], 'sample')} of subject '{least}', {counts[greatest]} of '{greatest}'"
        raise DataError(
            f"{file}: {found}; expected equal numbers, or --samples {counts[least]} for the first ones of each"
        )
    first, *others = ((subject, _sorted(samples)[:number]) for subject, samples in of.items())
    for subject, samples in others:
        if samples != first[1]:
            one = next(a for a, b in zip(samples, first[1], strict=True) if a != b)
            raise DataError(
                f"{file}: subject '{subject}' has a sample '{one}', '{first[0]}' not; expected the same samples"
            )
    return first[1]


def _sorted(samples: dict[str, int]) -> list[str]:
    return sorted(samples, key=lambda text: (_number(text) if math.isfinite(_number(text)) else math.inf, text))


def _biomarkers(file: Path, rows: list[dict[str, str]], chosen: Sequence[str] | None) -> list[str]:
    columns = [name for name in rows[0] if name not in (SUBJECT, SAMPLE, SPACING)]
    if chosen is not None:
        for name in chosen:
            if name not in columns:
                hint = did_you_mean(name, columns) or f"; expected one of {', '.join(columns)}"
                raise DataError(f"{file}: no column '{name}'{hint}")
        return [*chosen]
    found = [name for name in columns if any(not math.isnan(_number(row[name])) for row in rows)]
    if not found:
        raise DataError(f"{file}: columns {', '.join(rows[0])}, none with numbers; expected biomarkers")
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _numbers(file: Path, rows: list[dict[str, str]], name: str) -> Float[np.ndarray, " row"]:
    cells = [row[name].strip() for row in rows]
    numbers = np.array([_number(cell) for cell in cells])
    for k in np.flatnonzero(~np.isfinite(numbers)):
        if not is_missing(cells[k]):
            raise DataError(f"{file}: {name} '{cells[k]}' in row {k + 1}; expected a finite number")
    return numbers


def _check_samples(scan: SampleTable, rescan: SampleTable) -> None:
    a, b = scan.samples, rescan.samples
    if (a == [""]) != (b == [""]):
        with_samples, without = (rescan, scan) if a == [""] else (scan, rescan)
        raise DataError(
            f"{without.file}: no column '{SAMPLE}', which {with_samples.file} has; expected two tables of samples, or "
            "two of point estimates"
        )
    if len(a) != len(b):
        raise DataError(
            f"{scan.file}, {rescan.file}: {len(a)} and {pluralize(len(b), 'sample')} a subject; expected equal numbers "
            f"(overlaps and p-values depend on them), or --samples {min(len(a), len(b))} for the first ones of each"
        )
    if a != b:
        one, other = next((x, y) for x, y in zip(a, b, strict=True) if x != y)
        raise DataError(
            f"{scan.file}, {rescan.file}: samples '{one}' and '{other}'; expected the same names, by which they are "
            "paired"
        )


def _check_biomarkers(scan: SampleTable, rescan: SampleTable) -> None:
    common = [name for name in scan.values if name in rescan.values]
    if not common:
        found = f"{', '.join(scan.values)} and {', '.join(rescan.values)}"
        raise DataError(f"{scan.file}, {rescan.file}: biomarkers {found}; expected common ones")
    for one, other in ((scan, rescan), (rescan, scan)):
        if alone := [name for name in one.values if name not in other.values]:
            raise DataError(
                f"{other.file}: no numbers in a column '{alone[0]}', which {one.file} has; expected the same "
                f"biomarkers, or --biomarkers {','.join(common)}"
            )


def _unpaired(scan: SampleTable, rescan: SampleTable) -> str:
    parts = list[str]()
    for one, other in ((scan, rescan), (rescan, scan)):
        if alone := [subject for subject in one.subjects if subject not in {*other.subjects}]:
            parts.append(f"{_listed(alone)} only in {one.file}")
    return ", ".join(parts)


def _compare_spacing(scan: SampleTable, rescan: SampleTable, subjects: list[str], rows: list[list[int]]) -> list[str]:
    if scan.spacing is None or rescan.spacing is None:
        return []
    pairs = [(scan.spacing[a], rescan.spacing[b]) for a, b in zip(*rows, strict=True)]
    other = [k for k, (a, b) in enumerate(pairs) if not _same_spacing(a, b)]
    if not other:
        return []
    a, b = pairs[other[0]]
    return [
        f"{SPACING} of scan and rescan differ in {len(other)} of {pluralize(len(subjects), 'subject')}, such as "
        f"'{subjects[other[0]]}' ({a} and {b}): part of the differences may be due to that"
    ]


def _same_spacing(a: str, b: str) -> bool:
    """Whether the numbers are the same up to a rounding, such as 1.4x1.4x8 and 1.40 × 1.40 × 8.0 mm."""
    first, second = ([float(one) for one in re.findall(r"\d+\.?\d*", text)] for text in (a, b))
    return a == b or (0 < len(first) == len(second) and np.allclose(first, second, SPACING_TOLERANCE))


def _listed(subjects: Sequence[str]) -> str:
    names = ", ".join(f"'{one}'" for one in subjects[:MAX_NAMES])
    more = f", … ({len(subjects)} in all)" if len(subjects) > MAX_NAMES else ""
    return f"subject{'s' * (len(subjects) > 1)} {names}{more}"


def parse_names(option: str, text: str | None) -> list[str] | None:
    """Parse an option such as "LVEDV_ml,LVEF_percent" to names; None for None.

    Raises:
        ConfigError: an empty name, or one that occurs twice.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len({*names}) < len(names):
        raise ConfigError(f"{option} {text}; expected different names of columns, such as LVEDV_ml,LVEF_percent")
    return names
