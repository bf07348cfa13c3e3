"""Rules of config values: what breaks one is refused before anything is written, in every experiment's config."""

from pathlib import Path

import pytest

from medjax.errors import ConfigError
from medjax.pet import scanner
from medjax.running.config import flatten, load_config, presets
from medjax.running.experiment import run_experiment
from medjax.running.modules import load_module

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(
    file.stem
    for file in (ROOT / "configs").glob("*.py")
    if file.stem != "__init__" and (ROOT / "experiments" / file.name).is_file()
)
FLIPS, ECHO = "label_flips", "echo_label_errors"
BROKEN = [
    *((name, f"seed={seed}", "expected 0 to ") for name in EXPERIMENTS for seed in (-1, 2**32)),
    (FLIPS, "seeds=0", "expected 1 to 1"),
    (FLIPS, "training.batch=0", "expected 1 to 1"),
    (FLIPS, "scenes.kind=zz", "expected one of lobes, digits"),
    (FLIPS, "data.layout=zz", "expected one of scenes, "),
    (FLIPS, "model.widths=()", "expected 1 or more values, each 1 to 4,096"),
    (FLIPS, "methods=('erm', 'erm')", "each once"),
    (FLIPS, "correlations=(0.5, 1.5)", "each 0 to 1"),
    (FLIPS, "correlations=(0.5, 0.9, 0.5)", "none twice"),
    (FLIPS, "training.rate=-1e-3", "expected a learning rate above 0"),
    (FLIPS, "figures.correlation=0.3", "expected one of correlations"),
    ("pet_conditional_sampling", "sampling.prior=nowhere.npz", "expected the name of a prior"),
    ("pet_conditional_sampling", "sampling.t_min=0.9", "expected below t_max"),
    ("pet_likelihood_schedule", "population.strategy=zz", "expected one of '', loop"),
    ("demo", "osem.iterations=0", "expected 1 to 1,000,000"),
    (FLIPS, "seeds=100000000", "expected 1 to 1,000"),
    (FLIPS, "model.widths=(1000000,)", "each 1 to 4,096"),
    ("demo", "scan.scanner=zz", "expected one of ring_2d"),
    ("fetal_lung_maturity", "training.epochs=-5", "expected 1 to 1,000,000"),
    ("fetal_lung_maturity", "data.shape=(20, 20)", "expected 3 values"),
]  # fmt: skip


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_preset_keeps_its_rules(name):
    file = ROOT / "configs" / f"{name}.py"
    for preset in presets(file):
        load_config(file, preset)  # refuses a key without a rule, too


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_number_of_things_is_without_bounds(name):
    """A typing error of some zeros is refused, and none of its zero, before anything is made."""
    file = ROOT / "configs" / f"{name}.py"
    rules = load_module(file, f"configs.{name}").RULES
    for key, value in flatten(load_config(file, "small")).items():
        elements = value if isinstance(value, tuple) else (value,)
        if key.endswith("seed") or not elements or not all(type(one) is int for one in elements):
            continue
        for wrong in (10**9, -1):
            given = (wrong,) * len(value) if isinstance(value, tuple) else wrong
            assert not rules[key].valid(given), f"{key}={given}"


@pytest.mark.parametrize(("name", "override", "message"), BROKEN)
def test_a_value_that_breaks_its_rule_is_refused_before_anything_is_written(name, override, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as error:
        run_experiment(name, "tiny", [override], tmp_path / "work", ROOT)
    assert override.split("=")[0] in str(error.value)
    assert not (tmp_path / "work").exists()


def test_scanners_of_the_configs_are_those_there_are():
    assert (*scanner.PRESETS,) == load_module(ROOT / "configs" / "pet_common.py", "configs.pet_common").SCANNERS


def test_a_key_without_a_rule_and_a_rule_without_a_key_are_said(tmp_path):
    file = tmp_path / "toy.py"
    text = (
        "from ml_collections import ConfigDict\nfrom medjax.running.config_rules import *\n"
        "def get_config(preset):\n    return ConfigDict({{'a': 1, 'b': 2}})\nRULES = {{{}}}\n"
    )
    for rules, message in (("'a': minimum(1)", "b has no rule"), ("**{k: minimum(1) for k in 'abc'}", "c is no key")):
        file.write_text(text.format(rules))
        with pytest.raises(ConfigError, match=message):
            load_config(file, "tiny")
