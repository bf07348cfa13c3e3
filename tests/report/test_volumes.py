"""An image, its picture and its standard deviation lie side by side, written all or none."""

import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.nifti import read_nifti
from medjax.report.figures import PET
from medjax.report.volumes import write_volume


def test_files_are_written_side_by_side(tmp_path):
    image = np.random.default_rng(0).uniform(size=(8, 9, 3)).astype(np.float32)
    affine, path = np.diag([2.0, 2.0, 4.0, 1.0]), tmp_path / "a.nii.gz"
    assert write_volume(path, image, affine, PET, "image") == (path, tmp_path / "a.png")
    files = write_volume(path, image, affine, PET, "image", image / 2, "simulated")
    assert files == (path, tmp_path / "a.png", tmp_path / "a_sd.nii.gz")
    np.testing.assert_array_equal(read_nifti(files[0]).array, image)
    np.testing.assert_array_equal(read_nifti(files[2]).array, image / 2)
    assert files[1].read_bytes().startswith(b"\x89PNG") and set(tmp_path.iterdir()) == set(files)


def test_a_write_that_fails_leaves_the_former_files(tmp_path, monkeypatch):
    image, affine, path = np.ones((4, 4, 1), np.float32), np.diag([2.0, 2.0, 4.0, 1.0]), tmp_path / "a.nii"
    write_volume(path, image, affine, PET, "image", image / 2)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(path, *_):
        if path.name == "a_sd.nii.gz":
            raise DataError("full")
        path.write_bytes(b"new")

    with monkeypatch.context() as context, pytest.raises(DataError, match="full"):
        context.setattr("medjax.report.volumes.write_nifti", fail)
        write_volume(path, 2 * image, affine, PET, "image", image / 2)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_standard_deviation_from_before_stays_and_is_told_of(tmp_path):
    image, affine, sd = np.ones((4, 4, 1), np.float32), np.diag([2.0, 2.0, 4.0, 1.0]), tmp_path / "a_sd.nii.gz"
    sd.write_bytes(b"the user's")
    with pytest.warns(UserWarning, match=r"a_sd\.nii\.gz: was there before, of another run than a\.nii; it stays"):
        files = write_volume(tmp_path / "a.nii", image, affine, PET, "image")
    assert sd.read_bytes() == b"the user's" and files == (tmp_path / "a.nii", tmp_path / "a.png")


@pytest.mark.parametrize("planes", [1, 12])
def test_a_standard_deviation_has_a_scale_of_its_own_and_names_keep_apart(planes, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("medjax.report.volumes.png", lambda figure: figures.append(figure) or b"")
    image = np.full((16, 18, planes), 100, np.float32)
    name = "LIKELIHOOD-SCHEDULE, 20 MLEM iterations, 4 samples"
    write_volume(tmp_path / "a.nii", image, np.diag([4.0, 4.0, 4.0, 1.0]), PET, name, image / 50)
    [figure] = figures
    bars = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in bars] == ["activity", "standard deviation of activity"]
    assert [axes.get_xticklabels()[-1].get_text() for axes in bars] == ["100", "2"]
    figure.canvas.draw()
    names = [text.get_window_extent() for text in figure.texts]
    assert " ".join(figure.texts[0].get_text().split()) == name
    assert not any(one.overlaps(other) for k, one in enumerate(names) for other in names[:k])
    titles = [axes._left_title.get_window_extent() for axes in bars]
    assert not titles[0].overlaps(titles[1])
