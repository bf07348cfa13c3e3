"""Human Connectome Project, young adults: the open and the restricted table, and one folder a subject.

    metadata.csv       Subject, Gender (F, M), …
    restricted.csv     Subject, Age_in_Yrs, Race, …
    DIR/100206/T1w/T1w_acpc_dc_restore_brain.nii.gz

The restricted table is under terms of its own; names of columns and files are those of the release.
"""

from pathlib import Path

from medjax.datasets.image_list import CodedColumn, ImageList, by_value
from medjax.datasets.scan_tables import join, read_scans
from medjax.io.tables import read_table

SEX = by_value("Gender", {"F": 0, "M": 1})
RACE = by_value("Race", {"White": 0, "Black or African Am.": 1})


def hcp(
    table: Path,
    folder: Path,
    label: CodedColumn = SEX,
    attribute: CodedColumn = RACE,
    *,
    restricted: Path | None = None,
    file: str = "{Subject}/T1w/T1w_acpc_dc_restore_brain.nii.gz",
    ages: tuple[float | int, float | int] = (18, float("inf")),
) -> ImageList:
    """Scans of HCP, one a subject, who are all healthy.

    Args:
        table: CSV of the open data.
        folder: folder of the subjects' folders.
        label: column and codes of the label.
        attribute: column and codes of the attribute.
        restricted: CSV of the restricted data, for `RACE` and ages.
        file: pattern of a subject's file.
        ages: youngest and oldest age, years; only with `restricted`.

    Raises:
        DataError: as `read_scans`.
    """
    rows = read_table(table, ("Subject", "Gender"))
    if restricted is not None:
        more = read_table(restricted, ("Subject", "Age_in_Yrs", "Race"))
        rows = join(rows, "Subject", more, "Subject", ("Age_in_Yrs", "Race"))
    return read_scans(
        table, rows, folder, file, id="Subject", subject="Subject", label=label, attribute=attribute,
        age=None if restricted is None else "Age_in_Yrs", ages=ages,
    )  # fmt: skip
