"""`medjax labels audit` on small folders: what it writes, and one line for what cannot be audited."""

import csv
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from medjax.cli import app
from medjax.datasets.labeled_folders import read
from medjax.errors import ConfigError, DataError, WorkdirError
from medjax.io.nifti import write_nifti
from medjax.labels.errors import corrupt
from medjax.labels.scores import LabelScore, built_in
from medjax.models.model import Model
from medjax.phantoms.echo import echo
from medjax.tools import labels_audit
from medjax.tools.labels_audit import audit

pytest.importorskip("PIL")
SETTINGS = ("--size", "32", "--epochs", "60")


def command(*arguments):
    return CliRunner().invoke(app, ["labels", "audit", *map(str, arguments)], prog_name="medjax")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Twenty simulated hearts, five of them with another's label."""
    from PIL import Image

    root = tmp_path_factory.mktemp("audit")
    data = echo(3, 20, 48, hard=0.0)
    wrong = corrupt(1, data.labels, "swap", 0.25)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for k in range(20):
        Image.fromarray((255 * data.images[k, ..., 0]).astype(np.uint8)).save(root / "images" / f"case_{k:02d}.png")
        Image.fromarray(wrong.labels[k].astype(np.uint8)).save(root / "masks" / f"case_{k:02d}.png")
    return root, wrong.corrupted


def test_wrong_labels_lead_the_list(folders):
    root, corrupted = folders
    said = command(root / "images", root / "masks", "-o", root / "out", *SETTINGS, "--threshold", "0.25")
    assert said.exit_code == 0, said.output
    assert "5 of 20 labels flagged by dice_mean" in said.stdout
    rows = list(csv.DictReader((root / "out" / "ranked.csv").read_text().splitlines()))
    assert len(rows) == 20 and [row["flagged"] for row in rows] == ["1"] * 5 + ["0"] * 15
    assert sum(corrupted[int(row["name"][5:7])] for row in rows[:5]) >= 4
    report = (root / "out" / "report.html").read_text()
    assert len(report) > 50_000
    typed = ["labels", "audit", f"{root / 'images'}", f"{root / 'masks'}", "-o", f"{root / 'out'}", *SETTINGS]
    assert f"<code>{shlex.join(['medjax', *typed, '--threshold', '0.25'])}</code>" in report
    [first] = re.findall(r"<td class=\"number\">1</td><td>case_\d\d.png</td><td>(.*?)</td>", report)
    assert first == "flagged" and report.count("<td>flagged</td>") == 5
    assert re.search(r'alt="[^"]*: 1 · case_\d\d.png · flagged, network', report)  # the titles of the pictures
    assert re.search(r"<dt>classes</dt><dd>\d \(automatic, from the masks\)</dd>", report)
    assert "<dt>content (SHA-256 of the data, its first digits)</dt>" in report


def test_a_second_look_needs_no_training_and_trusted_labels_turn_the_list(folders):
    root, corrupted = folders
    trusted = root / "trusted.csv"
    chosen = (*np.flatnonzero(corrupted)[:2], *np.flatnonzero(~corrupted)[:2])
    rows = [f"case_{k:02d}.png,{int(not corrupted[k])}" for k in chosen]
    trusted.write_text("\n".join(["name,wrong", *rows]))
    said = command(root / "images", root / "masks", "-o", root / "out", *SETTINGS, "--trusted", trusted)
    assert said.exit_code == 0, said.output
    first = next(csv.DictReader((root / "out" / "ranked.csv").read_text().splitlines()))
    assert not corrupted[int(first["name"][5:7])]


def test_corrected_masks_are_another_audit_and_grey_masks_become_classes(folders, tmp_path, capsys):
    import shutil

    from PIL import Image

    root, _ = folders
    shutil.copytree(root / "images", tmp_path / "images")
    shutil.copytree(root / "masks", tmp_path / "masks")
    for mask in (tmp_path / "masks").iterdir():
        with Image.open(mask) as picture:
            array = np.asarray(picture)
        Image.fromarray(((array == 1) * 255).astype(np.uint8)).save(mask)
    where = (tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    options = {"size": 16, "epochs": 4, "network": two_layers, "label_scores": {"dice_mean": built_in()["dice_mean"]}}
    audit(*where, **options)
    assert "labels 0, 255 are taken as classes 0 to 1" in capsys.readouterr().out
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(mask)
    with pytest.raises(WorkdirError, match="another config: content"):
        audit(*where, **options)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--score vogg; expected", ("--detector", "vogg")),
        ("did you mean 'vog'?", ("--score", "loss", "--score", "vogg")),
        ("--threshold much; expected otsu", ("--threshold", "much")),
        ("--size 30; expected a multiple of 8", ("--size", "30")),
        ("--seed 4294967296; expected a whole number", ("--seed", str(2**32))),
        ("label 3; expected 0 to 1", ("--classes", "2")),
        ("no.csv: 1 rows, no column name, wrong; expected a CSV", ("--trusted", "no.csv")),
    ],
)
def test_options_that_cannot_be_are_one_line(message, arguments, folders, tmp_path, monkeypatch):
    root, _ = folders
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no.csv").write_text("image,bad\ncase_00.png,1\n")
    said = command(root / "images", root / "masks", "-o", tmp_path / "out", *SETTINGS, *arguments)
    assert said.exit_code == 2 and message in said.stderr and len(said.stderr.splitlines()) == 1, said.output


@pytest.mark.parametrize("where", ["images", "masks", "trusted"])
def test_an_output_is_never_an_input(where, folders, tmp_path):
    """The work directory is a folder that is read, or its table is the trusted set; links are followed."""
    root, _ = folders
    output = tmp_path / "audit"
    if where == "trusted":
        output.mkdir()
        (tmp_path / "checked.csv").write_text("name,wrong\ncase_00.png,1\n")
        (output / "ranked.csv").symlink_to(tmp_path / "checked.csv")
    else:
        output.symlink_to(root / where)
    before = {file: file.read_bytes() for file in (*root.rglob("*.png"), *tmp_path.glob("*.csv"))}
    said = command(root / "images", root / "masks", "-o", output, "--trusted", tmp_path / "checked.csv", *SETTINGS)
    assert said.exit_code == 2 and "is the input" in said.stderr and len(said.stderr.splitlines()) == 1, said.output
    assert all(file.read_bytes() == content for file, content in before.items())
    assert not (root / where / "config.json").exists()


def nifti_folders(folder, number, change=lambda image, label, affine: (image, label, affine)):
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for k in range(number):
        image, label = np.random.default_rng(k).normal(size=(16, 16, 1)).astype(np.float32), np.zeros((16, 16, 1), "f4")
        label[4:9, 5:12] = 1
        image, label, affine = change(image, label, np.eye(4))
        write_nifti(folder / "images" / f"p{k:02d}.nii.gz", image, np.eye(4))
        write_nifti(folder / "masks" / f"p{k:02d}.nii.gz", label, affine)
    return command(folder / "images", folder / "masks", "-o", folder / "out", *SETTINGS)


@pytest.mark.parametrize(
    ("message", "number", "change"),
    [
        ("1 images; expected at least 16", 1, lambda i, m, a: (i, m, a)),
        ("shape (15, 16); expected that of p00.nii.gz, (16, 16)", 16, lambda i, m, a: (i, m[:15], a)),
        ("another affine than p00.nii.gz", 16, lambda i, m, a: (i, m, 2 * np.eye(4) - np.diag([0, 0, 0, 1.0]))),
        ("values that are no labels", 16, lambda i, m, a: (i, 0.5 * m, a)),
        ("every label is 0", 16, lambda i, m, a: (i, 0 * m, a)),
    ],
)
def test_files_that_cannot_be_are_one_line(message, number, change, tmp_path):
    said = nifti_folders(tmp_path, number, change)
    assert said.exit_code == 2 and message in said.stderr and len(said.stderr.splitlines()) == 1, said.output


# ── parts of a user's own, from Python ──


def two_layers(classes):
    """A network that is no Flax module."""

    def init(key, images):
        one, two = jax.random.split(key)
        return [0.3 * jax.random.normal(one, (3, 3, 1, 6)), 0.3 * jax.random.normal(two, (3, 3, 6, classes))]

    def apply(params, x, key=None):
        for number, kernel in enumerate(params):
            x = jax.nn.relu(x) if number else x
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return x

    return Model(init, apply)


WORST = LabelScore(
    lambda images, space: jnp.zeros(images),
    lambda state, index, probe: state.at[index].max(probe.losses["cross_entropy"]),
    lambda state, labels: state,
)


def test_a_network_a_score_and_a_threshold_of_ones_own(folders, tmp_path):
    """The score ranks, the threshold flags, and sides need be no multiple of 8."""
    root, _ = folders
    columns = {**built_in(gradients=("loss",)), "worst": WORST}

    def flag_two(scores):
        return scores >= np.sort(scores)[-2]

    where = (root / "images", root / "masks", tmp_path / "out")
    audit(*where, score="worst", threshold=flag_two, size=20, epochs=16, network=two_layers, label_scores=columns)
    rows = list(csv.DictReader((tmp_path / "out" / "ranked.csv").read_text().splitlines()))
    worst = [float(row["worst"]) for row in rows]
    assert worst == sorted(worst, reverse=True) and min(worst) > 0 and {"loss", "vog_loss"} < set(rows[0])
    assert [row["flagged"] for row in rows] == ["1"] * 2 + ["0"] * 18
    assert not (tmp_path / "out" / "checkpoints" / "training").exists()


def test_arrays_give_what_files_give(folders, tmp_path):
    """Nothing is written; the result holds what the table does."""
    root, _ = folders
    options = {"score": "loss", "epochs": 16, "network": two_layers, "label_scores": built_in(gradients=("loss",))}
    whole = audit(root / "images", root / "masks", tmp_path / "out", size=16, **options)
    rows = list(csv.DictReader((tmp_path / "out" / "ranked.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == [whole.names[k] for k in whole.order]
    assert [row["flagged"] for row in rows] == [str(int(whole.flags[k])) for k in whole.order]
    assert [row["agreement"] for row in rows] == [f"{whole.agreement[k]:.4f}" for k in whole.order]
    data = read(root / "images", root / "masks", 16)
    found = audit(data.images, data.labels, **options)
    np.testing.assert_array_equal(found.order, whole.order)
    np.testing.assert_array_equal(found.scores["dice_mean"], whole.scores["dice_mean"])
    np.testing.assert_array_equal(found.ranking, whole.scores["loss"])
    assert found.folder is None and whole.folder == tmp_path / "out" and whole.prediction.shape == data.labels.shape
    with pytest.raises(DataError, match=r"images \(20, 16, 16, 1\), masks .*masks; expected two folders, or"):
        audit(data.images, root / "masks", **options)
    with pytest.raises(ConfigError, match=r"--threshold 2\.0; expected otsu, mixture, mad or a fraction"):
        audit(str(root / "images"), str(root / "masks"), threshold=2.0, **options)


def test_an_audit_that_is_killed_goes_on(folders, tmp_path, monkeypatch):
    root, _ = folders
    scores, dynamics, seen = built_in(gradients=("loss",)), labels_audit.training_dynamics, []

    def audited(output):
        where = (root / "images", root / "masks", tmp_path / output)
        audit(*where, score="loss", size=16, epochs=16, network=two_layers, label_scores=scores)
        return (tmp_path / output / "ranked.csv").read_text()

    def killed(*arguments, **keywords):
        for snapshot in dynamics(*arguments, **keywords):
            seen.append(int(snapshot.state.step))
            if len(seen) == 2:
                raise KeyboardInterrupt
            yield snapshot

    whole = audited("whole")
    monkeypatch.setattr(labels_audit, "training_dynamics", killed)
    with pytest.raises(KeyboardInterrupt):
        audited("part")
    assert audited("part") == whole
    assert seen[:3] == [4, 8, 8]  # two epochs between probes; the last snapshot comes once more
