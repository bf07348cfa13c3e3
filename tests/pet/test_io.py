"""Loading counts: which way planes run, what is refused, the estimate of randoms, adding planes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from medjax.errors import ConfigError, DataError
from medjax.io.counts import Counts, write_counts
from medjax.io.interfile import write_sinogram
from medjax.io.siemens_listmode import ring_pairs, sinogram_rings
from medjax.pet.interfile_scan import Factors
from medjax.pet.io import load_scan, scan_from_counts
from medjax.pet.randoms import estimate_randoms
from medjax.pet.scan import Scan, correction_note, image_affine, image_grid, sum_planes
from medjax.pet.scanner import coverage, crystal_pairs, preset

MMR, RING = preset("mmr"), preset("ring_2d")
HEADER = """!INTERFILE:=
name of data file := scan.l
data format:=CoincidenceList
number of rings:=64
image duration (sec):=1
%total listmode word counts:={words}
%LM event and tag words format (bits):=32
%axial compression:=1
%maximum ring difference:=60
%patient orientation:=HFS
%number of projections:=344
%number of views:=252
"""
PROMPT = 1 << 30


def listmode_file(folder, events, rest=b""):
    """`events`: (sinogram, view, bin, prompt)."""
    words = [(s * 252 + view) * 344 + bin_ | PROMPT * prompt for s, view, bin_, prompt in events]
    (folder / "scan.l").write_bytes(np.array(words, "<u4").tobytes() + rest)
    (folder / "scan.l.hdr").write_text(HEADER.format(words=len(words)))
    return folder / "scan.l"


def npz(path, planes=1, scanner="ring_2d", **changes):
    shape = (RING.views, RING.bins, planes)
    arrays = {"counts": np.ones(shape), "additive": np.zeros(shape), "multiplicative": np.ones(shape)}
    write_counts(path, Counts(**{**arrays, "scanner": scanner, **changes}))
    return path


def simple(planes, seed=0):
    counts = np.random.default_rng(seed).poisson(3.0, (4, 6, planes)).astype(np.float32)
    return Scan(counts, counts + 1, counts + 2, RING, plane_mm=2.0, center_mm=(1.0, 2.0, 3.0))


def test_counts_in_memory_are_the_scan_of_their_file(tmp_path):
    shape = (RING.views, RING.bins, 1)
    made = Counts(np.full(shape, 3.0), np.ones(shape), np.ones(shape), "ring_2d", {"centre_mm": [1, 2, 3]})
    write_counts(tmp_path / "a.npz", made)
    scan, kept = scan_from_counts(made), load_scan(tmp_path / "a.npz")
    np.testing.assert_array_equal(scan.counts, kept.counts)
    assert (scan.scanner, scan.center_mm, scan.summary) == (kept.scanner, kept.center_mm, kept.summary)
    with pytest.raises(DataError, match=r"^counts: scanner 'mine'; expected one of"):
        scan_from_counts(replace(made, scanner="mine"))
    with pytest.raises(DataError, match=r"^counts: holds no counts"):
        scan_from_counts(replace(made, counts=np.zeros(shape)))


# ── list mode ──


def test_ring_0_of_list_mode_is_at_the_head(tmp_path):
    """64 direct sinograms, then 63 of difference 1, 63 of −1, 62 of 2: rings 0 + 2 make plane 126 − 2."""
    plane_of = {0: 126, 63: 0, 10: 106, 64: 125, 64 + 62: 1, 64 + 63: 125, 64 + 126: 124}
    events = [(sinogram, 7 + 9 * k, 172, True) for k, sinogram in enumerate(plane_of)]
    scan = load_scan(listmode_file(tmp_path, events), "mmr", max_ring_difference=2)
    view, bin_, plane = np.nonzero(scan.counts)
    assert dict(zip(((view - 7) // 9).tolist(), plane.tolist(), strict=True)) == dict(enumerate(plane_of.values()))
    assert set(bin_) == {172}


def test_list_mode_becomes_prompts_factors_and_randoms(tmp_path):
    events = [(0, 7, 172, True), (20, 100, 100, True), (64 + 126 + 124, 1, 172, True), (20, 100, 200, False)]
    scan = load_scan(listmode_file(tmp_path, events), "mmr", max_ring_difference=2)
    assert scan.summary == "3 prompts and 1 delayeds; 2 and 1 with |ring difference| ≤ 2"
    assert correction_note(scan) == "real data, no attenuation or normalisation correction"
    assert correction_note(scan, attenuation_corrected=True) == "real data, no normalisation correction"
    assert scan.counts.sum() == 2 and scan.additive.sum() == pytest.approx(1, rel=1e-5)
    gaps = coverage(MMR) == 0
    assert not scan.additive[gaps].any() and not scan.multiplicative[gaps].any()
    assert scan.multiplicative[7, 172, [0, 1, 2, 60, 61]] == pytest.approx([1 / 3, 2 / 3, 1, 1, 2 / 3])


@pytest.mark.parametrize("most", [0, 1, 5, 60])
def test_ring_pairs_are_counted(most):
    first, second = np.meshgrid(np.arange(64), np.arange(64))
    near = np.abs(first - second) <= most
    expected = np.bincount((first + second)[near], minlength=127)
    np.testing.assert_allclose(ring_pairs(64, most), expected / expected.max())
    assert sinogram_rings(64, most)[0].size == near.sum()


def test_list_mode_needs_a_scanner_that_fits_it(tmp_path):
    path = listmode_file(tmp_path, [(0, 7, 172, True)])
    with pytest.raises(ConfigError, match="give --scanner, one of ring_2d, mmr, mct"):
        load_scan(path)
    with pytest.raises(DataError, match="252 views, 344 bins, 64 rings; mct has 168, 400, 55"):
        load_scan(path, "mct")


def test_events_in_gaps_are_told_of(tmp_path):
    view, bin_ = np.argwhere(coverage(MMR) == 0)[1000]
    with pytest.warns(UserWarning, match="1 events in the gaps"):
        load_scan(listmode_file(tmp_path, [(0, view, bin_, True), (0, 7, 172, True)]), "mmr")


# ── randoms ──


def test_half_a_turn_reverses_the_bins():
    """What the smoothing takes the next half turn's views to be: the same crystals, the other way round."""
    first, second = crystal_pairs(MMR)
    t = np.arange(MMR.bins) - MMR.bins // 2
    view = np.arange(MMR.views)[:, None] + MMR.views
    ahead = (view + t // 2) % MMR.crystals, (view - (t + 1) // 2 + MMR.crystals // 2) % MMR.crystals
    partner = 2 * (MMR.bins // 2) - np.arange(1, MMR.bins)
    np.testing.assert_array_equal(ahead[0][:, 1:], second[:, 0, partner] % MMR.crystals)
    np.testing.assert_array_equal(ahead[1][:, 1:], first[:, 0, partner] % MMR.crystals)


@pytest.mark.parametrize("bins", [21, 20])
def test_smoothing_is_a_gaussian_over_the_whole_turn(bins):
    sinogram = np.random.default_rng(0).random((40, bins, 9)).astype(np.float32)
    partner = 2 * (bins // 2) - np.arange(bins)
    ahead = np.where((partner < bins)[None, :, None], sinogram[:, np.minimum(partner, bins - 1)], 0)
    seen = np.ones_like(sinogram)
    seen_ahead = np.where((partner < bins)[None, :, None], seen, 0)

    def smooth(half, other):
        turn = np.concatenate([half, other])
        for axis, (width, mode) in enumerate([(8.0, "wrap"), (5.0, "constant"), (3.0, "constant")]):
            turn = gaussian_filter1d(turn.astype(float), width / 2.354820045, axis=axis, mode=mode, truncate=5.2)
        return turn[:40]

    expected = smooth(sinogram, ahead) / smooth(seen, seen_ahead)
    estimate = estimate_randoms(sinogram, seen, (8.0, 5.0, 3.0))
    np.testing.assert_allclose(estimate, expected * sinogram.sum() / expected.sum(), rtol=2e-4)


def test_uniform_randoms_come_back_whatever_is_seen():
    seen = (np.random.default_rng(1).random((60, 30, 11)) > 0.3) * np.linspace(0.2, 1, 11)
    seen = seen.astype(np.float32)
    np.testing.assert_allclose(estimate_randoms(0.4 * seen, seen), 0.4 * seen, rtol=1e-5)


def test_randoms_are_found_again_from_few_delayeds():
    view, bin_, plane = np.ogrid[:252, -172:172, -30:31]
    seen = np.broadcast_to(coverage(MMR)[..., None], (252, 344, 61)).astype(np.float32)
    rate = (
        seen
        * (1 + 0.3 * np.cos(np.pi * bin_ / 172))
        * (1 + 0.2 * plane / 30)
        * (1 + 0.1 * np.cos(2 * np.pi * view / 252))
    )
    rate *= 20_000 / rate.sum()
    delayeds = np.random.default_rng(0).poisson(rate).astype(np.float32)
    estimate = estimate_randoms(delayeds, seen)
    assert estimate.sum() == pytest.approx(delayeds.sum(), rel=1e-5)
    assert not estimate[seen == 0].any()
    error = np.sqrt(np.mean((estimate - rate)[seen > 0] ** 2)) / rate[seen > 0].mean()
    assert error < 0.12  # the counts within the kernel's reach allow for 0.09
    assert estimate_randoms(np.zeros_like(seen), seen).sum() == 0


# ── planes ──


@pytest.mark.parametrize(("planes", "number"), [(7, 1), (6, 3), (7, 2), (7, 3), (5, 5), (127, 4)])
def test_summed_planes_keep_counts_and_places(planes, number):
    scan = simple(planes)
    summed = sum_planes(scan, number)
    assert summed.counts.shape == (4, 6, -(-planes // number)) and summed.plane_mm == 2.0 * number
    for name in ("counts", "multiplicative", "additive"):
        whole, parts = getattr(scan, name), getattr(summed, name)
        np.testing.assert_allclose(parts.sum(axis=2), whole.sum(axis=2), rtol=1e-6)
    before, after = (image_affine(image_grid(one, 8), one.center_mm) for one in (scan, summed))
    heights = {p: (before @ [0, 0, p, 1])[2] for p in range(planes)}
    inner = summed.counts.shape[2] // 2  # a group that no padding shortens
    below = sum_planes(scan, number).counts[..., :inner].sum()
    start = next(p for p in range(planes + 1) if np.isclose(scan.counts[..., :p].sum(), below))
    middle = np.mean([heights[p] for p in range(start, min(start + number, planes))])
    assert (after @ [0, 0, inner, 1])[2] == pytest.approx(middle)
    np.testing.assert_allclose((after @ [3.5, 3.5, 0, 1])[:2], (1, 2), atol=1e-9)


@pytest.mark.parametrize("number", [0, -1, 8])
def test_planes_that_are_not_there_are_not_summed(number):
    with pytest.raises(ConfigError, match=f"--sum-planes {number}; expected 1 to 7"):
        sum_planes(simple(7), number)


# ── Interfile and npz ──


def interfile(path, planes=5, **values):
    sinogram = np.zeros((planes, MMR.views, MMR.bins), np.float32)
    for plane, value in values.items():
        sinogram[int(plane[1:]), 7, 172] = value
    write_sinogram(path, sinogram, max_ring_difference=1)
    return path


def test_interfile_planes_are_turned_over_like_list_mode(tmp_path):
    counts = interfile(tmp_path / "c.hs", p0=3)
    scan = load_scan(counts, "mmr")
    assert [i.tolist() for i in np.nonzero(scan.counts)] == [[7], [172], [4]]
    np.testing.assert_array_equal(scan.multiplicative[..., 1], coverage(MMR))
    assert not scan.additive.any() and correction_note(scan) == "no attenuation or normalisation correction"
    more = {"additive": interfile(tmp_path / "a.hs", p1=0.5), "multiplicative": interfile(tmp_path / "m.hs", p0=0.25)}
    scan = load_scan(counts, "mmr", factors=Factors(**more))
    assert (scan.additive[7, 172, 3], scan.multiplicative[7, 172, 4], correction_note(scan)) == (0.5, 0.25, "")


@pytest.mark.parametrize(
    ("planes", "values", "message"),
    [
        (4, {"p0": 1}, "4 planes; mmr has 252 views, 344 bins and an odd number of planes up to 127"),
        (129, {"p0": 1}, "129 planes; mmr"),
        (5, {"p0": -1}, "c.hs: 1 negative bins"),
        (5, {}, "c.hs: holds no counts"),
    ],
)
def test_interfile_counts_that_cannot_be_used(tmp_path, planes, values, message):
    with pytest.raises(DataError, match=message):
        load_scan(interfile(tmp_path / "c.hs", planes, **values), "mmr")


def test_additive_of_another_shape_or_for_another_kind(tmp_path):
    counts, other = interfile(tmp_path / "c.hs", p0=3), interfile(tmp_path / "a.hs", 3, p0=1)
    with pytest.raises(DataError, match=r"a\.hs: \(view, bin, plane\) \(252, 344, 3\); the counts have"):
        load_scan(counts, "mmr", factors=Factors(other))
    with pytest.raises(ConfigError, match=r"--additive goes with Interfile counts only; .* is npz"):
        load_scan(npz(tmp_path / "c.npz"), factors=Factors(other))


def test_a_counts_file_names_scanner_centre_and_truth(tmp_path):
    truth, affine = np.ones((3, 3, 1), np.float32), np.diag([4.0, 4, 2, 1])
    path = npz(tmp_path / "c.npz", metadata={"centre_mm": [1, -2.5, 3]}, truth=truth, affine=affine)
    scan = load_scan(path)
    assert (scan.scanner, scan.center_mm, scan.plane_mm) == (RING, (1, -2.5, 3), RING.ring_spacing_mm / 2)
    assert scan.truth is not None and correction_note(scan) == ""
    np.testing.assert_array_equal(scan.truth.affine, affine)


@pytest.mark.parametrize(
    ("changes", "scanner", "kind", "message"),
    [
        ({}, "mmr", ConfigError, "is of scanner 'ring_2d'; --scanner is 'mmr'"),
        ({}, "mmx", ConfigError, "scanner 'mmx' is not known"),
        ({"scanner": "mmx"}, None, DataError, "c.npz: scanner 'mmx'; expected one of"),
        (
            {"planes": 3},
            None,
            DataError,
            "3 planes; ring_2d has 252 views, 344 bins and an odd number of planes up to 1",
        ),
        ({"scanner": "mct"}, None, DataError, "252 views, 344 bins, 1 planes; mct has 168 views, 400 bins"),
        ({"metadata": {"centre_mm": [1, 2]}}, None, DataError, r"centre_mm \[1, 2\] in its metadata"),
        ({"counts": np.zeros((252, 344, 1))}, None, DataError, "holds no counts"),
        ({"multiplicative": np.zeros((252, 344, 1))}, None, DataError, "all multiplicative factors are 0"),
    ],
)
def test_counts_files_that_cannot_be_used(tmp_path, changes, scanner, kind, message):
    with pytest.raises(kind, match=message):
        load_scan(npz(tmp_path / "c.npz", **changes), scanner)
