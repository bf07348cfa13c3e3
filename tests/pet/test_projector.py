"""The projector against Joseph's matrix by SciPy, closed forms, its own transpose, and JAX's transformations."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from medjax.errors import ConfigError, DataError
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.projector import backproject, project
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.scanner import PRESETS, Scanner, lors, parallel_lors
from medjax.pet.system import System, build_system, subsets
from tests.pet.oracle import ellipse_image, ellipse_integrals, joseph_matrix

SMALL = replace(PRESETS["mmr"], crystals=72, radius_mm=80.0, bins=49, voxel_mm=4.0, block=9)


def _pair(system: System, slices: int, seed: int = 0, dtype=np.float32) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    shape = (*system.row_index.shape, slices)
    image, sinogram = rng.normal(size=(*system.shape, slices)), rng.normal(size=shape)
    return jnp.asarray(image.astype(dtype)), jnp.asarray(sinogram.astype(dtype))


def _gap(system: System, image: jax.Array, sinogram: jax.Array, forward=project, transpose=backproject) -> float:
    """|⟨Ax, y⟩ − ⟨x, Aᵀy⟩| / (‖Ax‖ ‖y‖), summed in float64."""
    there = np.asarray(jax.jit(forward)(system, image), np.float64)
    back = np.asarray(jax.jit(transpose)(system, sinogram), np.float64)
    x, y = np.asarray(image, np.float64), np.asarray(sinogram, np.float64)
    return abs((there * y).sum() - (x * back).sum()) / max(np.linalg.norm(there) * np.linalg.norm(y), 1e-30)


@st.composite
def _scanners(draw: st.DrawFn) -> tuple[Scanner, Grid]:
    crystals = 4 * draw(st.integers(6, 24)) + draw(st.sampled_from([0, 2]))
    radius = draw(st.floats(60, 400))
    mash = 2 if crystals % 4 == 0 and draw(st.booleans()) else 1
    scanner = Scanner(
        "random",
        crystals,
        1,
        radius,
        4.0,
        draw(st.integers(5, crystals // 2)),
        2.0,
        depth_mm=draw(st.floats(0, 10)),
        mash=mash,
    )
    nx, ny = draw(st.integers(4, 20)), draw(st.integers(4, 20))
    ny = nx if draw(st.booleans()) else ny
    voxel = 1.2 * radius / max(nx, ny) * draw(st.floats(0.3, 1))
    return scanner, Grid((nx, ny, 1), (voxel, voxel if draw(st.booleans()) else 0.7 * voxel, 2.0))


@settings(max_examples=10)
@given(_scanners(), st.integers(1, 3))
def test_random_scanners_are_josephs_matrix_and_adjoint(geometry: tuple[Scanner, Grid], slices: int):
    scanner, grid = geometry
    ends = lors(scanner)
    direction = (ends[..., 1, :] - ends[..., 0, :]) / grid.voxel_mm[:2]
    slant = np.mean((direction[..., 0] ** 2 - direction[..., 1] ** 2) / (direction**2).sum(-1), axis=1)
    clear = np.repeat(np.abs(slant) > 1e-6, ends.shape[1])  # at exactly 45° either axis is Joseph's
    matrix = joseph_matrix(ends, grid)
    system = build_system(ends, grid)
    image, sinogram = _pair(system, slices)
    there, back = project(system, image), backproject(system, sinogram)
    gap = np.vdot(np.asarray(there, float), sinogram) - np.vdot(np.asarray(back, float), image)
    assert abs(gap) <= 1e-5 * max(np.linalg.norm(there) * np.linalg.norm(sinogram), 1e-30)
    want = matrix @ np.asarray(image, np.float64).reshape(-1, slices)
    scale = np.abs(matrix).sum(1).max() + 1e-9
    assert np.abs(np.asarray(there).reshape(-1, slices) - want)[clear].max(initial=0) < 2e-5 * scale
    if clear.all():
        want = matrix.T @ np.asarray(sinogram, np.float64).reshape(-1, slices)
        assert np.abs(np.asarray(back).reshape(-1, slices) - want).max() < 2e-5 * max(np.abs(want).max(), 1)


def test_adjoint_in_float64_with_psf_and_attenuation(x64):
    grid = Grid((24, 24, 3), (4.0, 4.0, 2.0))
    system = build_system(lors(SMALL), grid)
    psf = gaussian_psf(grid, 6.0)
    image, sinogram = _pair(system, 3, dtype=np.float64)
    factors = jnp.exp(-project(system, 0.01 * jnp.ones_like(image)))
    gap = _gap(
        system,
        image,
        sinogram,
        lambda s, x: factors * project(s, blur(psf, x)),
        lambda s, y: blur(psf, backproject(s, factors * y)),
    )
    assert gap < 1e-12


@pytest.mark.parametrize("name", ["mmr", "mct", "ring_2d"])
def test_presets_use_the_symmetry_and_are_adjoint(name: str):
    grid = Grid((64, 64, 1), (4.0, 4.0, 2.0))
    system = build_system(lors(PRESETS[name]), grid)
    assert [fan.quarter_turns for fan in system.fans] == [(0, 1, 2, 3)]
    assert _gap(system, *_pair(system, 2)) < 1e-6


def test_symmetric_and_plain_systems_are_the_same_matrix():
    square, oblong = Grid((20, 20, 1), (4.0, 4.0, 2.0)), Grid((20, 21, 1), (4.0, 4.0, 2.0))
    fast, slow = build_system(lors(SMALL), square), build_system(lors(SMALL)[::-1], oblong)
    assert len(fast.fans) == 1 and len(slow.fans) == 2
    image, _ = _pair(fast, 1)
    shifted = jnp.zeros((20, 21, 1))  # the same object, half a voxel off: compare through the oracle instead
    assert project(slow, shifted).shape == (36, 49, 1)
    want = joseph_matrix(lors(SMALL), square) @ np.asarray(image, np.float64).ravel()
    np.testing.assert_allclose(np.asarray(project(fast, image)).ravel(), want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("sizes", [(128, 180, 128), pytest.param((256, 360, 367), marks=pytest.mark.slow)])
def test_ellipses_as_well_as_joseph(sizes: tuple[int, int, int]):
    size, views, bins = sizes
    ends = parallel_lors(views, bins, 1.0)
    grid = Grid((size, size, 1), (1.0, 1.0, 1.0))
    image = ellipse_image(size, 1.0).astype(np.float32)
    truth = ellipse_integrals(ends, size / 2)
    ours = np.asarray(jax.jit(project)(build_system(ends, grid), jnp.asarray(image[..., None])))[..., 0]
    joseph = (joseph_matrix(ends, grid) @ image.ravel()).reshape(truth.shape)
    error, reference = np.linalg.norm(ours - truth), np.linalg.norm(joseph - truth)
    assert error <= 1.001 * reference
    assert error / np.linalg.norm(truth) < 0.006  # Joseph's published level at 128² is 0.0054


def test_uniform_disc_is_its_chord():
    radius, grid = 100.0, Grid((128, 128, 1), (2.0, 2.0, 1.0))
    disc = ((0, 0, radius / 128, radius / 128, 0, 1.0),)
    ends = lors(PRESETS["ring_2d"])
    chord = ellipse_integrals(ends, 128.0, disc)
    image = jnp.asarray(ellipse_image(128, 2.0, disc), jnp.float32)[..., None]
    error = np.abs(np.asarray(project(build_system(ends, grid), image))[..., 0] - chord)[chord > 0]
    assert error.mean() < 0.5 and np.percentile(error, 95) < 2.0


def test_gradients_are_the_transpose_and_hessian_products_work():
    system = build_system(lors(SMALL), Grid((16, 16, 1), (4.0, 4.0, 2.0)))
    image, sinogram = _pair(system, 2)

    def loss(x):
        return jnp.sum((project(system, x) - sinogram) ** 2) / 2

    normal = backproject(system, project(system, image))
    np.testing.assert_allclose(
        jax.jit(jax.grad(loss))(image), normal - backproject(system, sinogram), rtol=1e-4, atol=1e-2
    )
    forward_over_reverse = jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (x,))[1])(image)
    reverse_over_reverse = jax.jit(jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), image)))(image)
    np.testing.assert_allclose(forward_over_reverse, normal, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(reverse_over_reverse, normal, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(
        jax.jit(jax.grad(lambda y: jnp.vdot(backproject(system, y), image)))(sinogram),
        project(system, image),
        rtol=1e-4,
        atol=1e-2,
    )


def test_gradient_against_finite_differences(x64):
    system = build_system(lors(SMALL), Grid((10, 10, 1), (6.0, 6.0, 2.0)))
    image, sinogram = (jnp.abs(a) + 0.1 for a in _pair(system, 1, dtype=np.float64))

    @jax.jit
    def likelihood(x):
        q = project(system, jnp.asarray(x)) + 1
        return jnp.sum(sinogram * jnp.log(q) - q)

    check_grads(likelihood, (image,), order=2, modes=["rev", "fwd"], rtol=1e-5)


def test_vmap_is_folded_into_slices():
    system = build_system(lors(SMALL), Grid((12, 12, 1), (4.0, 4.0, 2.0)))
    images = jnp.asarray(np.stack([_pair(system, 2, seed)[0] for seed in range(3)]))
    folded = jax.vmap(lambda x: project(system, x))(images)
    np.testing.assert_allclose(folded, np.stack([project(system, x) for x in images]), rtol=1e-6)
    text = str(jax.make_jaxpr(jax.vmap(jax.grad(lambda x: jnp.sum(project(system, x) ** 2))))(images))
    assert (
        text.count("pet_project[") == 1 and "f32[36,49,6]" in text
    )  # one projection of 3 · 2 slices, not a loop of three


def test_vmap_over_systems():
    whole = build_system(lors(SMALL), Grid((12, 12, 1), (4.0, 4.0, 2.0)))
    stacked, views = subsets(whole, 3)
    image, _ = _pair(whole, 2)
    parts = jax.vmap(lambda s: project(s, image))(stacked)
    np.testing.assert_allclose(parts, np.asarray(project(whole, image))[views], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("number", [1, 2, 3, 6, 9])
def test_subsets_are_the_rows_of_the_whole(number: int):
    whole = build_system(lors(SMALL), Grid((12, 12, 1), (4.0, 4.0, 2.0)))
    stacked, views = subsets(whole, number)
    assert sorted(views.ravel()) == list(range(36))
    image, sinogram = _pair(whole, 2)
    there, total = np.asarray(project(whole, image)), 0
    for k in range(number):
        part = jax.device_put(jax.tree.map(lambda a, k=k: np.asarray(a)[k], stacked))
        np.testing.assert_allclose(project(part, image), there[views[k]], rtol=1e-5, atol=1e-4)
        total = total + np.asarray(backproject(part, jnp.asarray(np.asarray(sinogram)[views[k]])))
    np.testing.assert_allclose(total, backproject(whole, sinogram), rtol=1e-4, atol=1e-3)


def test_uneven_subsets_are_refused():
    system = build_system(lors(SMALL), Grid((12, 12, 1), (4.0, 4.0, 2.0)))
    with pytest.raises(ConfigError, match=r"5 subsets .* 1, 2, 3, 6, 9, 18"):
        subsets(system, 5)


def test_views_shard_over_devices():
    if jax.device_count() < 2:
        pytest.skip("one device")
    system = build_system(lors(SMALL), Grid((12, 12, 1), (4.0, 4.0, 2.0)))
    stacked, views = subsets(system, 2)
    image, sinogram = _pair(system, 2)
    mesh = jax.make_mesh((2,), ("view",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    def normal(part, x, y):
        part = jax.tree.map(lambda a: a[0], part)
        there = project(part, x)
        return there[None], jax.lax.psum(backproject(part, y[0]), "view")

    sharded = jax.shard_map(
        normal, mesh=mesh, in_specs=(spec("view"), spec(), spec("view")), out_specs=(spec("view"), spec())
    )
    there, back = jax.jit(sharded)(stacked, image, sinogram[views])
    np.testing.assert_allclose(there, np.asarray(project(system, image))[views], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(back, backproject(system, sinogram), rtol=1e-4, atol=1e-3)


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
    assert _gap(system, *_pair(system, 2)) < 1e-6
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


def test_many_slices_are_passed_in_pieces():
    system = build_system(lors(SMALL), Grid((8, 8, 1), (6.0, 6.0, 2.0)))
    image, sinogram = _pair(system, 131)
    np.testing.assert_allclose(
        project(system, image)[..., 100:101], project(system, image[..., 100:101]), rtol=1e-5, atol=1e-4
    )
    assert _gap(system, image, sinogram) < 1e-6


def test_bad_geometry_is_refused():
    with pytest.raises(DataError, match="inside the image"):
        build_system(lors(SMALL), Grid((64, 64, 1), (4.0, 4.0, 2.0)))
    with pytest.raises(DataError, match="at least"):
        Grid((1, 8, 1), (1.0, 1.0, 1.0))


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
    assert _gap(system, *_pair(system, 1)) < 1e-6


def test_arrays_of_another_shape_are_refused():
    system = build_system(lors(SMALL), Grid((12, 12, 1), (4.0, 4.0, 2.0)))
    with pytest.raises(DataError, match=r"image: shape \(10, 10, 1\); .* \(12, 12\)"):
        project(system, jnp.zeros((10, 10, 1)))
    with pytest.raises(DataError, match=r"sinogram: shape \(36, 48, 1\); .* \(36, 49\)"):
        backproject(system, jnp.zeros((36, 48, 1)))
