"""Occlusion: how much the score falls when a window, or a region, of the image is replaced by a baseline.

    d_k = f(x) − f(x with window k replaced)
    map(x) = mean of d_k over the windows that cover a voxel            (a partition: the d of its region)

Windows start at multiples of the stride; the last ones may reach over the border, so that every voxel is covered. A
stride above 1 evaluates fewer windows; `upsample` then interpolates between their middles in place of averaging.

Source: Zeiler & Fergus, ECCV 2014. Averaging over the windows that cover a voxel as in Captum.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Scalar

from medjax.errors import DataError
from medjax.shortcuts.attribution.baseline import Baseline, baseline_image
from medjax.shortcuts.attribution.samples import values_over
from medjax.shortcuts.attribution.target import AnyArray, Attribution, Image, Score, at_image

Sides = int | tuple[int, ...]


def occlusion(
    score: Score,
    window: Sides,
    stride: Sides | None = None,
    baseline: Baseline = 0.0,
    upsample: bool = False,
    chunk: int = 1,
) -> Attribution:
    """Occlusion by windows: x → map (*space, 1). All channels are replaced at once.

    Args:
        score: f(x) of one image.
        window: sides of the window, voxels; one number for all axes.
        stride: steps between windows, voxels, at most `window`; None: the window, so that windows tile the image.
        baseline: what replaces the voxels: a number, an image or a function of x.
        upsample: interpolate the windows' values linearly between their middles (constant beyond the outer ones); else
            average the windows that cover a voxel.
        chunk: occluded images at a time.

    Raises:
        DataError: (when called) a side or a stride does not fit the image, or `chunk` is below 1.
    """
    spread = _linear if upsample else _coverage

    def attribute(x: Image) -> Float[Array, "*space 1"]:
        sides, steps = _window(window, stride, x.shape[:-1])
        values = window_scores(score, window, stride, baseline, chunk)(x)
        for axis, (size, side, step) in enumerate(zip(x.shape[:-1], sides, steps, strict=True)):
            weights = jnp.asarray(spread(size, side, step, values.shape[axis]), values.dtype)
            values = jnp.moveaxis(jnp.tensordot(weights, values, (1, axis), precision="highest"), 0, axis)
        return values[..., None]

    return attribute


def window_scores(
    score: Score, window: Sides, stride: Sides | None = None, baseline: Baseline = 0.0, chunk: int = 1
) -> Callable[[Image], Float[Array, "*windows"]]:
    """Fall of the score for each window, on the windows' own grid: x → d (*windows). Arguments as `occlusion`.

    Raises:
        DataError: as `occlusion`.
    """

    def values(x: Image) -> Float[Array, "*windows"]:
        x = jnp.asarray(x)
        space = x.shape[:-1]
        sides, steps = _window(window, stride, space)
        grid = tuple(-(-max(size - side, 0) // step) + 1 for size, side, step in zip(space, sides, steps, strict=True))

        def covered(n: Array) -> Array:
            inside = jnp.ones(space, bool)
            for axis, start in enumerate(jnp.unravel_index(n, grid)):
                at = jnp.arange(space[axis]).reshape([-1 if a == axis else 1 for a in range(len(space))])
                first = start * steps[axis]
                inside &= (at >= first) & (at < first + sides[axis])
            return inside

        return _falls(score, x, baseline, covered, int(np.prod(grid)), chunk).reshape(grid)

    return values


def region_occlusion(
    score: Score, labels: Int[AnyArray, "*space"], regions: int, baseline: Baseline = 0.0, chunk: int = 1
) -> Attribution:
    """Occlusion by regions of a partition: x → map (*space, 1), in each region the score's fall without it.

    Args:
        score: f(x) of one image.
        labels: region 0 … regions − 1 of each voxel; −1 in none, where the map is 0.
        regions: number of regions.
        baseline: what replaces the voxels.
        chunk: occluded images at a time.

    Raises:
        DataError: (when called) labels have another shape than the image or are out of range; `regions` or `chunk` is
            below 1.
    """
    check_labels(labels, regions)

    def attribute(x: Image) -> Float[Array, "*space 1"]:
        x, own = jnp.asarray(x), jnp.asarray(labels)
        if own.shape != x.shape[:-1]:
            raise DataError(f"labels: shape {own.shape}; the image has {x.shape[:-1]}")
        falls = _falls(score, x, baseline, lambda n: own == n, regions, chunk)
        return jnp.where(own < 0, 0, falls[jnp.maximum(own, 0)])[..., None]

    return attribute


def check_labels(labels: Int[AnyArray, "*space"], regions: int) -> None:
    """Check that labels are −1 … regions − 1, where they are not traced.

    Raises:
        DataError: they are not.
    """
    if isinstance(labels, jax.core.Tracer) or not labels.size:
        return
    lowest, highest = np.min(np.asarray(labels)), np.max(np.asarray(labels))  # on the host, also within `jit`
    if not -1 <= lowest <= highest < regions:
        raise DataError(f"labels: {lowest} … {highest}; expected −1 (no region) … {regions - 1}")


def _falls(
    score: Score, x: Array, baseline: Baseline, covered: Callable[[Array], Array], number: int, chunk: int
) -> Float[Array, "number"]:
    """f(x) − f(x with what `covered(n)` covers replaced), for n = 0 … number − 1."""
    nothing, own = baseline_image(baseline, x), at_image(score, x)

    def occluded(n: Array) -> Scalar:
        return own(jnp.where(covered(n)[..., None], nothing, x))

    return own(x) - values_over(occluded, number, chunk)


def _window(window: Sides, stride: Sides | None, space: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sides and strides of all axes."""
    sides = (window,) * len(space) if isinstance(window, int) else tuple(window)
    steps = sides if stride is None else (stride,) * len(space) if isinstance(stride, int) else tuple(stride)
    if len(sides) != len(space) or not all(1 <= side <= size for side, size in zip(sides, space, strict=True)):
        raise DataError(f"window: {window}; expected sides of 1 voxel up to the image's {space}")
    if len(steps) != len(space) or not all(1 <= step <= side for step, side in zip(steps, sides, strict=True)):
        raise DataError(f"stride: {stride}; expected 1 voxel up to the window's {sides} along each axis")
    return sides, steps


def _coverage(size: int, side: int, step: int, windows: int) -> np.ndarray:
    """Weights (voxel, window) of the mean over the windows that cover a voxel of an axis."""
    away = np.arange(size)[:, None] - step * np.arange(windows)
    covers = (away >= 0) & (away < side)
    return covers / covers.sum(1, keepdims=True)


def _linear(size: int, side: int, step: int, windows: int) -> np.ndarray:
    """Weights (voxel, window) of linear interpolation between the windows' middles along an axis."""
    at = np.clip((np.arange(size) - (side - 1) / 2) / step, 0, windows - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(windows)), 0)
