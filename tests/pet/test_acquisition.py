"""The acquisition model against SciPy's Poisson, autodiff, finite differences, and textbook formulas in more digits."""

from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from medjax.errors import ConfigError, DataError
from medjax.pet import projector
from medjax.pet.acquisition import (
    Acquisition,
    acquire,
    de_pierro_update,
    em_update,
    expected_deviance,
    ordered_subsets,
    select_subset,
)
from medjax.pet.attenuation import attenuation_factors
from medjax.pet.grid import Grid
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import Scanner, coverage, lors
from medjax.pet.system import System, build_system, subsets
from tests.pet.oracle import ellipse_image, ellipse_integrals

SMALL = Scanner("small", 72, 2, 80.0, 8.0, 49, 4.0, depth_mm=9.6, block=9, gaps=True)
GRID = Grid((12, 12, 2), (6.0, 6.0, 4.0))


def random(*shape: int, low: float = 0.5, high: float = 2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape)


@pytest.fixture(scope="module")
def scan64() -> Acquisition:
    """A scan in float64 with blur, attenuation, gaps and background."""
    with jax.enable_x64(True):
        system = build_system(lors(SMALL), GRID)
        factors = (
            jnp.exp(-projector.project(system, jnp.asarray(0.01 * random(*GRID.shape)))) * coverage(SMALL)[..., None]
        )
        additive = factors * random(36, 49, 2, seed=1)
        counts = np.random.default_rng(2).poisson(20 * factors + additive)
        return acquire(system, jnp.asarray(counts, float), factors, additive, gaussian_psf(GRID, 7.0))


@pytest.fixture(scope="module")
def system() -> System:
    return build_system(lors(SMALL), GRID)


def test_adjoint_with_blur_attenuation_and_gaps(scan64: Acquisition, x64: None):
    image, sinogram = jnp.asarray(random(*GRID.shape)), jnp.asarray(random(36, 49, 2))
    there, back = jnp.vdot(scan64.forward(image), sinogram), jnp.vdot(image, scan64.adjoint(sinogram))
    assert there > 0 and abs(there - back) <= 1e-12 * there
    np.testing.assert_allclose(scan64.sensitivity, scan64.adjoint(jnp.ones((36, 49, 2))), rtol=1e-12)
    np.testing.assert_allclose(scan64.expected(image), scan64.forward(image) + scan64.additive, rtol=1e-12)


def test_likelihood_and_deviance_are_scipys(scan64: Acquisition, x64: None):
    first, second = (scan64.additive * (1 + random(36, 49, 2, seed=seed)) for seed in (1, 2))
    y = np.asarray(scan64.counts)
    difference = stats.poisson.logpmf(y, first).sum() - stats.poisson.logpmf(y, second).sum()
    np.testing.assert_allclose(scan64.log_likelihood(first) - scan64.log_likelihood(second), difference, rtol=1e-10)
    np.testing.assert_allclose(scan64.deviance(second) - scan64.deviance(first), difference, rtol=1e-10)
    best = stats.poisson.logpmf(y, y).sum()  # logpmf(0, 0) is 0
    np.testing.assert_allclose(scan64.deviance(first), best - stats.poisson.logpmf(y, first).sum(), rtol=1e-10)
    assert scan64.deviance(scan64.counts) == 0


def test_a_count_where_none_can_be_is_infinitely_far(scan64: Acquisition, x64: None):
    assert scan64.log_likelihood(0 * scan64.counts) == -np.inf
    assert scan64.deviance(0 * scan64.counts) == np.inf
    empty = replace(scan64, counts=0 * scan64.counts)
    assert empty.deviance(0 * scan64.counts) == 0 and empty.log_likelihood(0 * scan64.counts) == 0


def test_float32_deviance_keeps_its_digits(scan64: Acquisition, x64: None):
    """Near the optimum at 10⁸ counts, where the log-likelihood itself is only known to ± 100."""
    y = np.random.default_rng(0).poisson(5e4, (36, 49, 2)).astype(float)
    truth = float(replace(scan64, counts=jnp.asarray(y)).deviance(jnp.full_like(y, 5e4)))
    short = replace(scan64, counts=jnp.asarray(y, jnp.float32)).deviance(jnp.full(y.shape, 5e4, jnp.float32))
    assert short.dtype == jnp.float32 and float(short) == pytest.approx(truth, rel=1e-4)


def test_gradient_is_autodiffs_and_finite_differences(scan64: Acquisition, x64: None):
    image = jnp.asarray(random(*GRID.shape))

    def likelihood(x: jax.Array) -> jax.Array:
        return scan64.log_likelihood(scan64.expected(x))

    gradient = scan64.gradient(image)
    scale = float(jnp.abs(gradient).max())
    np.testing.assert_allclose(gradient, jax.grad(likelihood)(image), atol=1e-12 * scale)
    by_deviance = jax.grad(lambda x: scan64.deviance(scan64.expected(x)))(image)
    np.testing.assert_allclose(gradient, -by_deviance, atol=1e-12 * scale)
    for seed in range(3):
        direction = jnp.asarray(random(*GRID.shape, low=-1, high=1, seed=seed))
        slope = (likelihood(image + 1e-5 * direction) - likelihood(image - 1e-5 * direction)) / 2e-5
        np.testing.assert_allclose(jnp.vdot(gradient, direction), slope, rtol=1e-6, atol=1e-7 * scale)


def test_update_and_proximal_are_the_steps(scan64: Acquisition, x64: None):
    image, anchor = jnp.asarray(random(*GRID.shape)), jnp.asarray(random(*GRID.shape, seed=3))
    step = image * scan64.adjoint(scan64.counts / jnp.where(scan64.additive > 0, scan64.expected(image), 1))
    np.testing.assert_allclose(scan64.update(image), step / scan64.sensitivity, rtol=1e-12)
    weight = jnp.asarray(random(*GRID.shape, seed=4))
    want = de_pierro_update(scan64.update(image), scan64.sensitivity, anchor, weight)
    np.testing.assert_allclose(scan64.proximal(image, anchor, weight), want, rtol=1e-12)

    def objective(x: jax.Array) -> jax.Array:
        return scan64.log_likelihood(scan64.expected(x)) - jnp.sum(weight * (x - anchor) ** 2) / 2

    values = [objective(image)]
    for _ in range(3):
        image = scan64.proximal(image, anchor, weight)
        values.append(objective(image))
    assert np.all(np.diff(values) > 0)


# ── De Pierro's closed form ──


def textbook(em: np.ndarray, sensitivity: np.ndarray, anchor: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(√(B² + 4 w s em) − B) / (2 w), B = s − w · anchor, in 60 digits."""
    out = np.empty(em.size)
    with localcontext() as context:
        context.prec = 60
        for i, numbers in enumerate(zip(em.flat, sensitivity.flat, anchor.flat, weight.flat, strict=True)):
            e, s, a, w = (Decimal(float(number)) for number in numbers)
            b = s - w * a
            out[i] = float(((b * b + 4 * w * s * e).sqrt() - b) / (2 * w))
    return out.reshape(em.shape)


def voxels(number: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """em, sensitivity and anchor over several decades."""
    rng = np.random.default_rng(0)
    em, sensitivity, anchor = (10 ** rng.uniform(low, high, number) for low, high in ((-2, 2), (-1, 3), (-2, 2)))
    return em.astype(np.float32), sensitivity.astype(np.float32), anchor.astype(np.float32)


@pytest.mark.parametrize("exponents", [(e, e) for e in range(-8, 5)] + [(-8, 4)])
def test_de_pierro_in_float32_is_the_textbook_formula(exponents: tuple[int, int]):
    weight = (10 ** np.random.default_rng(1).uniform(*exponents, 400)).astype(np.float32)
    em, sensitivity, anchor = map(jnp.asarray, voxels())
    got = de_pierro_update(em, sensitivity, anchor, jnp.asarray(weight))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, textbook(*voxels(), weight), rtol=1e-6)


def test_de_pierro_is_the_surrogates_maximum(x64: None):
    em, sensitivity, anchor = (a.astype(float) for a in voxels(20))
    for weight in (1e-3, 1.0, 1e3):
        got = de_pierro_update(jnp.asarray(em), jnp.asarray(sensitivity), jnp.asarray(anchor), weight)
        for e, s, a, z in zip(em, sensitivity, anchor, np.asarray(got), strict=True):
            cost = minimize_scalar(
                lambda x, e=e, s=s, a=a, w=weight: -s * (e * np.log(x) - x) + w * (x - a) ** 2 / 2,
                bounds=(1e-9, 2 * max(e, a)),
                method="bounded",
                options={"xatol": 1e-10},
            )
            assert z == pytest.approx(cost.x, rel=1e-5)


def test_de_pierros_limits():
    em, sensitivity, anchor = map(jnp.asarray, voxels())
    np.testing.assert_allclose(de_pierro_update(em, sensitivity, anchor, 0.0), em, rtol=3e-7)
    np.testing.assert_allclose(de_pierro_update(em, sensitivity, anchor, 1e16), anchor, rtol=1e-6)
    np.testing.assert_allclose(
        de_pierro_update(em, 0 * em, anchor, 1.0), anchor, rtol=1e-6
    )  # nothing measured: the prior
    np.testing.assert_array_equal(de_pierro_update(em, 0 * em, anchor, 0.0), 0 * em)  # nor any prior
    np.testing.assert_allclose(
        de_pierro_update(0 * em, sensitivity, anchor, 1.0), jnp.maximum(anchor - sensitivity, 0), rtol=1e-5, atol=1e-5
    )


def test_de_pierro_has_gradients_where_nothing_is_seen():
    em, sensitivity, anchor = (a.at[:3].set(0) for a in map(jnp.asarray, voxels()))
    for weight in (0.0, 1.0):
        slopes = jax.grad(lambda e, a, w: jnp.sum(de_pierro_update(e, sensitivity, a, w)), argnums=(0, 1, 2))(
            em, anchor, weight
        )
        assert all(np.all(np.isfinite(slope)) for slope in slopes)


# ── making one ──


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": -1.0}, "counts: 1 of 3528 values are negative or not finite"),
        ({"counts": np.nan}, "counts: 1 of 3528"),
        ({"counts": np.inf}, "counts: 1 of 3528"),
        ({"multiplicative": -1.0}, "multiplicative: 3528 of 3528"),
        ({"additive": np.nan}, "additive: 3528 of 3528"),
        ({"shape": (36, 48, 2)}, r"counts: shape \(36, 48, 2\); the system has .* \(36, 49\)"),
        ({"multiplicative": jnp.ones((36, 48, 2))}, r"multiplicative: shape \(36, 48, 2\)"),
        ({"additive": jnp.ones((36, 49))}, r"additive: shape \(36, 49\); the counts have \(36, 49, 2\)"),
        ({"psf": gaussian_psf(Grid((12, 12, 3), (6.0, 6.0, 4.0)), 5.0)}, r"psf: of \(12, 12, 3\)"),
    ],
)
def test_bad_acquisitions_are_refused(system: System, change: dict[str, Any], message: str):
    changed = dict(change)
    counts = np.ones(changed.pop("shape", (36, 49, 2)), np.float32)
    counts[3, 4, 1] = changed.pop("counts", 1.0)
    with pytest.raises(DataError, match=message) as caught:
        acquire(system, jnp.asarray(counts), **changed)
    assert "\n" not in str(caught.value)


def test_bad_mu_maps_are_refused(system: System):
    with pytest.raises(DataError, match=r"0\.096 in most of the body; expected mm⁻¹ .* cm⁻¹"):
        attenuation_factors(system, jnp.full(GRID.shape, 0.096))


def test_attenuation_of_a_water_disc():
    grid, radius = Grid((48, 48, 1), (1.5, 1.5, 1.0)), 30.0
    disc = ((0.1, 0.05, radius / 36, radius / 36, 0, 0.0096),)
    got = attenuation_factors(
        build_system(lors(SMALL), grid), jnp.asarray(ellipse_image(48, 1.5, disc), jnp.float32)[..., None]
    )
    want = np.exp(-ellipse_integrals(lors(SMALL), 36.0, disc))
    assert want.min() == pytest.approx(np.exp(-0.0096 * 60), rel=0.01)
    error = np.abs(got[..., 0] - want)[want < 1]
    assert error.mean() < 0.004 and np.percentile(error, 95) < 0.01  # of a chord known to half a voxel or so


# ── subsets and batches ──


def test_subsets_have_their_own_sensitivity_and_form(scan64: Acquisition, x64: None):
    stacked = ordered_subsets(scan64, 3)
    np.testing.assert_allclose(stacked.sensitivity.sum(axis=0), scan64.sensitivity, rtol=1e-12)
    _, views = subsets(scan64.system, 3)
    image = jnp.asarray(random(*GRID.shape))
    for k in range(3):
        part = select_subset(stacked, k)
        held = jnp.zeros((36, 49, 2)).at[views[k]].set(1.0)
        np.testing.assert_allclose(part.sensitivity, scan64.adjoint(held), rtol=1e-10)
        np.testing.assert_array_equal(part.counts, scan64.counts[views[k]])
        expected = part.expected(image)
        np.testing.assert_allclose(expected, scan64.expected(image)[views[k]], rtol=1e-10)
        additive = image + image / part.sensitivity * part.gradient(image)
        np.testing.assert_allclose(additive, em_update(part, image, expected), rtol=1e-10)


def test_uneven_subsets_and_whole_acquisitions_are_refused(scan64: Acquisition, x64: None):
    with pytest.raises(ConfigError, match="5 subsets"):
        ordered_subsets(scan64, 5)
    with pytest.raises(DataError, match="ordered_subsets"):
        select_subset(scan64, 0)


def test_realisations_can_be_vmapped(scan64: Acquisition, x64: None):
    image = jnp.asarray(random(*GRID.shape))
    many = jnp.asarray(np.random.default_rng(0).poisson(scan64.counts, (3, 36, 49, 2)), float)
    got = jax.vmap(lambda counts: replace(scan64, counts=counts).update(image))(many)
    for counts, step in zip(many, got, strict=True):
        np.testing.assert_allclose(step, replace(scan64, counts=counts).update(image), rtol=1e-12)
    assert np.ptp(got, axis=0).max() > 1e-3


def test_another_projector_plugs_in(scan64: Acquisition, x64: None):
    """Half the projector under an outside name gives half of the expected trues."""

    def project(scale: jax.Array, image: jax.Array) -> jax.Array:
        return scale * projector.project(scan64.system, image)

    image = jnp.asarray(random(*GRID.shape))
    halved = replace(scan64, system=jnp.asarray(0.5), project=project)
    np.testing.assert_allclose(halved.forward(image), scan64.forward(image) / 2, rtol=1e-12)


@pytest.mark.parametrize("mean", [0.01, 0.5, 3.0, 24.0, 26.0, 400.0])
def test_expected_deviance_is_scipys_expectation(mean):
    y = np.arange(0, 2000)
    safe = np.maximum(y, 1)
    unit = mean - y - y * np.log(mean / safe)
    truth = (stats.poisson.pmf(y, mean) * unit).sum()
    np.testing.assert_allclose(expected_deviance(jnp.full((3, 2), mean)) / 6, truth, rtol=1e-3)
