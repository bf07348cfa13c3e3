"""Limits of config values: a number that would exhaust memory or never end is refused when the config is read."""

from pathlib import Path

import pytest

from medjax.errors import ConfigError
from medjax.running.config import flatten, load_config
from medjax.running.modules import load_module

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    file.stem
    for file in (ROOT / "configs").glob("*.py")
    if "def get_config" in file.read_text() and (ROOT / "experiments" / file.name).is_file()
)
HUGE_ALLOWED = {"seed", "data.seed"}  # of integers; of 10⁹
RATES = {
    "training.rate",
    "oblique.fine_tuning.rate",
    "resnet.rate",
    "swin.rate",
    "swag.rate",
}  # too large a one is told by its training
ZERO_ALLOWED = {  # 0 means "none", "all" or "automatic", or is an ordinary value
    "seed", "data.seed", "population.width", "volume_seeds", "posterior.draws", "registration.by_pet", "volume.head",
    "tuning.values_per_hyperparameter", "test.values_per_hyperparameter",
    "oblique.fine_tuning.steps", "oblique.scan.max_ring_difference",
}  # fmt: skip
NEGATIVE_ALLOWED = {"scan.center_mm", "boundary_mm", *(f"data.effects.{one}" for one in ("atrophy", "frontal", "size"))}
NEGATIVE_ALLOWED |= {"data.effects.darkening"}


def numbers(name: str) -> dict:
    """Numeric keys of the tiny preset with their values, and tuples of numbers."""
    flat = flatten(load_config(ROOT / "configs" / f"{name}.py", "tiny"))
    kinds = (int, float)
    return {
        key: value
        for key, value in flat.items()
        if type(value) in kinds or (isinstance(value, tuple) and value and type(value[0]) in kinds)
    }


def accepted(name: str, text_of) -> set[str]:
    """Numeric keys that take a value, alone or in every place of a tuple; `text_of` writes it as the key's type."""
    found = set()
    for key, value in numbers(name).items():
        one = text_of(value[0] if isinstance(value, tuple) else value)
        text = f"({','.join([one] * len(value))},)" if isinstance(value, tuple) else one
        try:
            load_config(ROOT / "configs" / f"{name}.py", "tiny", [f"{key}={text}"])
            found.add(key)
        except ConfigError as error:
            assert key.split(".")[0] in str(error) and "\n" not in str(error)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_no_number_is_unbounded(name):
    assert accepted(name, lambda value: str(10**9) if isinstance(value, int) else "1e9") <= HUGE_ALLOWED | RATES
    assert not accepted(name, lambda value: str(10**30) if isinstance(value, int) else "1e300")


@pytest.mark.parametrize("name", CONFIGS)
def test_zero_and_negative_numbers_are_refused_but_where_they_mean_something(name):
    integers = {key for key, value in numbers(name).items() if type(value) is int}
    assert accepted(name, lambda value: "0" if isinstance(value, int) else "0.0") & integers <= ZERO_ALLOWED
    assert accepted(name, lambda value: "-1" if isinstance(value, int) else "-1.0") <= NEGATIVE_ALLOWED


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_that_are_not_finite_are_refused(name):
    assert not accepted(name, lambda value: "nan")
    assert not accepted(name, lambda value: "inf")


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("demo", "osem.subsets=4", "expected one of 1, 2, 3, 6"),
        ("demo", "scan.planes=8", "expected an odd number, 127 or less"),
        ("brain_mri_bias", "swin.heads=(1,)", "expected one number of both a stage"),
        ("brain_mri_bias", "swin.heads=(1,5)", "of 12 channels in stage 2; expected numbers that divide them"),
        ("shortcut_audit", f"regions=('grid_{'9' * 5000}',)", "expected 1 or more values, each grid_N"),
    ],
)
def test_values_that_do_not_fit_one_another_are_refused(name, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(ROOT / "configs" / f"{name}.py", "tiny", [override])


def test_subsets_of_the_demo_are_those_that_divide_the_scanners_fans():
    from medjax.pet.grid import Grid
    from medjax.pet.scanner import PRESETS, lors
    from medjax.pet.system import build_system, possible_subsets

    views = load_module(ROOT / "configs" / "demo.py", "configs.demo").FAN_VIEWS
    for name, scanner in PRESETS.items():
        possible = possible_subsets(build_system(lors(scanner), Grid((8, 8, 1), (8.0, 8.0, 4.0))))
        assert possible == [number for number in range(1, views[name] + 1) if views[name] % number == 0]
