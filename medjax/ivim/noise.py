"""What noise does to a signal, as a least-squares problem that stands in for its likelihood.

    noise.loss(measured, predicted)        2σ² · (−log p), without terms of the measurement alone
    noise.surrogate(measured, predicted)   (target, weight) with ∂ loss / ∂ predicted = 2 weight (predicted − target)

`weight (target − m)²` lies above the loss and touches it at the prediction, so a damped step on it that lowers the loss
is a step of expectation–maximisation. For Gaussian noise both are the same thing.

- Gaussian: (y − m)².
- Rician, of a magnitude image: p(y) ∝ exp(−(y² + m²) / 2σ²) I₀(y m / σ²); target y I₁/I₀, the expected real part.
- Student's t with ν degrees of freedom: (ν + 1) σ² log(1 + (y − m)² / ν σ²); weight (ν + 1) / (ν + (y − m)² / σ²). A
  measurement that motion spoilt counts little.

Source: Gudbjartsson & Patz, Magnetic Resonance in Medicine 34(6), 1995; Lange et al., Journal of the American
Statistical Association 84(408), 1989.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e, i1e
from jaxtyping import Array, Float

from medjax.errors import ConfigError

Kind = Literal["gaussian", "rician", "student"]
FREEDOM = 3.0  # degrees of freedom of Student's t: a frame 3 σ off counts a third
RAYLEIGH_MEDIAN = float(np.sqrt(2 * np.log(2)))
RAYLEIGH_RATIO = float(np.sqrt(np.pi / 2)) / RAYLEIGH_MEDIAN  # of mean and median


class Noise(NamedTuple):
    """A likelihood of one measurement."""

    loss: Callable[[Array, Array], Array]
    surrogate: Callable[[Array, Array], tuple[Array, Array]]


def noise_of(kind: Kind, sigma: Float[Array, "*voxels"] | float) -> Noise:
    """The noise of that name.

    Raises:
        ConfigError: no such noise.
    """
    if kind not in ("gaussian", "rician", "student"):
        raise ConfigError(f"noise '{kind}'; expected gaussian, rician or student")
    return GAUSSIAN if kind == "gaussian" else rician(sigma) if kind == "rician" else student(sigma)


GAUSSIAN = Noise(lambda y, m: (y - m) ** 2, lambda y, m: (y, jnp.ones_like(m)))


def rician(sigma: Float[Array, "*voxels"] | float) -> Noise:
    """Of a magnitude whose real and imaginary part have this standard deviation."""
    variance = jnp.asarray(sigma) ** 2

    def surrogate(y: Array, m: Array) -> tuple[Array, Array]:
        z = y * m / variance
        return y * i1e(z) / i0e(z), jnp.ones_like(m)

    def loss(y: Array, m: Array) -> Array:
        return (y - m) ** 2 - 2 * variance * jnp.log(i0e(y * m / variance))

    return Noise(loss, surrogate)


def student(sigma: Float[Array, "*voxels"] | float, freedom: float = FREEDOM) -> Noise:
    """Of Student's t: Gaussian with standard deviation σ for most measurements, with long tails."""
    variance = jnp.asarray(sigma) ** 2

    def loss(y: Array, m: Array) -> Array:
        return (freedom + 1) * variance * jnp.log1p((y - m) ** 2 / (freedom * variance))

    def surrogate(y: Array, m: Array) -> tuple[Array, Array]:
        return y, (freedom + 1) / (freedom + (y - m) ** 2 / variance)

    return Noise(loss, surrogate)


def sigma_of_residuals(
    squares: Float[Array | np.ndarray, " voxel"], measurements: int, parameters: int = 4
) -> Float[Array, " voxel"]:
    """σ of each voxel, √(Σ (y − m)² / (measurements − parameters)).

    Raises:
        ConfigError: no measurement is left over.
    """
    if measurements <= parameters:
        raise ConfigError(f"{measurements} measurements, {parameters} parameters; expected more, or σ from elsewhere")
    return jnp.sqrt(jnp.asarray(squares) / (measurements - parameters))


def sigma_of_background(magnitudes: Float[np.ndarray, "..."]) -> float:
    """σ of the real part where there is only air: magnitudes are Rayleigh distributed, with median σ √(2 ln 2).

    Raises:
        ConfigError: most of it is 0, as in images whose background was set to 0, or mean and median do not have
            Rayleigh's ratio, as where there is tissue.
    """
    seen = magnitudes[np.isfinite(magnitudes)]
    if not (seen > 0).mean() > 0.9:
        raise ConfigError("background: most of it is 0; expected air with noise, or σ from residuals")
    ratio = float(np.mean(seen)) / float(np.median(seen))
    if abs(ratio / RAYLEIGH_RATIO - 1) > 0.03:
        raise ConfigError(f"background: mean over median {ratio:.2f}; expected {RAYLEIGH_RATIO:.2f}, of air alone")
    return float(np.median(seen)) / RAYLEIGH_MEDIAN


class Frames(NamedTuple):
    """How well each frame fits what the others say."""

    misfit: Float[np.ndarray, " frame"]  # median of |y − m| / σ over voxels, 0.67 for Gaussian noise
    weight: Float[np.ndarray, " frame"]  # mean weight that Student's t gives it, 1 for Gaussian noise and about
    bad: Float[np.ndarray, " frame"]  # share of voxels more than 3 σ off


def frames(
    measured: Float[Array | np.ndarray, "frame voxel"],
    predicted: Float[Array | np.ndarray, "frame voxel"],
    sigma: Float[Array | np.ndarray, "#frame #voxel"] | float,
) -> Frames:
    """A row for each frame, to find those that motion spoilt; voxels that are not finite are left out."""
    off = np.abs(np.asarray(measured) - np.asarray(predicted)) / np.asarray(sigma)
    off = np.where(np.isfinite(off), off, np.nan)
    weight = (FREEDOM + 1) / (FREEDOM + off**2)
    far = np.where(np.isfinite(off), off > 3, np.nan)
    return Frames(np.nanmedian(off, 1), np.nanmean(weight, 1), np.nanmean(far, 1))
