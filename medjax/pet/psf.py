"""Point spread function: Gaussian blur in image space, for the resolution model and as post-filter.

Activity beyond an end of the grid is taken to mirror that inside (SciPy's mode "reflect"), along all axes. Each axis is
blurred by a symmetric matrix with rows that sum to 1, so that the blur is its own transpose to the last bit, keeps
sums, leaves a uniform image as it is up to its ends, and runs as matrix products.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf, erfc
from jaxtyping import Array, Float

from medjax.one_program import one_program
from medjax.pet.grid import Grid

FWHM_PER_SD = 2.354820045  # 2 √(2 ln 2)
_IMAGES = 6  # mirror images on either side; a Gaussian too wide for them is uniform over the axis to 1e-8


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Psf:
    """Separable point spread function: one symmetric matrix an axis."""

    x: Float[Array, "*stack x x"]
    y: Float[Array, "*stack y y"]
    z: Float[Array, "*stack z z"]


def gaussian_psf(grid: Grid, fwhm_mm: float | Float[Array, ""] | tuple[float, float, float]) -> Psf:
    """Gaussian point spread function of FWHM `fwhm_mm`, one number or one an axis (0: none along that axis).

    An entry is a Gaussian's integral over the receiving voxel and over its mirror images beyond the ends, so sums are
    kept at any width. Its variance in voxels is (FWHM / 2.355)² at any width: the Gaussian has that less the voxel's
    own 1/12, and what its integrals lack of it, below 2 voxels, goes to both neighbours.
    """
    widths = fwhm_mm if isinstance(fwhm_mm, tuple) else (fwhm_mm,) * 3
    return Psf(*(gaussian_matrix(n, w / v) for n, w, v in zip(grid.shape, widths, grid.voxel_mm, strict=True)))


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
def gaussian_matrix(size: int, fwhm: float | Float[Array, ""]) -> Float[Array, "size size"]:
    """Blur along one axis: the kernel of `fwhm` voxels with its mirror images.

    p(i − j) + p(i + j + 1), p(d) = Σ_k g(d + 2 size k).
    """
    variance = jnp.minimum(jnp.asarray(fwhm) / FWHM_PER_SD, 2.0 * size) ** 2
    periods = 2.0 * size * jnp.arange(-_IMAGES, _IMAGES + 1)[:, None]
    periodic = _kernel(jnp.arange(2 * size)[None] + periods, variance).sum(axis=0)
    row, column = np.arange(size)[:, None], np.arange(size)[None]
    return periodic[abs(row - column)] + periodic[row + column + 1]


def _kernel(distance: Float[Array, "..."], variance: Float[Array, ""]) -> Float[Array, "..."]:
    """Kernel g of that variance in voxels: a Gaussian's integrals over voxels; what they lack, by both neighbours."""
    root2_sd = jnp.sqrt(2 * jnp.maximum(variance - 1 / 12, 1e-12))
    edge = jnp.arange(0.5, 7)  # their variance Σ d² g(d) is Σ (2d − 1) erfc((d − ½) / √2 σ)
    lack = jnp.where(variance < 1, jnp.maximum(variance - jnp.sum(2 * edge * erfc(edge / root2_sd)), 0), 0)

    def integral(x: Array) -> Array:
        return (erf((x + 0.5) / root2_sd) - erf((x - 0.5) / root2_sd)) / 2

    return (1 - lack) * integral(distance) + lack * (integral(distance - 1) + integral(distance + 1)) / 2
