"""Environment of a run: versions, devices, threads, commit; no name of a machine and no path on it."""

import contextlib
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medjax.running.compilation_cache import enable_compilation_cache, heal_cache

FLAGS = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_ENABLE_X64", "OMP_NUM_THREADS", "LIBTPU_INIT_ARGS")


def describe_environment(root: Path | None = None) -> dict[str, Any]:
    """Environment that a result may depend on; with `root`, its commit and whether it has uncommitted changes."""
    import jax

    import medjax

    versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")}
    return {
        "medjax": medjax.__version__,
        "python": platform.python_version(),
        **versions,
        "platform": f"{platform.system()} {platform.machine()}",
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.local_devices()],
        "cpus": os.cpu_count(),
        "threads": _threads(),
        "x64": bool(jax.config.values["jax_enable_x64"]),
        "flags": {name: _without_paths(os.environ[name]) for name in FLAGS if name in os.environ},
        **(_commit(root) if root else {}),
    }


def environment_changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Entries of the environment `before` that differ `now`."""
    return {key: value for key, value in before.items() if key != "earlier" and value != now.get(key)}


def prepare_process() -> None:
    """Prepare the process of a long command: compilation cache on disk, freed memory kept for reuse."""
    enable_compilation_cache()
    keep_freed_memory()


@contextlib.contextmanager
def command_process() -> Iterator[None]:
    """Context of a command: `prepare_process`, and each warning as one line on stderr."""
    prepare_process()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = heal_cache(lambda message, *_, **__: print(f"medjax: {message}", file=sys.stderr))
        yield


def keep_freed_memory() -> None:
    """Let glibc reuse freed large blocks of memory instead of returning them to the kernel; elsewhere a no-op.

    XLA:CPU allocates every large result anew, and touching fresh pages costs it up to half of an EM step.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 64 * 2**20)):
            mallopt(option, value)


def peak_memory() -> dict[str, float]:
    """Peak memory of this process and, where the backend reports it, of its first device, in MiB."""
    import resource
    import sys

    import jax

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"run.peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        peak["run.peak_device_memory_mib"] = statistics["peak_bytes_in_use"]
    return {name: round(value / 2**20, 1) for name, value in peak.items()}


def _threads() -> int | None:
    """Cores this process may use: the size of XLA's thread pool on CPU."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _without_paths(text: str) -> str:
    return re.sub(r"=\S*/\S*", "=(path)", text)


def _commit(root: Path) -> dict[str, Any]:
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", "medjax", "experiments", "configs")
    return {} if commit is None else {"commit": commit, "dirty": bool(changed)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
