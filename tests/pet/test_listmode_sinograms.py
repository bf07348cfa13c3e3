"""3-D sinograms of list mode: all events of the real scan, none in a gap, and rings the right way round."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medjax.errors import ConfigError
from medjax.io.siemens_listmode import EventChunk, Events, ListmodeHeader, read_event_chunks
from medjax.pet import lor_projector
from medjax.pet.grid import Grid
from medjax.pet.listmode_sinograms import fill_sinograms
from medjax.pet.lor_system import build_lor_system
from medjax.pet.michelogram import michelogram, oblique_lors
from medjax.pet.scanner import coverage, lors, preset

HEADER = ListmodeHeader(5, 4, 3, 2, 0, 1.0, Path("scan.l.hdr"), Path("scan.l"), 0)


def test_an_event_goes_to_the_plane_of_its_rings():
    """Sinogram 3 of three rings is ring difference +1, rings 0 and 1 of the file: 2 and 1 here, the second crystal's
    first; view 2, bin 4."""
    address = (3 * 4 + 2) * 5 + 4
    chunks = [EventChunk(0, Events(np.array([address, address, 0], np.int32), np.array([True, False, True])))]
    planes = michelogram(3, 1)
    (filled,) = fill_sinograms(HEADER, chunks, planes)
    assert filled.prompts[2, 4, planes.plane_of_pair[1, 2]] == filled.delayeds[2, 4, planes.plane_of_pair[1, 2]] == 1
    assert filled.prompts[0, 0, planes.plane_of_pair[2, 2]] == 1 and filled.prompts.sum() == 2
    assert next(fill_sinograms(HEADER, chunks, michelogram(3, 1, 0))).left_out == (1, 1)
    with pytest.raises(ConfigError, match="3 rings; the Michelogram has 4"):
        fill_sinograms(HEADER, chunks, michelogram(4, 1))


def test_one_sinogram_a_frame():
    rng = np.random.default_rng(0)
    frames = [0, 0, 2, 2, 2, 5]  # chunks of frames 1, 3 and 4 are missing: no event was in them
    chunks = [
        EventChunk(frame, Events(rng.integers(0, 9 * 20, 50).astype(np.int32), rng.random(50) < 0.7))
        for frame in frames
    ]
    planes = michelogram(3, 3)
    filled = list(fill_sinograms(HEADER, iter(chunks), planes, 6))
    assert [int(f.prompts.sum() + f.delayeds.sum()) for f in filled] == [100, 0, 150, 0, 0, 50]
    (whole,) = fill_sinograms(HEADER, [EventChunk(0, chunk.events) for chunk in chunks], planes)
    np.testing.assert_array_equal(sum(f.prompts for f in filled), whole.prompts)
    np.testing.assert_array_equal(sum(f.delayeds for f in filled), whole.delayeds)
    (two,) = fill_sinograms(HEADER, [EventChunk(0, c.events) for c in chunks if c.frame == 2], planes)
    np.testing.assert_array_equal(filled[2].prompts, two.prompts)


def test_all_events_of_the_real_scan(test_data: Path):
    scan = test_data / "pet_listmode" / "small_listmode_file.l"
    with pytest.warns(UserWarning, match="words in its header"):
        header, chunks = read_event_chunks(scan)
    mmr, planes = preset("mmr"), michelogram(64, 11, 60)
    (filled,) = fill_sinograms(header, chunks, planes)
    assert (filled.prompts.sum(dtype=int), filled.delayeds.sum(dtype=int), filled.left_out) == (218_881, 35_320, (0, 0))
    assert not filled.prompts[coverage(mmr) == 0].any() and not filled.delayeds[coverage(mmr) == 0].any()
    # An image of direct planes expects the oblique prompts, in their segments and not in the opposite ones
    with pytest.warns(UserWarning, match="words in its header"):
        chunks = read_event_chunks(scan)[1]
    direct = next(fill_sinograms(header, chunks, michelogram(64, 3, 1))).prompts
    grid = Grid((60, 60, 127), (5.0, 5.0, mmr.ring_spacing_mm / 2))
    image = jnp.asarray(gaussian_filter(_backprojected(direct, grid), (1.5, 1.5, 3.0)), jnp.float32)
    view, bin_, plane = np.nonzero(filled.prompts)
    steep = np.abs(np.diff(planes.plane_rings, axis=1)[:, 0]) > 30
    chosen = steep[plane]
    expected = []
    for order in (slice(None), slice(None, None, -1)):
        rings = planes.plane_rings[plane[chosen]][:, order]
        z = (rings - 31.5) * mmr.ring_spacing_mm
        ends = np.concatenate([lors(mmr)[view[chosen], bin_[chosen]], z[..., None]], axis=-1)
        expected.append(np.asarray(lor_projector.project(build_lor_system(ends, grid), image)))
    gain = np.log(expected[0] + 1) - np.log(expected[1] + 1)  # of log-likelihood, an event
    assert gain.mean() > 5 * gain.std() / np.sqrt(gain.size)


def _backprojected(direct: np.ndarray, grid: Grid) -> np.ndarray:
    """Sum of the lines of response of the prompts of direct planes, near enough to an image."""
    mmr = preset("mmr")
    view, bin_, plane = np.nonzero(direct[..., :127])
    rings = michelogram(64, 3, 1).plane_rings[:127]
    ends = oblique_lors(lors(mmr), rings, mmr.ring_spacing_mm, 64)[view, bin_, plane]
    back = lor_projector.backproject(build_lor_system(ends, grid), jnp.ones(len(ends)))
    return np.asarray(back)
