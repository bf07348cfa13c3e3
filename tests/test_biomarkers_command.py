"""`medjax biomarkers` on tiny label maps: every layout, samples, curves and options; what is bad input is one line."""

import csv
import gzip
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from medjax import cli
from medjax.tools.biomarkers import biomarkers_of_files

SPACING = (2.0, 2.5, 10.0)  # mm


def heart(radius, wall=6.0, codes=(3, 2, 1), slices=4, shape=(44, 36)):
    """A cylinder of cavity and myocardium with a right ventricle at its side, background slices at both ends."""
    x, y = np.meshgrid((np.arange(shape[0]) - 24) * 2.0, (np.arange(shape[1]) - 18) * 2.5, indexing="ij")
    plane = np.where(np.hypot(x + 28, y) < 0.8 * radius, codes[2], 0)
    plane = np.where(np.hypot(x, y) < radius + wall, codes[1], plane)
    plane = np.where(np.hypot(x, y) < radius, codes[0], plane)
    return np.pad(np.repeat(plane[..., None], slices, axis=2), ((0, 0), (0, 0), (1, 1))).astype(np.uint8)


def write(name, labels, spacing=SPACING, frame_ms=None, dtype=np.uint8, pixdim=None):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(labels.astype(dtype), np.diag([*spacing, 1]))
    if labels.ndim == 4:
        image.header.set_zooms((*spacing, frame_ms or 1.0))
        image.header.set_xyzt_units("mm", "msec" if frame_ms else "unknown")
    content = bytearray(image.to_bytes())
    if pixdim is not None:  # nibabel would not write a header that contradicts itself
        content[80:92] = np.array(pixdim, "<f4").tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_list(rows, header, name="list.csv"):
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([header.split(), *rows])
    return name


def ml(radius, wall=0.0, slices=4):
    """Volume of the cylinder's voxels, as counted."""
    labels = heart(radius, wall, (1, 1, 0), slices)
    return labels.sum() * np.prod(SPACING) / 1000


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def command(*arguments):
    return CliRunner().invoke(cli.app, ["biomarkers", *map(str, arguments)], prog_name="medjax")


def table(name="out.csv"):
    with Path(name).open() as file:
        return list(csv.DictReader(file))


def numbers(row, *names):
    return [float(row[name]) for name in names]


def refused(message, *arguments):
    Path("out.csv").unlink(missing_ok=True)
    result = command(*arguments, "-o", "out.csv")
    assert result.exit_code == 2, result.output
    assert re.fullmatch(rf"medjax: .*{message}.*\n", result.stderr), result.stderr
    assert not Path("out.csv").exists()


def test_a_list_of_two_subjects():
    write("maps/a_ed.nii.gz", heart(22))
    write("maps/a_es.nii.gz", heart(14, 9))
    write("maps/b_ed.nii", heart(20))
    write("maps/b_es.nii", heart(16, 8))
    rows = [["A", "a_ed.nii.gz", "a_es.nii.gz", "180", "80"], ["B", "b_ed.nii", "b_es.nii", "", ""]]
    path = write_list(rows, "subject ed es height_cm weight_kg", "maps/list.csv")
    result = command(path, "--labels", "acdc", "-o", "out.csv", "--thickness")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "label codes: LV 3, myocardium 2, RV 1 (--labels acdc)" in result.stdout
    assert "taken to be thickness + gap" in result.stdout and "LVEF_percent" in result.stdout
    a, b = table()
    assert list(a) == [
        "subject", "spacing_mm", "LVEDV_ml", "LVESV_ml", "LVSV_ml", "LVEF_percent", "LVM_g", "RVEDV_ml", "RVESV_ml",
        "RVSV_ml", "RVEF_percent", "LVWT_mean_mm", "LVWT_max_mm", "LVEDVi_ml_per_m2", "LVESVi_ml_per_m2",
        "LVSVi_ml_per_m2", "LVMi_g_per_m2", "RVEDVi_ml_per_m2", "RVESVi_ml_per_m2", "RVSVi_ml_per_m2",
    ]  # fmt: skip
    edv, esv, mass = ml(22), ml(14), 1.05 * (ml(28) - ml(22))
    found = numbers(a, "LVEDV_ml", "LVESV_ml", "LVEF_percent", "LVM_g", "LVEDVi_ml_per_m2")
    assert found == pytest.approx([edv, esv, 100 * (1 - esv / edv), mass, edv / 2], rel=1e-5)
    assert edv == pytest.approx(np.pi * 22**2 * 40 / 1000, rel=0.02)
    assert float(a["LVWT_mean_mm"]) == pytest.approx(6, abs=0.2) and float(a["LVWT_max_mm"]) < 8
    assert b["subject"] == "B" and b["LVMi_g_per_m2"] == "nan"
    gap = biomarkers_of_files([path], labels="3,2,1", gap_mm=2)
    assert gap.values["LVEDV_ml"][0] == pytest.approx(1.2 * edv)  # the gap of 2 mm counts
    assert a["spacing_mm"] == "2x2.5x10" and gap.spacing == ["2x2.5x12"] * 2


def cine(radii, codes=(3, 2, 1)):
    return np.stack([heart(radius, 30 - radius, codes) for radius in radii], axis=-1)


def test_samples_of_a_cine_choose_their_frames_and_the_curve_is_written():
    write("s0.nii.gz", cine([22, 18, 14, 16, 20, 21]), frame_ms=40)
    write("s1.nii.gz", cine([21, 18, 17, 13, 20, 23]), frame_ms=40)
    rows = [["P", "0", "s0.nii.gz"], ["P", "1", "s1.nii.gz"]]
    path = write_list(rows, "subject sample cine")
    result = command(path, "--labels", "acdc", "-o", "out.csv", "--curve", "curve.csv")
    assert result.exit_code == 0, result.output
    assert "chosen for each sample" in result.stdout
    first, second = table()
    assert list(first)[:2] == ["subject", "sample"] and second["sample"] == "1"
    assert numbers(first, "LVEDV_ml", "LVESV_ml") == pytest.approx([ml(22), ml(14)], rel=1e-5)
    assert numbers(second, "LVEDV_ml", "LVESV_ml") == pytest.approx([ml(23), ml(13)], rel=1e-5)
    assert float(first["LVPER_ml_per_s"]) == pytest.approx((ml(22) - ml(14)) / 0.08, rel=1e-5)
    curve = table("curve.csv")
    assert len(curve) == 12 and [one["phase"] for one in curve] == ["ED", "", "ES"] + [""] * 5 + ["", "ES", "", "ED"]
    assert curve[7]["time_s"] == "0.04" and float(curve[7]["LV_ml"]) == pytest.approx(ml(18), rel=1e-5)
    once = biomarkers_of_files([path], curve="curve.png", labels="acdc", frames="subject")
    np.testing.assert_allclose(once.values["LVEDV_ml"], [ml(21), ml(23)])  # frames 5 and 3, on the mean curve
    np.testing.assert_allclose(once.values["LVESV_ml"], [ml(16), ml(13)])
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")
    rows = [["P", "0", "s0.nii.gz", "4", "1"], ["P", "1", "s1.nii.gz", "4", "1"]]
    fixed = biomarkers_of_files([write_list(rows, "subject sample cine ed_frame es_frame")], labels="acdc")
    np.testing.assert_allclose(fixed.values["LVEDV_ml"], [ml(20), ml(20)])
    assert np.isfinite(biomarkers_of_files(["s0.nii.gz"], labels="acdc", frame_ms=30).values["LVPFR_ml_per_s"]).all()


def test_layouts_tell_codes_frames_and_body_size():
    for number, (ed, es) in enumerate([(22, 14), (20, 16)], 1):
        stem = f"acdc/patient{number:03d}"
        write(f"{stem}/patient{number:03d}_frame01_gt.nii.gz", heart(ed))
        write(f"{stem}/patient{number:03d}_frame12_gt.nii.gz", heart(es))
        Path(stem, "Info.cfg").write_text("ED: 1\nES: 12\nGroup: NOR\nHeight: 180.0\nWeight: 80.0\nNbFrame: 30\n")
    write("mnms/Training/A0S9V9/A0S9V9_sa_gt.nii.gz", cine([22, 18, 14, 20], (1, 2, 3)) * [1, 0, 1, 0])
    rows = [["A0S9V9", "A", "1", "0", "2", "160", "90"], ["B1", "B", "2", "0", "9", "", ""]]
    header = ["External code", "Vendor", "Centre", "ED", "ES", "Height", "Weight"]
    with Path("mnms/information.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for layout, codes in (("acdc", "LV 3, myocardium 2, RV 1"), ("mnms", "LV 1, myocardium 2, RV 3")):
        result = command(layout, "-o", "out.csv")
        assert result.exit_code == 0, result.output
        assert f"{codes} (by the layout, {layout})" in result.stdout and result.stderr == ""
        found = numbers(table()[0], "LVEDV_ml", "LVESV_ml", "LVEDVi_ml_per_m2")
        assert found == pytest.approx([ml(22), ml(14), ml(22) / 2], rel=1e-5)
    result = command("acdc", "-o", "out.csv", "--labels", "mnms")
    assert result.exit_code == 0 and "label codes of another data set? (and 1 more like it)" in result.stderr
    refused("layouts acdc and mnms", "acdc", "mnms")
    Path("acdc/patient002/patient002_frame12_gt.nii.gz").unlink()
    refused("patient002_frame12_gt.nii.gz: no such file", "acdc")
    Path("acdc/patient001/Info.cfg").write_text("ED: one\nES: 12\n")
    refused("Info.cfg: ED is 'one'", "acdc")
    Path("mnms/information.csv").unlink()
    refused("no CSV with columns External code, ED, ES", "mnms")
    Path("empty").mkdir()
    refused("expected the layout of ACDC or M&Ms", "empty")


def open_base(radius, muscle=True):
    """The first labelled slice has half a ring; a papillary muscle is in the third."""
    labels = heart(radius)
    labels[25:, :, 1] = np.where(labels[25:, :, 1] == 2, 0, labels[25:, :, 1])
    labels[24:27, 17:20, 3] = 2 if muscle else 3
    return labels


def test_options_have_their_effect():
    write("ed.nii.gz", open_base(22))
    write("es.nii.gz", open_base(15))
    path = write_list([["A", "ed.nii.gz", "es.nii.gz"]], "subject ed es")
    plain, cavity, muscle, dropped = (
        {name: column[0] for name, column in biomarkers_of_files([path], labels="acdc", **options).values.items()}
        for options in ({}, {"papillary": "cavity"}, {"papillary": "myocardium"}, {"basal": 1.0})
    )
    size = 9 * np.prod(SPACING) / 1000
    assert plain == muscle and cavity["LVEDV_ml"] - plain["LVEDV_ml"] == pytest.approx(size)
    assert plain["LVM_g"] - cavity["LVM_g"] == pytest.approx(1.05 * size)
    assert cavity["LVEF_percent"] < plain["LVEF_percent"]
    assert plain["LVEDV_ml"] - dropped["LVEDV_ml"] == pytest.approx(ml(22, slices=1))
    assert dropped["RVEDV_ml"] == plain["RVEDV_ml"]
    write("ed.nii.gz", open_base(22, muscle=False))
    write("es.nii.gz", open_base(15, muscle=False))
    for option, lines in (("myocardium", ["A: --papillary myocardium changes nothing"]), ("cavity", [])):
        found = biomarkers_of_files([path], labels="acdc", papillary=option)
        assert [line.partition(": the labels")[0] for line in found.warnings] == lines


def test_what_was_not_segmented_is_nan_and_named():
    good, empty = heart(22), np.zeros_like(heart(22))
    gap, no_rv, no_left, rv_gap = (good.copy() for _ in range(4))
    gap[..., 3], no_rv[no_rv == 1], rv_gap[..., 2][rv_gap[..., 2] == 1] = 0, 0, 0
    no_left[..., 3] *= no_left[..., 3] == 1
    maps = {"good": good, "es": heart(14), "empty": empty, "gap": gap, "no_rv": no_rv, "l": no_left, "r": rv_gap}
    for name, labels in maps.items():
        write(f"{name}.nii.gz", labels)
    pairs = "E empty es, S good empty, G gap es, X es good, R no_rv es, L l es, W r es"
    rows = [[name, f"{ed}.nii.gz", f"{es}.nii.gz"] for name, ed, es in map(str.split, pairs.split(","))]
    result = command(write_list(rows, "subject ed es"), "--labels", "acdc", "-o", "out.csv")
    assert result.exit_code == 0, result.output
    found = {row["subject"]: row for row in table()}
    for name in "ESG":
        assert found[name]["LVEF_percent"] == found[name]["LVSV_ml"] == found[name]["RVEF_percent"] == "nan"
    assert found["E"]["LVEDV_ml"] == found["G"]["LVEDV_ml"] == found["G"]["LVM_g"] == found["S"]["LVESV_ml"] == "nan"
    assert found["R"]["RVEDV_ml"] == "nan" and float(found["R"]["LVEF_percent"]) > 0
    lost = {name: " ".join(key for key, value in row.items() if value == "nan") for name, row in found.items()}
    assert lost["L"] == "LVEDV_ml LVSV_ml LVEF_percent LVM_g" and lost["W"] == "RVEDV_ml RVSV_ml RVEF_percent"
    assert float(found["X"]["LVEF_percent"]) < 0
    for line in (
        "E: ED has no label: NaN", "S: ES has no label: NaN", "G: ED has no label in slice 3, between labelled ones",
        "R: RV has no voxel at ED: NaN", "L: ED has no LV or myocardium in slice 3, between slices with it: NaN",
        "W: ED has no RV in slice 2, between slices with it: NaN",
        f"X: LVEDV {ml(14):.4g} ml is below LVESV {ml(22):.4g} ml: are ED and ES exchanged?",
    ):  # fmt: skip
        assert f"medjax: {line}" in result.stderr


def test_a_gap_in_the_cine_leaves_no_rate():
    labels = cine([22, 18, 14, 16, 20, 21])
    labels[..., 2] = 0
    write("c.nii.gz", labels, frame_ms=40)
    result = command("c.nii.gz", "--labels", "acdc", "-o", "out.csv", "--curve", "curve.csv")
    assert result.exit_code == 0, result.output
    assert "c: frame 2 has no label: ED and ES are chosen among the other frames, no rates" in result.stderr
    (row,) = table()
    assert "LVPER_ml_per_s" not in row and float(row["LVESV_ml"]) == pytest.approx(ml(16), rel=1e-5)
    assert table("curve.csv")[2]["LV_ml"] == "nan"
    write("c.nii.gz", labels * [1, 0, 0, 0, 0, 0])
    result = command("c.nii.gz", "--labels", "acdc", "-o", "out.csv")
    assert "fewer than two frames with a left ventricle: no biomarker" in result.stderr
    assert table()[0]["LVEDV_ml"] == "nan"


def test_label_maps_that_cannot_be_used():
    good = heart(22)
    write("ed.nii.gz", good)
    bad = {
        "unknown": (good + 4 * (good == 1), {}, "bad.nii.gz: label 5; expected 0, 3 .LV., 2 .myocardium., 1 .RV."),
        "nan": (np.where(good == 1, np.nan, good), {"dtype": np.float32}, "bad.nii.gz: values that are no labels"),
        "half": (good * 0.5, {"dtype": np.float32}, "bad.nii.gz: values that are no labels, such as 0.5"),
        "zero": (good, {"pixdim": (2, 2, 0)}, "bad.nii.gz: .*spacing"),
        "other": (good, {"pixdim": (2, 2.5, 8)}, "but 2 × 2.5 × 10 mm by its affine"),
        "spacing": (good, {"spacing": (2, 2.5, 8)}, "spacing 2 × 2.5 × 8 mm; expected those of ed.nii.gz"),
        "shape": (good[..., 1:], {}, "bad.nii.gz: shape .44, 36, 5."),
        "frames": (cine([20, 21]), {}, "bad.nii.gz: 2 frames; expected one"),
    }
    path = write_list([["A", "ed.nii.gz", "bad.nii.gz"]], "subject ed es")
    for labels, options, message in bad.values():
        write("bad.nii.gz", labels, **options)
        refused(message, path, "--labels", "acdc")
    refused("ed.nii.gz: one frame; expected a cine", "ed.nii.gz", "--labels", "acdc")
    write("c.nii.gz", cine([20, 21]))
    late = write_list([["A", "c.nii.gz", "0", "2"]], "subject cine ed_frame es_frame", "late.csv")
    refused("ED frame 0, ES frame 2; expected 0 to 1", late, "--labels", "acdc")


def test_lists_and_options_that_cannot_be():
    write("ed.nii.gz", heart(22))
    write("es.nii.gz", heart(14))
    pair = ["ed.nii.gz", "es.nii.gz"]
    good = write_list([["A", *pair]], "subject ed es", "good.csv")
    for rows, header, message in (
        ([["A", *pair], ["A", *pair]], "subject ed es", "subject A: 2 rows of sample ''"),
        ([["A", pair[0], ""]], "subject ed es", r"row 2: label maps \['ed'\]"),
        ([["A", "", *pair]], "subject sample ed es", "row 2: no subject or sample"),
        ([["A", *pair, "1.8", "80"]], "subject ed es height_cm weight_kg", "A: height: 1.8 cm"),
        ([["A", *pair, "tall", "80"]], "subject ed es height_cm weight_kg", "height_cm tall; expected a number"),
        ([["A", *pair[:1], "0", ""]], "subject cine ed_frame es_frame", "expected indices from 0, both"),
        ([["A", "ed.nii.gz", "none.nii.gz"]], "subject ed es", "none.nii.gz: no such file"),
        ([["ed.nii.gz"]], "ed", "no column subject"),
    ):
        refused(message, write_list(rows, header), "--labels", "acdc")
    samples = write_list([["B", "1", *pair]], "subject sample ed es", "samples.csv")
    refused("some with samples, some without", good, samples, "--labels", "acdc")
    refused("lists and cines do not tell the codes", good)
    for options, message in (
        (("--labels", "3,2"), "--labels 3,2; expected"),
        (("--labels", "3,2,2"), "--labels 3,2,2; expected .*three different"),
        (("--gap-mm", "-1"), "--gap-mm -1"),
        (("--basal", "2"), "--basal 2"),
        (("--frame-ms", "0"), "--frame-ms 0"),
        (("--papillary", "blood"), "--papillary blood; expected as-labelled, cavity or myocardium"),
        (("--frames", "all"), "--frames all"),
        (("--bsa", "haycock"), "--bsa haycock"),
        (("--curve", "c.csv"), "--curve c.csv: 0 subjects with a cine"),
        (("--curve", "c.txt"), "c.txt: expected a name that ends in"),
    ):
        refused(message, good, *(() if "--labels" in options else ("--labels", "acdc")), *options)
    refused("expected a CSV list, a cine in NIfTI", "none.txt", "--labels", "acdc")
    result = command(good, "--labels", "acdc", "-o", good)
    assert result.exit_code == 2 and "good.csv: is the input good.csv" in result.stderr
