"""The wheel: experiments and configs in `medjax/bundled`, no other package, and a command that works from it alone."""

import os
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel as `pip install --no-deps --target` unpacks it."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run_installed(installed: Path, here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "medjax", *arguments]
    return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)


def files(folder: Path) -> set[Path]:
    return {file for file in folder.rglob("*") if file.is_file()}


def test_the_wheel_has_the_experiments_inside_its_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"medjax"}
    for room in ("experiments", "configs"):
        bundled = {name for name in names if name.startswith(f"medjax/bundled/{room}/")}
        source = {f"medjax/bundled/{file.relative_to(ROOT)}" for file in (ROOT / room).rglob("*.py")}
        assert bundled == source
    assert "medjax/py.typed" in names and any(name.startswith("medjax/diffusion/weights/") for name in names)
    assert not (ROOT / "medjax" / "bundled").exists()  # the tree holds them once


def test_the_metadata_names_the_licence_and_the_pythons_that_have_lock_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [name] = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        content = message_from_string(archive.read(name).decode())
    assert content["License-Expression"] == "Apache-2.0" and content["License-File"] == "LICENSE"
    classifiers = content.get_all("Classifier")
    assert not [one for one in classifiers if one.startswith("License ::")]  # the SPDX expression takes their place
    named = {one.rpartition(" ")[2] for one in classifiers if one.startswith("Programming Language :: Python :: 3.")}
    assert named == {file.stem.partition("-")[2] for file in ROOT.glob("requirements-*.lock")}


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements-*.lock")), ids=lambda file: file.name)
def test_a_lock_file_holds_what_the_project_requires(lock):
    fold = lambda name: name.lower().replace("_", "-")  # noqa: E731
    versions = {fold(name): version for name, version in (line.split("==") for line in lock.read_text().split())}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *extras["data"], *extras["dev"], *extras["petsird"], *extras["docs"]):
        one = Requirement(text)
        assert one.specifier.contains(versions[fold(one.name)], prereleases=True), text


def test_experiments_are_listed_and_copied_from_the_wheel(installed, tmp_path):
    before = files(installed)
    where = [sys.executable, "-c", "import medjax; print(medjax.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(installed)
    listed = run_installed(installed, tmp_path, "experiments")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "pet_pseudo_prior" in listed.stdout and "planned" not in listed.stdout
    copied = run_installed(installed, tmp_path, "new", "mine", "--from", "label_flips")
    assert copied.returncode == 0, copied.stderr
    assert (tmp_path / "experiments" / "flips" / "members.py").is_file()
    assert {file for file in files(installed) - before if file.suffix != ".pyc"} == set()


@pytest.mark.slow
def test_an_experiment_runs_from_the_wheel_and_writes_into_the_current_folder(installed, tmp_path):
    before = files(installed)
    done = run_installed(installed, tmp_path, "run", "label_flips:tiny")
    assert done.returncode == 0, done.stderr
    [work] = (tmp_path / "runs").iterdir()
    assert (work / "report.html").is_file()
    assert files(installed) == before
    again = run_installed(installed, tmp_path, "run", "label_flips:tiny")
    assert again.stdout == f"finished already: runs/{work.name}/report.html\n"
