"""OASIS-3: tables of demographics and cognition, and a folder of NIfTI files named by subject and day.

    OASIS3_demographics.csv      OASISID, AgeatEntry, GENDER (1 male, 2 female), race (White, Black, …)
    OASIS3_UDSd1_diagnoses.csv   OASISID, NORMCOG, alzdis (1 yes), several rows a subject
    DIR/OAS30001_MR_d0129….nii.gz, or DIR/sub-OAS30001/ses-d0129/…            scan of day 129 after entry

The data are under OASIS' terms of use. A subject's diagnosis is CN where NORMCOG is 1 at all visits, AD where alzdis
is; other subjects have none, and a visit without a value in both columns says nothing. Age at the scan is the age at
entry + days / 365, as in the published code of ShortMR.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from medjax.datasets.image_list import CodedColumn, ImageList, by_value, number, plain
from medjax.datasets.scan_tables import join, read_scans
from medjax.errors import DataError
from medjax.io.tables import is_missing, read_table

DIAGNOSIS = by_value("diagnosis", {"CN": 0, "AD": 1})
SEX = by_value("GENDER", {"2": 0, "1": 1})
RACE = by_value("race", {"White": 0, "Black": 1})
SCAN = re.compile(r"(OAS3\d{4}).*?_?d(\d{4})")  # subject and day in a file's path


def oasis3(
    demographics: Path,
    folder: Path,
    label: CodedColumn = DIAGNOSIS,
    attribute: CodedColumn = SEX,
    *,
    cognition: Path | None = None,
    pattern: str | None = None,
    ages: tuple[float | int, float | int] = (18, float("inf")),
) -> ImageList:
    """Scans of OASIS-3, one of each subject and day.

    Args:
        demographics: CSV of the subjects.
        folder: folder of the NIfTI files.
        label: column and codes of the label; `DIAGNOSIS` needs `cognition`.
        attribute: column and codes of the attribute.
        cognition: CSV of diagnoses.
        pattern: pattern of the files to take, such as "**/*T1w.nii.gz", of which the first one by name is taken of each
            subject and day; default: all NIfTI files, of which there may be one only.
        ages: youngest and oldest age at the scan, years.

    Raises:
        DataError: no file of that pattern has a subject and a day in its name, several files of a subject and day and
            no pattern, or as `read_scans`.
    """
    rows: list[dict[str, str]] = []
    for path in sorted(folder.glob(pattern or "**/*.nii*")):
        if found := SCAN.search(path.relative_to(folder).as_posix()):
            name = path.relative_to(folder).as_posix()
            rows.append({"OASISID": found[1], "day": found[2], "file": name, "scan": f"{found[1]}_d{found[2]}"})
    if not rows:
        raise DataError(
            f"{folder}: no file {pattern or '*.nii*'} with OAS30001 and d0129 in its name; expected scans of OASIS-3"
        )
    for one, other in pairwise(sorted(rows, key=lambda row: row["scan"])) if pattern is None else ():
        if one["scan"] == other["scan"]:
            two = f"{one['file']} and {other['file']} are of one day"
            raise DataError(f"{folder}: {two}; expected a pattern of those to take, such as '**/*T1w.nii.gz'")
    known = ("AgeatEntry", "GENDER", "race")
    rows = join(rows, "OASISID", read_table(demographics, ("OASISID", *known)), "OASISID", known)
    for row in rows:
        row["age"] = str(number(row["AgeatEntry"]) + number(row["day"]) / 365)
    if cognition is not None:
        visits = read_table(cognition, ("OASISID", "NORMCOG", "alzdis"))
        visits = [{"OASISID": row["OASISID"], "diagnosis": _diagnosis(row)} for row in visits]
        rows = join(rows, "OASISID", visits, "OASISID", ("diagnosis",))
    return read_scans(
        demographics, rows, folder, "{file}", id="scan", subject="OASISID", label=label, attribute=attribute,
        visit="day", age="age", ages=ages,
    )  # fmt: skip


def _diagnosis(visit: Mapping[str, str]) -> str:
    """Diagnosis at a visit; normal cognition leaves alzdis empty, so an empty cell alone is no missing diagnosis."""
    normal, ad = plain(visit["NORMCOG"]), plain(visit["alzdis"])
    if is_missing(normal) and is_missing(ad):
        return ""
    return "CN" if normal == "1" else "AD" if ad == "1" else "other"
