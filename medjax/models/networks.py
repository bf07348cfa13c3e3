"""The networks that come with medjax by their names, and each made again from settings that a file holds.

build("unet", {"classes": 4, "widths": [8, 16, 32]})      the Model unet(4, (8, 16, 32))
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_origin

from medjax.errors import ConfigError
from medjax.models.model import Model
from medjax.models.plain_unet import plain_unet
from medjax.models.residual import residual_cnn
from medjax.models.score_unet import score_unet
from medjax.models.unet import unet

NETWORKS: Mapping[str, Callable[..., Model]] = {
    "unet": unet,
    "plain_unet": plain_unet,
    "score_unet": score_unet,
    "residual_cnn": residual_cnn,
}


def build(name: str, settings: Mapping[str, Any]) -> Model:
    """The network `name` with these settings, as JSON gives them: lists become tuples.

    Settings are the arguments of the network's function, without those that are functions themselves (norm, act, …).

    Raises:
        ConfigError: no such network or setting, one that is missing, or one of another type.
    """
    if name not in NETWORKS:
        raise ConfigError(f"network: {name!r}; {_expected(name, NETWORKS)}")
    parameters = inspect.signature(NETWORKS[name]).parameters
    known = {key: one for key, one in parameters.items() if not callable(one.default) or one.default is one.empty}
    values = dict[str, Any]()
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"network {name}: no setting {key!r}; {_expected(key, known)}")
        kind = known[key].annotation
        values[key] = float(value) if kind is float and isinstance(value, int) else _hashable(value)
        if not isinstance(values[key], get_origin(kind) or kind):
            raise ConfigError(f"network {name}: {key} {value!r}; expected {getattr(kind, '__name__', kind)}")
    missing = [key for key, one in known.items() if one.default is one.empty and key not in values]
    if missing:
        raise ConfigError(f"network {name}: no {', '.join(missing)}; expected a value")
    return NETWORKS[name](**values)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _expected(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"
