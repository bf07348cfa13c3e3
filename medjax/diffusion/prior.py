"""A trained 2-D score prior: a network, its parameters and settings, and the denoisers made of it.

load_prior("noise_free")     a prior that comes with medjax, or one's own: `prior_file`
check_fit(settings, …)       whether voxel size, orientation and tracer of the data are those that it learnt
slice_denoiser(prior, axis)  a denoiser of slices (batch, a, b), perpendicular to the axis, in units of the scale
denoiser(prior, mode)        a denoiser of volumes (batch, x, y, z), for `guidance` and `sampler`
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree, Scalar

from medjax.diffusion import planes
from medjax.diffusion.denoiser import Denoiser, classifier_free_guidance, edm_denoise
from medjax.diffusion.sde import Sde
from medjax.errors import ConfigError, DataError
from medjax.iterate import static_partial
from medjax.models.model import Network

ORIENTATIONS = ("sagittal", "coronal", "transverse")  # slices perpendicular to x, y and z
MAX_VOXEL_DIFFERENCE = 0.3  # relative difference of the voxel size of data from the prior's
MODES = {"transverse": (2,), "alternated": (2, 1, 0), "averaged": (2, 1, 0)}  # axes that slices are perpendicular to


class PriorSettings(NamedTuple):
    """Settings of a prior: its network, training slices and diffusion. Hashable."""

    widths: tuple[int, ...] = (64, 96, 128)  # channels of each level of the U-Net
    blocks: int = 1  # residual blocks a level and direction
    attention: tuple[int, ...] = (2,)  # levels with self-attention
    patch: int = 2  # voxels along each side of a block that becomes channels
    size: int = 96  # voxels of a training slice along each side
    voxel_mm: float = 2.5  # voxel size of the slices
    orientations: tuple[int, ...] = (0, 1, 2)  # axes that training slices are perpendicular to
    beta_min: float = 0.1  # β of the variance-preserving SDE at t = 0
    beta_max: float = 10.0  # β at t = 1
    about: str = ""  # description of the prior
    mr_guided: bool = False  # conditioned on an MR image too, of mean 1 as the PET
    tracers: tuple[str, ...] = ()  # tracers of the training images; none: not known
    kind: str = ""  # kind of the training images, as `medjax pet train-prior --kind` has it; "": a user's own

    @property
    def multiple(self) -> int:
        """Sides of slices must be multiples of this."""
        return self.patch * 2 ** (len(self.widths) - 1)


def check_fit(settings: PriorSettings, voxel_mm: Sequence[float], axes: Sequence[int] = (2,), tracer: str = "") -> None:
    """Check that a prior fits the data: voxel size and orientation of their slices, and their tracer.

    Another tracer than the prior's is warned of, in one line: that is how well a prior serves what it has not learnt.

    Args:
        settings: settings of the prior.
        voxel_mm: voxel size along x, y and z.
        axes: axes that slices are taken perpendicular to.
        tracer: tracer of the data; "": not known.

    Raises:
        ConfigError: voxels of a slice differ by more than 30 % from the prior's, or it learnt no slices of that
            orientation.
    """
    own = settings.voxel_mm
    for axis in axes:
        in_slice = [side for k, side in enumerate(voxel_mm) if k != axis]
        if axis not in settings.orientations:
            learnt = ", ".join(ORIENTATIONS[k] for k in settings.orientations)
            raise ConfigError(f"{ORIENTATIONS[axis]} slices; the prior was trained on {learnt} ones")
        if any(abs(side - own) > MAX_VOXEL_DIFFERENCE * own for side in in_slice):
            found = " × ".join(f"{side:.3g}" for side in dict.fromkeys(in_slice))
            raise ConfigError(f"voxels of {found} mm; the prior has {own:g} mm: --voxel-mm {own:g}")
    if tracer and settings.tracers and tracer not in settings.tracers:
        learnt = ", ".join(settings.tracers)
        warnings.warn(f"tracer {tracer}; the prior was trained on {learnt}: expect its features", stacklevel=2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prior:
    """A trained score prior: a network apply(params, y, level, orientation[, MR]) of slices, EDM-preconditioned.

    `sigma_data` is the standard deviation of training images.
    """

    params: PyTree  # parameters of the network
    sigma_data: Scalar | float  # standard deviation of the training images
    sde: Sde  # forward diffusion that it was trained for
    model: Network = field(metadata={"static": True})
    settings: PriorSettings = field(metadata={"static": True})


def slice_denoiser(prior: Prior, axis: int = 2, weight: Scalar | float = 0.0) -> Denoiser:
    """Denoiser of slices (batch, a, b) whose mean emission is about 1; sides are multiples of `settings.multiple`.

    Slices are perpendicular to `axis` of a volume in RAS+ (2: transverse) and keep the order of the other two axes. An
    MR-guided prior takes slices of an MR image of mean 1 as a third argument (E[x0 | x, MR], sharpened by `weight`, see
    `classifier_free_guidance`), or none.

    Raises:
        DataError: (the denoiser, where it is traced) a side is no such multiple.
    """
    return Denoiser(Partial(static_partial(_denoise_slices, axis), prior, weight), prior.sde)


def _denoise_slices(
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
        inputs = (orientation, condition) if s.mr_guided else (orientation,)

        def network(y: Array, level: Array) -> Array:
            return prior.model.apply(prior.params, y, level, *inputs)

        return edm_denoise(network, prior.sde, prior.sigma_data, x, t)

    x = x[..., None]
    if mr is None:
        return conditional(x, t, jnp.zeros_like(x))[..., 0]
    return classifier_free_guidance(conditional, mr[..., None], weight, x, t)[..., 0]


def denoiser(
    prior: Prior, mode: str = "transverse", mr: Float[Array, "x y z"] | None = None, weight: Scalar | float = 0.0
) -> Any:
    """Denoiser of volumes (batch, x, y, z) of any sides, by transverse slices or slices of all three orientations.

    Perpendicular modes ("alternated", "averaged") need isotropic voxels and a prior trained on all orientations. `mr`
    is an MR image on the same voxels, of mean 1 (`score_matching.normalize_intensity`), for a prior that was trained
    with such images.

    Raises:
        ConfigError: no such mode, or an MR image for a prior that was trained without.
    """
    if mr is not None and not prior.settings.mr_guided:
        raise ConfigError("prior: it was trained without MR images; expected none")
    slice_denoisers = [slice_denoiser(prior, axis, weight) for axis in range(3)]
    return volume_denoiser(slice_denoisers, mode, prior.settings.multiple, mr)


def volume_denoiser(
    denoisers: list[Any] | tuple[Any, ...], mode: str, multiple: int = 1, mr: Float[Array, "x y z"] | None = None
) -> Any:
    """Denoiser of volumes (batch, x, y, z) by 2-D denoisers, the k-th of slices perpendicular to axis k.

    Raises:
        ConfigError: no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"planes: mode {mode}; expected {', '.join(MODES)}")
    lifted = [planes.slice_wise(denoisers[axis], axis, multiple, condition=mr) for axis in MODES[mode]]
    if mode == "transverse":
        return lifted[0]
    return planes.alternate(lifted) if mode == "alternated" else planes.average(lifted)
