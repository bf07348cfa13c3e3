"""Posterior sampling in `medjax pet reconstruct`: samples with a prior given the counts, their mean and SD."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax import defaults
from medjax.diffusion import reconstruct
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.prior import Prior, slice_denoiser, volume_denoiser
from medjax.diffusion.prior_file import load_prior
from medjax.diffusion.score_matching import normalize_intensity
from medjax.errors import ConfigError, DataError
from medjax.pet.acquisition import Acquisition
from medjax.pet.grid import Grid
from medjax.running.part_identity import as_part
from medjax.running.parts import Part
from medjax.running.progress import track
from medjax.tools.checks import reraise_as_config_error

SAMPLERS = {"dds": "update", "likelihood-schedule": "iteration"}  # method → what its iterations are
MR_WEIGHT = 0.25  # weight of classifier-free guidance: the smallest of Singh et al., MELBA 2024:001
PROXIMAL_WEIGHT = 0.06  # proximal weight of DDS, in units of mean sensitivity / intensity scale
MAX_VOXEL_DIFFERENCE = 0.3  # relative difference of the voxel size from the prior's


class SamplingOptions(NamedTuple):
    """Options of posterior sampling: the prior, steps, samples and seed."""

    prior: Any = None  # file of the prior (None: medjax's brain prior), or a denoiser of slices, a Part or not
    steps: int = defaults.PET_SAMPLING_STEPS  # number of steps of the sampler
    samples: int = 1  # number of samples
    seed: int = 0  # random seed
    perpendicular: bool = False  # slices of all three orientations in turn; else transverse only
    network: Any = None  # network of the prior's file, if it is not medjax's


def prepare_prior(options: SamplingOptions, grid: Grid, *, mr_guided: bool = False) -> Prior | Part:
    """Load the prior and check that it fits the voxels: that of a file, or a denoiser of slices as a Part.

    Raises:
        ConfigError: the voxels differ from the prior's, it was trained without MR and there is one, perpendicular
        slices are
            impossible, or there is a network without a prior's file.
        DataError, FileNotFoundError: there is no such prior.
    """
    x, y, z = grid.voxel_mm
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
    own = prior.settings.voxel_mm
    if any(abs(side - own) > MAX_VOXEL_DIFFERENCE * own for side in (x, y)):
        raise ConfigError(f"voxels of {x:.3g} mm; the prior has {own:g} mm: --voxel-mm {own:g}")
    if mr_guided and not prior.settings.mr_guided:
        raise ConfigError("--mr: the prior was trained without MR; expected one of `medjax pet train-prior --mr DIR`")
    if options.perpendicular and set(prior.settings.orientations) != {0, 1, 2}:
        raise ConfigError("--perpendicular: the prior was not trained on all three orientations")
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

    Args:
        method: sampling method, one of `SAMPLERS`.
        acquisition: the counts.
        denoiser: denoiser of volumes (batch, x, y, plane) of mean emission 1, as of `denoiser_for_grid`.
        initial_image: first image of MLEM.
        iterations: MLEM iteration whose likelihood is the target of a likelihood schedule; or DDS updates a step.
        options: steps, samples and seed.

    Raises:
        ConfigError: the denoiser is not one.
        DataError: the counts are background only, or an image is not finite.
    """
    arguments = (as_denoiser(denoiser), initial_image, jnp.asarray(iterations), options.steps)
    max_iterations = max(reconstruct.MAX_ITERATIONS, iterations)
    problem, guided = _prepare(method, acquisition, *arguments, max_iterations)
    if not float(problem.scale) > 0:
        raise DataError("the counts are explained by the background alone; expected some activity")
    images: list[np.ndarray] = []
    for number in track(options.samples, method):
        key = jax.random.fold_in(jax.random.key(options.seed), number)
        images.append(np.asarray(_one(key, problem, guided, reconstruct.SamplerSettings(options.steps)).image))
        if not np.isfinite(images[-1]).all():
            raise DataError(f"{method}: sample {number + 1} is not finite; nothing is written")
    return np.mean(images, axis=0), np.std(images, axis=0, ddof=min(1, len(images) - 1))


# What is compiled serves every call of a session with as many steps and a denoiser of this kind.
_one = jax.jit(reconstruct.sample, static_argnames="settings")


@partial(jax.jit, static_argnames=("method", "steps", "max_iterations"))
def _prepare(
    method: str,
    acquisition: Acquisition,
    denoiser: Any,
    initial_image: Array,
    iterations: Array,
    steps: int,
    max_iterations: int,
) -> tuple[reconstruct.InverseProblem, reconstruct.SamplingMethod]:
    problem = reconstruct.inverse_problem(acquisition, denoiser, initial_image, acquisition.sensitivity)
    if method == "dds":
        return problem, reconstruct.dds(problem, PROXIMAL_WEIGHT, iterations)
    return problem, reconstruct.likelihood_schedule(
        problem, iterations.astype(float), steps, max_iterations=max_iterations
    )
