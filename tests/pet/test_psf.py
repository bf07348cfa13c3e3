"""The blur against SciPy's Gaussians, its own transpose, and what a point looks like afterwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import curve_fit
from scipy.stats import norm

from medjax.pet.grid import Grid
from medjax.pet.psf import blur, gaussian_psf

GRID = Grid((31, 29, 33), (2.0, 2.5, 1.5))
FLAT = Grid((31, 29, 1), GRID.voxel_mm)
FWHM = (6.0, 7.0, 4.0)
SD = np.array(FWHM) / np.sqrt(8 * np.log(2)) / GRID.voxel_mm  # in voxels
INSIDE = (slice(12, -12),) * 3  # far enough from the edge for the Gaussian to end


def volume(seed: int = 0, shape: tuple[int, ...] = GRID.shape) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def test_it_is_scipys_convolution_inside(x64: None):
    image = volume()
    want = image
    for axis, sd in enumerate(SD):
        kernel = np.diff(norm.cdf(np.arange(-16.5, 17), scale=np.sqrt(sd**2 - 1 / 12)))
        want = ndimage.convolve1d(want, kernel, axis=axis, mode="constant")
    np.testing.assert_allclose(blur(gaussian_psf(GRID, FWHM), jnp.asarray(image)), want, atol=1e-12)


def test_it_is_scipys_gaussian_filter_to_a_part_in_a_thousand(x64: None):
    image = volume()
    want = ndimage.gaussian_filter(image, SD, mode="constant", truncate=8)
    got = blur(gaussian_psf(GRID, FWHM), jnp.asarray(image))
    assert np.linalg.norm((got - want)[INSIDE]) < 1e-3 * np.linalg.norm((want - want.mean())[INSIDE])


@pytest.mark.parametrize("fwhm", FWHM)
def test_a_point_becomes_as_wide_as_asked(fwhm: float, x64: None):
    point = np.zeros(FLAT.shape)
    point[15, 14] = 1.0
    profile = np.asarray(blur(gaussian_psf(FLAT, fwhm), jnp.asarray(point)))[:, 14, 0]
    x = (np.arange(31) - 15) * 2.0
    (_, width), _ = curve_fit(lambda x, top, width: top * 2 ** -((2 * x / width) ** 2), x, profile, (1, 5))
    assert width == pytest.approx(fwhm, rel=0.005)
    second_moment = (profile * x**2).sum() / profile.sum()
    assert np.sqrt(8 * np.log(2) * second_moment) == pytest.approx(fwhm, rel=1e-4)


def test_it_is_self_adjoint(x64: None):
    psf = gaussian_psf(GRID, FWHM)
    image, other = jnp.asarray(volume(0)), jnp.asarray(volume(1))
    there, back = jnp.vdot(blur(psf, image), other), jnp.vdot(image, blur(psf, other))
    assert abs(there - back) <= 1e-12 * abs(there)


def test_sums_are_kept_away_from_the_edge(x64: None):
    psf, image = gaussian_psf(GRID, FWHM), np.zeros(GRID.shape)
    image[INSIDE] = volume()[INSIDE]
    np.testing.assert_allclose(np.sum(blur(psf, jnp.asarray(image))), image.sum(), rtol=1e-5)
    flat = np.asarray(blur(psf, jnp.ones(GRID.shape)))
    np.testing.assert_allclose(flat[INSIDE], 1, rtol=1e-5)
    assert flat[0, 0, 0] < 0.5  # and lost across it


def test_no_width_is_the_identity(x64: None):
    image = jnp.asarray(volume())
    np.testing.assert_array_equal(blur(gaussian_psf(GRID, 0.0), image), image)
    np.testing.assert_array_equal(blur(None, image), image)
    along_y = blur(gaussian_psf(GRID, (0.0, 7.0, 0.0)), image)
    want = ndimage.gaussian_filter1d(np.asarray(image), SD[1], axis=1, mode="constant", truncate=8)
    np.testing.assert_allclose(along_y, want, atol=0.01)


def test_a_single_slice_is_not_blurred_away(x64: None):
    image = jnp.asarray(volume(shape=FLAT.shape))
    want = ndimage.gaussian_filter(np.asarray(image[..., 0]), SD[:2], mode="constant", truncate=8)
    np.testing.assert_allclose(blur(gaussian_psf(FLAT, FWHM), image)[..., 0], want, atol=0.005)


def test_it_can_be_differentiated_by_its_width(x64: None):
    grid = Grid((6, 5, 4), (2.0, 2.0, 2.0))
    image = jnp.asarray(volume(shape=grid.shape))
    mask = jnp.asarray(volume(1, grid.shape))

    @jax.jit
    @jax.value_and_grad
    def masked(fwhm: jax.Array) -> jax.Array:
        return jnp.vdot(blur(gaussian_psf(grid, fwhm), image) ** 2, mask)

    for fwhm in (2.5, 5.0, 20.0):
        difference = (masked(fwhm + 1e-5)[0] - masked(fwhm - 1e-5)[0]) / 2e-5
        np.testing.assert_allclose(masked(fwhm)[1], difference, rtol=1e-7)
    for narrow in (0.0, 0.5):
        assert masked(narrow)[1] == 0  # the identity
