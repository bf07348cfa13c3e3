"""Built-in networks by name, and their reconstruction from the settings in a file.

build("unet", {"classes": 4, "widths": [8, 16, 32]})      the Model unet(4, (8, 16, 32))
settings_of("unet", {"classes": 4, "patch": 64})          {"classes": 4, "widths": (16, …), "deep": False, …}, to keep
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args, get_origin

from medjax.errors import ConfigError
from medjax.models.model import Model
from medjax.models.plain_unet import plain_unet
from medjax.models.registration_unet import registration_unet
from medjax.models.residual import residual_cnn
from medjax.models.resnet import resnet
from medjax.models.score_unet import score_unet
from medjax.models.swin import swin
from medjax.models.unet import unet
from medjax.models.vgg import vgg

NETWORKS: Mapping[str, Callable[..., Model]] = {
    "unet": unet,
    "plain_unet": plain_unet,
    "score_unet": score_unet,
    "registration_unet": registration_unet,
    "residual_cnn": residual_cnn,
    "resnet": resnet,
    "swin": swin,
    "vgg": vgg,
}


def build(name: str, settings: Mapping[str, Any]) -> Model:
    """Network `name` with these settings, as read from JSON: lists become tuples.

    Settings are the arguments of the network's function, without those that are functions themselves (norm, act, …).

    Raises:
        ConfigError: no such network or setting, one that is missing, of another type, or out of range.
    """
    known = _settings_known(name)
    values = dict[str, Any]()
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"network {name}: no setting {key!r}; {_expected(key, known)}")
        kind = known[key].annotation
        values[key] = float(value) if kind is float and _is(value, int) else _hashable(value)
        if not _is(values[key], kind):
            raise ConfigError(f"network {name}: {key} {value!r}; expected {_type_name(kind)}")
        if limit := _limit(key, values[key]):
            raise ConfigError(f"network {name}: {key} {value!r}; expected {limit}")
    missing = [key for key, one in known.items() if one.default is one.empty and key not in values]
    if missing:
        raise ConfigError(f"network {name}: no {', '.join(missing)}; expected a value")
    return NETWORKS[name](**values)


def settings_of(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the network `name`: of each its value among `values`, which may hold others too, or its default.

    Raises:
        ConfigError: no such network.
    """
    every = {key: values.get(key, one.default) for key, one in _settings_known(name).items()}
    return {key: value for key, value in every.items() if value is not inspect.Parameter.empty}


def _settings_known(name: str) -> dict[str, inspect.Parameter]:
    if name not in NETWORKS:
        raise ConfigError(f"network: {name!r}; {_expected(name, NETWORKS)}")
    parameters = inspect.signature(NETWORKS[name]).parameters
    return {key: one for key, one in parameters.items() if not callable(one.default) or one.default is one.empty}


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _is(value: Any, kind: Any) -> bool:
    """Whether the value, lists as tuples, is of the annotated type. True is not an integer here."""
    if get_origin(kind) is None:
        return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    kinds = _kinds(kind, len(value)) if isinstance(value, tuple) else None
    return kinds is not None and len(kinds) == len(value) and all(map(_is, value, kinds))


def _kinds(kind: Any, number: int) -> tuple[Any, ...]:
    """Type of each element; `tuple[int, int, int]` fixes their number, `Sequence[int]` and `tuple[int, ...]` do not."""
    kinds = get_args(kind)
    return kinds if get_origin(kind) is tuple and kinds[-1] is not ... else kinds[:1] * number


def _type_name(kind: Any) -> str:
    if get_origin(kind) is None:
        return kind.__name__
    kinds = _kinds(kind, 1)
    return f"a list of {f'{len(kinds)} ' if len(kinds) > 1 else ''}{_type_name(kinds[0])}"


def _limit(key: str, value: Any) -> str | None:
    """Expected range of this setting, if its value is outside."""
    if key == "dropout":
        return None if 0 <= value < 1 else "0 or more, less than 1"
    if isinstance(value, tuple):
        if not value and key != "attention":
            return "one value or more"
        return next((limit for limit in (_limit(key, one) for one in value) if limit), None)
    lowest = 0 if key == "attention" else 1  # levels are counted from 0
    return f"{lowest} or more" if isinstance(value, int) and not isinstance(value, bool) and value < lowest else None


def _expected(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"
