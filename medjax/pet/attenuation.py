"""Attenuation: the check of maps and the factors of lines of response.

Maps are linear attenuation coefficients μ in mm⁻¹ at 511 keV, where water has 0.0096.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.one_program import one_program
from medjax.pet.grid import Grid
from medjax.pet.lor_system import build_lor_system
from medjax.pet.projection import AnySystem, project
from medjax.pet.system3d import System3D, without_tof

TISSUE = (0.001, 0.03)  # mm⁻¹: what the median of a body's voxels lies within; lung has 0.003, cortical bone 0.015
LARGEST = 0.3  # mm⁻¹: gold; titanium has 0.04, steel 0.065
ROUNDING = 1e-5  # mm⁻¹ below 0: of interpolation; 1 m of it changes an attenuation factor by 1 %
_BATCH = 1 << 17  # lines of response at once
UNITS = {"cm⁻¹": 10, "m⁻¹": 1000}  # and their number in a mm⁻¹


def check_mu(mu: Float[np.ndarray, "..."]) -> None:
    """Check that a μ-map is in mm⁻¹, by the median of its denser voxels; single ones may be metal.

    Values down to −1e-5 are taken as 0.

    Raises:
        DataError: in another unit, as far as one can be told, or negative, NaN or infinite, or above 0.3 mm⁻¹; it says
            at which voxel.
    """
    mu = np.asarray(mu)
    if not np.isfinite(mu).all():
        raise DataError(f"μ-map: {_at(mu, ~np.isfinite(mu))}; expected finite values in mm⁻¹ (water 0.0096)")
    if mu.size and mu.min() < -100:
        raise DataError(
            f"μ-map: smallest value {mu.min():.4g}, as CT numbers (HU) have; expected μ at 511 keV in mm⁻¹ (water "
            "0.0096): give it as --ct, or convert it by `medjax.pet.ct_attenuation.mu_from_ct`"
        )
    if mu.size and mu.min() < -ROUNDING:
        raise DataError(f"μ-map: {_at(mu, mu == mu.min())}; expected 0 or more, in mm⁻¹ (water 0.0096)")
    tissue = _tissue(mu)
    if tissue > TISSUE[1]:
        units = [unit for unit, number in UNITS.items() if 0.005 <= tissue / number <= 0.02]
        hint = f"this looks like {units[0]}: divide by {UNITS[units[0]]}" if units else "this is neither cm⁻¹ nor m⁻¹"
        scaled = " (whole numbers: perhaps their scale factor is lost)" * bool(not units and (mu == np.round(mu)).all())
        raise DataError(f"μ-map: {tissue:.3g} in most of the body; expected mm⁻¹ (water 0.0096): {hint}{scaled}")
    if mu.size and mu.max() > LARGEST:
        raise DataError(f"μ-map: {_at(mu, mu == mu.max())}; expected at most {LARGEST} mm⁻¹, even of metal")


def _tissue(mu: np.ndarray) -> float:
    """Median of the voxels above a tenth of the 90th percentile of the positive ones; 0 where none is positive."""
    positive = mu[mu > 0]
    return float(np.median(positive[positive > 0.1 * np.percentile(positive, 90)])) if positive.size else 0.0


def _at(mu: np.ndarray, where: np.ndarray) -> str:
    first = tuple(np.argwhere(where)[0].tolist())
    return f"{mu[first]:.3g} at voxel {first}"


def attenuation_factors(system: AnySystem, mu: Float[Array, "x y z"]) -> Float[Array, "*bin"]:
    """Attenuation factors exp(−∫ μ): fraction of photon pairs that leave the body unattenuated; `mu` in mm⁻¹.

    With time of flight they have a last axis of length 1: they are those of all bins.

    Raises:
        DataError: μ is not in mm⁻¹, or negative: see `check_mu`.
    """
    check_mu(np.asarray(mu))
    return attenuation(system, mu)


@one_program
def attenuation(system: AnySystem, mu: Float[Array, "x y z"]) -> Float[Array, "*bin"]:
    """Attenuation factors without the checks of `attenuation_factors`; values below 0 count as 0."""
    mu = jnp.maximum(mu, 0)
    if isinstance(system, System3D) and system.tof is not None:
        return jnp.exp(-project(without_tof(system), mu))[..., None]
    return jnp.exp(-project(system, mu))


def line_attenuation(
    grid: Grid, mu: Float[Array, "x y z"] | None
) -> Callable[[Float[np.ndarray, "line 2 3"]], Float[np.ndarray, " line"]]:
    """Function of end points in mm that gives the attenuation factor of each line of response; 1 without a map.

    Raises:
        DataError: μ is not in mm⁻¹, or negative: see `check_mu`.
    """
    if mu is None:
        return lambda ends: np.ones(len(ends), np.float32)
    check_mu(np.asarray(mu))
    positive = jnp.maximum(mu, 0)

    def factors(ends: Float[np.ndarray, "line 2 3"]) -> Float[np.ndarray, " line"]:
        found = np.ones(len(ends), np.float32)
        along_x = np.abs(ends[:, 1, 0] - ends[:, 0, 0]) >= np.abs(ends[:, 1, 1] - ends[:, 0, 1])
        for axis in (True, False):  # batches of one size that are walked along one axis: two programs do for all
            chosen = np.flatnonzero(along_x == axis)
            for start in range(0, len(chosen), _BATCH):
                part = chosen[start : start + _BATCH]
                filled = np.resize(part, _BATCH)
                system = build_lor_system(ends[filled], grid, along_x=np.full(_BATCH, axis))
                found[part] = np.asarray(attenuation(system, positive))[: len(part)]
        return found

    return factors
