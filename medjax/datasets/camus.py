"""CAMUS data set, NIfTI release: apical two- and four-chamber echocardiograms with expert segmentations.

    DIR/patient0001/patient0001_2CH_ED.nii.gz       image; also 4CH and ES
    DIR/patient0001/patient0001_2CH_ED_gt.nii.gz    label: 1 left ventricle, 2 myocardium, 3 left atrium
    DIR/patient0001/Info_2CH.cfg                    lines such as "ImageQuality: Poor"

Source: Leclerc et al., IEEE Transactions on Medical Imaging 38(9), 2019.
"""

from pathlib import Path

import numpy as np

from medjax.errors import DataError
from medjax.io.files import read_text
from medjax.io.images import resize
from medjax.io.label_images import read_labeled
from medjax.phantoms.echo import CLASSES, GROUPS, Echo


def camus(folder: Path, size: int, patients: int | None = None) -> Echo:
    """CAMUS images and labels: every view and phase of the first `patients` patients, resampled to `size`² pixels.

    Rows run downwards; grey values are divided by 255; `hard` marks views whose image quality is "Poor".

    Raises:
        DataError: no patients, a file is missing, an image and its label lie on two grids, or a label is unknown.
    """
    names = sorted(path.name for path in folder.glob("patient*") if path.is_dir())[:patients]
    if not names:
        raise DataError(f"{folder}: no patient0001, …; expected the folder database_nifti of CAMUS")
    images, labels = list[np.ndarray](), list[np.ndarray]()
    poor, group = list[bool](), list[int]()
    for name in names:
        for number, view_and_phase in enumerate(GROUPS):
            view, phase = view_and_phase.split()
            stem = folder / name / f"{name}_{view}_{phase}"
            one = read_labeled(Path(f"{stem}.nii.gz"), Path(f"{stem}_gt.nii.gz"), len(CLASSES))
            if one.image.ndim != 2:
                raise DataError(f"{stem}.nii.gz: {one.image.shape}; expected one frame")
            images.append(resize(one.image.T / 255, (size, size), 1))  # files hold (column, row)
            labels.append(resize(one.label.T, (size, size), 0))
            poor.append(_quality(folder / name / f"Info_{view}.cfg") == "poor")
            group.append(number)
    return Echo(
        np.stack(images)[..., None].astype(np.float32), np.stack(labels), np.array(poor), np.array(group, np.int64)
    )


def split(data: Echo, seed: int, *sizes: int) -> list[Echo]:
    """Random split of CAMUS by patient into parts of the given numbers of images: a heart is in one part only.

    Sizes are multiples of the four images of a patient.

    Raises:
        DataError: there are fewer images, or a size is not a multiple of four.
    """
    if sum(sizes) > len(data.images) or any(size % len(GROUPS) for size in sizes):
        raise DataError(
            f"CAMUS: {len(data.images)} images for parts of {' and '.join(map(str, sizes))}; "
            f"expected multiples of {len(GROUPS)} that add up to no more"
        )
    patients = np.random.default_rng(seed).permutation(len(data.images) // len(GROUPS))
    rows = (len(GROUPS) * patients[:, None] + np.arange(len(GROUPS))).ravel()
    parts = np.split(rows[: sum(sizes)], np.cumsum(sizes)[:-1])
    return [Echo(*(array[part] for array in data)) for part in parts]


def _quality(path: Path) -> str:
    lines = read_text(path, "lines such as ImageQuality: Poor").splitlines() if path.exists() else []
    found = [line.partition(":")[2].strip().lower() for line in lines if line.lower().startswith("imagequality")]
    return found[0] if found else ""
