"""Simulated data set of `medjax labels simulate`: echocardiograms with masks of which some are wrong.

made = simulate(Path("echo"), number=64)      echo/images/*.png, echo/masks/*.png, echo/truth.csv
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax import defaults
from medjax.atomic import write_csv
from medjax.labels.errors import KINDS, corrupt
from medjax.phantoms.echo import echo
from medjax.tools.checks import as_paths, check_choice, check_seed
from medjax.tools.simulated_folder import check_interval, new_folder

ERROR_DICE = 0.65  # of wrong masks with the true ones


class SimulatedLabels(NamedTuple):
    """Folders of a simulated data set, and which masks are wrong."""

    images: Path
    masks: Path
    truth: Path  # CSV: name of the image, and whether its mask is wrong
    names: list[str]
    wrong: list[bool]


def simulate(
    output: Path | str,
    *,
    number: int = defaults.SIMULATED_LABELS,
    wrong: float = defaults.SIMULATED_WRONG,
    error: str = defaults.SIMULATED_ERROR,
    size: int = defaults.AUDIT_SIZE,
    seed: int = 0,
) -> SimulatedLabels:
    """Simulated echocardiograms as PNG and their masks (1 ventricle, 2 wall, 3 atrium), a fraction of them wrong.

    Args:
        output: folder to write.
        number: number of images.
        wrong: fraction of the masks that are wrong, to a Dice of `ERROR_DICE`.
        error: kind of label error, of `medjax.labels.errors`.
        size: pixels along each side.
        seed: random seed.

    Raises:
        ConfigError: a number out of range, or no such kind of error.
        DataError: the folder is not empty.
        OSError: it cannot be written.
    """
    from PIL import Image  # which Matplotlib needs too

    (output,) = as_paths(output)
    check_interval("--number", number, 16, 10_000)
    check_interval("--wrong", wrong, 0, 1)
    check_interval("--size", size, 16, 512)
    check_choice("--error", error, tuple(KINDS))
    check_seed(seed)
    data = echo(seed, number, size)
    made = corrupt(seed, data.labels, error, wrong, ERROR_DICE)
    names = [f"heart_{k:04d}.png" for k in range(number)]
    flags = [bool(flag) for flag in made.corrupted]
    with new_folder(output) as folder:
        for room, arrays in (("images", 255 * data.images[..., 0]), ("masks", made.labels)):
            (folder / room).mkdir()
            for name, array in zip(names, arrays, strict=True):
                Image.fromarray(np.round(array).astype(np.uint8)).save(folder / room / name)
        write_csv(
            folder / "truth.csv", ("name", "wrong"), [(n, int(flag)) for n, flag in zip(names, flags, strict=True)]
        )
    return SimulatedLabels(output / "images", output / "masks", output / "truth.csv", names, flags)
