"""Single-scatter simulation: against closed forms in float64, STIR's simulation, and its own symmetries."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.pet.compton import EnergyWindow
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.michelogram import michelogram
from medjax.pet.scanner import Scanner
from medjax.pet.scatter import (
    Detectors,
    ScatterPoints,
    ScatterSampling,
    pair_scatter,
    ring_detectors,
    sample_scatter_points,
    simulate_scatter,
)
from medjax.pet.scatter_interpolation import interpolate_pairs

WINDOW = EnergyWindow(430.0, 610.0, 0.15)
SCANNER = Scanner("test", 48, 6, 320.0, 30.0, 33, 12.0)
PLANES = michelogram(6, 3)
GRID = Grid((24, 24, 11), (16.0, 16.0, 15.0))
COARSE = ScatterSampling(rings=6, crystals=48, cell_mm=40.0, voxel_mm=15.0)


def _cylinder(grid: Grid, center: tuple[float, float, float], radius: float, half: float) -> np.ndarray:
    x, y, z = centers_mm(grid)
    inside = (np.hypot(x - center[0], y - center[1]) <= radius) & (np.abs(z - center[2]) <= half)
    return inside.astype(np.float32)


def _simulate(emission: np.ndarray, mu: np.ndarray, sampling: ScatterSampling = COARSE) -> np.ndarray:
    return np.asarray(
        simulate_scatter(jnp.asarray(emission), jnp.asarray(mu), GRID, SCANNER, PLANES, WINDOW, sampling=sampling)
    )


# ── one scatter point, by hand ──


def _by_hand(ends: np.ndarray, point: np.ndarray, weight: float, activity: list[float], mu: list[float]) -> float:
    """S of two detectors that face the axis, in float64, from the equations of Watson and of Klein and Nishina."""
    from scipy.stats import norm

    def total(energy: float) -> float:
        a = energy / 511
        log = np.log1p(2 * a)
        first = (1 + a) / a**2 * (2 * (1 + a) / (1 + 2 * a) - log / a)
        return 2 * np.pi * (first + log / 2 / a - (1 + 3 * a) / (1 + 2 * a) ** 2)

    def efficiency(energy: float) -> float:
        deviation = 0.15 / 2.354820045 * np.sqrt(511 * energy)
        return norm.cdf(610, energy, deviation) - norm.cdf(430, energy, deviation)

    away = ends - point
    distance = np.linalg.norm(away, axis=1)
    cosine = -float(away[0] @ away[1]) / distance.prod()
    ratio = 1 / (2 - cosine)
    differential = ratio**2 * (ratio + 1 / ratio - 1 + cosine**2) / 2
    inwards = -ends * [1, 1, 0] / np.linalg.norm(ends[:, :2], axis=1, keepdims=True)
    incidence = np.sum(-away * inwards, axis=1) / distance
    rho = total(511 * ratio) / total(511.0)
    paths = activity[0] * np.exp(-mu[0] - rho * mu[1]) + activity[1] * np.exp(-rho * mu[0] - mu[1])
    energy_factor = differential / total(511.0) * efficiency(511 * ratio) / efficiency(511.0)
    return weight * energy_factor * incidence.prod() / distance.prod() ** 2 * paths


def _detectors(ends: np.ndarray) -> Detectors:
    inwards = -ends * [1, 1, 0] / np.linalg.norm(ends[:, :2], axis=1, keepdims=True)
    return Detectors(jnp.asarray(ends, jnp.float32), jnp.asarray(inwards, jnp.float32))


def test_a_scatterer_in_a_uniform_box_is_the_closed_form():
    """Activity 2 and μ 0.005 mm⁻¹ everywhere in a box: line integrals are the lengths to where lines leave it."""
    grid = Grid((10, 12, 8), (10.0, 10.0, 12.0))
    half = np.array([50.0, 60.0, 48.0])
    point = np.array([12.0, -7.0, 5.0])
    ends = np.array([[300.0, 40.0, 30.0], [-280.0, 110.0, -20.0], [-200.0, -220.0, 10.0], [250.0, 190.0, -35.0]])
    away = ends - point
    length = [np.linalg.norm(a) * np.min((np.sign(a) * half - point) / a) for a in away]
    points = ScatterPoints(jnp.asarray(point[None], jnp.float32), jnp.array([3.0]))
    image = jnp.ones(grid.shape)
    pairs = pair_scatter(2 * image, 0.005 * image, points, _detectors(ends), grid=grid, window=WINDOW, samples=64)
    for one, other in ((0, 1), (0, 2), (1, 3), (2, 3)):
        both = [one, other]
        expected = _by_hand(ends[both], point, 3.0, [2 * length[k] for k in both], [0.005 * length[k] for k in both])
        assert float(pairs[one, other]) == pytest.approx(expected, rel=3e-4)
        assert float(pairs[other, one]) == pytest.approx(expected, rel=3e-4)


def test_a_point_source_is_seen_by_the_detector_behind_it_only():
    """The source lies between the scatterer and A: of the two photons that to A is unscattered."""
    grid = Grid((21, 21, 5), (8.0, 8.0, 8.0))
    ends = np.array([[320.0, 0.0, 0.0], [-290.0, 130.0, 0.0]])
    point = np.array([-40.0, 0.0, 0.0])
    source = np.zeros(grid.shape, np.float32)
    source[15, 10, 2] = 7  # at x = 40 mm; a line along x sees it as a triangle of area 7 · 8 mm
    points = ScatterPoints(jnp.asarray(point[None], jnp.float32), jnp.array([1.0]))
    pairs = pair_scatter(
        jnp.asarray(source), jnp.zeros(grid.shape), points, _detectors(ends), grid=grid, window=WINDOW, samples=500
    )
    assert float(pairs[0, 1]) == pytest.approx(_by_hand(ends, point, 1.0, [56.0, 0.0], [0.0, 0.0]), rel=2e-3)


# ── STIR ──


def _stir_points(mu: np.ndarray) -> ScatterPoints:
    """STIR's scatter points: means over cells of 22.15 × 22.15 × 21.49 mm, the outer ones partly beyond the image."""
    sides, numbers = (22.1541, 22.1541, 3.27 * 46 / 7), (17, 17, 8)
    means, centers = mu, []
    for axis, (side, number, voxel) in enumerate(zip(sides, numbers, (3.0, 3.0, 3.27), strict=True)):
        size = mu.shape[axis]
        low, first = (np.arange(size) - size / 2) * voxel, (np.arange(number) - number / 2) * side
        filled = np.minimum(low + voxel, first[:, None] + side) - np.maximum(low, first[:, None])
        means = np.moveaxis(np.tensordot(means, np.maximum(filled, 0) / side, (axis, 1)), -1, axis)
        centers.append(first + side / 2)
    index = np.argwhere(means >= 0.001)
    position = np.stack([centers[axis][index[:, axis]] for axis in range(3)], axis=-1)
    weight = means[tuple(index.T)] * np.prod(sides)
    return ScatterPoints(jnp.asarray(position, jnp.float32), jnp.asarray(weight, jnp.float32))


def test_scatter_of_a_cylinder_is_stirs(test_data: Path):
    """Within 2 % of STIR's maximum with its scatter points, within 10 % with medjax's own.

    STIR writes positions as (z, y, x) from the first plane, x to the left and y to the back. Its scale is 0.75 / 2π
    (of its solid angles) · 10 (μ in cm⁻¹, volumes in mm³) / 3 (line integrals of activity in voxels of 3 mm) = 0.398.
    Its scatter points are 21.5 mm apart along the axis, and the cylinder ends between two of them: that shows in its
    last two planes, and is what differs with other points.
    """
    stir = np.fromfile(test_data / "pet_stir" / "scatter_cylinder.s", "<f4").reshape(32, 8, 35).transpose(0, 2, 1)
    grid, window = Grid((111, 111, 47), (3.0, 3.0, 3.27)), EnergyWindow(350.0, 650.0, 0.22)
    scanner, planes = Scanner("stir", 64, 8, 443.1, 19.62, 35, 3.0, depth_mm=8.4), michelogram(8, 1, 0)
    activity = _cylinder(grid, (-20.0, -10.0, 70 - 23 * 3.27), 100.0, 55.0)
    mu = 0.0096 * activity
    every = ring_detectors(scanner, 8, 64)
    pairs = jnp.zeros((8, 64, 8, 64))
    for ring in range(8):  # direct planes only
        one = jax.tree.map(lambda a, first=64 * ring: a[first : first + 64], every)
        within = pair_scatter(
            jnp.asarray(activity), jnp.asarray(mu), _stir_points(mu), one, grid=grid, window=window, samples=40
        )
        pairs = pairs.at[ring, :, ring].set(within)
    own = ScatterSampling(rings=6, crystals=32, cell_mm=25.0, voxel_mm=8.0)
    for ours, largest in (
        (interpolate_pairs(pairs, scanner, planes), 0.02),
        (simulate_scatter(jnp.asarray(activity), jnp.asarray(mu), grid, scanner, planes, window, sampling=own), 0.10),
    ):
        ours = np.asarray(ours)
        scale = np.vdot(ours, stir) / np.vdot(ours, ours)
        assert np.abs(scale * ours - stir).max() < largest * stir.max()
        assert scale == pytest.approx(0.75 / (2 * np.pi) * 10 / 3, rel=0.05 if largest > 0.05 else 0.02)


# ── symmetries ──


def test_scatter_is_linear_in_activity():
    mu = 0.0096 * _cylinder(GRID, (0.0, 0.0, 0.0), 110.0, 70.0)
    one, other = _cylinder(GRID, (40.0, 20.0, 10.0), 40.0, 40.0), _cylinder(GRID, (-50.0, 0.0, -20.0), 50.0, 50.0)
    together = _simulate(3 * one + 0.5 * other, mu)
    np.testing.assert_allclose(
        together, 3 * _simulate(one, mu) + 0.5 * _simulate(other, mu), atol=2e-5 * together.max()
    )


def test_exchanged_detectors_and_a_mirrored_object_see_the_same():
    """An object mirrored along the axis, seen by rings counted from the other end; and S is that of both orders."""
    activity = _cylinder(GRID, (30.0, -20.0, 25.0), 60.0, 40.0) + _cylinder(GRID, (-50.0, 30.0, -30.0), 40.0, 30.0)
    mu = 0.0096 * _cylinder(GRID, (10.0, 0.0, 15.0), 120.0, 60.0)
    scatter, mirrored = _simulate(activity, mu), _simulate(activity[..., ::-1], mu[..., ::-1])
    assert scatter[..., PLANES.planes_per_segment[0] :].max() > 0.1 * scatter.max()  # oblique planes
    for first, second in ((0, 0), (1, 3), (0, 4), (5, 2)):
        plane, other = PLANES.plane_of_pair[first, second], PLANES.plane_of_pair[5 - first, 5 - second]
        np.testing.assert_allclose(scatter[..., plane], mirrored[..., other], atol=1e-4 * scatter.max())
    points = sample_scatter_points(jnp.asarray(mu), GRID, 40.0, 0.001)
    pairs = pair_scatter(
        jnp.asarray(activity),
        jnp.asarray(mu),
        points,
        ring_detectors(SCANNER, 2, 16),
        grid=GRID,
        window=WINDOW,
        samples=30,
    )
    np.testing.assert_array_equal(pairs, pairs.T)


def test_a_turned_object_is_seen_in_other_views():
    """A quarter turn of the object is half of the views of half a turn."""
    activity, mu = (
        _cylinder(GRID, (40.0, 20.0, 10.0), 50.0, 40.0),
        _cylinder(GRID, (20.0, 0.0, 0.0), 120.0, 70.0) * 0.0096,
    )
    here, turned = _simulate(activity, mu), _simulate(np.rot90(activity, 1), np.rot90(mu, 1))
    direct = slice(PLANES.planes_per_segment[0])
    np.testing.assert_allclose(turned[12:, :, direct], here[:12, :, direct], atol=1e-3 * here.max())


def test_interpolated_detectors_are_the_simulated_ones():
    """Five rings of six and half of the crystals, in direct and oblique planes."""
    activity, mu = (
        _cylinder(GRID, (40.0, 20.0, 10.0), 70.0, 50.0),
        _cylinder(GRID, (20.0, 0.0, 0.0), 120.0, 60.0) * 0.0096,
    )
    every = _simulate(activity, mu)
    fewer = _simulate(activity, mu, ScatterSampling(rings=5, crystals=24, cell_mm=40.0, voxel_mm=15.0))
    assert np.abs(fewer - every).max() < 0.04 * every.max()  # scatter points 40 mm apart show as grain
    assert np.sqrt(np.mean((fewer - every) ** 2)) < 0.005 * every.max()
    assert fewer.sum() == pytest.approx(every.sum(), rel=5e-3)


def test_random_points_scatter_around_the_centers():
    activity = _cylinder(GRID, (0.0, 0.0, 0.0), 100.0, 60.0)
    mu = jnp.asarray(0.0096 * activity)
    keys = [jax.random.key(k) for k in range(2)]
    points = [sample_scatter_points(mu, GRID, 40.0, 0.001, key) for key in (None, *keys, keys[0])]
    for one in points:  # cells of less than a tenth of water are left out
        assert float(one.weight_mm2.sum()) == pytest.approx(float(mu.sum()) * GRID.voxel_volume_mm3, rel=0.04)
    offset = np.asarray(points[1].position_mm - points[0].position_mm)
    assert np.abs(offset).max() <= 21 and np.abs(offset.mean(axis=0)).max() < 5 and offset.std() > 8
    np.testing.assert_array_equal(points[1].position_mm, points[3].position_mm)
    assert np.any(points[1].position_mm != points[2].position_mm)


# ── bad input ──


def test_bad_input_is_one_line():
    image = _cylinder(GRID, (0.0, 0.0, 0.0), 100.0, 60.0)
    with pytest.raises(DataError, match=r"μ-map: shape \(24, 24, 5\); expected that of the grid, \(24, 24, 11\)"):
        _simulate(image, 0.0096 * image[..., :5])
    with pytest.raises(DataError, match="emission image: holds values that are negative or not finite"):
        _simulate(image - 0.5, 0.0096 * image)
    with pytest.raises(DataError, match="looks like cm⁻¹"):
        _simulate(image, 0.096 * image)
    with pytest.raises(DataError, match=r"no cell of 40 mm has a mean μ of 0\.001 mm⁻¹ or more"):
        _simulate(image, 0 * image)
    with pytest.raises(DataError, match="planes: of 5 rings; the scanner test has 6"):
        simulate_scatter(jnp.asarray(image), jnp.asarray(0.0096 * image), GRID, SCANNER, michelogram(5, 1), WINDOW)
    with pytest.raises(ConfigError, match="0 rings of 48 crystals"):
        ScatterSampling(rings=0)
    with pytest.raises(ConfigError, match="cells of 0 mm"):
        ScatterSampling(cell_mm=0.0)
