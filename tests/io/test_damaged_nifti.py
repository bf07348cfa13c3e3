"""Damaged NIfTI files, by every reader of them: one line, before anything of a declared shape is allocated."""

import gzip
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest
from damages import in_one_line

from medjax.datasets.short_axis import read_series
from medjax.io.digest import content_digest
from medjax.io.displacement_fields import read_displacement_field
from medjax.io.images import read_image
from medjax.io.label_images import read_labels
from medjax.io.nifti import read_nifti, read_nifti_series


def whole(version=1, shape=(4, 5, 6), dtype=np.float32):
    kind = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version]
    image = kind(np.ones(shape, dtype), np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    return image.to_bytes()


def with_field(content, offset, code, *values):
    return (
        content[:offset]
        + struct.pack(f"<{len(values)}{code}", *values)
        + content[offset + struct.calcsize(f"{len(values)}{code}") :]
    )


NAN, INF = float("nan"), float("inf")
ONE, TWO = whole(), whole(2)
DAMAGES = {  # offsets are NIfTI-1's and NIfTI-2's
    "empty": b"",
    "text": b"no image" * 100,
    "header only": ONE[:348],
    "half a header": ONE[:200],
    "cut": ONE[:-10],
    "10⁹ voxels a side": with_field(TWO, 16, "q", 3, 10**9, 10**9, 10**9),
    "2⁶² voxels": with_field(TWO, 16, "q", 3, 2**62, 2**62, 2**62),
    "sides of −1": with_field(ONE, 40, "h", 3, -1, -1, -1),
    "size of the header": with_field(ONE, 0, "i", 10**9),
    "a side of 0": with_field(ONE, 40, "h", 3, 4, 0, 6),
    "largest sides": with_field(ONE, 40, "h", 7, *[32767] * 7),
    "no axes": with_field(ONE, 40, "h", 0),
    "99 axes": with_field(ONE, 40, "h", 99),
    "−3 axes": with_field(ONE, 40, "h", -3),
    "bitpix 0": with_field(ONE, 72, "h", 0),
    "bitpix −32": with_field(ONE, 72, "h", -32),
    "type 0": with_field(ONE, 70, "h", 0),
    "type 1, bits": with_field(ONE, 70, "h", 1, 1),
    "type 999": with_field(ONE, 70, "h", 999),
    "vox_offset nan": with_field(ONE, 108, "f", NAN),
    "vox_offset infinite": with_field(ONE, 108, "f", INF),
    "vox_offset −352": with_field(ONE, 108, "f", -352.0),
    "vox_offset 10⁹": with_field(ONE, 108, "f", 1e9),
    "slope infinite": with_field(ONE, 112, "f", INF, 0.0),
    "slope huge": with_field(ONE, 112, "f", 3e38, 3e38),
    "intercept NaN": with_field(ONE, 112, "f", 1.0, NAN),
    "sform NaN": with_field(ONE, 280, "f", *[NAN] * 12),
    "sform infinite": with_field(ONE, 280, "f", *[INF] * 12),
    "sform 0": with_field(ONE, 280, "f", *[0.0] * 12),
    "no sform, odd quaternion": with_field(with_field(ONE, 252, "h", 1, 0), 256, "f", 9.0, 9.0, 9.0),
    "unit 7": with_field(ONE, 123, "b", 7),
    "values NaN": ONE[:-4] + struct.pack("<f", NAN),
    "complex": whole(dtype=np.complex64),
    "colours": whole(dtype=np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    if False
    else with_field(whole(dtype=np.uint8), 70, "h", 128, 24),
}
READERS = {
    "volume": read_nifti,
    "series": read_nifti_series,
    "field": read_displacement_field,
    "labels": read_labels,
    "image": read_image,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_damaged_files(tmp_path, reader, damage, ending, capfd):
    path, content = tmp_path / f"a{ending}", DAMAGES[damage]
    path.write_bytes(gzip.compress(content, 1) if ending.endswith("gz") else content)
    in_one_line(lambda: READERS[reader](path), path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("damage", [name for name in DAMAGES if not name.startswith(("sform", "no sform"))])
def test_damaged_cines(tmp_path, damage):
    """A cine's affine is not used."""
    (tmp_path / "a.nii").write_bytes(DAMAGES[damage])
    in_one_line(lambda: read_series(tmp_path / "a.nii", 3), "a.nii")


def test_extensions_of_rubbish_are_read_over_or_refused(tmp_path):
    extended = with_field(with_field(ONE[:352] + bytes(range(64)) + ONE[352:], 108, "f", 416.0), 348, "b", 1)
    (tmp_path / "a.nii").write_bytes(extended)
    try:
        np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").array, 1)
    except ValueError:
        in_one_line(lambda: read_nifti(tmp_path / "a.nii"), "a.nii")


def test_a_bomb_is_not_unpacked(tmp_path):
    """2 GB of zeros behind a small header: no more is unpacked than it declares."""
    path = tmp_path / "bomb.nii.gz"
    with path.open("wb") as file:
        zeros = gzip.compress(bytes(2**27), 9)
        file.write(gzip.compress(ONE))
        for _ in range(16):
            file.write(zeros)
    tracemalloc.start()
    assert "there are more than" in in_one_line(lambda: read_nifti(path), path)
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()


def test_the_content_of_damaged_compression_is_named(tmp_path):
    path = tmp_path / "a.nii.gz"
    for content in (b"", b"no gzip", gzip.compress(ONE)[:-9]):
        path.write_bytes(content)
        if content:
            in_one_line(lambda: content_digest([path]), path)
    in_one_line(lambda: content_digest([tmp_path]), tmp_path)
