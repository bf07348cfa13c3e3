"""Reconstruction methods of the PET experiments, over many scans, and the grids of their hyper-parameters.

    reconstruct(key, scan, **hyperparameters) → Reconstruction(image, projector_calls)          of one scan, traced

Hyper-parameters are traced, one value a case, so that tuning is one compilation. Methods with a `default` are not
tuned: every count level has that value, and the grid shows what half and twice of it do.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree

from experiments.pet import conventional, samplers
from experiments.pet.samplers import SlicePrior
from experiments.pet.scans import Draws, Reconstruction, Scans, ScanSetup, case_keys, scan_of
from medjax.running.chunks import map_in_chunks

# (key, cases, hyperparameters) → Reconstruction of all cases; hyper-parameters have one value a case
Reconstructor = Callable[..., Any]
HyperparameterGrid = dict[str, tuple[float, ...]]

MEAN_SUFFIX = "_mean"  # ends the name of a method whose samples are averaged
PERPENDICULAR_SUFFIX = "_perpendicular"  # of a sampler that slices a volume along all three axes in turn
AROUND = (0.5, 1.0, 2.0)  # multiples of a default
BETAS = (2.0, 4.0, 8.0, 16.0, 32.0)
WEIGHTS = (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)
# Each method's name in tables, and the values of its hyper-parameters to tune over, in factors of 2. The sensitivity to
# the first one is reported. Those in DEFAULTS are not tuned.
METHODS: dict[str, tuple[str, HyperparameterGrid]] = {
    "osem": ("OSEM", {"iterations": (1.0, 2.0, 4.0, 8.0), "filter_mm": (0.0, 3.0, 5.0, 7.0)}),
    "map_em": ("MAP-EM, quadratic", {"beta": (0.5, 1.0, *BETAS), "iterations": (4.0, 10.0), "filter_mm": (0.0, 4.0)}),
    "mr_map_em": (
        "MAP-EM, MR-guided",
        {"beta": (*BETAS, 64.0, 128.0), "iterations": (4.0, 10.0), "filter_mm": (0.0, 4.0)},
    ),
    "patch_map_em": ("MAP-EM, patches", {"beta": (*BETAS, 64.0, 128.0), "delta": (0.03, 0.1, 0.3)}),
    "bsrem": ("BSREM, RDP", {"beta": (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128), "filter_mm": (0.0, 4.0)}),
    "supervised": ("U-Net behind MLEM and OSEM", {}),
    "unrolled": ("unrolled EM", {}),
    "naive": ("PET-Naive", {"weight": WEIGHTS}),
    "dps": ("PET-DPS", {"weight": WEIGHTS}),
    "dds": ("PET-DDS", {"proximal_weight": (0.0156, 0.0312, 0.0625, 0.125, 0.25), "updates": (1.0, 2.0, 4.0)}),
    "dds_delta": ("PET-DDS-δ", {"delta": (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0)}),
    "likelihood_schedule": ("likelihood schedule", {"iterations": (5.0, 10.0, 20.0, 40.0, 80.0)}),
    "likelihood_schedule_fit": ("likelihood schedule, discrepancy principle", {"multiple": (0.25, 0.5, 1.0, 2.0)}),
    "likelihood_schedule_cg": ("likelihood schedule, solved step", {"multiple": AROUND}),
    "dds_cg": ("DDS, solved step", {"variance": AROUND}),
    "split_gibbs": ("split Gibbs", {"rho": AROUND}),
}
DEFAULTS = {"likelihood_schedule_cg": {"multiple": 1.0}, "dds_cg": {"variance": 1.0}, "split_gibbs": {"rho": 1.0}}
PERPENDICULAR = ("dds", "dds_delta", "likelihood_schedule", "likelihood_schedule_cg", "dds_cg", "split_gibbs")
METHODS |= {
    name + PERPENDICULAR_SUFFIX: (f"{METHODS[name][0]}, perpendicular", METHODS[name][1]) for name in PERPENDICULAR
}
DEFAULTS |= {name + PERPENDICULAR_SUFFIX: DEFAULTS[name] for name in PERPENDICULAR if name in DEFAULTS}


class Method(NamedTuple):
    """A reconstruction method of many cases, and the grid of hyper-parameter values it is tuned over."""

    name: str
    run: Reconstructor
    grid: HyperparameterGrid
    default: dict[str, float] | None = None  # hyper-parameters of a method that is not tuned


def title(name: str) -> str:
    """Name of a method in tables."""
    return f"{METHODS[name.removesuffix(MEAN_SUFFIX)][0]}{', mean of samples' if name.endswith(MEAN_SUFFIX) else ''}"


def methods(
    setup: ScanSetup, prior: SlicePrior, size: int, drawing: Mapping[str, Callable[..., Draws]]
) -> dict[str, Reconstructor]:
    """Every reconstruction method that is not supervised, by name; `size` cases at once.

    That of split Gibbs is the mean of its samples, as `samplings` draws them. Of oblique planes, which are of a volume,
    samplers take perpendicular slices too.
    """
    single = conventional.METHODS | samplers.methods(prior)
    if setup.michelogram is not None:
        single |= _perpendicular(samplers.methods(prior._replace(mode="alternated")))
    out = {name: batch_cases(setup, one, size) for name, one in single.items()}
    discrepancy = batch_cases(setup, partial(samplers.discrepancy_iterations, prior=prior), size)
    out["likelihood_schedule_fit"] = partial(_discrepancy_schedule, discrepancy, out["likelihood_schedule"])
    out |= {name: mean_of(draw) for name, draw in drawing.items() if name.startswith("split_gibbs")}
    return out | {"dps": samplers.looped_dps(setup, prior, size)}


def samplings(setup: ScanSetup, prior: SlicePrior, size: int, samples: int) -> dict[str, Callable[..., Draws]]:
    """Methods that draw so many `samples` of each case, by name."""
    out = {name: draw_samples(batch_cases(setup, one, size), samples) for name, one in samplers.methods(prior).items()}
    gibbs = batch_cases(setup, partial(samplers.split_gibbs, prior=prior, samples=samples), max(size // 2, 1))
    out |= {"dps": draw_samples(samplers.looped_dps(setup, prior, size), samples), "split_gibbs": gibbs}
    if setup.michelogram is None or prior.mode != "transverse":
        return out
    return out | _perpendicular(samplings(setup, prior._replace(mode="alternated"), size, samples))


def _perpendicular(named: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Those of the methods that perpendicular slices are for, by their names."""
    return {name + PERPENDICULAR_SUFFIX: named[name] for name in PERPENDICULAR if name in named}


def batch_cases(setup: ScanSetup, reconstruct: Callable[..., Any], size: int) -> Reconstructor:
    """Reconstruct cases by `reconstruct(key, scan, **hyperparameters)`, `size` at a time; shared `params`."""

    @jax.jit
    def chunk(params: PyTree, keys: Array, cases: Scans, hyperparameters: dict[str, Array]) -> Any:
        shared: dict[str, PyTree] = {} if params is None else {"params": params}
        return jax.vmap(lambda key, case, own: reconstruct(key, scan_of(setup, case), **own, **shared))(
            keys, cases, hyperparameters
        )

    def run(key: Array, cases: Scans, hyperparameters: Mapping[str, Any], params: PyTree = None) -> Any:
        own = {name: np.asarray(values, np.float32) for name, values in hyperparameters.items()}
        return map_in_chunks(partial(chunk, params), size)(case_keys(key, cases), cases, own)

    return run


def draw_samples(run: Reconstructor, samples: int) -> Callable[..., Draws]:
    """Several independent runs of a method on every case."""

    def draw(key: Array, cases: Scans, hyperparameters: Mapping[str, Any]) -> Draws:
        own = {name: np.repeat(values, samples) for name, values in hyperparameters.items()}
        made = run(key, cases.repeat(samples), own)
        images, calls = (array.reshape(cases.number, samples, *array.shape[1:]) for array in made)
        return Draws(images, images.mean(axis=1), calls.sum(axis=1), calls.mean(axis=1))

    return draw


def mean_of(draw: Callable[..., Draws]) -> Reconstructor:
    """Reconstruction by the mean of the samples that a method draws at once."""
    return lambda key, cases, hyperparameters: draw(key, cases, hyperparameters).mean()


def _discrepancy_schedule(
    discrepancy: Reconstructor,
    schedule: Reconstructor,
    key: Array,
    cases: Scans,
    hyperparameters: Mapping[str, Any],
) -> Reconstruction:
    """The likelihood schedule in units of the iterate of MLEM that fits as well as the truth is expected to."""
    fit = discrepancy(key, cases, {})
    iterations = np.clip(hyperparameters["multiple"] * fit, 1, samplers.MAX_ITERATIONS)
    made = schedule(key, cases, {"iterations": iterations})
    return made._replace(projector_calls=made.projector_calls + 2 * np.maximum(fit - iterations, 0))
