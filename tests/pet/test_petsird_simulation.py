"""PETSIRD list mode of simulated counts against the package's helpers, and against the sinogram that it came from."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from medjax.errors import ConfigError
from medjax.pet import petsird_simulation, projection
from medjax.pet.grid import Grid
from medjax.pet.lor_geometry import from_end_points, views_along_x
from medjax.pet.lor_projector import project
from medjax.pet.lor_system import build_lor_system
from medjax.pet.michelogram import michelogram, oblique_lors
from medjax.pet.petsird_events import list_events
from medjax.pet.petsird_randoms import singles_rates
from medjax.pet.petsird_scanner import detectors
from medjax.pet.petsird_sensitivity import line_sensitivity
from medjax.pet.petsird_simulation import BLOCK_MS, BLOCKS, check_petsird, petsird_header, time_blocks
from medjax.pet.scan import pair_numbers, system_model
from medjax.pet.scanner import Scanner, lors, preset
from medjax.pet.tof import Tof

petsird = pytest.importorskip("petsird", reason="needs the extra petsird")
import petsird.helpers.geometry  # noqa: E402, F811

GAPS = Scanner(
    "gaps", crystals=48, rings=4, radius_mm=60.0, depth_mm=5.0, ring_spacing_mm=4.0, bins=32, voxel_mm=4.0, block=6,
    gaps=True,
)  # fmt: skip
AXIAL = replace(GAPS, name="axial", rings=5, axial_block=3, gaps=False, block=1, bins=31, depth_mm=0.0)
PRIME = replace(GAPS, name="prime", crystals=34, rings=17, gaps=False, block=1, bins=9)
TOF = Tof(4, 300.0, 250.0)
GRID = Grid((16, 16, 7), (4.0, 4.0, 2.0))


def valid_pairs(scanner: Scanner, planes: Any) -> Any:
    """Bins of the sinogram whose crystals are real, and the end points of its lines."""
    shape = (scanner.views, scanner.bins, planes.planes)
    ends = oblique_lors(lors(scanner), planes.plane_rings, scanner.ring_spacing_mm, scanner.rings)
    return np.broadcast_to(pair_numbers(scanner, planes), shape) > 0, ends


def events_of(blocks: Any) -> tuple[np.ndarray, np.ndarray]:
    """Prompts and delayeds of all blocks."""
    blocks = list(blocks)
    return tuple(np.concatenate([getattr(one, name)[0, 0] for one in blocks]) for name in ("prompts", "delayeds"))


def check_same_rows(found: np.ndarray, want: np.ndarray) -> None:
    """The same points to 0.01 mm, in any order."""
    distance, index = cKDTree(np.unique(np.round(want, 3), axis=0)).query(found)
    assert distance.max() < 0.01 and len(found) == len(want)
    counted = np.unique(np.round(want, 3), axis=0, return_counts=True)[1]
    np.testing.assert_array_equal(np.bincount(index, minlength=len(counted)), counted)


def unordered(ends: np.ndarray) -> np.ndarray:
    """Lines as points, the same whichever end is first: the middle and the half squares of the direction."""
    direction = (ends[:, 1] - ends[:, 0]) / 10
    return np.column_stack([ends.mean(axis=1), direction**2, direction[:, 0] * direction[:, 1]])


@pytest.mark.parametrize(("scanner", "largest"), [(GAPS, None), (GAPS, 2), (AXIAL, 3), (PRIME, 1)])
def test_the_header_has_the_lines_of_the_sinogram(scanner: Scanner, largest: int | None):
    planes = michelogram(scanner.rings, 1, largest)
    valid, ends = valid_pairs(scanner, planes)
    header = petsird_header(scanner, planes, None, 0.25)
    found = detectors(header, "simulated")
    (events, _) = events_of(time_blocks(0, valid.astype(np.float32), np.zeros_like(valid, float), scanner, planes))
    listed = list_events(found, {(0, 0): events})
    assert listed.left_out == 0 and len(events) == valid.sum() and len(np.unique(events[:, :2], axis=0)) == len(events)
    assert line_sensitivity(found, GRID).lors >= valid.sum()
    np.testing.assert_allclose(listed.events.factors, 0.25)
    check_same_rows(unordered(listed.events.end_points), unordered(ends[valid]))
    rng = np.random.default_rng(0)
    for first, second, _ in events[rng.integers(0, len(events), 5)].tolist():
        assert first > second
        assert petsird.helpers.get_detection_efficiency(header.scanner, (0, 0), first, second) == 0.25
        bin_ = petsird.helpers.expand_detection_bin(header.scanner, 0, first)
        box = petsird.helpers.geometry.get_detecting_box(header.scanner, 0, bin_)
        middle = np.mean([corner.c for corner in box.corners], axis=0)
        assert np.hypot(*middle[:2]) == pytest.approx(scanner.radius_mm + scanner.depth_mm, rel=1e-5)
    whole = found.types[0].efficiencies.size
    pairs = {(int(a), int(b)) for a, b, _ in events}
    tried = rng.integers(0, whole, (200, 2))
    for first, second in np.sort(tried[tried[:, 0] != tried[:, 1]], axis=1)[:, ::-1].tolist():
        efficiency = petsird.helpers.get_detection_efficiency(header.scanner, (0, 0), first, second)
        assert efficiency == (0.25 if (first, second) in pairs else 0)


def test_each_count_is_a_coincidence_on_its_line_in_its_tof_bin():
    planes = michelogram(GAPS.rings, 1)
    valid, ends = valid_pairs(GAPS, planes)
    rng = np.random.default_rng(1)
    counts = rng.poisson(0.3, (*valid.shape, TOF.bins)) * valid[..., None].astype(float)
    prompts, _ = events_of(time_blocks(3, counts, np.zeros_like(counts), GAPS, planes))
    header = petsird_header(GAPS, planes, TOF, 1.0)
    listed = list_events(detectors(header, "simulated"), {(0, 0): prompts})
    at = np.argwhere(np.ones_like(counts))[np.repeat(np.arange(counts.size), counts.ravel().astype(int))]
    lines, tof = ends[at[:, 0], at[:, 1], at[:, 2]], TOF.edges_mm
    middle = (tof[at[:, 3]] + tof[at[:, 3] + 1]) / 2

    def places(lines: np.ndarray, along: np.ndarray) -> np.ndarray:
        """The points at the middle of the time-of-flight bins: the same, whichever end is first."""
        direction = (lines[:, 1] - lines[:, 0]) / np.linalg.norm(lines[:, 1] - lines[:, 0], axis=1, keepdims=True)
        return lines.mean(axis=1) + direction * along[:, None]

    assert listed.events.tof_mm is not None and len(prompts) == counts.sum()
    want, found = places(lines, middle), places(listed.events.end_points, listed.events.tof_mm.mean(axis=1))
    check_same_rows(found, want)
    assert listed.events.tof_sd_mm is not None
    np.testing.assert_allclose(listed.events.tof_sd_mm, TOF.sd_mm, rtol=1e-6)


def test_times_are_uniform_and_delayeds_are_poisson():
    planes = michelogram(GAPS.rings, 1)
    valid, _ = valid_pairs(GAPS, planes)
    counts, additive = 5.0 * valid, 1.5 * valid
    blocks = list(time_blocks(0, counts, additive, GAPS, planes))
    assert [(one.start_ms, one.stop_ms) for one in blocks] == [
        (BLOCK_MS * k, BLOCK_MS * (k + 1)) for k in range(BLOCKS)
    ]
    numbers = np.array([len(one.prompts[0, 0]) for one in blocks])
    assert numbers.sum() == counts.sum()
    assert numbers.var() / numbers.mean() == pytest.approx(1, abs=0.5)  # ± 0.14 of a Poisson distribution
    delayeds = events_of(blocks)[1]
    assert len(delayeds) == pytest.approx(additive.sum(), abs=4 * additive.sum() ** 0.5)
    repeats = np.unique(delayeds[:, :2], axis=0, return_counts=True)[1]
    assert np.sum(repeats * (repeats - 1)) / valid.sum() == pytest.approx(1.5**2, rel=0.1)  # E n(n − 1) of Poisson
    again = list(time_blocks(0, counts, additive, GAPS, planes))
    np.testing.assert_array_equal(again[7].prompts[0, 0], blocks[7].prompts[0, 0])
    other = list(time_blocks(1, counts, additive, GAPS, planes))
    assert not np.array_equal(other[7].prompts[0, 0][:50], blocks[7].prompts[0, 0][:50])


@pytest.mark.parametrize("largest", [None, 2])
def test_randoms_of_delayeds_are_those_of_the_sinogram(largest: int | None):
    """The edge of the sinogram, and of the ring differences, lies inside modules: no line beyond it has delayeds."""
    planes = michelogram(GAPS.rings, 1, largest)
    valid, _ = valid_pairs(GAPS, planes)
    delayeds = events_of(time_blocks(0, 0.0 * valid, 40.0 * valid, GAPS, planes))[1]
    prompts = events_of(time_blocks(0, 1.0 * valid, 0.0 * valid, GAPS, planes))[0]
    rates = singles_rates(detectors(petsird_header(GAPS, planes, None, 1.0), "simulated"), {(0, 0): delayeds})
    expected = rates.expected((0, 0), prompts)
    assert expected.mean() == pytest.approx(40, rel=0.01)
    assert expected.std() < 0.02 * 40


@pytest.mark.parametrize("tof", [None, TOF])
def test_line_integrals_and_sensitivity_are_those_of_the_sinogram(tof: Tof | None, monkeypatch):
    """Both projectors walk a line along the same axis, but for lines next to the diagonal, where they may choose."""
    planes = michelogram(GAPS.rings, 1)
    valid, _ = valid_pairs(GAPS, planes)
    x, y, z = np.indices(GRID.shape)
    image = jnp.asarray((np.hypot(x - 7, y - 9) < 5) * (1 + 0.3 * z + 0.1 * x), jnp.float32)
    system = system_model(GAPS, GRID, planes, tof)
    integrals = np.asarray(projection.project(system, image)).reshape(*valid.shape, -1)
    mask = np.broadcast_to(valid[..., None], integrals.shape)
    counts = mask.astype(float) if tof else valid.astype(float)
    scanner = detectors(petsird_header(GAPS, planes, tof, 1.0), "simulated")
    chosen = views_along_x(from_end_points(lors(GAPS), GRID), GRID)
    assert chosen is not None
    bins = np.flatnonzero(mask)[:: mask.sum() // 200]
    events = []
    monkeypatch.setattr(petsird_simulation, "BLOCKS", 1)
    for number in bins:
        one = np.zeros(mask.size)
        one[number] = 1
        events.append(events_of(time_blocks(0, one.reshape(counts.shape), 0 * counts, GAPS, planes))[0])
    listed = list_events(scanner, {(0, 0): np.concatenate(events)})
    tof_of_events = {"tof_mm": listed.events.tof_mm, "tof_sd_mm": listed.events.tof_sd_mm}
    along_x = chosen[np.unravel_index(bins, mask.shape)[0]]
    lines = build_lor_system(listed.events.end_points, GRID, along_x=along_x, **tof_of_events)
    want = integrals.ravel()[bins]
    np.testing.assert_allclose(project(lines, image), want, atol=1e-4 * want.max())
    weights = jnp.asarray(counts, jnp.float32)
    want = np.asarray(projection.backproject(system, weights))
    np.testing.assert_allclose(line_sensitivity(scanner, GRID).image, want, atol=0.01 * want.max())


def test_sums_of_pairs_of_crystals_are_refused():
    for planes in (None, michelogram(4, 3)):
        with pytest.raises(ConfigError, match=r"expected --span 1$"):
            check_petsird(GAPS, planes)
    with pytest.raises(ConfigError, match="mct sums 2 views into one: expected another --scanner"):
        check_petsird(preset("mct"), michelogram(55, 1, 0))
    check_petsird(GAPS, michelogram(4, 3, 0))  # of ring difference 0 alone nothing is summed
