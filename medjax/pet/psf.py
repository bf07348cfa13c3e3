"""Point spread function: Gaussian blur in image space, for the resolution model and as post-filter.

Each axis is blurred by a symmetric Toeplitz matrix, so that the blur is its own transpose to the last bit, has no
border artefact but loss across the edge, and runs as matrix products.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.special import erf
from jaxtyping import Array, Float

from medjax.one_program import one_program
from medjax.pet.grid import Grid

FWHM_PER_SD = 2.354820045  # 2 √(2 ln 2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Psf:
    """Separable point spread function: one symmetric matrix an axis."""

    x: Float[Array, "*stack x x"]
    y: Float[Array, "*stack y y"]
    z: Float[Array, "*stack z z"]


def gaussian_psf(grid: Grid, fwhm_mm: float | Float[Array, ""] | tuple[float, float, float]) -> Psf:
    """Gaussian point spread function of FWHM `fwhm_mm`, one number or one an axis (0: none along that axis).

    An entry is a Gaussian's integral over the receiving voxel, so sums are kept away from the edge at any width. Its
    variance is that of the FWHM less the voxel's own 1/12; below 0.68 voxels nothing is
    left and it is the identity.
    """
    widths = fwhm_mm if isinstance(fwhm_mm, tuple) else (fwhm_mm,) * 3
    return Psf(*(_matrix(n, w / v) for n, w, v in zip(grid.shape, widths, grid.voxel_mm, strict=True)))


@one_program
def blur(psf: Psf | None, image: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """Blur an image by the point spread function; without one, the image itself. Self-adjoint."""
    if psf is None:
        return image
    high = jax.lax.Precision.HIGHEST
    image = jnp.einsum("xa,ayz->xyz", psf.x.astype(image.dtype), image, precision=high)
    image = jnp.einsum("ya,xaz->xyz", psf.y.astype(image.dtype), image, precision=high)
    return jnp.einsum("xya,az->xyz", image, psf.z.astype(image.dtype), precision=high) if image.shape[2] > 1 else image


@partial(jax.jit, static_argnums=0, inline=True)
def _matrix(size: int, fwhm: float | Float[Array, ""]) -> Float[Array, "size size"]:
    """Integrals over unit voxels of the Gaussian that makes them `fwhm` voxels wide; the identity at 0."""
    distance = jnp.abs(jnp.arange(size)[:, None] - jnp.arange(size)[None]) * 1.0
    variance = (fwhm / FWHM_PER_SD) ** 2 - 1 / 12
    root2_sd = jnp.sqrt(2 * jnp.maximum(variance, 1e-12))
    return (erf((distance + 0.5) / root2_sd) - erf((distance - 0.5) / root2_sd)) / 2
