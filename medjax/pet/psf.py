"""Gaussian blur in image space: the resolution model before the projector, the post-filter after a reconstruction.

Each axis is blurred by a symmetric Toeplitz matrix, so that the blur is its own transpose to the last bit, knows no
border artefact but loss across the edge, and runs as matrix products.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import erf
from jaxtyping import Array, Float

from medjax.pet.grid import Grid

FWHM_PER_SD = 2.354820045  # 2 √(2 ln 2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Psf:
    """A separable point spread function: one symmetric matrix an axis."""

    x: Float[Array, "*stack x x"]
    y: Float[Array, "*stack y y"]
    z: Float[Array, "*stack z z"]


def gaussian_psf(grid: Grid, fwhm_mm: float | Float[Array, ""] | tuple[float, float, float]) -> Psf:
    """A Gaussian of full width at half maximum `fwhm_mm`, one number or one an axis (0: that axis stays as it is).

    An entry is a Gaussian's integral over the receiving voxel, so sums are kept away from the edge at any width. Its
    variance is the asked one less the voxel's own 1/12, so the blur is as wide as asked; below 0.68 voxels nothing is
    left and it is the identity.
    """
    widths = fwhm_mm if isinstance(fwhm_mm, tuple) else (fwhm_mm,) * 3
    return Psf(*(_matrix(n, w / v) for n, w, v in zip(grid.shape, widths, grid.voxel_mm, strict=True)))


def blur(psf: Psf | None, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """The blurred image; without a PSF, the image. Self-adjoint."""
    if psf is None:
        return image
    high = jax.lax.Precision.HIGHEST
    image = jnp.einsum("xa,ayz->xyz", psf.x.astype(image.dtype), image, precision=high)
    image = jnp.einsum("ya,xaz->xyz", psf.y.astype(image.dtype), image, precision=high)
    return jnp.einsum("xya,az->xyz", image, psf.z.astype(image.dtype), precision=high) if image.shape[2] > 1 else image


def _matrix(size: int, fwhm: float | Float[Array, ""]) -> Float[Array, "size size"]:
    """Integrals over unit voxels of the Gaussian that makes them `fwhm` voxels wide; the identity at 0."""
    distance = jnp.abs(jnp.arange(size)[:, None] - jnp.arange(size)[None]) * 1.0
    variance = (fwhm / FWHM_PER_SD) ** 2 - 1 / 12
    root2_sd = jnp.sqrt(2 * jnp.maximum(variance, 1e-12))
    return (erf((distance + 0.5) / root2_sd) - erf((distance - 0.5) / root2_sd)) / 2
