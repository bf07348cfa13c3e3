"""2-D denoisers on volumes: slice-wise along one axis, or along all three in turn or on average.

    slice_wise(denoiser, axis)     a denoiser of volumes (batch, x, y, z), slice by slice perpendicular to the axis
    alternate(denoisers)           denoiser n mod their number in step n of the sampler
    average(denoisers)             the mean of the denoised images

A volume has one intensity scale, for slices of one volume belong together. Perpendicular planes need isotropic voxels
and a network that was trained on all three orientations, as the shipped one was.

Source: alternation as in TPDM (Lee et al., ICCV 2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from medjax.diffusion.denoiser import Denoiser, as_denoiser
from medjax.diffusion.sde import Sde
from medjax.iterate import static_partial

Volumes = Float[Array, "batch x y z"]
Times = Float[Array, " batch"]


def slice_wise(
    denoiser: Any, axis: int, multiple: int = 1, batch: int = 16, condition: Float[Array, "x y z"] | None = None
) -> Denoiser:
    """Denoiser of volumes, slice by slice perpendicular to `axis`, by a 2-D denoiser of (batch, a, b).

    Args:
        denoiser: 2-D denoiser of slices.
        axis: 0 sagittal, 1 coronal, 2 transverse slices.
        multiple: sides that are not multiples of it are padded by noise of standard deviation ν(t), as empty air has at
            time t, and cropped again.
        batch: slices in one call of the network.
        condition: an image, MR say, whose slices are the third argument: denoiser(slices, t, slices of it).
    """
    function = static_partial(_slice_wise, axis, multiple, batch)
    denoiser = as_denoiser(denoiser)
    return Denoiser(Partial(function, denoiser, condition), denoiser.sde)


def _slice_wise(
    axis: int, multiple: int, batch: int, denoiser: Any, condition: Array | None, x: Volumes, t: Times
) -> Volumes:
    stack = jnp.moveaxis(x, axis + 1, 1)  # (volume, slice, a, b)
    _, slices, *sides = stack.shape
    extra = [-side % multiple for side in sides]
    if any(extra):
        shape = (slices, *(side + more for side, more in zip(sides, extra, strict=True)))
        nu = jax.vmap(denoiser.sde.marginal)(t)[1].reshape(-1, 1, 1, 1)
        air = nu * jax.random.normal(jax.random.key(axis), shape, x.dtype)[None]
        stack = air.at[:, :, : sides[0], : sides[1]].set(stack)
    stacks = [stack.reshape(-1, *stack.shape[2:]), jnp.repeat(t, slices)]
    if condition is not None:
        padded = jnp.pad(jnp.moveaxis(condition, axis, 0), ((0, 0), *((0, more) for more in extra)))
        stacks.append(jnp.tile(padded, (len(x), 1, 1)))
    x0 = _in_batches(denoiser, stacks, batch).reshape(stack.shape)
    return jnp.moveaxis(x0[:, :, : sides[0], : sides[1]], 1, axis + 1)


def _in_batches(function: Callable[..., Array], stacks: Sequence[Array], batch: int) -> Array:
    slices = len(stacks[0])
    if slices <= batch:
        return function(*stacks)
    whole = slices // batch * batch
    parts = [stack[:whole].reshape(-1, batch, *stack.shape[1:]) for stack in stacks]
    done = jax.lax.map(lambda part: function(*part), parts).reshape(stacks[0][:whole].shape)
    rest = [stack[whole:] for stack in stacks]
    return done if whole == slices else jnp.concatenate([done, function(*rest)])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AlternatingDenoiser:
    """Denoisers that alternate over the steps of a sampler; called without a step's number, their mean."""

    denoisers: tuple[Any, ...]
    sde: Sde

    def at_step(self, index: Int[Array, ""], x: Volumes, t: Times) -> Volumes:
        """Denoised volumes by denoiser `index` mod their number."""
        # by identity: `switch` hashes its branches, and a denoiser of traced parameters has no hash
        branches = [partial(_denoise, one) for one in self.denoisers]
        return jax.lax.switch(index % len(self.denoisers), branches, x, t)

    def __call__(self, x: Volumes, t: Times) -> Volumes:
        """Mean of the denoised volumes of all."""
        return _average(self.denoisers, x, t)


def alternate(denoisers: Sequence[Any]) -> AlternatingDenoiser:
    """Denoiser that alternates: step n of a sampler uses denoiser n mod their number."""
    chosen = tuple(as_denoiser(one) for one in denoisers)
    return AlternatingDenoiser(chosen, chosen[0].sde)


def average(denoisers: Sequence[Any]) -> Denoiser:
    """Denoiser that averages: the mean of all denoised volumes, one network evaluation each."""
    chosen = tuple(as_denoiser(one) for one in denoisers)
    return Denoiser(Partial(_average, chosen), chosen[0].sde)


def _denoise(denoiser: Any, x: Volumes, t: Times) -> Volumes:
    return denoiser(x, t)


def _average(denoisers: tuple[Any, ...], x: Volumes, t: Times) -> Volumes:
    means = [one(x, t) for one in denoisers]
    return sum(means[1:], means[0]) / len(means)
