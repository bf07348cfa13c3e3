"""Point spread function along the sinogram: blur of each view over bins, and of each segment over its planes.

What the image-space point spread function cannot hold depends on the line of response: crystals are wider where lines
enter them obliquely, far from the axis. Here each bin has its own width, over the bins' own distances. The acquisition
puts it between projection and multiplicative factors, q = m · S P G x + b, with S and its transpose.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import ndtr

from medjax.errors import ConfigError, DataError
from medjax.one_program import one_program
from medjax.pet.michelogram import Michelogram
from medjax.pet.psf import FWHM_PER_SD, gaussian_matrix
from medjax.pet.scanner import Scanner


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SinogramPsf:
    """Blur of a sinogram (view, bin, plane) or (view, bin, plane, tof): a matrix of the bins, and one a segment."""

    bins: Float[Array, "*stack bin bin"]  # from the second axis to the first: columns sum to 1
    segments: tuple[Float[Array, "*stack _ _"], ...]  # (plane, plane), symmetric; none: no blur over planes

    def check_shape(self, sinogram: tuple[int, ...]) -> None:
        """Check that it is a blur of sinograms of this shape.

        Raises:
            DataError: it is not.
        """
        bins, planes = self.bins.shape[-1], sum(matrix.shape[-1] for matrix in self.segments)
        if len(sinogram) not in (3, 4) or sinogram[1] != bins or (self.segments and sinogram[2] != planes):
            raise DataError(f"sinogram_psf: of {bins} bins and {planes or 'any'} planes; the counts have {sinogram}")


def bin_blur(
    positions_mm: Float[np.ndarray, " bin"], fwhm_mm: float, penetration_mm: float, radius_mm: float
) -> Float[np.ndarray, "bin bin"]:
    """Blur over bins: the Gaussian of each source bin (column), integrated over every receiving bin (row).

    FWHM² = fwhm² + penetration² · s² / (s² + R²) at the distance s from the axis; what passes an outermost bin is
    counted in it. The Gaussian has that variance less the bin's own width² / 12.

    Args:
        positions_mm: distance of each bin from the axis, increasing.
        fwhm_mm: width at the axis.
        penetration_mm: FWHM that penetration of crystals adds at a grazing angle: 12.5 mm in LSO and BGO.
        radius_mm: radius R of the ring.

    Raises:
        ConfigError: a width that is negative or not finite, or positions that do not increase.

    Source: Moses, Nuclear Instruments and Methods A 648(S1), 2011 (the penetration term).
    """
    for name, value in (("fwhm_mm", fwhm_mm), ("penetration_mm", penetration_mm), ("radius_mm", radius_mm)):
        if not 0 <= value < np.inf:
            raise ConfigError(f"sinogram blur: {name} is {value:g}; expected 0 or more")
    if len(positions_mm) < 2 or np.any(np.diff(positions_mm) <= 0):
        raise ConfigError(f"sinogram blur: {len(positions_mm)} bins; expected two or more, at increasing distances")
    middle = (positions_mm[1:] + positions_mm[:-1]) / 2
    width = np.diff(middle, prepend=2 * positions_mm[0] - middle[0], append=2 * positions_mm[-1] - middle[-1])
    square = fwhm_mm**2 + penetration_mm**2 * positions_mm**2 / np.maximum(positions_mm**2 + radius_mm**2, 1e-12)
    sd = np.sqrt(np.maximum(square / FWHM_PER_SD**2 - width**2 / 12, 1e-12))
    edges = np.concatenate([[-np.inf], middle, [np.inf]])
    return np.diff(ndtr((edges[:, None] - positions_mm) / sd), axis=0)


def scanner_sinogram_psf(
    scanner: Scanner,
    fwhm_mm: float,
    *,
    penetration_mm: float = 0.0,
    michelogram: Michelogram | None = None,
    axial_fwhm_mm: float = 0.0,
) -> SinogramPsf:
    """Sinogram blur of a scanner, whose bins lie at R sin(π t / C): closer together towards the edge.

    Args:
        scanner: scanner of the sinogram.
        fwhm_mm: width over bins at the axis: of crystals, about half their width.
        penetration_mm: see `bin_blur`.
        michelogram: planes of the sinogram; None: no blur over planes.
        axial_fwhm_mm: width over planes, along the axis; activity beyond a segment's ends mirrors that inside.

    Raises:
        ConfigError: a width that is negative or not finite, or an axial one without a Michelogram.
    """
    if not 0 <= axial_fwhm_mm < np.inf or (axial_fwhm_mm and michelogram is None):
        raise ConfigError(f"sinogram blur: axial_fwhm_mm is {axial_fwhm_mm:g}; expected 0 or more, with a Michelogram")
    radius = scanner.radius_mm + scanner.depth_mm
    t = np.arange(scanner.bins) - scanner.bins // 2
    positions = radius * np.sin(np.pi * t / scanner.crystals)
    matrix = bin_blur(positions, fwhm_mm, penetration_mm, radius)
    if michelogram is None or not axial_fwhm_mm:
        return SinogramPsf(jnp.asarray(matrix), ())
    pairs = zip(michelogram.planes_per_segment, michelogram.segments, strict=True)
    widths = [(planes, axial_fwhm_mm / (segment.step * scanner.ring_spacing_mm / 2)) for planes, segment in pairs]
    return SinogramPsf(jnp.asarray(matrix), tuple(gaussian_matrix(planes, width) for planes, width in widths))


@one_program
def blur_sinogram(psf: SinogramPsf | None, sinogram: Float[Array, "*bin"]) -> Float[Array, "*bin"]:
    """Blur a sinogram; without a point spread function, the sinogram itself."""
    return sinogram if psf is None else _apply(psf, sinogram, psf.bins)


@one_program
def blur_sinogram_adjoint(psf: SinogramPsf | None, sinogram: Float[Array, "*bin"]) -> Float[Array, "*bin"]:
    """Transpose of `blur_sinogram`."""
    return sinogram if psf is None else _apply(psf, sinogram, psf.bins.T)


def _apply(psf: SinogramPsf, sinogram: Array, matrix: Array) -> Array:
    high = jax.lax.Precision.HIGHEST
    result = jnp.einsum("ab,vb...->va...", matrix.astype(sinogram.dtype), sinogram, precision=high)
    if not psf.segments:
        return result
    stops = np.cumsum([segment.shape[0] for segment in psf.segments])
    parts = zip(psf.segments, jnp.split(result, stops[:-1], axis=2), strict=True)
    blurred = [jnp.einsum("pq,vbq...->vbp...", one.astype(part.dtype), part, precision=high) for one, part in parts]
    return jnp.concatenate(blurred, axis=2)
