"""Rules of a config's values, checked before anything is written: `RULES` of a config file, key → rule.

    RULES = {
        "seed": SEED,
        "seeds": count(1, 1000),
        "training.rate": POSITIVE,
        "methods": subset("erm", "group_dro"),
        "data.ages": elements(interval(20.0, 40.0), 2, 2),
    }

A rule is what is expected, in words, and a test of one value. A config file may also have `check(config)`, which raises
a ConfigError where values do not fit one another.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from medjax.errors import ConfigError


class Rule(NamedTuple):
    """Rule of a value: what is expected, in words, and whether a value is that."""

    expected: str
    valid: Callable[[Any], bool]


def minimum(low: int | float) -> Rule:
    """Rule: a number not below `low`."""
    return Rule(f"{low:g} or more", lambda value: value >= low)


def count(low: int, high: int) -> Rule:
    """Rule: a number of things, from `low` to `high`, beyond which no run would end or fit into memory."""
    return Rule(f"{low} to {high:,}", lambda value: low <= value <= high)


def interval(low: int | float, high: int | float) -> Rule:
    """Rule: a number from `low` to `high`, both included."""
    return Rule(f"{low:.10g} to {high:.10g}", lambda value: low <= value <= high)


def choice(*names: str) -> Rule:
    """Rule: one of these texts."""
    shown = [name or repr(name) for name in names]
    return Rule(f"one of {', '.join(shown)}", lambda value: value in names)


def elements(rule: Rule, min_length: int = 1, max_length: int | float = math.inf) -> Rule:
    """Rule: a tuple of `min_length` to `max_length` values, each by a `rule`."""
    number = (
        f"{min_length}" if min_length == max_length else f"{min_length} or more" if max_length == math.inf else "a few"
    )
    return Rule(
        f"{number} values, each {rule.expected}",
        lambda value: min_length <= len(value) <= max_length and all(rule.valid(one) for one in value),
    )


def subset(*names: str, min_length: int = 1) -> Rule:
    """Rule: a tuple of at least `min_length` of these texts, each once."""
    return Rule(
        f"{min_length} or more of {', '.join(names)}, each once",
        lambda value: min_length <= len(value) == len(set(value)) and set(value) <= {*names},
    )


def distinct(rule: Rule) -> Rule:
    """Rule: a tuple by a `rule`, no value twice."""
    return Rule(f"{rule.expected}, none twice", lambda value: rule.valid(value) and len(set(value)) == len(value))


ANY = Rule("anything of that type", lambda value: True)
POSITIVE = Rule("a number above 0, to 1e+06", lambda value: 0 < value <= 1e6)
NOT_NEGATIVE = interval(0, 1e6)
RATE = Rule(
    "a learning rate above 0, to 1e+38", lambda value: 0 < value <= 1e38
)  # its training tells if it is too large
FRACTION = interval(0, 1)
SEED = interval(0, 2**32 - 1)  # JAX takes the lower 32 bits: larger seeds, and negative ones, would be another's
INPUT_PATH = Rule("a file or folder that exists, or ''", lambda value: not value or Path(value).exists())
STRATEGY = choice("", "loop", "vmap", "shard")  # of a population; "": the backend's best


def check_rules(config: ConfigDict, flat: Mapping[str, Any], module: Any, where: str) -> None:
    """Check a config by `RULES` and `check` of its file's `module`, where it has them.

    Args:
        config: the config, as `check` takes it.
        flat: the same, dotted key → value.
        module: module of the config file.
        where: file name for messages.

    Raises:
        ConfigError: a value breaks its rule, a key has none, or there is a rule for no key.
    """
    rules: Mapping[str, Rule] | None = getattr(module, "RULES", None)
    if rules is not None:
        if odd := sorted(rules.keys() ^ flat.keys()):
            lacks = "has no rule" if odd[0] in flat else "is no key of the config"
            raise ConfigError(f"RULES in {where}: {odd[0]} {lacks}; expected one for every key")
        for key, value in flat.items():
            if not rules[key].valid(value):
                raise ConfigError(f"--config.{key}={value}; expected {rules[key].expected}")
    if hasattr(module, "check"):
        module.check(config)
