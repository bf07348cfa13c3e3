"""Simulated scan of `medjax ivim simulate`: fetal diffusion MRI with the true parameters of every voxel.

made = simulate(Path("fetus"), snr=20.0)      fetus/dwi.nii.gz, dwi.bval, mask.nii.gz, regions.nii.gz, true_f.nii.gz, …
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax import defaults
from medjax.atomic import write_text
from medjax.io.nifti import write_nifti
from medjax.phantoms.fetal import TEN_B, Fetal, fetal
from medjax.phantoms.fetal_anatomy import LUNGS
from medjax.tools.checks import as_paths, check_positive, check_seed
from medjax.tools.simulated_folder import check_interval, fetal_grid, new_folder


class SimulatedScan(NamedTuple):
    """Files of a simulated scan, and the scan with its truth."""

    scan: Path
    bvalues: Path
    mask: Path  # of the lungs
    regions: Path  # 1 left lung, 2 right lung
    data: Fetal


def simulate(
    output: Path | str,
    *,
    size: int = defaults.SIMULATED_SIZE,
    age: float = defaults.SIMULATED_AGE,
    snr: float = defaults.SIMULATED_SNR,
    seed: int = 0,
) -> SimulatedScan:
    """Simulated fetal scan of ten b-values with motion and Rician noise, a mask of the lungs, and true maps.

    Args:
        output: folder to write.
        size: voxels along x and y, of 144 mm.
        age: gestational age, weeks.
        snr: mean signal of the lungs at b = 0 over the noise's standard deviation.
        seed: random seed.

    Raises:
        ConfigError: a number out of range.
        DataError: the folder is not empty.
        OSError: it cannot be written.
    """
    (output,) = as_paths(output)
    check_interval("--size", size, 24, 96)
    check_interval("--age", age, 16, 42)
    check_positive("--snr", snr, 1e6)
    check_seed(seed)
    shape, spacing = fetal_grid(size)
    data = fetal(seed, age, bvalues=TEN_B, shape=shape, spacing=spacing, snr=snr)
    affine, lungs = np.diag([*spacing, 1.0]), data.labels == LUNGS
    volumes = {
        "mask": lungs.astype(np.uint8),
        "regions": np.where(lungs, data.sides, 0).astype(np.uint8),
        "true_f": data.parameters.f,
        "true_D": data.parameters.d,
        "true_Dstar": data.parameters.d_star,
    }
    with new_folder(output) as folder:
        for name, volume in volumes.items():
            write_nifti(folder / f"{name}.nii.gz", volume, affine, volume.dtype)
        write_nifti(folder / "dwi.nii.gz", np.moveaxis(data.signals, 0, -1), affine)
        write_text(folder / "dwi.bval", " ".join(f"{b:g}" for b in data.bvalues) + "\n")
    scan, mask, regions = (output / f"{name}.nii.gz" for name in ("dwi", "mask", "regions"))
    return SimulatedScan(scan, output / "dwi.bval", mask, regions, data)
