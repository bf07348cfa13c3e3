"""The image of an acquisition by one of the methods of `medjax pet reconstruct`, and what each method is given."""

from dataclasses import astuple
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax import iterate
from medjax.bowsher import bowsher
from medjax.errors import ConfigError, DataError
from medjax.iterate import Algorithm
from medjax.penalty import Penalty, Quadratic, RelativeDifference, neighbors, require
from medjax.pet import em
from medjax.pet.acquisition import Acquisition
from medjax.pet.bsrem import bsrem
from medjax.pet.grid import Grid, in_field_of_view
from medjax.pet.kernel_em import kernel_em, mr_kernel
from medjax.pet.psf import blur, gaussian_psf
from medjax.pet.svrg import svrg
from medjax.running.parts import Part
from medjax.running.progress import track
from medjax.tools.checks import reraise_as_config_error
from medjax.tools.pet_sample import SAMPLERS, denoiser_for_grid, prepare_prior, sample
from medjax.tools.pet_settings import PENALIZED, ReconstructionSettings

SMOOTHING_MM = 5.0  # FWHM, of the image in SVRG's preconditioner
EPSILON = 1e-3  # ε of the relative difference, in units of the mean activity
Image = Float[np.ndarray, "x y z"]
psf_of = jax.jit(gaussian_psf, static_argnums=0)  # under jit: one program to compile and keep, not a dozen


def first_image(acquisition: Acquisition, grid: Grid, radius_mm: float) -> em.State:
    """State that EM starts from: a uniform image within the scanner's field of view of this radius.

    Raises:
        DataError: no voxel is seen by a line of response.
    """
    state = jax.jit(em.init)(acquisition)
    state = state._replace(image=state.image * in_field_of_view(grid, radius_mm))
    if not bool(jnp.any(state.image > 0)) or not bool(jnp.isfinite(acquisition.sensitivity).all()):
        raise DataError(
            "the sensitivity is 0 in the whole image or infinite: the multiplicative factors of its lines of response "
            "are 0, or too large or too small for float32"
        )
    return state


def solve(
    acquisition: Acquisition, state: em.State, settings: ReconstructionSettings, part: Any, grid: Grid
) -> tuple[Image, Image | None]:
    """Image of these settings, and the standard deviation of several samples.

    Args:
        acquisition: the data, for all methods but samplers in subsets.
        state: first image.
        settings: complete settings.
        part: denoiser of volumes of a sampler, penalty of a penalized method, or kernel of kernel EM.
        grid: image grid.

    Raises:
        DataError: an image is not finite.
    """
    if settings.method in SAMPLERS:
        image, sd = sample(settings.method, acquisition, part, state.image, settings.iterations, settings.sampling)
        return image, sd if settings.sampling.samples > 1 else None
    algorithm, start = _algorithm(acquisition, state, settings, part, grid)
    states = iterate.loop(
        algorithm,
        start,
        em.updates(acquisition, settings.iterations),
        every=settings.subsets,
        progress=partial(track, description=settings.method),
        check=partial(_require_finite_image, settings),
    )
    return np.asarray(iterate.last(states, start).image), None


def _algorithm(
    stacked: Acquisition, state: em.State, settings: ReconstructionSettings, part: Any, grid: Grid
) -> tuple[Algorithm, Any]:
    """Algorithm of a method, and its first state: for SVRG and BSREM an iteration of OSEM."""
    method, weight = settings.method, settings.beta
    if method in PENALIZED and not isinstance(settings.penalty, Part):
        weight = float(jax.jit(em.penalty_weight)(stacked, settings.beta, state))  # β / mean²
        if settings.penalty == "relative-difference":  # w d² / (xⱼ + xₖ) is ½ w d² / mean where neighbours are alike
            weight = (settings.beta * weight) ** 0.5
            part = RelativeDifference(part, epsilon=EPSILON * settings.beta / weight if weight else EPSILON)
    if method == "map-em":
        return em.map_em(stacked, part, weight), state
    if method == "kernel-em":
        algorithm = kernel_em(stacked, part)
        return algorithm, algorithm.init(state.image)
    if method in ("svrg", "bsrem"):
        start = iterate.loop(em.osem(stacked), state, settings.subsets, every=settings.subsets)
        image = iterate.last(start, state).image
        algorithm = bsrem(stacked, part, weight)
        if method == "svrg":
            algorithm = svrg(stacked, part, weight, psf_of(grid, SMOOTHING_MM))
        return algorithm, jax.jit(lambda algorithm, image: algorithm.init(image))(algorithm, image)
    return em.osem(stacked), state


def _require_finite_image(settings: ReconstructionSettings, state: Any, _: Any, updates: int) -> None:
    if not bool(jnp.isfinite(state.image).all()):
        after = f"after iteration {updates // settings.subsets}"
        raise DataError(f"{settings.method}: the image is not finite {after}; nothing is written")


def post_filter(image: Image, grid: Grid, fwhm_mm: float) -> Image:
    """Image after a Gaussian post-filter; 0 mm: none."""
    return np.asarray(jax.jit(blur)(psf_of(grid, fwhm_mm), jnp.asarray(image))) if fwhm_mm > 0 else image


def denoiser_or_regularizer(
    settings: ReconstructionSettings, grid: Grid, guide: Float[Array, "x y z"] | None, tracer: str = ""
) -> Any:
    """What `solve` takes as the part of a method: the denoiser of a sampler, else see `regularizer`.

    Raises:
        ConfigError, DataError: see `prepare_prior` and `denoiser_for_grid`.
    """
    if settings.method not in SAMPLERS:
        return regularizer(settings, grid, guide)
    prior = prepare_prior(settings.sampling, grid, mr_guided=settings.mr_guided, tracer=tracer)
    return denoiser_for_grid(prior, grid, settings.sampling.perpendicular, guide)


def regularizer(settings: ReconstructionSettings, grid: Grid, guide: Float[Array, "x y z"] | None) -> Any:
    """What a method is given beside the data: the kernel of kernel EM, or the penalty; None of other methods.

    The quadratic penalty; with a guide Bowsher's, of 4 neighbours in a slice, 7 in a volume; of the relative difference
    the pairs of neighbours; or the user's own penalty.
    """
    if settings.method == "kernel-em" and guide is not None:
        return mr_kernel(guide, reach=3 if grid.shape[2] == 1 else 2)  # either has more than its 40 similar voxels
    if settings.method not in PENALIZED:
        return None
    if isinstance(settings.penalty, Part):
        return _users_penalty(settings.penalty, grid, settings.method)
    pairs = neighbors(grid.shape, grid.voxel_mm)
    if guide is not None:
        pairs = bowsher(pairs, guide, similar=4 if grid.shape[2] == 1 else 7)
    return pairs if settings.penalty == "relative-difference" else Quadratic(pairs)


NEEDED = {  # name of a penalized method, and what it needs of a penalty
    "map-em": ("MAP-EM", "surrogate", "value"),
    "bsrem": ("BSREM", "gradient", "value"),
    "svrg": ("SVRG", "curvature", "gradient", "value"),
}


def _users_penalty(part: Part, grid: Grid, method: str) -> Any:
    """User's penalty, or the result of a function of the image's shape and voxel size; checked on such an image.

    Raises:
        ConfigError: it is not one, lacks what the method needs, or fails.
    """
    own, name = part.value, f"--penalty {part.name}"
    title, *needed = NEEDED[method]
    extra = "" if method == "bsrem" else f" and {needed[0]}"
    expected = f"value, gradient{extra} of an image, or a function of its shape and voxel size that returns them"
    with reraise_as_config_error(name, expected):
        made = own if isinstance(own, Penalty) and not isinstance(own, type) else own(*astuple(grid))
        require(made, f"{name}: {title}", *needed)
        if jax.tree_util.all_leaves([made]):
            raise ConfigError(
                f"{name}: {type(made).__name__} is not a pytree; expected one, as jax.tree_util.register_dataclass or "
                "register_static makes of its class"
            )
        jax.eval_shape(lambda penalty, image: getattr(penalty, needed[0])(image), made, jnp.zeros(grid.shape))
    return made
