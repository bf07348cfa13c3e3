"""Built-in networks by name, and their reconstruction from the settings in a file.

build("unet", {"classes": 4, "widths": [8, 16, 32]})      the Model unet(4, (8, 16, 32))
settings_of("unet", {"classes": 4, "patch": 64})          {"classes": 4, "widths": (16, …), "deep": False, …}, to keep
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from medjax.errors import ConfigError
from medjax.models.model import Model
from medjax.models.plain_unet import plain_unet
from medjax.models.registration_unet import registration_unet
from medjax.models.residual import residual_cnn
from medjax.models.resnet import resnet
from medjax.models.saved_settings import LARGEST, layers, parse_setting, short_repr
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

MAX_VALUES = 64  # values of a list
MAX_LAYERS = 512


def build(name: str, settings: Mapping[str, Any]) -> Model:
    """Network `name` with these settings, as read from JSON: lists become tuples.

    Settings are the arguments of the network's function, without those that are functions themselves (norm, act, …).

    Raises:
        ConfigError: no such network or setting, one that is missing, of another type, or out of range (whole numbers
            up to `LARGEST`).
    """
    known = _settings_known(name)
    values = dict[str, Any]()
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"network {name}: no setting {short_repr(key)}; {_expected(key, known)}")
        try:
            values[key] = parse_setting(value, known[key].annotation)
        except ConfigError as error:
            raise ConfigError(f"network {name}: {key} {error}") from error
        if limit := _limit(key, values[key]):
            raise ConfigError(f"network {name}: {key} {short_repr(value)}; expected {limit}")
    missing = [key for key, one in known.items() if one.default is one.empty and key not in values]
    if missing:
        raise ConfigError(f"network {name}: no {', '.join(missing)}; expected a value")
    if (least := layers(values)) > MAX_LAYERS:
        raise ConfigError(f"network {name}: {least:,} layers or more; expected {MAX_LAYERS} at most")
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


def _limit(key: str, value: Any) -> str | None:
    """Expected range of this setting, if its value is outside."""
    if key == "dropout":
        return None if 0 <= value < 1 else "0 or more, less than 1"
    if isinstance(value, tuple):
        if not value and key != "attention":
            return "one value or more"
        if len(value) > MAX_VALUES:
            return f"{MAX_VALUES} values at most"
        return next((limit for limit in (_limit(key, one) for one in value) if limit), None)
    lowest = 0 if key == "attention" else 1  # levels are counted from 0
    if not isinstance(value, int) or isinstance(value, bool) or lowest <= value <= LARGEST:
        return None
    return f"{lowest} or more" if value < lowest else f"{LARGEST} or less"


def _expected(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"
