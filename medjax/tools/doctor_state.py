"""State of an installation, as `medjax doctor` reads it: packages, JAX's devices, memory, cache, weights, experiments.

JAX is asked in a process of its own, and not imported here: one that does not start, aborts, hangs or takes all of an
accelerator harms no other.

    state = read_state()
    state.jax.devices, state.cache.folder, state.extras["data"]
"""

import errno
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import medjax
from medjax import defaults
from medjax.errors import ConfigError, MedjaxError, one_line
from medjax.memory import available_memory, check_address_space
from medjax.running.checkout import (
    ExperimentEntry,
    bundled_root,
    find_experiments,
    in_installed_package,
    list_experiments,
)
from medjax.running.compilation_cache import cache_folder
from medjax.tools.doctor_packages import Package, extra_packages, extras_of, read_requirements, required_packages

PROBE = """
import json, jax
devices = [(d.platform, d.device_kind, (d.memory_stats() or {}).get("bytes_limit")) for d in jax.local_devices()]
print(json.dumps([devices, bool(jax.config.jax_enable_x64)]), flush=True)
from medjax.diffusion.prior_file import load_prior
def error_of(name):
    try:
        load_prior(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
print(json.dumps({name: error_of(name) for name in NAMES}), flush=True)
"""
SECONDS = 180  # that JAX may take to start: some accelerators wait for another process
VARIABLES = ("JAX_PLATFORMS", "JAX_ENABLE_X64", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
HIDING = "CUDA_VISIBLE_DEVICES"  # hides all GPUs where it is set and empty
GOOGLE = "0x1ae0"  # vendor of TPUs on the PCI bus

Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Device(NamedTuple):
    """A device that JAX sees."""

    platform: str
    kind: str
    memory_bytes: int | None  # that JAX may take; None: the machine's, or not known


class JaxState(NamedTuple):
    """What JAX says when it starts."""

    devices: list[Device]
    x64: bool
    error: str  # why it does not start; empty: it does
    remark: str  # last line on stderr where it started, such as that of a plugin that fails


class CacheState(NamedTuple):
    """The compilation cache on disk."""

    folder: str
    programs: int
    bytes: int
    error: str  # why it cannot be written; empty: it can


class ExperimentsState(NamedTuple):
    """Experiments that came with medjax, and those of the current folder."""

    checkout: bool  # whether medjax runs from a checkout, not from an installed package
    bundled: list[str]
    current: list[str]  # those that `medjax run` takes from the current folder
    broken: dict[str, str]  # what is wrong, by name


@dataclass(frozen=True)
class State:
    """State of an installation."""

    medjax: str
    system: str
    packages: list[Package]  # Python and what medjax requires, and what these do
    extras: dict[str, list[Package]]
    jax: JaxState
    cores: int
    memory_bytes: float  # free
    gpus: list[str]  # NVIDIA GPUs that the system sees
    driver: str  # of NVIDIA; empty: none, or not known
    tpus: int
    cache: CacheState
    weights: dict[str, str]  # why each shipped prior cannot be loaded; empty: it can
    experiments: ExperimentsState
    variables: dict[str, str]  # of the environment, that JAX listens to
    encoding: str  # of the terminal


def read_state(run: Run = subprocess.run, root: Path = Path("/")) -> State:
    """State of this installation, of the environment variables and of the machine below `root`."""
    requirements = read_requirements()
    gpus, driver = nvidia_gpus(run, root)
    jax, weights = start_jax(run)
    return State(
        medjax.__version__,
        f"{platform.system()} {platform.machine()}",
        required_packages(requirements),
        {extra: extra_packages(requirements, extra) for extra in extras_of(requirements)},
        jax,
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        available_memory(),
        gpus,
        driver,
        google_devices(root),
        read_cache(),
        weights,
        read_experiments(),
        {
            name: os.environ[name]
            for name in VARIABLES
            if os.environ.get(name) or (name == HIDING and name in os.environ)
        },
        getattr(sys.stdout, "encoding", None) or "",
    )


def start_jax(run: Run = subprocess.run) -> tuple[JaxState, dict[str, str]]:
    """Devices that JAX sees, and why each shipped prior cannot be loaded, of a process that takes little of a GPU."""
    names = list(defaults.PRIORS)
    try:
        check_address_space()
    except ConfigError as error:
        return JaxState([], False, str(error), ""), {}
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "1"}
    folder = Path(medjax.__file__).resolve().parent.parent
    if folder.name not in ("site-packages", "dist-packages"):  # a checkout, of which the other process may not know
        environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-c", f"NAMES = {names!r}{PROBE}"]  # -P: no file of the current folder is imported
    try:
        done = run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return JaxState([], False, f"no answer within {SECONDS} s", ""), {}
    lines, words = done.stdout.splitlines(), last_words(done.stderr)
    if not lines:
        return JaxState([], False, words or f"its process ended with {done.returncode}", ""), {}
    devices, x64 = json.loads(lines[0])
    weights = json.loads(lines[1]) if len(lines) > 1 else dict.fromkeys(names, words or "its process ended")
    return JaxState([Device(*one) for one in devices], x64, "", words if len(lines) > 1 else ""), weights


def last_words(stderr: str) -> str:
    """Last line of an error that is one, in a line: of a traceback the error, of an abort its message."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    fatal = [line.partition("] ")[2] for line in lines if line[:1] == "F" and line[1:5].isdigit()]
    return (fatal or lines or [""])[-1][:300]


def nvidia_gpus(run: Run = subprocess.run, root: Path = Path("/")) -> tuple[list[str], str]:
    """Names of the NVIDIA GPUs that the driver knows, and its version: of nvidia-smi, else of /proc/driver/nvidia."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = run(command, capture_output=True, text=True, timeout=30)
        rows = (
            [line.rpartition(",") for line in done.stdout.splitlines() if "," in line] if done.returncode == 0 else []
        )
    except (OSError, subprocess.TimeoutExpired):
        rows = list[tuple[str, str, str]]()
    if rows:
        return [name.strip() for name, _, _ in rows], rows[0][2].strip()
    folder = root / "proc" / "driver" / "nvidia"
    try:
        texts = [file.read_text() for file in sorted(folder.glob("gpus/*/information"))]
        words = (folder / "version").read_text().split() if texts else []
    except OSError:
        return [], ""
    named = [line.partition(":")[2].strip() for text in texts for line in text.splitlines() if line.startswith("Model")]
    return named, next((word for word in words if word[:1].isdigit() and "." in word), "")


def google_devices(root: Path = Path("/")) -> int:
    """Number of Google's devices on the PCI bus, which are TPUs."""
    count = 0
    for file in (root / "sys" / "bus" / "pci" / "devices").glob("*/vendor"):
        try:
            count += file.read_text().strip() == GOOGLE and (file.parent / "class").read_text()[:4] != "0x02"  # network
        except OSError:
            continue
    return count


def read_cache(environment: Mapping[str, str] | None = None) -> CacheState:
    """The compilation cache: JAX's own where JAX_COMPILATION_CACHE_DIR names one, else medjax's."""
    named = (os.environ if environment is None else environment).get("JAX_COMPILATION_CACHE_DIR", "")
    if "://" in named:  # a bucket
        return CacheState(named, 0, 0, "")
    try:
        folder = Path(named) if named else cache_folder()
    except RuntimeError as error:
        return CacheState("", 0, 0, f"no home directory ({error})")
    try:
        _check_writable(folder)
        sizes = [(file.name, file.stat().st_size) for file in folder.rglob("*") if file.is_file()]
    except OSError as error:
        return CacheState(str(folder), 0, 0, one_line(error))
    return CacheState(str(folder), sum(name.endswith("-cache") for name, _ in sizes), sum(n for _, n in sizes), "")


def _check_writable(folder: Path) -> None:
    """Raise an OSError where a folder, or the nearest one above that exists, cannot be written to; nothing is left."""
    existing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a file", str(existing))
    with tempfile.TemporaryFile(dir=existing):
        pass


def read_experiments() -> ExperimentsState:
    """Experiments that came with medjax and those of the current folder; none of their files is run."""
    root = bundled_root()
    own = list_experiments(root) if root else []
    try:
        here = [entry for folder, entry in find_experiments() if folder != root]
    except MedjaxError:
        here = list[ExperimentEntry]()
    broken = {entry.name: entry.state for entry in (*own, *here) if entry.state not in ("ready", "planned")}
    checkout = root is not None and not in_installed_package(root)
    return ExperimentsState(checkout, [one.name for one in own], [one.name for one in here], broken)
