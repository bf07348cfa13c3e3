"""The number of a sweep's runs is planned before any is made."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medjax import cli

CONFIG = """
from ml_collections import ConfigDict

def get_config(preset):
    return ConfigDict(dict(seed=0, steps=3))
"""


@pytest.fixture
def root(make_checkout) -> Path:
    return make_checkout(CONFIG, '"""A toy."""\ndef run(config, work): ...\n')


def command(*arguments: str):
    return CliRunner().invoke(cli.app, ["sweep", *arguments], prog_name="medjax")


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (["seed=0..100000000"], "--over seed=0..100000000: 100,000,001 runs; expected 10,000 or fewer"),
        (["seed=0..200", "steps=1..200"], "40,200 runs; expected 10,000 or fewer"),
        ([f"seed=0..1{'0' * 20}"], "over 10^15 runs"),
        ([f"seed=0..1{'0' * 5000}"], "has 5,004 digits"),
        (["seed=5..4"], "expected values, or FIRST..LAST with FIRST ≤ LAST"),
    ],
)
def test_the_number_of_runs_is_planned_before_any_is_made(root, over, message):
    done = command("toy:tiny", *(f"--over={one}" for one in over))
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr and len(done.stderr) < 300
    assert not (root / "runs").exists()


def test_a_large_sweep_runs_its_config_once(root):
    (root / "configs" / "toy.py").write_text(f"print('configured')\n{CONFIG}")
    done = command("toy:tiny", "--over", "seed=0..199", "--slurm", "--workdir", "many")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("configured") <= 3
