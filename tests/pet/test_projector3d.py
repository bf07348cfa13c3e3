"""The 3-D projectors against SciPy's interpolation, closed forms, each other, and their own transpose."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from medjax.errors import ConfigError, DataError
from medjax.pet import lor_projector
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.lor_geometry import from_end_points, views_along_x
from medjax.pet.lor_system import build_lor_system
from medjax.pet.michelogram import Michelogram, Segment, michelogram, oblique_lors
from medjax.pet.projector3d import backproject, project
from medjax.pet.scanner import PRESETS, Scanner, lors
from medjax.pet.system3d import System3D, build_system3d, subsets3d
from medjax.pet.tof import Tof
from tests.pet.adjoint import dot_gap
from tests.pet.oracle import joseph_rows

RING = replace(PRESETS["mmr"], crystals=40, radius_mm=80.0, bins=25, block=5, rings=5)
SPACING = RING.ring_spacing_mm
GRID = Grid((14, 14, 9), (7.0, 7.0, SPACING / 2))
TOF = Tof(5, 300.0, 400.0)


def _system(grid: Grid = GRID, span: int = 1, largest: int = 4, tof: Tof | None = None) -> System3D:
    return build_system3d(lors(RING), michelogram(RING.rings, span, largest), SPACING, grid, tof)


def _pair(system: System3D, dtype=np.float32, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=s).astype(dtype)) for s in (system.shape, system.sinogram_shape))


@st.composite
def _geometries(draw: st.DrawFn) -> dict:
    crystals, rings = 4 * draw(st.integers(4, 10)) + draw(st.sampled_from([0, 2])), draw(st.integers(1, 5))
    return {
        "crystals": crystals,
        "rings": rings,
        "radius": draw(st.floats(60, 400)),
        "bins": draw(st.integers(5, crystals // 2)),
        "span": draw(st.sampled_from([1, 3, 5])),
        "largest": draw(st.integers(0, rings - 1)),
        "size": (draw(st.integers(4, 12)), draw(st.none() | st.integers(4, 12))),
        "planes": max(2 * (rings + draw(st.integers(-1, 1))) - 1, 1),
        "scale": draw(st.floats(0.3, 1)),
        "oblong": draw(st.sampled_from([1.0, 0.7])),
        "tof": draw(st.none() | st.integers(1, 4)),
    }


@settings(max_examples=4)
@given(_geometries())
def test_random_scanners_are_josephs_rows_and_adjoint(drawn: dict):
    scanner = Scanner("random", drawn["crystals"], drawn["rings"], drawn["radius"], 4.0, drawn["bins"], 2.0)
    planes = michelogram(scanner.rings, drawn["span"], drawn["largest"])
    nx, ny = drawn["size"][0], drawn["size"][1] or drawn["size"][0]
    voxel = 1.2 * scanner.radius_mm / max(nx, ny) * drawn["scale"]
    grid = Grid((nx, ny, drawn["planes"]), (voxel, voxel * drawn["oblong"], 2.0))
    tof = None if drawn["tof"] is None else Tof(drawn["tof"], 400.0, 500.0, open_ends=drawn["tof"] > 2)
    ends = lors(scanner)
    system = build_system3d(ends, planes, scanner.ring_spacing_mm, grid, tof)
    image, sinogram = _pair(system)
    there = project(system, image)
    assert dot_gap(there, sinogram, image, backproject(system, sinogram)) < 1e-5
    lines = oblique_lors(ends, planes.plane_rings, scanner.ring_spacing_mm, scanner.rings)
    along_x = _along_x(ends, grid, lines.shape)
    want = joseph_rows(lines.reshape(-1, 2, 3), along_x, grid, np.asarray(image, float), tof)
    assert np.abs(np.asarray(there) - want.reshape(there.shape)).max() < 2e-5 * max(np.abs(want).max(), 1)


@pytest.mark.parametrize("tof", [None, TOF])
@pytest.mark.parametrize("span", [1, 3])
def test_adjoint_in_float64(span: int, tof: Tof | None, x64):
    system = _system(span=span, tof=tof)
    image, sinogram = _pair(system, np.float64)
    assert dot_gap(project(system, image), sinogram, image, backproject(system, sinogram)) < 1e-12


def _along_x(ends: np.ndarray, grid: Grid, shape: tuple[int, ...]) -> np.ndarray:
    """The axis that each view is walked along (at exactly 45° either is Joseph's), for each of its lines."""
    along_x = views_along_x(from_end_points(ends, grid), grid)
    assert along_x is not None
    return np.broadcast_to(along_x[:, None, None], shape[:3]).ravel()


def _all_lines(tof: Tof | None = None) -> tuple[System3D, lor_projector.LorSystem]:
    """The same lines of response as a sinogram, and one by one; TOF bins of a line follow each other."""
    system = _system(tof=tof)
    ends = oblique_lors(lors(RING), michelogram(RING.rings, 1, 4).plane_rings, SPACING, RING.rings)
    chosen, bins = _along_x(lors(RING), GRID, ends.shape), 1 if tof is None else tof.bins
    lines, edges = np.repeat(ends.reshape(-1, 2, 3), bins, axis=0), None
    if tof is not None:
        edges = np.tile(np.stack([tof.edges_mm[:-1], tof.edges_mm[1:]], -1), (len(lines) // bins, 1))
    one_by_one = build_lor_system(
        lines, GRID, along_x=np.repeat(chosen, bins), tof_mm=edges, tof_sd_mm=None if tof is None else tof.sd_mm
    )
    return system, one_by_one


@pytest.mark.parametrize("tof", [None, TOF])
def test_lines_one_by_one_are_the_sinogram(tof: Tof | None):
    system, lines = _all_lines(tof)
    image, sinogram = _pair(system)
    there, want = np.asarray(lor_projector.project(lines, image)), np.asarray(project(system, image))
    np.testing.assert_allclose(there, want.ravel(), atol=1e-5 * np.abs(want).max())
    back, want = lor_projector.backproject(lines, sinogram.ravel()), backproject(system, sinogram)
    np.testing.assert_allclose(back, want, atol=1e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(("tof", "radius"), [(None, 90), (TOF, 90), (None, 30), (TOF, 30)])
def test_random_lines_are_josephs_rows_and_adjoint(tof: Tof | None, radius: int, x64):
    """Lines between points around the image, and inside it."""
    rng = np.random.default_rng(1)
    angle, z = rng.uniform(0, 2 * np.pi, (300, 2)), rng.uniform(-20, 20, (300, 2, 1))
    ends = np.concatenate([radius * np.stack([np.cos(angle), np.sin(angle)], -1), z], -1)
    grid = Grid((12, 15, 9), (6.0, 5.0, 2.0))
    along = np.abs(np.diff(ends, axis=1)[:, 0, :2] / grid.voxel_mm[:2])
    bins = None if tof is None else rng.integers(0, tof.bins, 300)
    edges = None if tof is None else np.stack([tof.edges_mm[bins], tof.edges_mm[bins + 1]], -1)
    system = build_lor_system(ends, grid, tof_mm=edges, tof_sd_mm=None if tof is None else tof.sd_mm)
    image, values = jnp.asarray(rng.normal(size=grid.shape)), jnp.asarray(rng.normal(size=300))
    there = lor_projector.project(system, image)
    back = lor_projector.backproject(system, values)
    assert dot_gap(there, values, image, back) < 1e-12
    for call, one, result in ((lor_projector.project, image, there), (lor_projector.backproject, values, back)):
        batch = jax.vmap(partial(call, system))(jnp.stack([one, -2 * one]))
        np.testing.assert_allclose(batch, np.stack([result, -2 * result]), rtol=1e-12)
    want = joseph_rows(ends, along[:, 0] >= along[:, 1], grid, np.asarray(image), tof)
    want = want if bins is None else np.take_along_axis(want.reshape(300, -1), bins[:, None], 1)[:, 0]
    np.testing.assert_allclose(there, want.ravel(), atol=1e-10 * np.abs(want).max())


def test_time_of_flight_bins_add_up_to_the_projection():
    """By how far the bins reach: all of it where the ends are open, 1e-3 where they reach 3.3 sd beyond the image."""
    image = jnp.abs(_pair(_system())[0])
    whole = np.asarray(project(_system(), image))
    for tof, tolerance in ((Tof(5, 300.0, 400.0, open_ends=True), 1e-5), (Tof(13, 312.5, 580.0), 1e-3)):
        summed = np.asarray(project(_system(tof=tof), image)).sum(-1)
        np.testing.assert_allclose(summed, whole, rtol=tolerance, atol=1e-5 * whole.max())


def test_time_of_flight_of_a_point_is_the_kernel():
    """A voxel off the middle: its bins are those of a Gaussian around its distance towards the second crystal."""
    tof = Tof(9, 200.0, 300.0)
    image = np.zeros(GRID.shape, np.float32)
    image[11, 3, 4] = 1.0
    point = np.array([float(c.ravel()[i]) for c, i in zip(centers_mm(GRID), (11, 3, 4), strict=True)])
    sinogram = np.asarray(project(_system(tof=tof), jnp.asarray(image)))
    planes = michelogram(RING.rings, 1, 4)
    ends = oblique_lors(lors(RING), planes.plane_rings, SPACING, RING.rings)
    strong = sinogram.sum(-1) > 0.5 * sinogram.sum(-1).max()
    assert strong.sum() > 10
    first, second = ends[strong][:, 0], ends[strong][:, 1]
    along = (second - first) / np.linalg.norm(second - first, axis=-1, keepdims=True)
    distance = ((point - (first + second) / 2) * along).sum(-1)
    want = np.diff(norm.cdf((tof.edges_mm - distance[:, None]) / tof.sd_mm), axis=-1)
    got = sinogram[strong] / sinogram[strong].sum(-1, keepdims=True)
    assert np.abs(got - want / want.sum(-1, keepdims=True)).max() < 0.05  # a row is up to half a voxel off


def test_ellipsoid_is_its_chord():
    """Against the closed form, with the accuracy of Joseph's interpolation in float64."""
    grid = Grid((64, 64, 31), (2.0, 2.0, 2.0))
    scanner = Scanner("test", 160, 16, 110.0, 4.0, 79, 2.0)
    axes = np.array([48.0, 40.0, 22.0])
    fine = [(np.arange(4 * n) + 0.5) / 4 - n / 2 for n in grid.shape]
    inside = sum((c * v / a) ** 2 for c, v, a in zip(np.ix_(*fine), grid.voxel_mm, axes, strict=True)) <= 1
    image = inside.reshape(64, 4, 64, 4, 31, 4).mean((1, 3, 5))
    planes = michelogram(16, 3, 7)
    ends = oblique_lors(lors(scanner), planes.plane_rings, 4.0, 16)
    first, along = ends[..., 0, :] / axes, (ends[..., 1, :] - ends[..., 0, :]) / axes
    square = (along**2).sum(-1)
    root = np.clip((first * along).sum(-1) ** 2 - square * ((first**2).sum(-1) - 1), 0, None)
    chord = 2 * np.sqrt(root) / square * np.linalg.norm(ends[..., 1, :] - ends[..., 0, :], axis=-1)
    system = build_system3d(lors(scanner), planes, 4.0, grid)
    got = np.asarray(jax.jit(project)(system, jnp.asarray(image, jnp.float32)))
    error = np.abs(got - chord)[chord > 0]
    some = np.s_[3::7]  # views, for the slow oracle
    chosen = _along_x(lors(scanner), grid, ends.shape).reshape(chord.shape)[some].ravel()
    joseph = joseph_rows(ends[some].reshape(-1, 2, 3), chosen, grid, image).reshape(chord[some].shape)
    reference, ours = (np.abs(a - chord[some])[chord[some] > 0] for a in (joseph, got[some]))
    assert ours.mean() <= 1.001 * reference.mean()
    assert np.percentile(ours, 95) <= 1.001 * np.percentile(reference, 95)
    assert error.mean() < 0.6 and np.percentile(error, 95) < 2.0  # of chords up to 96 mm


@pytest.mark.parametrize("tof", [None, TOF])
@pytest.mark.parametrize("span", [1, 3])
def test_subsets_are_the_rows_of_the_whole(span: int, tof: Tof | None):
    whole = _system(span=span, tof=tof)
    stacked, views = subsets3d(whole, 2)
    assert sorted(views.ravel()) == list(range(20))
    image, sinogram = _pair(whole)
    there, total = np.asarray(project(whole, image)), 0
    for k in range(2):
        part = jax.tree.map(lambda a, k=k: a[k], stacked)
        np.testing.assert_allclose(project(part, image), there[views[k]], rtol=1e-5, atol=1e-4)
        total = total + backproject(part, sinogram[views[k]])
    np.testing.assert_allclose(total, backproject(whole, sinogram), rtol=1e-4, atol=2e-3)


def test_derivatives_and_batches():
    system = _system()
    image, sinogram = _pair(system)
    images = jnp.stack([image, 2 * image, image[::-1]])
    folded = jax.vmap(lambda x: project(system, x))(images)
    np.testing.assert_allclose(folded, np.stack([project(system, x) for x in images]), rtol=1e-5, atol=1e-3)

    def loss(x):
        return jnp.sum((project(system, x) - sinogram) ** 2) / 2

    normal = backproject(system, project(system, image))
    np.testing.assert_allclose(jax.grad(loss)(image), normal - backproject(system, sinogram), rtol=1e-4, atol=0.1)
    product = jax.jvp(jax.grad(loss), (image,), (image,))[1]
    np.testing.assert_allclose(product, normal, rtol=1e-4, atol=0.1)


def test_views_shard_over_devices():
    if jax.device_count() < 2:
        pytest.skip("one device")
    system = _system()
    stacked, views = subsets3d(system, 2)
    image, sinogram = _pair(system)
    mesh = jax.make_mesh((2,), ("view",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    def both(part, x, y):
        part = jax.tree.map(lambda a: a[0], part)
        return project(part, x)[None], jax.lax.psum(backproject(part, y[0]), "view")

    sharded = jax.shard_map(
        both, mesh=mesh, in_specs=(spec("view"), spec(), spec("view")), out_specs=(spec("view"), spec())
    )
    there, back = jax.jit(sharded)(stacked, image, sinogram[views])
    np.testing.assert_allclose(there, np.asarray(project(system, image))[views], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(back, backproject(system, sinogram), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize(
    "change", [{"bin_ps": 0.3}, {"resolution_ps": 0.58}, {"bins": 0}, {"resolution_ps": float("nan")}]
)
def test_time_of_flight_in_other_units_is_refused(change: dict):
    with pytest.raises(ConfigError, match=r"time of flight: .* expected"):
        Tof(**({"bins": 13, "bin_ps": 312.5, "resolution_ps": 580.0} | change))


def test_bad_geometry_is_refused():
    with pytest.raises(DataError, match="slices of 3 mm; expected half the ring spacing"):
        _system(Grid((14, 14, 9), (7.0, 7.0, 3.0)))
    with pytest.raises(DataError, match="8 slices; expected an odd number"):
        _system(Grid((14, 14, 8), (7.0, 7.0, SPACING / 2)))
    with pytest.raises(ConfigError, match="no opposite"):
        build_system3d(lors(RING), Michelogram(5, (Segment(0, 0), Segment(1, 1))), SPACING, GRID)
    with pytest.raises(DataError, match=r"image: shape \(10, 10, 9\)"):
        project(_system(), jnp.zeros((10, 10, 9)))
    with pytest.raises(DataError, match=r"sinogram: shape \(20, 25, 3\)"):
        backproject(_system(), jnp.zeros((20, 25, 3)))
    with pytest.raises(DataError, match="one transaxial position"):
        build_lor_system(np.array([[[1.0, 2.0, 3.0], [1.0, 2.0, 5.0]]]), GRID)
