"""Time of flight (TOF): bins of the difference in arrival time, and how precisely it is measured."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Float

from medjax.errors import ConfigError

MM_PER_PS = 0.299792458 / 2  # distance from the middle of a line of response, for a difference in arrival time
FWHM_PER_SD = 2.354820045
SMALLEST_PS, LARGEST_PS = 5.0, 20_000.0


@dataclass(frozen=True)
class Tof:
    """Time-of-flight bins of a scanner, around a difference of 0. Hashable.

    Bins grow with the distance from the middle of a line of response to its second crystal. `open_ends`: the first and
    the last bin also hold all that lies beyond them.
    """

    bins: int
    bin_ps: float  # width of a bin in the difference of arrival times, in ps
    resolution_ps: float  # full width at half maximum of the timing resolution, in ps
    open_ends: bool = False

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ConfigError(f"time of flight: {self.bins} bins; expected 1 or more")
        for name, value in (("bin width", self.bin_ps), ("resolution", self.resolution_ps)):
            if not SMALLEST_PS <= value <= LARGEST_PS:
                raise ConfigError(
                    f"time of flight: {name} of {value:g} ps; expected {SMALLEST_PS:g} to {LARGEST_PS:g} ps "
                    f"({1000 * value:g} ps if it was meant in ns)"
                )

    @property
    def sd_mm(self) -> float:
        """Standard deviation of the annihilation's position along the line of response, in mm."""
        return self.resolution_ps * MM_PER_PS / FWHM_PER_SD

    @property
    def edges_mm(self) -> Float[np.ndarray, " edge"]:
        """Edges of the bins along the line of response, in mm from its middle; infinite where the ends are open."""
        edges = (np.arange(self.bins + 1) - self.bins / 2) * self.bin_ps * MM_PER_PS
        if self.open_ends:
            edges[[0, -1]] = -np.inf, np.inf
        return edges


PRESETS = {"mct": Tof(13, 312.5, 580.0)}
"""Time-of-flight bins of scanner presets that have them: the mCT's window of 4.0625 ns in 13 bins.

Source: the group's public reconstruction code; Jakoby et al., Physics in Medicine and Biology 56(8), 2011, measured a
resolution of 528 ps."""


def preset_tof(name: str) -> Tof | None:
    """Time-of-flight bins of the scanner preset of that name; None for one without them."""
    return PRESETS.get(name)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TofKernel:
    """Edges of the bins in mm and the standard deviation of the position, as arrays of a system."""

    edges_mm: Float[Array | np.ndarray, "*stack edge"]
    sd_mm: Float[Array | np.ndarray, "*stack"]


def tof_kernel(tof: Tof | None) -> TofKernel | None:
    """Kernel of these bins; None without time of flight."""
    return None if tof is None else TofKernel(tof.edges_mm, np.asarray(tof.sd_mm))


def tof_weights(kernel: TofKernel, distance_mm: Float[Array, "..."]) -> Float[Array, "... tof"]:
    """Probability of each bin, Φ((upper edge − u) / σ) − Φ((lower edge − u) / σ), u the distance from the middle."""
    dtype = distance_mm.dtype
    edges, sd = jnp.asarray(kernel.edges_mm, dtype), jnp.asarray(kernel.sd_mm, dtype)
    edges = edges.reshape((1,) * distance_mm.ndim + (-1,))
    below = erf((edges - distance_mm[..., None]) / (np.sqrt(2) * sd))
    return (below[..., 1:] - below[..., :-1]) / 2
