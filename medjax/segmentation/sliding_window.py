"""Sliding-window prediction: overlapping tiles with Gaussian weights, averaged over mirrored copies.

    logits = predict(apply, [params], volume, tile=(64, 64, 64))       volume (x, y, z, channel) → (x, y, z, class)
    logits = predict(apply, [of_one_fold, of_another], volume, tile=(64, 64, 64))      mean of an ensemble

A mirrored tile is one more tile, so that tiles and mirrorings fill batches of one static shape. Images are padded to
whole tiles, along an axis of one-voxel tiles (slices) to a power of two, and share what is compiled for that shape; the
padding is not predicted. Any number of axes.

Source: Isensee et al., Nature Methods 18, 2021; rules for steps and weights from the authors' nnU-Net v2.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree
from scipy import ndimage

from medjax.errors import ConfigError, DataError

Apply = Callable[[PyTree, Array], Array]  # (params, (batch, *tile, channel)) → logits (batch, *tile, class)
Volume = Float[Array, "*space channel"] | Float[np.ndarray, "*space channel"]


def tile_starts(shape: tuple[int, ...], tile: tuple[int, ...], step: float = 0.5) -> Int[np.ndarray, "tiles axes"]:
    """First voxels of the tiles that cover an image: equally spaced along each axis, the last one ends at the border.

    ⌈(side − tile) / (step · tile)⌉ + 1 tiles an axis, so neighbours are about `step` tiles apart or less; one tile, at
    0, where the image is no larger than a tile, and never two at one place: tiles of one slice are all slices. The
    first axis changes slowest.

    Raises:
        ConfigError: tile and shape of unequal length, a tile's side below 1, a step outside (0, 1].
    """
    if len(tile) != len(shape) or min(tile) < 1:
        raise ConfigError(f"tile: {tile}; expected {len(shape)} whole numbers of at least 1")
    if not 0 < step <= 1:
        raise ConfigError(f"step: {step}; expected more than 0 and at most 1, in tiles")
    along = []
    for side, part in zip(shape, tile, strict=True):
        last = max(side - part, 0)
        number = min(int(np.ceil(last / (step * part))), last) + 1
        along.append(np.round(np.linspace(0, last, number)).astype(np.int32))
    return np.array(list(itertools.product(*along)), np.int32)


def gaussian_importance(tile: tuple[int, ...]) -> Float[np.ndarray, "*space"]:
    """Gaussian importance weights of a tile's voxels: sd of tile / 8, truncated at four sd, maximum 10.

    Where the Gaussian is truncated the weight is the smallest positive one.
    """
    weight = np.ones(())
    for side in tile:
        point = np.zeros(side)
        point[side // 2] = 1.0
        weight = np.multiply.outer(weight, ndimage.gaussian_filter1d(point, side / 8, mode="constant"))
    weight *= 10 / weight.max()
    return np.maximum(weight, weight[weight > 0].min()).astype(np.float32)


def predict(
    apply: Apply,
    networks: Sequence[PyTree],
    volume: Volume,
    tile: tuple[int, ...],
    step: float = 0.5,
    mirror: tuple[int, ...] = (0, 1, 2),
    batch: int = 1,
) -> Float[Array, "*space class"]:
    """Logits Σ_t w_t f(tile t) / Σ_t w_t of every voxel, over the tiles of `tile_starts` and all flips along `mirror`.

    An image smaller than a tile is padded with zeros on all sides. Sums are float32. Compiled once for each `apply` (so
    pass the same function again), tile, step, batch, number of mirrored axes and shape in whole tiles; parameters and
    image are traced.

    Args:
        networks: parameters of one network, or of an ensemble whose logits are averaged, say the folds of a
            cross-validation.
        tile: voxels along each axis.
        step: distance of neighbouring tiles, in tiles.
        mirror: axes of test-time mirroring.
        batch: tiles in a batch, mirrored ones too.

    Raises:
        ConfigError: a tile or step that `tile_starts` refuses, a mirrored axis that the image has not, a batch below 1.
        DataError: no network, an empty image, or an `apply` that gives several levels or logits of another shape than
            the tile.
    """
    space = volume.shape[:-1]
    if not networks:
        raise DataError("networks: none; expected the parameters of at least one")
    if 0 in volume.shape:
        raise DataError(f"volume: shape {tuple(volume.shape)}; expected at least one voxel and channel")
    if len(set(mirror)) != len(mirror) or not set(mirror) <= set(range(len(space))):
        raise ConfigError(f"mirror: {mirror}; expected different axes out of {tuple(range(len(space)))}")
    if batch < 1:
        raise ConfigError(f"batch: {batch}; expected at least 1")
    corners = tile_starts(space, tile, step)
    bucket = tuple(_bucket(side, part) for side, part in zip(space, tile, strict=True))
    before = [max(part - side, 0) // 2 for side, part in zip(space, tile, strict=True)]
    around = [(low, whole - low - side) for low, whole, side in zip(before, bucket, space, strict=True)]
    padded = np.pad(np.asarray(volume, np.float32), [*around, (0, 0)])
    room = -(-len(tile_starts(bucket, tile, step)) * 2 ** len(mirror) // batch) * batch
    jobs = _jobs(corners, mirror, room)
    turns = np.int32(-(-len(corners) * 2 ** len(mirror) // batch))
    each = (_run(apply, params, padded, gaussian_importance(tile), *jobs, turns, batch=batch) for params in networks)
    found = functools.reduce(jnp.add, each) / len(networks)
    return found[tuple(slice(low, low + side) for low, side in zip(before, space, strict=True))]


def _bucket(side: int, part: int) -> int:
    """Whole tiles that hold a side; of tiles of one voxel a power of two, for numbers of slices are many."""
    return 1 << (side - 1).bit_length() if part == 1 else -(-max(side, part) // part) * part


def _jobs(corners: np.ndarray, mirror: tuple[int, ...], room: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corner, flipped axes and weight of every tile in each of its mirrorings, padded with weight 0 to `room`."""
    axes = corners.shape[1]
    flips = np.array(list(itertools.product(*((False, True) if axis in mirror else (False,) for axis in range(axes)))))
    number = len(corners) * len(flips)
    spare = [(0, room - number), (0, 0)]
    first = np.pad(np.repeat(corners, len(flips), axis=0), spare)
    return first, np.pad(np.tile(flips, (len(corners), 1)), spare), (np.arange(room) < number).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("apply", "batch"))
def _run(
    apply: Apply,
    params: PyTree,
    volume: Array,
    weight: Array,
    corners: Array,
    flips: Array,
    counts: Array,
    turns: Array,
    batch: int,
) -> Array:
    """Weighted mean of the logits over the first `turns` batches: traced, for images of one bucket differ in it."""
    tile, axes = weight.shape, weight.ndim

    def flipped(part: Array, flags: Array) -> Array:
        for axis in range(axes):
            part = jnp.where(flags[axis], jnp.flip(part, axis), part)
        return part

    def cut(corner: Array, flags: Array) -> Array:
        part = jax.lax.dynamic_slice(volume, (*corner, 0), (*tile, volume.shape[-1]))
        return flipped(part, flags)

    def add(total: Array, job: tuple[Array, ...]) -> tuple[Array, None]:
        logits, corner, flags, count = job
        ones = jnp.ones((*tile, 1), jnp.float32)
        part = jnp.concatenate([flipped(logits, flags).astype(jnp.float32), ones], -1) * (count * weight)[..., None]
        there = jax.lax.dynamic_slice(total, (*corner, 0), part.shape)
        return jax.lax.dynamic_update_slice(total, there + part, (*corner, 0)), None

    def turn(number: Array, total: Array) -> Array:
        first = number * batch
        of_batch = [jax.lax.dynamic_slice_in_dim(each, first, batch) for each in (corners, flips, counts)]
        logits = apply(params, jax.vmap(cut)(*of_batch[:2]))
        return jax.lax.scan(add, total, (logits, *of_batch))[0]

    classes = _classes(apply, params, (batch, *tile, volume.shape[-1]))
    total = jax.lax.fori_loop(0, turns, turn, jnp.zeros((*volume.shape[:-1], classes + 1), jnp.float32))
    sums = total[..., -1:]
    return total[..., :-1] / jnp.where(sums > 0, sums, 1.0)


def _classes(apply: Apply, params: PyTree, shape: tuple[int, ...]) -> int:
    """Number of classes of the network, if it gives logits of one level for the tile's voxels."""
    logits = jax.eval_shape(apply, params, jax.ShapeDtypeStruct(shape, jnp.float32))
    if isinstance(logits, tuple | list):
        raise DataError(f"apply: gives {len(logits)} levels of logits; expected the finest alone")
    if logits.shape[:-1] != shape[:-1]:
        raise DataError(f"apply: gives shape {logits.shape} for {shape}; expected (batch, *tile, class)")
    return logits.shape[-1]
