"""Layout of a population on devices: how many devices, and how many members each of them trains at a time."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from medjax.errors import ConfigError

STRATEGIES = ("loop", "vmap", "shard")


class DeviceLayout(NamedTuple):
    """Number of devices, and number of members that each of them trains at a time (`width`)."""

    devices: int
    width: int


def device_layout(
    members: int, strategy: str | None = None, width: int | None = None, bytes_per_member: int | None = None
) -> DeviceLayout:
    """Device layout of a population, for `strategy` and `width` or else the backend's default.

    The default width of an accelerator is what its memory holds of `bytes_per_member` each, where both are known.

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
        return DeviceLayout(1, 1)
    devices = min(devices, members) if chosen == "shard" else 1
    members_per_device = -(-members // devices)
    if width is None:
        width = 1 if cpu and chosen == "shard" else _members_in_memory(bytes_per_member) or members_per_device
    return DeviceLayout(devices, min(width, members_per_device))


def _members_in_memory(bytes_per_member: int | None) -> int | None:
    """Number of members that fit into four fifths of a device's memory, at least one; None where it is not known."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit") if bytes_per_member else None
    return None if limit is None or not bytes_per_member else max(int(0.8 * limit) // bytes_per_member, 1)


def member_groups(
    members: int, strategy: str | None = None, width: int | None = None, bytes_per_member: int | None = None
) -> list[Int[np.ndarray, " member"]]:
    """Groups of members that train in parallel, `devices` × `width` each; the last may be smaller."""
    if not members:
        return []
    chosen = device_layout(members, strategy, width, bytes_per_member)
    size = chosen.devices * chosen.width
    return [np.arange(first, min(first + size, members)) for first in range(0, members, size)]
