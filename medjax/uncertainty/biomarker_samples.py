"""Samples of a biomarker, one row a subject: what is checked before any statistic, and their mean and deviation.

A sample is one draw of a model (ensemble member, dropout mask, test-time transform), in the biomarker's unit. All
statistics of samples are NumPy in float64.
"""

import numpy as np
from jaxtyping import Array, Float, Real

from medjax.errors import DataError

AnyArray = Array | np.ndarray


def check_samples(
    name: str, samples: Real[AnyArray, "*batch sample"], minimum: int = 2
) -> Float[np.ndarray, "*batch sample"]:
    """Samples in float64; at least `minimum` of each subject, all of them finite.

    Raises:
        DataError: no subject axis, too few samples, or a value that is not finite: how many, and the first row.
    """
    values = np.asarray(samples, np.float64)
    if values.ndim < 1 or values.shape[-1] < minimum:
        number = values.shape[-1] if values.ndim else 0
        raise DataError(f"{name}: {number} sample(s) of each subject; expected at least {minimum}")
    if (missing := ~np.isfinite(values)).any():
        subjects = np.argwhere(missing.any(-1))
        first = ", ".join(map(str, subjects[0])) or "0"
        raise DataError(
            f"{name}: {missing.sum()} of {values.size} samples are not finite, in {len(subjects)} subject(s), "
            f"first row {first}; expected finite samples"
        )
    return values


def check_pair(
    scan: Real[AnyArray, "*batch sample"], rescan: Real[AnyArray, "*batch_rescan sample_rescan"], minimum: int = 2
) -> tuple[Float[np.ndarray, "*batch sample"], Float[np.ndarray, "*batch sample_rescan"]]:
    """Samples of scan and rescan in float64, of the same subjects in the same order; their numbers may differ.

    Raises:
        DataError: as `check_samples`, or another number of subjects.
    """
    if np.shape(scan)[:-1] != np.shape(rescan)[:-1]:
        raise DataError(f"scan, rescan: shapes {np.shape(scan)}, {np.shape(rescan)}; expected the same subjects")
    return check_samples("scan", scan, minimum), check_samples("rescan", rescan, minimum)


def mean_and_sd(samples: Float[np.ndarray, "*batch sample"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n − 1) over samples; of equal samples exactly that value, and 0.

    Rounding gives equal samples a deviation of about 1e-16 of their value, by which no difference may be divided.
    """
    constant = np.ptp(samples, axis=-1) == 0
    mean = np.where(constant, samples[..., 0], samples.mean(-1))
    return mean, np.where(constant, 0.0, samples.std(-1, ddof=1))
