"""Scans of `cmr_precision`: a training set, and cohorts that were scanned twice; simulated, or on disk.

A session is a cropped cine at end-diastole and end-systole with its labels. What a simulated heart really measures is
known; of scans on disk it is what their labels say.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from ml_collections import FrozenConfigDict

from medjax.datasets.acdc import acdc_subjects, read_acdc
from medjax.datasets.short_axis import CineStudy
from medjax.errors import DataError
from medjax.io.tables import read_table
from medjax.phantoms.cine import PROTOCOLS, CineScan, cine, random_heart, scan_rescan
from medjax.phantoms.cine_anatomy import Truth
from medjax.segmentation.cine_roi import heart_center, square_box
from medjax.segmentation.plan import Plan, case_spacing
from medjax.segmentation.resample import new_shape, nonzero_box, resample, resample_labels, zscore_normalize
from medjax.uncertainty.biomarkers import ACDC, MYOCARDIAL_DENSITY, Volumes, biomarkers, volumes

CLASSES = 4
BIOMARKERS = ("LVEDV", "LVESV", "LVEF", "LVM", "RVEDV", "RVESV", "RVEF")  # of the paper's table
STREAMS = {"B": 2, "C": 3}  # of random numbers: no heart is in two sets of one seed; those of other seeds may share
OWN = "A"  # set of test subjects on the scanner of the training set
MIN_SUBJECTS = 4  # subjects of a cohort, for its statistics


class Session(NamedTuple):
    """One scan of a subject, cropped to the heart: end-diastole and end-systole."""

    image: Float[np.ndarray, "x y slice 2"]
    labels: Int[np.ndarray, "x y slice 2"]
    spacing: tuple[float, float, float]  # mm; of slice centres along the last
    truth: Mapping[str, float]  # true value of each biomarker


class Stack(NamedTuple):
    """A session as a network takes it: slices at end-diastole, then at end-systole, on the plan's grid."""

    images: Float[np.ndarray, "image x y 1 1"]
    labels: Int[np.ndarray, "image x y 1"]
    voxel_ml: float


class Source(NamedTuple):
    """Where sessions come from: one of training and of test subjects, two or three of each subject of a cohort."""

    training: Callable[[], list[Session]]
    test: Callable[[], list[list[Session]]]
    cohorts: Mapping[str, Callable[[], list[list[Session]]]]  # by name


def source(config: FrozenConfigDict, seed: int) -> Source:
    """Sessions of a seed: simulated, or ACDC and cohorts listed in CSV files, which are the same for all seeds.

    ACDC's folders are sorted by diagnosis: which subjects are the test's is drawn by `config.seed`.

    Raises:
        DataError: no subject is left to train on, a CSV or a folder listed in it is missing, fewer than 4 subjects in a
            CSV, or CSVs whose names cannot name cohorts.
    """
    d = config.data
    if d.layout == "simulated":
        own, sizes = config.seed + seed, (d.train, d.test)
        training, test = (partial(_simulated, own, stream, n, d.roi_mm) for stream, n in enumerate(sizes))
        simulate = partial(_simulated_cohort, own, number=d.subjects, still=d.still, roi_mm=d.roi_mm)
        return Source(
            training, lambda: [[one] for one in test()], {name: partial(simulate, name) for name in d.cohorts}
        )
    folders = acdc_subjects(Path(d.training))
    if len(folders) <= d.test:
        raise DataError(f"{d.training}: {len(folders)} subjects, {d.test} of them to test; expected more")
    order = np.random.default_rng(config.seed).permutation(len(folders))
    parts = ([folders[k] for k in sorted(some)] for some in (order[: -d.test], order[-d.test :]))
    training, test = (partial(_read_all, part, d.roi_mm) for part in parts)
    pairs = {name: _listed(Path(file)) for name, file in zip(cohort_names(config), d.cohorts, strict=True)}
    cohorts = {name: partial(_read_cohort, listed, d.roi_mm) for name, listed in pairs.items()}
    return Source(training, lambda: [[one] for one in test()], cohorts)


def cohort_names(config: FrozenConfigDict) -> tuple[str, ...]:
    """Names of the cohorts in stages, metrics and figures: simulated scanners, or stems of the CSV files.

    Raises:
        DataError: a stem is no plain name, is "A", or two files have the same.
    """
    if config.data.layout == "simulated":
        return tuple(config.data.cohorts)
    names = tuple(Path(file).stem for file in config.data.cohorts)
    for name, file in zip(names, config.data.cohorts, strict=True):
        if not re.fullmatch(r"\w[\w.-]*", name) or name == OWN:
            raise DataError(
                f"data.cohorts {file}: named '{name}'; expected letters, digits, '_', '-', '.', and not {OWN}"
            )
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise DataError(f"data.cohorts: several files are named '{twice[0]}'; expected a name of its own for each")
    return names


def crop_to_heart(scan: CineScan | CineStudy, roi_mm: float) -> Session:
    """Session of a scan, cropped to a square about what moves.

    The truth of a scan on disk is its labels'.
    """
    phases = [scan.ed, scan.es]
    image, labels = scan.image[..., phases], scan.labels[..., phases]
    box = square_box(image.shape[:2], heart_center(image, scan.spacing), scan.spacing, roi_mm)
    ed, es = _true_volumes(scan.truth) if isinstance(scan, CineScan) else _labeled_volumes(labels, scan.spacing)
    known = biomarkers(ed, es)
    return Session(image[box], labels[box], scan.spacing, {name: float(known[name]) for name in BIOMARKERS})


def prepare_stack(session: Session, design: Plan) -> Stack:
    """Session as the network takes it: normalised and resampled as planned, the central patch of each slice.

    Both phases have one crop, of what is nonzero in either, so that their patches show the same place.
    """
    images, labels = list[np.ndarray](), list[np.ndarray]()
    spacing, target = session.spacing, case_spacing(design, session.spacing)
    box, mask = nonzero_box(session.image)
    inside = mask[box] if design.use_mask_for_norm else None
    sides = session.labels[box].shape[:3]
    new = new_shape(sides, spacing, target)
    for phase in range(2):
        own = zscore_normalize(session.image[box][..., phase], inside)
        known = resample_labels(session.labels[box][..., phase].astype(np.int32), spacing, target, CLASSES, new)
        images.append(_central(resample(own[..., None], spacing, target, new)[..., 0], design.patch))
        labels.append(_central(known, design.patch))
    area = spacing[0] * spacing[1] * sides[0] * sides[1] / (new[0] * new[1])  # rounding to whole voxels changes it
    stack = np.concatenate(images, axis=2).transpose(2, 0, 1)[..., None, None]
    return Stack(stack, np.concatenate(labels, axis=2).transpose(2, 0, 1)[..., None], area * spacing[2] / 1000)


def _simulated(seed: int, stream: int, number: int, roi_mm: float) -> list[Session]:
    """Hearts on scanner A, each scanned once."""
    sessions = list[Session]()
    for k in range(number):
        rng = np.random.default_rng((seed, stream, k))
        sessions.append(crop_to_heart(cine(rng, random_heart(rng), PROTOCOLS["A"], "ed_es"), roi_mm))
    return sessions


def _simulated_cohort(seed: int, name: str, number: int, still: Sequence[str], roi_mm: float) -> list[list[Session]]:
    """Of each subject a scan and a rescan, and of a cohort in `still` also a rescan of the heart as it was."""
    own = 10 * seed + STREAMS[name]
    rows = list[list[Session]]()
    for k in range(number):
        scan, rescan = scan_rescan(own, k, PROTOCOLS[name])
        scans = [scan, rescan]
        if name in still:  # as scan_rescan with change 0, whose first scan need not be made again
            heart, rng = random_heart(np.random.default_rng((own, k, 0))), np.random.default_rng((own, k, 3))
            scans.append(cine(rng, heart, PROTOCOLS[name], "ed_es"))
        rows.append([crop_to_heart(one, roi_mm) for one in scans])
    return rows


def _read_all(folders: Sequence[Path], roi_mm: float) -> list[Session]:
    return [crop_to_heart(read_acdc(folder), roi_mm) for folder in folders]


def _listed(file: Path) -> list[list[Path]]:
    """Folders of a CSV's cohort: columns scan and rescan, of ACDC's layout, relative to the CSV's."""
    pairs = [[file.parent / row[one] for one in ("scan", "rescan")] for row in read_table(file, ("scan", "rescan"))]
    if len(pairs) < MIN_SUBJECTS:
        raise DataError(f"{file}: {len(pairs)} subjects; expected {MIN_SUBJECTS} or more")
    if lacking := [folder for pair in pairs for folder in pair if not (folder / "Info.cfg").is_file()]:
        raise DataError(f"{file}: {lacking[0]} has no Info.cfg; expected a folder of one scan in ACDC's layout")
    return pairs


def _read_cohort(pairs: Sequence[Sequence[Path]], roi_mm: float) -> list[list[Session]]:
    return [_read_all(pair, roi_mm) for pair in pairs]


def _true_volumes(truth: Truth) -> tuple[Volumes, Volumes]:
    muscle = np.array(truth.lvm / MYOCARDIAL_DENSITY)
    left, right = (truth.lvedv, truth.lvesv), (truth.rvedv, truth.rvesv)
    ed, es = (Volumes(np.array(lv), muscle, np.array(rv)) for lv, rv in zip(left, right, strict=True))
    return ed, es


def _labeled_volumes(labels: np.ndarray, spacing: tuple[float, float, float]) -> tuple[Volumes, Volumes]:
    every = volumes(labels, ACDC, spacing)
    ed, es = (Volumes(*(one[phase] for one in every)) for phase in range(2))
    return ed, es


def _central(volume: np.ndarray, patch: Sequence[int]) -> np.ndarray:
    """Central patch of each slice, filled with 0 where the volume is smaller."""
    for axis, side in enumerate(patch[:2]):
        lacking = max(side - volume.shape[axis], 0)
        volume = np.pad(volume, [(lacking // 2, lacking - lacking // 2) if k == axis else (0, 0) for k in range(3)])
        low = (volume.shape[axis] - side) // 2
        volume = np.take(volume, range(low, low + side), axis=axis)
    return volume
