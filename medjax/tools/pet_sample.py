"""The samplers of `medjax pet reconstruct`: images drawn from a prior given the counts; their mean and deviation."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.diffusion import reconstruct
from medjax.diffusion.denoiser import as_denoiser
from medjax.diffusion.prior import Prior, slices, volumes
from medjax.diffusion.prior_file import load_prior
from medjax.diffusion.score_matching import normalize_intensity
from medjax.errors import ConfigError, DataError
from medjax.pet.acquisition import Acquisition
from medjax.pet.grid import Grid
from medjax.running.part_identity import as_part
from medjax.running.parts import Part
from medjax.running.progress import track
from medjax.tools.checks import errors_of
from medjax.tools.pet_defaults import SAMPLING_STEPS

SAMPLERS = {"dds": "update", "likelihood-schedule": "iteration"}  # and what their iterations are
MR_WEIGHT = 0.25  # of classifier-free guidance: the least of Singh et al., MELBA 2024:001
ANCHOR = 0.06  # of DDS, in units of mean sensitivity / intensity scale
UNLIKE = 0.3  # a voxel this much larger or smaller than the prior's is refused


class Sampling(NamedTuple):
    """What to sample, and how often."""

    prior: Any = None  # its file (None: the one that comes with medjax), or a denoiser of slices, a Part or not
    steps: int = SAMPLING_STEPS
    samples: int = 1
    seed: int = 0
    perpendicular: bool = False  # the prior in all three orientations, in turn; else transverse slices only
    network: Any = None  # of the prior's file, where medjax does not know it


def checked_prior(sampling: Sampling, grid: Grid, *, guided: bool = False) -> Prior | Part:
    """The prior, seen to fit the voxels: that of a file, or a denoiser of slices as a Part.

    Raises:
        ConfigError: voxels are unlike the prior's, it knows no MR that is given, perpendicular planes are asked for
            where they cannot be, or there is a network without a file that needs one.
        DataError, FileNotFoundError: there is no such prior.
    """
    x, y, z = grid.voxel_mm
    if sampling.perpendicular and (abs(z - x) > UNLIKE * x or grid.shape[2] < 8):
        raise ConfigError(
            f"--perpendicular: {grid.shape[2]} planes of {z:.3g} mm; expected 8 or more, about as thick as voxels are "
            f"wide ({x:.3g} mm)"
        )
    if not isinstance(sampling.prior, Path | None):
        if sampling.network is not None:
            raise ConfigError("--network goes with the file of a prior; a denoiser has its own")
        part = as_part(sampling.prior)
        try:
            as_denoiser(part.value)  # is one
        except ConfigError as error:
            raise ConfigError(f"--prior {part.name}: {error}") from error
        return part
    prior = load_prior(sampling.prior, sampling.network)
    own = prior.settings.voxel_mm
    if any(abs(side - own) > UNLIKE * own for side in (x, y)):
        raise ConfigError(f"voxels of {x:.3g} mm; the prior knows {own:g} mm: --voxel-mm {own:g}")
    if guided and not prior.settings.guided:
        raise ConfigError("--mr: the prior was trained without MR; expected one of `medjax pet train-prior --mr DIR`")
    if sampling.perpendicular and set(prior.settings.orientations) != {0, 1, 2}:
        raise ConfigError("--perpendicular: the prior was not trained on all three orientations")
    return prior


def denoiser_of_volumes(
    prior: Prior | Part, grid: Grid, perpendicular: bool = False, mr: Float[Array, "x y plane"] | None = None
) -> Any:
    """The prior on volumes, transverse or in three orientations in turn, with the subject's MR image if there is one.

    A denoiser of slices serves all orientations. If it has an attribute `multiple`, it gets slices whose sides are
    multiples of that; it takes slices of the MR, of mean emission 1, as a third argument.

    Raises:
        ConfigError: a denoiser fails with slices of this grid.
    """
    guide = None if mr is None else normalize_intensity(mr)
    mode = "alternated" if perpendicular else "transverse"
    if isinstance(prior, Prior):
        return volumes([slices(prior, axis, MR_WEIGHT) for axis in range(3)], mode, prior.settings.multiple, guide)
    denoiser = volumes([prior.value] * 3, mode, getattr(prior.value, "multiple", 1), guide)
    with errors_of(f"--prior {prior.name}", "(x, t) → x0 of slices (batch, a, b), with an MR (x, t, mr) → x0"):
        jax.eval_shape(denoiser, jnp.zeros((1, *grid.shape)), jnp.ones(1))
    return denoiser


def sample(
    method: str,
    acquisition: Acquisition,
    denoiser: Any,
    first: Float[Array, "x y plane"],
    iterations: int,
    sampling: Sampling,
) -> tuple[Float[np.ndarray, "x y plane"], Float[np.ndarray, "x y plane"]]:
    """Mean of the samples, and their standard deviation; 0 of a single one.

    `denoiser` is one of volumes (batch, x, y, plane) whose mean emission is 1, such as `denoiser_of_volumes` gives;
    `first` is MLEM's first image.

    Raises:
        ConfigError: no denoiser.
        DataError: nothing but background, or an image that is not finite.
    """
    begin, guided = _begin(method, acquisition, as_denoiser(denoiser), first, jnp.asarray(iterations), sampling.steps)
    if not float(begin.scale) > 0:
        raise DataError("the counts are explained by the background alone; expected some activity")
    images: list[np.ndarray] = []
    for number in track(sampling.samples, method):
        key = jax.random.fold_in(jax.random.key(sampling.seed), number)
        images.append(np.asarray(_one(key, begin, guided, reconstruct.Sampling(sampling.steps)).image))
        if not np.isfinite(images[-1]).all():
            raise DataError(f"{method}: sample {number + 1} is not finite; nothing is written")
    return np.mean(images, axis=0), np.std(images, axis=0, ddof=min(1, len(images) - 1))


# What is compiled serves every call of a session with as many steps and a denoiser of this kind.
_one = jax.jit(reconstruct.sample, static_argnames="sampling")


@partial(jax.jit, static_argnames=("method", "steps"))
def _begin(
    method: str, acquisition: Acquisition, denoiser: Any, first: Array, iterations: Array, steps: int
) -> tuple[reconstruct.Start, reconstruct.Method]:
    begin = reconstruct.start(acquisition, denoiser, first, acquisition.sensitivity)
    if method == "dds":
        return begin, reconstruct.dds(begin, ANCHOR, iterations)
    return begin, reconstruct.likelihood_schedule(begin, iterations.astype(float), steps)
