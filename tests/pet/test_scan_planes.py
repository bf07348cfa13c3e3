"""Oblique planes and time of flight in files: counts files and Interfile give the same scan, and what is refused."""

from typing import Any

import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.io.counts import Counts, read_counts, write_counts
from medjax.io.interfile_output import write_sinograms
from medjax.io.interfile_sinograms import Sinograms, TofBins, reverse_rings
from medjax.pet.io import load_scan, scan_from_counts
from medjax.pet.michelogram import Michelogram, Segment, michelogram
from medjax.pet.plane_metadata import plane_metadata
from medjax.pet.scan import pair_numbers, select_segments, sum_planes
from medjax.pet.scanner import coverage, preset
from medjax.pet.tof import Tof

MMR, MCT = preset("mmr"), preset("mct")
PLANES, TOF = michelogram(3, 3), Tof(5, 400.0, 500.0)


def counts(bins: Tof | None = TOF, planes: Michelogram = PLANES, **metadata: Any) -> Counts:
    shape = (MMR.views, MMR.bins, planes.planes)
    values = np.random.default_rng(0).poisson(2, shape if bins is None else (*shape, bins.bins)).astype(np.float32)
    told = plane_metadata(planes, bins) | metadata
    return Counts(values, np.zeros_like(values), np.ones(shape, np.float32), "mmr", told)


@pytest.mark.parametrize("tof", [None, TOF])
def test_a_counts_file_keeps_planes_and_bins(tmp_path, tof: Tof | None):
    made = counts(tof)
    write_counts(tmp_path / "a.npz", made)
    stored = np.load(tmp_path / "a.npz")["counts"]
    assert stored.shape == (*(() if tof is None else (tof.bins,)), PLANES.planes, MMR.views, MMR.bins)
    np.testing.assert_array_equal(read_counts(tmp_path / "a.npz").counts, made.counts)
    scan = load_scan(tmp_path / "a.npz")
    np.testing.assert_array_equal(scan.counts, made.counts)
    assert (scan.michelogram, scan.tof, scan.slices) == (PLANES, tof, 5)


@pytest.mark.parametrize("tof", [None, TOF])
def test_interfile_of_all_segments_is_the_same_scan(tmp_path, tof: Tof | None):
    """STIR numbers rings from the head and time-of-flight bins towards the first crystal."""
    made = counts(tof).counts
    array = made.transpose(2, 0, 1) if tof is None else made[..., ::-1].transpose(3, 2, 0, 1)
    bands = tuple((one.lowest, one.highest) for one in PLANES.segments)
    bins = None if tof is None else TofBins(tof.bins, tof.bin_ps, tof.resolution_ps)
    ours = Sinograms(np.ascontiguousarray(array), bands, PLANES.planes_per_segment, 3, bins)
    write_sinograms(tmp_path / "a.hs", reverse_rings(ours), scanner="Siemens mMR")
    scan = load_scan(tmp_path / "a.hs", "mmr")
    np.testing.assert_array_equal(scan.counts, made)
    assert scan.michelogram == PLANES and (scan.tof is None) == (tof is None)
    np.testing.assert_array_equal(scan.multiplicative, pair_numbers(scan.scanner, PLANES))
    with pytest.raises(ConfigError, match=r"--span 11; the planes of .*a\.hs have span 3"):
        load_scan(tmp_path / "a.hs", "mmr", span=11)


def test_segments_are_selected():
    scan = scan_from_counts(counts())
    only = select_segments(scan, 1)
    assert only.michelogram == Michelogram(3, (Segment(-1, 1),)) and only.slices == 5
    np.testing.assert_array_equal(only.counts, scan.counts[:, :, : PLANES.planes_per_segment[0]])
    with pytest.raises(ConfigError, match="--max-ring-difference 0: no segment is within"):
        select_segments(scan, 0)
    with pytest.raises(ConfigError, match="--sum-planes 2 goes with direct planes"):
        sum_planes(scan, 2)


def test_pairs_of_rings_in_gaps_do_not_count():
    whole = michelogram(MCT.rings, 1, 2)
    pairs = pair_numbers(MCT, whole)
    virtual = np.isin(whole.plane_rings, (13, 27, 41)).any(axis=1)
    assert virtual.sum() == 3 + 2 * 6 + 2 * 6 and not pairs[:, :, virtual].any()
    np.testing.assert_allclose(
        pairs[:, :, ~virtual], np.broadcast_to(coverage(MCT)[..., None], pairs.shape)[:, :, ~virtual]
    )
    np.testing.assert_array_equal(pair_numbers(MMR, None), coverage(MMR).astype(np.float32)[..., None])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"rings": 4}, r"19 planes|planes; the segments of its metadata have"),
        ({"rings": "3"}, "rings '3' in its metadata"),
        ({"rings": 10**9}, "rings 1000000000 in its metadata"),
        ({"segments": [[0, 0], [2]]}, r"no \[smallest, largest ring difference\] each"),
        ({"segments": [[-1, 1], [0, 2], [-2, 0]]}, "two share a ring difference"),
        ({"segments": [[-1, 1], [2, 2]]}, "one has no opposite"),
        ({"segments": "all"}, r"no \[smallest"),
        ({"tof": None}, "no tof in its metadata"),
        ({"tof": {"bins": 5, "bin_ps": 0.4, "resolution_ps": 500}}, r"bin width of 0\.4 ps; expected .*400 ps if"),
        ({"tof": {"bins": 7, "bin_ps": 400, "resolution_ps": 500}}, "5 time-of-flight bins; its metadata say 7"),
        ({"tof": {"bins": True, "bin_ps": 400, "resolution_ps": 500}}, "no tof in its metadata"),
    ],
)
def test_metadata_that_contradict_the_counts(metadata: dict[str, Any], message: str):
    with pytest.raises(DataError, match=f"^counts: .*({message})"):
        scan_from_counts(counts(**metadata))


def test_other_shapes_are_refused(tmp_path):
    with pytest.raises(DataError, match="no time-of-flight axis; its metadata say 5 bins"):
        scan_from_counts(counts(None, tof={"bins": 5, "bin_ps": 400, "resolution_ps": 500}))
    with pytest.raises(DataError, match=r"65 rings; mmr has"):
        scan_from_counts(counts(None, michelogram(65, 1, 0)))
    write_counts(tmp_path / "a.npz", counts())
    entries = dict(np.load(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", **entries | {"multiplicative": entries["multiplicative"][1:]})
    with pytest.raises(DataError, match=r"multiplicative has \(view, bin, plane\) \(252, 344, 6\)"):
        load_scan(tmp_path / "b.npz")
