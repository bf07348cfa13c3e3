"""List mode against the sinogram that its events fill."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import iterate
from medjax.errors import ConfigError, DataError
from medjax.pet import em
from medjax.pet.acquisition import Acquisition, acquire
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.listmode import Events, acquire_events
from medjax.pet.lor_geometry import from_end_points, views_along_x
from medjax.pet.michelogram import michelogram, oblique_lors
from medjax.pet.projection import backproject, project
from medjax.pet.psf import gaussian_psf
from medjax.pet.scanner import Scanner, lors
from medjax.pet.system3d import build_system3d
from medjax.pet.tof import Tof

SCANNER = Scanner("test", 40, 4, 80.0, 4.0, 25, 4.0)
GRID = Grid((14, 14, 7), (7.0, 7.0, 2.0))
TOF = Tof(5, 300.0, 400.0)


def _both(tof: Tof | None = None, number: int = 1) -> tuple[Acquisition, Acquisition]:
    """The same counts as a sinogram and as events, with factors, background and point spread function."""
    rng = np.random.default_rng(0)
    planes = michelogram(4, 1, 3)
    system = build_system3d(lors(SCANNER), planes, 4.0, GRID, tof)
    x, y, z = centers_mm(GRID)
    image = jnp.asarray(np.hypot(np.hypot(x, y), 4 * z) < 32, jnp.float32) + 0.1
    factors = jnp.asarray(rng.uniform(0.2, 1, system.sinogram_shape), jnp.float32)
    additive = jnp.asarray(rng.uniform(0.1, 0.3, system.sinogram_shape), jnp.float32)
    counts = rng.poisson(0.1 * factors * project(system, image) + additive).astype(np.float32)
    psf = gaussian_psf(GRID, 6.0)
    bins = np.repeat(np.arange(counts.size), counts.ravel().astype(int))
    bins = rng.permutation(bins)
    ends = oblique_lors(lors(SCANNER), planes.plane_rings, 4.0, 4)
    per_line = 1 if tof is None else tof.bins
    along_x = views_along_x(from_end_points(lors(SCANNER), GRID), GRID)
    assert along_x is not None
    chosen = np.broadcast_to(along_x[:, None, None], ends.shape[:3]).ravel()[bins // per_line]
    edges = None if tof is None else np.stack([tof.edges_mm[:-1], tof.edges_mm[1:]], -1)[bins % per_line]
    events = Events(
        ends.reshape(-1, 2, 3)[bins // per_line],
        np.asarray(factors).ravel()[bins],
        np.asarray(additive).ravel()[bins],
        chosen,
        edges,
        None if tof is None else np.full(len(bins), tof.sd_mm),
    )
    listed = acquire_events(
        events,
        GRID,
        backproject(system, factors),
        float(additive.sum()),
        number=number,
        psf=psf,
    )
    return acquire(system, jnp.asarray(counts), factors, additive, psf), listed


@pytest.mark.parametrize("tof", [None, TOF])
def test_events_give_what_their_sinogram_gives(tof: Tof | None):
    sinogram, listed = _both(tof)
    start = em.init(sinogram)
    want = iterate.scan(em.mlem(sinogram), start, 5)[0].image
    got, info = iterate.scan(em.mlem(listed), start, 5)
    np.testing.assert_allclose(got.image, want, atol=1e-5 * float(want.max()))
    assert np.all(np.diff(info.deviance) < 0)


def test_likelihood_and_derivatives_are_the_sinograms():
    sinogram, listed = _both()
    one = jax.tree.map(lambda a: a[0], listed)
    start = em.init(sinogram).image
    image = iterate.scan(em.mlem(sinogram), em.init(sinogram), 3)[0].image
    changes = [float(a.deviance(a.expected(image)) - a.deviance(a.expected(start))) for a in (sinogram, one)]
    assert changes[1] == pytest.approx(changes[0], rel=1e-4)
    np.testing.assert_allclose(
        one.gradient(image), sinogram.gradient(image), atol=2e-4 * float(sinogram.sensitivity.max())
    )
    back = one.adjoint(jnp.ones_like(one.counts))
    np.testing.assert_allclose(back, sinogram.sensitivity, rtol=1e-4)  # all other lines are in the last bin


def test_subsets_of_events_reconstruct():
    sinogram, listed = _both(number=4)
    assert listed.counts.shape[0] == 4 and float(listed.counts.sum()) == float(sinogram.counts.sum())
    state = iterate.scan(em.osem(listed), em.init(listed), 12)[0]
    want = iterate.scan(em.mlem(sinogram), em.init(sinogram), 12)[0].image
    assert float(jnp.linalg.norm(state.image - want) / jnp.linalg.norm(want)) < 0.25
    assert np.all(np.isfinite(state.image))


def test_events_that_cannot_be():
    events = Events(np.zeros((0, 2, 3)), np.zeros(0), np.zeros(0))
    with pytest.raises(DataError, match="no events"):
        acquire_events(events, GRID, jnp.ones(GRID.shape), 0.0)
    line = Events(np.array([[[-90.0, 0, 0], [90, 1, 0]]]), np.ones(1), np.zeros(1))
    with pytest.raises(ConfigError, match="2 subsets of 1 events"):
        acquire_events(line, GRID, jnp.ones(GRID.shape), 0.0, number=2)
    with pytest.raises(DataError, match="sensitivity: shape"):
        acquire_events(line, GRID, jnp.ones((3, 3, 3)), 0.0)
