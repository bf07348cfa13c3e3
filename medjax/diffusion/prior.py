"""A trained 2-D prior: a network, its parameters, and what images it knows; and the denoisers that it makes.

load_prior()                 the brain prior that comes with medjax, or one's own: `prior_file`
slices(prior, axis)          a denoiser of slices (batch, a, b), perpendicular to the axis, in units of the scale
denoiser(prior, mode)        a denoiser of volumes (batch, x, y, z), for `guidance` and `sampler`
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree, Scalar

from medjax.diffusion import planes
from medjax.diffusion.denoiser import Denoiser, classifier_free, preconditioned
from medjax.diffusion.sde import Sde
from medjax.errors import ConfigError, DataError
from medjax.iterate import static_partial
from medjax.models.model import Network

MODES = {"transverse": (2,), "alternated": (2, 1, 0), "averaged": (2, 1, 0)}  # axes that slices are perpendicular to


class Settings(NamedTuple):
    """What a prior is, besides its parameters. Hashable."""

    widths: tuple[int, ...] = (16, 32, 64, 96)
    blocks: int = 1
    attention: tuple[int, ...] = (3,)
    size: int = 96  # voxels of a training slice, each way
    voxel_mm: float = 2.5
    orientations: tuple[int, ...] = (0, 1, 2)  # axes that training slices are perpendicular to
    beta_min: float = 0.1
    beta_max: float = 10.0
    about: str = ""
    guided: bool = False  # it also knows an MR image, of mean 1 as the PET

    @property
    def multiple(self) -> int:
        """Sides of slices must be multiples of this."""
        return 2 ** (len(self.widths) - 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prior:
    """A network in EDM's preconditioning: apply(params, y, level, orientation[, MR]) of slices (batch, a, b, 1).

    `sigma_data` is the standard deviation of training images.
    """

    params: PyTree
    sigma_data: Scalar | float
    sde: Sde  # that it was trained for
    model: Network = field(metadata={"static": True})
    settings: Settings = field(metadata={"static": True})


def slices(prior: Prior, axis: int = 2, weight: Scalar | float = 0.0) -> Denoiser:
    """The denoiser of slices (batch, a, b) whose mean emission is about 1; sides are multiples of `settings.multiple`.

    Slices are perpendicular to `axis` of a volume in RAS+ (2: transverse) and keep the order of the other two axes. An
    MR-guided prior takes slices of an MR image of mean 1 as a third argument (E[x0 | x, MR], sharpened by `weight`, see
    `classifier_free`), or none.

    Raises:
        DataError: (the denoiser, where it is traced) a side is no such multiple.
    """
    return Denoiser(Partial(static_partial(_slices, axis), prior, weight), prior.sde)


def _slices(
    axis: int,
    prior: Prior,
    weight: Scalar | float,
    x: Float[Array, "batch a b"],
    t: Float[Array, " batch"],
    mr: Float[Array, "batch a b"] | None = None,
) -> Float[Array, "batch a b"]:
    s = prior.settings
    if x.shape[1] % s.multiple or x.shape[2] % s.multiple:
        raise DataError(f"prior: slices of {x.shape[1:]} voxels; expected multiples of {s.multiple}")
    orientation = jnp.tile(jax.nn.one_hot(axis, 3, dtype=x.dtype), (len(x), 1))

    def conditional(x: Array, t: Array, condition: Array) -> Array:
        inputs = (orientation, condition) if s.guided else (orientation,)

        def network(y: Array, level: Array) -> Array:
            return prior.model.apply(prior.params, y, level, *inputs)

        return preconditioned(network, prior.sde, prior.sigma_data, x, t)

    x = x[..., None]
    if mr is None:
        return conditional(x, t, jnp.zeros_like(x))[..., 0]
    return classifier_free(conditional, mr[..., None], weight, x, t)[..., 0]


def denoiser(
    prior: Prior, mode: str = "transverse", mr: Float[Array, "x y z"] | None = None, weight: Scalar | float = 0.0
) -> Any:
    """The denoiser of volumes (batch, x, y, z), any sides: of transverse slices, or of three orientations joined.

    Perpendicular modes ("alternated", "averaged") need isotropic voxels and a prior trained on all orientations. `mr`
    is an MR image on the same voxels, of mean 1 (`score_matching.normalize_intensity`), for a prior that was trained
    with such images.

    Raises:
        ConfigError: no such mode, or an MR image for a prior that knows none.
    """
    if mr is not None and not prior.settings.guided:
        raise ConfigError("prior: it was trained without MR images; expected none")
    return volumes([slices(prior, axis, weight) for axis in range(3)], mode, prior.settings.multiple, mr)


def volumes(
    denoisers: list[Any] | tuple[Any, ...], mode: str, multiple: int = 1, mr: Float[Array, "x y z"] | None = None
) -> Any:
    """The denoiser of volumes that 2-D denoisers make, the k-th of slices perpendicular to axis k.

    Raises:
        ConfigError: no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"planes: mode {mode}; expected {', '.join(MODES)}")
    lifted = [planes.slice_wise(denoisers[axis], axis, multiple, condition=mr) for axis in MODES[mode]]
    if mode == "transverse":
        return lifted[0]
    return planes.alternate(lifted) if mode == "alternated" else planes.average(lifted)
