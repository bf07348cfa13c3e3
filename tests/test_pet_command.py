"""`medjax pet`: simulated scans come back as images in the right place; bad input is one line and changes nothing.

Longer than 300 lines because one simulated scan serves all tests of the command.
"""

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from medjax import cli
from medjax.io.counts import read_counts
from medjax.io.interfile import write_sinogram
from medjax.io.nifti import Volume, read_nifti, write_nifti
from medjax.pet.io import load_scan
from medjax.pet.scanner import lors, preset
from medjax.tools.pet_planes import PlaneSettings
from medjax.tools.pet_settings import DEFAULTS, ReconstructionSettings, complete_settings, title
from medjax.tools.pet_simulate import CountSettings, simulate

LEFT_RIGHT_FLIPPED = np.array([[-2.0, 0, 0, 104.0], [0, 2.0, 0, -102.0], [0, 0, 2.0, -4.0], [0, 0, 0, 1.0]])
BACKGROUND, SCALE = 0.3, ["--size", "48", "--voxel-mm", "5"]


def medjax_command(*arguments):
    return CliRunner().invoke(cli.app, ["pet", *map(str, arguments)], prog_name="medjax")


def done(*arguments):
    result = medjax_command(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def slice_(tmp_path_factory) -> Path:
    """A folder with counts.npz of a slice of the head, and what is known of it in truth/."""
    pytest.importorskip("nilearn")
    folder = tmp_path_factory.mktemp("slice")
    said = done(
        "simulate", "--scanner", "ring_2d", "--slice-mm", "10", "--trues-per-mm3", "20", "--background", BACKGROUND,
        *SCALE, "--seed", "1", "--truth-dir", folder / "truth", "-o", folder / "counts.npz",
    )  # fmt: skip
    assert said.stderr == "" and said.stdout.count("\n") == 2
    assert f"reconstruct it with: medjax pet reconstruct {folder}/counts.npz -o {folder}/counts.nii.gz" in said.stdout
    return folder


@pytest.fixture
def here(tmp_path, slice_, monkeypatch) -> Path:
    """An empty working folder with the slice's files, and an image from before."""
    for file in [slice_ / "counts.npz", *(slice_ / "truth").iterdir()]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "image.nii.gz").write_bytes(b"from before")
    (tmp_path / "image.png").write_bytes(b"from before")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(folder, message, *arguments):
    before = contents(folder)
    result = medjax_command(*arguments)
    assert result.exit_code == 2, result.output
    assert re.fullmatch(rf"medjax: .*{message}.*\n", result.stderr), result.stderr
    assert contents(folder) == before


def error(image, truth):
    head = truth > 0.02 * truth.max()
    return np.linalg.norm((image - truth)[head]) / np.linalg.norm(truth[head])


# ── what comes out ──


def test_the_counts_file_says_what_was_simulated(slice_):
    counts, truth = read_counts(slice_ / "counts.npz"), read_nifti(slice_ / "truth" / "truth.nii.gz")
    assert counts.scanner == "ring_2d" and counts.counts.shape == (252, 344, 1)
    assert counts.metadata["trues_per_mm3"] == pytest.approx(20) and counts.metadata["attenuation"]
    total = counts.metadata["trues"] / (1 - BACKGROUND)
    assert counts.counts.sum() == pytest.approx(total, abs=5 * total**0.5)
    assert counts.additive.sum() == pytest.approx(BACKGROUND * total, rel=1e-4)
    np.testing.assert_allclose(counts.truth, truth.array)
    np.testing.assert_allclose(counts.affine, truth.affine)
    assert truth.affine[2, 3] == 10 and truth.array.shape == (48, 48, 1)
    thickest = read_nifti(slice_ / "truth" / "mu.nii.gz").array.sum(axis=1).max() * 5  # along y, the head's long axis
    attenuation = counts.multiplicative.min() / counts.multiplicative.max()
    assert attenuation == pytest.approx(np.exp(-thickest), rel=0.1) and attenuation < 0.15
    assert {file.name for file in (slice_ / "truth").iterdir()} == {"truth.nii.gz", "mu.nii.gz", "t1.nii.gz"}


def test_every_method_finds_the_head(here):
    truth = read_nifti("truth.nii.gz")
    errors, images = {}, {}
    for name, options in {
        "osem": ["--method", "osem", "--iterations", "4", "--subsets", "7"],
        "mlem": ["--method", "mlem"],
        "map-em": ["--method", "map-em"],
        "guided": ["--method", "map-em", "--mr", "t1.nii.gz"],
        "unpenalised": ["--method", "map-em", "--beta", "0"],
        "same": ["--method", "osem", "--iterations", "10", "--subsets", "7"],
    }.items():
        said = done("reconstruct", "counts.npz", *options, "-o", f"{name}.nii.gz")
        assert said.stderr == ""
        image = read_nifti(f"{name}.nii.gz")
        np.testing.assert_allclose(image.affine, truth.affine, atol=1e-4)
        errors[name], images[name] = error(image.array, truth.array), image.array
        assert Path(f"{name}.png").read_bytes().startswith(b"\x89PNG")
        said_error = float(re.search(r"NRMSE ([\d.]+) against the file's truth", said.stdout)[1])
        whole = np.linalg.norm(image.array - truth.array) / np.linalg.norm(truth.array)
        assert said_error == pytest.approx(whole, abs=1e-3)
    head = truth.array > 0.02 * truth.array.max()
    flat = error(np.full_like(truth.array, truth.array[head].mean()), truth.array)
    assert max(errors.values()) < 0.7 * flat
    assert errors["guided"] < errors["map-em"] < errors["same"]
    np.testing.assert_allclose(images["unpenalised"], images["same"], rtol=2e-3, atol=2e-3)
    again = done("reconstruct", "counts.npz", "--iterations", "4", "--subsets", "7", "-o", "osem.nii")
    np.testing.assert_array_equal(read_nifti("osem.nii").array, images["osem"])
    assert "wrote osem.nii and osem.png" in again.stdout


def test_the_penalty_needs_no_tuning_to_units(here):
    """Counts × 1, activity in other units: the same image in those units."""
    with np.load("counts.npz") as file:
        entries = dict(file)
    entries["multiplicative"] = entries["multiplicative"] * np.float32(1000)
    np.savez("other.npz", **entries)
    for name in ("counts", "other"):
        done("reconstruct", f"{name}.npz", "--method", "map-em", "--iterations", "3", "-o", f"{name}.nii")
    one, other = (read_nifti(f"{name}.nii").array for name in ("counts", "other"))
    np.testing.assert_allclose(other * 1000, one, rtol=1e-3, atol=1e-3)


def test_a_post_filter_is_a_gaussian_over_the_image(here):
    for width in ("0", "12"):
        done("reconstruct", "counts.npz", "--subsets", "7", "--post-filter-mm", width, "-o", f"{width}.nii")
    plain, filtered = (read_nifti(f"{width}.nii").array for width in ("0", "12"))
    expected = gaussian_filter(plain, (12 / 2.3548 / 5, 12 / 2.3548 / 5, 0), mode="reflect")
    assert np.abs(filtered - expected).max() < 0.04 * expected.max()  # integrals over voxels, not samples


def test_an_image_smaller_than_the_head_is_said_to_be(here):
    said = done("reconstruct", "counts.npz", "--size", "20", "--voxel-mm", "5", "--iterations", "1", "-o", "small.nii")
    found = re.search(
        r"\d+% of the net counts are on lines .* miss the image of ±50 × .*; use --size (\d+)", said.stderr
    )
    assert found, said.stderr
    assert "no NRMSE: the truth in the counts' file is on another grid, 48 × 48 × 1 voxels of 5 × 5 × " in said.stdout
    enough = found[1]
    said = done("reconstruct", "counts.npz", "--size", enough, "--voxel-mm", "5", "--iterations", "1", "-o", "e.nii")
    assert "miss the image" not in said.stderr
    refused(
        here, f"[0-9]+% of the net .* use --size {enough}", "reconstruct", "counts.npz", "--size", "8", "-o", "a.nii"
    )


def test_attenuation_is_corrected_by_the_mu_map(here):
    """Factors without attenuation plus --mu are what the counts file had; without it the middle goes dark."""
    save_bare("bare.npz")
    options = ["--subsets", "7"]
    done("reconstruct", "counts.npz", *options, "-o", "right.nii")
    done("reconstruct", "bare.npz", *options, "-o", "dark.nii")
    done("reconstruct", "bare.npz", *options, "--mu", "mu.nii.gz", "-o", "corrected.nii")
    right, dark, corrected = (read_nifti(f"{name}.nii").array for name in ("right", "dark", "corrected"))
    assert corrected[18:30, 18:30].mean() == pytest.approx(right[18:30, 18:30].mean(), rel=0.02)
    assert dark[18:30, 18:30].mean() < 0.4 * right[18:30, 18:30].mean()


@pytest.mark.parametrize("center", [None, (10.0, 5.0, 2.0)])
def test_a_point_is_found_at_its_millimetres_left_and_right_included(tmp_path, center):
    """Its image is stored from right to left; the scanner stands at the middle of that image, or where it is put."""
    point = np.array([30.0, -20.0, 6.0])
    index = np.stack(np.meshgrid(*map(np.arange, (101, 101, 9)), indexing="ij"), axis=-1)
    mm = index @ LEFT_RIGHT_FLIPPED[:3, :3].T + LEFT_RIGHT_FLIPPED[:3, 3]
    write_nifti(tmp_path / "a.nii.gz", (np.linalg.norm(mm - point, axis=-1) < 3).astype(np.float32), LEFT_RIGHT_FLIPPED)
    counts, image = tmp_path / "c.npz", tmp_path / "i.nii.gz"
    where = [] if center is None else [f"--centre={center[0]},{center[1]},{center[2]}"]
    simulated = ["--trues", "1e5", "--background", "0.1", "--planes", "9", "--size", "64", "--voxel-mm", "3"]
    done("simulate", "--activity", tmp_path / "a.nii.gz", "--scanner", "mmr", *simulated, *where, "-o", counts)
    center_mm = np.asarray(center or (4.0, -2.0, 4.0))  # by default the middle of the image
    assert lines_through(counts) == pytest.approx((point - center_mm)[:2], abs=1)
    said = done("reconstruct", counts, "--iterations", "1", "--subsets", "7", "-o", image)
    assert said.stderr == ""
    found = nibabel.load(image)
    bright = np.where(found.get_fdata() > 0.2 * found.get_fdata().max(), found.get_fdata(), 0)
    middle = np.array([np.average(axis, weights=bright) for axis in np.indices(bright.shape)])
    assert nibabel.affines.apply_affine(found.affine, middle) == pytest.approx(point, abs=1)
    assert nibabel.aff2axcodes(found.affine) == ("R", "A", "S")


def lines_through(path):
    """The point (x, y) from the scanner's axis to which the lines with counts come nearest, by least squares."""
    scan = load_scan(path)
    counts = scan.counts.sum(axis=2)
    ends = lors(preset("mmr"))[counts > 5]
    along = ends[:, 1] - ends[:, 0]
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    offset = np.sum(normal * ends[:, 0], axis=1)
    return np.linalg.lstsq(normal * counts[counts > 5, None], offset * counts[counts > 5], rcond=None)[0]


def test_lesions_and_tracers_of_the_phantom(slice_, tmp_path):
    options = ["--scanner", "ring_2d", "--slice-mm", "10", *SCALE, "-o", tmp_path / "l.npz"]
    said = done("simulate", "--phantom", "fdg", "--lesions", "2", "--lesion-kind", "pet", *options)
    assert said.stdout.startswith("fdg phantom with 2 lesions in ring_2d, 1 plane about 0, -17, 10 mm: ")
    brighter = read_counts(tmp_path / "l.npz").truth - read_counts(slice_ / "counts.npz").truth
    assert brighter.max() > 0.3 and brighter.min() > -1e-5


def test_real_list_mode_shows_the_head(test_data, tmp_path):
    said = done(
        "reconstruct", test_data / "pet_listmode" / "small_listmode_file.l", "--scanner", "mmr",
        "--max-ring-difference", "5", "--sum-planes", "8", "--size", "64", "--voxel-mm", "4.2", "--iterations", "2",
        "--subsets", "3", "--post-filter-mm", "8", "-o", tmp_path / "head.nii.gz",
    )  # fmt: skip
    first, label, last = said.stdout.splitlines()
    assert first == "218,881 prompts and 35,320 delayeds; 29,119 and 5,891 with |ring difference| ≤ 5"
    assert label == "real data, no attenuation or normalisation correction"
    assert re.fullmatch(r"OSEM, 2 iterations × 3 subsets, 8 mm post-filter: 29,119 counts, .* s; wrote .*", last)
    assert re.fullmatch(r"medjax: .*: 254816 of the 331257106 words in its header\n", said.stderr)
    image = read_nifti(tmp_path / "head.nii.gz")
    assert image.array.shape == (64, 64, 16) and nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    x, y = np.meshgrid(*(image.affine[a, a] * np.arange(64) + image.affine[a, 3] for a in (0, 1)), indexing="ij")
    middle = image.array[..., 5:12].mean(axis=2)
    inside, outside = np.hypot(x, y) < 110, (np.hypot(x, y) >= 110) & (np.hypot(x, y) < 134)
    assert middle[inside].mean() > 5 * middle[outside].mean()
    level = image.array[..., 6:9].mean(axis=2)
    share = np.hypot((x + 1) / 65, (y - 21) / 88)  # of the way from the head's middle to its surface
    rim, center = level[(share > 0.7) & (share < 0.9)], level[(share > 0.2) & (share < 0.5)]
    assert rim.mean() > 1.4 * center.mean()  # nothing corrects for attenuation


# ── bad input ──


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (
            "--method oesm; expected one of osem, mlem, map-em, svrg, bsrem, kernel-em, split-gibbs, dds-cg, dds, "
            "likelihood-schedule; "
            "did you mean 'osem'",
            ["--method", "oesm"],
        ),
        ("scanner 'mmx' is not known; expected one of", ["--scanner", "mmx"]),
        ("--subsets 5; expected one of 1, 2, 3, 6, 7,", ["--subsets", "5"]),
        ("--subsets 0; expected 1 or more", ["--subsets", "0"]),
        ("--iterations 0; expected 1 or more", ["--iterations", "0"]),
        ("--subsets 3 makes it OSEM", ["--method", "mlem", "--subsets", "3"]),
        (
            "--mr goes with --method map-em, svrg, bsrem, kernel-em, split-gibbs, dds-cg, dds or likelihood-schedule, "
            "not with osem",
            ["--mr", "t1.nii.gz"],
        ),
        ("--beta goes with --method map-em, svrg or bsrem, not with mlem", ["--method", "mlem", "--beta", "3"]),
        ("--beta -1; expected 0 or more", ["--method", "map-em", "--beta", "-1"]),
        ("--psf-mm nan; expected 0 or more", ["--psf-mm", "nan"]),
        ("--post-filter-mm -3; expected 0 or more", ["--post-filter-mm", "-3"]),
        ("--voxel-mm 0; expected more than 0", ["--voxel-mm", "0"]),
        ("--size 1; expected 2 or more", ["--size", "1"]),
        ("choose a smaller grid", ["--size", "200"]),
        ("--sum-planes 2; expected 1 to 1", ["--sum-planes", "2"]),
        ("--centre 1,2; expected three numbers", ["--centre", "1,2"]),
        ("--centre 1,2,inf; expected finite", ["--centre", "1,2,inf"]),
        ("--additive goes with Interfile counts only", ["--additive", "a.hs"]),
        ("absent.nii: no such file", ["--mu", "absent.nii"]),
        ("mu.nii.gz: 0 in the whole image grid .*z 900 to 900 mm", ["--mu", "mu.nii.gz", "--centre", "0,0,900"]),
    ],
)
def test_options_that_cannot_be(here, message, options):
    save_bare("bare.npz")
    refused(here, message, "reconstruct", "bare.npz", *options, "-o", "image.nii.gz")


def save_bare(name):
    """Factors without attenuation, and metadata that say so."""
    with np.load("counts.npz") as file:
        metadata = json.loads(str(file["metadata"])) | {"corrections": [], "attenuation": True}
        full = file["multiplicative"]
    save_npz(name, multiplicative=np.full_like(full, full.max()), metadata=np.array(json.dumps(metadata)))


def save_npz(name, **changes):
    with np.load("counts.npz") as file:
        np.savez(name, **(dict(file) | changes))


def spoiled(value):
    with np.load("counts.npz") as file:
        counts = file["counts"]
    counts[0, 100, 170] = value
    return counts


def save_nifti(name, affine=None, array=None, code=1):
    image = nibabel.Nifti1Image(np.full((48, 48, 1), 0.0096, np.float32) if array is None else array, affine)
    image.set_sform(affine, code=code)
    image.set_qform(affine if code and np.linalg.det(affine[:3, :3]) else None, code=0)
    nibabel.save(image, name)


LISTMODE = """!INTERFILE:=
name of data file := scan.l
data format:=CoincidenceList
number of rings:=64
image duration (sec):=1
%total listmode word counts:=3
%LM event and tag words format (bits):=32
%axial compression:=1
%maximum ring difference:=60
%patient orientation:=HFS
%number of projections:=344
%number of views:=252
"""


def save_listmode(data, header=LISTMODE):
    Path("scan.l").write_bytes(data)
    Path("scan.l.hdr").write_text(header)


PLAIN = np.diag([5.0, 5.0, 2.0, 1.0])
SHEARED = PLAIN + np.eye(4, k=1) * [[2.0], [0], [0], [0]]


@pytest.mark.parametrize(
    ("message", "make", "arguments"),
    [
        (
            "scan.l: 10 bytes; expected whole words of 4 bytes, so it is truncated",
            lambda: save_listmode(b"\0" * 10),
            ["scan.l", "--scanner", "mmr"],
        ),
        (
            "scan.l.hdr: number of rings is ''",
            lambda: save_listmode(bytes(12), LISTMODE.replace("number of rings", "number of rungs")),
            ["scan.l.hdr", "--scanner", "mmr"],
        ),
        ("scan.l: no header", lambda: Path("scan.l").write_bytes(bytes(12)), ["scan.l", "--scanner", "mmr"]),
        ("c.hs: not an Interfile header", lambda: Path("c.hs").write_text("hello"), ["c.hs", "--scanner", "mmr"]),
        ("c.hs: no such file", lambda: None, ["c.hs", "--scanner", "mmr"]),
        ("c.npz: cannot be read as npz", lambda: Path("c.npz").write_bytes(b"PK hello"), ["c.npz"]),
        ("c.npz: counts .* negative", lambda: save_npz("c.npz", counts=spoiled(-1)), ["c.npz"]),
        ("c.npz: counts .* negative, NaN", lambda: save_npz("c.npz", counts=spoiled(np.nan)), ["c.npz"]),
        ("c.npz: counts .* infinite", lambda: save_npz("c.npz", counts=spoiled(np.inf)), ["c.npz"]),
        ("c.npz: holds no counts", lambda: save_npz("c.npz", counts=0 * spoiled(0)), ["c.npz"]),
        ("c.npz: additive has", lambda: save_npz("c.npz", additive=np.ones((1, 252, 343))), ["c.npz"]),
        ("252 views, 344 bins, 1 planes; mct has", lambda: save_npz("c.npz", scanner=np.array("mct")), ["c.npz"]),
        (
            "c.hs: 100 views, 344 bins, 1 planes; mmr has 252 views, 344 bins",
            lambda: write_sinogram("c.hs", np.ones((1, 100, 344)), max_ring_difference=0),
            ["c.hs", "--scanner", "mmr"],
        ),
        ("m.nii: no affine", lambda: save_nifti("m.nii", PLAIN, code=0), ["bare.npz", "--mu", "m.nii"]),
        ("m.nii: affine: sheared", lambda: save_nifti("m.nii", SHEARED), ["bare.npz", "--mu", "m.nii"]),
        (
            "m.nii: μ-map: 0.096 in most of the body; .*cm⁻¹: divide by 10",
            lambda: save_nifti("m.nii", PLAIN, np.full((9, 9, 9), 0.096, np.float32)),
            ["bare.npz", "--mu", "m.nii"],
        ),
        (
            "m.nii: no affine",
            lambda: save_nifti("m.nii", PLAIN, code=0),
            ["counts.npz", "--method", "map-em", "--mr", "m.nii"],
        ),
    ],
)
def test_files_that_cannot_be_used(here, message, make, arguments):
    make()
    save_bare("bare.npz")
    refused(here, message, "reconstruct", *arguments, "-o", "image.nii.gz")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("image.img", "image.img: expected a name that ends in .nii or .nii.gz"),
        ("nowhere/image.nii", "nowhere/image.nii: no folder nowhere"),
        ("counts.npz/image.nii", "no folder counts.npz"),
        ("folder.nii", "folder.nii: is a folder"),
    ],
)
def test_places_that_cannot_be_written(here, output, message):
    (here / "folder.nii").mkdir()
    refused(here, message, "reconstruct", "counts.npz", "-o", output)


def test_a_folder_without_permission(here, monkeypatch):
    def forbid(**_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "somewhere")

    monkeypatch.setattr(tempfile, "TemporaryFile", forbid)
    for command in (["reconstruct", "counts.npz", "-o", "image.nii.gz"], ["simulate", "-o", "new.npz"]):
        refused(here, f"Permission denied: {command[-1]}", *command)


@pytest.mark.parametrize("full_for", [".gz", ".png"])
def test_a_full_disk_changes_nothing(here, monkeypatch, full_for):
    before, replace = contents(here), os.replace

    def full(part, path):
        if path.suffix == full_for:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
        replace(part, path)

    monkeypatch.setattr(os, "replace", full)
    result = medjax_command("reconstruct", "counts.npz", "--subsets", "7", "-o", "image.nii.gz")
    assert (result.exit_code, result.stderr) == (
        2,
        f"medjax: No space left on device: image{'.nii' * (full_for == '.gz')}{full_for}\n",
    )
    assert contents(here) == before


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("scanner 'mrm' is not known", ["--scanner", "mrm"]),
        ("--phantom fgd; expected one of fdg, dpa714; did you mean 'fdg'", ["--phantom", "fgd"]),
        ("--lesion-kind pte; expected one of pet, mr, both", ["--lesion-kind", "pte"]),
        ("--lesions -1; expected 0 or more", ["--lesions", "-1"]),
        ("--activity and --phantom; lesions go into a phantom", ["--phantom", "fdg", "--activity", "truth.nii.gz"]),
        ("--activity and --lesions", ["--lesions", "2", "--activity", "truth.nii.gz"]),
        ("--mu goes with --activity", ["--mu", "mu.nii.gz"]),
        ("--planes 3; expected an odd number from 1 to 1, those of ring_2d", ["--planes", "3"]),
        ("--planes 6; expected an odd number from 1 to 127", ["--planes", "6", "--scanner", "mmr"]),
        ("--trues-per-mm3 1 and --trues 1000; expected one", ["--trues-per-mm3", "1", "--trues", "1000"]),
        ("--trues 0; expected more than 0", ["--trues", "0"]),
        ("--trues-per-mm3 nan; expected more than 0", ["--trues-per-mm3", "nan"]),
        ("--background 1; expected a fraction", ["--background", "1"]),
        ("--seed -1; expected a whole number from 0 to", ["--seed", "-1"]),
        ("--seed 4294967296; expected a whole number from 0 to", ["--seed", "4294967296"]),
        ("--slice-mm nan; expected mm", ["--slice-mm", "nan"]),
        ("--voxel-mm -2; expected more than 0", ["--voxel-mm", "-2"]),
        ("mu.nii.gz: a file; expected a folder", ["--truth-dir", "mu.nii.gz"]),
        ("truth.nii.gz: no activity between z = 399 to 401 mm", ["--activity", "truth.nii.gz", "--slice-mm", "400"]),
        ("truth.nii.gz: reaches .* ring_2d allows 237 mm", ["--activity", "truth.nii.gz", "--centre", "300,0,10"]),
        ("truth.nii.gz: reaches .* grid 8 mm; expected a --size of 110", ["--activity", "truth.nii.gz", "--size", "8"]),
        ("m.nii: affine: sheared", ["--activity", "m.nii"]),
        ("z.nii: no voxel is above 0", ["--activity", "z.nii"]),
        ("n.nii: activity: 1 of 2304 values are negative", ["--activity", "n.nii"]),
        ("c.nii: μ-map: .*cm⁻¹", ["--activity", "truth.nii.gz", "--mu", "c.nii"]),
    ],
)
def test_simulations_that_cannot_be(here, message, options):
    save_nifti("m.nii", SHEARED)
    save_nifti("z.nii", PLAIN, np.zeros((48, 48, 1), np.float32))
    save_nifti("n.nii", PLAIN, np.where(np.arange(2304).reshape(48, 48, 1) == 7, -1, 1).astype(np.float32))
    save_nifti("c.nii", PLAIN, np.full((48, 48, 1), 0.096, np.float32))
    refused(here, message, "simulate", "--scanner", "ring_2d", *options, "-o", "new.npz")


def test_an_object_that_the_reconstruction_would_cut_is_told_of(here):
    said = medjax_command(
        "simulate",
        "--activity",
        "truth.nii.gz",
        "--scanner",
        "ring_2d",
        "--size",
        "24",
        "--voxel-mm",
        "5",
        "-o",
        "s.npz",
    )
    assert said.exit_code == 0
    assert re.fullmatch(r"medjax: truth.nii.gz: reaches .*; use --size \d+ or more\n", said.stderr)


def test_defaults_go_with_the_method():
    osem, mlem, map_em, guided = (
        complete_settings(ReconstructionSettings(*given))
        for given in (("osem",), ("mlem",), ("map-em",), ReconstructionSettings("map-em", mr_guided=True))
    )
    assert osem[1:3] == (3, 21) and mlem[1:3] == (30, 1) and map_em[1:4] == (10, 7, 5.0) and guided.beta == 30.0


def test_help_answers_without_the_heavy_imports():
    script = """
import sys
from medjax.cli import main
try:
    main(["pet", "reconstruct", "--help"])
except SystemExit:
    print(sorted({"jax", "numpy", "matplotlib", "nibabel", "scipy"} & set(sys.modules)), file=sys.stderr)
"""
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert run.stderr == "[]\n" and "map-em" in run.stdout


def test_an_object_is_scanned_with_what_lies_beyond_its_stack():
    """Five planes of a cylinder: where the image ends with them it is taken to go on, where it ends in air it ends."""
    affine = np.diag([4.0, 4.0, 2.03125, 1.0])
    affine[:3, 3] = -0.5 * np.array([11 * 4.0, 11 * 4.0, 12 * 2.03125])
    x = (np.arange(12) - 5.5) * 4
    disc = (np.hypot(x[:, None], x[None]) < 20)[..., None] * np.ones(13, np.float32)
    cut = affine.copy()
    cut[2, 3] = -2 * 2.03125
    ending = disc * (abs(np.arange(13) - 6) <= 2)
    planes = {}
    for name, volume in {"cut": Volume(disc[:, :, 4:9], cut), "ends": Volume(ending, affine)}.items():
        drawn = simulate(
            activity=volume, scanner="mmr", plane_settings=PlaneSettings(planes=5), voxel_mm=4.0, size=12,
            count_settings=CountSettings(trues=1e9, background=0.0),
        ).counts.counts.sum(axis=(0, 1))  # fmt: skip
        planes[name] = drawn / drawn[2]
    np.testing.assert_allclose(planes["cut"], 1, atol=1e-3)
    assert np.all(planes["ends"][[0, 4]] < 0.75) and np.all(planes["ends"][[1, 3]] > 0.9)


@pytest.mark.parametrize("method", DEFAULTS)
def test_titles_name_methods_as_the_field_does(method):
    name = title(complete_settings(ReconstructionSettings(method, mr_guided=method == "kernel-em"))).split(", ")[0]
    assert name.casefold().replace(" ", "-") == method.removesuffix("-cg") and name != name.lower().replace(" ", "-")
