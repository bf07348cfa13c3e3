"""Networks from a user: checked before anything is trained with them."""

from typing import Any

from medjax.errors import ConfigError, type_and_message
from medjax.models.model import Network
from medjax.running.part_identity import as_part
from medjax.running.parts import Part


def network_part(network: Any, argument: Any, option: str = "--network") -> Part:
    """Part whose value is a network: `network` itself, or `network(argument)` if it is a function or a class.

    `network` is a Part of the command line, or an object from a notebook; `option` is its name in messages.

    Raises:
        ConfigError: it is neither, it raises, or the network cannot be hashed.
    """
    value = network.value if isinstance(network, Part) else network
    name = network.name if isinstance(network, Part) else getattr(value, "__name__", type(value).__name__)
    try:
        if isinstance(value, type) or not isinstance(value, Network):
            value = value(argument)
        hash(value)
    except Exception as error:  # whatever a user's function raises
        raise ConfigError(
            f"{option} {name}: {type_and_message(error)}; expected a Model, or a function that gives one"
        ) from error
    if not isinstance(value, Network):
        raise ConfigError(f"{option} {name} gives a {type(value).__name__}; expected a Model")
    return network._replace(value=value) if isinstance(network, Part) else as_part(value)
