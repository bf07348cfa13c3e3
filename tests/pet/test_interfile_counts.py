"""Counts with their factors in Interfile: where STIR looks for each bin, and the same scan when read."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.counts import Counts
from medjax.pet.interfile_counts import interfile_names, write_interfile_counts
from medjax.pet.interfile_scan import Factors
from medjax.pet.io import load_scan, scan_from_counts
from medjax.pet.michelogram import Michelogram, michelogram
from medjax.pet.plane_metadata import plane_metadata
from medjax.pet.scanner import preset, with_rings
from medjax.pet.tof import Tof

MMR = with_rings(preset("mmr"), 5)
TOF = Tof(3, 400.0, 500.0)
PLANES = [None, michelogram(3, 1), michelogram(3, 3), michelogram(3, 1, 1)]


def random_counts(planes: Michelogram | None, tof: Tof | None) -> Counts:
    rng = np.random.default_rng(0)
    shape = (MMR.views, MMR.bins, 5 if planes is None else planes.planes)
    full = shape if tof is None else (*shape, tof.bins)
    arrays = [rng.uniform(0.5, 2, one).astype(np.float32) for one in (full, full, shape)]
    return Counts(*arrays, "mmr", plane_metadata(planes, tof))


@pytest.mark.parametrize(
    ("planes", "tof"), [(None, None), *((one, bins) for one in PLANES[1:] for bins in (None, TOF))]
)
def test_the_scan_is_the_same(tmp_path, planes: Michelogram | None, tof: Tof | None):
    counts, path = random_counts(planes, tof), tmp_path / "a.hs"
    write_interfile_counts(path, counts, MMR, corrections=("attenuation",))
    assert sorted(tmp_path.iterdir()) == sorted(interfile_names(path))
    factors = Factors(tmp_path / "a_additive.hs", tmp_path / "a_multiplicative.hs")
    scan, want = load_scan(path, "mmr", factors=factors), scan_from_counts(counts)
    for name in ("counts", "additive", "multiplicative"):
        np.testing.assert_array_equal(getattr(scan, name), getattr(want, name))
    assert (scan.michelogram, scan.slices, scan.plane_mm) == (want.michelogram, want.slices, want.plane_mm)
    assert [*scan.corrections] == ["attenuation"]
    assert tof is None or (scan.tof is not None and scan.tof.edges_mm == pytest.approx(tof.edges_mm))


def test_a_count_is_where_stir_looks_for_it(tmp_path):
    """View 7, bin 20, from ring 0 to ring 2, in the last time-of-flight bin: towards the second crystal.

    STIR numbers these rings 2 and 0, so it is in the plane of segment −2, the last one of segments 0, +1, −1, +2, −2;
    its time-of-flight bins grow towards the first crystal, so it is in the first. Segments are stored by view.
    """
    planes = michelogram(3, 1)
    counts = random_counts(planes, TOF)
    counts.counts[:] = 0
    counts.counts[7, 20, planes.plane_of_pair[0, 2], 2] = 5
    write_interfile_counts(tmp_path / "a.hs", counts, MMR)
    stored = np.fromfile(tmp_path / "a.s", "<f4").reshape(3, -1)
    per_plane = MMR.views * MMR.bins
    assert np.flatnonzero(stored).tolist() == [(planes.planes - 1) * per_plane + 7 * MMR.bins + 20]
    header = (tmp_path / "a.hs").read_text()
    for line in (
        "originating system := Siemens mMR",
        "minimum ring difference per segment := { 0, 1, -1, 2, -2}",
        "number of detectors per ring := 504",
        "inner ring diameter (cm) := 65.6",
        "applied corrections := {None}",
    ):
        assert f"\n{line}\n" in header, line


def test_other_names_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected a name that ends in \.hs"):
        write_interfile_counts(tmp_path / "a.s", random_counts(None, None), MMR)
    assert not list(tmp_path.iterdir())
