"""Every key of the tables: a checked one is refused with another value, a used one changes what is read, the rest says
nothing; and the keys of real headers are known."""

import warnings

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io import interfile, siemens_listmode
from medjax.io.interfile_header import check_keys, read_header
from medjax.io.interfile_keys import CHECKED, SPARED_BY_ROLE, USED
from medjax.io.interfile_sinograms import read_sinograms
from tests.io.test_interfile_sinograms import TOF

STIR = """!INTERFILE :=
name of data file := data.s
patient orientation := head_in
patient rotation := supine
imagedata byte order := LITTLEENDIAN
!number format := float
!number of bytes per pixel := 4
number of dimensions := 4
matrix axis label [4] := segment
!matrix size [4] := 3
matrix axis label [3] := axial coordinate
!matrix size [3] := { 2,3,2}
matrix axis label [2] := view
!matrix size [2] := 3
matrix axis label [1] := tangential coordinate
!matrix size [1] := 2
minimum ring difference per segment := { -4,-1,2}
maximum ring difference per segment := { -2,1,4}
number of rings := 2
number of detectors per ring := 6
inner ring diameter (cm) := 65.6
average depth of interaction (cm) := 0.7
distance between rings (cm) := 0.4
!END OF INTERFILE :=
"""
SIEMENS = """!INTERFILE:=
name of data file:=data.s
image data byte order:=LITTLEENDIAN
%patient orientation:=HFS
data format:=sinogram
number format:=signed integer
!number of bytes per pixel:=4
number of dimensions:=3
matrix axis label[1]:=sinogram projections
!matrix size[1]:=2
matrix axis label[2]:=sinogram views
!matrix size[2]:=3
matrix axis label[3]:=number of sinograms
!matrix size[3]:=7
%axial compression:=3
%maximum ring difference:=4
%segment table:={3,2,2}
gantry crystal radius (cm):=32.8
"""
LIST = """!INTERFILE:=
name of data file := data.s
data format:=CoincidenceList
%patient orientation:=HFS
number of rings:=3
image duration (sec):=1
%total listmode word counts:=42
%LM event and tag words format (bits):=32
%axial compression:=1
%maximum ring difference:=1
%number of projections:=4
%number of views:=2
"""
# key → (header, line or part of one to replace, by what); without a second text the new line is added at the top
COUNTS_EFFECTS = {
    "name of data file": (STIR, ":= data.s", ":= other.s"),
    "number format": (SIEMENS, "signed integer", "float"),
    "number of bytes per pixel": (STIR, "pixel := 4", "pixel := 8"),
    "imagedata byte order": (STIR, "LITTLE", "BIG"),
    "image data byte order": (SIEMENS, "LITTLE", "BIG"),
    "data offset in bytes": (STIR, "", "data offset in bytes := 4"),
    "number of dimensions": (STIR, "dimensions := 4", "dimensions := 3"),
    "matrix axis label": (STIR, ":= view", ":= segment"),
    "matrix size": (STIR, "size [1] := 2", "size [1] := 3"),
    "image scaling factor": (STIR, "", "image scaling factor [1] := 2"),
    "quantification units": (SIEMENS, "", "quantification units := 2"),
    "minimum ring difference per segment": (STIR, "-4,-1,2", "-4,0,2"),
    "maximum ring difference per segment": (STIR, "-2,1,4", "-2,0,4"),
    "segment table": (SIEMENS, "{3,2,2}", "{1,3,3}"),
    "axial compression": (SIEMENS, "compression:=3", "compression:=5"),
    "maximum ring difference": (SIEMENS, "ring difference:=4", "ring difference:=0"),
    "maximum number of (unmashed) tof time bins": (TOF, "time bins := 39", "time bins := 13"),
    "size of unmashed tof time bins (ps)": (TOF, "6.84615", "7"),
    "tof mashing factor": (TOF, "factor := 13", "factor := 3"),
    "tof bin order": (TOF, "", "TOF bin order := {0,1,-1}"),
    "tof timing resolution (ps)": (TOF, "390", "400"),
    "timing resolution (ps)": (TOF.replace("TOF timing", "timing"), "390", "400"),
    "number of rings": (STIR, "rings := 2", "rings := 3"),
    "number of detectors per ring": (STIR, "ring := 6", "ring := 8"),
    "inner ring diameter (cm)": (STIR, "65.6", "80"),
    "gantry crystal radius (cm)": (SIEMENS, "32.8", "40"),
    "distance between rings (cm)": (STIR, "(cm) := 0.4", "(cm) := 0.5"),
    "average depth of interaction (cm)": (STIR, "0.7", "0.9"),
}
LIST_EFFECTS = {
    "name of data file": (LIST, ":= data.s", ":= other.s"),
    "data offset in bytes": (LIST, "", "data offset in bytes := 4"),
    "data format": (LIST, "CoincidenceList", "Sinogram"),
    "total listmode word counts": (LIST, ":=42", ":=43"),
    "image duration (sec)": (LIST, "(sec):=1", "(sec):=2"),
    "lm event and tag words format (bits)": (LIST, ":=32", ":=48"),
    "axial compression": (LIST, "compression:=1", "compression:=11"),
    "maximum ring difference": (LIST, "ring difference:=1", "ring difference:=2"),
    "number of projections": (LIST, "projections:=4", "projections:=5"),
    "number of views": (LIST, "views:=2", "views:=3"),
    "image data byte order": (LIST, "", "image data byte order := BIGENDIAN"),
    "imagedata byte order": (LIST, "", "imagedata byte order := BIGENDIAN"),
    "number of rings": (LIST, "rings:=3", "rings:=4"),
    "number of detectors per ring": (LIST, "", "number of detectors per ring := 8"),
    "inner ring diameter (cm)": (LIST, "", "inner ring diameter (cm) := 80"),
    "gantry crystal radius (cm)": (LIST, "", "gantry crystal radius (cm) := 40"),
    "distance between rings (cm)": (LIST, "", "distance between rings (cm) := 0.5"),
    "average depth of interaction (cm)": (LIST, "", "average depth of interaction (cm) := 0.9"),
}
WRONG = {  # values of checked keys that are someone's
    "patient orientation": "feet_in", "patient rotation": "prone", "applied corrections": "{arc correction}",
    "pet data type": "Transmission", "imaging modality": "nucmed", "type of data": "Tomographic",
    "view offset (degrees)": "-0.46875", "number of time frames": "3", "number of tof time bins": "13",
    "compression": "on",
}  # fmt: skip


def save(folder, header):
    (folder / "data.hs").write_text(header)
    size = 234 if "timing positions" in header else 42
    (folder / "data.s").write_bytes(np.arange(size, dtype="<i4").tobytes())
    return folder / "data.hs"


def changed(header, old, new):
    first, rest = header.split("\n", 1)
    assert old in header
    return header.replace(old, new, 1) if old else f"{first}\n{new}\n{rest}"


def outcome(folder, header):
    """What is read of a header, or that it is refused."""
    path = save(folder, header)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*oblique segments left out")
        try:
            if "listmode" in header:
                return siemens_listmode.read_header(path), interfile.read_geometry(path)
            if "timing positions" in header:
                sinograms = read_sinograms(path)
                return sinograms.array.tobytes(), sinograms.tof
            return interfile.read_sinogram(path).tobytes(), interfile.read_geometry(path)
        except DataError as error:
            assert str(path.parent) in str(error) and "\n" not in str(error)
            return "refused"


@pytest.mark.parametrize(
    ("role", "key", "effect"),
    [("counts", *item) for item in COUNTS_EFFECTS.items()] + [("list mode", *item) for item in LIST_EFFECTS.items()],
)
def test_a_used_key_changes_what_is_read(tmp_path, role, key, effect):
    assert key in USED[role]
    header, *change = effect
    before = outcome(tmp_path, header)
    assert before != "refused" and outcome(tmp_path, changed(header, *change)) != before


def test_the_effect_of_every_used_key_is_tested():
    assert {*COUNTS_EFFECTS} == USED["counts"] and {*LIST_EFFECTS} == USED["list mode"]
    assert USED["multiplicative"] - {*CHECKED} <= USED["counts"] and {*WRONG} <= {*CHECKED}
    assert not {*CHECKED} & (USED["counts"] | USED["list mode"])


@pytest.mark.parametrize("header", [STIR, LIST])
@pytest.mark.parametrize("key", CHECKED)
def test_a_checked_key_is_refused_with_another_value_and_passes_with_its_own(tmp_path, key, header):
    role = "list mode" if header is LIST else "counts"
    keys = read_header(save(tmp_path, header)) | {"patient rotation": "supine"}
    for value in CHECKED[key].accepted:
        check_keys("scan.hs", keys | {key: value.upper()}, role)
    with pytest.raises(DataError, match=r"scan\.hs: .* is '.*'; expected ") as caught:
        check_keys("scan.hs", keys | {key: WRONG.get(key, "-7")}, role)
    assert key in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(SPARED_BY_ROLE["multiplicative"]))
def test_files_of_factors_may_say_what_they_correct(key):
    check_keys("m.hs", {key: "Normalisation"}, "multiplicative")


def test_unknown_keys_and_positions_are_named_in_one_line(tmp_path):
    keys = read_header(save(tmp_path, STIR)) | {f"new key {n}": "7" for n in range(10)} | {"a section": ""}
    with pytest.warns(UserWarning, match=r"scan\.hs: unknown keys, ignored: new key 0, .*, new key 7 and 2 more;"):
        check_keys("scan.hs", keys, "counts")
    with pytest.warns(UserWarning, match="no patient orientation and rotation; taken as head first, supine"):
        check_keys("scan.hs", {}, "counts")
    with pytest.warns(UserWarning, match="patient orientation is 'unknown'; taken as head_in"):
        check_keys("scan.hs", {"patient orientation": "unknown", "patient rotation": "supine"}, "counts")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("pet_stir/Siemens_mMR_seg2.hs", "counts"),
        ("pet_stir/scatter_cylinder.hs", "additive"),
        ("pet_listmode/PET_ACQ_small.l.hdr", "list mode"),
    ],
)
def test_real_headers_need_no_word(test_data, name, role):
    check_keys(name, read_header(test_data / name), role)  # warnings are errors here


def test_the_real_arc_corrected_scan_is_refused(test_data):
    keys = read_header(test_data / "pet_stir" / "Utahscat600k_ca_seg4.hs")
    with pytest.raises(DataError, match=r"applied corrections is '\{arc correction\}'; expected none"):
        check_keys("Utahscat600k_ca_seg4.hs", keys, "counts")


def test_siemens_dialect(tmp_path):
    """Segment 0 comes first, sizes are those of its table; numbers are little-endian and in quantification units."""
    header = changed(SIEMENS, "", "quantification units := 2")
    path = save(tmp_path, header)
    with pytest.warns(UserWarning, match="2 oblique segments left out"):
        values = interfile.read_sinogram(path)
    np.testing.assert_array_equal(values, 2 * np.arange(18).reshape(3, 3, 2))
    assert interfile.read_geometry(path).max_ring_difference == 1
    with pytest.raises(DataError, match=r"segment table \[3, 2, 2\], .*; expected 8 planes in all"):
        interfile.read_sinogram(save(tmp_path, SIEMENS.replace("size[3]:=7", "size[3]:=8")))
    with pytest.raises(DataError, match="image scaling factor 3, quantification units 2; expected one"):
        interfile.read_sinogram(save(tmp_path, changed(header, "", "image scaling factor[1] := 3")))
