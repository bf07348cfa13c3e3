"""Reconstructions of target subjects by conventional methods and by sampling with priors of volumes (paper 7).

Scans are simulated when they are reconstructed, from a key of target, count level and realisation, so that every method
sees the same counts and none is kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.pet.conventional import METHODS as CONVENTIONAL
from experiments.pet.scans import ACQUISITION_FIELDS, Reconstruction, Scan, ScanSetup, simulate_scan
from experiments.pet.targets import MEASURES, Target, leakage, measure
from medjax.bowsher import bowsher
from medjax.diffusion import reconstruct
from medjax.diffusion.prior import Prior, denoiser
from medjax.diffusion.reconstruct import SamplerSettings
from medjax.diffusion.score_matching import normalize_intensity
from medjax.penalty import neighbors
from medjax.pet import em
from medjax.pet.acquisition import Acquisition
from medjax.running.progress import track
from medjax.running.tuning import Tuning, grid_search, thin_grid
from medjax.running.workdir import WorkDir, stage

TITLES = {
    "osem": "OSEM",
    "map_em": "MAP-EM",
    "bowsher": "MAP-EM, Bowsher",
    "unguided": "score prior",
    "mr_channel": "score prior, MR channel",
    "personalised": "personalised prior",
}
PRIORS = ("unguided", "mr_channel", "personalised")
ITERATIONS = (10.0,)  # of MAP-EM with 7 subsets
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "osem": {"iterations": (1.0, 2.0, 4.0), "filter_mm": (0.0, 4.0, 7.0)},
    "map_em": {"beta": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0), "iterations": ITERATIONS, "filter_mm": (0.0,)},
    "bowsher": {"beta": (2.0, 4.0, 8.0, 16.0, 32.0, 64.0), "iterations": ITERATIONS, "filter_mm": (0.0,)},
}
SIGMA_MAX = 2.0  # noise level at which sampling starts, relative to the mean emission
PRIOR_GRID = {"variance": (1.0, 2.0, 4.0, 8.0)}  # factor on the variance of the denoised image's error: `dds_cg`
Run = Callable[..., Reconstruction]  # (key, acquisition, hyperparameters)


class Method(NamedTuple):
    """A method on the scans of a target; if it is told of the MR, the same method told the control MR instead."""

    run: Run
    control: Run | None = None


class ScanDesign(NamedTuple):
    """Scans of the targets: every level, so many noise realisations."""

    setup: ScanSetup
    levels: tuple[float, ...]  # trues per mm³
    realizations: int
    seed: int

    def scan(self, target: Target, number: int, level: float, realization: int) -> tuple[Array, Acquisition]:
        """Key and scan of one case; another target, level or realisation has another key."""
        case = (number, 1 + self.levels.index(level), realization)
        key = jax.random.key(self.seed)
        for part in case:
            key = jax.random.fold_in(key, part)
        return jax.random.fold_in(key, 1), simulate_scan(key, self.setup, target.subject, level)


def conventional_program(setup: ScanSetup) -> Callable[..., Reconstruction]:
    """One program a method: (name, Bowsher weights, key, acquisition, hyperparameters).

    The system model, which subsets are taken of, is the setup's and not traced.
    """

    @partial(jax.jit, static_argnums=0)
    def run(name: str, weights: Any, key: Array, known: dict[str, Any], own: dict[str, Any]) -> Reconstruction:
        scan = Scan(replace(setup.template, **known), setup.grid, weights)
        return CONVENTIONAL[name](key, scan, **{one: jnp.asarray(v, jnp.float32) for one, v in own.items()})

    return run


def conventional(setup: ScanSetup, program: Callable[..., Reconstruction], name: str, target: Target) -> Method:
    """A conventional method on the scans of a target."""

    def told(weights: Any, key: Array, acquisition: Acquisition, own: Mapping[str, float]) -> Reconstruction:
        known = {one: getattr(acquisition, one) for one in ACQUISITION_FIELDS}
        return program("mr_map_em" if name == "bowsher" else name, weights, key, known, dict(own))

    if name != "bowsher":
        return Method(partial(told, None))
    pairs = neighbors(setup.grid.shape, setup.grid.voxel_mm)
    weights = (bowsher(pairs, jnp.asarray(mr), 4).weights for mr in (target.mr, target.control_mr))
    return Method(*(partial(told, one) for one in weights))


def sampling(prior: Prior, channel: Any, samples: int, mode: str = "alternated") -> Run:
    """Mean of samples by DDS with solved steps; `channel`: the target's image that the network sees, or None.

    Sampling starts with much noise, where all of the early image but its coarsest features is left to the prior.
    """
    guide = None if channel is None else normalize_intensity(jnp.asarray(channel, jnp.float32))

    def run(key: Array, acquisition: Acquisition, own: Mapping[str, float]) -> Reconstruction:
        variance = jnp.asarray(own["variance"], jnp.float32)
        made = [_sample(mode, prior, guide, jax.random.fold_in(key, k), acquisition, variance) for k in range(samples)]
        return Reconstruction(
            np.mean([np.asarray(one.image) for one in made], axis=0), sum(float(one.projector_calls) for one in made)
        )

    return run


def tune(work: WorkDir, design: ScanDesign, name: str, method: Method, target: Target, values: int) -> Tuning:
    """Hyper-parameters of least NRMSE for each count level, on one scan of a validation subject; kept as a stage."""

    def make() -> dict[str, np.ndarray]:
        scans = [design.scan(target, 10_000, level, 0) for level in design.levels]

        def evaluate(**own: float) -> tuple[list[float], list[float]]:
            made = [method.run(*scan, own) for scan in scans]
            errors = [measure(np.asarray(one.image), target)["nrmse"] for one in made]
            return errors, [float(one.projector_calls) for one in made]

        grid = thin_grid(GRIDS.get(name, PRIOR_GRID), values)
        return grid_search(grid, evaluate, design.levels, f"tuning {TITLES[name]}")._asdict()

    return Tuning(**stage(work, f"tuned_{name}", make))


def evaluate(
    work: WorkDir,
    design: ScanDesign,
    name: str,
    number: int,
    target: Target,
    method: Method,
    best: Mapping[float, Mapping[str, float]],
) -> dict[str, np.ndarray]:
    """Measures (level, realisation) of a method's images of one target, and the first image of each level.

    `best` has the hyper-parameters for each count level. Kept as a stage.
    """

    def make() -> dict[str, np.ndarray]:
        rows, first = list[list[dict[str, float]]](), list[np.ndarray]()
        for level in track(list(design.levels), f"{TITLES[name]}, target {number + 1}"):
            scans = [design.scan(target, number, level, k) for k in range(design.realizations)]
            images = [np.asarray(method.run(*scan, best[level]).image) for scan in scans]
            controls = images
            if method.control is not None:
                controls = [np.asarray(method.control(*scan, best[level]).image) for scan in scans]
            rows.append([
                measure(image, target) | {"mr_lesion_leakage": leakage(image, control, target)}
                for image, control in zip(images, controls, strict=True)
            ])  # fmt: skip
            first.append(images[0].astype(np.float32))
        found = {key: np.array([[one[key] for one in row] for row in rows]) for key in MEASURES}
        return {**found, "images": np.stack(first)}

    return stage(work, f"test_{name}_{number}", make)


def sample_scan(mode: str, prior: Prior, key: Array, scan: Scan, variance: Array) -> Array:
    """Image of one sample of a scan, without a guide."""
    return _sample(mode, prior, None, key, scan.acquisition, variance).image


@partial(jax.jit, static_argnums=0)
def _sample(
    mode: str, prior: Prior, guide: Any, key: Array, acquisition: Acquisition, variance: Array
) -> reconstruct.Sample:
    start = em.init(acquisition).image
    problem = reconstruct.inverse_problem(acquisition, denoiser(prior, mode, guide), start, acquisition.sensitivity)
    return reconstruct.sample(
        key, problem, reconstruct.dds_cg(problem, variance, sigma_max=SIGMA_MAX), SamplerSettings()
    )
