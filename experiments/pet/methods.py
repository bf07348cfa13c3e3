"""A reconstruction as the PET experiments see it, over many scans, and the table of those that are not learned.

    one(key, scan, **knobs) → Reconstruction(image, projections)          of one scan, traced

Knobs are traced, one value a case, so that tuning is one compilation.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree

from experiments.pet import conventional, samplers
from experiments.pet.samplers import Sampled
from experiments.pet.scans import Reconstruction, Scans, Setup, case_keys, scan_of
from medjax.running.chunks import in_chunks

Run = Callable[..., Any]  # (key, cases, knobs) → Reconstruction of all cases; knobs have one value a case
Grid = dict[str, tuple[float, ...]]

MEAN = "_mean"  # ends the name of a method whose samples are averaged
BETA = (2.0, 4.0, 8.0, 16.0, 32.0)
WEIGHT = (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)
# What a method is called, and what is tuned over which values. The first knob is the one whose sensitivity is reported:
# in factors of 2.
KNOWN: dict[str, tuple[str, Grid]] = {
    "osem": ("OSEM", {"passes": (1.0, 2.0, 4.0, 8.0), "filter_mm": (0.0, 3.0, 5.0, 7.0)}),
    "map_em": ("MAP-EM, quadratic", {"beta": (0.5, 1.0, *BETA), "passes": (4.0, 10.0), "filter_mm": (0.0, 4.0)}),
    "mr_map_em": ("MAP-EM, MR-guided", {"beta": (*BETA, 64.0, 128.0), "passes": (4.0, 10.0), "filter_mm": (0.0, 4.0)}),
    "patch_map_em": ("MAP-EM, patches", {"beta": (*BETA, 64.0, 128.0), "delta": (0.03, 0.1, 0.3)}),
    "bsrem": ("BSREM, RDP", {"beta": (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128), "filter_mm": (0.0, 4.0)}),
    "supervised": ("U-Net behind OSEM", {}),
    "unrolled": ("unrolled EM", {}),
    "naive": ("PET-Naive", {"weight": WEIGHT}),
    "dps": ("PET-DPS", {"weight": WEIGHT}),
    "dds": ("PET-DDS", {"anchor": (0.0156, 0.0312, 0.0625, 0.125, 0.25), "updates": (1.0, 2.0, 4.0)}),
    "dds_delta": ("PET-DDS-δ", {"delta": (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0)}),
    "likelihood_schedule": ("likelihood schedule", {"iterations": (5.0, 10.0, 20.0, 40.0, 80.0)}),
    "likelihood_schedule_fit": ("likelihood schedule, to noise level", {"multiple": (0.25, 0.5, 1.0, 2.0)}),
}


class Method(NamedTuple):
    """A reconstruction of many cases, `run(key, cases, knobs)`, and the values each knob is tuned over."""

    name: str
    run: Run
    grid: Grid


def title(name: str) -> str:
    """What a method is called in tables."""
    return f"{KNOWN[name.removesuffix(MEAN)][0]}{', mean of samples' if name.endswith(MEAN) else ''}"


def methods(setup: Setup, s: Sampled, size: int) -> dict[str, Run]:
    """Every reconstruction that is not learned, by name; `size` cases at once."""
    single = conventional.METHODS | samplers.methods(s)
    out = {name: batched(setup, one, size) for name, one in single.items()}
    noise = batched(setup, partial(samplers.noise_iterations, s=s), size)
    out["likelihood_schedule_fit"] = partial(_fitted, noise, out["likelihood_schedule"])
    return out | {"dps": samplers.looped_dps(setup, s, size)}


def batched(setup: Setup, one: Callable[..., Any], size: int) -> Run:
    """`one(key, scan, **knobs)` over cases, `size` at a time in one program; `params`, if given, are one for all."""

    @jax.jit
    def chunk(params: PyTree, keys: Array, cases: Scans, knobs: dict[str, Array]) -> Any:
        given: dict[str, PyTree] = {} if params is None else {"params": params}
        return jax.vmap(lambda key, case, own: one(key, scan_of(setup, case), **own, **given))(keys, cases, knobs)

    def run(key: Array, cases: Scans, knobs: Mapping[str, Any], params: PyTree = None) -> Any:
        own = {name: np.asarray(values, np.float32) for name, values in knobs.items()}
        return in_chunks(partial(chunk, params), size)(case_keys(key, cases), cases, own)

    return run


def averaged(run: Run, samples: int) -> Run:
    """The mean of several samples instead of one."""

    def mean(key: Array, cases: Scans, knobs: Mapping[str, Any]) -> Reconstruction:
        made = run(key, cases.repeated(samples), {name: np.repeat(values, samples) for name, values in knobs.items()})
        images, projections = (array.reshape(cases.number, samples, *array.shape[1:]) for array in made)
        return Reconstruction(images.mean(axis=1), projections.sum(axis=1))

    return mean


def _fitted(noise: Run, schedule: Run, key: Array, cases: Scans, knobs: Mapping[str, Any]) -> Reconstruction:
    """The likelihood schedule in units of the iterate of MLEM that fits as well as the truth is expected to."""
    fit = noise(key, cases, {})
    iterations = np.clip(knobs["multiple"] * fit, 1, samplers.LONGEST)
    made = schedule(key, cases, {"iterations": iterations})
    return made._replace(projections=made.projections + 2 * np.maximum(fit - iterations, 0))
