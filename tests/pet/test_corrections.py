"""Factors and background: each correction once, either convention, ring pairs of the planes, another's header."""

import warnings

import numpy as np
import pytest

from medjax.errors import ConfigError, DataError
from medjax.io.counts import CORRECTIONS, Counts, write_counts
from medjax.io.interfile import write_sinogram
from medjax.pet.corrections import background_counts, check_background, efficiencies, parse_corrections
from medjax.pet.interfile_scan import Factors
from medjax.pet.io import load_scan, scan_from_counts
from medjax.pet.scan import Scan, correction_note
from medjax.pet.scanner import coverage, preset
from medjax.tools.pet_checks import check_attenuation_once

MMR, RING = preset("mmr"), preset("ring_2d")
SHAPE = (RING.views, RING.bins, 1)
# e^−∫μ of a disc of water, radius 100 mm, along the lines of response of each bin
S = 337.6 * np.sin(np.pi * (np.arange(RING.bins) - RING.bins // 2) / RING.crystals)
ATTENUATION = np.exp(-0.0096 * 2 * np.sqrt(np.clip(100**2 - S**2, 0, None)))
ATTENUATION = np.broadcast_to(ATTENUATION[None, :, None], SHAPE).astype(np.float32)


def hs(path, sinogram, change=("", ""), **options):
    write_sinogram(path, np.moveaxis(sinogram, 2, 0)[::-1], **{"max_ring_difference": 0} | options)
    path.write_text(path.read_text().replace(*change))
    return path


def in_memory(metadata, stated=None):
    return scan_from_counts(Counts(np.ones(SHAPE), np.zeros(SHAPE), ATTENUATION, "ring_2d", metadata), "c", stated)


# ── each correction once ──


@pytest.mark.parametrize(
    ("metadata", "stated", "message"),
    [
        ({"corrections": ["attenuation"]}, None, "the factors of c hold it; leave --mu out"),
        ({"corrections": ["normalisation", "attenuation"], "attenuation": True}, None, "the factors of c hold it"),
        ({"attenuation": True}, None, "the factors of c hold it"),  # of medjax before it listed corrections
        ({"corrections": [], "attenuation": False}, None, "the metadata of c say that its counts are not attenuated"),
        ({}, "attenuation, normalisation", "--corrections says that the factors hold it"),
    ],
)
def test_attenuation_that_the_factors_hold_is_not_corrected_again(metadata, stated, message):
    with pytest.raises(ConfigError, match=f"^--mu would correct attenuation twice: {message}"):
        check_attenuation_once(in_memory(metadata, stated))


def test_attenuation_that_is_missing_is_added_and_what_is_unknown_is_told():
    scan = in_memory({"corrections": ["normalisation"]})
    check_attenuation_once(scan)  # warnings are errors here
    assert correction_note(scan) == "no attenuation correction"
    check_attenuation_once(in_memory({}, "none"))
    with pytest.warns(UserWarning, match="nothing says whether the multiplicative factors hold attenuation"):
        check_attenuation_once(in_memory({}))


@pytest.mark.parametrize(
    ("held", "change", "stated", "attenuation"),
    [
        ((), ("", ""), None, "is taken as attenuation × normalisation, unless --corrections states otherwise"),
        ((), ("", ""), "attenuation", "--corrections says"),
        (("attenuation", "decay"), ("", ""), None, "the applied corrections of .*m.hs list it"),
        (
            (),
            ("data type := Emission", "data type := AttenuationCorrection"),
            None,
            "PET data type .* is Attenuation",
        ),
        ((), ("", ""), "normalisation", None),
        (("normalisation",), ("", ""), None, None),
        ((), ("data type := Emission", "data type := Normalisation"), None, None),
    ],
)
def test_an_interfile_of_factors_says_what_it_holds(tmp_path, held, change, stated, attenuation):
    counts = hs(tmp_path / "c.hs", np.ones(SHAPE))
    multiplicative = hs(tmp_path / "m.hs", ATTENUATION, change, corrections=held)
    scan = load_scan(counts, "ring_2d", factors=Factors(multiplicative=multiplicative, corrections=stated))
    if attenuation is None:
        check_attenuation_once(scan)
        assert correction_note(scan) == "no attenuation correction"
    else:
        with pytest.raises(ConfigError, match=attenuation):
            check_attenuation_once(scan)
    assert {*scan.files} == {tmp_path / name for name in ("c.hs", "c.s", "m.hs", "m.s")}


def test_names_of_corrections():
    assert parse_corrections("{Attenuation correction, normalization, arc corrected, None}") == (
        "attenuation",
        "normalisation",
        "arc correction",
    )
    assert parse_corrections(",".join(CORRECTIONS)) == CORRECTIONS and parse_corrections("none") == ()
    with pytest.raises(ConfigError, match=r"^--corrections luck; expected none, or some of attenuation"):
        parse_corrections("attenuation,luck")
    with pytest.raises(ConfigError, match="--corrections none; the metadata of c say attenuation"):
        in_memory({"corrections": ["attenuation"]}, "none")
    with pytest.raises(DataError, match="c: corrections 3 in its metadata; expected a list"):
        in_memory({"corrections": 3})


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (Factors(corrections="attenuation"), "--corrections tells what --multiplicative or a counts file holds"),
        (Factors(additive_convention="divided"), "--additive-convention goes with --additive"),
        (Factors(multiplicative_convention="x"), "--multiplicative-convention x; expected factors or corrections"),
    ],
)
def test_options_that_go_with_files_of_factors(tmp_path, factors, message):
    with pytest.raises(ConfigError, match=message):
        load_scan(hs(tmp_path / "c.hs", np.ones(SHAPE)), "ring_2d", factors=factors)


# ── conventions ──


def test_stirs_files_in_their_conventions_are_medjaxs_factors(tmp_path):
    background = np.full(SHAPE, 2.0, np.float32)
    files = {
        "additive": hs(tmp_path / "a.hs", background / ATTENUATION),
        "multiplicative": hs(tmp_path / "m.hs", 1 / ATTENUATION),
    }
    factors = Factors(**files, additive_convention="divided", multiplicative_convention="corrections")
    scan = load_scan(hs(tmp_path / "c.hs", np.full(SHAPE, 9.0)), "ring_2d", factors=factors)
    np.testing.assert_allclose(scan.multiplicative, ATTENUATION, rtol=1e-6)
    np.testing.assert_allclose(scan.additive, background, rtol=1e-6)


def test_attenuation_correction_factors_are_noticed():
    for normalisation in (1, np.random.default_rng(0).normal(1, 0.003, SHAPE)):
        with pytest.raises(DataError, match=r"m\.hs: .* e\^\+∫μ are; .* give --multiplicative-convention corrections"):
            efficiencies("m.hs", np.maximum(normalisation / ATTENUATION, 1).astype(np.float32), "factors")
    noisy = np.random.default_rng(0).uniform(0.5, 2, SHAPE).astype(np.float32)
    for factors in (ATTENUATION, 40 * ATTENUATION, noisy, noisy * ATTENUATION, np.ones_like(noisy), noisy + 0.6):
        assert efficiencies("m.hs", factors, "factors") is factors
    gaps = np.broadcast_to(coverage(MMR)[..., None], (*coverage(MMR).shape, 1)).astype(np.float32)
    np.testing.assert_array_equal(efficiencies("m.hs", gaps, "corrections"), gaps)


def scan_with(additive, trues=18.0):
    counts = np.random.default_rng(0).poisson(trues * ATTENUATION + 2.0).astype(np.float32)
    return Scan(counts, ATTENUATION, np.broadcast_to(additive, SHAPE).astype(np.float32), RING, 2.0)


def test_a_background_in_counts_passes_and_what_cannot_be_one_is_refused():
    check_background("a", scan_with(2.0))
    check_background("a", scan_with(2.0 * ATTENUATION**0.5))
    with pytest.raises(DataError, match=r"^a: expected background .* counts in \d+ bins; .*-convention divided"):
        check_background("a", scan_with(200.0))
    with pytest.raises(DataError, match="--additive-convention divided"):
        check_background("a", scan_with(2.0 / ATTENUATION, trues=3.0))
    with pytest.warns(UserWarning, match="the background varies as the reciprocal of the factors"):
        check_background("a", scan_with(2.0 / ATTENUATION, trues=90.0))
    scatter = np.broadcast_to(np.exp(-0.5 * (S / 90) ** 2)[None, :, None], SHAPE).astype(np.float32)
    assert np.polyfit(np.log(ATTENUATION).ravel(), np.log(scatter).ravel(), 1)[0] < -1  # as a divided one
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_background("a", scan_with(2.0 * scatter, trues=90.0))  # but in counts
    scan = scan_with(2.0, trues=0.0)
    with pytest.raises(DataError, match="explained by the background alone"):
        check_background("a", scan_with(2.0 * float(scan.counts.mean()) / 2 + 0.01, trues=0.0))
    np.testing.assert_array_equal(background_counts(ATTENUATION, 2 * ATTENUATION, "counts"), ATTENUATION)


# ── planes and scanner of a header ──


@pytest.mark.parametrize("most", [1, 5])
def test_planes_have_their_ring_pairs(tmp_path, most):
    """Of 7 rings: plane p sums the pairs with r + s = p and |r − s| ≤ most, counted here one by one."""
    pairs = [sum(abs(r - (p - r)) <= most for r in range(7) if 0 <= p - r < 7) for p in range(13)]
    path = hs(tmp_path / "c.hs", np.ones((MMR.views, MMR.bins, 13)), max_ring_difference=most)
    scan = load_scan(path, "mmr")
    expected = coverage(MMR)[..., None] * np.array(pairs) / max(pairs)
    np.testing.assert_allclose(scan.multiplicative, expected, rtol=1e-6)
    assert scan.plane_mm == MMR.ring_spacing_mm / 2


def test_planes_without_ring_differences_are_told_of_and_span_1_has_a_plane_a_ring(tmp_path):
    path = hs(tmp_path / "c.hs", np.ones((MMR.views, MMR.bins, 4)))
    scan = load_scan(path, "mmr")
    assert scan.plane_mm == MMR.ring_spacing_mm
    np.testing.assert_array_equal(scan.multiplicative[..., 3], coverage(MMR))
    text = hs(path, np.ones((MMR.views, MMR.bins, 3)), max_ring_difference=1).read_text()
    path.write_text("\n".join(line for line in text.splitlines() if "ring difference" not in line))
    with pytest.warns(UserWarning, match="no ring differences; taken as if each plane summed as many ring pairs"):
        load_scan(path, "mmr")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("number of detectors per ring := 672", "672 detectors a ring; ring_2d has 504"),
        ("number of rings := 64", "64 rings; ring_2d has 1"),
        ("inner ring diameter (cm) := 85.52", r"427.6 mm inner ring radius; ring_2d has 328"),
        ("distance between rings (cm) := 0.5", "5 mm between rings; ring_2d has 4.0625"),
        ("average depth of interaction (cm) := 5", "50 mm depth of interaction; ring_2d has 9.6"),
    ],
)
def test_a_header_of_another_scanner_is_refused(tmp_path, line, message):
    with pytest.raises(DataError, match=rf"c\.hs: {message}"):
        load_scan(hs(tmp_path / "c.hs", np.ones(SHAPE), ("!END", f"{line}\n!END")), "ring_2d")


def test_lengths_of_a_header_are_used(tmp_path):
    lines = "inner ring diameter (cm) := 65.8\naverage depth of interaction (cm) := 0.7\nnumber of rings := 1\n!END"
    scanner = load_scan(hs(tmp_path / "c.hs", np.ones(SHAPE), ("!END", lines)), "ring_2d").scanner
    assert (scanner.radius_mm, scanner.depth_mm, scanner.rings) == (329, 7, 1)


def test_what_is_written_is_finite_in_float32(tmp_path):
    large = np.full(SHAPE, 1e39)
    with pytest.raises(DataError, match=r"c\.npz: counts is empty or has negative, NaN or infinite values"):
        write_counts(tmp_path / "c.npz", Counts(large, large, large, "ring_2d"))
    ones, affine = np.ones(SHAPE), np.diag([1e39, 1, 1, 1])
    with pytest.raises(DataError, match=r"c\.npz: affine has NaN or infinite values"):
        write_counts(tmp_path / "c.npz", Counts(ones, ones, ones, "ring_2d", truth=np.ones((2, 2, 1)), affine=affine))
    with pytest.raises(DataError, match=r"c\.hs: an array of shape .*finite in float32"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hs(tmp_path / "c.hs", large)
    assert not [*tmp_path.iterdir()]
