"""A comparison of reconstructions: tune on validation scans, reconstruct test scans, for each count level by itself.

    [session] = sessions([config], [work], denoiser)
    study = run_study(config, session, METHODS, learned)

Every stage is kept in the work directory, so that a killed run goes on where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.pet.methods import KNOWN, MEAN, Method, Run, averaged, methods
from experiments.pet.samplers import Sampled
from experiments.pet.scans import Reconstruction, Scans, Setup, Subject, measures, setup, simulate
from experiments.pet.subjects import held_out
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.prior import slices
from medjax.diffusion.prior_file import load_prior
from medjax.diffusion.reconstruct import Sampling
from medjax.errors import ConfigError
from medjax.pet.scanner import preset
from medjax.running.tuning import Tuning, search, thin
from medjax.running.workdir import WorkDir, stage

VALIDATION, TESTED = 500, 0  # first held-out heads that knobs are tuned on, and that are judged


class Session(NamedTuple):
    """What a study works with. All but the first two are the same in studies that differ in seed or learning rate."""

    work: WorkDir
    seed: int
    levels: tuple[float, ...]  # trues per mm³
    setup: Setup
    sampled: Sampled
    runs: dict[str, Run]  # reconstructions that are not learned
    size: int  # cases at once

    def scans(self, name: str, subjects: Callable[[], Sequence[Subject]], realisations: int) -> Scans:
        """Scans of the subjects at every count level, kept as a stage."""

        def make() -> dict[str, np.ndarray]:
            return simulate(self.setup, subjects(), self.levels, realisations, self.seed)._asdict()

        return Scans(**stage(self.work, name, make))

    def reconstruct(
        self, name: str, run: Run, cases: Scans, knobs: Mapping[float, Mapping[str, float]]
    ) -> Reconstruction:
        """Image and projections of every case with the knobs of its count level, kept as a stage."""
        key, levels = jax.random.key(self.seed + 1), cases.level.tolist()
        own = {knob: np.array([knobs[level][knob] for level in levels]) for knob in next(iter(knobs.values()))}
        return Reconstruction(**stage(self.work, name, lambda: run(key, cases, own)._asdict()))


class Study(NamedTuple):
    """What was reconstructed of the test scans, and how the knobs were found."""

    session: Session
    methods: dict[str, Method]
    tuned: dict[str, Tuning]
    tuning_cases: int
    cases: Scans
    results: dict[str, Reconstruction]  # also of averaged samples


def sessions(configs: Sequence[ConfigDict], works: Sequence[WorkDir], denoiser: Any = None) -> list[Session]:
    """Sessions that share a scanner's slice, a prior and what is compiled for them; the first config says which.

    A `denoiser` of slices (batch, a, b) of mean emission 1, with its `sde`, takes the place of the prior that the
    config names.

    Raises:
        ConfigError: the prior has other voxels than the slices, or the denoiser is none.
    """
    scan, grid, s, size = configs[0].scan, configs[0].grid, configs[0].sampling, configs[0].chunk
    if denoiser is None:
        denoisers, multiple = _prior(Path(s.prior) if s.prior else None, grid.size, grid.voxel_mm)
    else:
        denoisers, multiple = (as_denoiser(denoiser),) * 3, 1
    sampled = Sampled(denoisers, multiple, Sampling(s.steps, s.first, s.last, s.eta))
    plane = setup(preset(scan.scanner), grid.size, grid.voxel_mm, scan.background)
    levels = tuple(float(np.float32(level)) for level in scan.trues_per_mm3)  # as scans keep them, and what is tuned
    shared = (levels, plane, sampled, methods(plane, sampled, size), size)
    return [Session(work, config.seed, *shared) for config, work in zip(configs, works, strict=True)]


def _prior(file: Path | None, size: int, voxel_mm: float) -> tuple[tuple[Any, Any, Any], int]:
    """Denoisers of slices perpendicular to each axis, and what the sides of slices must be multiples of."""
    prior = load_prior(file)
    multiple, own = prior.settings.multiple, prior.settings.voxel_mm
    if abs(own - voxel_mm) > 0.3 * voxel_mm or size % multiple:
        raise ConfigError(
            f"grid: {size} voxels of {voxel_mm:g} mm; expected about {own:g} mm, as the prior has, and a multiple of "
            f"{multiple} voxels"
        )
    return (slices(prior, 0), slices(prior, 1), slices(prior, 2)), multiple


def run_study(
    config: ConfigDict, session: Session, wanted: Sequence[str], learned: Mapping[str, Run] | None = None
) -> Study:
    """Tune the methods `wanted`, then reconstruct the test scans with the knobs found for each count level."""
    tuning, test = config.tuning, config.test
    heads = partial(held_out, session.setup, lesions=config.scan.lesions)
    validation = session.scans("validation", partial(heads, VALIDATION, tuning.heads), 1)
    cases = session.scans("test", partial(heads, TESTED, test.heads), test.realisations)
    runs = session.runs | dict(learned or {})
    chosen = {name: Method(name, runs[name], thin(KNOWN[name][1], tuning.per_knob)) for name in wanted}
    tuned = {name: tune(session, method, validation) for name, method in chosen.items()}
    jobs = {name: (name, method.run) for name, method in chosen.items()}
    jobs |= {name + MEAN: (name, averaged(runs[name], test.samples)) for name in test.averaged}
    results = {
        name: session.reconstruct(f"test_{name}", run, cases, tuned[of].best) for name, (of, run) in jobs.items()
    }
    return Study(session, chosen, tuned, validation.number, cases, results)


def tune(session: Session, method: Method, cases: Scans) -> Tuning:
    """Mean NRMSE and projector calls of every setting for each count level, kept as a stage."""
    levels, key = np.unique(cases.level), jax.random.key(session.seed)

    def evaluate(**knobs: float) -> tuple[list[float], list[float]]:
        made = method.run(key, cases, {name: np.full(cases.number, value) for name, value in knobs.items()})
        errors = np.array([measures(image, cases.where(i))["nrmse"] for i, image in enumerate(made.image)])
        mine = [cases.level == level for level in levels]
        return [errors[chosen].mean() for chosen in mine], [made.projections[chosen].mean() for chosen in mine]

    def make() -> dict[str, np.ndarray]:
        return search(method.grid, evaluate, levels, f"tuning {method.name}")._asdict()

    return Tuning(**stage(session.work, f"tuned_{method.name}", make))
