"""`medjax shortcuts flips`: files in, fractions out as counted by hand; bad input is one line and writes nothing.

Every call is made under the command's other name, `medjax segment flips`, too: both say and write the same.
"""

import csv
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from typer.testing import CliRunner

from medjax import cli
from medjax.io.nifti import write_nifti

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
SHAPE = (6, 5, 4)


def medjax_command(*arguments):
    results, written = [], []
    output = Path(arguments[arguments.index("-o") + 1] if "-o" in arguments else "flips.csv")
    for group in ("segment", "shortcuts"):
        output.unlink(missing_ok=True)
        results.append(CliRunner().invoke(cli.app, [group, "flips", *map(str, arguments)], prog_name="medjax"))
        written.append(output.read_bytes() if output.exists() else None)
    assert [(one.exit_code, one.stdout, one.stderr) for one in results[1:]] == [
        (one.exit_code, one.stdout, one.stderr) for one in results[:1]
    ]
    assert written[0] == written[1]
    return results[1]


def done(*arguments):
    result = medjax_command(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(message, *arguments):
    result = medjax_command(*arguments)
    assert result.exit_code == 2, result.output
    assert re.fullmatch(rf"medjax: .*{message}.*\n", result.stderr), result.stderr
    assert not Path("flips.csv").exists()


def rows(path="flips.csv"):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def truth_and_logits(count=12, shape=SHAPE, seed=0):
    """Images of one class each, 1 or 2, and logits that are more often wrong the later the image."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((count, *shape)) < 0.5) * (1 + np.arange(count) % 2).reshape(-1, *[1] * len(shape))
    right = 3 * np.eye(3)[truth]
    logits = right + rng.normal(size=right.shape) * np.linspace(0.3, 3, count).reshape(-1, *[1] * (len(shape) + 1))
    return truth, logits.astype(np.float32)


def write(folder, images, affine=AFFINE):
    Path(folder).mkdir(exist_ok=True)
    for number, image in enumerate(images):
        write_nifti(Path(folder) / f"case_{number:02d}.nii.gz", image, affine)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with pred/ and gt/ of twelve volumes, logits/ as .npy, probabilities/ as NIfTI, and groups.csv."""
    monkeypatch.chdir(tmp_path)
    truth, logits = truth_and_logits()
    write("gt", truth), write("pred", logits.argmax(-1))
    Path("logits").mkdir(), Path("probabilities").mkdir()
    lines = ["image,group"]
    for number, one in enumerate(logits):
        np.save(f"logits/case_{number:02d}.npy", one)
        probable = nibabel.Nifti1Image(softmax(one, axis=-1), AFFINE)
        nibabel.save(probable, f"probabilities/case_{number:02d}.nii.gz")
        lines.append(f"case_{number:02d},{2 * (number % 2) + number // 2 % 2}")
    Path("groups.csv").write_text("\n".join(lines) + "\n")
    return truth, logits


def test_fractions_are_those_counted(here):
    truth, logits = here
    said = done("pred", "gt")
    assert said.stderr == "" and "wrote flips.csv" in said.stdout
    assert [row["image"] for row in rows()] == [f"case_{number:02d}" for number in range(12)]
    predicted = logits.argmax(-1)
    for row, p, y in zip(rows(), predicted, truth, strict=True):
        inside = y > 0
        wanted = [(p == y)[inside].mean(), ((p > 0) & (p != y))[inside].mean(), (p == 0)[inside].mean()]
        np.testing.assert_allclose([float(row[name]) for name in ("correct", "flip", "miss")], wanted, atol=1e-6)
        assert int(row["foreground"]) == inside.sum() and row["flip_risk"] == "" == row["group"]
    inside = truth > 0
    pooled = ((predicted > 0) & (predicted != truth))[inside].mean()
    table = dict(re.findall(r"^(all pixels|mean of images) +(.*)$", said.stdout, re.M))
    assert float(table["all pixels"].split()[1]) == pytest.approx(pooled, rel=1e-3)
    mean_over_images = np.mean([float(row["flip"]) for row in rows()])
    assert float(table["mean of images"].split()[1]) == pytest.approx(mean_over_images, rel=1e-3)


def test_risk_is_that_of_the_logits_or_of_their_probabilities(here):
    _, logits = here
    said = done("pred", "gt", "--logits", "logits", "-o", "logits.csv")
    log_q = log_softmax(logits[..., 1:].astype(np.float64), axis=-1)
    unsure = -(np.exp(log_q) * log_q).sum(-1) / np.log(2)
    wanted = [one[y > 0].mean() for one, y in zip(unsure, logits.argmax(-1), strict=True)]
    np.testing.assert_allclose([float(row["flip_risk"]) for row in rows("logits.csv")], wanted, atol=1e-5)
    assert "decile of flip-risk" in said.stdout and "of all flips are in the last decile" in said.stdout
    done("pred", "gt", "--probabilities", "probabilities", "-o", "probabilities.csv")
    np.testing.assert_allclose([float(row["flip_risk"]) for row in rows("probabilities.csv")], wanted, atol=1e-4)


def test_groups_have_shares_and_gaps(here):
    truth, logits = here
    said = done("pred", "gt", "--groups", "groups.csv")
    group = np.array([int(row["group"]) for row in rows()])
    np.testing.assert_array_equal(group, 2 * (np.arange(12) % 2) + np.arange(12) // 2 % 2)
    predicted = logits.argmax(-1)

    def iou(g):
        p, y = predicted[group == g] == 1 + g // 2, truth[group == g] == 1 + g // 2
        return (p & y).sum() / (p | y).sum()

    found = re.search(r"common minus rare group: class 0 (\S+), class 1 (\S+)", said.stdout)
    np.testing.assert_allclose([float(one) for one in found.groups()], [iou(0) - iou(1), iou(3) - iou(2)], atol=1e-4)
    assert len(re.findall(r"^group \d", said.stdout, re.M)) == 4
    Path("groups.csv").write_text("image,group\ncase_00,men\ncase_01,women\n")
    said = done("pred", "gt", "--groups", "groups.csv")
    assert "group men" in said.stdout and "common minus rare" not in said.stdout


def test_a_pair_of_pictures(tmp_path, monkeypatch):
    Image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    truth = np.zeros((4, 6), np.uint8)
    truth[1:3, 1:5] = 170
    predicted = truth.copy()
    predicted[1, 1:3], predicted[2, 4] = 85, 0
    Image.fromarray(truth).save("truth.png"), Image.fromarray(predicted).save("mine.png")
    refused(r"mine.png: label 85; expected 0, 170, or name all with --labels", "mine.png", "truth.png")
    done("mine.png", "truth.png", "--labels", "0,85,170")
    (row,) = rows()
    assert row["image"] == "truth" and row["foreground"] == "8"
    assert [float(row[name]) for name in ("correct", "flip", "miss")] == [0.625, 0.25, 0.125]
    # the same with another value as background: what was background is now the foreground
    done("mine.png", "truth.png", "--labels", "170,0,85", "-o", "other.csv")
    assert int(rows("other.csv")[0]["foreground"]) == 16


def test_one_slice_with_probabilities_in_npz(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth, logits = truth_and_logits(1, (5, 4, 1))
    write_nifti("gt.nii", truth[0], AFFINE), write_nifti("pred.nii", logits[0].argmax(-1), AFFINE)
    np.savez("p.npz", softmax(logits[0, :, :, 0], axis=-1))
    done("pred.nii", "gt.nii", "--probabilities", "p.npz", "--labels", "0,1,2")
    np.savez("p.npz", softmax(logits[0], axis=-1))
    done("pred.nii", "gt.nii", "--probabilities", "p.npz", "--labels", "0,1,2", "-o", "again.csv")
    assert rows()[0] == rows("again.csv")[0] and rows()[0]["flip_risk"]


def test_an_image_without_foreground_is_left_out_of_the_means(here):
    truth, _ = here
    write_nifti("gt/case_03.nii.gz", 0 * truth[3], AFFINE)
    said = done("pred", "gt")
    assert said.stderr == "medjax: case_03: no foreground in its ground truth; left out of the means\n"
    assert rows()[3]["flip"] == "" and rows()[3]["foreground"] == "0"
    mean = np.nanmean([float(row["flip"] or "nan") for row in rows()])
    found = re.search(r"^mean of images +\S+ +(\S+)", said.stdout, re.M)
    assert float(found[1]) == pytest.approx(mean, rel=1e-3)


def test_wrong_images_are_named(here):
    truth, _ = here
    write_nifti("empty.nii.gz", 0 * truth[0], AFFINE)
    refused("empty.nii.gz: no foreground in the ground truth", "empty.nii.gz", "empty.nii.gz")
    write_nifti("smaller.nii.gz", truth[0][:3], AFFINE)
    refused(r"smaller.nii.gz: shape \(3, 5, 4\); expected that of .*\(6, 5, 4\)", "smaller.nii.gz", "gt/case_00.nii.gz")
    write_nifti("moved.nii.gz", truth[0], np.diag([2.0, 2.0, 4.0, 1.0]))
    refused("moved.nii.gz: another affine than", "moved.nii.gz", "gt/case_00.nii.gz")
    write_nifti("soft.nii.gz", truth[0] / 2, AFFINE)
    refused("soft.nii.gz: values that are no labels", "soft.nii.gz", "gt/case_00.nii.gz")
    refused("absent.nii: no such file or folder", "absent.nii", "gt")
    refused("no case_00, which gt has", "logits/../pred/case_01.nii.gz", "gt")
    Path("pred/case_05.nii.gz").unlink()
    refused("pred: no case_05, which gt has; expected the same names in both", "pred", "gt")
    refused("groups.csv: no file that ends in .nii.gz, .nii, .png", "groups.csv", "gt")


def test_wrong_scores_and_options_are_named(here):
    _, logits = here
    refused("expected one of them", "pred", "gt", "--logits", "logits", "--probabilities", "probabilities")
    refused("case_00.npy: values that are no probabilities", "pred", "gt", "--probabilities", "logits")
    np.save("logits/case_04.npy", logits[4][..., :2])
    refused(r"case_04.npy: shape \(6, 5, 4, 2\); expected \(6, 5, 4, 3\)", "pred", "gt", "--logits", "logits")
    Path("logits/case_04.npy").write_bytes(b"no array")
    refused("case_04.npy: cannot be read as npy", "pred", "gt", "--logits", "logits")
    Path("logits/case_04.npy").unlink()
    refused("logits: nothing named case_04", "pred", "gt", "--logits", "logits")
    for text in ("0", "0,1,1", "0,one"):
        refused(f"--labels {text}; expected different whole numbers", "pred", "gt", "--labels", text)
    refused("gt/case_01.nii.gz: label 2; expected 0, 1", "gt", "gt", "--labels", "0,1")
    refused("gone.csv: no such file; expected a CSV with columns image, group", "pred", "gt", "--groups", "gone.csv")
    Path("groups.csv").write_text("name,group\na,1\n")
    refused(
        "groups.csv: 1 rows, no column image; expected a CSV",
        "pred",
        "gt",
        "--groups",
        "groups.csv",
    )


@pytest.mark.parametrize("link", ["itself", "symbolic", "hard"])
@pytest.mark.parametrize("name", ["groups.csv", "pred/case_03.nii.gz", "gt/case_11.nii.gz", "logits/case_00.npy"])
def test_an_output_is_never_an_input(here, name, link):
    output, before = Path(name), Path(name).read_bytes()
    if link != "itself":
        output = Path("out.csv")
        output.symlink_to(name) if link == "symbolic" else output.hardlink_to(name)
    options = ("--groups", "groups.csv", "--logits", "logits", "-o", str(output))
    said = CliRunner().invoke(cli.app, ["shortcuts", "flips", "pred", "gt", *options], prog_name="medjax")
    assert said.exit_code == 2 and said.stderr == (
        f"medjax: {output}: is the input {name}; expected another name for the output\n"
    )
    assert Path(name).read_bytes() == before
