"""The samplers of `medjax pet reconstruct`: images drawn from a prior given the counts; their mean and deviation."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax import iterate
from medjax.diffusion import guidance, likelihood_schedule, sampler
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.prior import Prior, denoiser
from medjax.diffusion.prior_file import load_prior
from medjax.diffusion.score_matching import intensity_scale, normalize_intensity
from medjax.errors import ConfigError, DataError
from medjax.pet.acquisition import Acquisition
from medjax.pet.grid import Grid
from medjax.running.progress import track

SAMPLERS = ("dds", "likelihood-schedule")
FIRST, LAST, ETA, EARLY, LONGEST = 0.5, 1e-2, 1.0, 8, 200  # from an early MLEM image with noise
MR_WEIGHT = 0.25  # of classifier-free guidance: the least of Singh et al., MELBA 2024:001
ANCHOR = 0.06  # of DDS, in units of mean sensitivity / intensity scale
UNLIKE = 0.3  # a voxel this much larger or smaller than the prior's is refused


class Sampling(NamedTuple):
    """How to sample; checked."""

    prior: Path | None  # None: the one that comes with medjax
    steps: int = 50
    samples: int = 1
    seed: int = 0
    perpendicular: bool = False  # the prior in all three orientations, in turn; else transverse slices only


def checked_prior(sampling: Sampling, grid: Grid, *, guided: bool = False) -> Prior:
    """The prior, seen to fit the voxels.

    Raises:
        ConfigError: voxels are unlike the prior's, it knows no MR that is given, or perpendicular planes are asked for
            where they cannot be.
        DataError, FileNotFoundError: there is no such prior.
    """
    prior = load_prior(sampling.prior)
    own = prior.settings.voxel_mm
    if any(abs(side - own) > UNLIKE * own for side in grid.voxel_mm[:2]):
        raise ConfigError(f"voxels of {grid.voxel_mm[0]:.3g} mm; the prior knows {own:g} mm: --voxel-mm {own:g}")
    if guided and not prior.settings.guided:
        raise ConfigError("--mr: the prior was trained without MR; expected one of `medjax pet train-prior --mr DIR`")
    if sampling.perpendicular:
        if abs(grid.voxel_mm[2] - grid.voxel_mm[0]) > UNLIKE * grid.voxel_mm[0] or grid.shape[2] < 8:
            raise ConfigError(
                f"--perpendicular: {grid.shape[2]} planes of {grid.voxel_mm[2]:.3g} mm; expected 8 or more, about as "
                f"thick as voxels are wide ({grid.voxel_mm[0]:.3g} mm)"
            )
        if set(prior.settings.orientations) != {0, 1, 2}:
            raise ConfigError("--perpendicular: the prior was not trained on all three orientations")
    return prior


def denoiser_of_volumes(prior: Prior, sampling: Sampling, mr: Float[Array, "x y plane"] | None = None) -> Any:
    """The prior on volumes as these settings say, with the subject's MR image if there is one."""
    mode = "alternated" if sampling.perpendicular else "transverse"
    return denoiser(prior, mode, None if mr is None else normalize_intensity(mr), MR_WEIGHT)


def sample(
    method: str,
    acquisition: Acquisition,
    denoiser: Any,
    start: Float[Array, "x y plane"],
    iterations: int,
    sampling: Sampling,
) -> tuple[Float[np.ndarray, "x y plane"], Float[np.ndarray, "x y plane"] | None]:
    """Mean of the samples, and their standard deviation where there are several.

    `denoiser` is one of volumes (batch, x, y, plane) whose mean emission is 1, such as `denoiser_of_volumes` gives;
    `start` is MLEM's first image.

    Raises:
        ConfigError: no denoiser.
        DataError: nothing but background, or an image that is not finite.
    """
    targets = _targets(acquisition, start, jnp.asarray(float(iterations)), sampling.steps, LONGEST, EARLY)
    scale = intensity_scale(targets.image)
    if not float(scale) > 0:
        raise DataError("the counts are explained by the background alone; expected some activity")
    prior, updates = as_denoiser(denoiser), jnp.asarray(iterations)
    images: list[np.ndarray] = []
    for number in track(sampling.samples, method):
        key = jax.random.fold_in(jax.random.key(sampling.seed), number)
        images.append(np.asarray(_one(method, key, acquisition, prior, targets, scale, updates, sampling.steps)))
        if not np.isfinite(images[-1]).all():
            raise DataError(f"{method}: sample {number + 1} is not finite; nothing is written")
    return np.mean(images, axis=0), np.std(images, axis=0, ddof=1) if len(images) > 1 else None


_targets = jax.jit(likelihood_schedule.targets, static_argnames=("steps", "longest", "early"))


@partial(jax.jit, static_argnames=("method", "steps"))
def _one(
    method: str,
    key: Array,
    acquisition: Acquisition,
    denoiser: Any,
    targets: likelihood_schedule.Targets,
    scale: Array,
    iterations: Array,
    steps: int,
) -> Array:
    """A sample. What is compiled serves every call of a session with as many steps and a denoiser of this kind."""
    if method == "dds":
        anchor = ANCHOR * jnp.mean(acquisition.sensitivity) / scale
        guided = guidance.dds(denoiser, acquisition, anchor, scale, updates=iterations)
    else:
        guided = likelihood_schedule.likelihood_schedule(denoiser, acquisition, targets.deviance, scale)
    times, first = sampler.uniform_times(steps, FIRST, LAST), targets.image / scale
    algorithm = sampler.sampler(guided, denoiser.sde, times, sampler.ddim(ETA))
    state, _ = iterate.scan(algorithm, algorithm.init(key, first.shape, first), steps)
    return jnp.maximum(scale * state.x0, 0)
