"""ACDC data set: short-axis cine MRI of five groups of patients, with labels at end-diastole (ED) and end-systole (ES).

    DIR/patient001/Info.cfg                       lines such as "ED: 1", "ES: 12", "Group: DCM", "Height: 184.0"
    DIR/patient001/patient001_4d.nii.gz           the cine (x, y, z, frame)
    DIR/patient001/patient001_frame01.nii.gz      one frame, numbered from 1
    DIR/patient001/patient001_frame01_gt.nii.gz   its labels: RV 1, myocardium 2, LV with papillary muscles 3

    for folder in acdc_subjects(Path("ACDC/training")):
        study = read_acdc(folder)

Source: Bernard et al., IEEE Transactions on Medical Imaging 37(11), 2018.
"""

from pathlib import Path

import numpy as np

from medjax.datasets.short_axis import (
    CODES,
    CineSeries,
    CineStudy,
    check_annotation,
    check_phases,
    check_same_series,
    parse_body,
    parse_frame,
    parse_number,
    read_series,
    to_acdc_codes,
)
from medjax.errors import DataError
from medjax.io.files import read_text

KEYS = ("ED", "ES")


def acdc_subjects(folder: Path) -> list[Path]:
    """List the folders of the subjects in `training` or `testing`.

    Raises:
        DataError: there is none.
    """
    found = sorted(path for path in folder.glob("patient*") if path.is_dir())
    if not found:
        raise DataError(f"{folder}: no patient001, …; expected the folder training or testing of ACDC")
    return found


def read_acdc(folder: Path) -> CineStudy:
    """Read one subject's images and labels at ED and ES, group, height and weight.

    Raises:
        DataError: no Info.cfg or a key missing in it, ED = ES, a missing frame, grids that differ, an unknown label, or
            a frame without a left ventricle.
    """
    info_file = folder / "Info.cfg"
    info = _read_info(info_file)
    ed, es = (parse_frame(info[key], key, str(info_file)) for key in KEYS)
    last = parse_number(info.get("NbFrame", ""))
    check_phases(ed, es, 1, None if last is None else int(last), str(info_file))
    images, labels = list[np.ndarray](), list[np.ndarray]()
    first: tuple[Path, CineSeries] | None = None
    for phase, frame in zip(KEYS, (ed, es), strict=True):
        stem = folder / f"{folder.name}_frame{frame:02d}"
        image_file, label_file = Path(f"{stem}.nii.gz"), Path(f"{stem}_gt.nii.gz")
        image, label = read_series(image_file, 3), read_series(label_file, 3)
        first = first or (image_file, image)
        check_same_series(image_file, image, *first)
        check_same_series(label_file, label, image_file, image)
        labels.append(to_acdc_codes(label.array, CODES, label_file))
        check_annotation(labels[-1], label_file, phase)
        images.append(image.array)
    assert first is not None
    return CineStudy(
        np.stack(images, axis=-1), np.stack(labels, axis=-1), first[1].spacing, 0, 1, folder.name,
        info.get("Group", ""), *parse_body(info),
    )  # fmt: skip


def read_acdc_cine(folder: Path) -> CineSeries:
    """Read all frames (x, y, z, frame) of one subject, without labels.

    Raises:
        DataError: as `read_series`.
    """
    return read_series(folder / f"{folder.name}_4d.nii.gz", 4)


def _read_info(path: Path) -> dict[str, str]:
    lines = read_text(path, "lines such as 'ED: 1'").splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line)
    info = {key.strip(): value.strip() for key, _, value in pairs}
    if missing := [key for key in KEYS if key not in info]:
        raise DataError(f"{path}: no {' and no '.join(missing)}; expected lines such as '{missing[0]}: 1'")
    return info
