"""Variance of gradients (VOG) while a network trains: how each image's gradient map changes from probe to probe.

    state = init(images, space)
    state = update(state, index, maps)        after each probe of the images `index`
    score(state, "difference_over_predicted", labels, "peak")    high: the label is suspect

Mean and squared deviations are kept (Welford), not the maps, so memory does not grow with the number of probes. They
may be kept for blocks of voxels (`pool`) or as bfloat16. States of disjoint probes merge; order does not matter.

As published, VOG ranks how *difficult* an image is before it ranks how wrong its label is. A ratio divides by the VOG
of the same image for the label that the network predicts: a difficult image is difficult for both.

Source: Agarwal et al., CVPR 2022; merging after Chan et al., 1979. What segmentation leaves open (which scalar, which
voxels, which normalisation) is a choice here, see `QUANTITIES` and `REGIONS`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from medjax.errors import ConfigError
from medjax.training import spatial

RATIOS = {  # quantity: (numerator, denominator)
    "logit_over_predicted": ("gt_logit", "predicted_logit"),
    "loss_over_predicted": ("loss", "predicted_loss"),
    "difference_over_predicted": ("gt_minus_predicted", "predicted_loss"),
}
DIFFERENCE = {"gt_minus_predicted": ("gt_logit", "predicted_logit")}
QUANTITIES = ("gt_logit", "predicted_logit", "gt_prob", "loss", "predicted_loss", "gt_minus_predicted", *RATIOS)
REGIONS = ("image", "foreground", "class", "peak")
PEAK_QUANTILE = 0.95
RATIO_FLOOR = 0.1  # added to a denominator, in medians over all images


class State(NamedTuple):
    """Number of probes of every image; mean and summed squared deviation of each gradient map over its probes."""

    count: Int[Array, " image"]
    mean: dict[str, Float[Array, "image *space"]]
    squares: dict[str, Float[Array, "image *space"]]


def init(images: int, space: tuple[int, ...], maps: tuple[str, ...], pool: int = 1, dtype: Any = jnp.float32) -> State:
    """State before any probe of the images.

    Args:
        images: number of images.
        space: number of voxels along each axis.
        maps: names of the gradient maps to keep.
        pool: side in voxels of the blocks over which maps are averaged.
        dtype: precision of the maps.

    Raises:
        ConfigError: `pool` does not divide the space.
    """
    if any(side % pool for side in space):
        raise ConfigError(f"VOG: blocks of {pool} in {space} voxels; expected a divisor of every side")
    empty = {name: jnp.zeros((images, *(side // pool for side in space)), dtype) for name in maps}
    return State(jnp.zeros(images, jnp.int32), empty, {name: jnp.zeros_like(one) for name, one in empty.items()})


def maps_for(quantity: str) -> tuple[str, ...]:
    """Names of the gradient maps that a quantity of `score` needs."""
    return RATIOS.get(quantity, (quantity,))


def gradients_for(quantity: str) -> tuple[str, ...]:
    """Names of the gradients of a Probe, see `probe.probe`, that the maps of a quantity are computed from."""
    return tuple(part for name in maps_for(quantity) for part in DIFFERENCE.get(name, (name,)))


def add_difference(maps: Mapping[str, Array]) -> dict[str, Array]:
    """Gradient maps with that of logit_y − logit_ŷ added, by linearity, where those of both logits are there."""
    if not {"gt_logit", "predicted_logit"} <= set(maps):
        return dict(maps)
    return {**maps, "gt_minus_predicted": maps["gt_logit"] - maps["predicted_logit"]}


@partial(jax.jit, inline=True)
def update(state: State, index: Int[Array, " batch"], maps: Mapping[str, Float[Array, "batch *space"]]) -> State:
    """State after one more probe of the images `index`: n ← n + 1, δ = x − m, m ← m + δ / n, s ← s + δ (x − m)."""
    count = state.count.at[index].add(1)
    mean: dict[str, Array] = {}
    squares: dict[str, Array] = {}
    for name, old in state.mean.items():
        x = spatial.block_means(maps[name], old.shape[1:])
        n = count[index].reshape(-1, *(1,) * (x.ndim - 1))
        m = old[index].astype(x.dtype)
        delta = x - m
        new = m + delta / n
        mean[name] = old.at[index].set(new.astype(old.dtype))
        squares[name] = state.squares[name].at[index].add((delta * (x - new)).astype(old.dtype))
    return State(count, mean, squares)


@partial(jax.jit, inline=True)
def merge(one: State, other: State) -> State:
    """State of the probes of both states together."""
    total = one.count + other.count

    def shaped(values: Array, like: Array) -> Array:
        return values.reshape(-1, *(1,) * (like.ndim - 1)).astype(like.dtype)

    def means(a: Array, b: Array) -> Array:
        fraction = shaped(other.count / jnp.maximum(total, 1), a)
        return a + fraction * (b - a)

    def sums(a: Array, b: Array, mean_a: Array, mean_b: Array) -> Array:
        weight = shaped(one.count * other.count / jnp.maximum(total, 1), a)
        return a + b + weight * (mean_b - mean_a) ** 2

    return State(
        total,
        jax.tree.map(means, one.mean, other.mean),
        jax.tree.map(sums, one.squares, other.squares, one.mean, other.mean),
    )


@partial(jax.jit, static_argnames=("name", "centered"), inline=True)
def deviation(state: State, name: str, centered: bool = True) -> Float[Array, "image *space"]:
    """Standard deviation of a gradient map over the probes, √(Σ (x − m)² / n); not `centered`: √(Σ x² / n)."""
    n = jnp.maximum(state.count, 1).reshape(-1, *(1,) * (state.squares[name].ndim - 1))
    square = jnp.maximum(state.squares[name].astype(jnp.float32), 0) / n
    return jnp.sqrt(square if centered else square + state.mean[name].astype(jnp.float32) ** 2)


def score(
    state: State,
    quantity: str,
    labels: Int[Array, "image *space"],
    region: str = "image",
    centered: bool = True,
) -> Float[Array, " image"]:
    """VOG of each image: the standard deviation of its gradients, averaged over a region; or the ratio of two such.

    The source calls this standard deviation a variance.

    Args:
        quantity: whose gradient is taken, one of `QUANTITIES`.
        region: "image", the mean over all voxels; "foreground", the mean over the label's structures, dilated by a
            tenth of the shorter side (over all of an image whose label has none); "class", the largest over structures
            of the mean's z-score among the images that have it (0 for one that has none); "peak", the 95th percentile
            over voxels, of a ratio that of the ratio at each voxel.
        centered: deviations are about the mean; else about zero (second moment).

    Raises:
        ConfigError: no such quantity or region, or "class" of a ratio.
    """
    if quantity not in QUANTITIES or region not in REGIONS or (quantity in RATIOS and region == "class"):
        known = f"{', '.join(QUANTITIES)}; {', '.join(REGIONS)}; no class of a ratio"
        raise ConfigError(f"VOG: quantity {quantity}, region {region}; expected one of {known}")
    classes = max(int(np.asarray(labels).max()), 1) if region == "class" else 0
    return _score(state, quantity, labels, region, centered, classes)


@partial(jax.jit, static_argnames=("quantity", "region", "centered", "classes"), inline=True)
def _score(state: State, quantity: str, labels: Array, region: str, centered: bool, classes: int) -> Array:
    if quantity in RATIOS:
        above, below = (deviation(state, name, centered) for name in RATIOS[quantity])
        if region == "peak":
            return _peak(above / jnp.maximum(below + RATIO_FLOOR * jnp.median(below), 1e-12))
        return _over(above, labels, region, classes) / jnp.maximum(_over(below, labels, region, classes), 1e-12)
    return _over(deviation(state, quantity, centered), labels, region, classes)


def _over(deviations: Array, labels: Array, region: str, classes: int) -> Array:
    factor = labels.shape[1] // deviations.shape[1]
    given = labels[(slice(None), *(slice(factor // 2, None, factor),) * (labels.ndim - 1))]
    if region == "image":
        return spatial.mean(deviations)
    if region == "foreground":
        wide = _dilated(given > 0, max(min(deviations.shape[1:]) // 10, 1))
        return _mean_where(deviations, wide | ~jnp.any(wide, axis=tuple(range(1, wide.ndim)), keepdims=True))
    if region == "peak":
        return _peak(deviations)
    each = [_z(deviations, given == c) for c in range(1, classes + 1)]
    highest = jnp.max(jnp.stack(each), axis=0)
    return jnp.where(jnp.isfinite(highest), highest, 0)


def _peak(values: Array) -> Array:
    return jnp.quantile(values.reshape(len(values), -1), PEAK_QUANTILE, axis=1)


def _dilated(mask: Array, by: int) -> Array:
    window = (1, *(2 * by + 1,) * (mask.ndim - 1))
    return jax.lax.reduce_window(mask.astype(jnp.float32), 0.0, jax.lax.max, window, (1,) * mask.ndim, "SAME") > 0


def _mean_where(values: Array, mask: Array) -> Array:
    axes = tuple(range(1, values.ndim))
    return jnp.sum(values, axis=axes, where=mask) / jnp.maximum(jnp.sum(mask, axis=axes), 1)


def _z(deviations: Array, mask: Array) -> Array:
    """Of the mean over the mask, among the images that have one; −∞ for the others."""
    values, known = _mean_where(deviations, mask), jnp.any(mask, axis=tuple(range(1, mask.ndim)))
    mean, deviation = jnp.mean(values, where=known), jnp.std(values, where=known)
    return jnp.where(known, (values - mean) / jnp.maximum(deviation, 1e-12), -jnp.inf)
