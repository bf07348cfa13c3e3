"""`medjax shortcuts audit`: planted shortcuts from files of every layout, in any order; bad input is one line."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import zscore
from typer.testing import CliRunner

from medjax import cli
from medjax.io.nifti import read_nifti, write_nifti
from medjax.tools.attribution_maps import open_maps
from medjax.tools.audit_regions import choose_regions
from medjax.tools.shortcuts_audit import audit_maps

IMAGES, SPACE = 24, (10, 10)
IDS = np.array([f"case_{number:02d}" for number in range(IMAGES)])
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def attribution(weight, seed=0, space=SPACE):
    """Maps (image, *space) of TS = BA + weight · SA, or + an independent smooth field."""
    rng = np.random.default_rng(seed)
    ba, sa, own = (zscore(gaussian_filter(rng.normal(size=space), 1.5, mode="wrap"), axis=None) for _ in range(3))
    truth = {"ts": ba + (weight * sa if weight else 0.8 * own), "ba": ba, "sa": sa}
    return {name: one + rng.normal(size=(IMAGES, *space)) for name, one in truth.items()}


def save(maps, order=slice(None), **more):
    for name, one in maps.items():
        np.savez(f"{name}.npz", maps=one[order], ids=IDS[order], **more)


def call(*arguments, ts="ts.npz", ba="ba.npz", sa="sa.npz", regions="grid:5x5"):
    required = ["--ts", ts, "--ba", ba, "--sa", sa, "--regions", regions]
    return CliRunner().invoke(cli.app, ["shortcuts", "audit", *map(str, [*required, *arguments])], prog_name="medjax")


def result(*arguments, output="audit", **sources):
    answer = call(*arguments, "-o", output, **sources)
    assert answer.exit_code == 0, answer.output
    return json.loads(Path(output, "audit.json").read_text()), answer


def refused(message, *arguments, **sources):
    answer = call(*arguments, **sources)
    assert answer.exit_code == 2, answer.output
    assert re.fullmatch(rf"medjax: .*{message}.*\n", answer.stderr), answer.stderr
    assert not Path("audit").exists()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with ts.npz, ba.npz, sa.npz, in which a shortcut is planted, and images.npz."""
    monkeypatch.chdir(tmp_path)
    save(attribution(0.8))
    np.savez("images.npz", images=np.random.default_rng(0).random((IMAGES, *SPACE)), ids=IDS)


def test_a_planted_shortcut_is_found_and_the_files_say_so(here):
    found, answer = result("--images", "images.npz")
    assert found["decision"] == "shortcut" and found["correlations"]["shortcut"]["value"] > 0.7
    shown = re.findall("<code>(.*?)</code>", Path("audit/report.html").read_text())
    assert shown[0].startswith("medjax shortcuts audit --ts") and shown[0].endswith("--images images.npz -o audit")
    assert "shortcut: ρ(TS, SA | BA)" in answer.stdout and "Rule: undecided with fewer" in answer.stdout
    files = {path.name for path in Path("audit").iterdir()}
    tables = {"audit.json", "correlations.csv", "regions.csv", "report.html", "rcs.npy"}
    assert files == tables | {"correlations.png", "residuals.png", "profiles.png", "rcs.png"}
    with Path("audit/regions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    scores = {row["region"]: float(row["rcs"]) for row in rows}
    assert sum(scores.values()) / 24 == pytest.approx(found["correlations"]["shortcut"]["value"], abs=1e-5)
    grid = np.array([[scores[f"{row}-{column}"] for column in range(5)] for row in range(5)])
    np.testing.assert_allclose(np.load("audit/rcs.npy"), np.kron(grid, np.ones((2, 2))), atol=1e-6)
    top = [row for row in rows if row["region"] == found["peak"]]
    assert top[0]["quadrant"] == "both_more" and float(top[0]["residual_ts"]) < 0
    report = Path("audit/report.html").read_text()
    assert "Decision: shortcut" in report and report.count("<img") == 4


def test_an_independent_field_is_no_evidence(here):
    save(attribution(0.0))
    assert result()[0]["decision"] == "no evidence"


def test_order_seeds_and_layouts_change_nothing(here):
    expected, _ = result()
    maps, order = attribution(0.8), np.random.default_rng(1).permutation(IMAGES)
    np.save("ts.npy", maps["ts"][order])
    Path("ts.csv").write_text("\n".join(["id", *IDS[order], ""]))
    Path("ba").mkdir()
    for name, one in zip(IDS, maps["ba"], strict=True):
        np.save(f"ba/{name}.npy", one)
    np.savez("sa.npz", maps=1e-42 * maps["sa"][::-1], ids=IDS[::-1])  # nothing in float32
    found, _ = result("--sa", "sa.npz", ts="ts.npy", ba="ba")  # twice the same seed
    for changed in ("settings", "constant_maps", "negative_maps", "warnings"):
        found.pop(changed), expected.pop(changed)
    assert found == expected


def test_volumes_with_an_atlas_and_with_labels_of_each_image(here):
    space, labels = (6, 8, 5), np.arange(240).reshape(6, 8, 5) // 10 * 10  # 23 regions and background
    for name, maps in attribution(0.8, space=space).items():
        Path(name).mkdir()
        for one, values in zip(IDS, maps, strict=True):
            write_nifti(Path(name, f"{one}.nii.gz"), values, AFFINE)
    write_nifti(Path("atlas.nii"), labels.astype(float), AFFINE)
    Path("labels").mkdir()
    for one in IDS:
        write_nifti(Path("labels", f"{one}.nii.gz"), labels.astype(float), AFFINE)
    folders = {"ts": "ts", "ba": "ba", "sa": "sa"}
    found, _ = result(**folders, regions="atlas.nii")
    assert found["correlations"]["shortcut"]["p_torus"] is None and found["regions"] == 23
    painted = read_nifti("audit/rcs.nii.gz")
    np.testing.assert_allclose(painted.affine, AFFINE)
    assert not painted.array[labels == 0].any() and painted.array[labels == 10].any()
    each, _ = result(**folders, regions="labels", output="each")
    assert each["correlations"] == found["correlations"] and not Path("each/rcs.nii.gz").exists()
    Path("names.csv").write_text("label,name\n" + "".join(f"{10 * one},area {one}\n" for one in range(1, 21)))
    first = open_maps(Path("ts")).read(IDS[0])
    named = choose_regions("atlas.nii", first, [*IDS], names=Path("names.csv")).regions
    assert named.names[:2] == ("area 1", "area 2") and len(named.names) == 20
    np.testing.assert_array_equal(named.labels, np.where((labels > 0) & (labels <= 200), labels // 10 - 1, -1))

    write_nifti(Path("labels/case_03.nii.gz"), np.where(labels == 50, 60, labels).astype(float), AFFINE)
    answer = call("-o", "none", **folders, regions="labels")
    assert answer.exit_code == 2 and "labels: case_03: region 50: no voxel of label 50" in answer.stderr
    write_nifti(Path("labels/case_03.nii.gz"), labels.astype(float), AFFINE + np.diag([0.5, 0, 0, 0]))
    answer = call("-o", "none", **folders, regions="labels")
    assert answer.exit_code == 2 and "labels: case_03: another affine than its map" in answer.stderr
    shifted = AFFINE + np.diag([0.5, 0, 0, 0])
    values = read_nifti("sa/case_05.nii.gz").array
    write_nifti(Path("sa/case_05.nii.gz"), values, shifted)
    answer = call("-o", "none", **folders, regions="atlas.nii")
    assert answer.exit_code == 2 and "sa: case_05: another affine than ts: case_00" in answer.stderr
    write_nifti(Path("atlas.nii"), labels.astype(float), shifted)
    answer = call("-o", "none", **folders, regions="atlas.nii")
    assert answer.exit_code == 2 and "atlas.nii: another affine than the maps" in answer.stderr
    assert not Path("none").exists()


def test_superpixels_of_the_images(here):
    found, _ = result("--images", "images.npz", regions="slic:25")
    assert found["decision"] == "shortcut" and 16 <= found["regions"] <= 36


def test_constant_maps_are_counted(here):
    maps = attribution(0.8)
    maps["ba"][[2, 5]] = 0
    save(maps)
    found, answer = result()
    assert found["constant_maps"] == {"ts.npz": 0, "ba.npz": 2, "sa.npz": 0}
    assert "medjax: ba.npz: 2 of 24 maps are constant" in answer.stderr


def test_refused(here):
    maps = attribution(0.8)

    def sa(values=maps["sa"], ids=IDS, **more):
        np.savez("other.npz", **({"maps": values, "ids": ids} | more))
        return {"sa": "other.npz"}

    refused("no such file or folder", ts="none.npz")
    refused(r"expected .npz, .npy or a folder", ts=Path(__file__))
    refused("other.npz: 1 images of ts.npz are missing, case_23 first", **sa(maps["sa"][:-1], IDS[:-1]))
    refused("other.npz: 1 images of ts.npz are missing, case_00 first", **sa(ids=["x", *IDS[1:]]))
    refused("other.npz: two images of id case_01", **sa(ids=["case_01", *IDS[1:]]))
    refused("24 ids; expected", **sa(maps["sa"][:-1]))
    refused("ids.npy holds Python objects.*expected numpy.savez", **sa(ids=IDS.astype(object)))
    refused("keys maps, ids; expected numpy.savez", **sa(ids=IDS[:, None]))
    broken = maps["sa"].copy()
    broken[4, 2, 3] = np.nan
    refused("other.npz: case_04: 1 NaN or infinite values", **sa(broken))
    refused("other.npz: all 24 maps are constant", **sa(np.ones_like(broken)))
    refused(r"other.npz: case_00: shape \(10, 9\); expected that of ts.npz: case_00", **sa(maps["sa"][:, :, :-1]))
    refused("ts, ba: the same maps", ba="ts.npz")
    refused(r"--regions grid:5: cells \(5,\): expected 1 or more along each axis", regions="grid:5")
    refused(r"--regions grid:50x5: cells \(50, 5\)", regions="grid:50x5")
    refused("--regions grid:0x5; expected grid:7x7", regions="grid:0x5")
    refused("--regions slic:25 needs --images", regions="slic:25")
    refused("--regions atlas.nii: no such file", regions="atlas.nii")
    refused("--names with --regions grid:5x5", "--names", "names.csv")
    refused("alpha, min_reliability: 2", "--alpha", "2")
    np.save("labels.npy", np.kron(np.arange(25).reshape(5, 5), np.ones((2, 2), int)))
    Path("names.csv").write_text("label,name\n1,one\n2,two\n30,thirty\n")
    refused("labels.npy: region thirty: no voxel of label 30", "--names", "names.csv", regions="labels.npy")
    np.savez("few.npz", images=np.zeros((3, *SPACE)), ids=IDS[:3])
    refused("few.npz: no image case_03, of which there are maps", "--images", "few.npz")
    Path("audit2").mkdir()
    np.save("audit2/rcs.npy", np.zeros((2, *SPACE)))
    answer = call("-o", "audit2", regions="audit2/rcs.npy")
    assert answer.exit_code == 2 and "is the input" in answer.stderr
    refused("--sign relu; expected positive, absolute or signed", "--sign", "relu")
    sa(broken)  # outputs are checked before maps are read
    refused("names.csv/audit: .*names.csv is a file; expected a folder", "-o", "names.csv/audit", sa="other.npz")
    Path("maps").mkdir()
    for name, one in zip(IDS, maps["ts"], strict=True):
        np.save(f"maps/{name}.npy", one)
    refused("maps: is the input maps; expected another name", "-o", "maps", ts="maps", sa="other.npz")
    refused("without endings such as .nii.gz they match", **sa(ids=[f"{one}.nii.gz" for one in IDS]))


def test_negative_values_are_said_and_signs_are_options(here):
    """Maps times ±1 by image, as of an own-class gradient: their magnitudes rank regions, and their signs do not."""

    def audited(**options):
        return audit_maps("ts.npz", "ba.npz", "sa.npz", "grid:5x5", **options)

    maps = {name: one - one.min() for name, one in attribution(0.8).items()}
    save(maps)
    expected = audited()
    assert expected.settings["sign"] == "signed" and not expected.warnings
    save({name: one * np.where(np.arange(IMAGES) % 2, 1, -1)[:, None, None] for name, one in maps.items()})
    absolute = audited(sign="absolute")
    assert absolute.audit.correlations == expected.audit.correlations and not absolute.warnings
    assert absolute.negative == {"ts.npz": 12, "ba.npz": 12, "sa.npz": 12}
    found, answer = result()
    assert found["correlations"]["shortcut"]["value"] < 0.5 < expected.audit.correlations.shortcut
    assert found["settings"]["sign"] == "signed" and found["negative_maps"] == absolute.negative
    assert re.search("medjax: negative values in 12 of 24 maps of ts.npz, .*; --sign positive, absolute", answer.stderr)


def test_ids_are_stripped(here):
    np.savez("sa.npz", maps=attribution(0.8)["sa"], ids=[f"{one} " for one in IDS])
    assert open_maps(Path("sa.npz")).ids == [*IDS]


def test_an_affine_is_that_of_any_source(here):
    """TS has none: that of BA holds, for the scores and for SA, and it is said."""
    maps = attribution(0.8)
    np.savez("ba.npz", maps=maps["ba"], ids=IDS, affine=AFFINE)
    found, answer = result()
    assert "medjax: no affine in ts.npz, sa.npz: taken to be on the grid of the others" in answer.stderr
    assert found["warnings"] and Path("audit/rcs.nii.gz").exists()
    np.savez("sa.npz", maps=maps["sa"], ids=IDS, affine=AFFINE + np.diag([0.5, 0, 0, 0]))
    answer = call("-o", "none")
    assert answer.exit_code == 2 and "sa.npz: case_00: another affine than ba.npz: case_00" in answer.stderr
