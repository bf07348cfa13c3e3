"""Bias and standard deviation of reconstructions over noise realizations, with bootstrap confidence bands.

    study = bias_variance(key, expected, truth, {"OSEM": osem, "MAP-EM": map_em}, {"tumour": mask}, realizations=100)
    study["OSEM"].bias[s, p, r]       mean over realizations of the mean of region r, less the true one
    study["OSEM"].sd[s, p, r]         its standard deviation over realizations (n − 1)

Method: reconstruct(counts, setting) → images at several points of its curve (iterations), and its settings, such as β.
Realization i is drawn with `fold_in(key, i)`, the same for all methods and settings. `chunk` realizations are
reconstructed at once, by `vmap`; images are not kept but summed (Chan's update), so that memory does not grow with
their number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from medjax import iterate
from medjax.errors import DataError
from medjax.iterate import Algorithm
from medjax.pet.acquisition import Acquisition, check_counts
from medjax.pet.simulate import _poisson

AnyArray = Array | np.ndarray
BATCH = 50  # bootstrap resamples at once


class Method(NamedTuple):
    """A reconstruction method, the settings that it is run with, and the points of its curve."""

    reconstruct: Callable[[Array, Array], Array]  # (counts, setting) → images "point x y z"; a `Partial`: arrays traced
    settings: Float[AnyArray, " setting"] | Sequence[float] = (0.0,)  # such as β
    points: Float[AnyArray, " point"] | Sequence[float] = (1.0,)  # such as the numbers of the iterations


class BiasVariance(NamedTuple):
    """Bias and standard deviation of a method, by setting, point and region, in the image's unit."""

    settings: Float[np.ndarray, " setting"]
    points: Float[np.ndarray, " point"]
    bias: Float[np.ndarray, "setting point region"]  # of the regions' means
    sd: Float[np.ndarray, "setting point region"]
    bias_interval: Float[np.ndarray, "end setting point region"]  # bootstrap confidence interval: low, high
    sd_interval: Float[np.ndarray, "end setting point region"]
    voxel_sd: Float[np.ndarray, "setting point region"]  # √ of the mean over a region of its voxels' variances
    bias_image: Float[np.ndarray, "setting point x y z"]  # of every voxel
    sd_image: Float[np.ndarray, "setting point x y z"]


class _Moments(NamedTuple):
    number: Array
    mean: Array
    square: Array  # Σ (x − mean)²


def bias_variance(
    key: PRNGKeyArray,
    expected: Float[AnyArray, "..."],
    truth: Float[AnyArray, "x y z"],
    methods: Mapping[str, Method],
    regions: Mapping[str, Bool[AnyArray, "x y z"]] | None = None,
    *,
    realizations: int = 50,
    chunk: int = 8,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, BiasVariance]:
    """Bias and standard deviation of each method, over realizations of counts ~ Poisson(expected).

    Args:
        key: random key; the same key gives the same result.
        expected: expected counts, in any shape that the methods take (such as that of ordered subsets).
        truth: image that the bias refers to.
        methods: methods by name.
        regions: masks by name; None: the whole image.
        realizations: number of noise realizations.
        chunk: number of realizations that are reconstructed at once; it bounds memory, and changes only rounding.
        resamples: number of bootstrap resamples of the realizations.
        level: probability of the confidence intervals.

    Raises:
        DataError: no method, fewer than two realizations, a chunk or resamples below 1, a level outside 0–1, an empty
            region, expected counts that are negative or not finite, or a method whose images are not those of its
            points.
    """
    masks = {"whole image": np.ones(truth.shape, bool)} if regions is None else regions
    _check(expected, truth, methods, masks, realizations, chunk, resamples, level)
    stacked = jnp.stack([jnp.asarray(mask, truth.dtype) / np.sum(mask) for mask in masks.values()])
    noise, draws = jax.random.split(key)
    found: dict[str, BiasVariance] = {}
    for name, method in methods.items():
        settings, points = (np.asarray(values, float) for values in (method.settings, method.points))
        reconstruct = method.reconstruct if isinstance(method.reconstruct, Partial) else Partial(method.reconstruct)
        given = jnp.asarray(settings, truth.dtype)
        shape = jax.eval_shape(reconstruct, jnp.asarray(expected), given[0]).shape
        if shape != (len(points), *truth.shape):
            raise DataError(f"{name}: images of shape {shape}; expected {(len(points), *truth.shape)}")
        moments, means = _moments(
            noise, jnp.asarray(expected), jnp.asarray(truth), reconstruct, given, stacked, realizations, chunk
        )
        variance = moments.square / (realizations - 1)
        voxel = jnp.sqrt(jnp.tensordot(variance, stacked, axes=((2, 3, 4), (1, 2, 3)), precision="highest"))
        centre = _bias_sd(means)
        ends = _intervals(draws, means, resamples, jnp.asarray(level, truth.dtype))
        arrays = (*centre, *ends, voxel, moments.mean, jnp.sqrt(variance))
        found[name] = BiasVariance(settings, points, *map(np.asarray, arrays))
    return found


def from_algorithm(
    stacked: Acquisition,
    make: Callable[[Acquisition, Array], tuple[Algorithm, Any]],
    points: int,
    settings: Float[AnyArray, " setting"] | Sequence[float] = (0.0,),
    iterations: int = 1,
) -> Method:
    """Method of an iterative algorithm: its images after every `iterations`, each of all subsets.

    Args:
        stacked: ordered subsets of the data, whose counts are replaced by each realization.
        make: (acquisition, setting) → algorithm and first state, a function of a module or a `Partial`.
        points: number of images.
        settings: settings, such as β.
        iterations: number of iterations between two images.
    """
    updates = iterations * stacked.counts.shape[0]
    run = Partial(
        iterate.static_partial(_run, points, updates), make if isinstance(make, Partial) else Partial(make), stacked
    )
    return Method(run, settings, [float(iterations * (k + 1)) for k in range(points)])


def _run(points: int, updates: int, make: Any, stacked: Acquisition, counts: Array, setting: Array) -> Array:
    algorithm, state = make(replace(stacked, counts=counts), setting)

    def point(state: Any, _: None) -> tuple[Any, Array]:
        state = iterate.repeat(algorithm, state, updates)
        return state, state.image

    return jax.lax.scan(point, state, None, length=points)[1]


@partial(jax.jit, static_argnums=(6, 7))
def _moments(
    key: Array,
    expected: Array,
    truth: Array,
    reconstruct: Any,
    settings: Array,
    regions: Array,
    realizations: int,
    chunk: int,
) -> tuple[_Moments, Array]:
    """Moments of x − truth of every voxel by setting and point, and the regions' errors of each realization."""
    size = min(chunk, realizations)
    number = -(-realizations // size)
    index = jnp.arange(number * size).reshape(number, size)

    def of_setting(setting: Array) -> tuple[_Moments, Array]:
        def one(i: Array) -> Array:
            return reconstruct(_poisson(jax.random.fold_in(key, i), expected), setting) - truth[None]

        def step(moments: _Moments, own: Array) -> tuple[_Moments, Array]:
            errors = jax.vmap(one)(own)
            held = (own < realizations).astype(errors.dtype)
            spread = held.reshape(-1, *[1] * (errors.ndim - 1))
            count = held.sum()
            mean = (errors * spread).sum(axis=0) / count
            square = (spread * (errors - mean[None]) ** 2).sum(axis=0)
            total, gap = moments.number + count, mean - moments.mean
            merged = _Moments(
                total,
                moments.mean + gap * count / total,
                moments.square + square + gap**2 * moments.number * count / total,
            )
            return merged, jnp.einsum("npxyz,rxyz->npr", errors, regions, precision="highest")

        shape = jax.eval_shape(one, index[0, 0])
        nothing = _Moments(jnp.zeros((), shape.dtype), *[jnp.zeros(shape.shape, shape.dtype)] * 2)
        moments, rows = jax.lax.scan(step, nothing, index)
        return moments, rows.reshape(-1, *rows.shape[2:])[:realizations]

    return jax.lax.map(of_setting, settings)


def _bias_sd(means: Array) -> tuple[Array, Array]:
    """Bias and standard deviation over realizations, the axis after the settings'."""
    return means.mean(axis=1), means.std(axis=1, ddof=1)


@partial(jax.jit, static_argnums=2)
def _intervals(key: Array, means: Array, resamples: int, level: Array) -> tuple[Array, Array]:
    """Percentile bootstrap intervals of bias and standard deviation over resampled realizations."""

    def resampled(one: Array) -> tuple[Array, Array]:
        chosen = jax.random.randint(jax.random.fold_in(key, one), (means.shape[1],), 0, means.shape[1])
        return _bias_sd(means[:, chosen])

    values = jax.lax.map(resampled, jnp.arange(resamples), batch_size=min(BATCH, resamples))
    ends = jnp.stack([(1 - level) / 2, (1 + level) / 2])
    bias, sd = (jnp.quantile(value, ends, axis=0) for value in values)
    return bias, sd


def _check(
    expected: Any,
    truth: Any,
    methods: Mapping[str, Method],
    masks: Mapping[str, Any],
    realizations: int,
    chunk: int,
    resamples: int,
    level: float,
) -> None:
    if not methods:
        raise DataError("methods: none; expected at least one")
    for name, value, least in (("realizations", realizations, 2), ("chunk", chunk, 1), ("resamples", resamples, 1)):
        if value < least:
            raise DataError(f"{name}: {value}; expected {least} or more")
    if not 0 < level < 1:
        raise DataError(f"level: {level:g}; expected between 0 and 1")
    check_counts("expected counts", jnp.asarray(expected))
    for name, mask in masks.items():
        if mask.shape != truth.shape:
            raise DataError(f"region {name}: mask of shape {mask.shape}; the true image has {truth.shape}")
        if not np.any(mask):
            raise DataError(f"region {name}: no voxel; expected at least one")
