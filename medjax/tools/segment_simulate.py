"""Simulated data set of `medjax segment simulate`: fetal MRI in nnU-Net v2's raw layout.

made = simulate(Path("Dataset001_Fetus"), number=8)      dataset.json, imagesTr, labelsTr, imagesTs, labelsTs
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax import defaults
from medjax.io.nnunet_raw import Scan, write_dataset, write_label_nifti
from medjax.phantoms.fetal import fetal
from medjax.phantoms.fetal_anatomy import CLASSES
from medjax.running.progress import track
from medjax.tools.checks import as_paths, check_seed
from medjax.tools.simulated_folder import check_interval, fetal_grid, new_folder

LABELS = ("background", "lungs", "liver", "heart")
AGES = (24.0, 36.0)  # weeks


class SimulatedDataset(NamedTuple):
    """A simulated data set: its folder, and its numbers of cases."""

    folder: Path
    training: int
    test: int


def simulate(
    output: Path | str,
    *,
    number: int = defaults.SIMULATED_CASES,
    test: int = defaults.SIMULATED_TEST_CASES,
    size: int = defaults.SIMULATED_SIZE,
    seed: int = 0,
) -> SimulatedDataset:
    """Simulated fetal MRI (b = 0) of several fetuses with labels of lungs, liver and heart.

    Args:
        output: folder to write; test cases have their labels in labelsTs.
        number: number of training cases; five folds need five.
        test: number of test cases.
        size: voxels along x and y, of 144 mm.
        seed: random seed.

    Raises:
        ConfigError: a number out of range.
        DataError: the folder is not empty.
        OSError: it cannot be written.
    """
    (output,) = as_paths(output)
    check_interval("--number", number, 5, 1000)
    check_interval("--test", test, 0, 1000)
    check_interval("--size", size, 24, 96)
    check_seed(seed)
    with new_folder(output) as folder:
        cases = [_case(seed, k, size) for k in track(number + test, "cases")]
        write_dataset(folder, cases[:number], ("MRI",), LABELS, test=cases[number:])
        if test:
            (folder / "labelsTs").mkdir()
        for case in cases[number:]:
            assert case.labels is not None
            write_label_nifti(folder / "labelsTs" / f"{case.name}.nii.gz", case.labels, case.affine, len(LABELS))
    return SimulatedDataset(output, number, test)


def _case(seed: int, k: int, size: int) -> Scan:
    draw = np.random.default_rng((seed, k))
    shape, spacing = fetal_grid(size)
    own = int(draw.integers(2**31))
    data = fetal(own, float(draw.uniform(*AGES)), bvalues=(0.0,), shape=shape, spacing=spacing)
    numbers = np.array([LABELS.index(name) if name in LABELS else 0 for name in CLASSES])
    image = data.signals[0, ..., None].astype(np.float32)
    return Scan(f"fetus_{k:03d}", image, numbers[data.labels], spacing, np.diag([*spacing, 1.0]))
