"""Configurations: `configs/NAME.py:preset`, overridden by `--config.a.b=value`, checked by rules, frozen and hashed."""

import difflib
import functools
import hashlib
import json
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from medjax.errors import ConfigError
from medjax.running.config_rules import check_rules
from medjax.running.modules import UserCodeError, load_module, running_user_code

PRESETS = ("tiny", "small", "paper")
Value = bool | int | float | str | tuple


def load_config(file: Path, preset: str, overrides: Sequence[str] = ()) -> FrozenConfigDict:
    """Load the config of a preset, `get_config(preset)` of `file`, with `overrides` such as "model.width=32", frozen.

    Raises:
        ConfigError: no such file, preset or key; a value of another type, or no number, string, boolean or tuple; or
            one that breaks a rule of the file (`config_rules`).
        UserCodeError: running the file raised an error.
    """
    return load_configs(file, preset, [overrides])[0]


def load_configs(file: Path, preset: str, overrides: Iterable[Sequence[str]]) -> list[FrozenConfigDict]:
    """Load the config of a preset once for each of several lists of overrides; the file is run once.

    Raises:
        ConfigError, UserCodeError: as `load_config`.
    """
    module = _module(file)
    known = _presets(module, file)
    if preset not in known:
        own = "" if hasattr(module, "PRESETS") else " (a file names its own by PRESETS = (…))"
        hint = did_you_mean(preset, known)
        raise ConfigError(f"{file} has no preset '{preset}'; expected {', '.join(known)}{own}{hint}")
    config = _get_config(module, file, preset)
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"get_config('{preset}') in {file} returns {type(config).__name__}; expected a ConfigDict")
    _check_values(config, str(file))
    return [_overridden(config, one, module, file) for one in overrides]


def presets(file: Path) -> tuple[str, ...]:
    """Presets of a config file: its own `PRESETS` if it names them, else tiny, small, paper.

    Raises:
        ConfigError: there is no such file, or it has no `get_config`.
        UserCodeError: running the file raised an error.
    """
    return _presets(_module(file), file)


def config_hash(config: Mapping | ConfigDict) -> str:
    """Hash of a configuration: eight hex digits of its resolved values, whatever the order of keys."""
    text = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def to_dict(config: Mapping | ConfigDict) -> dict:
    """Convert a configuration to nested dicts of values."""
    return {key: to_dict(value) if isinstance(value, Mapping | ConfigDict) else value for key, value in config.items()}


def flatten(config: Mapping | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration: dotted key → value, the keys as `--config.` takes them."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        section = isinstance(value, Mapping | ConfigDict)
        flat |= flatten(value, f"{prefix}{key}.") if section else {f"{prefix}{key}": value}
    return flat


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggestion for the end of a message: the known name closest to `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _module(file: Path) -> ModuleType:
    if not file.is_file():
        found = f"{file} is a folder" if file.is_dir() else f"no config file {file}"
        raise ConfigError(f"{found}; an experiment needs a file with get_config(preset)")
    module = load_module(file, f"configs.{file.stem}")
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{file} has no get_config; expected get_config(preset: str) -> ConfigDict")
    return module


def _presets(module: ModuleType, file: Path) -> tuple[str, ...]:
    named = getattr(module, "PRESETS", PRESETS)
    if not isinstance(named, tuple | list) or not all(isinstance(one, str) for one in named) or not named:
        raise ConfigError(f"PRESETS in {file} is {named!r}; expected a tuple of names")
    return tuple(named)


def _get_config(module: ModuleType, file: Path, preset: str) -> Any:
    try:
        with running_user_code(file):
            return module.get_config(preset)
    except UserCodeError as error:
        if isinstance(error.__cause__, KeyError) and error.__cause__.args == (preset,):
            hint = f"{file} names its presets by PRESETS = (…)"
            raise ConfigError(f"get_config in {file} has no preset '{preset}'; {hint}") from error
        raise


def _overridden(config: ConfigDict, overrides: Sequence[str], module: ModuleType, file: Path) -> FrozenConfigDict:
    """A checked copy of a config with overrides."""
    changed = ConfigDict(to_dict(config))
    _override(changed, overrides)
    with running_user_code(file):
        check_rules(changed, flatten(changed), module, str(file))
    return FrozenConfigDict(changed)


def _override(config: ConfigDict, overrides: Sequence[str]) -> None:
    before = flatten(config)
    keys = [_key(override, before) for override in overrides]
    for key, override in zip(keys, overrides, strict=True):
        if keys.count(key) > 1:
            raise ConfigError(f"--config.{key} is given {keys.count(key)} times; expected once")
        try:
            _parse(config, key, override, before[key])
        except (flags.Error, ValueError, TypeError, SyntaxError) as error:
            kind = type(before[key]).__name__
            raise ConfigError(f"--config.{override} is no {kind}; expected one such as {before[key]!r}") from error
    _check_values(config, "the command line")


def _parse(config: ConfigDict, key: str, override: str, before: Value) -> None:
    """Let ml_collections read one override into `config`; it knows the types, except those inside tuples.

    It is given that value alone, because it prints all that it is given, which takes long.
    """
    *sections, last = key.split(".")
    alone = ConfigDict(functools.reduce(lambda inner, name: {name: inner}, reversed(sections), {last: before}))
    arguments, values = ["medjax", f"--config.{override}"], flags.FlagValues()
    config_flags.DEFINE_config_dict("config", alone, flag_values=values, sys_argv=arguments)
    values(arguments)
    value = functools.reduce(operator.getitem, sections, alone)[last]
    value = _elements_as(before, value) if isinstance(before, tuple) else value
    functools.reduce(operator.getitem, sections, config)[last] = value


def _key(override: str, known: Mapping[str, Value]) -> str:
    key, equals, _ = override.partition("=")
    inside = [name for name in known if name.startswith(f"{key}.")]
    if inside:
        raise ConfigError(f"--config.{key} is a section; set its values one by one: {', '.join(inside)}")
    if key not in known:
        raise ConfigError(f"--config.{key} is unknown; expected a key of this config{did_you_mean(key, known)}")
    if not equals:
        raise ConfigError(f"--config.{key} has no value; write --config.{key}={known[key]}")
    return key


def _elements_as(before: tuple, after: tuple) -> tuple:
    """`after` with elements of the type that `before` has throughout; an empty or mixed `before` says nothing."""
    if len({type(element) for element in before}) != 1:
        return after
    return tuple(_element_as(before[0], element) for element in after)


def _element_as(before: Value, after: Value) -> Value:
    if isinstance(before, float) and type(after) is int:
        return float(after)
    if type(after) is not type(before):
        raise TypeError(f"{after!r} is no {type(before).__name__}")
    return _elements_as(before, after) if isinstance(before, tuple) and isinstance(after, tuple) else after


def _check_values(config: ConfigDict, where: str) -> None:
    for key, value in flatten(config).items():
        for element in _elements(value):
            if not isinstance(element, bool | int | float | str):
                kind = type(element).__name__
                raise ConfigError(f"{key} in {where} is {kind}; a config holds only numbers, strings, booleans, tuples")
            if isinstance(element, float) and not math.isfinite(element):
                raise ConfigError(f"{key} in {where} is {element}; expected a finite number")


def _elements(value: object) -> Iterator[object]:
    if isinstance(value, tuple):
        for element in value:
            yield from _elements(element)
    else:
        yield value
