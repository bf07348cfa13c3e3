"""How a population lies on devices: how many of them work, and how many members each of them has at a time."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from medjax.errors import ConfigError

STRATEGIES = ("loop", "vmap", "shard")


class Layout(NamedTuple):
    """What a strategy comes to: `devices` side by side, each with `width` members at a time."""

    devices: int
    width: int


def layout(
    members: int, strategy: str | None = None, width: int | None = None, bytes_a_member: int | None = None
) -> Layout:
    """Devices and members a device at a time, for `strategy` and `width` or else the backend's default.

    The default width of an accelerator is what its memory holds of `bytes_a_member` each, where both are known.

    Raises:
        ConfigError: there is no such strategy, or the width is below 1, or above 1 for `loop`.
    """
    devices, cpu = len(jax.local_devices()), jax.default_backend() == "cpu"
    chosen = strategy or ("shard" if devices > 1 else "loop" if cpu and not width else "vmap")
    if chosen not in STRATEGIES:
        raise ConfigError(f"strategy {chosen!r} of a population; expected {', '.join(STRATEGIES)}")
    if width is not None and (width < 1 or (chosen == "loop" and width > 1)):
        raise ConfigError(
            f"width {width} of a population by {chosen}; expected {1 if chosen == 'loop' else '1 or more'}"
        )
    if chosen == "loop":
        return Layout(1, 1)
    devices = min(devices, members) if chosen == "shard" else 1
    most = -(-members // devices)
    if width is None:
        width = 1 if cpu and chosen == "shard" else _held(bytes_a_member) or most
    return Layout(devices, min(width, most))


def _held(bytes_a_member: int | None) -> int | None:
    """How many members fit into four fifths of a device's memory; at least one. None where it is not known."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit") if bytes_a_member else None
    return None if limit is None or not bytes_a_member else max(int(0.8 * limit) // bytes_a_member, 1)


def parts(
    members: int, strategy: str | None = None, width: int | None = None, bytes_a_member: int | None = None
) -> list[Int[np.ndarray, " member"]]:
    """Which members are trained side by side: `devices` × `width` of them, see `layout`; last what is left."""
    if not members:
        return []
    chosen = layout(members, strategy, width, bytes_a_member)
    size = chosen.devices * chosen.width
    return [np.arange(first, min(first + size, members)) for first in range(0, members, size)]
