"""What is wrong with an installation, and what to do about it: `medjax doctor`.

state = read_state()
for line in problems(state): print(line)          nothing where all is well
summary(state)                                    [("devices", "cpu: cpu"), …]
"""

from collections import Counter
from dataclasses import asdict
from typing import Any

from medjax.errors import pluralize
from medjax.tools.doctor_packages import Package
from medjax.tools.doctor_state import State, read_state

MIN_MEMORY = 2.0  # GiB, with which the smallest experiments do
CUDA13_DRIVER, CUDA12_DRIVER = 580, 525  # NVIDIA's oldest drivers for them (JAX's installation page)
PLUGINS = {"cuda12": "jax-cuda12-plugin", "cuda13": "jax-cuda13-plugin"}
GIB = 2**30


def diagnosis() -> dict[str, Any]:
    """State of this installation and its `problems`, as JSON takes it."""
    state = read_state()
    plain = asdict(state) | {
        "packages": [one._asdict() for one in state.packages],
        "extras": {extra: [one._asdict() for one in ones] for extra, ones in state.extras.items()},
        "jax": state.jax._asdict() | {"devices": [one._asdict() for one in state.jax.devices]},
        "cache": state.cache._asdict(),
        "experiments": state.experiments._asdict(),
        "memory_bytes": None if state.memory_bytes == float("inf") else state.memory_bytes,
    }
    return {**plain, "summary": dict(summary(state)), "problems": problems(state)}


def problems(state: State) -> list[str]:
    """Problems of an installation, each a line that says what to do; empty: nothing is wrong."""
    return [
        *package_problems(state),
        *jax_problems(state),
        *accelerator_problems(state),
        *folder_problems(state),
        *terminal_problems(state),
    ]


def package_problems(state: State) -> list[str]:
    """Packages that are missing, or of a version that medjax, or a package that it requires, does not take."""
    out = list[str]()
    if not state.packages:
        out.append("medjax is not installed, so that its requirements are not known: pip install .")
    extras = [one for ones in state.extras.values() for one in ones if one.version]  # absent ones are optional
    for one in dict.fromkeys((*state.packages, *extras)):
        wanted = f'"{one.name}{one.required}"'
        if not one.version:
            out.append(f"{one.name} is not installed, which {one.by} needs: pip install {wanted}")
        elif not fits(one):
            needs = f"{one.by} needs {one.name}{one.required}, but {one.version} is here"
            both = '"jax" "jaxlib"' if {one.name, one.by} == {"jax", "jaxlib"} else wanted
            out.append(
                f"{needs}: " + ("use such a Python" if one.name == "Python" else f"pip install --upgrade {both}")
            )
    return out


def fits(package: Package) -> bool:
    """Whether the version of a package is one of those required."""
    from packaging.specifiers import SpecifierSet

    version = package.version.removesuffix("+")  # which Python has where it was built from its sources
    return SpecifierSet(package.required).contains(version, prereleases=True)


def jax_problems(state: State) -> list[str]:
    """JAX that does not start, or computes in float64; little memory; weights that cannot be loaded."""
    out, platforms, error = list[str](), state.variables.get("JAX_PLATFORMS", ""), state.jax.error
    if error:
        remedy = 'pip install --force-reinstall "jax" "jaxlib", if their versions are right'
        remedy = "unset XLA_FLAGS, or correct it" if "XLA_FLAGS" in error else remedy
        remedy = (
            f"unset JAX_PLATFORMS={platforms}, or install that platform" if platforms not in ("", "cpu") else remedy
        )
        remedy = "raise the limit" if "ulimit" in error else remedy
        out.append(f"JAX does not start ({error}): {remedy}")
    if state.jax.x64:
        out.append("JAX computes in float64, slower and with other roundings than the results: unset JAX_ENABLE_X64")
    if state.memory_bytes < MIN_MEMORY * GIB:
        free = f"{state.memory_bytes / GIB:.1f} GiB of memory are free"
        out.append(f"{free}, commands need {MIN_MEMORY:g} or more: end other programs, or raise the limit")
    for name, error in state.weights.items():
        if error:
            out.append(f"the shipped prior {name} cannot be loaded ({error}): install medjax again")
    return out


def accelerator_problems(state: State) -> list[str]:
    """Accelerators that the system has and JAX does not see."""
    if state.jax.error or state.variables.get("JAX_PLATFORMS"):  # which names what is wanted
        return []
    seen = {one.platform for one in state.jax.devices}
    have = {extra: _installed(state, extra) for extra in PLUGINS}
    out = list[str]()
    if all(have.values()):
        names = " and ".join(PLUGINS.values())
        out.append(f"{names} are both installed, of which JAX takes one: pip uninstall one of them")
    if state.gpus and not seen & {"gpu", "cuda"}:
        out.append(_gpu_problem(state, have))
    if state.tpus and "tpu" not in seen:
        out.append(f'{pluralize(state.tpus, "TPU chip")}, of which JAX sees none: pip install "jax[tpu]"')
    return out


def _gpu_problem(state: State, have: dict[str, str]) -> str:
    """An NVIDIA GPU that JAX does not see: no plugin, one that the driver is too old for, or one that fails."""
    driver = int(state.driver.split(".")[0]) if state.driver.split(".")[0].isdigit() else CUDA13_DRIVER
    extra = "cuda13" if driver >= CUDA13_DRIVER else "cuda12"
    what = f"{state.gpus[0]} (driver {state.driver or 'not known'}), which JAX does not see"
    hidden = state.variables.get("CUDA_VISIBLE_DEVICES")
    if driver < CUDA12_DRIVER:
        return f"{what}: update the driver to {CUDA12_DRIVER} or newer, of which CUDA 12 is"
    if not any(have.values()):
        return f'{what}: pip install "jax[{extra}]"'
    if have["cuda13"] and extra == "cuda12":
        remedy = f'pip uninstall {PLUGINS["cuda13"]}, pip install "jax[cuda12]"'
        return f"{what}, for CUDA 13 needs driver {CUDA13_DRIVER}: {remedy}"
    if hidden is not None:
        return f"{what}, with CUDA_VISIBLE_DEVICES={hidden}: unset it"
    words = f" ({state.jax.remark})" if state.jax.remark else ""
    other = " and unset LD_LIBRARY_PATH, which may bring another CUDA" if "LD_LIBRARY_PATH" in state.variables else ""
    name = next(extra for extra, version in have.items() if version)
    return f'{what} though {PLUGINS[name]} is installed{words}: pip install --upgrade "jax[{name}]"{other}'


def _installed(state: State, extra: str) -> str:
    """Version of an extra's plugin; empty: it is not installed."""
    return next((one.version for one in state.extras.get(extra, []) if one.name == PLUGINS[extra]), "")


def folder_problems(state: State) -> list[str]:
    """A cache that cannot be written, and experiments that cannot be run."""
    out = list[str]()
    if state.cache.error:
        folder = state.cache.folder or "compilation cache"
        out.append(
            f"{folder}: {state.cache.error}; every command compiles anew: set XDG_CACHE_HOME to a folder of yours"
        )
    if not state.experiments.bundled:
        out.append("the papers' experiments are missing: install medjax again")
    out += [f"experiment {name}: {what}: correct configs/{name}.py" for name, what in state.experiments.broken.items()]
    return out


def terminal_problems(state: State) -> list[str]:
    """A terminal that is not UTF-8."""
    if state.encoding.lower().replace("-", "") in ("utf8", ""):
        return []
    return [f"the terminal's encoding is {state.encoding}, in which symbols such as σ are spelt: set LC_ALL=C.UTF-8"]


def summary(state: State) -> list[tuple[str, str]]:
    """What is there, in rows of a name and a text."""
    versions = {one.name: one.version for one in state.packages if one.by == "medjax" or one.name == "jaxlib"}
    own = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items() if name not in ("Python",))
    free = "not known" if state.memory_bytes == float("inf") else f"{state.memory_bytes / GIB:.1f} GiB"
    cache, kept = state.cache, state.experiments
    extras = {extra: ones for extra, ones in state.extras.items() if extra != "cuda"}  # another name of cuda13
    loaded = [name for name, error in state.weights.items() if not error]
    rows = [
        ("medjax", f"{state.medjax}, {'checkout' if kept.checkout else 'installed package'}"),
        ("Python", f"{versions.get('Python') or 'not known'}, {state.system}"),
        ("packages", own or "not known"),
        *((f"extra {extra}", _extra_text(extra, ones)) for extra, ones in extras.items()),
        ("devices", _devices_text(state)),
        ("processor", f"{pluralize(state.cores, 'core')}, {free} of memory free"),
        ("cache", f"{cache.folder or 'none'}: {pluralize(cache.programs, 'program')}, {cache.bytes / 2**20:.1f} MiB"),
        ("shipped priors", ", ".join(loaded) or "none"),
        ("experiments", ", ".join(kept.bundled) or "none"),
    ]
    rows += [("of this folder", ", ".join(kept.current))] if kept.current else []
    return rows + [(name, value) for name, value in state.variables.items()]


def _extra_text(extra: str, packages: list[Package]) -> str:
    plugin = (PLUGINS | {"tpu": "libtpu"}).get(extra)  # without which what else is there belongs to other packages
    if plugin in [one.name for one in packages if not one.version]:
        return "not installed, optional"
    there = ", ".join(f"{one.name} {one.version}" for one in packages if one.version)
    missing = ", ".join(one.name for one in packages if not one.version)
    if not there:
        return "not installed, optional"
    return f"not complete: {missing} missing; {there}" if missing else there


def _devices_text(state: State) -> str:
    """Devices by platform and kind, with their number and memory."""
    texts = Counter(
        (one.kind if one.kind.startswith(one.platform) else f"{one.platform} {one.kind}")
        + (f", {one.memory_bytes / GIB:.1f} GiB" if one.memory_bytes else "")
        for one in state.jax.devices
    )
    seen = "; ".join(f"{number} × {text}" for text, number in texts.items()) or "none, JAX does not start"
    unseen = [f"{len(state.gpus)} × {state.gpus[0]}, driver {state.driver or 'not known'}"] if state.gpus else []
    unseen += [pluralize(state.tpus, "TPU chip")] if state.tpus else []
    return f"{seen} (the system has {', '.join(unseen)})" if unseen else seen
