"""Images in kBq/ml and SUV (`medjax pet quantify`)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax.errors import ConfigError
from medjax.io.nifti import SUFFIXES, read_nifti
from medjax.pet.decay import decay_correction, nuclide
from medjax.pet.quantification import concentration, suv
from medjax.report.figures import PET
from medjax.report.volumes import volume_files, write_volume
from medjax.tools.checks import as_paths, check_no_overwrite, check_output


class Units(NamedTuple):
    """What turns an image into activity concentration, and this into standardised uptake values."""

    calibration: float  # (Bq/ml) / (image unit / s), of a phantom: `medjax.pet.quantification.calibration_factor`
    duration_s: float  # of the scan or the time frame
    per_second: bool = False  # whether the image is in activity a second already
    start_s: float = 0.0  # of the time frame, from the start of the scan
    nuclide: str = "F-18"
    dose_mbq: float | None = None  # injected activity; None: kBq/ml
    weight_kg: float | None = None  # body weight
    delay_s: float = 0.0  # time from injection to the start of the scan


def quantify(image: Path | str, output: Path | str, units: Units) -> tuple[tuple[Path, ...], str, float]:
    """Write an image in kBq/ml, or with dose and weight in SUV, decay corrected to the start of the scan.

    Returns the files, the unit and the largest value.

    Raises:
        ConfigError: a value that cannot be, or a dose without a weight.
        DataError: the image cannot be read.
        OSError: a file cannot be written.
    """
    image, output = as_paths(image, output)
    check_output(output, SUFFIXES)
    check_no_overwrite(volume_files(output, sd=False), [image])
    factor, unit = unit_factor(units)
    volume = read_nifti(image)
    values = volume.array * np.float32(factor)
    files = write_volume(output, values, volume.affine, PET._replace(unit=unit), unit.split(",")[0])
    return files, unit, float(values.max())


def unit_factor(units: Units) -> tuple[float, str]:
    """Factor of an image and its unit.

    Raises:
        ConfigError: a value that cannot be, or a dose without a weight.
    """
    if (units.dose_mbq is None) != (units.weight_kg is None):
        raise ConfigError("SUV needs --dose-mbq and --weight-kg; expected both or neither")
    known = nuclide(units.nuclide)
    decayed = decay_correction(known.half_life_s, units.start_s, units.duration_s)
    one = concentration(
        np.ones(1),
        units.calibration,
        1.0 if units.per_second else units.duration_s,
        positron_fraction=known.positron_fraction,
        decay_correction=decayed,
    )
    if units.dose_mbq is None or units.weight_kg is None:
        return float(one[0]), "kBq/ml"
    return float(suv(one, units.dose_mbq, units.weight_kg, known.half_life_s, units.delay_s)[0]), "SUV, g/ml"
