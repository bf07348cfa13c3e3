"""Variance of gradients (VOG) while a network trains: how each image's gradient map changes from probe to probe.

    state = init(images, space)
    state = update(state, index, maps)        after each probe of the images `index`
    score(state, "difference_over_own", labels, "peak")    high: the label is suspect

Mean and squared deviations are kept (Welford), not the maps, so memory does not grow with the number of probes. They
may be kept for blocks of voxels (`pool`) or as bfloat16. States of disjoint probes merge; order does not matter.

As published, VOG ranks how *difficult* an image is before it ranks how wrong its label is. Relative readings divide by
the VOG of the same image for the label that the network predicts: a difficult image is difficult for both.

Source: Agarwal et al., CVPR 2022; merging after Chan et al., 1979. What segmentation leaves open (which scalar, which
voxels, which normalisation) is a choice here, see `READINGS` and `REGIONS`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from medjax.errors import ConfigError
from medjax.training import spatial

RELATIVE = {  # reading: (above, below) of the quotient
    "logit_over_own": ("gt_logit", "own_logit"),
    "loss_over_own": ("loss", "own_loss"),
    "difference_over_own": ("gt_minus_own", "own_loss"),
}
DIFFERENCE = {"gt_minus_own": ("gt_logit", "own_logit")}
READINGS = ("gt_logit", "own_logit", "gt_prob", "loss", "own_loss", "gt_minus_own", *RELATIVE)
REGIONS = ("image", "foreground", "class", "peak")
PEAK, FLOOR = (
    0.95,
    0.1,
)  # the quantile of a peak; what is added below, in medians over all images


class State(NamedTuple):
    """Of every image: the number of probes, and the mean and summed squared deviation of every kind of map."""

    count: Int[Array, " image"]
    mean: dict[str, Float[Array, "image *space"]]
    squares: dict[str, Float[Array, "image *space"]]


def init(images: int, space: tuple[int, ...], maps: tuple[str, ...], pool: int = 1, dtype: Any = jnp.float32) -> State:
    """Nothing seen of `images` images. `maps` names what will be given; space shrinks by `pool` along every axis.

    Raises:
        ConfigError: `pool` does not divide the space.
    """
    if any(side % pool for side in space):
        raise ConfigError(f"VOG: blocks of {pool} in {space} voxels; expected a divisor of every side")
    empty = {name: jnp.zeros((images, *(side // pool for side in space)), dtype) for name in maps}
    return State(jnp.zeros(images, jnp.int32), empty, {name: jnp.zeros_like(one) for name, one in empty.items()})


def maps_for(reading: str) -> tuple[str, ...]:
    """The kinds of map that a reading needs."""
    return RELATIVE.get(reading, (reading,))


def gradients_for(reading: str) -> tuple[str, ...]:
    """The gradients, see `probe.probe`, that a reading's maps are made of."""
    return tuple(part for name in maps_for(reading) for part in DIFFERENCE.get(name, (name,)))


def with_difference(maps: Mapping[str, Array]) -> dict[str, Array]:
    """Also the gradient of logit_y − logit_ŷ, which by linearity needs no pass of its own, where both are there."""
    if not {"gt_logit", "own_logit"} <= set(maps):
        return dict(maps)
    return {**maps, "gt_minus_own": maps["gt_logit"] - maps["own_logit"]}


def update(state: State, index: Int[Array, " batch"], maps: Mapping[str, Float[Array, "batch *space"]]) -> State:
    """With one more probe of the images `index`: n ← n + 1, δ = x − m, m ← m + δ / n, s ← s + δ (x − m)."""
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


def merge(one: State, other: State) -> State:
    """As if the probes of both had been made in one run."""
    total = one.count + other.count

    def shaped(values: Array, like: Array) -> Array:
        return values.reshape(-1, *(1,) * (like.ndim - 1)).astype(like.dtype)

    def means(a: Array, b: Array) -> Array:
        share = shaped(other.count / jnp.maximum(total, 1), a)
        return a + share * (b - a)

    def sums(a: Array, b: Array, mean_a: Array, mean_b: Array) -> Array:
        weight = shaped(one.count * other.count / jnp.maximum(total, 1), a)
        return a + b + weight * (mean_b - mean_a) ** 2

    return State(
        total,
        jax.tree.map(means, one.mean, other.mean),
        jax.tree.map(sums, one.squares, other.squares, one.mean, other.mean),
    )


def deviation(state: State, name: str, centered: bool = True) -> Float[Array, "image *space"]:
    """√(Σ (x − m)² / n) over the probes, which the source calls variance; not `centered`: √(Σ x² / n)."""
    n = jnp.maximum(state.count, 1).reshape(-1, *(1,) * (state.squares[name].ndim - 1))
    square = jnp.maximum(state.squares[name].astype(jnp.float32), 0) / n
    return jnp.sqrt(square if centered else square + state.mean[name].astype(jnp.float32) ** 2)


def score(
    state: State,
    reading: str,
    labels: Int[Array, "image *space"],
    region: str = "image",
    centered: bool = True,
) -> Float[Array, " image"]:
    """Each image's VOG: its deviation over a region, or for a relative reading the quotient of two.

    Regions: "image", the mean; "foreground", the mean over the given label's structures, made wider by a tenth of the
    shorter side (over all of an image whose label has none); "class", the largest over structures of the mean's z-score
    among the images that have it (0 for one that has none); "peak", the 95th percentile over voxels, which for a
    relative reading is of the quotient at each voxel. Deviations are about the mean, or `centered=False` about zero.

    Raises:
        ConfigError: no such reading or region, or "class" of a relative reading.
    """
    if reading not in READINGS or region not in REGIONS or (reading in RELATIVE and region == "class"):
        known = f"{', '.join(READINGS)}; {', '.join(REGIONS)}"
        raise ConfigError(f"VOG: reading {reading}, region {region}; expected one of {known}; class of no quotient")
    if reading in RELATIVE:
        above, below = (deviation(state, name, centered) for name in RELATIVE[reading])
        if region == "peak":
            return _peak(above / jnp.maximum(below + FLOOR * jnp.median(below), 1e-12))
        return _over(above, labels, region) / jnp.maximum(_over(below, labels, region), 1e-12)
    return _over(deviation(state, reading, centered), labels, region)


def _over(deviations: Array, labels: Array, region: str) -> Array:
    factor = labels.shape[1] // deviations.shape[1]
    given = labels[(slice(None), *(slice(factor // 2, None, factor),) * (labels.ndim - 1))]
    if region == "image":
        return spatial.mean(deviations)
    if region == "foreground":
        wide = _dilated(given > 0, max(min(deviations.shape[1:]) // 10, 1))
        return _mean_where(deviations, wide | ~jnp.any(wide, axis=tuple(range(1, wide.ndim)), keepdims=True))
    if region == "peak":
        return _peak(deviations)
    each = [_z(deviations, given == c) for c in range(1, max(int(labels.max()), 1) + 1)]
    highest = jnp.max(jnp.stack(each), axis=0)
    return jnp.where(jnp.isfinite(highest), highest, 0)


def _peak(values: Array) -> Array:
    return jnp.quantile(values.reshape(len(values), -1), PEAK, axis=1)


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
