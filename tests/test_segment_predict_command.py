"""`medjax segment predict`: labels as integers, published together, known by their contents, never over an input."""

import json

import nibabel
import numpy as np
import pytest

from medjax.errors import DataError
from medjax.io.nifti import read_nifti, write_nifti
from medjax.io.nnunet_raw import write_dataset, write_label_nifti
from medjax.running.arrays import load_arrays, save_arrays
from medjax.tools import segment_outputs, segment_predict
from tests.segmentation import sides as sides_file
from tests.segmentation.commands import command, done, refused
from tests.segmentation.sides import AFFINE, NAMES, sides

NETWORK = ("--network", f"{sides_file.__file__}:net")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    scans = [sides(seed) for seed in range(5)]
    write_dataset(folder / "data", scans, ("MR",), NAMES, test=[sides(7), sides(8), sides(9)])
    done("train", folder / "data", "-o", folder / "model", "--fold", "0", "--patch", "16,16,16", "--epochs", "1",
         "--iterations", "60", "--rate", "0.3", "--base-width", "4", "--mirror", "none", *NETWORK)  # fmt: skip
    return folder


def predict(trained, output, *more, images=None, model=None):
    images = images or trained / "data" / "imagesTs"
    return ("predict", model or trained / "model", images, "-o", output, *NETWORK, *more)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def test_labels_are_integers_of_the_smallest_type_on_the_images_grid(trained, tmp_path):
    done(*predict(trained, tmp_path / "said"))
    image = nibabel.load(tmp_path / "said" / "case_7.nii.gz")
    assert (
        image.get_data_dtype() == np.uint8 and image.header["scl_slope"] != image.header["scl_slope"]
    )  # NaN: unscaled
    np.testing.assert_allclose(image.affine, AFFINE)
    assert set(np.unique(np.asarray(image.dataobj))) == {0, 1, 2}
    labels = np.arange(27).reshape(3, 3, 3) * 11
    for classes, dtype in ((300, np.uint16), (70_000, np.uint32)):
        write_label_nifti(tmp_path / "many.nii", labels, AFFINE, classes)
        assert nibabel.load(tmp_path / "many.nii").get_data_dtype() == dtype
        np.testing.assert_array_equal(read_nifti(tmp_path / "many.nii").array, labels)
    with pytest.raises(DataError, match=r"many\.nii: labels from 0 to 286 to write; expected 0 to 255"):
        write_label_nifti(tmp_path / "many.nii", labels, AFFINE, 256)


def test_a_stopped_prediction_leaves_the_old_files_and_goes_on(trained, tmp_path, monkeypatch):
    """It left new label images beside old ones, of which nothing told which were which."""
    output, seen, plain = tmp_path / "said", [], segment_predict.predict_case
    output.mkdir()
    old = {"case_7.nii.gz": b"an older model's", "case_8.nii.gz": b"too", "notes.txt": b"mine"}
    for name, content in old.items():
        (output / name).write_bytes(content)

    def stops_at(number):
        def predict_case(*arguments, **options):
            seen.append(1)
            if len(seen) == number:
                raise KeyboardInterrupt
            return plain(*arguments, **options)

        monkeypatch.setattr(segment_predict, "predict_case", predict_case)

    stops_at(3)
    assert command(*predict(trained, output)).exit_code == 130
    assert contents(output) == old
    seen.clear()
    stops_at(0)
    assert f"3 cases by 1 network; wrote {output}" in done(*predict(trained, output)).stdout
    assert len(seen) == 1  # two were kept
    done(*predict(trained, tmp_path / "whole"))
    new = contents(output)
    assert new.pop("notes.txt") == b"mine" and new == contents(tmp_path / "whole")
    assert not (output / ".predicting").exists()


def test_a_failed_exchange_leaves_the_old_files(trained, tmp_path, monkeypatch):
    import os

    output = tmp_path / "said"
    done(*predict(trained, output))
    before, replace, calls = contents(output), os.replace, []

    def fails_at_the_second(source, target):
        calls.append(target)
        if len(calls) == 9:  # six files and the record are written; then they take their places: the second of them
            raise OSError(28, "No space left on device", str(target))
        return replace(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_second)
    result = command(*predict(trained, output, "--probabilities"))
    assert result.exit_code == 2 and "No space left" in result.stderr
    assert contents(output) == before


@pytest.mark.parametrize("links", [True, False])
def test_a_failed_exchange_loses_no_prediction(trained, tmp_path, monkeypatch, links):
    """The finished files were moved into the temporary folder, which was deleted."""
    import os

    output, plain, seen = tmp_path / "said", segment_predict.predict_case, []
    monkeypatch.setattr(segment_predict, "predict_case", lambda *a, **b: seen.append(1) or plain(*a, **b))
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    (output / "case_8.nii.gz").mkdir(parents=True)
    refused("Is a directory: ", *predict(trained, output))
    assert len(seen) == 3 and contents(output) == {}
    (output / "case_8.nii.gz").rmdir()
    monkeypatch.setattr(segment_outputs, "write_text", interrupt)
    assert command(*predict(trained, output)).exit_code == 130
    monkeypatch.undo()
    monkeypatch.setattr(segment_predict, "predict_case", interrupt)
    done(*predict(trained, output))
    assert len(seen) == 3 and len(contents(output)) == 4
    assert not (output / ".predicting").exists()


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_what_is_there_is_known_by_its_contents(trained, tmp_path):
    output = tmp_path / "said"
    done(*predict(trained, output, "--probabilities"))
    whole = contents(output)
    assert len(whole) == 7
    assert f"finished already in {output}" in done(*predict(trained, output, "--probabilities")).stdout
    (output / "case_7.nii.gz").write_bytes(b"")  # as a full disk leaves it
    assert "(2 were there already)" in done(*predict(trained, output, "--probabilities")).stdout
    assert contents(output) == whole
    assert f"wrote {output}" in done(*predict(trained, output)).stdout  # no probabilities beside other labels
    assert sorted(contents(output)) == ["case_7.nii.gz", "case_8.nii.gz", "case_9.nii.gz", "predictions.json"]
    (output / "predictions.json").write_text("[]")
    assert "were there" not in done(*predict(trained, output)).stdout
    done(*predict(trained, output, images=trained / "data" / "imagesTr"))  # other cases are added
    record = json.loads((output / "predictions.json").read_text())
    assert sorted(record) == [f"case_{k}" for k in (0, 1, 2, 3, 4, 7, 8, 9)]
    assert "finished already" in done(*predict(trained, output)).stdout
    assert "finished already" not in done(*predict(trained, output, "--keep", "kidney_left=1")).stdout


def test_predictions_never_replace_images_references_or_the_model(trained, tmp_path):
    data, before = trained / "data", {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    refused("imagesTs: is the folder of the images; expected another", *predict(trained, data / "imagesTs"))
    (tmp_path / "link").symlink_to(data / "imagesTs")
    refused("link: is the folder of the images", *predict(trained, tmp_path / "link"))
    refused("labelsTr/case_0.nii.gz: is the input", *predict(trained, data / "labelsTr", images=data / "imagesTr"))
    (tmp_path / "said").mkdir()
    (tmp_path / "said" / "case_7.nii.gz").hardlink_to(data / "imagesTs" / "case_7_0000.nii.gz")
    refused("said/case_7.nii.gz: is the input", *predict(trained, tmp_path / "said"))
    refused(
        "fold_0/said: is in a fold of the model; expected another", *predict(trained, trained / "model/fold_0/said")
    )
    assert all(path.read_bytes() == content for path, content in before.items())


def test_predictions_may_lie_in_the_models_folder(trained, tmp_path):
    """A second time, or after a stop, they were refused as an input."""
    import shutil

    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)
    for output in (model / "predictions", model):
        done(*predict(trained, output, model=model))
        assert "finished already" in done(*predict(trained, output, model=model)).stdout
        (output / "case_7.nii.gz").unlink()
        assert "(2 were there already)" in done(*predict(trained, output, model=model)).stdout


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(trained, tmp_path, value):
    """They gave label images of 0 everywhere, and success."""
    import shutil

    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)
    file = model / "fold_0" / "params.npz"
    params = load_arrays(file)
    params["kernel"][0, 1] = value
    save_arrays(file, params)
    refused("fold_0/params.npz: weights kernel are not finite", *predict(trained, tmp_path / "said", model=model))
    save_arrays(file, {"kernel": np.zeros((2, 3), np.float32)})
    refused("weights kernel have shape (2, 3); expected (3, 3)", *predict(trained, tmp_path / "said", model=model))
    assert not (tmp_path / "said").exists()


def test_images_from_another_side_are_said(trained, tmp_path):
    """The same anatomy stored the other way round: left and right labels would be exchanged without a word."""
    (tmp_path / "images").mkdir()
    affine = AFFINE * [[1, -1, 1, 1]] + [[0, 0, 0, 15], [0] * 4, [0] * 4, [0] * 4]
    write_nifti(tmp_path / "images" / "case_7_0000.nii.gz", sides(7).image[:, ::-1, :, 0], affine)
    said = done(*predict(trained, tmp_path / "said", images=tmp_path / "images"))
    expected = "another orientation than PRS, that of the training cases: 1 of 1 cases, case_7\n"
    assert said.stderr == f"medjax: {tmp_path}/said: {expected}"
    assert done(*predict(trained, tmp_path / "said", images=tmp_path / "images")).stderr == said.stderr


def test_a_model_of_mirrored_sides_is_said(trained, tmp_path):
    """Older versions mirrored all axes, whatever the labels are called."""
    import shutil

    shutil.copytree(trained / "model", tmp_path / "model")
    file = tmp_path / "model" / "plan.json"
    older = json.loads(file.read_text())
    del older["mirror"], older["orientations"]
    file.write_text(json.dumps(older))
    said = done(*predict(trained, tmp_path / "said", model=tmp_path / "model"))
    expected = "kidney_left and kidney_right may be exchanged, for training mirrored left and right: 3 of 3 cases"
    assert said.stderr == f"medjax: {tmp_path}/said: {expected}, case_7, case_8, case_9\n"
    assert done(*predict(trained, tmp_path / "said", model=tmp_path / "model")).stderr == said.stderr


def test_cases_without_any_structure_are_said(trained, tmp_path):
    (tmp_path / "images").mkdir()
    flat = sides(7)._replace(image=np.ones((16, 16, 16, 1), np.float32))
    write_nifti(tmp_path / "images" / "case_7_0000.nii.gz", flat.image[..., 0], flat.affine)
    said = done(*predict(trained, tmp_path / "said", images=tmp_path / "images"))
    assert said.stderr == f"medjax: {tmp_path}/said: no structure was found: 1 of 1 cases, case_7\n"
    again = done(*predict(trained, tmp_path / "said", images=tmp_path / "images"))  # it was said once only
    assert "finished already" in again.stdout and again.stderr == said.stderr
