"""ADNI: a report of images from LONI's Image & Data Archive, a table of races, and a folder of NIfTI files.

    report.csv      Image Data ID, Subject, Group, Sex, Age, Visit, …       one row an image
    race.csv        subject_id, PTRACCAT                                     5 White, 4 Black or African American
    DIR/…/I12345_MNI_Brain.nii.gz                                            image I12345, brain-extracted

The data are under ADNI's terms of use; names of columns and files are those of the published code of ShortMR.
"""

from pathlib import Path

from medjax.datasets.image_list import CodedColumn, ImageList, by_value
from medjax.datasets.scan_tables import join, read_scans
from medjax.io.tables import read_table

DIAGNOSIS = by_value("Group", {"CN": 0, "AD": 1})
SEX = by_value("Sex", {"F": 0, "M": 1})
RACE = by_value("PTRACCAT", {"5": 0, "4": 1})  # White, Black or African American


def adni(
    report: Path,
    folder: Path,
    label: CodedColumn = DIAGNOSIS,
    attribute: CodedColumn = SEX,
    *,
    race: Path | None = None,
    file: str = "**/{Image Data ID}_*.nii*",
    ages: tuple[float | int, float | int] = (18, float("inf")),
    stable: CodedColumn | None = DIAGNOSIS,
) -> ImageList:
    """Images of ADNI: one scan a visit, of subjects whose diagnosis is the same at all visits.

    Args:
        report: CSV of the images.
        folder: folder of the NIfTI files.
        label: column and codes of the label.
        attribute: column and codes of the attribute.
        race: CSV of races, for `RACE`; subjects with two of them have none.
        file: pattern of an image's file.
        ages: youngest and oldest age, years.
        stable: column and codes that do not change in a subject, another diagnosis such as MCI counts as a change;
            None: whatever it is.

    Raises:
        DataError: as `read_scans`.
    """
    rows = read_table(report, ("Image Data ID", "Subject", "Group", "Sex", "Age", "Visit"))
    if race is not None:
        races = read_table(race, ("subject_id", "PTRACCAT"))
        rows = join(rows, "Subject", races, "subject_id", ("PTRACCAT",))
    return read_scans(
        report, rows, folder, file, id="Image Data ID", subject="Subject", label=label, attribute=attribute,
        visit="Visit", age="Age", ages=ages, stable=stable,
    )  # fmt: skip
