"""Inputs of `medjax biomarkers`: which label maps belong to a subject, and what their label codes are.

cases = [case for path in paths for case in list_cases(path)]
codes, source = parse_codes(None, cases)
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medjax.errors import ConfigError, DataError
from medjax.io.nifti import SUFFIXES
from medjax.io.tables import is_missing, read_table
from medjax.tools.biomarker_case import Case
from medjax.tools.biomarker_layouts import layout_cases
from medjax.tools.checks import MAX_DIGITS
from medjax.uncertainty.biomarkers import LAYOUTS, LabelCodes, check_codes
from medjax.uncertainty.volume_curve import Frames


def parse_codes(text: str | None, cases: Sequence[Case]) -> tuple[LabelCodes, str]:
    """Label codes of a text, "acdc", "mnms" or "LV,MYOCARDIUM,RV" such as "3,2,1"; None: those of the cases' layout.

    Also returns where they come from.

    Raises:
        ConfigError: no such codes, or none without a layout that has them.
    """
    expected = "expected acdc (3,2,1), mnms (1,2,3), or three different label values LV,MYOCARDIUM,RV"
    if text is None:
        layouts = sorted({case.layout for case in cases})
        if len(layouts) > 1 or layouts[0] not in LAYOUTS:
            what = f"layouts {' and '.join(layouts)}" if len(layouts) > 1 else "lists and cines do not tell the codes"
            raise ConfigError(f"--labels: {what}; {expected}")
        return LAYOUTS[layouts[0]], f"by the layout, {layouts[0]}"
    if text.lower() in LAYOUTS:
        return LAYOUTS[text.lower()], f"--labels {text}"
    parts = [part.strip() for part in text.split(",")]
    values = [int(part) for part in parts if part.isdecimal() and len(part) < MAX_DIGITS]
    if len(parts) != 3 or len(set(values) - {0}) != 3:
        raise ConfigError(f"--labels {text}; {expected}")
    return check_codes(LabelCodes(*values)), f"--labels {text}"


def list_cases(path: Path) -> list[Case]:
    """Cases of an input: a CSV list, one cine (4-D label map), or a folder in ACDC's or M&Ms' layout.

    Raises:
        DataError: it is none of these, or has no label map.
    """
    if path.is_dir():
        return layout_cases(path)
    if path.suffix.lower() == ".csv":
        return _list(path)
    if path.name.endswith(SUFFIXES):
        subject = path.name.removesuffix(".gz").removesuffix(".nii")
        return [Case(subject, "", (path,), None)]
    raise DataError(f"{path}: expected a CSV list, a cine in NIfTI, or a folder in the layout of ACDC or M&Ms")


def check_unique(cases: Sequence[Case]) -> None:
    """Check that no two cases have one subject and sample, and that either all or none are samples.

    Raises:
        DataError: they are not.
    """
    (name, number), *_ = Counter((case.subject, case.sample) for case in cases).most_common(1)
    if number > 1:
        raise DataError(
            f"subject {name[0]}: {number} rows of sample '{name[1]}'; expected one, or a column sample that differs"
        )
    if len({bool(case.sample) for case in cases}) > 1:
        raise DataError("inputs: some with samples, some without; expected a sample for all or for none")


def _list(path: Path) -> list[Case]:
    rows = read_table(path, ("subject",))
    cases = list[Case]()
    for line, row in enumerate(rows, 2):
        where = f"{path}, row {line}"
        cells = {name: "" if is_missing(cell) else cell.strip() for name, cell in row.items()}
        if not cells["subject"] or ("sample" in cells and not cells["sample"]):
            raise DataError(f"{where}: no subject or sample; expected both columns filled")
        named = [name for name in ("ed", "es", "cine") if cells.get(name)]
        if named not in (["ed", "es"], ["cine"]):
            raise DataError(f"{where}: label maps {named}; expected columns ed and es, or cine")
        files = tuple(path.parent / cells[name] for name in named)
        height, weight = [_number(where, name, cells.get(name, "")) for name in ("height_cm", "weight_kg")]
        frames = _frames(where, cells) if named == ["cine"] else None
        cases.append(Case(cells["subject"], cells.get("sample", ""), files, frames, height, weight))
    return cases


def _frames(where: str, cells: dict[str, str]) -> Frames | None:
    columns = [cells.get(name, "") for name in ("ed_frame", "es_frame")]
    if not any(columns):
        return None
    if not all(cell.isdecimal() for cell in columns):
        raise DataError(f"{where}: ed_frame, es_frame '{columns[0]}', '{columns[1]}'; expected indices from 0, both")
    return Frames(*map(int, columns))


def _number(where: str, name: str, cell: str) -> float:
    try:
        return float(cell or "nan")
    except ValueError as error:
        raise DataError(f"{where}: {name} {cell}; expected a number") from error
