"""Bounds of IVIM parameters: presets, bounds of a user's own, and the voxels whose fit ended at one.

A parameter at its bound is no estimate: the data would have it beyond. Such voxels are counted and mapped.

Source of the preset `osipi`: default bounds of OSIPI's TF2.4 IVIM-MRI code collection (`OsipiBase`); S0 is free here.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.errors import ConfigError
from medjax.ivim.signal import Ivim

LOWER = Ivim(*map(np.asarray, (0.0, 0.0, 1e-4, 3e-3)))
UPPER = Ivim(*map(np.asarray, (np.inf, 1.0, 6e-3, 0.5)))  # S0 in units of each voxel's largest signal
TOLERANCE = 1e-3  # distance to a bound, as a fraction of it, within which a parameter counts as at it


class Bounds(NamedTuple):
    """Lower and upper bounds of the parameters; D* absolute."""

    lower: Ivim
    upper: Ivim


PRESETS = {
    "default": Bounds(LOWER, UPPER),
    "osipi": Bounds(LOWER._replace(d=np.asarray(0.0), d_star=np.asarray(5e-3)),
                    UPPER._replace(d=np.asarray(5e-3), d_star=np.asarray(0.2))),
}  # fmt: skip
FIELDS = {"f": "f", "D": "d", "Dstar": "d_star", "D*": "d_star"}  # names that users write
LIMITS = {"f": 1.0, "d": 0.1, "d_star": 10.0}  # what bounds may be at most; mm²/s


def parse_bounds(text: str) -> Bounds:
    """Bounds of a preset's name, or such as "f=0:0.7,D=0:0.005,Dstar=0.005:0.2"; what is not named keeps its default.

    Raises:
        ConfigError: neither, or a lower bound that is negative or not below the upper one.
    """
    if text in PRESETS:
        return PRESETS[text]
    lower, upper = PRESETS["default"]
    for part in text.split(","):
        name, _, ends = part.strip().partition("=")
        try:
            low, high = map(float, ends.split(":"))
        except ValueError:
            low = high = math.nan
        field = FIELDS.get(name)
        if field is None or not 0 <= low < high <= LIMITS[field]:
            most = "" if field is None else f", from 0 to {LIMITS[field]:g}"
            raise ConfigError(f"--bounds {part.strip()}; expected {', '.join(PRESETS)} or f=0:0.7,D=0:0.005,…{most}")
        lower = lower._replace(**{field: np.asarray(low)})
        upper = upper._replace(**{field: np.asarray(high)})
    return Bounds(lower, upper)


class AtBound(NamedTuple):
    """Masks of the voxels in which a parameter lies at one of its bounds."""

    f: Bool[np.ndarray, " voxel"]
    d: Bool[np.ndarray, " voxel"]
    d_star: Bool[np.ndarray, " voxel"]

    @property
    def any(self) -> Bool[np.ndarray, " voxel"]:
        """Mask of the voxels with any parameter at a bound."""
        return self.f | self.d | self.d_star

    @property
    def code(self) -> Float[np.ndarray, " voxel"]:
        """1 for f, 2 for D and 4 for D*, added up; 0 where none is at a bound."""
        return (self.f + 2 * self.d + 4 * self.d_star).astype(np.float32)


def at_bound(parameters: Ivim, bounds: Bounds) -> AtBound:
    """Masks of the voxels with f, D or D* at a bound; `parameters` with absolute D*, as the bounds are."""
    pairs = zip(parameters[1:], bounds.lower[1:], bounds.upper[1:], strict=True)
    return AtBound(*(_near(np.asarray(values), float(low), float(high)) for values, low, high in pairs))


def _near(values: Array | np.ndarray, low: float, high: float) -> np.ndarray:
    below = values <= (low * (1 + TOLERANCE) if low > 0 else high * TOLERANCE)
    return np.asarray(below | (values >= high * (1 - TOLERANCE)))
