"""List-mode acquisition: single events in the form that every algorithm takes, see `list_system`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.errors import ConfigError, DataError
from medjax.pet.acquisition import Acquisition
from medjax.pet.grid import Grid
from medjax.pet.list_system import ListSystem
from medjax.pet.lor_system import stack_lor_systems
from medjax.pet.psf import Psf, blur


class Events(NamedTuple):
    """Events of a list-mode scan: their lines of response, and what is expected on these."""

    end_points: Float[np.ndarray, "event 2 3"]  # in mm, the centre of the image at the origin
    factors: Float[np.ndarray, " event"]  # multiplicative factors of the lines
    additive: Float[np.ndarray, " event"]  # expected randoms + scatter of the lines, in counts
    along_x: Bool[np.ndarray, " event"] | None = None  # the axis that a line is walked along; None: the longer one
    tof_mm: Float[np.ndarray, "event 2"] | None = None  # edges of the time-of-flight bin, from the middle of a line
    tof_sd_mm: Float[np.ndarray, " event"] | None = None  # standard deviation of the time-of-flight kernel


def acquire_events(
    events: Events,
    grid: Grid,
    sensitivity: Float[Array, "x y z"],
    total_additive: float,
    *,
    number: int = 1,
    psf: Psf | None = None,
) -> Acquisition:
    """List-mode acquisition in `number` interleaved subsets of the events, as `ordered_subsets` gives for sinograms.

    Args:
        events: events, in the order of detection.
        grid: image grid.
        sensitivity: Pᵀ m of all valid lines of response, with events or without, before any point spread function.
        total_additive: expected randoms + scatter of all lines of response, in counts.
        number: number of subsets.
        psf: image-space point spread function; None: none.

    Raises:
        ConfigError: more subsets than events.
        DataError: there are no events, or shapes do not fit each other.
    """
    count = len(events.end_points)
    if not count:
        raise DataError("list mode: no events; expected one or more")
    if not 1 <= number <= count:
        raise ConfigError(f"{number} subsets of {count} events; expected 1 to {count}")
    if sensitivity.shape != grid.shape:
        raise DataError(f"sensitivity: shape {sensitivity.shape}; the grid has {grid.shape}")
    length = -(-count // number)
    order = np.arange(length * number).reshape(length, number).T  # subset k: events k, k + number, …
    real = order < count
    own = jax.tree.map(lambda a: np.asarray(a)[np.where(real, order, 0)], events._asdict())
    ends, along_x, tof_mm, tof_sd_mm = (own[name] for name in ("end_points", "along_x", "tof_mm", "tof_sd_mm"))
    lines = stack_lor_systems(ends, grid, along_x=along_x, tof_mm=tof_mm, tof_sd_mm=tof_sd_mm)
    factors, additive = (np.where(real, own[name], 0).astype(np.float32) for name in ("factors", "additive"))
    rest = (total_additive / number - additive.sum(axis=1, dtype=float))[:, None]
    stack = jnp.broadcast_to(sensitivity / number, (number, *grid.shape))
    zero = np.zeros((number, 1), np.float32)
    kernel = jax.tree.map(lambda a: jnp.broadcast_to(a, (number, *a.shape)), psf)
    return Acquisition(
        counts=jnp.asarray(np.concatenate([real.astype(np.float32), zero], axis=1)),
        multiplicative=jnp.asarray(np.concatenate([factors, zero + 1], axis=1)),
        additive=jnp.asarray(np.concatenate([additive, rest], axis=1), jnp.float32),
        sensitivity=jnp.stack([blur(psf, one) for one in stack]),
        system=ListSystem(lines, jnp.asarray(factors), stack, grid.shape),
        psf=kernel,
    )
