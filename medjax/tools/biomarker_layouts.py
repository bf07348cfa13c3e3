"""Label maps of ACDC's and M&Ms' published layouts, with ED and ES as the data set fixes them, heights and weights.

    ACDC    DIR/patient001/Info.cfg                        lines such as "ED: 1", "Height: 184.0"; frames from 1
            DIR/patient001/patient001_frame01_gt.nii.gz    label maps of ED and ES
    M&Ms    DIR/…information….csv                          columns External code, ED, ES, Height, Weight; frames from 0
            DIR/…/A0S9V9/A0S9V9_sa_gt.nii.gz               4-D label map, of which the frames ED and ES are labelled

Source: Bernard et al., IEEE Transactions on Medical Imaging 37(11), 2018 (ACDC); Campello et al., IEEE Transactions on
Medical Imaging 40(12), 2021 (M&Ms).
"""

from collections.abc import Mapping
from pathlib import Path

from medjax.datasets.short_axis import check_phases, parse_body, parse_frame
from medjax.errors import DataError
from medjax.io.files import read_text, real_path
from medjax.io.tables import read_table
from medjax.tools.biomarker_case import Case
from medjax.uncertainty.volume_curve import Frames

ENDINGS = (".nii.gz", ".nii")
MNMS_COLUMNS = ("External code", "ED", "ES")


def layout_cases(folder: Path) -> list[Case]:
    """Cases of a folder in the layout of ACDC or M&Ms, sorted by subject.

    Raises:
        DataError: it has neither layout, or a file, frame or table lacks what the layout has.
    """
    if patients := sorted(path.parent for path in folder.glob("patient*/Info.cfg")):
        return [_acdc(patient) for patient in patients]
    labels = {path.name.partition("_sa_gt.nii")[0]: path for path in sorted(folder.rglob("*_sa_gt.nii*"))}
    if labels:
        table, rows = _mnms_table(folder)
        return [_mnms(table, rows, code, path) for code, path in sorted(labels.items())]
    raise DataError(f"{folder}: no patient…/Info.cfg, no …_sa_gt.nii.gz; expected the layout of ACDC or M&Ms")


def _acdc(patient: Path) -> Case:
    info = patient / "Info.cfg"
    pairs = (line.partition(":") for line in read_text(info, "lines such as 'ED: 1'").splitlines())
    cells = {name.strip(): value.strip() for name, _, value in pairs}
    stems = [patient / f"{patient.name}_frame{frame:02d}_gt" for frame in _phases(cells, 1, str(info))]
    names = [[stem.with_name(stem.name + ending) for ending in ENDINGS] for stem in stems]
    files = tuple(next((one for one in own if one.is_file()), own[0]) for own in names)
    if missing := [one for one in files if not one.is_file()]:
        raise DataError(f"{missing[0]}: no such file; expected the label map of a frame that {info} names")
    return Case(patient.name, "", files, None, *parse_body(cells), "acdc")


def _mnms_table(folder: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """The table of the data set, in the folder or one of the two above it."""
    for parent in (folder, *real_path(folder).parents[:2]):
        for file in sorted(parent.glob("*.csv")):
            try:
                rows = read_table(file, MNMS_COLUMNS)
            except DataError:
                continue  # another table
            return file, {row["External code"].strip(): row for row in rows}
    raise DataError(f"{folder}: no CSV with columns {', '.join(MNMS_COLUMNS)}; expected the table of M&Ms")


def _mnms(table: Path, rows: Mapping[str, Mapping[str, str]], code: str, path: Path) -> Case:
    if code not in rows:
        raise DataError(f"{table}: no row {code}; expected one for {path}")
    cells = rows[code]
    return Case(code, "", (path,), Frames(*_phases(cells, 0, f"{table}, {code}")), *parse_body(cells), "mnms")


def _phases(cells: Mapping[str, str], first: int, source: str) -> tuple[int, int]:
    """Numbers of the frames at ED and ES, of which the first frame has the number `first`."""
    ed, es = (parse_frame(cells.get(phase, ""), phase, source) for phase in ("ED", "ES"))
    check_phases(ed, es, first, None, source)
    return ed, es
