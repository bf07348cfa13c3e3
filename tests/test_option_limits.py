"""Options of every tool have limits: a number that never ends or exhausts memory is one line, before files are read."""

import os

import pytest
from typer.testing import CliRunner

from medjax.cli import app

HUGE, LONG, DIGITS = str(10**9 + 1), str(10**30), "9" * 400
RECONSTRUCT = "pet reconstruct c.npz -o o.nii.gz"
SIMULATE = "pet simulate -o o.npz"
PRIOR = "pet train-prior a.nii.gz -o p"
TRAIN = "segment train d -o m"
COMMANDS = {  # command, with the numeric options that it refuses to have beyond limits
    RECONSTRUCT: ("--iterations", "--subsets", "--psf-mm", "--post-filter-mm"),
    f"{RECONSTRUCT} --method map-em": ("--beta",),
    f"{RECONSTRUCT} --method split-gibbs": ("--steps", "--samples", "--iterations"),
    SIMULATE: ("--planes", "--psf-mm", "--size", "--voxel-mm", "--lesions"),
    PRIOR: ("--steps", "--batch", "--size", "--voxel-mm", "--phantoms"),
    TRAIN: ("--epochs", "--iterations", "--base-width", "--memory-gb", "--patch"),
    "segment evaluate p r -o s.json": ("--tolerance", "--ignore"),
    "labels audit i m -o a": ("--size", "--epochs", "--classes"),
    "shortcuts fairness t.csv --attribute a": ("--tnr", "--resamples", "--level"),
    "labels simulate -o d": ("--number", "--wrong", "--size"),
    "ivim simulate -o d": ("--size", "--age", "--snr"),
    "segment simulate -o d": ("--number", "--test", "--size"),
    "biomarkers l.csv -o o.csv": ("--gap-mm", "--basal", "--frame-ms"),
    "precision s.csv r.csv": ("--samples", "--resamples", "--level", "--alpha"),
    "register f.nii.gz m.nii.gz -o o.nii.gz": ("--iterations",),
}
FLOATS = {
    "--psf-mm", "--post-filter-mm", "--beta", "--voxel-mm", "--memory-gb", "--tolerance", "--tnr", "--level",
    "--gap-mm", "--basal", "--frame-ms", "--alpha",
    "--wrong", "--age", "--snr",
}  # fmt: skip
CASES = [(command, option) for command, options in COMMANDS.items() for option in options]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(folder, command: str, *more: str) -> str:
    """The one line of a command that is refused and changes nothing."""
    before = sorted(folder.rglob("*"))
    result = CliRunner().invoke(app, [*command.split(), *more])
    assert result.exit_code == 2 and not result.stdout, result.output
    assert result.stderr.startswith("medjax: ") and result.stderr.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
    return result.stderr


@pytest.mark.parametrize(("command", "option"), CASES)
def test_numbers_beyond_the_limits_are_one_line_that_names_the_option(here, command, option):
    values = ("1e30", "nan", "-1e9") if option in FLOATS else (HUGE, LONG, DIGITS, "-1")
    for value in values:
        arguments = command.split()
        text = f"{value},8,8" if option == "--patch" else value
        assert option in refused(here, command, option, text), (arguments, value)


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (RECONSTRUCT, "--max-ring-difference", "-1"),
        (RECONSTRUCT, "--max-ring-difference", LONG),
        (SIMULATE, "--seed", LONG),
        (SIMULATE, "--slice-mm", "nan"),
        (SIMULATE, "--trues", "0"),
        (SIMULATE, "--trues-per-mm3", "inf"),
        (PRIOR, "--rate", "0"),
        (PRIOR, "--rate", "nan"),
        (PRIOR, "--batch", "0"),
        (PRIOR, "--steps", "0"),
        (TRAIN, "--rate", "nan"),
        (TRAIN, "--configuration", "4d"),
        ("register f.nii.gz m.nii.gz -o o.nii.gz", "--iterations", ",".join("1" * 9)),
        ("register f.nii.gz m.nii.gz -o o.nii.gz", "--iterations", "9" * 5000),
        ("shortcuts flips p g", "--labels", f"0,{'9' * 5000}"),
        ("ivim fit d.nii.gz --bvals b -o m", "--threshold", "nan"),
        ("ivim fit d.nii.gz --bvals b -o m", "--threshold", "1e9"),
    ],
)
def test_values_that_mean_nothing_are_one_line(here, command, option, value):
    assert option.lstrip("-").replace("-", "") in refused(here, command, option, value).replace("-", "")


def test_an_empty_value_is_one_line(here):
    assert "no value after --tracer" in refused(here, PRIOR, "--tracer", "")
    assert "no value after --output" in refused(here, "pet simulate", "--output=")


@pytest.mark.parametrize(
    "command",
    [
        "pet reconstruct fifo.npz -o o.nii.gz",
        "pet reconstruct c.npz -o fifo.nii.gz",
        "pet reconstruct c.npz -o o.nii.gz --mu fifo.nii.gz",
        "pet reconstruct c.npz -o o.nii.gz --method dds --prior fifo.npz",
        "pet simulate --activity fifo.nii.gz -o o.npz",
        "pet simulate -o fifo.npz",
        "pet train-prior fifo.nii.gz -o p",
        "pet train-prior a.nii.gz -o p --start fifo.npz",
        "ivim fit fifo.nii.gz --bvals b -o m",
        "ivim fit d.nii.gz --bvals fifo.csv -o m",
        "segment train fifo.npz -o m",
        "segment evaluate fifo.npz r -o s.json",
        "segment predict fifo.npz i -o o",
        "labels audit fifo.npz m -o a",
        "labels audit i m -o a --trusted fifo.csv",
        "shortcuts audit --ts fifo.npz --ba fifo.npz --sa fifo.npz --regions grid:2x2",
        "shortcuts fairness fifo.csv --attribute a",
        "shortcuts flips fifo.npz g",
        "shortcuts flips p g -o fifo.csv",
        "biomarkers fifo.csv -o o.csv",
        "register fifo.nii.gz m.nii.gz -o o.nii.gz",
        "register f.nii.gz m.nii.gz -o o.nii.gz --network fifo.npz",
        "register apply fifo.nii.gz r.nii.gz -t t.txt -o o.nii.gz",
        "register points p.csv -t fifo.csv -o o.csv",
        "precision fifo.csv r.csv",
    ],
)
def test_a_pipe_is_neither_read_nor_replaced(here, command):
    for ending in ("npz", "nii.gz", "csv"):
        os.mkfifo(here / f"fifo.{ending}")
    assert "is a pipe or a device; expected" in refused(here, command)


def test_a_device_is_never_replaced(here):
    from medjax.atomic import replacing, replacing_together

    os.mkfifo(here / "fifo")
    for write in (replacing, replacing_together):
        with pytest.raises(OSError, match=r"Is a pipe or a device.*fifo"), write(here / "fifo") as parts:
            part = parts[0] if isinstance(parts, list) else None
            _ = part and part.write_text("x")
    assert [path.name for path in here.iterdir()] == ["fifo"]


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("pet reconstruct c.npz -o o.nii.gz", "o.png"),
        ("pet reconstruct c.npz -o o.nii.gz --method dds --samples 2", "o_sd.nii.gz"),
        ("pet train-prior a.nii.gz -o p", "p/prior.npz"),
        ("ivim fit d.nii.gz --bvals b -o m", "m/maps.png"),
        ("labels audit i m -o a", "a/ranked.csv"),
        ("shortcuts audit --ts t.npz --ba t.npz --sa t.npz --regions grid:2x2 -o s", "s/audit.json"),
        ("shortcuts fairness t.csv --attribute a -o f", "f/report.html"),
        ("shortcuts flips p g -o f.csv", "f.csv"),
        ("register f.nii.gz m.nii.gz -o o.nii.gz --figure f.png", "f.png"),
    ],
)
def test_an_output_that_is_a_folder_is_told_before_any_work(here, command, output):
    (here / output).mkdir(parents=True)
    for folder in ("p", "g"):
        (here / folder).mkdir(exist_ok=True)
        (here / folder / "a.png").touch()
    assert f"{output}: is a folder; expected" in refused(here, command)


def test_an_image_that_cannot_be_trained_on_leaves_no_folder(here):
    (here / "a.nii.gz").write_bytes(b"no image")
    assert "a.nii.gz: " in refused(here, PRIOR)
