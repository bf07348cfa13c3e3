"""EM against itself written in NumPy, SciPy's optimiser, and what theory says cannot fail.

Most tests plug a small matrix in as the projector, which compiles at once; one runs the same through the real one.
"""

import functools
from dataclasses import replace
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.bowsher import bowsher
from medjax.errors import DataError
from medjax.penalty import Penalty, Quadratic, neighbors
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets, select_subset
from medjax.pet.grid import Grid
from medjax.pet.scanner import Scanner, coverage, lors
from medjax.pet.system import build_system, subsets
from tests.pet.oracle import joseph_matrix

SMALL = Scanner("small", 72, 2, 80.0, 8.0, 49, 4.0, depth_mm=9.6, block=9, gaps=True)
GRID = Grid((12, 12, 2), (6.0, 6.0, 4.0))
MATRIX = joseph_matrix(lors(SMALL), GRID).toarray().reshape(36, 49, 12, 12)
FACTORS = (0.02 * coverage(SMALL) * np.random.default_rng(0).uniform(0.5, 1, (36, 49)))[..., None] * np.ones(2)


@jax.jit
def em_step(
    stacked: Acquisition, state: em.State, penalty: Penalty | None = None, weight: float | jax.Array = 0.0
) -> tuple[em.State, em.Info]:
    return algorithm(stacked, penalty, weight).step(state)


def algorithm(
    stacked: Acquisition, penalty: Penalty | None = None, weight: float | jax.Array = 0.0
) -> iterate.Algorithm:
    return em.osem(stacked) if penalty is None else em.map_em(stacked, penalty, weight)


@functools.partial(jax.jit, static_argnames="n")
def run(
    stacked: Acquisition,
    n: int,
    penalty: Penalty | None = None,
    weight: float | jax.Array = 0.0,
    state: em.State | None = None,
) -> tuple[em.State, em.Info]:
    return iterate.scan(algorithm(stacked, penalty, weight), em.init(stacked) if state is None else state, n)


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
def objective(stacked: Acquisition, image: jax.Array, penalty: Penalty | None, weight: float) -> jax.Array:
    whole = select_subset(stacked, 0)
    cost = 0.0 if penalty is None else weight * penalty.value(image)
    return whole.log_likelihood(whole.expected(image)) - cost


def history(
    stacked: Acquisition, updates: int, penalty: Penalty | None = None, weight: float | jax.Array = 0.0
) -> list[tuple[em.State, em.Info]]:
    """State and info of every update, the initial state first."""
    state = em.init(stacked)
    rows = [(state, em.Info(jnp.zeros(()), jnp.zeros(())))]
    for _ in range(updates):
        state, info = em_step(stacked, state, penalty, weight)
        rows.append((state, info))
    return rows


def prior(kind: str) -> Penalty | None:
    if kind == "none":
        return None
    plain = neighbors(GRID.shape, GRID.voxel_mm)
    return Quadratic(plain if kind == "quadratic" else bowsher(plain, jnp.asarray(phantom()), 5))


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
    system = build_system(lors(SMALL), GRID)
    counts, additive = np.random.default_rng(0).poisson(3.0, (36, 49, 2)) * (FACTORS > 0), 0.3 * FACTORS
    y, m, b = (jnp.asarray(a, jnp.float32) for a in (counts, FACTORS, additive))
    whole = acquire(system, y, m, b)
    stacked = ordered_subsets(whole, number)
    state, _ = run(stacked, em.updates(stacked, 3))
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
        part = select_subset(stacked, int(em.subset_order(number)[n % number]))
        np.testing.assert_allclose(info.deviance, part.deviance(part.expected(before.image)), rtol=1e-10)


def test_the_first_image(x64: None):
    stacked = scan(3, background=1.0)
    stacked = replace(stacked, sensitivity=stacked.sensitivity.at[:, 0, 0].set(0.0))
    image, total = em.init(stacked).image, stacked.sensitivity.sum(axis=0)
    np.testing.assert_allclose(jnp.vdot(total, image), stacked.counts.sum() - stacked.additive.sum(), rtol=1e-12)
    assert np.all(image[0, 0] == 0) and np.unique(image).size == 2
    np.testing.assert_allclose(em.init(select_subset(scan(), 0)).image, em.init(scan()).image, rtol=1e-12)
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
    start = em.init(stacked)
    whole, info = run(stacked, 16, state=start)
    half, first = run(stacked, 8, state=start)
    resumed, second = run(stacked, 8, state=half)
    np.testing.assert_array_equal(resumed.image, whole.image)
    np.testing.assert_array_equal(jnp.concatenate([first.deviance, second.deviance]), info.deviance)
    assert resumed.step == whole.step == 16
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
        run(select_subset(scan(), 0), 1)
    with pytest.raises(DataError, match="MLEM: 3 subsets; expected an acquisition without"):
        em.mlem(scan(3))
    np.testing.assert_array_equal(
        jax.jit(lambda one: em.mlem(one).step(em.init(one))[0].image)(select_subset(scan(), 0)), run(scan(), 1)[0].image
    )


# ── JAX ──


def test_nothing_is_traced_twice():
    with jax.enable_x64(True):
        stacked, penalty = scan(3), prior("quadratic")
    stacked, penalty = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (stacked, penalty))
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(lambda *arguments: algorithm(*arguments[1:]).step(arguments[0]), n=1))
    init = jax.jit(chex.assert_max_traces(em.init, n=1))
    state = init(stacked)
    for weight in (1e-3, 2e-3, 0.5):
        state, _ = step(state, stacked, penalty, weight)
        init(replace(stacked, counts=stacked.counts * weight))
    assert state.image.dtype == jnp.float32


def test_realisations_and_weights_can_be_vmapped(x64: None):
    stacked, penalty = scan(3, background=1.0), prior("quadratic")
    many = jnp.stack([stacked.counts, stacked.counts[::-1]])
    weights = jnp.array([1e-2, 1.0])

    def image(counts: jax.Array, weight: jax.Array) -> jax.Array:
        return run(replace(stacked, counts=counts), 6, penalty, weight)[0].image

    got = jax.jit(jax.vmap(image))(many, weights)
    for counts, weight, one in zip(many, weights, got, strict=True):
        want = history(replace(stacked, counts=counts), 6, penalty, weight)[-1][0].image
        np.testing.assert_allclose(one, want, rtol=1e-10)
