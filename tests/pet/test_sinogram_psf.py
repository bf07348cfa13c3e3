"""Blur along the sinogram: widths by moments, counts kept, the exact transpose, in the acquisition and its subsets."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.errors import ConfigError, DataError
from medjax.pet.acquisition import acquire, ordered_subsets, select_subset
from medjax.pet.grid import Grid
from medjax.pet.michelogram import michelogram
from medjax.pet.projector import project
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import PRESETS, Scanner, lors
from medjax.pet.sinogram_psf import bin_blur, blur_sinogram, blur_sinogram_adjoint, scanner_sinogram_psf
from medjax.pet.system import build_system
from tests.pet.adjoint import dot_gap

SMALL = Scanner("small", 32, 4, 40.0, 4.0, 17, 4.0)
MMR_MM = (328 + 9.6) * np.sin(np.pi * (np.arange(344) - 172) / 504)


def test_widths_grow_from_the_axis_as_moses_formula_tells():
    matrix = bin_blur(MMR_MM, 4.0, 12.5, 337.6)
    np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=1e-12)
    for bin_, s in ((172, 0.0), (252, MMR_MM[252]), (60, MMR_MM[60])):
        mean = matrix[:, bin_] @ MMR_MM
        fwhm = 2.354820045 * np.sqrt(matrix[:, bin_] @ (MMR_MM - mean) ** 2)
        assert fwhm == pytest.approx(np.sqrt(16 + 12.5**2 * s**2 / (s**2 + 337.6**2)), rel=0.01)
        assert mean == pytest.approx(s, abs=0.05)
    np.testing.assert_array_equal(bin_blur(MMR_MM, 0.0, 0.0, 337.6), np.eye(344))


@settings(max_examples=10)
@given(st.floats(0, 20), st.floats(0, 20), st.floats(0, 20), st.sampled_from((1, 3)), st.booleans())
def test_the_transpose_is_the_transpose(x64_of_module, fwhm, penetration, axial, span, tof):
    planes = michelogram(4, span)
    psf = scanner_sinogram_psf(SMALL, fwhm, penetration_mm=penetration, michelogram=planes, axial_fwhm_mm=axial)
    rng = np.random.default_rng(0)
    shape = (3, 17, planes.planes, *([2] if tof else []))
    there, back = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.normal(size=shape))
    blurred = blur_sinogram(psf, there)
    assert dot_gap(blurred, back, there, blur_sinogram_adjoint(psf, back)) < 1e-12
    np.testing.assert_allclose(blurred.sum(), there.sum(), rtol=1e-9, atol=1e-9)  # counts are kept


@pytest.fixture(scope="module")
def x64_of_module():
    with jax.enable_x64(True):
        yield


def test_planes_of_a_segment_stay_in_it(x64: None):
    planes = michelogram(4, 3)
    psf = scanner_sinogram_psf(SMALL, 0.0, michelogram=planes, axial_fwhm_mm=6.0)
    starts = np.cumsum([0, *planes.planes_per_segment])
    for segment, start in enumerate(starts[:-1]):
        point = np.zeros((1, 17, planes.planes))
        point[0, 3, start] = 1
        seen = np.asarray(blur_sinogram(psf, jnp.asarray(point)))[0]
        assert seen.sum() == pytest.approx(1) and (seen[3, start : starts[segment + 1]] > 0).any()
        assert np.count_nonzero(seen) == np.count_nonzero(seen[3, start : starts[segment + 1]])


def test_in_the_acquisition_and_its_subsets(x64: None):
    """Forward is m · S P G x and adjoint its transpose; subsets hold the views of the whole."""
    grid = Grid((8, 8, 7), (6.0, 6.0, 2.0))
    psf, image_psf = scanner_sinogram_psf(SMALL, 5.0, penetration_mm=12.5), gaussian_psf(grid, 5.0)
    rng = np.random.default_rng(1)
    system = build_system(lors(SMALL), grid)
    counts, factors = (jnp.asarray(rng.random((16, 17, 7))) for _ in range(2))
    acquisition = acquire(system, counts, factors, 0.1, image_psf, psf)
    image = jnp.asarray(rng.random(grid.shape))
    assert dot_gap(acquisition.forward(image), counts, image, acquisition.adjoint(counts)) < 1e-12
    sharp = replace(acquisition, sinogram_psf=None)
    dense = np.einsum("ab,vbp->vap", np.asarray(psf.bins), np.asarray(sharp.forward(image) / factors)) * factors
    np.testing.assert_allclose(acquisition.forward(image), dense, rtol=1e-9)
    np.testing.assert_allclose(acquisition.sensitivity, acquisition.adjoint(jnp.ones_like(counts)), rtol=1e-9)
    stacked = ordered_subsets(acquisition, 4)
    parts = [select_subset(stacked, k) for k in range(4)]
    np.testing.assert_allclose(sum(part.sensitivity for part in parts), acquisition.sensitivity, rtol=1e-9)
    np.testing.assert_allclose(sum(part.gradient(image) for part in parts), acquisition.gradient(image), rtol=1e-7)
    assert project(system, image).shape == counts.shape


def test_what_is_refused():
    psf = scanner_sinogram_psf(PRESETS["ring_2d"], 4.0)
    for call, error, message in [
        (lambda: psf.check_shape((252, 300, 1)), DataError, "sinogram_psf: of 344 bins and any planes"),
        (lambda: bin_blur(MMR_MM, -1.0, 0.0, 300.0), ConfigError, "fwhm_mm is -1; expected 0 or more"),
        (lambda: bin_blur(MMR_MM[::-1], 1.0, 0.0, 300.0), ConfigError, "at increasing distances"),
        (lambda: scanner_sinogram_psf(SMALL, 1.0, axial_fwhm_mm=3.0), ConfigError, "with a Michelogram"),
    ]:
        with pytest.raises(error, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
