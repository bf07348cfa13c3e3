"""Sinograms of all segments in Interfile: STIR's own headers, its storage orders, round trips, and what is refused."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.errors import DataError
from medjax.io.interfile import Geometry, read_geometry, read_header, read_sinogram
from medjax.io.interfile_layout import read_axes, read_segments
from medjax.io.interfile_output import write_sinograms
from medjax.io.interfile_sinograms import (
    Sinograms,
    TofBins,
    planes_of_segment,
    read_sinograms,
    reverse_rings,
)
from medjax.pet.michelogram import michelogram

# As STIR 6 writes a header with time of flight (examples/samples/PET_TOF_Interfile_header_Signa_PETMR.hs), smaller.
TOF = """!INTERFILE  :=
!imaging modality := PT
name of data file := data.s
originating system := unknown
!version of keys := STIR6.0
!GENERAL DATA :=
patient orientation := head_in
patient rotation := supine
!GENERAL IMAGE DATA :=
!type of data := PET
imagedata byte order := LITTLEENDIAN
!PET STUDY (General) :=
!PET data type := Emission
applied corrections := {None}
!number format := float
!number of bytes per pixel := 4
number of dimensions := 5
matrix axis label [5] := timing positions
!matrix size [5] := 3
matrix axis label [4] := segment
!matrix size [4] := 3
matrix axis label [3] := view
!matrix size [3] := 3
matrix axis label [2] := axial coordinate
!matrix size [2] := { 3,7,3}
matrix axis label [1] := tangential coordinate
!matrix size [1] := 2
TOF mashing factor := 13
minimum ring difference per segment := { -3,-1,2}
maximum ring difference per segment := { -2,1,3}
Scanner parameters:=
  Scanner type := unknown
  Number of rings                          := 4
  Number of detectors per ring             := 6
  Inner ring diameter (cm)                 := 62.36
  Maximum number of (unmashed) TOF time bins := 39
  Size of unmashed TOF time bins (ps)        := 6.84615
  TOF timing resolution (ps)                 := 390
End scanner parameters:=
number of time frames := 1
!END OF INTERFILE :=
"""
STORED = np.arange(3 * 13 * 3 * 2, dtype="<f4")
PLAIN = (
    TOF.replace("number of dimensions := 5\nmatrix axis label [5] := timing positions\n!matrix size [5] := 3\n", "")
    .replace("matrix axis label [4]", "number of dimensions := 4\nmatrix axis label [4]")
    .replace("TOF mashing factor := 13\n", "")
)


def save(folder: Path, header: str, data: np.ndarray = STORED) -> Path:
    (folder / "data.s").write_bytes(data.tobytes())
    (folder / "data.hs").write_text(header)
    return folder / "data.hs"


def expected(tof_order: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Planes of segments 0, +1, −1 of data stored as (tof, segment −1 0 +1, view, plane, bin)."""
    result = np.zeros((3, 13, 3, 2), np.float32)
    stored, at = STORED, 0
    for tof in tof_order:
        for planes, start in ((3, 10), (7, 0), (3, 7)):
            block = stored[at : at + planes * 6].reshape(3, planes, 2)
            result[tof, start : start + planes] = np.moveaxis(block, 1, 0)
            at += planes * 6
    return result


@pytest.mark.parametrize("rings", [1, 2, 7, 16, 55, 64])
def test_planes_of_a_segment_are_the_michelograms(rings: int):
    for span in (1, 3, 5, 11):
        planes = michelogram(rings, span)
        assert planes.planes_per_segment == tuple(
            planes_of_segment(rings, s.lowest, s.highest) for s in planes.segments
        )


@pytest.mark.parametrize(
    ("name", "bands", "planes"),
    [
        ("Siemens_mMR_seg2.hs", ((0, 0), (1, 1), (-1, -1), (2, 2), (-2, -2)), (64, 63, 63, 62, 62)),
        ("Utahscat600k_ca_seg4.hs", None, (16, 15, 15, 14, 14, 13, 13, 12, 12)),
    ],
)
def test_segments_of_stirs_headers(test_data, tmp_path, name, bands, planes):
    """The headers as they are, beside data as large as they tell."""
    text = (test_data / "pet_stir" / name).read_text()
    text = text.replace("{arc correction}", "{None}").replace("-0.46875", "0")
    (tmp_path / name).write_text(text)
    keys = read_header(tmp_path / name)
    axes = read_axes(tmp_path / name, keys)
    order = np.argsort([abs(low) * 2 - (low > 0) for low, _ in read_segments(tmp_path / name, keys, axes).bands])
    stored = np.concatenate([np.full(n * axes.views * axes.bins, i, "<f4") for i, n in enumerate(axes.planes)])
    stored.tofile(tmp_path / keys["name of data file"])
    sinograms = read_sinograms(tmp_path / name)
    assert sinograms.planes == planes and sinograms.array.shape == (sum(planes), axes.views, axes.bins)
    assert bands is None or sinograms.segments == bands
    np.testing.assert_array_equal(sinograms.array[:, 0, 0], np.repeat(order, planes))
    rings = michelogram(planes[0], 1, len(planes) // 2)
    assert sinograms.rings == rings.rings and sinograms.planes == rings.planes_per_segment
    assert sinograms.segments == tuple((s.lowest, s.highest) for s in rings.segments)


def test_stirs_scatter_is_read_as_its_direct_planes(test_data):
    path = test_data / "pet_stir" / "scatter_cylinder.hs"
    sinograms = read_sinograms(path, "additive")
    np.testing.assert_array_equal(sinograms.array, read_sinogram(path, "additive"))
    assert sinograms.segments == ((0, 0),) and sinograms.planes == (8,) and sinograms.rings == 8


def test_time_of_flight_of_stir(tmp_path):
    sinograms = read_sinograms(save(tmp_path, TOF))
    np.testing.assert_array_equal(sinograms.array, expected())
    assert sinograms.segments == ((-1, 1), (2, 3), (-3, -2)) and sinograms.planes == (7, 3, 3)
    assert sinograms.rings == 4 and sinograms.tof == TofBins(3, pytest.approx(13 * 6.84615), 390.0)
    ordered = TOF.replace("minimum", "TOF bin order := {0,1,-1}\nminimum")
    np.testing.assert_array_equal(read_sinograms(save(tmp_path, ordered)).array, expected((1, 2, 0)))
    by_sinogram = TOF.replace("[3] := view", "[3] := axial coordinate").replace("[2] := axial", "[2] := view\n;")
    by_sinogram = by_sinogram.replace("size [3] := 3", "size [3] := { 3,7,3}").replace("[2] := { 3,7,3}", "[2] := 3")
    stored = expected()[:, [*range(10, 13), *range(10)]].astype("<f4")
    np.testing.assert_array_equal(read_sinograms(save(tmp_path, by_sinogram, stored)).array, expected())
    with pytest.raises(DataError, match="time of flight in 3 bins; expected direct planes without it"):
        read_sinogram(tmp_path / "data.hs")


def test_siemens_table_is_read_with_the_sign_of_stir(tmp_path):
    """Stored 0, −1, +1 in the sign of second − first ring, as STIR's find_segment_sequence tells."""
    header = """!INTERFILE:=
name of data file:=data.s
image data byte order:=LITTLEENDIAN
%patient orientation:=HFS
!number format:=float
!number of bytes per pixel:=4
number of dimensions:=3
matrix axis label[1]:=sinogram projections
!matrix size[1]:=2
matrix axis label[2]:=sinogram views
!matrix size[2]:=3
matrix axis label[3]:=number of sinograms
!matrix size[3]:=19
%axial compression:=3
%maximum ring difference:=4
%segment table:={9,5,5}
"""
    stored = np.arange(19 * 6, dtype="<f4").reshape(19, 3, 2)
    sinograms = read_sinograms(save(tmp_path, header, stored))
    assert sinograms.segments == ((-1, 1), (2, 4), (-4, -2)) and sinograms.rings == 5
    np.testing.assert_array_equal(sinograms.array, stored[[*range(9), *range(14, 19), *range(9, 14)]])
    with pytest.raises(DataError, match="5 planes of ring differences -4 to -4; 5 rings make 1"):
        read_sinograms(save(tmp_path, header.replace("compression:=3", "compression:=7"), stored))


def test_rings_numbered_from_the_other_end():
    rings = michelogram(5, 3)
    bands = tuple((s.lowest, s.highest) for s in rings.segments)
    first, second = np.indices((5, 5)).reshape(2, -1)
    plane, mirrored = rings.plane_of_pair[first, second], rings.plane_of_pair[4 - first, 4 - second]
    array = np.zeros((rings.planes, 1, 1), np.float32)
    array[plane, 0, 0] = plane
    result = reverse_rings(Sinograms(array, bands, rings.planes_per_segment, 5))
    np.testing.assert_array_equal(result.array[mirrored, 0, 0], plane)
    assert result.segments == bands and result.planes == rings.planes_per_segment
    one_sided = Sinograms(np.arange(8, dtype=np.float32).reshape(8, 1, 1), ((0, 0), (2, 2)), (5, 3), 5)
    result = reverse_rings(one_sided)
    assert result.segments == ((0, 0), (-2, -2)) and result.array[:, 0, 0].tolist() == [4, 3, 2, 1, 0, 7, 6, 5]


GEOMETRY = Geometry(4, 6, 311.8, 8.5, 5.56, 1)


@given(st.integers(1, 6), st.sampled_from((1, 3, 5)), st.sampled_from((None, 1, 2, 5)), st.integers(0, 99))
def test_write_then_read_gives_the_same(tmp_path_factory, rings, span, tof_bins, seed):
    path = tmp_path_factory.mktemp("written") / "mine.hs"
    planes = michelogram(rings, span)
    tof = tof_bins and TofBins(tof_bins, 312.5, 580.0)
    shape = (*([tof_bins] if tof_bins else []), planes.planes, 3, 2)
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    bands = tuple((s.lowest, s.highest) for s in planes.segments)
    mine = Sinograms(array, bands, planes.planes_per_segment, rings, tof)
    write_sinograms(path, mine, geometry=GEOMETRY, scanner="Siemens mMR")
    result = read_sinograms(path)
    np.testing.assert_array_equal(result.array, array)
    assert (result.segments, result.planes, result.rings, result.tof) == (bands, mine.planes, rings, tof)
    assert read_geometry(path)[1:5] == pytest.approx(GEOMETRY[1:5])
    assert sorted(file.name for file in path.parent.iterdir()) == ["mine.hs", "mine.s"]


def test_every_key_that_is_written_is_stirs(tmp_path):
    mine = Sinograms(expected(), ((-1, 1), (2, 3), (-3, -2)), (7, 3, 3), 4, TofBins(3, 89.0, 390.0))
    write_sinograms(tmp_path / "mine.hs", mine, geometry=GEOMETRY)
    stir = {*read_header(save(tmp_path, TOF)), "average depth of interaction (cm)", "distance between rings (cm)"}
    stir |= {"maximum number of non-arc-corrected bins", "view offset (degrees)"}  # of the sample that TOF shortens
    assert {*read_header(tmp_path / "mine.hs")} <= stir


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{ 3,7,3}", "{ 3,9,1}"), "3 planes|9 planes of ring differences -1 to 1; 4 rings make 7"),
        (("rings                          := 4", "rings := 5"), "of ring differences -3 to -2; 5 rings make 5"),
        (("{ -2,1,3}", "{ -1,1,3}"), "expected bands without overlap"),
        (("{ -2,1,3}", "{ -4,1,3}"), "ring differences -3 to -4 in a segment; 4 rings have none such"),
        (("{ -3,-1,2}", "{ -9,-1,9}"), "expected bands without overlap|4 rings"),
        (("{ -3,-1,2}", "{ -3,-1,0}"), "expected bands without overlap"),
        (("(ps)        := 6.84615", "(ps) := 0.3125"), r"is 0\.3125 ps; expected 1 to 20000 ps \(312\.5 ps if it was"),
        (("(ps)                 := 390", "(ps) := 0.39"), r"resolution is 0\.39 ps; .* \(390 ps if it was meant in ns"),
        (("bins := 39", "bins := 13"), "3 timing positions; expected 13 unmashed TOF bins mashed by 13"),
        (("Maximum number of (unmashed) TOF time bins := 39\n", ""), "3 timing positions; expected 0 unmashed"),
        (("factor := 13", "factor := 0"), "3 timing positions; expected 39 unmashed TOF bins mashed by 0"),
        (("  Size of unmashed TOF time bins (ps)        := 6.84615\n", ""), "one number"),
        (("factor := 13", "factor := 13\nTOF bin order := {0,1,2}"), "expected the numbers -1 to 1 once each"),
        (("size [5] := 3", "size [5] := 100000000"), "100000000 timing positions; expected at most"),
        (("size [5] := 3", "size [5] := {3,3}"), "matrix sizes"),
        (("timing positions", "view"), "axes"),
        (("size [5] := 3", "size [5] := 2"), "936 bytes; its header data.hs has 624"),
    ],
)
def test_headers_that_contradict_themselves(tmp_path, change, message):
    assert change[0] in TOF
    path = save(tmp_path, TOF.replace(*change))
    with pytest.raises(DataError, match=message) as caught:
        read_sinograms(path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_written(tmp_path):
    path, mine = tmp_path / "mine.hs", Sinograms(expected(), ((-1, 1), (2, 3), (-3, -2)), (7, 3, 3), 4)
    tof, nan = TofBins(3, 89.0, 390.0), np.where(np.arange(2) == 1, np.nan, expected()).astype(np.float32)
    for wrong, message in [
        (mine, "array of shape"),
        (replace(mine, tof=TofBins(3, 0.3125, None)), "312.5 ps if it was meant in ns"),
        (replace(mine, tof=TofBins(3, 89.0, 0.39)), "390 ps if it was meant in ns"),
        (replace(mine, tof=tof, rings=5), "5 rings make 9"),
        (replace(mine, tof=tof, segments=None), "ring differences None"),
        (replace(mine, tof=tof, array=nan), "NaN or infinite"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            write_sinograms(path, wrong)
        assert "\n" not in str(caught.value) and not [*tmp_path.iterdir()]
    with pytest.raises(DataError, match=r"ends in \.hs"):
        write_sinograms(tmp_path / "mine.s", replace(mine, tof=tof))


LINES = TOF.splitlines()[1:-1]
VALUES = st.one_of(
    st.sampled_from(
        ("", "-1", "0", "1e400", "nan", "{}", "{1,,2}", "{ 3,7,3}", "view", "segment", "{-1,1,0}", "9" * 50)
    ),
    st.integers(-(2**70), 2**70).map(str),
    st.lists(st.integers(-(10**9), 10**9), max_size=5).map(lambda numbers: f"{{{','.join(map(str, numbers))}}}"),
    st.floats().map(str),
    st.text(max_size=12),
)


@given(st.sampled_from((TOF, PLAIN)), st.dictionaries(st.integers(0, len(LINES) - 1), VALUES, max_size=3), st.data())
def test_any_header_is_read_or_refused_in_one_line(tmp_path_factory, header, changes, data):
    lines = header.splitlines()
    for index, value in changes.items():
        line = 1 + index % (len(lines) - 2)
        lines[line] = f"{lines[line].partition(':=')[0]}:= {value}"
    if data.draw(st.booleans()):
        del lines[data.draw(st.integers(1, len(lines) - 1))]
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "data.s").write_bytes(STORED.tobytes())
    (folder / "data.hs").write_bytes("\n".join(lines).encode("utf-8", "replace"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = read_sinograms(folder / "data.hs")
        except DataError as error:
            assert "\n" not in str(error) and str(folder) in str(error)
        else:
            assert result.array.size <= STORED.size * 4 and np.isfinite(result.array).all()
