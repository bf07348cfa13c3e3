"""M&Ms: short-axis cine MRI of several vendors and centres, with labels at end-diastole and end-systole (ED, ES).

    INFORMATION.csv                     External code, VendorName, Vendor, Centre, ED, ES, Pathology, Height, Weight, …
    DIR/A0S9V9/A0S9V9_sa.nii.gz         the cine (x, y, z, frame)
    DIR/A0S9V9/A0S9V9_sa_gt.nii.gz      labels: LV 1, myocardium 2, RV 3, in the frames ED and ES (from 0) only

    for subject in mnms_subjects(Path("INFORMATION.csv")).values():
        study = read_mnms(Path("Training/Labeled"), subject)

Labels are returned in ACDC's codes: RV 1, myocardium 2, LV 3.

Source: Campello et al., IEEE Transactions on Medical Imaging 40(12), 2021.
"""

from pathlib import Path
from typing import NamedTuple

from medjax.datasets.short_axis import (
    CineStudy,
    check_annotation,
    check_phases,
    check_same_series,
    parse_body,
    parse_frame,
    read_series,
    to_acdc_codes,
)
from medjax.errors import DataError
from medjax.io.tables import read_table

CODES = {"LV": 1, "MYO": 2, "RV": 3}
COLUMNS = ("External code", "Vendor", "Centre", "ED", "ES")


class MnmsSubject(NamedTuple):
    """One row of the table."""

    code: str
    vendor: str  # A, B, C or D
    site: str  # its column Centre
    ed: int  # frames, from 0
    es: int
    pathology: str  # "" where the table has no such column
    height_cm: float  # NaN where unknown
    weight_kg: float


def mnms_subjects(table: Path) -> dict[str, MnmsSubject]:
    """Read the subjects of the table, by their external code.

    Raises:
        DataError: as `read_table`, a code twice, ED or ES that is no frame's number, or ED = ES.
    """
    subjects: dict[str, MnmsSubject] = {}
    for row in read_table(table, COLUMNS):
        code = row["External code"].strip()
        if code in subjects:
            raise DataError(f"{table}: two rows of {code}; expected one")
        source = f"{table}: {code}"
        ed, es = (parse_frame(row[key], key, source) for key in ("ED", "ES"))
        check_phases(ed, es, 0, None, source)
        pathology = row.get("Pathology", "").strip()
        vendor, site = row["Vendor"].strip(), row["Centre"].strip()
        subjects[code] = MnmsSubject(code, vendor, site, ed, es, pathology, *parse_body(row))
    return subjects


def read_mnms(folder: Path, subject: MnmsSubject) -> CineStudy:
    """Read one subject's images and labels at ED and ES, labels in ACDC's codes.

    Raises:
        DataError: a missing file, ED or ES beyond the cine, grids that differ, an unknown label, or a frame without a
            left ventricle.
    """
    stem = folder / subject.code / f"{subject.code}_sa"
    image_file, label_file = Path(f"{stem}.nii.gz"), Path(f"{stem}_gt.nii.gz")
    image, label = read_series(image_file, 4), read_series(label_file, 4)
    check_same_series(label_file, label, image_file, image)
    check_phases(subject.ed, subject.es, 0, image.array.shape[3] - 1, str(image_file))
    phases = [subject.ed, subject.es]
    labels = to_acdc_codes(label.array[..., phases], CODES, label_file)
    for position, phase in enumerate(("ED", "ES")):
        check_annotation(labels[..., position], label_file, f"{phase}, frame {phases[position]}")
    return CineStudy(
        image.array[..., phases], labels, image.spacing, 0, 1, subject.code, subject.pathology, subject.height_cm,
        subject.weight_kg,
    )  # fmt: skip
