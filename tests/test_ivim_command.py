"""`medjax ivim fit`: a scan in, the maps of its truth out; bad input is one line and writes nothing."""

import csv
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from medjax import cli
from medjax.io.nifti import read_nifti, write_nifti
from medjax.ivim.signal import Ivim, signal
from medjax.tools.ivim_fit import fit_scan, map_scales

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 4, 5], [0, 0, 0, 1]])
B = np.array([0, 10, 20, 30, 50, 75, 100, 200, 400, 700, 1000], np.float32)
SHAPE = (9, 8, 4)


def medjax_command(*arguments):
    return CliRunner().invoke(cli.app, ["ivim", "fit", *map(str, arguments)], prog_name="medjax")


def done(*arguments):
    result = medjax_command("dwi.nii.gz", "--bvals", "dwi.bval", "-o", "maps", *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(message, *arguments):
    result = medjax_command(*(arguments or ("dwi.nii.gz", "--bvals", "dwi.bval", "-o", "maps")))
    assert result.exit_code == 2, result.output
    assert re.fullmatch(rf"medjax: .*{message}.*\n", result.stderr), result.stderr
    assert not Path("maps").exists()


def truth():
    f = np.linspace(0.2, 0.4, np.prod(SHAPE)).reshape(SHAPE).astype(np.float32)
    return Ivim(
        *(np.full(SHAPE, v, np.float32) for v in (100.0,)), f, *(np.full(SHAPE, v, np.float32) for v in (1.7e-3, 22e-3))
    )


def write_scan(array, bvalues=B, name="dwi.nii.gz"):
    image = nibabel.Nifti1Image(np.asarray(array, np.float32), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, name)
    Path("dwi.bval").write_text(" ".join(f"{b:g}" for b in bvalues))


def frames(bvalues=B, snr=200.0):
    """(x, y, z, frame)"""
    clean = np.moveaxis(np.asarray(signal(truth(), bvalues)), 0, -1)
    return (clean + 100 / snr * np.random.default_rng(0).normal(size=clean.shape)).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a scan, its b-values, and a mask."""
    monkeypatch.chdir(tmp_path)
    write_scan(frames())
    mask = np.zeros(SHAPE, np.float32)
    mask[2:7, 2:6, 1:3] = 1
    write_nifti("mask.nii.gz", mask, AFFINE)
    return mask > 0


def table(name):
    with Path(name).open() as file:
        return list(csv.DictReader(file))


def test_maps_of_the_truth_on_the_scans_grid(here):
    said = done("--mask", "mask.nii.gz")
    assert f"{here.sum()} voxels, 11 b-values" in said
    names = ["S0", "f", "D", "Dstar", "ADC", "residual", "crlb_S0", "crlb_f", "crlb_D", "crlb_Dstar"]
    names += ["identifiable", "at_bound"]
    assert sorted(file.name for file in Path("maps").glob("*.nii.gz")) == sorted(f"{name}.nii.gz" for name in names)
    f = read_nifti("maps/f.nii.gz")
    np.testing.assert_allclose(f.affine, AFFINE, atol=1e-4)
    assert not f.array[~here].any()
    np.testing.assert_allclose(f.array[here], truth().f[here], atol=0.06)
    assert np.corrcoef(f.array[here], truth().f[here])[0, 1] > 0.9
    errors = f.array[here] - truth().f[here]
    assert np.median(read_nifti("maps/crlb_f.nii.gz").array[here]) == pytest.approx(errors.std(), rel=0.3)
    regions = {row["parameter"]: row for row in table("maps/regions.csv")}
    assert float(regions["D"]["median"]) == pytest.approx(1.7e-3, rel=0.03)
    assert float(regions["f"]["mean"]) == pytest.approx(f.array[here].mean(), rel=1e-4)
    assert int(regions["f_Dstar"]["voxels"]) == here.sum()
    assert len(table("maps/frames.csv")) == 11 and Path("maps/maps.png").stat().st_size > 10_000


def test_regions_have_rows_of_their_own(here):
    labels = np.zeros(SHAPE, np.float32)
    labels[2:4], labels[4:7] = 1, 3
    write_nifti("labels.nii.gz", labels, AFFINE)
    done("--mask", "mask.nii.gz", "--labels", "labels.nii.gz", "--method", "segmented")
    rows = table("maps/regions.csv")
    assert [row["region"] for row in rows[::4]] == ["all", "1", "3"]
    assert float(rows[8]["median"]) > float(rows[4]["median"])  # f rises along x


def test_arrays_give_what_files_give(here):
    labels = np.zeros(SHAPE, np.int32)
    labels[2:4], labels[8] = 1, 5  # 5 lies outside the mask
    write_nifti("labels.nii.gz", labels, AFFINE)
    done("--mask", "mask.nii.gz", "--labels", "labels.nii.gz")
    found = fit_scan(frames(), B.tolist(), mask=here, labels=labels)
    assert found.folder is None and list(found.regions) == ["all", "1"]
    for name, values in found.maps.items():
        np.testing.assert_allclose(values, read_nifti(f"maps/{name}.nii.gz").array, rtol=1e-6)
    rows = {(row["region"], row["parameter"]): row for row in table("maps/regions.csv")}
    assert rows["5", "f"]["voxels"] == "0"
    assert float(rows["1", "f_Dstar"]["iqr"]) == pytest.approx(found.regions["1"].maps["f_d_star"].iqr, rel=1e-5)


def test_noise_is_measured_in_air_alone(here):
    array = frames()
    air = np.zeros(SHAPE, np.float32)
    air[7:] = 1
    noise = np.random.default_rng(3).normal(size=(2, 2, 8, 4, 11))
    array[7:] = 3 * np.hypot(*noise)
    write_scan(array)
    write_nifti("air.nii.gz", air, AFFINE)
    write_nifti("tissue.nii.gz", 1 - air, AFFINE)
    done("--mask", "mask.nii.gz", "--sigma", "air.nii.gz", "--noise", "rician")
    given = done("--mask", "mask.nii.gz", "--sigma", "3.0", "--noise", "rician")
    assert (
        np.median(read_nifti("maps/crlb_f.nii.gz").array[here]) > 0.01
        and "Cramér–Rao bound at most half the value: f in" in given
    )
    scan = ("dwi.nii.gz", "--bvals", "dwi.bval", "-o", "other", "--mask", "mask.nii.gz")
    refused_elsewhere = medjax_command(*scan, "--sigma", "tissue.nii.gz")
    assert refused_elsewhere.exit_code == 2 and "of air alone" in refused_elsewhere.stderr


@pytest.mark.optimized
def test_directions_are_averaged_and_a_spoilt_frame_is_named(here):
    bvalues = np.repeat(B, 3)
    array = frames(bvalues, snr=40.0)
    array[..., 25] *= 0.5  # of b = 400
    write_scan(array, bvalues)
    said = done("--noise", "student")
    assert "frame 25 (b = 400) is an outlier" in said and said.count("is an outlier") == 1
    assert [row["frame"] for row in table("maps/frames.csv") if float(row["outlier"])] == ["25"]
    assert "frame 25 (b = 400) is an outlier: left out" in done("--drop-outliers")
    former_words = ("--mask", "mask.nii.gz", "--drop-spoilt", "--method", "shrunk")
    assert "is an outlier: left out" in done(*former_words)
    assert "11 b-values" in done("--average", "geometric", "--mask", "mask.nii.gz")


def test_voxels_at_a_bound_are_counted_and_are_no_estimates(here):
    """A tight bound of f: voxels beyond it end there, whatever their noise."""
    said = done("--mask", "mask.nii.gz", "--bounds", "f=0:0.3")
    code, f = (read_nifti(f"maps/{name}.nii.gz").array[here] for name in ("at_bound", "f"))
    np.testing.assert_array_equal(code.astype(int) & 1, f > 0.2997)
    fraction = (f > 0.2997).mean()
    assert 0.2 < fraction < 0.8 and f"f {fraction:.0%}" in said
    assert not read_nifti("maps/identifiable.nii.gz").array[here][code > 0].any()
    row = table("maps/regions.csv")[0]
    assert row["parameter"] == "f" and int(row["voxels_within"]) == (f <= 0.2997).sum() < int(row["voxels"])
    assert float(row["mean_within"]) == pytest.approx(f[f <= 0.2997].mean(), rel=1e-4)
    wider = fit_scan(frames(), B, mask=here, bounds="osipi")
    assert not wider.voxels.at_bound.any.any() and wider.within["all"]["f"].voxels == here.sum()


def test_an_output_is_never_an_input(here):
    done("--mask", "mask.nii.gz")
    before = {file.name: file.read_bytes() for file in Path("maps").iterdir()}
    Path("linked.nii.gz").symlink_to("maps/f.nii.gz")
    for mask in ("maps/f.nii.gz", "linked.nii.gz"):
        result = medjax_command("dwi.nii.gz", "--bvals", "dwi.bval", "-o", "maps", "--mask", mask)
        assert result.exit_code == 2 and re.fullmatch(r"medjax: .*f.nii.gz: is the input .*\n", result.stderr)
    assert before == {file.name: file.read_bytes() for file in Path("maps").iterdir()}


def test_an_interrupted_fit_leaves_the_former_one_whole(here, monkeypatch):
    done("--mask", "mask.nii.gz")
    before = {file.name: file.read_bytes() for file in Path("maps").iterdir()}
    monkeypatch.setattr("medjax.tools.ivim_fit.write_png", _no_space)
    result = medjax_command("dwi.nii.gz", "--bvals", "dwi.bval", "-o", "maps", "--mask", "mask.nii.gz", "--sigma", "5")
    assert result.exit_code != 0
    assert before == {file.name: file.read_bytes() for file in Path("maps").iterdir()}


def _no_space(*_):
    raise OSError(28, "No space left on device")


def test_voxels_that_cannot_be_fitted_are_counted(here):
    array = frames()
    array[3, 3, 1, 4], array[4, 3, 1], array[5, 5, 2, 3] = np.nan, -1, -5
    write_scan(array)
    said = done("--mask", "mask.nii.gz")
    assert "1 voxels with NaN or infinite values left out" in said
    assert "1 voxels without signal above 0 left out" in said
    assert "1 voxels with values of 0 or below in some frame, fitted" in said
    f = read_nifti("maps/f.nii.gz").array
    assert f[3, 3, 1] == f[4, 3, 1] == 0 < f[5, 5, 2]


def test_what_does_not_fit_the_scan_is_refused(here):
    Path("dwi.bval").write_text("0 100 200")
    refused(r"dwi.bval: 3 b-values; dwi.nii.gz has 11 frames")
    Path("dwi.bval").write_text(" ".join(["600"] * 11))
    refused("1 different b-values; four parameters need at least four")
    Path("dwi.bval").write_text(" ".join(f"{b / 1000:g}" for b in B))
    refused("multiply ms/µm² by 1000")
    Path("dwi.bval").write_text(" ".join(f"{b * 1e6:g}" for b in B))
    refused("divide s/m² by 1,000,000")
    write_scan(frames())
    write_nifti("small.nii.gz", np.ones((9, 8, 3), np.float32), AFFINE)
    write_nifti("shifted.nii.gz", np.ones(SHAPE, np.float32), AFFINE + np.eye(4)[:, [3, 0, 1, 2]] * [0, 0, 0, 3])
    scan = ("dwi.nii.gz", "--bvals", "dwi.bval", "-o", "maps")
    refused(r"small.nii.gz: shape \(9, 8, 3\); expected that of dwi.nii.gz", *scan, "--mask", "small.nii.gz")
    refused(r"shifted.nii.gz: another affine", *scan, "--mask", "shifted.nii.gz")
    refused("--noise poisson; expected gaussian, rician or student", *scan, "--noise", "poisson")
    refused("--sigma little; expected residual, a number above 0 or a mask of air", *scan, "--sigma", "little")
    refused("--sigma 1e-300, signals up to [0-9.]+; expected from", *scan, "--sigma", "1e-300")
    refused("--sigma 1e.09, signals up to [0-9.]+; expected from", *scan, "--sigma", "1e9")
    refused("--bounds f=0.5:0.2; expected default, osipi or", *scan, "--bounds", "f=0.5:0.2")
    refused("--bounds wide; expected default, osipi or", *scan, "--bounds", "wide")
    refused(r"mask.nii.gz: shape \(9, 8, 4\); expected a 4-D series", "mask.nii.gz", *scan[1:])
    write_scan(frames() * np.float32(1e30))
    refused("residual: not finite in 288 of 288 voxels", *scan)
    write_scan(np.zeros((*SHAPE, 11)))
    refused("none of them finite with signal above 0")


def test_the_real_cord_agrees_with_its_authors_maps(tmp_path, test_data, monkeypatch):
    """They fitted otherwise, f and D* differ by about two; D must go along with theirs."""
    cord = test_data / "ivim_cord"
    monkeypatch.chdir(tmp_path)
    arguments = (cord / "dwi_rl.nii.gz", "--bvals", cord / "bval_rl.txt", "--mask", cord / "cord_seg_dilated.nii.gz")
    result = medjax_command(*arguments, "-o", "maps", "--method", "segmented", "--threshold", "500")
    assert result.exit_code == 0, result.output
    inside = read_nifti(cord / "cord_seg_dilated.nii.gz").array > 0
    ours, theirs = read_nifti("maps/D.nii.gz").array[inside], read_nifti(cord / "ref_rl_D.nii.gz").array[inside]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.85


def test_the_picture_is_scaled_by_the_voxels_that_are_at_no_bound():
    values = np.linspace(0.01, 0.1, 100).reshape(10, 10, 1)
    held = np.zeros(values.shape, bool)
    held[8:] = True
    values[held] = 0.5
    scales = map_scales(dict.fromkeys(("S0", "f", "D", "D*"), values), held | True, {"D*": held})
    assert 0.01 < scales["D*"].low < 0.02 and 0.07 < scales["D*"].high < 0.09 and scales["D"].high == 0.5
    assert all(scale.clipped for scale in scales.values())
    assert scales["D"].unit.endswith("2 to 98 %") and scales["D*"].unit.endswith("2 to 90 %")
    assert map_scales({"D*": values}, held, {"D*": held})["D*"].high > 0.5  # none is free, all are equal
