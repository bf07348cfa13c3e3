"""Lines of response that are no ring's views, and grids that pass the ring."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.projector import backproject, project
from medjax.pet.scanner import PRESETS, lors
from medjax.pet.system import build_system
from tests.pet.adjoint import adjoint_gap, random_pair

SMALL = replace(PRESETS["mmr"], crystals=72, radius_mm=80.0, bins=49, voxel_mm=4.0, block=9)


def _any_lines(kind: str) -> np.ndarray:
    """End points of one view whose lines are far from parallel."""
    if kind == "crossed":
        return np.array([[[[-80.0, 6.0], [80.0, 6.0]], [[-4.0, 80.0], [-4.0, -80.0]]]])
    if kind == "star":  # 36 directions through one point
        angle = np.pi * np.arange(36)[:, None] / 36
        point, along = np.array([3.0, -5.0]), np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
        return np.stack([point - 90 * along, point + 90 * along], axis=1)[None]
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, (500, 2))  # events
    return 80 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None]


@pytest.mark.parametrize("kind", ["crossed", "star", "events"])
def test_any_lines_in_a_view_are_right(kind: str):
    """Against the closed form of a Gaussian: exp(−d² / 2σ²) σ √2π, d the line's distance."""
    ends, grid, sd, middle = _any_lines(kind), Grid((48, 40, 1), (2.0, 2.5, 2.0)), 9.0, np.array([4.0, -6.0])
    x, y, _ = centers_mm(grid)
    blob = np.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (2 * sd**2))
    system = build_system(ends, grid)
    along = (ends[..., 1, :] - ends[..., 0, :]) / np.linalg.norm(ends[..., 1, :] - ends[..., 0, :], axis=-1)[..., None]
    start = ends[..., 0, :] - middle
    distance = start[..., 0] * along[..., 1] - start[..., 1] * along[..., 0]
    want = np.exp(-(distance**2) / (2 * sd**2)) * sd * np.sqrt(2 * np.pi)
    got = np.asarray(project(system, jnp.asarray(blob, jnp.float32)))[..., 0]
    np.testing.assert_allclose(got, want, atol=0.02 * want.max())
    assert adjoint_gap(system, *random_pair(system, 2)) < 1e-6
    hit = np.asarray(backproject(system, jnp.ones((*got.shape, 1))))[..., 0]  # through every line's own voxels
    assert np.vdot(hit, blob[..., 0]) == pytest.approx(want.sum(), rel=0.01)


def test_lines_that_end_before_the_image_are_refused():
    grid = Grid((20, 20, 1), (4.0, 4.0, 1.0))
    for ends in ([[60.0, 3.0], [90.0, 3.0]], [[-50.0, -70.0], [-50.0, -50.0]], [[90.0, 90.0], [60.0, 60.0]]):
        line = np.array(ends)[None, None]
        if ends[0][0] == -50.0:  # it would miss the image all the same
            assert not np.any(project(build_system(line, grid), jnp.ones(grid.shape)))
            continue
        with pytest.raises(DataError, match=r"a line ends before the image of ±40 × ±40 mm"):
            build_system(line, grid)


@pytest.mark.parametrize("size", [42, 50])  # half sides of 84 and 100 mm; the ring's radius is 90
def test_a_grid_that_passes_the_ring_is_seen_inside_it(size: int):
    inner, wide = Grid((40, 40, 1), (4.0, 4.0, 2.0)), Grid((size, size, 1), (4.0, 4.0, 2.0))
    margin = (size - 40) // 2
    x, y, _ = centers_mm(inner)
    disc = (np.hypot(x, y) < 75).astype(np.float32)
    system = build_system(lors(SMALL), wide)
    image = np.pad(disc, ((margin, margin), (margin, margin), (0, 0)))
    want = project(build_system(lors(SMALL), inner), jnp.asarray(disc))
    np.testing.assert_allclose(project(system, jnp.asarray(image)), want, atol=1e-3)
    corner = np.zeros(wide.shape, np.float32)
    corner[0, 0], corner[-1, 1] = 1, 1
    assert not np.any(project(system, jnp.asarray(corner)))
    assert adjoint_gap(system, *random_pair(system, 1)) < 1e-6
