"""`labels simulate`, `ivim simulate`, `segment simulate`: data sets that their tools take, whole or not at all."""

import csv
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from medjax import cli
from medjax.datasets.labeled_folders import read, read_trusted
from medjax.errors import DataError
from medjax.io.bvalues import read_bvalues
from medjax.io.nnunet_raw import read_dataset, read_scan
from medjax.tools.simulated_folder import new_folder
from tests.test_docs import parse

SMALL = {
    "labels": ["--number", "16", "--size", "16", "--wrong", "0.25"],
    "ivim": ["--size", "24"],
    "segment": ["--size", "24", "--number", "5", "--test", "1"],
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def simulate(tool: str, *arguments: str):
    return CliRunner().invoke(cli.app, [tool, "simulate", *arguments], prog_name="medjax")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("tool", SMALL)
def test_a_seed_is_one_data_set_and_the_next_command_is_printed(here, tool):
    for output, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        done = simulate(tool, "-o", output, "--seed", seed, *SMALL[tool])
        assert done.exit_code == 0, done.stderr
    assert contents(here / "a") == contents(here / "b")
    assert contents(here / "a") != contents(here / "c")
    following = done.stdout.splitlines()[-1].partition(": ")[2]
    assert parse(shlex.split(following)[1:]).params  # a command line that the tool takes
    assert {file.name for file in here.iterdir()} == {"a", "b", "c"}


def test_the_audit_reads_simulated_labels(here):
    assert simulate("labels", "-o", "echo", *SMALL["labels"]).exit_code == 0
    data = read(here / "echo" / "images", here / "echo" / "masks", 16, min_images=16)
    assert data.images.shape == (16, 16, 16, 1) and set(np.unique(data.labels)) <= {0, 1, 2, 3}
    known, wrong = read_trusted(here / "echo" / "truth.csv", data.names)
    assert len(known) == 16 and wrong.sum() == 4
    with (here / "echo" / "truth.csv").open() as file:
        assert next(csv.reader(file)) == ["name", "wrong"]


def test_a_simulated_scan_is_fitted_and_has_its_truth(here):
    assert simulate("ivim", "-o", "fetus", "--snr", "200", *SMALL["ivim"]).exit_code == 0
    scan = nibabel.load(here / "fetus" / "dwi.nii.gz")
    assert scan.shape == (24, 24, 20, 10) == (*scan.shape[:3], len(read_bvalues(here / "fetus" / "dwi.bval")))
    mask, f = (np.asarray(nibabel.load(here / "fetus" / name).dataobj) for name in ("mask.nii.gz", "true_f.nii.gz"))
    lungs, regions = mask > 0, np.asarray(nibabel.load(here / "fetus" / "regions.nii.gz").dataobj)
    assert lungs.sum() > 50 and set(np.unique(regions[lungs])) == {1, 2} and not regions[~lungs].any()
    assert 0.2 < np.median(f[lungs]) < 0.45


def test_a_simulated_data_set_is_nnunets(here):
    assert simulate("segment", "-o", "Dataset001_Fetus", *SMALL["segment"]).exit_code == 0
    data = read_dataset(here / "Dataset001_Fetus")
    assert (len(data.training), len(data.test)) == (5, 1)
    assert data.labels == {"background": 0, "lungs": 1, "liver": 2, "heart": 3}
    for case in data.training:
        labels = read_scan(case, 4).labels
        assert labels is not None and set(np.unique(labels)) == {0, 1, 2, 3}
    assert [file.name for file in (here / "Dataset001_Fetus" / "labelsTs").iterdir()] == ["fetus_005.nii.gz"]


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("labels", ["--number", "3"], "--number 3; expected 16 to 10000"),
        ("labels", ["--number", "100000000"], "--number 1e+08; expected 16 to 10000"),
        ("labels", ["--wrong", "nan"], "--wrong nan; expected 0 to 1"),
        ("labels", ["--error", "rendom"], "--error rendom; expected random"),
        ("labels", ["--seed", "-1"], "--seed -1; expected"),
        ("ivim", ["--size", "0"], "--size 0; expected 24 to 96"),
        ("ivim", ["--age", "50"], "--age 50; expected 16 to 42"),
        ("ivim", ["--snr", "0"], "--snr 0; expected more than 0"),
        ("segment", ["--number", "1"], "--number 1; expected 5 to 1000"),
        ("segment", ["--test", "-1"], "--test -1; expected 0 to 1000"),
        ("segment", ["--size", "1e3"], "--size 1e3; expected a whole number"),
    ],
)
def test_bad_numbers_are_one_line_and_nothing_is_written(here, tool, arguments, message):
    done = simulate(tool, "-o", "made/here", *arguments)
    assert done.exit_code == 2 and done.stderr.startswith(f"medjax: {message}") and done.stderr.count("\n") == 1
    assert not any(here.iterdir())


def test_what_is_there_is_not_written_into(here):
    (here / "there").mkdir()
    (here / "there" / "mine").touch()
    (here / "file").touch()
    for output, message in (("there", "there: is not empty"), ("file", "file: file is a file")):
        done = simulate("ivim", "-o", output)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr
    with pytest.raises(DataError, match="x"), new_folder(here / "new" / "one") as folder:
        (folder / "half").touch()
        raise DataError("x")
    assert {file.name for file in here.rglob("*")} == {"there", "mine", "file"}
