"""Interfile headers as STIR and Siemens write them, both storage orders, and headers that must be refused."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io import interfile

# Literally as STIR's create_projdata_template writes it (recon_test_pack/total_mult.hs), with smaller matrices.
STIR = """!INTERFILE  :=
!imaging modality := PT
name of data file := total_mult.s
originating system := Siemens mMR
!version of keys := STIR3.0
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
number of dimensions := 4
matrix axis label [4] := segment
!matrix size [4] := 5
matrix axis label [3] := view
!matrix size [3] := 7
matrix axis label [2] := axial coordinate
!matrix size [2] := { 2,3,4,3,2}
matrix axis label [1] := tangential coordinate
!matrix size [1] := 6
minimum ring difference per segment := { -2,-1,0,1,2}
maximum ring difference per segment := { -2,-1,0,1,2}
Scanner parameters:=
Scanner type := Siemens mMR
Number of rings                          := 64
Inner ring diameter (cm)                 := 65.6
end scanner parameters:=
effective central bin size (cm) := 0.208815
number of time frames := 1
!END OF INTERFILE :=
after the end := 1
"""
ONE_SEGMENT = STIR.replace("[4] := 5", "[4] := 1").replace("{ 2,3,4,3,2}", "{ 4}").replace("{ -2,-1,0,1,2}", "{ 0}")
BY_SINOGRAM = (
    ONE_SEGMENT.replace("label [3] := view", "label [3] := axial coordinate")
    .replace("label [2] := axial coordinate", "label [2] := view")
    .replace("size [3] := 7", "size [3] := { 4}")
    .replace("size [2] := { 4}", "size [2] := 7")
)
THREE = """!INTERFILE:=
name of data file:=counts.raw
data offset in bytes[1]:=10
%number format := unsigned integer
number of bytes per pixel:=2
image scaling factor[1] := 0.5
%patient orientation:=HFS
number of dimensions := 3
matrix axis label[1]:=sinogram projections
!matrix size[1]:=6
matrix axis label[2]:=sinogram views
!matrix size[2]:=7
matrix axis label[3]:=number of sinograms
!matrix size[3]:=4
"""


def expected():
    return np.arange(4 * 7 * 6, dtype=np.float32).reshape(4, 7, 6)  # plane, view, bin


def save(folder, header, data, name="total_mult.s"):
    (folder / "data.hs").write_text(header)
    (folder / name).write_bytes(data)
    return folder / "data.hs"


def by_view(array):
    return array.transpose(1, 0, 2).astype("<f4").tobytes()


def test_header_keys_are_normalised(tmp_path):
    path = save(tmp_path, "\n" + STIR.replace("!matrix size [1]", "  !Matrix  Size[1]"), b"")
    header = interfile.read_header(path)
    assert header["matrix size [1]"] == "6" and header["matrix size [2]"] == "{ 2,3,4,3,2}"
    assert header["originating system"] == "Siemens mMR" and header["number of rings"] == "64"
    assert "after the end" not in header and "interfile" not in header


def test_siemens_header(test_data):
    header = interfile.read_header(test_data / "pet_listmode" / "PET_ACQ_small.l.hdr")
    assert header["total listmode word counts"] == "331257106"
    assert header["study date (yyyy:mm:dd)"] == "2017:03:27"
    assert header["energy window lower level (kev) [1]"] == "430"


@pytest.mark.parametrize(
    ("header", "data"), [(ONE_SEGMENT, by_view(expected())), (BY_SINOGRAM, expected().astype("<f4").tobytes())]
)
def test_both_storage_orders(tmp_path, header, data):
    np.testing.assert_array_equal(interfile.read_sinogram(save(tmp_path, header, data)), expected())


def test_direct_planes_are_picked_from_all_segments(tmp_path):
    oblique = [np.full((planes, 7, 6), 1000.0) for planes in (2, 3, 3, 2)]
    data = b"".join(map(by_view, [*oblique[:2], expected(), *oblique[2:]]))
    with pytest.warns(UserWarning, match="4 oblique segments left out"):
        result = interfile.read_sinogram(save(tmp_path, STIR, data))
    np.testing.assert_array_equal(result, expected())


def test_three_dimensions_with_offset_scale_and_big_endian(tmp_path):
    data = b"0123456789" + expected().astype(">u2").tobytes()
    result = interfile.read_sinogram(save(tmp_path, THREE, data, "counts.raw"))
    np.testing.assert_array_equal(result, expected() / 2)
    assert result.dtype == np.float32


def test_write_then_read_gives_the_same(tmp_path):
    array = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    interfile.write_sinogram(tmp_path / "mine.hs", array, scanner="Siemens mMR", max_ring_difference=5)
    np.testing.assert_array_equal(interfile.read_sinogram(tmp_path / "mine.hs"), array)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.hs", "mine.s"]
    header = interfile.read_header(tmp_path / "mine.hs")
    assert header["minimum ring difference per segment"] == "{ -5}" and header["matrix size [3]"] == "{ 5}"
    stir, mine = interfile.read_header(save(tmp_path, BY_SINOGRAM, b"")), set(header)
    assert mine <= set(stir)  # every key is one that STIR writes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("!INTERFILE  :=", "!OTHERFILE :="), "not an Interfile header"),
        (("number of dimensions := 4", "number of dimensions := 6"), "6 dimensions"),
        (("number of dimensions := 4", "number of dimensions := 5"), "matrix size \\[5\\] is ''"),
        (("number of dimensions := 4", "number of dimensions := many"), "number of dimensions is 'many'"),
        (("tangential coordinate", "wavelength"), "label \\[1\\] is 'wavelength'"),
        (("label [1] := tangential coordinate", "label [1] := view"), "axes"),
        (("size [1] := 6", "size [1] := six"), "matrix size \\[1\\] is 'six'"),
        (("size [1] := 6", "size [1] := 0"), "matrix size \\[1\\] is '0'"),
        (("!matrix size [1] := 6\n", ""), "matrix size \\[1\\] is ''"),
        (("size [1] := 6", "size [1] := {6,6}"), "matrix sizes"),
        (("float", "ascii"), "number format 'ascii'"),
        (("pixel := 4", "pixel := 3"), "3 bytes"),
        (("LITTLEENDIAN", "PDPENDIAN"), "pdpendian"),
        (("total_mult.s", "elsewhere.s"), "'elsewhere.s': no such file; expected a file beside it"),
        (("name of data file := total_mult.s\n", ""), "no 'name of data file'"),
        (("frames := 1", "frames := 3"), "time frames is '3'; expected 1"),
        (("maximum ring difference per segment := { 0}", "maximum ring difference per segment := { 1}"), "symmetric"),
        (("{ 4}", "{ 5}"), "672 bytes; its header data.hs has 840"),
    ],
)
def test_headers_that_are_refused(tmp_path, change, message):
    assert change[0] in ONE_SEGMENT
    path = save(tmp_path, ONE_SEGMENT.replace(*change), by_view(expected()))
    with pytest.raises(DataError, match=message) as caught:
        interfile.read_sinogram(path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        interfile.read_header(tmp_path / "absent.hs")
    (tmp_path / "data.s").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(DataError, match="not an Interfile header"):
        interfile.read_header(tmp_path / "data.s")
    with pytest.raises(DataError, match="1 NaN or infinite"):
        data = expected()
        data[1, 2, 3] = np.nan
        interfile.read_sinogram(save(tmp_path, ONE_SEGMENT, by_view(data)))
    with pytest.raises(DataError, match=r"ends in \.hs"):
        interfile.write_sinogram(tmp_path / "data.s", expected(), max_ring_difference=1)
