"""`medjax pet simulate` as Interfile and as PETSIRD: the image of the counts file; all files or none."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medjax.io.nifti import read_nifti, write_nifti
from medjax.pet.scanner import PRESETS, Scanner
from tests.test_pet_command import contents, done, medjax_command

SMALL = Scanner(
    "small", crystals=72, rings=4, radius_mm=80.0, depth_mm=5.0, ring_spacing_mm=4.0, bins=48, voxel_mm=4.0, block=9,
    gaps=True,
)  # fmt: skip
GRID = ("--planes", 7, "--size", 20, "--voxel-mm", 4, "--trues", 60_000, "--seed", 3)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", SMALL)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder with an object that is another one from every side, away from the origin, and its μ-map."""
    folder = tmp_path_factory.mktemp("object")
    x, y, z = np.meshgrid(*[np.arange(-18, 19) * 2.0] * 2, np.arange(-4, 5) * 2.0, indexing="ij")
    body = np.hypot(x, y) < 34
    activity = body + 2.0 * (np.hypot(x - 12, y) < 7) + 3.0 * (np.hypot(x, y - 14) < 5) * (z > 0)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -26, -56, 22
    write_nifti(folder / "activity.nii.gz", activity.astype(np.float32), affine)
    write_nifti(folder / "mu.nii.gz", (0.0096 * body).astype(np.float32), affine)
    return folder


def simulated(images: Path, output: Path, *options: Any) -> list[str]:
    """Simulate to this file; the command that reconstructs it, as it is printed."""
    activity = ("--activity", images / "activity.nii.gz", "--scanner", "small")
    said = done("simulate", *activity, *GRID, *options, "-o", output)
    assert said.stderr == ""
    command = re.fullmatch(r".*\nreconstruct it with: medjax pet (.*)\n", said.stdout)
    assert command, said.stdout
    return shlex.split(command[1])


def reconstructed(command: list[str]) -> tuple[np.ndarray, np.ndarray, str]:
    """Image and its affine by MLEM, and what was said."""
    said = done(*command, "--method", "mlem", "--iterations", 8)
    image = read_nifti(Path(command[-1]))
    return image.array, image.affine, said.stdout + said.stderr


@pytest.mark.parametrize(
    "options", [(), ("--span", 1), ("--span", 3, "--max-ring-difference", 2), ("--span", 3, "--tof", "5,300,400")]
)
def test_interfile_gives_the_image_of_the_counts_file(images, tmp_path, options):
    options = ("--mu", images / "mu.nii.gz", *options)
    want, affine, _ = reconstructed(simulated(images, tmp_path / "a.npz", *options))
    command = simulated(images, tmp_path / "b.hs", *options)
    found, own, said = reconstructed(command)
    np.testing.assert_allclose(found, want, atol=1e-5 * want.max())
    np.testing.assert_allclose(own, affine, atol=1e-4)
    assert "correction" not in said
    assert {file.name for file in tmp_path.glob("b*s")} == {
        f"b{role}.{suffix}" for role in ("", "_additive", "_multiplicative") for suffix in ("hs", "s")
    }
    again = medjax_command(*command, "--mu", images / "mu.nii.gz")
    assert again.exit_code == 2 and "attenuation" in again.stderr  # it is in the factors


@pytest.mark.parametrize(
    ("name", "tof", "background", "tolerance"),
    [
        ("b.petsird", (), 0, 1.5e-3),
        ("b.petsird", ("--tof", "5,300,400"), 0.4, 6e-3),
        ("b.ndjson", ("--tof", "5,300,400"), 0, 4e-3),
    ],
)
def test_petsird_gives_the_image_of_the_counts_file(images, tmp_path, name, tof, background, tolerance):
    """Lines at 45° are walked along another axis here and there; randoms are those of the delayeds."""
    pytest.importorskip("petsird", reason="needs the extra petsird")
    options = ("--mu", images / "mu.nii.gz", "--span", 1, *tof, "--background", background)
    want, affine, _ = reconstructed(simulated(images, tmp_path / "a.npz", *options))
    found, own, said = reconstructed(simulated(images, tmp_path / name, *options))
    np.testing.assert_allclose(found, want, atol=tolerance * want.max())
    np.testing.assert_allclose(own, affine, atol=1e-4)
    assert "real data" not in said and "medjax:" not in said


def test_the_folder_of_the_truth_has_the_mu_map_of_list_mode(images, tmp_path):
    pytest.importorskip("petsird", reason="needs the extra petsird")
    options = ("--mu", images / "mu.nii.gz", "--span", 1, "--truth-dir", tmp_path / "truth")
    command = simulated(images, tmp_path / "a.petsird", *options)
    assert command[command.index("--mu") + 1] == str(tmp_path / "truth" / "mu.nii.gz")
    assert {file.name for file in (tmp_path / "truth").iterdir()} == {"truth.nii.gz", "mu.nii.gz"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.petsird", ["--span", "3"], r"direct planes and planes of a span above 1 sum; expected --span 1"),
        ("a.ndjson", [], r"direct planes and planes of a span above 1 sum; expected --span 1"),
        (
            "a.petsird",
            ["--span", "1", "--scanner", "mct", "--size", "60"],
            "mct sums 2 views into one: expected another",
        ),
        ("a.s", [], r"a\.s: expected a name that ends in \.npz or \.hs or \.petsird or \.ndjson"),
        ("taken.hs", [], r"taken_additive\.s: is a folder; expected a file to write"),
    ],
)
def test_files_that_cannot_be_written(images, tmp_path, name: str, options: list[str], message: str):
    (tmp_path / "taken_additive.s").mkdir()
    (tmp_path / "taken.hs").write_bytes(b"from before")
    before = contents(tmp_path)
    shape = ("--activity", images / "activity.nii.gz", "--scanner", "small", *GRID)
    result = medjax_command("simulate", *shape, *options, "-o", tmp_path / name)
    assert result.exit_code == 2 and re.fullmatch(rf"medjax: .*{message}.*\n", result.stderr), result.stderr
    assert contents(tmp_path) == before


def test_interfile_is_written_whole_or_not_at_all(images, tmp_path, monkeypatch):
    for name in ("a.hs", "a.s", "a_additive.hs"):
        (tmp_path / name).write_bytes(b"from before")
    before = contents(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "a.s"))

    monkeypatch.setattr("medjax.pet.interfile_counts.reverse_rings", full)
    shape = ("--activity", images / "activity.nii.gz", "--scanner", "small", *GRID)
    result = medjax_command("simulate", *shape, "-o", tmp_path / "a.hs")
    assert result.exit_code != 0 and "No space left" in result.stderr and contents(tmp_path) == before
