"""Posterior sampling in `medjax pet reconstruct`: samples with a prior given the counts, their mean and SD."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from medjax import defaults
from medjax.diffusion import reconstruct, split_gibbs
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.prior import MAX_VOXEL_DIFFERENCE, Prior, check_fit, slice_denoiser, volume_denoiser
from medjax.diffusion.prior_file import load_prior
from medjax.diffusion.score_matching import normalize_intensity
from medjax.diffusion.split_gibbs import SplitGibbsSettings
from medjax.errors import ConfigError, DataError
from medjax.pet.acquisition import Acquisition
from medjax.pet.grid import Grid
from medjax.running.part_identity import as_part
from medjax.running.parts import Part
from medjax.running.progress import track
from medjax.tools.checks import reraise_as_config_error

MR_WEIGHT = 0.25  # weight of classifier-free guidance: the smallest of Singh et al., MELBA 2024:001
PROXIMAL_WEIGHT = 0.06  # proximal weight of DDS, in units of mean sensitivity / intensity scale


class Sampler(NamedTuple):
    """A sampling method: what its iterations are, and the default numbers of these and of its steps."""

    unit: str  # of the iterations
    iterations: int
    steps: int  # evaluations of the prior a sample; for split Gibbs: in each of its iterations


CG_ITERATION = "CG iteration"  # unit of samplers whose data step is solved
SAMPLERS = {
    "split-gibbs": Sampler(CG_ITERATION, split_gibbs.DEFAULTS.iterations, split_gibbs.DEFAULTS.reverse_steps),
    "dds-cg": Sampler(CG_ITERATION, 2, 8),
    "dds": Sampler("update", 4, defaults.PET_SAMPLING_STEPS),
    "likelihood-schedule": Sampler("MLEM iteration", 20, defaults.PET_SAMPLING_STEPS),
}


class SamplingOptions(NamedTuple):
    """Options of posterior sampling: the prior, steps, samples and seed."""

    prior: Any = None  # name or file of the prior (None: medjax's brain prior), or a denoiser of slices, a Part or not
    steps: int | Any = None  # number of steps of the sampler; None: the method's own
    samples: int = 1  # number of samples
    seed: int = 0  # random seed
    perpendicular: bool = False  # slices of all three orientations in turn; else transverse only
    network: Any = None  # network of the prior's file, if it is not medjax's


def prepare_prior(options: SamplingOptions, grid: Grid, *, mr_guided: bool = False, tracer: str = "") -> Prior | Part:
    """Load the prior and check that it fits the data: one by name, that of a file, or a denoiser of slices as a Part.

    Another `tracer` than the prior's is warned of.

    Raises:
        ConfigError: voxels or orientations differ from the prior's, it was trained without MR and there is one,
            perpendicular slices are impossible, or there is a network without a prior's file.
        DataError, FileNotFoundError: there is no such prior.
    """
    x, _, z = grid.voxel_mm
    if options.perpendicular and (abs(z - x) > MAX_VOXEL_DIFFERENCE * x or grid.shape[2] < 8):
        raise ConfigError(
            f"--perpendicular: {grid.shape[2]} planes of {z:.3g} mm; expected 8 or more, about as thick as voxels are "
            f"wide ({x:.3g} mm)"
        )
    if not isinstance(options.prior, Path | None):
        if options.network is not None:
            raise ConfigError("--network goes with the file of a prior; a denoiser has its own")
        part = as_part(options.prior)
        try:
            as_denoiser(part.value)  # checks it
        except ConfigError as error:
            raise ConfigError(f"--prior {part.name}: {error}") from error
        return part
    prior = load_prior(options.prior, options.network)
    check_fit(prior.settings, grid.voxel_mm, (2, 1, 0) if options.perpendicular else (2,), tracer)
    if mr_guided and not prior.settings.mr_guided:
        raise ConfigError("--mr: the prior was trained without MR; expected one of `medjax pet train-prior --mr DIR`")
    return prior


def denoiser_for_grid(
    prior: Prior | Part, grid: Grid, perpendicular: bool = False, mr: Float[Array, "x y plane"] | None = None
) -> Any:
    """Denoiser of volumes by the prior: transverse slices, or three orientations in turn; with an MR image if any.

    A denoiser of slices serves all orientations. If it has an attribute `multiple`, it gets slices whose sides are
    multiples of that; it takes slices of the MR, of mean emission 1, as a third argument.

    Raises:
        ConfigError: a denoiser fails with slices of this grid.
    """
    guide = None if mr is None else normalize_intensity(mr)
    mode = "alternated" if perpendicular else "transverse"
    if isinstance(prior, Prior):
        denoisers = [slice_denoiser(prior, axis, MR_WEIGHT) for axis in range(3)]
        return volume_denoiser(denoisers, mode, prior.settings.multiple, guide)
    denoiser = volume_denoiser([prior.value] * 3, mode, getattr(prior.value, "multiple", 1), guide)
    with reraise_as_config_error(
        f"--prior {prior.name}", "(x, t) → x0 of slices (batch, a, b), with an MR (x, t, mr) → x0"
    ):
        jax.eval_shape(denoiser, jnp.zeros((1, *grid.shape)), jnp.ones(1))
    return denoiser


def sample(
    method: str,
    acquisition: Acquisition,
    denoiser: Any,
    initial_image: Float[Array, "x y plane"],
    iterations: int,
    options: SamplingOptions,
) -> tuple[Float[np.ndarray, "x y plane"], Float[np.ndarray, "x y plane"]]:
    """Posterior samples: their mean, and their standard deviation (0 of a single one).

    Each sample of split Gibbs is the end of a chain of its own; of several the mean is that of their conditional means,
    which estimates the posterior mean with less Monte-Carlo error.

    Args:
        method: sampling method, one of `SAMPLERS`.
        acquisition: the counts.
        denoiser: denoiser of volumes (batch, x, y, plane) of mean emission 1, as of `denoiser_for_grid`.
        initial_image: first image of MLEM.
        iterations: MLEM iteration whose likelihood is the target of a likelihood schedule; DDS updates, or iterations
            of conjugate gradients, of a step.
        options: steps, samples and seed.

    Raises:
        ConfigError: the denoiser is not one.
        DataError: the counts are background only, or an image is not finite.
    """
    prior, steps = as_denoiser(denoiser), options.steps or SAMPLERS[method].steps
    problem = _problem(acquisition, prior, initial_image)
    if not float(problem.scale) > 0:
        raise DataError("the counts are explained by the background alone; expected some activity")
    draw = _sampling(method, problem, iterations, steps)
    images, means = list[np.ndarray](), list[np.ndarray]()
    for number in track(options.samples, method):
        image, mean = draw(jax.random.fold_in(jax.random.key(options.seed), number))
        images.append(np.asarray(image))
        means.append(np.asarray(mean))
        if not np.isfinite(images[-1]).all():
            raise DataError(f"{method}: sample {number + 1} is not finite; nothing is written")
    mean = images[0] if len(images) == 1 else np.mean(means, axis=0)
    return mean, np.std(images, axis=0, ddof=min(1, len(images) - 1))


def _sampling(
    method: str, problem: reconstruct.InverseProblem, iterations: int, steps: int
) -> Callable[[PRNGKeyArray], tuple[Array, Array]]:
    """Function of a key that draws a sample, and what is averaged for the mean.

    What is compiled serves every call of a session with as many steps.
    """
    if method == "split-gibbs":
        settings = split_gibbs.DEFAULTS._replace(chains=1, reverse_steps=steps, iterations=iterations)
        return lambda key: _chain(key, problem, settings)
    max_iterations = max(reconstruct.MAX_ITERATIONS, iterations)
    guided = _guided(method, problem, jnp.asarray(iterations), steps, max_iterations)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        image = _one(key, problem, guided, reconstruct.SamplerSettings(steps)).image
        return image, image

    return draw


_one = jax.jit(reconstruct.sample, static_argnames="settings")


@partial(jax.jit, static_argnames="settings")
def _chain(key: Array, problem: reconstruct.InverseProblem, settings: SplitGibbsSettings) -> tuple[Array, Array]:
    made = split_gibbs.chains(key, problem, settings)
    return made.images[0, 0], made.means[0, 0]


@jax.jit
def _problem(acquisition: Acquisition, denoiser: Any, initial_image: Array) -> reconstruct.InverseProblem:
    return reconstruct.inverse_problem(acquisition, denoiser, initial_image, acquisition.sensitivity)


@partial(jax.jit, static_argnames=("method", "steps", "max_iterations"))
def _guided(
    method: str, problem: reconstruct.InverseProblem, iterations: Array, steps: int, max_iterations: int
) -> reconstruct.SamplingMethod:
    if method == "dds":
        return reconstruct.dds(problem, PROXIMAL_WEIGHT, iterations)
    if method == "dds-cg":
        return reconstruct.dds_cg(problem, steps=steps, iterations=iterations)
    return reconstruct.likelihood_schedule(problem, iterations.astype(float), steps, max_iterations=max_iterations)
