"""2-D denoisers on volumes: slice-wise across one axis, or across all three in turn or on average.

    slice_wise(denoiser, axis)     a denoiser of volumes (batch, x, y, z), slice by slice perpendicular to the axis
    alternate(denoisers)           the sampler's step n asks denoiser n mod their number
    average(denoisers)             the mean of what they say

A volume has one intensity scale, for slices of one volume belong together. Perpendicular planes need isotropic voxels
and a network that was trained on all three orientations, as the shipped one was.

Source: alternation as in TPDM (Lee et al., ICCV 2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """The denoiser of volumes whose slices perpendicular to `axis` are independent; `denoiser` knows (batch, a, b).

    Slices go through the network `batch` at a time. Sides that are no multiples of `multiple` are extended by noise of
    deviation ν(t), what empty air looks like at time t, and cut again. With a `condition`, an MR image say, its slices
    go along: denoiser(slices, t, slices of the condition).
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
    found = jax.lax.map(lambda part: function(*part), parts).reshape(stacks[0][:whole].shape)
    rest = [stack[whole:] for stack in stacks]
    return found if whole == slices else jnp.concatenate([found, function(*rest)])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Alternating:
    """Denoisers that take turns in the steps of a sampler; called without a step's number, it is their mean."""

    denoisers: tuple[Any, ...]
    sde: Sde

    def at_step(self, index: Int[Array, ""], x: Volumes, t: Times) -> Volumes:
        """What denoiser `index` mod their number says."""
        return jax.lax.switch(index % len(self.denoisers), list(self.denoisers), x, t)

    def __call__(self, x: Volumes, t: Times) -> Volumes:
        """The mean of what they say."""
        return _average(self.denoisers, x, t)


def alternate(denoisers: Sequence[Any]) -> Alternating:
    """Step n of a sampler asks denoiser n mod their number."""
    chosen = tuple(as_denoiser(one) for one in denoisers)
    return Alternating(chosen, chosen[0].sde)


def average(denoisers: Sequence[Any]) -> Denoiser:
    """The mean of what they say; as many network evaluations a step as there are denoisers."""
    chosen = tuple(as_denoiser(one) for one in denoisers)
    return Denoiser(Partial(_average, chosen), chosen[0].sde)


def _average(denoisers: tuple[Any, ...], x: Volumes, t: Times) -> Volumes:
    found = [one(x, t) for one in denoisers]
    return sum(found[1:], found[0]) / len(found)
