"""A network that a user gives to a command or a function, before anything is trained with it."""

from typing import Any

from medjax.errors import ConfigError
from medjax.models.model import Network
from medjax.running.part_identity import as_part
from medjax.running.parts import Part


def network_part(given: Any, argument: Any, option: str = "--network") -> Part:
    """The Part whose value is a network: `given`, or what it gives for `argument` if it is a function or a class.

    `given` is a Part of the command line, or an object from a notebook, whose identity is that of the network.

    Raises:
        ConfigError: it is neither, it raises, or the network cannot be hashed.
    """
    value = given.value if isinstance(given, Part) else given
    name = given.name if isinstance(given, Part) else getattr(value, "__name__", type(value).__name__)
    try:
        if isinstance(value, type) or not isinstance(value, Network):
            value = value(argument)
        hash(value)
    except Exception as error:  # whatever a user's function raises
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise ConfigError(f"{option} {name}: {reason}; expected a Model, or a function that gives one") from error
    if not isinstance(value, Network):
        raise ConfigError(f"{option} {name} gives a {type(value).__name__}; expected a Model")
    return given._replace(value=value) if isinstance(given, Part) else as_part(value)
