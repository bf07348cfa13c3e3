"""Kernel EM: EM of the matrix A K, written out in NumPy; and what an anatomical image is good for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.errors import DataError
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire, ordered_subsets
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.kernel_em import kernel_em, mr_kernel, smooth, transpose
from medjax.pet.projection import project
from medjax.pet.scanner import Scanner, lors
from medjax.pet.system import build_system

GRID = Grid((16, 16, 1), (5.0, 5.0, 2.0))


@pytest.fixture(scope="module")
def scan() -> tuple[np.ndarray, Acquisition]:
    """A disc with a hot quarter in few counts, and its acquisition in two subsets."""
    system = build_system(lors(Scanner("test", 72, 1, 80.0, 4.0, 35, 4.0)), GRID)
    x, y, _ = centers_mm(GRID)
    truth = ((np.hypot(x, y) < 30) * (1.0 + 2.0 * ((x > 0) & (y > 0)))).astype(np.float32)
    counts = np.random.default_rng(0).poisson(0.1 * np.asarray(project(system, jnp.asarray(truth))) + 0.2)
    return truth, ordered_subsets(acquire(system, jnp.asarray(counts, jnp.float32), 0.1, 0.2), 2)


def _matrix(operator, shape: tuple[int, ...]) -> np.ndarray:
    """Matrix of a linear function of images."""
    unit = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.asarray(jax.vmap(operator)(unit)).reshape(len(unit), -1).T.astype(float)


def test_it_is_em_of_the_product(scan):
    truth, stacked = scan
    kernel = mr_kernel(jnp.asarray(truth + 0.1 * np.random.default_rng(1).normal(size=truth.shape), jnp.float32), 6)
    matrix = _matrix(lambda x: smooth(kernel, x), truth.shape)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-5)
    assert np.all((matrix > 0).sum(1) == 6)
    np.testing.assert_allclose(_matrix(lambda x: transpose(kernel, x), truth.shape), matrix.T, atol=1e-6)
    state = iterate.scan(kernel_em(stacked, kernel), kernel_em(stacked, kernel).init(), 4)[0]
    alpha = np.asarray(em.init(stacked).image, float).ravel()
    for step in range(4):
        subset = int(em.subset_order(2)[step % 2])
        part = jax.tree.map(lambda a, k=subset: a[k], stacked)
        whole = _matrix(part.forward, truth.shape) @ matrix
        counts, additive = (np.asarray(a, float).ravel() for a in (part.counts, part.additive))
        alpha = alpha / whole.sum(0) * (whole.T @ (counts / (whole @ alpha + additive)))
    np.testing.assert_allclose(state.image.ravel(), matrix @ alpha, rtol=2e-4)


def test_a_kernel_of_each_voxel_alone_is_osem(scan):
    truth, stacked = scan
    alone = kernel_em(stacked, mr_kernel(jnp.asarray(truth), 1))
    got = iterate.scan(alone, alone.init(), 6)[0].image
    np.testing.assert_allclose(got, iterate.scan(em.osem(stacked), em.init(stacked), 6)[0].image, rtol=1e-5)


def test_an_mr_image_with_the_same_borders_halves_the_error(scan):
    truth, stacked = scan
    guided = kernel_em(stacked, mr_kernel(jnp.asarray(10 - truth), 12))
    images = [
        iterate.scan(guided, guided.init(), 40)[0].image,
        iterate.scan(em.osem(stacked), em.init(stacked), 40)[0].image,
    ]
    errors = [float(np.linalg.norm(image - truth) / np.linalg.norm(truth)) for image in images]
    assert errors[0] < 0.5 * errors[1]


def test_kernels_that_cannot_be(scan):
    truth, stacked = scan
    with pytest.raises(DataError, match="26 similar voxels at most 2 away; expected 1 to 25"):
        mr_kernel(jnp.asarray(truth), 26)
    with pytest.raises(DataError, match="not finite"):
        mr_kernel(jnp.full(GRID.shape, jnp.nan), 3)
    with pytest.raises(DataError, match="kernel: of"):
        kernel_em(stacked, mr_kernel(jnp.ones((8, 8, 1)), 3))
