"""Configs: presets, overrides and their types, messages with the nearest name, and a stable hash."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from medjax.errors import ConfigError
from medjax.running.config import config_hash, flatten, load_config, presets

CONFIG = """
from ml_collections import ConfigDict

def get_config(preset):
    steps = {"tiny": 2, "small": 20, "paper": 200}[preset]
    return ConfigDict(dict(
        steps=steps, rate=0.5, name="unet", loud=False, levels=(0.25, 0.5), shape=((1, 2), (3, 4)), empty=(),
        optimizer=dict(learning_rate=1e-3, warmup=5),
    ))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("root") / "configs" / "toy.py"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def variant(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "configs" / "variant.py"
    path.parent.mkdir()
    path.write_text(f"from ml_collections import ConfigDict\n{text}\n")
    return path


def test_each_preset_is_its_own_config(file):
    assert [load_config(file, preset).steps for preset in ("tiny", "small", "paper")] == [2, 20, 200]


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("steps=7", "steps", 7),
        ("rate=1", "rate", 1.0),
        ("rate=1e-3", "rate", 1e-3),
        ("name=a b=c", "name", "a b=c"),
        ("name=3", "name", "3"),
        ("name=", "name", ""),
        ("loud=true", "loud", True),
        ("loud=0", "loud", False),
        ("levels=(1, 0.5, 2)", "levels", (1.0, 0.5, 2.0)),
        ("levels=0.75", "levels", (0.75,)),
        ("levels=()", "levels", ()),
        ("shape=((5, 6),)", "shape", ((5, 6),)),
        ("empty=1,2", "empty", (1, 2)),
        ("optimizer.warmup=0", "optimizer.warmup", 0),
    ],
)
def test_an_override_changes_one_value_and_keeps_its_type(file, override, key, value):
    before, after = flatten(load_config(file, "tiny")), flatten(load_config(file, "tiny", [override]))
    assert after == before | {key: value}
    assert type(after[key]) is type(value)
    if isinstance(value, tuple):
        assert [type(element) for element in after[key]] == [type(element) for element in value]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=3", "did you mean 'steps'"),
        ("optimizer.learningrate=3", "did you mean 'optimizer.learning_rate'"),
        ("warmup=3", "--config.warmup is unknown"),
        ("steps.more=3", "--config.steps.more is unknown"),
        ("keys=3", "--config.keys is unknown"),
        ("=3", "is unknown"),
        ("optimizer=3", "is a section; set its values one by one: optimizer.learning_rate, optimizer.warmup"),
        ("steps", "has no value; write --config.steps=2"),
        ("steps=1.5", "--config.steps=1.5 is no int; expected one such as 2"),
        ("steps=many", "is no int"),
        ("rate=fast", "is no float; expected one such as 0.5"),
        ("loud=perhaps", "is no bool"),
        ("levels=(0.1, 'x')", "is no tuple; expected one such as (0.25, 0.5)"),
        ("levels=(0.1, (0.2,))", "is no tuple"),
        ("levels=0.1 0.2", "is no tuple"),
        ("shape=(1, 2)", "is no tuple"),
        ("levels=(True,)", "is no tuple"),
        ("rate=nan", "rate in the command line is nan; expected a finite number"),
        ("levels=(1e999,)", "levels in the command line is inf"),
        ("empty=(None,)", "empty in the command line is NoneType"),
    ],
)
def test_a_mistaken_override_is_one_line_that_says_what_is_expected(file, override, message):
    with pytest.raises(ConfigError) as error:
        load_config(file, "tiny", [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_override_given_twice_is_refused(file):
    with pytest.raises(ConfigError, match="given 2 times"):
        load_config(file, "tiny", ["steps=1", "rate=1", "steps=2"])


def test_an_unknown_preset_suggests_the_nearest(file):
    with pytest.raises(
        ConfigError, match=r"no preset 'smal'; expected tiny, small, paper \(.*PRESETS.*\); did you mean 'small'\?"
    ):
        load_config(file, "smal")


def test_a_config_may_name_presets_of_its_own(tmp_path):
    file = variant(tmp_path, "PRESETS = ('tiny', 'night')\ndef get_config(preset): return ConfigDict(dict(a=preset))")
    assert presets(file) == ("tiny", "night")
    assert load_config(file, "night").a == "night"
    with pytest.raises(ConfigError, match="expected tiny, night"):
        load_config(file, "small")


@pytest.mark.parametrize("value", ["None", "[1, 2]", "(1, None)", "len", "{1}"])
def test_only_numbers_strings_booleans_and_tuples(tmp_path, value):
    file = variant(tmp_path, f"def get_config(preset): return ConfigDict(dict(a=dict(b={value})))")
    with pytest.raises(ConfigError, match=r"a\.b in .*variant\.py is .*only numbers, strings, booleans, tuples"):
        load_config(file, "tiny")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no get_config"),
        ("def get_config(preset): return {}", "returns dict; expected a ConfigDict"),
    ],
)
def test_a_file_that_is_no_config_says_so(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(variant(tmp_path, text), "tiny")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file .*absent\.py"):
        load_config(tmp_path / "absent.py", "tiny")


def test_a_loaded_config_cannot_be_changed(file):
    config = load_config(file, "tiny")
    with pytest.raises(AttributeError):
        config.optimizer.warmup = 6
    assert dict(**config.optimizer) == {"learning_rate": 1e-3, "warmup": 5}


def test_the_hash_is_known_and_says_what_the_values_are(file):
    assert (
        config_hash({"a": 1, "b": {"c": (0.5, "x")}}) == "1650c49b"
    )  # sha256 of its JSON; changing it would orphan everyone's runs
    hashes = [config_hash(load_config(file, "tiny", given)) for given in ([], ["rate=0.5"], ["rate=0.25"], ["loud=1"])]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
KEYS = st.from_regex(r"[a-z]{1,4}", fullmatch=True).filter(lambda key: not hasattr(ConfigDict(), key))


@given(st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=3), max_size=5), st.randoms())
def test_the_hash_ignores_the_order_of_keys(config: dict, chance: random.Random):
    keys = list(config)
    chance.shuffle(keys)
    assert config_hash({key: config[key] for key in keys}) == config_hash(config)
