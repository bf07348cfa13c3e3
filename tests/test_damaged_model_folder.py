"""Damaged folders of trained segmentation models: one line that names the file, before a network is made."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damages import ARCHIVES, ARRAYS, JSON, in_one_line

from medjax.errors import DataError
from medjax.running.arrays import save_arrays
from medjax.segmentation.plan import Case, fingerprint, plan
from medjax.tools.segment_files import read_progress
from medjax.tools.segment_model import (
    ModelDescription,
    choose_network,
    load_model,
    read_description,
    write_description,
)
from medjax.tools.segment_outputs import publish

DATASET = {
    "channel_names": ["MR"],
    "labels": {"background": 0, "bright": 1},
    "file_ending": ".nii.gz",
    "settings": {"seed": 0},
}
JSON_FILES = ("plan.json", "dataset.json", "keep.json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model folder as training leaves it, of zeros."""
    folder = tmp_path_factory.mktemp("model") / "model"
    image = np.arange(8.0**3, dtype=np.float32).reshape(8, 8, 8, 1)
    case = Case(image, (image[..., 0] > 100).astype(np.int32), (1.0, 1.0, 1.0))
    own = plan(fingerprint([case], 2, ("MR",)), base_width=4, patch=(8, 8, 8))
    model, record = choose_network("plain_unet", own)
    write_description(folder, ModelDescription(own, record, DATASET))
    like = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *own.patch, 1)))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    for name in ("params", "best"):
        (folder / "fold_0").mkdir(exist_ok=True)
        save_arrays(folder / "fold_0" / f"{name}.npz", params)
    (folder / "keep.json").write_text('{"1": 1}\n')
    assert load_model(folder).keep == {1: 1}
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


@pytest.mark.parametrize("file", JSON_FILES)
@pytest.mark.parametrize("damage", JSON)
def test_files_that_are_no_json_object(folder, file, damage):
    (folder / file).write_bytes(JSON[damage])
    in_one_line(lambda: load_model(folder), file)


@pytest.mark.parametrize("file", (*JSON_FILES, "fold_0/params.npz"))
def test_folders_and_pipes_of_that_name(folder, file):
    (folder / file).unlink()
    (folder / file).mkdir()
    in_one_line(lambda: load_model(folder), folder if file.startswith("fold") else file)
    (folder / file).rmdir()
    os.mkfifo(folder / file)
    in_one_line(lambda: load_model(folder), folder / file)


HUGE, NOT_A_NUMBER = 10**9, float("nan")
PLANS = [
    {key: value}
    for key, values in {
        "spacing": ([0, 1, 1], [1, 1], [NOT_A_NUMBER] * 3, None, "1", [[1]] * 3, [10**400, 1, 1]),
        "patch": ([HUGE] * 3, [4096] * 3, [0, 8, 8], [8, 8], ["8"] * 3, None, [8.5] * 3),
        "widths": ([], [HUGE] * 2, [4] * 10_000, [0, 4], "4", None),
        "kernels": ([], [[3, 3, 3]] * 99, [[HUGE] * 3] * 2, 3, None),
        "strides": ([[1, 1]], [[0, 0, 0]] * 2, None),
        "classes": (0, -1, HUGE, 3, "2", None, True),
        "channels": ([], ["a", "b"], [1], None, "MR"),
        "intensities": ([], [[1, 2]], None, 7, [["a"] * 4], [[NOT_A_NUMBER] * 4], {"a": 1}),
        "flat_axis": (3, -1, "x"),
        "mirror": ([3], [-1], "xyz", None),
        "regions": ([[0, 1]], [[]], [5], None),
        "region_order": ([1], "1"),
        "ignore": (7, "2"),
        "batch": (0, "2", HUGE),
        "network": (1, "unet", [], {"name": 1, "settings": {}}, {"name": "unet", "settings": []}, {"name": "unet"}),
    }.items()
    for value in values
]


def change(file, changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("odd", PLANS, ids=lambda odd: str(odd)[:50])
def test_odd_plans(folder, odd):
    change(folder / "plan.json", odd)
    in_one_line(lambda: load_model(folder), folder)


@pytest.mark.parametrize("settings", [{"convolutions": HUGE}, {"convolutions": 200}, {"widths": [4] * 60}, {"a": 1}])
def test_odd_networks(folder, settings):
    network = json.loads((folder / "plan.json").read_text())["network"]
    change(folder / "plan.json", {"network": network | {"settings": network["settings"] | settings}})
    in_one_line(lambda: load_model(folder), "plan.json")


@pytest.mark.parametrize(
    "odd",
    [
        *({"labels": labels} for labels in ([], None, {"background": 1}, {"background": 0, "a": "b"}, {"a": [[]]})),
        {"labels": {"background": 0, "a": 1, "b": 2}},
        *({"channel_names": names} for names in (None, {}, [1], ["a", "b"], [])),
        *({"file_ending": ending} for ending in (None, 1, ".png", "")),
        *({"settings": settings} for settings in (None, [], 1)),
        {"cases": 7},
        {"cases": [[]]},
    ],
)
def test_odd_data_sets(folder, odd):
    change(folder / "dataset.json", odd)
    in_one_line(lambda: load_model(folder), "dataset.json")


@pytest.mark.parametrize("keep", [{"9": 1}, {"a": 1}, {"1": 0}, {"1": "1"}, {"1": None}, {"1": [1]}, {"(1, 2": 1}])
def test_odd_components_to_keep(folder, keep):
    (folder / "keep.json").write_text(json.dumps(keep))
    in_one_line(lambda: load_model(folder), "keep.json")


@pytest.mark.parametrize("damage", [*ARCHIVES, *ARRAYS])
def test_damaged_parameters(folder, damage):
    file = folder / "fold_0" / "params.npz"
    if damage in ARCHIVES:
        file.write_bytes(ARCHIVES[damage](file.read_bytes()))
    else:
        with np.load(file) as archive:
            arrays = dict(archive)
        name = sorted(arrays)[0]
        np.savez(file, **arrays | {name: ARRAYS[damage](arrays[name])})
    message = in_one_line(lambda: load_model(folder), file)
    assert "delete its fold's folder to train the fold again" in message


@pytest.mark.parametrize(
    "content", ["", "epoch,step\n1,a\n", "epoch,step\n1\n", "a,b\n1,2\n", "epoch,step\nx,1\n", "\0"]
)
def test_a_damaged_training_log(tmp_path, content):
    (tmp_path / "progress.csv").write_text(content)
    message = in_one_line(lambda: read_progress(tmp_path / "progress.csv", ("epoch", "step"), 1), "progress.csv")
    assert "delete its fold's folder" in message


@pytest.mark.parametrize("damage", JSON)
def test_predictions_of_a_damaged_record_are_computed_again(tmp_path, damage):
    def write(case, folder):
        (folder / case).write_text("prediction")

    for again in (["a"], []):
        assert publish(tmp_path, {"a": "digest"}, {"a": ["a"]}, write) == again
    (tmp_path / "predictions.json").write_bytes(JSON[damage])
    assert publish(tmp_path, {"a": "digest"}, {"a": ["a"]}, write) == ["a"]


def test_a_description_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"plan\.json: no such file; expected a file that `medjax segment train` wrote"):
        read_description(tmp_path)
