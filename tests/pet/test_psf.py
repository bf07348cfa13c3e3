"""The blur against SciPy's Gaussians, its own transpose, a point afterwards, and objects that leave the stack."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import curve_fit
from scipy.stats import norm

from medjax import defaults, iterate
from medjax.pet import em
from medjax.pet.acquisition import acquire
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.projector import project
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scanner import parallel_lors
from medjax.pet.system import build_system

GRID = Grid((31, 29, 33), (2.0, 2.5, 1.5))
FLAT = Grid((31, 29, 1), GRID.voxel_mm)
FWHM = (6.0, 7.0, 4.0)
SD = np.array(FWHM) / np.sqrt(8 * np.log(2)) / GRID.voxel_mm  # in voxels
INSIDE = (slice(12, -12),) * 3  # far enough from the edge for the Gaussian to end


def volume(seed: int = 0, shape: tuple[int, ...] = GRID.shape) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def test_it_is_scipys_convolution_up_to_the_ends(x64: None):
    image = volume()
    want = image
    for axis, sd in enumerate(SD):
        kernel = np.diff(norm.cdf(np.arange(-16.5, 17), scale=np.sqrt(sd**2 - 1 / 12)))
        want = ndimage.convolve1d(want, kernel, axis=axis, mode="reflect")
    np.testing.assert_allclose(blur(gaussian_psf(GRID, FWHM), jnp.asarray(image)), want, atol=1e-7)


def test_it_is_scipys_gaussian_filter_to_a_part_in_a_thousand(x64: None):
    image = volume()
    want = ndimage.gaussian_filter(image, SD, mode="reflect", truncate=8)
    got = blur(gaussian_psf(GRID, FWHM), jnp.asarray(image))
    assert np.linalg.norm(got - want) < 1e-3 * np.linalg.norm(want - want.mean())


@pytest.mark.parametrize("fwhm", [0.3, 1.0, 1.5, 2.0, 2.5, 3.0, 4.5, 9.0])  # 0.15 to 4.5 voxels
def test_a_points_variance_is_that_of_the_width(fwhm: float, x64: None):
    point = np.zeros(FLAT.shape)
    point[15, 14] = 1.0
    profile = np.asarray(jax.jit(lambda width: blur(gaussian_psf(FLAT, width), jnp.asarray(point)))(fwhm))[:, 14, 0]
    second_moment = (profile * ((np.arange(31) - 15) * 2.0) ** 2).sum() / profile.sum()
    assert np.sqrt(8 * np.log(2) * second_moment) == pytest.approx(fwhm, rel=1e-6)
    assert profile.min() >= 0 and np.all(np.diff(profile[15:]) <= 0)


@pytest.mark.parametrize("fwhm", FWHM)
def test_a_point_becomes_as_wide_as_asked(fwhm: float, x64: None):
    point = np.zeros(FLAT.shape)
    point[15, 14] = 1.0
    profile = np.asarray(blur(gaussian_psf(FLAT, fwhm), jnp.asarray(point)))[:, 14, 0]
    x = (np.arange(31) - 15) * 2.0
    (_, width), _ = curve_fit(lambda x, top, width: top * 2 ** -((2 * x / width) ** 2), x, profile, (1, 5))
    assert width == pytest.approx(fwhm, rel=0.005)


def test_it_is_self_adjoint(x64: None):
    psf = gaussian_psf(GRID, FWHM)
    image, other = jnp.asarray(volume(0)), jnp.asarray(volume(1))
    there, back = jnp.vdot(blur(psf, image), other), jnp.vdot(image, blur(psf, other))
    assert abs(there - back) <= 1e-12 * abs(there)


@pytest.mark.parametrize("shape", [(31, 29, 33), (5, 4, 3), (2, 3, 1)])
def test_sums_and_uniform_images_are_kept_at_any_width(shape: tuple[int, int, int], x64: None):
    grid, image = Grid(shape, GRID.voxel_mm), jnp.asarray(volume(shape=shape))
    for fwhm in (1.0, 6.0, 40.0, 1e4):
        psf = gaussian_psf(grid, fwhm)
        np.testing.assert_allclose(blur(psf, jnp.ones(shape)), 1, rtol=1e-7)
        np.testing.assert_allclose(np.sum(blur(psf, image)), np.sum(image), rtol=1e-7)
        for matrix in (psf.x, psf.y, psf.z):
            np.testing.assert_array_equal(matrix, matrix.T)


def test_no_width_is_the_identity(x64: None):
    image = jnp.asarray(volume())
    np.testing.assert_array_equal(blur(gaussian_psf(GRID, 0.0), image), image)
    np.testing.assert_array_equal(blur(None, image), image)
    along_y = blur(gaussian_psf(GRID, (0.0, 7.0, 0.0)), image)
    want = ndimage.gaussian_filter1d(np.asarray(image), SD[1], axis=1, mode="reflect", truncate=8)
    np.testing.assert_allclose(along_y, want, atol=0.01)


def test_a_single_slice_is_not_blurred_away(x64: None):
    image = jnp.asarray(volume(shape=FLAT.shape))
    want = ndimage.gaussian_filter(np.asarray(image[..., 0]), SD[:2], mode="reflect", truncate=8)
    np.testing.assert_allclose(blur(gaussian_psf(FLAT, FWHM), image)[..., 0], want, atol=0.005)


def test_it_can_be_differentiated_by_its_width(x64: None):
    grid = Grid((6, 5, 4), (2.0, 2.0, 2.0))
    image = jnp.asarray(volume(shape=grid.shape))
    mask = jnp.asarray(volume(1, grid.shape))

    @jax.jit
    @jax.value_and_grad
    def masked(fwhm: jax.Array) -> jax.Array:
        return jnp.vdot(blur(gaussian_psf(grid, fwhm), image) ** 2, mask)

    for fwhm in (0.5, 1.5, 2.5, 5.0, 20.0):
        difference = (masked(fwhm + 1e-5)[0] - masked(fwhm - 1e-5)[0]) / 2e-5
        np.testing.assert_allclose(masked(fwhm)[1], difference, rtol=1e-7)
    assert masked(0.0)[1] == 0  # the identity


# ── objects that leave the stack of planes ──

STACK, BEYOND = 15, 12  # planes; planes that the object goes on for at both ends
HEIGHT = np.arange(STACK + 2 * BEYOND) - (STACK - 1) / 2 - BEYOND


@pytest.fixture(scope="module")
def reconstruct() -> Callable[..., np.ndarray]:
    """Plane means of a cylinder whose activity is `profile` along z, from exact data, by MLEM with the usual PSF."""
    grid = Grid((16, 16, STACK), (8.0, 8.0, 2.0))
    system = build_system(parallel_lors(12, 24, 8.0), grid)
    x, y, _ = centers_mm(grid)
    cylinder = (np.hypot(x, y) < 40)[..., :1]
    psf = gaussian_psf(grid, (0.0, 0.0, defaults.PET_PSF_MM))
    run = jax.jit(lambda data: iterate.scan(em.mlem(data), em.init(data), 100)[0].image)

    def plane_means(profile: np.ndarray, matrix: np.ndarray | None = None) -> np.ndarray:
        sd = defaults.PET_PSF_MM / np.sqrt(8 * np.log(2)) / 2.0
        kernel = np.diff(norm.cdf(np.arange(-8.5, 9), scale=np.sqrt(sd**2 - 1 / 12)))
        seen = ndimage.convolve1d(profile, kernel, mode="nearest")[BEYOND:-BEYOND]
        sinogram = project(system, jnp.asarray(cylinder * seen, jnp.float32))
        model = psf if matrix is None else replace(psf, z=jnp.asarray(matrix, jnp.float32))
        image = run(acquire(system, sinogram, 1.0, 0.0, model))
        return np.asarray(image)[cylinder[..., 0]].mean(axis=0)

    return plane_means


def toeplitz() -> np.ndarray:
    """The axial PSF for which activity beyond the stack is 0: the wrong model of an object that goes on."""
    sd = np.sqrt((defaults.PET_PSF_MM / np.sqrt(8 * np.log(2)) / 2.0) ** 2 - 1 / 12)
    difference = np.subtract.outer(np.arange(STACK), np.arange(STACK))
    return norm.cdf(difference + 0.5, scale=sd) - norm.cdf(difference - 0.5, scale=sd)


def test_a_cylinder_that_goes_on_is_uniform_in_every_plane(reconstruct: Callable[..., np.ndarray]):
    means = reconstruct(np.ones(len(HEIGHT)))
    np.testing.assert_allclose(means, 1, atol=0.01)
    np.testing.assert_allclose(means, means[STACK // 2], rtol=1e-4)
    assert reconstruct(np.ones(len(HEIGHT)), toeplitz())[0] > 1.5  # what it would be with 0 beyond


def test_activity_that_changes_across_the_ends_is_off_by_little_there(reconstruct: Callable[..., np.ndarray]):
    for profile in (1 + 0.05 * HEIGHT * (abs(HEIGHT) < 15), np.exp(-(((HEIGHT + 5) / 9) ** 2))):
        truth = profile[BEYOND:-BEYOND]
        got, before = (abs(reconstruct(profile, matrix) - truth).max() for matrix in (None, toeplitz()))
        assert got < 0.1 and before > 0.4


def test_a_post_filter_leaves_the_end_planes_of_a_uniform_object():
    filtered = blur(gaussian_psf(Grid((16, 16, STACK), (2.0, 2.0, 2.0)), 6.0), jnp.ones((16, 16, STACK)))
    np.testing.assert_allclose(filtered, 1, rtol=1e-6)
