"""Noise models of MRI signals (Gaussian, Rician, Student's t): likelihoods, and their least-squares surrogates.

    noise.loss(measured, predicted)        2σ² · (−log p), without terms of the measurement alone
    noise.surrogate(measured, predicted)   (target, weight) with ∂ loss / ∂ predicted = 2 weight (predicted − target)

`weight (target − m)²` lies above the loss and touches it at the prediction, so a damped step on it that lowers the loss
is a step of expectation–maximisation. For Gaussian noise both are the same thing.

- Gaussian: (y − m)².
- Rician, of a magnitude image: p(y) ∝ exp(−(y² + m²) / 2σ²) I₀(y m / σ²); target y I₁/I₀, the expected real part.
- Student's t with ν degrees of freedom: (ν + 1) σ² log(1 + (y − m)² / ν σ²); weight (ν + 1) / (ν + (y − m)² / σ²). An
  outlier counts little.

Source: Gudbjartsson & Patz, Magnetic Resonance in Medicine 34(6), 1995; Lange et al., Journal of the American
Statistical Association 84(408), 1989.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e, i1e
from jaxtyping import Array, Float, Int
from scipy.stats import chi2

from medjax.errors import ConfigError

NoiseModel = Literal["gaussian", "rician", "student"]
DEGREES_OF_FREEDOM = 3.0  # degrees of freedom of Student's t: a measurement 3 σ off counts a third
RAYLEIGH_MEDIAN = float(np.sqrt(2 * np.log(2)))
RAYLEIGH_RATIO = float(np.sqrt(np.pi / 2)) / RAYLEIGH_MEDIAN  # ratio of mean and median


class Noise(NamedTuple):
    """Noise model of one measurement: its negative log-likelihood, and a least-squares surrogate of that."""

    loss: Callable[[Array, Array], Array]  # negative log-likelihood of (measured, predicted)
    surrogate: Callable[[Array, Array], tuple[Array, Array]]  # (surrogate data, weights) of (measured, predicted)


def noise_model(kind: NoiseModel, sigma: Float[Array, "*voxels"] | float) -> Noise:
    """The noise model of that name, with standard deviation `sigma` in units of the signal.

    Raises:
        ConfigError: no such noise model.
    """
    if kind not in ("gaussian", "rician", "student"):
        raise ConfigError(f"noise '{kind}'; expected gaussian, rician or student")
    return GAUSSIAN if kind == "gaussian" else rician(sigma) if kind == "rician" else student(sigma)


GAUSSIAN = Noise(lambda y, m: (y - m) ** 2, lambda y, m: (y, jnp.ones_like(m)))


def rician(sigma: Float[Array, "*voxels"] | float) -> Noise:
    """Rician noise of a magnitude whose real and imaginary part have standard deviation `sigma`."""
    variance = jnp.asarray(sigma) ** 2

    def surrogate(y: Array, m: Array) -> tuple[Array, Array]:
        z = y * m / variance
        return y * i1e(z) / i0e(z), jnp.ones_like(m)

    def loss(y: Array, m: Array) -> Array:
        return (y - m) ** 2 - 2 * variance * jnp.log(i0e(y * m / variance))

    return Noise(loss, surrogate)


def student(sigma: Float[Array, "*voxels"] | float, degrees_of_freedom: float = DEGREES_OF_FREEDOM) -> Noise:
    """Student's t noise of scale `sigma`: about Gaussian for most measurements, with heavy tails for outliers."""
    variance = jnp.asarray(sigma) ** 2

    def loss(y: Array, m: Array) -> Array:
        return (degrees_of_freedom + 1) * variance * jnp.log1p((y - m) ** 2 / (degrees_of_freedom * variance))

    def surrogate(y: Array, m: Array) -> tuple[Array, Array]:
        return y, (degrees_of_freedom + 1) / (degrees_of_freedom + (y - m) ** 2 / variance)

    return Noise(loss, surrogate)


def sigma_of_residuals(
    squares: Float[Array | np.ndarray, " voxel"],
    measurements: int,
    parameters: int | Int[np.ndarray, " voxel"] = 4,
) -> Float[Array, " voxel"]:
    """Noise level σ of each voxel from its sum of squared residuals: √(Σ (y − m)² / (measurements − parameters)).

    A parameter that a bound holds is not fitted: `parameters` may be each voxel's own number.

    Raises:
        ConfigError: no measurement is left over.
    """
    most = int(np.max(parameters, initial=0))
    if measurements <= most:
        raise ConfigError(f"{measurements} measurements, {most} parameters; expected more, or σ from elsewhere")
    return jnp.sqrt(jnp.asarray(squares) / (measurements - parameters))


def sigma_of_region(levels: Float[Array | np.ndarray, " voxel"], freedom: int | Int[np.ndarray, " voxel"]) -> float:
    """Noise level σ of a region: the median of its voxels' levels, each over the median of χ_ν / √ν.

    With ν degrees of freedom, measurements − parameters, the median of √(Σ (y − m)² / ν) is below σ: by 33 % for
    ν = 1, by 6 % for ν = 6.
    """
    return float(np.median(np.asarray(levels) / np.sqrt(chi2.median(freedom) / freedom)))


def sigma_of_background(magnitudes: Float[np.ndarray, "..."]) -> float:
    """Noise level σ from magnitudes of air (background): they are Rayleigh distributed, with median σ √(2 ln 2).

    Raises:
        ConfigError: most magnitudes are 0, as where the background was set to 0, or mean and median do not have
            Rayleigh's ratio, as where there is tissue.
    """
    seen = magnitudes[np.isfinite(magnitudes)]
    if not (seen > 0).mean() > 0.9:
        raise ConfigError("background: most magnitudes are 0; expected air with noise, or σ from residuals")
    ratio = float(np.mean(seen)) / float(np.median(seen))
    if abs(ratio / RAYLEIGH_RATIO - 1) > 0.03:
        raise ConfigError(f"background: mean over median {ratio:.2f}; expected {RAYLEIGH_RATIO:.2f}, of air alone")
    return float(np.median(seen)) / RAYLEIGH_MEDIAN


class FrameMisfit(NamedTuple):
    """Misfit of each frame to the fitted signals."""

    misfit: Float[np.ndarray, " frame"]  # median of |y − m| / σ over voxels, 0.67 for Gaussian noise
    weight: Float[np.ndarray, " frame"]  # mean weight under Student's t noise; about 1 for Gaussian noise
    outlier_fraction: Float[np.ndarray, " frame"]  # fraction of the voxels more than 3 σ off


def frame_misfit(
    measured: Float[Array | np.ndarray, "frame voxel"],
    predicted: Float[Array | np.ndarray, "frame voxel"],
    sigma: Float[Array | np.ndarray, "#frame #voxel"] | float,
) -> FrameMisfit:
    """Misfit of each frame, to find outlier frames; voxels that are not finite are left out. `sigma` is the noise."""
    off = np.abs(np.asarray(measured) - np.asarray(predicted)) / np.asarray(sigma)
    off = np.where(np.isfinite(off), off, np.nan)
    weight = (DEGREES_OF_FREEDOM + 1) / (DEGREES_OF_FREEDOM + off**2)
    far = np.where(np.isfinite(off), off > 3, np.nan)
    return FrameMisfit(np.nanmedian(off, 1), np.nanmean(weight, 1), np.nanmean(far, 1))
