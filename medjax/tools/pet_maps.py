"""What `medjax pet reconstruct` makes of the options --ct, --kvp and --scatter."""

from pathlib import Path

import numpy as np

from medjax.errors import ConfigError
from medjax.io.nifti import Volume, read_nifti
from medjax.pet.compton import EnergyWindow
from medjax.pet.ct_attenuation import mu_from_ct

DEFAULT_KVP = 120


def attenuation_map(mu: Path | None, ct: Path | None = None, kvp: int | None = None) -> Path | Volume | None:
    """The μ-map itself, or that of a CT in HU.

    Raises:
        ConfigError: there are both, a tube voltage without a CT, or no curve for that voltage.
        DataError: the CT cannot be read, or does not hold CT numbers.
    """
    if ct is None:
        if kvp is not None:
            raise ConfigError(f"--kvp {kvp} goes with --ct, the CT in HU")
        return mu
    if mu is not None:
        raise ConfigError("--ct and --mu; expected one of them")
    volume = read_nifti(ct)
    return Volume(np.asarray(mu_from_ct(volume.array, DEFAULT_KVP if kvp is None else kvp)), volume.affine)


def energy_window(text: str | None) -> EnergyWindow | None:
    """`lower,upper,resolution` in keV and % as an energy window; None: none.

    Raises:
        ConfigError: not three numbers, or not those of a window.
    """
    if text is None:
        return None
    try:
        lower, upper, percent = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--scatter {text}; expected LOWER,UPPER,RESOLUTION, as in --scatter 430,610,14.5") from None
    return EnergyWindow(lower, upper, percent / 100)
