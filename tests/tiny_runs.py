"""Finished runs of the tiny presets: each is made once a session, by the test and the worker that asks first."""

import json
import re
import time
from pathlib import Path

import jax
import pytest

from medjax.errors import WorkdirError
from medjax.running.experiment import TINY_NOTICE, run_experiment

ROOT = Path(__file__).parents[1]
NAMES = sorted(file.stem for file in (ROOT / "experiments").glob("*.py") if not file.stem.startswith("_"))
QUICK = (
    "brain_mri_bias",
    "cmr_precision",
    "echo_label_errors",
    "label_flips",
    "shortcut_audit",
)  # compile for longer than they run
REPEATED = ("demo",)  # populations and folds have tests of their own, to the bit; the demo samples a prior


def parameters(names: list[str]) -> list:
    """`names` as parameters of a test."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.optimized) for name in names]


def tiny_run(name: str, folder: Path) -> Path:
    """The work directory of `name`:tiny in `folder`, waited for if the other worker is making it."""
    pytest.importorskip("nilearn")
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_disable_most_optimizations", name in QUICK)
    while True:
        try:
            return run_experiment(name, "tiny", workdir=folder / name, root=ROOT)
        except WorkdirError as error:
            if "is in use by" not in str(error):
                raise
            time.sleep(1)


def check_report(page: str) -> None:
    """The report says that its numbers mean nothing, and every figure has a text that is not its caption."""
    assert len(page) > 10_000 and f'<p class="notice">{TINY_NOTICE}</p>' in page
    figures = re.findall(r'<img src="[^"]*" alt="([^"]*)"></label>(?:<figcaption>(.*?)</figcaption>)?', page)
    assert figures and len(figures) == page.count("<img ")
    assert all(len(alt) > 20 and alt.strip(".") != caption.strip(".") for alt, caption in figures)


def check_tiny_run(name: str, tiny_runs: Path, folder: Path) -> None:
    """The tiny preset runs from end to end, says something, and the same when it is run again."""
    first = tiny_run(name, tiny_runs)
    metrics = json.loads((first / "metrics.json").read_text())
    assert len(metrics) > 5 and any(value is not None for value in metrics.values())
    check_report((first / "report.html").read_text())
    assert list((first / "figures").glob("*.png"))
    if name in REPEATED:
        again = run_experiment(name, "tiny", workdir=folder / "again", root=ROOT)
        assert (first / "metrics.json").read_bytes() == (again / "metrics.json").read_bytes()
    if name == "demo":  # it shows what it says
        assert metrics["nrmse/mr_map_em"] < metrics["nrmse/osem"] < 0.5 and metrics["nrmse/map_em"] < 0.5
