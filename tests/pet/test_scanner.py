"""Scanners against published numbers, the pair formula of Siemens' list-mode written anew, and plain trigonometry."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.errors import ConfigError, DataError
from medjax.pet import scanner as scanners
from medjax.pet.grid import Grid, centers_mm, in_field_of_view
from medjax.pet.michelogram import michelogram
from medjax.pet.scanner import PRESETS, Scanner, coverage, gap_mask, lors, preset, with_rings
from medjax.pet.system import build_system
from medjax.pet.tof import preset_tof

MMR, MCT = PRESETS["mmr"], PRESETS["mct"]
SMALL = Scanner("small", 72, 4, 80.0, 4.0, 49, 4.0, depth_mm=9.6, block=9, gaps=True)


def polar(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle of each line's normal, growing smoothly with the view, and its signed distance from the axis."""
    (x0, y0), (x1, y1) = np.moveaxis(ends, (-2, -1), (0, 1))
    angle = np.arctan2(x1 - x0, y0 - y1)
    return np.unwrap(np.unwrap(angle, axis=1), axis=0), x0 * np.cos(angle) + y0 * np.sin(angle)


def pair(view: int, bin_: int, crystals: int, bins: int) -> tuple[int, int]:
    """The two crystals of a bin, as the list-mode's facts give them."""
    t = bin_ - (bins >> 1)
    return (view + (t >> 1)) % crystals, (view - ((t + 1) >> 1) + crystals // 2) % crystals


@pytest.mark.parametrize(
    ("name", "crystals", "rings", "shape"),
    [("mmr", 504, 64, (252, 344, 127)), ("mct", 672, 55, (168, 400, 109)), ("ring_2d", 504, 1, (252, 344, 1))],
)
def test_presets_have_the_published_numbers(name: str, crystals: int, rings: int, shape: tuple[int, int, int]):
    scanner = preset(name)
    assert (scanner.crystals, scanner.rings, scanner.sinogram_shape) == (crystals, rings, shape)
    assert (scanner.views, scanner.bins, scanner.planes) == shape
    assert lors(scanner).shape == (*shape[:2], 2, 2)
    assert hash(scanner) == hash(replace(scanner))


def test_gaps_of_the_mmr_are_those_of_its_list_mode():
    crystals = np.array([[pair(view, bin_, 504, 344) for bin_ in range(344)] for view in range(252)])
    real = np.all(crystals % 9 != 0, axis=-1)
    np.testing.assert_array_equal(gap_mask(MMR), real)
    np.testing.assert_array_equal(coverage(MMR), real)
    assert round(1 - gap_mask(MMR).mean(), 4) == 0.2096
    assert len(set(crystals[real].ravel())) == 504 - 56


def test_coverage_of_mashed_views_is_the_share_of_real_pairs():
    want = np.zeros((MCT.views, MCT.bins))
    for view, bin_ in product(range(336), range(400)):
        want[view // 2, bin_] += all(crystal % 14 for crystal in pair(view, bin_, 672, 400)) / 2
    np.testing.assert_array_equal(coverage(MCT), want)
    assert set(want.ravel()) == {0.0, 0.5, 1.0}
    np.testing.assert_array_equal(gap_mask(MCT), want > 0)


def test_a_scanner_without_gaps_is_covered():
    assert gap_mask(PRESETS["ring_2d"]).all()


def test_ends_are_the_pairs_crystals():
    """Crystal 0 is at the top and a quarter of a ring later comes the patient's left, −x in RAS+."""
    angle = 2 * np.pi / 72 * np.array([[pair(view, bin_, 72, 49) for bin_ in range(49)] for view in range(36)])
    want = 89.6 * np.stack([-np.sin(angle), np.cos(angle)], axis=-1)
    np.testing.assert_allclose(lors(SMALL), want, atol=1e-10)


@pytest.mark.parametrize("scanner", [MMR, SMALL, replace(SMALL, bins=48)])
def test_distance_from_the_axis(scanner: Scanner):
    t = np.arange(scanner.bins) - scanner.bins // 2
    radius = scanner.radius_mm + scanner.depth_mm
    distance = polar(lors(scanner))[1]
    sign = np.sign(distance[0, -1])
    want = np.broadcast_to(sign * radius * np.sin(np.pi * t / scanner.crystals), distance.shape)
    np.testing.assert_allclose(distance, want, atol=1e-9)
    assert scanner.field_of_view_mm == pytest.approx(min(-want[0, 0] * sign, want[0, -1] * sign))


def test_bins_of_the_mmr_come_closer_towards_the_edge():
    spacing = np.abs(np.diff(polar(lors(MMR))[1], axis=1))
    np.testing.assert_allclose(spacing[:, 171:173], 2.1, atol=0.01)
    np.testing.assert_allclose(spacing[:, [0, -1]], 1.0, atol=0.05)
    assert np.all(np.diff(spacing[:, 172:], axis=1) < 0)


def test_a_view_has_two_angles_half_a_crystal_apart():
    angle = polar(lors(MMR))[0]
    t = np.arange(344) - 172
    even, odd = angle[:, t % 2 == 0], angle[:, t % 2 == 1]
    assert np.ptp(even, axis=1).max() < 1e-9 and np.ptp(odd, axis=1).max() < 1e-9
    np.testing.assert_allclose(np.abs(even[:, 0] - odd[:, 0]), np.pi / 504, atol=1e-9)
    np.testing.assert_allclose(np.diff(even[:, 0]), 2 * np.pi / 504, atol=1e-9)


def test_a_mashed_line_lies_between_its_members():
    angle, distance = (part.reshape(168, 2, 400) for part in polar(lors(replace(MCT, mash=1))))
    np.testing.assert_allclose(np.diff(angle, axis=1), 2 * np.pi / 672, atol=1e-9)
    np.testing.assert_allclose(polar(lors(MCT))[0], angle.mean(axis=1), atol=1e-9)
    np.testing.assert_allclose(polar(lors(MCT))[1], distance.mean(axis=1), atol=1e-9)


def test_shift_moves_a_line_across_its_bin():
    (angle, moved), (before, distance) = polar(lors(SMALL, 0.25)), polar(lors(SMALL))
    want = np.sign(distance[0, -1]) * 89.6 * np.sin(np.pi * (np.arange(49) - 24 + 0.5) / 72)
    np.testing.assert_allclose(moved, np.broadcast_to(want, moved.shape), atol=1e-9)
    np.testing.assert_allclose(angle, before, atol=1e-9)


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.5, 5))
def test_parallel_lines(views: int, bins: int, spacing: float):
    ends = scanners.parallel_lors(views, bins, spacing)
    theta = np.pi * np.arange(views)[:, None, None] / views
    s = (np.arange(bins) - (bins - 1) / 2)[None, :, None] * spacing
    on_line = ends[..., 0] * np.cos(theta) + ends[..., 1] * np.sin(theta)
    np.testing.assert_allclose(on_line, np.broadcast_to(s, on_line.shape), atol=1e-9)
    assert np.all(np.linalg.norm(ends, axis=-1) >= bins * spacing * (1 - 1e-9))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"crystals": 71}, "71 crystals do not make views"),
        ({"crystals": 0}, "crystals is 0"),
        ({"mash": 5}, "mashed by 5"),
        ({"mash": 0}, "mash is 0"),
        ({"block": 7}, "not whole blocks of 7"),
        ({"block": 0}, "block is 0"),
        ({"bins": 73}, "73 bins; expected 1 to 72"),
        ({"bins": 0}, "bins is 0"),
        ({"rings": -1}, "rings is -1"),
        ({"radius_mm": float("nan")}, "radius_mm is nan"),
        ({"radius_mm": float("inf")}, "radius_mm is inf"),
        ({"ring_spacing_mm": 0.0}, "ring_spacing_mm is 0"),
        ({"voxel_mm": -2.0}, "voxel_mm is -2"),
        ({"depth_mm": -1.0}, "depth_mm is -1"),
    ],
)
def test_bad_scanners_are_refused_in_one_line(numbers: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        replace(SMALL, **numbers)
    assert str(caught.value).startswith("scanner small: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preset("mmrr"), "'mmrr' is not known; expected one of ring_2d, mmr, mct"),
        (lambda: with_rings(MMR, 4), "4 planes; .* odd"),
        (lambda: with_rings(MMR, -1), "rings is 0"),
        (lambda: scanners.grid(MMR, voxel_mm=0.0), "voxel size: 0 mm"),
        (lambda: scanners.grid(MMR, size=0), r"grid: \(0, 0, 127\)"),
        (lambda: scanners.grid(MMR, planes=0), r"grid: \(228, 228, 0\)"),
        (lambda: scanners.grid(MMR, voxel_mm=500.0), "at least 2 × 2 × 1"),
        (lambda: Grid((4, 4, 1), (1.0, -1.0, 1.0)), "of a positive size"),
    ],
)
def test_other_bad_numbers_are_refused_in_one_line(call: Callable[[], object], message: str):
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_with_rings():
    assert with_rings(MMR, 127) == MMR
    assert with_rings(MMR, 5).planes == 5


@pytest.mark.parametrize("name", PRESETS)
def test_the_default_grid_fits(name: str):
    scanner = preset(name)
    grid = scanners.grid(scanner)
    reach = min(scanner.field_of_view_mm, (scanner.radius_mm + scanner.depth_mm) / np.sqrt(2))
    half = grid.shape[0] * grid.voxel_mm[0] / 2
    assert reach - grid.voxel_mm[0] < half <= reach
    assert grid.voxel_mm == (scanner.voxel_mm, scanner.voxel_mm, scanner.ring_spacing_mm / 2)
    assert grid.shape[2] == scanner.planes
    build_system(lors(scanner)[:2], replace(grid, shape=(*grid.shape[:2], 1)))  # its corners lie inside of the ring


def test_a_grid_to_order():
    assert scanners.grid(MMR, 128, 2.0, 5) == Grid((128, 128, 5), (2.0, 2.0, 2.03125))
    assert scanners.grid(SMALL, voxel_mm=8.0).shape == (14, 14, 7)  # ±63.4 mm is a corner's reach


@pytest.mark.parametrize("shape", [(4, 6, 3), (5, 3, 1)])
def test_the_centre_of_the_grid_is_the_origin(shape: tuple[int, int, int]):
    grid = Grid(shape, (2.0, 3.0, 1.5))
    middle = grid.affine @ [*(np.array(shape) - 1) / 2, 1]
    np.testing.assert_allclose(middle, [0, 0, 0, 1], atol=1e-12)
    x, y, z = centers_mm(grid)
    for index in np.ndindex(shape):
        want = (grid.affine @ [*index, 1])[:3]
        np.testing.assert_allclose([x[index[0], 0, 0], y[0, index[1], 0], z[0, 0, index[2]]], want, atol=1e-12)
        assert in_field_of_view(grid, 4.0)[index] == (want[0] ** 2 + want[1] ** 2 <= 16)
    assert grid.affine[0, 0] > 0 and grid.affine[1, 1] > 0 and grid.affine[2, 2] > 0  # RAS+
    assert grid.voxel_volume_mm3 == 9.0


def test_axial_gaps_of_the_mct():
    """4 blocks of 13 rings with a virtual one between them; a plane of virtual rings alone has no real pair."""
    assert np.flatnonzero(~scanners.real_rings(MCT)).tolist() == [13, 27, 41] and scanners.real_rings(MMR).all()
    for span, largest in ((1, 54), (11, 49)):
        planes = michelogram(55, span, largest)
        pairs, real = np.zeros(planes.planes), np.zeros(planes.planes)
        for first, second in product(range(55), repeat=2):
            if (plane := planes.plane_of_pair[first, second]) >= 0:
                pairs[plane] += 1
                real[plane] += first not in (13, 27, 41) and second not in (13, 27, 41)
        np.testing.assert_allclose(scanners.ring_coverage(MCT, planes), real / pairs, rtol=1e-15)
    direct = scanners.ring_coverage(MCT, michelogram(55, 1, 0))
    assert np.flatnonzero(direct == 0).tolist() == [13, 27, 41] and direct.sum() == 52


def test_coverage_in_3d():
    """Without axial gaps every plane has the coverage of the direct planes."""
    planes = michelogram(4, 3)
    covered = scanners.coverage3d(SMALL, planes)
    np.testing.assert_array_equal(covered, np.repeat(coverage(SMALL)[..., None], planes.planes, axis=2))
    blocks = replace(SMALL, axial_block=2)  # rings 1 and 3 are virtual
    crystals = coverage(SMALL)[..., None]
    np.testing.assert_allclose(scanners.coverage3d(blocks, planes), crystals * scanners.ring_coverage(blocks, planes))
    assert scanners.ring_coverage(blocks, michelogram(4, 1, 0)).tolist() == [1, 0, 1, 0]
    with pytest.raises(ConfigError, match="Michelogram of 5 rings; scanner small has 4"):
        scanners.ring_coverage(SMALL, michelogram(5))
    with pytest.raises(ConfigError, match="axial_block is 1; expected 0, or 2 rings or more"):
        replace(SMALL, axial_block=1)


def test_time_of_flight_of_the_presets():
    mct = preset_tof("mct")
    assert mct is not None and mct.bins * mct.bin_ps == 4062.5 and preset_tof("mmr") is None


@pytest.mark.parametrize(("name", "middle"), [("mmr", 0.0), ("mct", 0.25)])
def test_lines_of_response_are_where_the_page_of_formats_says(name: str, middle: float):
    """−x cos φ − y sin φ = R sin(π t / C)."""
    scanner = PRESETS[name]
    t = np.arange(scanner.bins) - scanner.bins // 2
    phi = np.pi * (np.arange(scanner.views)[:, None] + middle) / scanner.views - np.pi / scanner.crystals * (t % 2)
    s = (scanner.radius_mm + scanner.depth_mm) * np.sin(np.pi * t / scanner.crystals)
    for x, y in np.moveaxis(lors(scanner), (2, 3), (0, 1)):
        np.testing.assert_allclose(-x * np.cos(phi) - y * np.sin(phi), np.broadcast_to(s, x.shape), atol=1e-9)
