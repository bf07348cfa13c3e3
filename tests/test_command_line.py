"""What every command shows: whole words at any width, no colours, completion, a user's own frames."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medjax import cli
from medjax.report.html import Table
from medjax.report.terminal import print_table
from tests.toy_experiment import CONFIG, EXPERIMENT


@pytest.fixture
def root(make_checkout) -> Path:
    return make_checkout(CONFIG, EXPERIMENT)


def medjax_command(*arguments: str, **variables: str):
    return CliRunner().invoke(cli.app, arguments, prog_name="medjax", env=variables)


def process(*arguments: str, code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **variables}
    command = [sys.executable, *(["-c", code] if code else ["-m", "medjax"]), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_help_is_whole_at_any_width(columns):
    text = process("pet", "reconstruct", "--help", COLUMNS=columns).stdout
    for word in ("likelihood-schedule", "--multiplicative-convention", "--max-ring-difference", "post-filter-mm"):
        assert word in text
    for cut in ("…\n", "... ", "...\n", "<bool>", "{COUNTS}", "\x1b"):
        assert cut not in text.replace("…_sd.nii.gz", "")
    assert max(map(len, text.splitlines())) <= max(int(columns), 50)
    groups = process("--help", COLUMNS=columns).stdout
    assert "finished one is left as it is." in " ".join(groups.split())


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_codes_of_style_where_none_are_wanted(variables, monkeypatch, capsys):
    for name, value in {"FORCE_COLOR": "1", **variables}.items():
        monkeypatch.setenv(name, value)
    for arguments in (["--help"], ["pet", "simulate", "--help"], ["runn"]):
        done = medjax_command(*arguments, **variables)
        assert "\x1b" not in done.stdout + done.stderr
    if "NO_COLOR" in variables:
        print_table(Table(("a", "b"), [["x", 1.0]]))
        assert "\x1b" not in capsys.readouterr().out


def test_numbers_of_a_narrow_table_are_not_split(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "24")
    print_table(Table(("name", "one", "other"), [["a long name of several words", 1234.5678, 0.0123456789]]))
    text = capsys.readouterr().out
    assert "1235" in text and "0.01235" in text and "several" in text
    print_table(Table(("one", "other", "third", "fourth"), [[1234.5678, 0.0123456789, 12345678.25, -1.5e-9]]))
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("medjax pet rec", ["reconstruct"]),
        ("medjax pet reconstruct --me", ["--method"]),
        ("medjax biomarkers --lab", ["--labels"]),
        ("medjax run pet_p", ["pet_personalised_prior", "pet_pseudo_prior"]),
        ("medjax run label_", ["label_flips", "label_flips:tiny", "label_flips:small", "label_flips:paper"]),
        ("medjax run label_flips:t", ["label_flips:tiny"]),
        ("medjax new --from dem", ["demo"]),
        ("medjax pet simulate --scanner m", ["mmr", "mct"]),
        ("medjax pe", ["pet"]),
        ("medjax wrong x", []),
    ],
)
def test_completion_knows_the_tools_and_experiments(line, found):
    variables = {"_MEDJAX_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    code = "import sys; from medjax.cli import main; main(sys.argv[1:])"
    done = process(code=code, **variables)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, found, "")


def test_completion_is_offered():
    assert "--install-completion" in medjax_command("--help").stdout
    assert "_MEDJAX_COMPLETE" in process("--show-completion").stdout or "not" in process("--show-completion").stderr


@pytest.mark.parametrize(
    ("file", "text", "frames", "message"),
    [
        ("configs/toy.py", "import nowhere_to_be_found", "line 1, in <module>", "ModuleNotFoundError: No module named"),
        ("configs/toy.py", "def f():\n    1 / 0\nf()", "line 2, in f", "ZeroDivisionError: division by zero"),
        ("configs/toy.py", "def get_config(preset):\n    1 / 0", "in get_config", "ZeroDivisionError: division"),
        ("configs/toy.py", "x = (", "x = (", "SyntaxError: '(' was never closed"),
        ("experiments/toy.py", "import helpers.absent", "line 1, in <module>", "ModuleNotFoundError"),
        ("experiments/toy.py", "from experiments.other import f", "other.py", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_file_shows_its_own_frames_and_one_line(root, file, text, frames, message):
    (root / "experiments" / "other.py").write_text("1 / 0")
    (root / file).write_text(text)
    done = medjax_command("run", "toy:tiny", "--workdir=out")
    *above, last = done.stderr.splitlines()
    assert done.exit_code == 2
    assert last.startswith(f"medjax: {root / file}: {message}")
    assert frames in "\n".join(above)
    for inner in ("typer", "click", "importlib", "medjax/cli", "medjax/running"):
        assert inner not in done.stderr.replace(str(root), "")
    assert not (root / "out").exists()


def test_presets_that_a_config_lacks_are_one_line(root):
    config = (
        "from ml_collections import ConfigDict\nPRESETS = ('a', 'b')\ndef get_config(p): return ConfigDict(dict(x=1))"
    )
    (root / "configs" / "toy.py").write_text(config)
    done = medjax_command("run", "toy")
    assert (done.exit_code, done.stderr) == (2, f"medjax: {root}/configs/toy.py has no preset 'small'; expected a, b\n")
    config = "def get_config(preset):\n    return {'a': 1, 'b': 2}[preset]"
    (root / "configs" / "toy.py").write_text(config)
    done = medjax_command("run", "toy")
    message = f"get_config in {root}/configs/toy.py has no preset 'small'; "
    assert (done.exit_code, done.stderr[: len(message) + 8]) == (2, f"medjax: {message}")
    assert done.stderr.count("\n") == 1
    (root / "configs" / "toy.py").write_text(f"PRESETS = 3\n{config}")
    done = medjax_command("run", "toy")
    assert done.stderr == f"medjax: PRESETS in {root}/configs/toy.py is 3; expected a tuple of names\n"


def test_a_bug_of_an_experiment_shows_no_frames_of_the_command_line(root):
    (root / "experiments" / "toy.py").write_text("def run(config, work):\n    return 1 / 0")
    done = process("run", "toy:tiny", f"--experiments={root}")
    assert done.returncode == 1
    assert "return 1 / 0" in done.stderr and done.stderr.endswith("ZeroDivisionError: division by zero\n")
    for inner in ("typer", "medjax/cli", "runpy"):
        assert inner not in done.stderr


def test_alarms_of_xla_are_off_unless_the_user_sets_them():
    name = "TF_CPP_MIN_LOG_LEVEL"
    code = f"import os, medjax.cli\ntry: medjax.cli.main(['--version'])\nfinally: print(os.environ['{name}'])"
    environment = {known: value for known, value in os.environ.items() if known != name}
    for given, expected in (({}, "3"), ({name: "0"}, "0")):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment | given, capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[-1] == expected


def test_a_folder_as_counts_is_called_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan.npz").mkdir()
    for counts in (".", "scan.npz"):
        done = medjax_command("pet", "reconstruct", counts, "-o", "image.nii.gz")
        assert done.exit_code == 2 and done.stderr.startswith(f"medjax: {counts}: is a folder; expected counts")


def test_one_of_a_thing_is_in_the_singular():
    """What reports and commands say of numbers that a user chooses."""
    root = Path(__file__).parents[1]
    files = [*(root / "experiments").rglob("*.py"), *(root / "medjax" / "cli").glob("*.py")]
    plural = re.compile(r"\{[^{}]*\} (seeds|cohorts|cases|networks|points|lesions|structures|samples)\\b")
    found = [
        f"{file.name}: {line.strip()}"
        for file in files
        for line in file.read_text().splitlines()
        if plural.search(line) and not re.search(r"Error\(|pluralize|expected|of \{[^{}]*\} samples|len\(", line)
    ]
    assert not found, found
