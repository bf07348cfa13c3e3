"""2-D priors on volumes: across one axis, or across all three in turn or on average.

    across(score, axis)            a score of volumes (x, y, z), slice by slice perpendicular to the axis
    alternate(estimators)          step n uses estimator n mod their number
    average(estimators)            the mean of what they say

A volume has one intensity scale, for slices of one volume belong together. Perpendicular planes need isotropic voxels
and a network that was trained on all three orientations, as the shipped one was.

Source: alternation as in TPDM (Lee et al., ICCV 2023).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Scalar

from medjax.diffusion.sampler import Estimate, Estimator, ScoreOf
from medjax.errors import ConfigError

SliceScore = Callable[..., Float[Array, "slice a b"]]  # of slices and time, and slices of the guide if there is one


def across(
    score: SliceScore,
    axis: int,
    multiple: int = 1,
    deviation: Callable[[Scalar], Scalar] | None = None,
    batch: int = 16,
    guide: Float[Array, "x y z"] | None = None,
) -> ScoreOf:
    """The score of a volume whose slices perpendicular to `axis` are independent.

    Slices go through the network `batch` at a time. Sides that are no multiples of `multiple` are extended by noise of
    `deviation(t)`, what empty air looks like at time t (`lambda t: sde.marginal(t)[1]`), and cut again. With a
    `guide`, an MR image say, its slices go along: score(slices, t, slices of the guide).

    Raises:
        ConfigError: sides are no multiples and there is no `deviation`.
    """

    def volume_score(x: Float[Array, "x y z"], t: Scalar) -> Float[Array, "x y z"]:
        stack = jnp.moveaxis(x, axis, 0)
        extra = [-side % multiple for side in stack.shape[1:]]
        if any(extra):
            if deviation is None:
                raise ConfigError(f"planes: slices of {stack.shape[1:]} voxels; expected multiples of {multiple}")
            shape = (stack.shape[0], *(side + more for side, more in zip(stack.shape[1:], extra, strict=True)))
            air = deviation(t) * jax.random.normal(jax.random.key(axis), shape, x.dtype)
            padded = air.at[:, : stack.shape[1], : stack.shape[2]].set(stack)
        else:
            padded = stack
        stacks = [padded]
        if guide is not None:
            stacks.append(jnp.pad(jnp.moveaxis(guide, axis, 0), ((0, 0), *((0, more) for more in extra))))
        scores = _in_batches(lambda part, *guides: score(part, t, *guides), stacks, batch)
        return jnp.moveaxis(scores[:, : stack.shape[1], : stack.shape[2]], 0, axis)

    return volume_score


def _in_batches(score: Callable[..., Array], stacks: Sequence[Array], batch: int) -> Array:
    slices = len(stacks[0])
    if slices <= batch:
        return score(*stacks)
    whole = slices // batch * batch
    parts = [stack[:whole].reshape(-1, batch, *stack.shape[1:]) for stack in stacks]
    scores = jax.lax.map(lambda part: score(*part), parts).reshape(stacks[0][:whole].shape)
    rest = [stack[whole:] for stack in stacks]
    return scores if whole == slices else jnp.concatenate([scores, score(*rest)])


def alternate(estimators: Sequence[Estimator]) -> Estimator:
    """Step n asks estimator n mod their number."""

    def estimator(x: Array, t: Scalar, index: Int[Array, ""]) -> tuple[Estimate, PyTree]:
        return jax.lax.switch(index % len(estimators), list(estimators), x, t, index)

    return estimator


def average(estimators: Sequence[Estimator]) -> Estimator:
    """The mean of the estimates; as many network evaluations a step as there are estimators."""

    def estimator(x: Array, t: Scalar, index: Int[Array, ""]) -> tuple[Estimate, PyTree]:
        found = [one(x, t, index) for one in estimators]
        return jax.tree.map(lambda *values: sum(values) / len(values), *found)

    return estimator
