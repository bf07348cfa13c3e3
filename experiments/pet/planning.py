"""Stages of the PET experiments for `--plan`: trainings, and reconstructions of a batch of scans by each method."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil, prod
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.pet import conventional, samplers, supervised
from experiments.pet.comparison import StudyInputs, study_inputs
from experiments.pet.conventional import MAP_EM_SUBSETS, OSEM_SUBSETS
from experiments.pet.methods import METHODS, PERPENDICULAR_SUFFIX
from experiments.pet.samplers import SlicePrior
from experiments.pet.scans import ACQUISITION_FIELDS, Scans, ScanSetup, scan_of
from medjax.diffusion import prior_training
from medjax.diffusion import reconstruct as reconstruction
from medjax.diffusion.prior import Prior
from medjax.diffusion.prior_file import example_inputs
from medjax.errors import ConfigError
from medjax.penalty import neighbors
from medjax.registration.greedy import register
from medjax.running.plan import Stage, array, training_stage
from medjax.running.tuning import thin_grid
from medjax.running.workdir import WorkDir

# Turns of the loops whose end depends on data or on a hyper-parameter: the most that its grid asks for.
SUBSETS = {"osem": OSEM_SUBSETS} | dict.fromkeys(("map_em", "mr_map_em", "bowsher"), MAP_EM_SUBSETS)
SCHEDULED = samplers.MAX_UPDATES  # at most, of EM updates in a step of the published likelihood schedule


def direct_inputs(config: ConfigDict, work: WorkDir, denoiser: Any) -> StudyInputs:
    """Inputs of a study of direct planes.

    Raises:
        ConfigError: its planes are oblique, whose system model takes minutes and much memory to make.
    """
    if config.geometry != "direct":
        raise ConfigError(f"geometry={config.geometry} cannot be planned; expected geometry=direct, or no --plan")
    return study_inputs([config], [work], denoiser)[0]


def study_stages(config: ConfigDict, inputs: StudyInputs, more: Mapping[str, int]) -> list[Stage]:
    """Reconstructions of a study by every method that is not trained: tuning, test scans, and `more` cases of each."""
    known = single_methods(inputs.prior, config.test.samples)
    levels, tuning, test = len(inputs.levels), config.tuning, config.test
    stages = []
    for name in config.methods:
        if name not in known:
            continue
        grid = thin_grid(METHODS[name][1], tuning.values_per_hyperparameter)
        samples = test.samples if name in test.mean_of_samples and name != "split_gibbs" else 1
        tuned = prod(map(len, grid.values())) * tuning.heads * levels
        cases = tuned + samples * test.heads * test.realizations * levels + more.get(name, 0)
        size = max(config.scans_per_batch // 2, 1) if name == "split_gibbs" else config.scans_per_batch
        stages.append(reconstructions(name, inputs.setup, known[name], METHODS[name][1], cases, size))
    return stages


def single_methods(prior: SlicePrior, samples: int) -> dict[str, Callable[..., Any]]:
    """Reconstruction of one scan by every method that is not trained, by name; split Gibbs draws all `samples`."""
    known: dict[str, Callable[..., Any]] = conventional.METHODS | samplers.methods(prior)
    scheduled = known["likelihood_schedule"]

    def fitted(key: Any, scan: Any, multiple: Any) -> Any:
        iterations = multiple * samplers.discrepancy_iterations(key, scan, prior)
        return scheduled(key, scan, iterations=iterations)

    def dps(key: Any, scan: Any, weight: Any) -> Any:
        problem = samplers.inverse_problem(scan.acquisition, prior)
        return reconstruction.sample(key, problem, reconstruction.dps(problem, weight), prior.settings).image

    gibbs = partial(samplers.split_gibbs, prior=prior, samples=samples)
    return known | {"likelihood_schedule_fit": fitted, "dps": dps, "split_gibbs": gibbs}


def reconstructions(
    name: str, setup: ScanSetup, reconstruct: Callable[..., Any], grid: Mapping[str, Sequence[float]], cases: int,
    size: int, title: str = "",
) -> Stage:  # fmt: skip
    """Stage of the reconstruction of `cases` scans, `size` at once, by a method of one scan."""
    one = jax.eval_shape(partial(_empty_case, setup))
    stacked = jax.tree.map(lambda leaf: array(size, *leaf.shape, dtype=leaf.dtype), (one, jax.random.key(0)))
    own = {hyperparameter: array(size) for hyperparameter in grid}

    def step(cases: Scans, keys: Any, own: dict[str, Any]) -> Any:
        return jax.vmap(lambda key, case, own: reconstruct(key, scan_of(setup, case), **own))(keys, cases, own)

    turns = int(max(grid.get("iterations", (1,)))) * SUBSETS.get(name, 1)
    if name.startswith("likelihood_schedule") and "_cg" not in name:
        turns = SCHEDULED
    if name.removesuffix(PERPENDICULAR_SUFFIX) == "dds":
        turns = int(max(grid["updates"]))
    return Stage(title or name, step, (*stacked, own), ceil(cases / size), turns)


def supervised_stages(
    inputs: StudyInputs, methods: Sequence[supervised.SupervisedMethod], rate: float, steps: Sequence[int], batch: int
) -> list[Stage]:
    """Trainings of the supervised networks."""
    setup, stages = inputs.setup, list[Stage]()
    case = jax.eval_shape(partial(_empty_case, setup))
    cases = jax.tree.map(lambda leaf: array(batch, *leaf.shape, dtype=leaf.dtype), case)
    side = setup.grid.shape[0]
    seen = (array(batch, side, side, 2), array(batch))
    for method, number in zip(methods, steps, strict=True):
        algorithm = supervised.training_algorithm(method.loss, number, {"rate": rate})
        data = ((cases, *seen) if method.counts else seen, array(batch, side, side, 1))
        init = partial(_init, method, side)
        stages.append(training_stage(f"training, {method.name}", algorithm, init, (), data, number))
    return stages


def fine_tuning(name: str, prior: Prior, side: int, batch: int, steps: int, number: int, mr: bool = False) -> Stage:
    """Stage of the fine-tuning of `number` priors on slices of `side`² voxels, with an MR channel or not."""
    settings = prior.settings._replace(mr_guided=True) if mr else prior.settings
    side = ceil(side / settings.multiple) * settings.multiple
    algorithm = prior_training.trainer(prior.model, settings, prior.sigma_data, steps)
    slices = array(batch, side, side, 2 if mr else 1), array(batch, dtype=jnp.int32)
    return training_stage(name, algorithm, prior.model.init, example_inputs(settings), slices, number * steps)


def cohort_images(setup: ScanSetup, iterations: int, number: int) -> Stage:
    """Stage of the OSEM images of the full-count scans of `number` people."""
    grid = {"iterations": (float(iterations),), "filter_mm": (0.0,)}
    return reconstructions("osem", setup, conventional.osem, grid, number, 1, "cohort's images")


def registrations(config: ConfigDict, shape: Sequence[int], number: int) -> Stage:
    """Stage of `number` deformable registrations, on the whole grid: studies register the box of the brain.

    The affine one before each is not counted.
    """
    r = config.registration
    deform = partial(register, factors=tuple(r.factors), iterations=tuple(r.iterations))
    return Stage("registration", lambda fixed, moving: deform(fixed, moving), (array(*shape),) * 2, number)


def _init(method: supervised.SupervisedMethod, side: int, key: Any) -> Any:
    return method.init(key, side)


def _empty_case(setup: ScanSetup) -> Scans:
    """One case of a setup, of zeros: for its shapes."""
    pairs, image = neighbors(setup.grid.shape, setup.grid.voxel_mm), jnp.zeros(setup.grid.shape)
    counts = jnp.zeros(setup.template.counts.shape)
    known = dict.fromkeys(ACQUISITION_FIELDS, counts) | {"sensitivity": image}
    weights = jnp.asarray(pairs.weights)  # of the same shape as Bowsher's
    masks = dict.fromkeys(("mask", "white", "lesions", "ring"), image > 0)
    return Scans(**known, bowsher_weights=weights, truth=image, level=jnp.zeros(()), **masks)
