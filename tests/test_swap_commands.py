"""Swap a part on the command line: FILE.py:NAME, a file of one's own, which medjax knows nothing of.

One network serves `labels audit`, on pictures, and `segment`, on volumes; a score and a threshold serve the audit.
Edited, the file is another part.
"""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from medjax.cli import app
from medjax.io.nifti import read_nifti, write_nifti
from medjax.io.nnunet_raw import Scan, write_dataset
from medjax.phantoms.echo import echo
from tests.segmentation.blobs import blobs

MINE = """
import jax
import jax.numpy as jnp
import numpy as np

from medjax.iterate import static_partial
from medjax.labels.scores import LabelScore
from medjax.models.model import Model


def init(width, classes, key, images):
    side, inputs = (3,) * (images.ndim - 2), images.shape[-1]
    first, second = jax.random.split(key)
    return {
        "first": 0.2 * jax.random.normal(first, (3 ** len(side) * inputs * width,)).reshape(*side, inputs, width),
        "second": 0.2 * jax.random.normal(second, (width * classes,)).reshape(*(1 for _ in side), width, classes),
    }


def apply(params, images, key=None):
    return convolve(jax.nn.relu(convolve(images, params["first"])), params["second"])


def convolve(x, kernel):
    space = "XYZ"[: x.ndim - 2]
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
    return jax.lax.conv_general_dilated(x, kernel, (1,) * len(space), "SAME", dimension_numbers=numbers)


def of_classes(classes):
    return Model(static_partial(init, 8, classes), apply)


def of_plan(plan):
    return of_classes(plan.classes)


three = of_classes(3)
four = of_classes(4)

worst = LabelScore(
    lambda images, space: jnp.zeros(images),
    lambda state, index, probe: state.at[index].max(probe.losses["cross_entropy"]),
    lambda state, labels: state,
)


def three_highest(scores):
    return scores >= np.sort(scores)[-3]


def fails(classes):
    raise KeyError("no such width")


def text(classes):
    return "net"


WIDTH = 8
dice = worst
"""


def medjax(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments], prog_name="medjax")


def done(*arguments):
    result = medjax(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(message, *arguments):
    result = medjax(*arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output + str(result.exception)
    assert result.stderr.count("\n") == 1


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with mine.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def edit(folder):
    (folder / "mine.py").write_text(MINE.replace("static_partial(init, 8,", "static_partial(init, 7,"))


# ── labels audit ──


AUDIT = ("labels", "audit", "images", "masks", "--size", "16", "--epochs", "4")


@pytest.fixture
def pictures(here):
    """Sixteen simulated hearts of three classes."""
    data = echo(seed=0, number=16, size=16)
    for name, arrays in (("images", data.images[..., 0]), ("masks", np.minimum(data.labels, 2).astype(np.uint8))):
        (here / name).mkdir()
        for k, array in enumerate(arrays):
            write_nifti(here / name / f"{k:02d}.nii.gz", array[..., None], np.eye(4))
    return here


def test_a_network_a_score_and_a_threshold_in_the_audit(pictures):
    parts = ("--network", "mine.py:of_classes", "--score", "mine.py:worst")
    chosen = ("--detector", "worst", "--threshold", "mine.py:three_highest")
    said = done(*AUDIT, "-o", "audit", *parts, *chosen)
    assert "3 of 16 labels flagged by worst" in said
    rows = list(csv.DictReader((pictures / "audit" / "ranked.csv").read_text().splitlines()))
    assert [row["flagged"] for row in rows] == ["1"] * 3 + ["0"] * 13
    worst = [float(row["worst"]) for row in rows]
    assert worst == sorted(worst, reverse=True) and worst[0] > worst[-1] > 0 and "vog" in rows[0]
    assert "flagged by worst" in done(*AUDIT, "-o", "audit", *parts)  # the first score ranks
    assert "flagged by dice_mean" in done(*AUDIT, "-o", "audit", *parts[:2], "--score", "dice_mean", *parts[2:])
    assert "flagged by vog" in done(*AUDIT, "-o", "audit", *parts, "--detector", "vog")  # the old spelling
    edit(pictures)
    refused("audit belongs to another config: network.sha256 is", *AUDIT, "-o", "audit", *parts)


def test_what_is_no_part_of_an_audit_is_one_line(pictures):
    (pictures / "broken.py").write_text("1 / 0\n")
    for message, *parts in (
        ("--network gone.py:net: no file gone.py", "--network", "gone.py:net"),
        ("--network mine; expected FILE.py:NAME", "--network", "mine"),
        ("mine.py has no tree; did you mean 'three'?", "--network", "mine.py:tree"),
        ("broken.py cannot be run: ZeroDivisionError", "--score", "broken.py:worst"),
        ("mine.py:WIDTH: TypeError: 'int' object is not callable; expected a Model", "--network", "mine.py:WIDTH"),
        ("--network mine.py:fails: KeyError: 'no such width'; expected a Model", "--network", "mine.py:fails"),
        ("--network mine.py:text gives a str; expected a Model", "--network", "mine.py:text"),
        ("the network gives (1, 16, 16, 4) for an image of (16, 16, 1); expected (1, 16, 16, 3)",
         "--network", "mine.py:four"),
        ("--score mine.py:three: Model; expected a LabelScore", "--score", "mine.py:three"),
        ("--score mine.py:dice: there is a score dice already", "--score", "mine.py:dice"),
        ("--threshold mine.py:WIDTH: int; expected a function", "--threshold", "mine.py:WIDTH"),
    ):  # fmt: skip
        refused(message, *AUDIT, "-o", "new", *parts)
    assert not (pictures / "new").exists()


# ── segment ──


TRAIN = (
    "--fold", "0", "--base-width", "4", "--patch", "12,12,12", "--epochs", "1", "--iterations", "10", "--rate", "0.1",
)  # fmt: skip


@pytest.fixture
def volumes(here):
    """A data set in nnU-Net's layout."""

    def scan(seed):
        case = blobs(seed)
        return Scan(f"case_{seed}", case.image, case.labels, case.spacing, np.eye(4))

    names = ("background", "bright", "dark")
    write_dataset(here / "data", [scan(seed) for seed in range(5)], ("MR",), names, test=[scan(7)])
    return here


def predict(*more):
    return ("segment", "predict", "model", "data/imagesTs", "-o", "said", "--no-mirror", *more)


def test_a_network_trains_and_predicts_where_the_folder_knows_it_again(volumes):
    train = ("segment", "train", "data", "-o", "model", *TRAIN)
    assert "fold 0: Dice" in done(*train, "--network", "mine.py:of_plan")
    remembered = json.loads((volumes / "model" / "plan.json").read_text())["network"]
    assert remembered["name"] == "mine.py:of_plan" and len(remembered["sha256"]) == 64
    assert "fold 0: finished already" in done(*train, "--network", "mine.py:of_plan")
    assert "1 case by 1 network" in done(*predict("--network", "mine.py:of_plan"))
    assert read_nifti(volumes / "said" / "case_7.nii.gz").array.max() in (1, 2)
    mine = "its network is mine.py:of_plan (SHA-256 "
    refused("mine.py:of_plan (SHA-256 ", *predict())
    refused("is not built in; expected --network FILE.py:of_plan", *predict())
    refused(f"{mine}{remembered['sha256'][:12]}…), here mine.py:three (", *predict("--network", "mine.py:three"))
    refused("here plain_unet; expected the same, or another folder", *train)
    edit(volumes)
    refused(f"{mine}{remembered['sha256'][:12]}…), here mine.py:of_plan (", *predict("--network", "mine.py:of_plan"))
    refused(mine, *train, "--network", "mine.py:of_plan")


def test_what_is_no_network_of_volumes_is_one_line(volumes):
    for message, network in (
        ("network: 'plain'; did you mean plain_unet?", "plain"),
        ("does not take images of (12, 12, 12, 1) (space, channel): ", "score_unet"),
        ("Number of groups (8) does not divide the number of channels (4)", "unet"),
        ("the network gives (1, 12, 12, 12, 1)", "residual_cnn"),
        ("the network gives (1, 12, 12, 12, 4) for an image of (12, 12, 12, 1)", "mine.py:four"),
        ("--network mine.py:worst: TypeError", "mine.py:worst"),
    ):
        refused(message, "segment", "train", "data", "-o", "new", *TRAIN, "--network", network)
    assert not (volumes / "new").exists()
