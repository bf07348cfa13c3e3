"""A comparison of reconstructions: tune on validation scans, reconstruct test scans, for each count level by itself.

    [inputs] = study_inputs([config], [work], denoiser)
    study = run_study(config, inputs, METHODS, supervised)

Every stage is kept in the work directory, so that an interrupted run resumes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.pet.methods import DEFAULTS, MEAN_SUFFIX, METHODS, Method, Reconstructor, methods, samplings
from experiments.pet.oblique import SUBSETS, fine_tuned_prior, setup_of
from experiments.pet.samplers import SlicePrior
from experiments.pet.scans import Draws, Reconstruction, Scans, ScanSetup, Subject, measures, simulate
from experiments.pet.subjects import held_out_subjects
from medjax.diffusion import split_gibbs as gibbs
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.prior import MAX_VOXEL_DIFFERENCE, Prior, slice_denoiser
from medjax.diffusion.prior_file import load_prior
from medjax.diffusion.reconstruct import SamplerSettings
from medjax.errors import ConfigError
from medjax.running.tuning import Tuning, grid_search, thin_grid
from medjax.running.workdir import WorkDir, stage

VALIDATION_SEED, TEST_SEED = 500, 0  # first held-out heads of tuning and of the test


class StudyInputs(NamedTuple):
    """Scanner, prior and methods of a study; studies that differ in seed or rate share all but the first two."""

    work: WorkDir
    seed: int
    levels: tuple[float, ...]  # trues per mm³
    setup: ScanSetup
    prior: SlicePrior
    reconstructors: dict[str, Reconstructor]  # reconstructors of the methods that are not supervised
    samplings: dict[str, Callable[..., Draws]]  # of those that sample, several samples of every case
    batch: int  # cases reconstructed at once

    def scans(self, name: str, subjects: Callable[[], Sequence[Subject]], realizations: int) -> Scans:
        """Scans of the subjects at every count level, kept as a stage."""

        def make() -> dict[str, np.ndarray]:
            return simulate(self.setup, subjects(), self.levels, realizations, self.seed).arrays()

        return Scans(**stage(self.work, name, make))

    def reconstruct(
        self, name: str, run: Reconstructor, cases: Scans, hyperparameters: Mapping[float, Mapping[str, float]]
    ) -> Reconstruction:
        """Image and projector calls of every case with the hyper-parameters of its count level, kept as a stage."""
        return Reconstruction(**self._stage(name, run, cases, hyperparameters))

    def draw(self, name: str, method: str, cases: Scans, hyperparameters: Mapping[float, Mapping[str, float]]) -> Draws:
        """Samples of every case by a method, with the hyper-parameters of its count level, kept as a stage."""
        return Draws(**self._stage(name, self.samplings[method], cases, hyperparameters))

    def _stage(self, name: str, run: Callable[..., Any], cases: Scans, hyperparameters: Mapping) -> dict[str, Any]:
        key, levels = jax.random.key(self.seed + 1), cases.level.tolist()
        own = {
            hyperparameter: np.array([hyperparameters[level][hyperparameter] for level in levels])
            for hyperparameter in next(iter(hyperparameters.values()))
        }
        return stage(self.work, name, lambda: run(key, cases, own)._asdict())


class Study(NamedTuple):
    """Reconstructions of the test scans by every method, and how its hyper-parameters were tuned."""

    inputs: StudyInputs
    methods: dict[str, Method]
    tunings: dict[str, Tuning]
    validation: Scans
    cases: Scans
    results: dict[str, Reconstruction]  # also by means of samples
    draws: dict[str, Draws]  # of the methods that are tested by several samples
    realizations: int  # noise realisations of each test head

    def hyperparameters(self, name: str) -> dict[float, dict[str, float]]:
        """Hyper-parameters of a method at each count level: its default, or those that tuning found."""
        default = self.methods[name].default
        return dict.fromkeys(self.inputs.levels, default) if default else self.tunings[name].best


def study_inputs(configs: Sequence[ConfigDict], works: Sequence[WorkDir], denoiser: Any = None) -> list[StudyInputs]:
    """Inputs of studies that share a scanner's slice, a prior and compiled programs; the first config says which.

    A `denoiser` of slices (batch, a, b) of mean emission 1, with its `sde`, takes the place of the prior that the
    config names.

    Raises:
        ConfigError: the prior has other voxels than the slices, or the denoiser is not one.
    """
    config = configs[0]
    scan = config.scan
    shared_setup = setup_of(config)
    levels = tuple(float(np.float32(level)) for level in scan.trues_per_mm3)  # as scans keep them, and what is tuned
    if denoiser is not None:
        prior = ((as_denoiser(denoiser),) * 3, 1)
    elif "fine_tuning" in config and config.fine_tuning.steps:
        prior = _denoisers(fine_tuned_prior(config, works[0]))
    else:
        prior = _prior(config, config.sampling.prior)
    shared = (levels, shared_setup, *_with_prior(config, shared_setup, prior), config.scans_per_batch)
    return [StudyInputs(work, config.seed, *shared) for config, work in zip(configs, works, strict=True)]


def with_prior(config: ConfigDict, inputs: StudyInputs, prior: str) -> StudyInputs:
    """The same study with another prior, by its name or file.

    Raises:
        ConfigError: the prior has other voxels than the slices.
    """
    slice_prior, reconstructors, drawing = _with_prior(config, inputs.setup, _prior(config, prior))
    return inputs._replace(prior=slice_prior, reconstructors=reconstructors, samplings=drawing)


def _with_prior(config: ConfigDict, plane: ScanSetup, prior: tuple[tuple[Any, Any, Any], int]) -> tuple[Any, Any, Any]:
    """The prior with the settings of its samplers, the methods that are not supervised, and those that sample."""
    s, size = config.sampling, config.scans_per_batch
    chains = gibbs.DEFAULTS._replace(rounds=s.gibbs_rounds, reverse_steps=s.gibbs_reverse_steps)
    settings = SamplerSettings(s.steps, s.t_max, s.t_min, s.eta)
    slice_prior = SlicePrior(*prior, settings, chains, subsets=1 if plane.michelogram is None else SUBSETS)
    drawing = samplings(plane, slice_prior, size, config.test.samples)
    return slice_prior, methods(plane, slice_prior, size, drawing), drawing


def _prior(config: ConfigDict, source: str) -> tuple[tuple[Any, Any, Any], int]:
    """Denoisers of slices perpendicular to each axis, and what the sides of slices must be multiples of."""
    prior, size, voxel_mm = load_prior(source or None), config.grid.size, config.grid.voxel_mm
    multiple, own = prior.settings.multiple, prior.settings.voxel_mm
    if abs(own - voxel_mm) > MAX_VOXEL_DIFFERENCE * own or size % multiple:
        raise ConfigError(
            f"grid: {size} voxels of {voxel_mm:g} mm; expected about {own:g} mm, as the prior has, and a multiple of "
            f"{multiple} voxels"
        )
    return _denoisers(prior)


def _denoisers(prior: Prior) -> tuple[tuple[Any, Any, Any], int]:
    return (slice_denoiser(prior, 0), slice_denoiser(prior, 1), slice_denoiser(prior, 2)), prior.settings.multiple


def run_study(
    config: ConfigDict, inputs: StudyInputs, names: Sequence[str], supervised: Mapping[str, Reconstructor] | None = None
) -> Study:
    """Tune the methods of these `names`, then reconstruct the test scans with the best setting for each count level.

    Methods of `config.test.mean_of_samples` draw several samples of each test scan: the first one stands for a single
    sample, and their mean is a result of its own.
    """
    tuning, test = config.tuning, config.test
    heads = partial(held_out_subjects, inputs.setup, lesions=config.scan.lesions)
    validation = inputs.scans("validation", partial(heads, VALIDATION_SEED, tuning.heads), 1)
    cases = inputs.scans("test", partial(heads, TEST_SEED, test.heads), test.realizations)
    runs = inputs.reconstructors | dict(supervised or {})
    values = tuning.values_per_hyperparameter
    chosen = {name: Method(name, runs[name], thin_grid(METHODS[name][1], values), DEFAULTS.get(name)) for name in names}
    tuned = {name: tune(inputs, method, validation) for name, method in chosen.items()}
    study = Study(inputs, chosen, tuned, validation, cases, {}, {}, test.realizations)
    for name, method in chosen.items():
        best = study.hyperparameters(name)
        if name in test.mean_of_samples:
            study.draws[name] = inputs.draw(f"samples_{name}", name, cases, best)
            study.results[name] = study.draws[name].of_one()
        else:
            study.results[name] = inputs.reconstruct(f"test_{name}", method.run, cases, best)
    study.results.update({name + MEAN_SUFFIX: drawn.mean() for name, drawn in study.draws.items()})
    return study


def tune(inputs: StudyInputs, method: Method, cases: Scans) -> Tuning:
    """Grid search: mean NRMSE and projector calls of every setting for each count level, kept as a stage."""
    levels, key = np.unique(cases.level), jax.random.key(inputs.seed)

    def evaluate(**hyperparameters: float) -> tuple[list[float], list[float]]:
        made = method.run(key, cases, {name: np.full(cases.number, value) for name, value in hyperparameters.items()})
        errors = np.array([measures(image, cases.select(i))["nrmse"] for i, image in enumerate(made.image)])
        mine = [cases.level == level for level in levels]
        return [errors[chosen].mean() for chosen in mine], [made.projector_calls[chosen].mean() for chosen in mine]

    def make() -> dict[str, np.ndarray]:
        return grid_search(method.grid, evaluate, levels, f"tuning {method.name}")._asdict()

    return Tuning(**stage(inputs.work, f"tuned_{method.name}", make))
