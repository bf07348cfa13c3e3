"""PETSIRD against the package's own helpers, and list mode of a block scanner reconstructed."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from medjax import iterate
from medjax.errors import ConfigError, DataError
from medjax.io.petsird import OtherBlock, TimeBlock, write_petsird
from medjax.pet import em, petsird_events
from medjax.pet.grid import Grid, centers_mm
from medjax.pet.listmode import acquire_events
from medjax.pet.lor_projector import backproject, project
from medjax.pet.lor_system import build_lor_system
from medjax.pet.petsird_events import list_events, read_petsird_scan, read_prompts
from medjax.pet.petsird_scanner import coincidence_efficiencies, detectors
from medjax.pet.petsird_sensitivity import line_sensitivity
from tests.petsird_scan import ELEMENTS, ENERGIES, MODULES, SHIFT, TOF, coincidences, header, petsird, time_blocks

expand_detection_bin = petsird.helpers.expand_detection_bin
get_detection_efficiency = petsird.helpers.get_detection_efficiency
get_detecting_box = petsird.helpers.geometry.get_detecting_box

HEADER = header()
SCANNER = detectors(HEADER, "blocks.petsird")
GRID = Grid((12, 12, 5), (4.0, 4.0, 3.0))


def test_lines_efficiencies_and_tof_bins_are_those_of_the_package():
    for pair, own in coincidences(HEADER, 12).items():
        listed = list_events(SCANNER, {pair: own})
        assert listed.left_out == 0 and listed.events.tof_mm is not None and listed.events.tof_sd_mm is not None
        for k, (first, second, tof) in enumerate(own.tolist()):
            want = get_detection_efficiency(HEADER.scanner, pair, first, second)
            assert listed.events.factors[k] == pytest.approx(want, rel=1e-5)
            for kind, bin_, found in zip(pair, (first, second), listed.events.end_points[k], strict=True):
                box = get_detecting_box(HEADER.scanner, kind, expand_detection_bin(HEADER.scanner, kind, bin_))
                want = np.mean([corner.c for corner in box.corners], axis=0) - [0, 0, SHIFT]
                np.testing.assert_allclose(found, want, atol=1e-4)
            edges = HEADER.scanner.tof_bin_edges[pair[0]][pair[1]].edges[tof : tof + 2]
            bins, fwhm = TOF[pair]
            np.testing.assert_allclose(listed.events.tof_mm[k], edges if bins > 1 else [-np.inf, np.inf])
            assert bins == 1 or listed.events.tof_sd_mm[k] == pytest.approx(fwhm / np.sqrt(8 * np.log(2)))


def test_pairs_without_coincidence_have_no_efficiency():
    own = np.array([[7, 0, 0], [20, 3, 0]], np.uint32)  # neighbouring modules; a dead crystal
    assert [get_detection_efficiency(HEADER.scanner, (0, 0), *map(int, e[:2])) for e in own] == [0, 0]
    listed = list_events(SCANNER, {(0, 0): own})
    assert listed.left_out == 2 and len(listed.events.factors) == 0


def _brute_force() -> np.ndarray:
    """Sum over all pairs of detection bins, by the package's helpers, one line at a time."""
    ends, weights, windows, sds = [], [], [], []
    for first, second in TOF:
        bins = [MODULES[k] * ELEMENTS[k][0] * ELEMENTS[k][1] * ENERGIES[k] for k in (first, second)]
        for a in range(bins[0]):
            for b in range(bins[1] if first != second else a):
                weight = get_detection_efficiency(HEADER.scanner, (first, second), a, b)
                if weight > 0:
                    places = [
                        SCANNER.types[kind].centers_mm.reshape(-1, 3)[bin_ // ENERGIES[kind]]
                        for kind, bin_ in ((first, a), (second, b))
                    ]
                    edges = HEADER.scanner.tof_bin_edges[first][second].edges
                    ends.append(places)
                    weights.append(weight)
                    windows.append(edges[[0, -1]] if TOF[first, second][0] > 1 else [-np.inf, np.inf])
                    sds.append(TOF[first, second][1] / np.sqrt(8 * np.log(2)) or 1.0)
    system = build_lor_system(np.array(ends), GRID, tof_mm=np.array(windows, float), tof_sd_mm=np.array(sds))
    return np.asarray(backproject(system, jnp.asarray(weights, jnp.float32)))


def test_sensitivity_of_all_lines_and_of_a_sample():
    want = _brute_force()
    whole = line_sensitivity(SCANNER, GRID)
    assert whole.variance is None and whole.lors == whole.taken
    np.testing.assert_allclose(whole.image, want, rtol=1e-4, atol=1e-4 * want.max())
    seen = want > 0.1 * want.max()
    ratios = []
    for seed in range(3):
        sample = line_sensitivity(SCANNER, GRID, max_lors=whole.lors // 2, seed=seed)
        assert sample.variance is not None and sample.lors == whole.lors and sample.taken < sample.lors
        squared = (np.asarray(sample.image) - want) ** 2
        ratios.append(squared[seen].mean() / np.asarray(sample.variance)[seen].mean())
    assert 0.5 < np.mean(ratios) < 2  # the squared error is what the variance says
    half = line_sensitivity(SCANNER, GRID, factors=lambda ends: np.full(len(ends), 0.5))
    np.testing.assert_allclose(2 * half.image, whole.image, rtol=1e-5)


def test_tof_of_a_line_is_that_of_its_pair_of_types():
    """A point source on a line: the share of each bin by the normal distribution of the pair's resolution."""
    pair = (0, 0)
    first, second = 4 * 12 + 4, 4  # modules opposite each other
    edges = np.asarray(HEADER.scanner.tof_bin_edges[0][0].edges, float)
    own = np.array([[first, second, tof] for tof in range(TOF[pair][0])], np.uint32)
    listed = list_events(SCANNER, {pair: own})
    grid = Grid((41, 41, 7), (2.0, 2.0, 2.0))
    system = build_lor_system(
        listed.events.end_points, grid, tof_mm=listed.events.tof_mm, tof_sd_mm=listed.events.tof_sd_mm
    )
    ends = listed.events.end_points[0]
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    place = ends.mean(axis=0) + 16 * along  # towards the second detector: it arrives later at the first
    x, y, z = (c - p for c, p in zip(centers_mm(grid), place, strict=True))
    source = jnp.asarray(np.exp(-(x**2 + y**2 + z**2) / (2 * 3.0**2)), jnp.float32)
    found = np.asarray(project(system, source))
    sd = np.hypot(TOF[pair][1] / np.sqrt(8 * np.log(2)), 3.0)
    np.testing.assert_allclose(
        found / found.sum(), np.diff(ndtr((edges - 16) / sd)) / np.ptp(ndtr((edges[[0, -1]] - 16) / sd)), atol=0.01
    )


def test_frames_of_time_blocks(tmp_path, monkeypatch):
    blocks = time_blocks(HEADER, 6)
    path = tmp_path / "scan.petsird"
    write_petsird(
        path,
        HEADER,
        [*blocks[:3], OtherBlock("ExternalSignalTimeBlock", petsird.ExternalSignalTimeBlock()), *blocks[3:]],
    )
    whole = read_petsird_scan(path)
    assert whole.duration_s == 0.06 and whole.not_used == ("ExternalSignalTimeBlock",)
    total = tuple(
        sum(sum(map(len, own.values())) for own in kind)
        for kind in zip(*[(b.prompts, b.delayeds) for b in blocks], strict=True)
    )
    assert whole.frames[0].counts == total and total[0] > total[1] > 0
    frames = read_petsird_scan(path, [(0.0, 0.02), (0.02, 0.05), (0.05, 0.06)]).frames
    assert tuple(np.sum([f.counts for f in frames], axis=0)) == total
    (prompts,) = read_prompts(path, (0.0, 0.02))
    np.testing.assert_array_equal(prompts[1, 0], np.concatenate([b.prompts[1, 0] for b in blocks[:2]]))
    monkeypatch.setattr(petsird_events, "_CHUNK", 1)
    parts = list(read_prompts(path))
    assert len(parts) == len(blocks) and sum(len(one) for part in parts for one in part.values()) == total[0]
    assert read_petsird_scan(path, [(0.01, 0.02)]).frames[0].counts == tuple(
        sum(map(len, own.values())) for own in blocks[1][2:]
    )
    with pytest.raises(ConfigError, match=r"frame 1, 0 to 0.07 s, ends after the scan, which lasts 0.06 s"):
        read_petsird_scan(path, [(0.0, 0.07)])


def _changed(**changes):
    changed = header()
    for name, value in changes.items():
        own = changed.scanner.detection_efficiencies
        if name == "bin":
            own.detection_bin_efficiencies[1][5] = value
        elif name == "pair":
            own.module_pair_efficiencies_vectors[1][0][1].values[1][2] = value
        elif name == "group":
            own.module_pair_sgidlut[0][0][7][2] = value
        elif name == "fwhm":
            changed.scanner.tof_resolution[1][1] = value
        elif name == "edges":
            changed.scanner.tof_bin_edges[0][0].edges = np.float32(value)
        elif name == "calibration":
            own.calibration_factor = value
        elif name == "types":
            own.detection_bin_efficiencies.pop()
        elif name == "energies":
            changed.scanner.event_energy_bin_edges[0] = petsird.BinEdges(edges=np.float32([430, 500, 600, 650]))
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bin": np.nan}, "efficiencies of module type 1: nan at index 5; expected finite numbers of 0 or more"),
        ({"pair": np.nan}, "module types 1 and 0: efficiencies of pairs: nan at index"),
        ({"bin": -1.0}, "-1 at index 5"),
        ({"pair": np.inf}, "inf at index"),
        ({"group": 99}, "module types 0 and 0: symmetry group 99; expected less than"),
        ({"fwhm": 0.0}, "module types 1 and 1: a TOF resolution of 0 mm"),
        ({"fwhm": np.nan}, "a TOF resolution of nan mm"),
        ({"edges": [0, 2, 1, 3]}, "TOF bin edges that do not grow"),
        ({"calibration": np.nan}, "calibration factor nan"),
        ({"types": 0}, "efficiencies of 1 types of modules; expected those of all 2"),
        ({"energies": 0}, "96 values; expected 8 modules × 6 elements × 3"),
    ],
)
def test_headers_that_are_refused(tmp_path, change, message):
    path = tmp_path / "scan.petsird"
    write_petsird(path, _changed(**change), [])
    with pytest.raises(DataError, match=message) as caught:
        read_petsird_scan(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_coincidences_that_are_refused(tmp_path):
    path = tmp_path / "scan.petsird"
    moved = petsird.BedMovementTimeBlock(
        transform=petsird.RigidTransformation(matrix=np.eye(3, 4, 1, dtype=np.float32))
    )
    for blocks, message in (
        (
            [TimeBlock(0, 1, {(0, 0): np.array([[96, 1, 0]])}, {})],
            "detection bin 96 of module types 0 and 0, which have 96",
        ),
        ([TimeBlock(0, 1, {}, {(1, 1): np.array([[7, 1, 3]])})], "TOF bin 3 of module types 1 and 1, which have 3"),
        ([TimeBlock(0, 1, {(2, 0): np.array([[1, 1, 0]])}, {})], "module types 2 and 0; it has 2"),
        ([TimeBlock(9, 1, {}, {})], "from 9 to 1 ms"),
        ([OtherBlock("BedMovementTimeBlock", moved)], "the bed or the gantry moves"),
    ):
        write_petsird(path, HEADER, blocks)
        with pytest.raises((DataError, ConfigError), match=message):
            read_petsird_scan(path)


def test_without_efficiencies_all_modules_are_in_coincidence():
    bare = header()
    bare.scanner.detection_efficiencies = petsird.DetectionEfficiencies()
    scanner = detectors(bare, "bare")
    bins = [m * a * b for m, (a, b) in zip(MODULES, ELEMENTS, strict=True)]
    lines = bins[0] * (bins[0] - 1) // 2 + bins[0] * bins[1] + bins[1] * (bins[1] - 1) // 2
    assert line_sensitivity(scanner, GRID).lors == lines
    listed = list_events(scanner, coincidences(HEADER, 5))
    assert np.all(listed.events.factors == 1)


def test_a_source_is_reconstructed():
    """Poisson counts of every detection bin pair and TOF bin of a warm cylinder with a hot spot off the centre."""
    x, y, z = centers_mm(GRID)
    truth = (np.hypot(x, y) < 18) * (1.0 + 4 * (np.hypot(x - 8, y + 4) < 5)) + 0 * z
    rng = np.random.default_rng(0)
    found = {}
    for pair in TOF:
        bins = [MODULES[k] * ELEMENTS[k][0] * ELEMENTS[k][1] * ENERGIES[k] for k in pair]
        all_pairs = np.argwhere(np.tri(*bins, k=-1, dtype=bool) if pair[0] == pair[1] else np.ones(bins, bool))
        own = np.column_stack(
            [np.repeat(all_pairs, TOF[pair][0], axis=0), np.tile(np.arange(TOF[pair][0]), len(all_pairs))]
        )
        listed = list_events(SCANNER, {pair: own.astype(np.uint32)})
        own = own[coincidence_efficiencies(SCANNER, pair, own[:, :2]) > 0]
        system = build_lor_system(
            listed.events.end_points, GRID, tof_mm=listed.events.tof_mm, tof_sd_mm=listed.events.tof_sd_mm
        )
        mean = np.asarray(project(system, jnp.asarray(truth, jnp.float32))) * listed.events.factors
        found[pair] = np.repeat(own, rng.poisson(20 * mean), axis=0).astype(np.uint32)
    listed = list_events(SCANNER, found)
    acquisition = acquire_events(listed.events, GRID, line_sensitivity(SCANNER, GRID).image, 0.0)
    image = np.asarray(iterate.scan(em.mlem(acquisition), em.init(acquisition), 40)[0].image) / 20
    seen = np.hypot(x, y) < 22
    seen = np.broadcast_to(seen, truth.shape)
    assert np.corrcoef(image[seen], truth[seen])[0, 1] > 0.85
    assert image[truth > 0].mean() == pytest.approx(truth[truth > 0].mean(), rel=0.05)
