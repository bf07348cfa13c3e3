"""CheXpert: chest X-rays with fourteen findings, sex and age; the layout as distributed, full size or small.

    DIR/train.csv                                           Path, Sex, Age, Frontal/Lateral, AP/PA, and the findings
    DIR/train/patient00001/study1/view1_frontal.jpg         Path is CheXpert-v1.0/train/patient00001/…

A finding is 1 (positive), 0 (negative), −1 (uncertain) or empty (not mentioned). The data are under Stanford's terms.

Source: Irvin et al., AAAI 2019.
"""

import re
from pathlib import Path, PurePosixPath

from medjax.datasets.image_list import CodedColumn, ImageList, Row, by_threshold, by_value, number, plain, to_list
from medjax.errors import DataError
from medjax.io.tables import read_table

SEX = by_value("Sex", {"Female": 0, "Male": 1})
AGE = by_threshold("Age", 45)  # younger than 45, or not


def finding(column: str, blank_negative: bool = False) -> CodedColumn:
    """A finding, such as "Pleural Effusion": uncertain ones leave their image out, as empty ones do.

    Args:
        column: name of the finding.
        blank_negative: whether a finding that is not mentioned is negative.
    """
    return by_value(column, {"0": 0, "1": 1, **({"": 0} if blank_negative else {})})


def chexpert(
    folder: Path,
    label: CodedColumn,
    attribute: CodedColumn = SEX,
    *,
    table: str = "train.csv",
    view: str = "Frontal",
    projection: str | None = "AP",
) -> ImageList:
    """X-rays of one view and projection that have a label and an attribute; read them with `read_images`.

    Args:
        folder: the folder that holds `table`, whatever it is called.
        label: column and codes of the label, see `finding`.
        attribute: column and codes of the attribute.
        table: name of the table.
        view: Frontal or Lateral.
        projection: AP or PA; None: any.

    Raises:
        DataError: no such table or column, no patient in a path, or nothing left.
    """
    file = folder / table
    rows = read_table(file, ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", label.column, attribute.column))
    dropped = {"of other views": 0, "without a class": 0}
    found: list[Row] = []
    for row in rows:
        if plain(row["Frontal/Lateral"]) != view or projection not in (None, plain(row["AP/PA"])):
            dropped["of other views"] += 1
            continue
        y, a = label.code(row[label.column]), attribute.code(row[attribute.column])
        if y is None or a is None:
            dropped["without a class"] += 1
            continue
        inside = PurePosixPath(*PurePosixPath(row["Path"]).parts[1:])  # the first part is the folder's published name
        if not (patient := re.search(r"patient\d+", row["Path"])):
            raise DataError(f"{file}: Path '{row['Path']}'; expected a patient in it, such as patient00001")
        found.append((str(inside), patient[0], y, a, folder / inside, number(row["Age"])))
    return to_list(found, dropped, file)
