"""EM against itself written in NumPy, SciPy's optimiser, and what theory says cannot fail.

Most tests plug a small matrix in as the projector, which compiles at once; one runs the same through the real one.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from medjax.errors import DataError
from medjax.penalty import Neighbours, bowsher, neighbours, quadratic
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets, select
from medjax.pet.grid import Grid
from medjax.pet.scanner import Scanner, coverage, lines
from medjax.pet.system import build_system, subsets
from tests.pet.oracle import joseph_matrix

SMALL = Scanner("small", 72, 2, 80.0, 8.0, 49, 4.0, depth_mm=9.6, block=9, gaps=True)
GRID = Grid((12, 12, 2), (6.0, 6.0, 4.0))
MATRIX = joseph_matrix(lines(SMALL), GRID).toarray().reshape(36, 49, 12, 12)
FACTORS = (0.02 * coverage(SMALL) * np.random.default_rng(0).uniform(0.5, 1, (36, 49)))[..., None] * np.ones(2)
em_step = jax.jit(em.step)


def project(matrix: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.einsum("vbxy,xyp->vbp", matrix, image, precision="highest")


def backproject(matrix: jax.Array, sinogram: jax.Array) -> jax.Array:
    return jnp.einsum("vbxy,vbp->xyp", matrix, sinogram, precision="highest")


def phantom() -> np.ndarray:
    """A disc with a hot spot, and nothing around it."""
    x, y = np.meshgrid(*2 * (np.arange(12) - 5.5,), indexing="ij")
    image = 1.0 * (np.hypot(x, y) < 5) + 2.0 * (np.hypot(x - 2, y + 1) < 1.5)
    return np.stack([image, 0.7 * image], axis=-1)


def scan(subsets: int = 1, background: float = 0.0, level: float = 5.0) -> Acquisition:
    """Noisy counts of the phantom, stacked in interleaved subsets; call it in float64."""
    trues = level * FACTORS * np.tensordot(MATRIX, phantom(), 2)
    additive = background * FACTORS / FACTORS.mean()
    counts = np.random.default_rng(1).poisson(trues + additive).astype(float)
    views = np.arange(36).reshape(-1, subsets).T
    parts = [jnp.asarray(a[views]) for a in (counts, FACTORS, additive, MATRIX)]
    sensitivity = jnp.einsum("kvbxy,kvbp->kxyp", parts[3], parts[1])
    return Acquisition(parts[0], parts[1], parts[2], sensitivity, parts[3], project=project, backproject=backproject)


@jax.jit
def objective(stacked: Acquisition, image: jax.Array, penalty: Neighbours | None, weight: float) -> jax.Array:
    whole = select(stacked, 0)
    cost = 0.0 if penalty is None else weight * quadratic(penalty, image)
    return whole.log_likelihood(whole.expected(image)) - cost


def history(
    stacked: Acquisition, updates: int, penalty: Neighbours | None = None, weight: float | jax.Array = 0.0
) -> list[tuple[em.State, em.Info]]:
    """State and info of every update, the initial state first."""
    state = em.init(stacked)
    rows = [(state, em.Info(jnp.zeros(())))]
    for _ in range(updates):
        state, info = em_step(stacked, state, penalty, weight)
        rows.append((state, info))
    return rows


def prior(kind: str) -> Neighbours | None:
    if kind == "none":
        return None
    plain = neighbours(GRID.shape, GRID.voxel_mm)
    return plain if kind == "quadratic" else bowsher(plain, jnp.asarray(phantom()), 5)


def numpy_osem(
    matrices: list[np.ndarray],
    counts: list[np.ndarray],
    additive: list[np.ndarray],
    image: np.ndarray,
    order: list[int],
) -> np.ndarray:
    """The update written down: x ← x / Aᵀ1 · Aᵀ(y / (A x + b)), one subset after another."""
    for k in order:
        expected = matrices[k] @ image + additive[k]
        ratio = np.divide(counts[k], expected, out=np.zeros_like(expected), where=expected > 0)
        sensitivity = matrices[k].T @ np.ones_like(expected)
        image = image * (matrices[k].T @ ratio) / np.where(sensitivity > 0, sensitivity, np.inf)
    return image


# ── EM ──


@pytest.mark.parametrize("number", [1, 3])
def test_the_real_projector_gives_numpys_iterates(number: int):
    system = build_system(lines(SMALL), GRID)
    counts, additive = np.random.default_rng(0).poisson(3.0, (36, 49, 2)) * (FACTORS > 0), 0.3 * FACTORS
    y, m, b = (jnp.asarray(a, jnp.float32) for a in (counts, FACTORS, additive))
    whole = acquire(system, y, m, b)
    state, _ = em.run(ordered_subsets(whole, number), 3)
    views = subsets(system, number)[1]
    order = 3 * np.asarray(em.subset_order(number)).tolist()
    for plane in range(2):
        rows = FACTORS[..., plane, None, None] * MATRIX
        want = numpy_osem(
            [rows[held].reshape(-1, 144) for held in views],
            [counts[held, :, plane].ravel() for held in views],
            [additive[held, :, plane].ravel() for held in views],
            np.asarray(em.init(whole).image[..., plane], float).ravel(),
            order,
        )
        np.testing.assert_allclose(np.ravel(state.image[..., plane]), want, rtol=1e-5, atol=1e-5 * want.max())


@pytest.mark.parametrize("background", [0.0, 2.0])
def test_mlem_never_loses_likelihood(background: float, x64: None):
    stacked = scan(background=background)
    values = [float(objective(stacked, state.image, None, 0.0)) for state, _ in history(stacked, 30)]
    assert np.all(np.diff(values) > 0)


def test_mlem_keeps_the_counts(x64: None):
    stacked = scan()
    for state, _ in history(stacked, 5):
        np.testing.assert_allclose(jnp.vdot(stacked.sensitivity[0], state.image), stacked.counts.sum(), rtol=1e-12)


@pytest.mark.parametrize("number", [1, 4])
def test_deviance_is_that_of_the_image_that_entered(number: int, x64: None):
    stacked = scan(number, background=1.0)
    rows = history(stacked, 5)
    for n, ((before, _), (_, info)) in enumerate(pairwise(rows)):
        part = select(stacked, int(em.subset_order(number)[n % number]))
        np.testing.assert_allclose(info.deviance, part.deviance(part.expected(before.image)), rtol=1e-10)


def test_the_first_image(x64: None):
    stacked = scan(3, background=1.0)
    stacked = replace(stacked, sensitivity=stacked.sensitivity.at[:, 0, 0].set(0.0))
    image, total = em.init(stacked).image, stacked.sensitivity.sum(axis=0)
    np.testing.assert_allclose(jnp.vdot(total, image), stacked.counts.sum() - stacked.additive.sum(), rtol=1e-12)
    assert np.all(image[0, 0] == 0) and np.unique(image).size == 2
    np.testing.assert_allclose(em.init(select(scan(), 0)).image, em.init(scan()).image, rtol=1e-12)
    drowned = replace(stacked, counts=0 * stacked.counts)
    np.testing.assert_allclose(jnp.vdot(total, em.init(drowned).image), 1.0, rtol=1e-12)


def test_subset_order_visits_every_subset_once():
    for n in range(1, 65):
        order = em.subset_order(n)
        assert sorted(order.tolist()) == list(range(n))
        step = np.diff(order) % n
        if n > 6:
            assert np.all(np.minimum(step, n - step) >= n / 4)  # neighbours in time are far apart in angle


def test_a_resumed_run_is_the_run(x64: None):
    stacked = scan(4, background=1.0)
    run = jax.jit(em.run, static_argnums=1)
    start = em.init(stacked)
    whole, info = run(stacked, 4, state=start)
    half, first = run(stacked, 2, state=start)
    resumed, second = run(stacked, 2, state=half)
    np.testing.assert_array_equal(resumed.image, whole.image)
    np.testing.assert_array_equal(jnp.concatenate([first.deviance, second.deviance]), info.deviance)
    assert resumed.updates == whole.updates == 16
    np.testing.assert_allclose(history(stacked, 16)[-1][0].image, whole.image, rtol=1e-12)


def test_nothing_measured_is_no_nan(x64: None):
    stacked = scan(3)
    outside = stacked.sensitivity.at[:, :2].set(0.0)
    silent = jnp.zeros_like(stacked.counts)
    for odd in (
        replace(stacked, counts=silent),
        replace(stacked, multiplicative=silent, sensitivity=0 * outside, counts=silent),
        replace(stacked, sensitivity=outside),
        replace(stacked, counts=stacked.counts.at[0].set(0.0)),
    ):
        for kind in ("none", "quadratic"):
            state, info = history(odd, 6, prior(kind), 1e-3)[-1]
            assert np.all(np.isfinite(state.image)) and np.all(state.image >= 0)
            assert info.deviance >= 0  # infinite where a bin holds counts and nothing is expected
    assert np.all(history(replace(stacked, counts=silent), 3)[-1][0].image == 0)


def test_a_whole_acquisition_is_refused(x64: None):
    with pytest.raises(DataError, match="ordered_subsets"):
        em.run(select(scan(), 0), 1)


# ── MAP-EM ──


def test_no_weight_is_mlem(x64: None):
    stacked = scan(3, background=1.0)
    plain, penalised = history(stacked, 5), history(stacked, 5, prior("quadratic"), 0.0)
    np.testing.assert_allclose(penalised[-1][0].image, plain[-1][0].image, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["quadratic", "bowsher"])
@pytest.mark.parametrize("weight", [1e-2, 1.0, 100.0])
def test_map_em_never_loses_its_objective(kind: str, weight: float, x64: None):
    stacked, penalty = scan(background=1.0), prior(kind)
    values = np.array(
        [objective(stacked, state.image, penalty, weight) for state, _ in history(stacked, 30, penalty, weight)]
    )
    assert np.all(np.diff(values) > -1e-12 * np.abs(values[0]))
    assert values[-1] > values[0] and values[1] > values[0]


@pytest.mark.parametrize("kind", ["quadratic", "bowsher"])
def test_map_em_finds_scipys_optimum(kind: str, x64: None):
    stacked, penalty, weight = scan(background=1.0), prior(kind), 0.6
    slope = jax.jit(jax.value_and_grad(lambda x: -objective(stacked, x.reshape(GRID.shape), penalty, weight)))

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = slope(jnp.asarray(x))
        return float(value), np.asarray(gradient)

    start = np.asarray(em.init(stacked).image)
    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 1e-15, "gtol": 1e-9}
    best = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", bounds=[(0, None)] * start.size, options=options)
    state, _ = jax.jit(em.run, static_argnums=1)(stacked, 1500, penalty, weight)
    gained, missing = (abs(cost(np.ravel(image))[0] - best.fun) for image in (start, state.image))
    assert missing < 1e-6 * gained
    want = best.x.reshape(GRID.shape)
    assert np.linalg.norm(state.image - want) < 1e-3 * np.linalg.norm(want)
    assert np.linalg.norm(start - want) > 0.1 * np.linalg.norm(want)


def test_subsets_share_the_penalty(x64: None):
    """Three equal subsets are three times the likelihood: three times the weight gives the same steps."""
    whole, penalty = scan(background=1.0), prior("quadratic")
    thrice = jax.tree.map(lambda a: jnp.concatenate([a, a, a]), whole)
    start = em.init(whole)
    one = three = start
    for _ in range(3):
        one, three = em_step(whole, one, penalty, 0.5)[0], em_step(thrice, three, penalty, 1.5)[0]
    np.testing.assert_allclose(three.image, one.image, rtol=1e-12)
    assert np.linalg.norm(one.image - em_step(whole, start)[0].image) > 0.01 * np.linalg.norm(one.image)


@pytest.mark.parametrize("number", [1, 3])
def test_scale_of_counts_does_not_matter(number: int, x64: None):
    stacked, penalty = scan(number, background=1.0), prior("bowsher")
    louder = replace(stacked, counts=8 * stacked.counts, additive=8 * stacked.additive)
    quiet, loud = history(stacked, 6, penalty, 0.8)[-1], history(louder, 6, penalty, 0.1)[-1]
    np.testing.assert_allclose(loud[0].image, 8 * quiet[0].image, rtol=1e-10)
    np.testing.assert_allclose(loud[1].deviance, 8 * quiet[1].deviance, rtol=1e-8)


def test_penalty_weight_means_the_same_in_any_unit(x64: None):
    stacked, penalty = scan(background=1.0), prior("quadratic")
    whole = select(stacked, 0)
    image = history(stacked, 6, penalty, em.penalty_weight(stacked, 30.0))[-1][0].image
    plain = history(stacked, 6)[-1][0].image
    assert np.linalg.norm(image - plain) > 0.01 * np.linalg.norm(plain)
    dimmer = replace(whole, multiplicative=whole.multiplicative / 4, sensitivity=whole.sensitivity / 4)
    restacked = jax.tree.map(lambda a: a[None], dimmer)
    again = history(restacked, 6, penalty, em.penalty_weight(restacked, 30.0))[-1][0].image
    np.testing.assert_allclose(again, 4 * image, rtol=1e-10)
    nothing = replace(stacked, counts=jnp.zeros_like(stacked.counts))
    assert np.isfinite(em.penalty_weight(nothing, 30.0))


# ── JAX ──


def counted(function: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """The function, jitted, and a list that grows whenever it is traced."""
    traces: list[int] = []

    def traced(*arguments: object) -> object:
        traces.append(1)
        return function(*arguments)

    return jax.jit(traced), traces


def test_nothing_is_traced_twice():
    with jax.enable_x64(True):
        stacked, penalty = scan(3), prior("quadratic")
    stacked, penalty = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (stacked, penalty))
    (step, steps), (init, inits) = counted(em.step), counted(em.init)
    state = init(stacked)
    for weight in (1e-3, 2e-3, 0.5):
        state, _ = step(stacked, state, penalty, weight)
        init(replace(stacked, counts=stacked.counts * weight))
    assert len(steps) == len(inits) == 1
    assert state.image.dtype == jnp.float32


def test_realisations_and_weights_can_be_vmapped(x64: None):
    stacked, penalty = scan(3, background=1.0), prior("quadratic")
    many = jnp.stack([stacked.counts, stacked.counts[::-1]])
    weights = jnp.array([1e-2, 1.0])

    def image(counts: jax.Array, weight: jax.Array) -> jax.Array:
        return em.run(replace(stacked, counts=counts), 2, penalty, weight)[0].image

    got = jax.jit(jax.vmap(image))(many, weights)
    for counts, weight, one in zip(many, weights, got, strict=True):
        want = history(replace(stacked, counts=counts), 6, penalty, weight)[-1][0].image
        np.testing.assert_allclose(one, want, rtol=1e-10)
