"""Memory that a computation is going to need, compared with what there is before it begins."""

import contextlib
import os
from pathlib import Path

from medjax.errors import ConfigError, DataError

JAX_ADDRESS_SPACE = 7 * 2**28  # bytes that a process needs to start JAX, with which it aborts below that
CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> float:
    """Bytes of memory that this process can still take: the least of the machine's, its container's and its limit's.

    Infinity where the system tells nothing.
    """
    known = [float("inf")]
    with contextlib.suppress(OSError, ValueError):
        pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        known.append(float(pages))
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        known[1:] = [float(lines["MemAvailable"].split()[0]) * 1024]  # free, and what caches can give back
    for limit, used in CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            known.append(float(Path(limit).read_text()) - float(Path(used).read_text()))
    with contextlib.suppress(OSError, ValueError, ImportError):
        import resource  # not on every system

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            known.append(float(limit - pages * os.sysconf("SC_PAGE_SIZE")))
    return max(min(known), 0.0)


def check_address_space() -> None:
    """Check that the limit of this process's address space (`ulimit -v`), where there is one, lets JAX start.

    Raises:
        ConfigError: it does not.
    """
    with contextlib.suppress(ImportError):
        import resource  # not on every system

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY and limit < JAX_ADDRESS_SPACE:
            raise ConfigError(
                f"the address space is limited to {_size(limit)} (ulimit -v), with which JAX cannot start; expected "
                f"{JAX_ADDRESS_SPACE / 2**30:.2f} GiB or more"
            )


def check_memory(name: str, needed: int | float, remedy: str = "expected less") -> None:
    """Check that there is memory for what is going to be computed or read.

    Args:
        name: what needs it, such as a file or an option with its value.
        needed: bytes.
        remedy: what to do where there is not, such as "use a smaller --size".

    Raises:
        DataError: there is not.
    """
    available = available_memory()
    if needed > available:
        raise DataError(f"{name}: needs {_size(needed)} of memory, {_size(available)} are free; {remedy}")


def _size(number: int | float) -> str:
    return f"{number / 2**30:,.1f} GiB" if number < 2**50 else f"{number / 2**30:.0e} GiB"
