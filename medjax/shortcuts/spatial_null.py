"""Null distributions of a correlation between two profiles over regions, and the p-value that each gives.

    perms = permutations(key, regions, 10_000)              as published; ignores that neighbours resemble each other
    shifts = torus_shifts((7, 7))                           a grid: all 392 shifts, flips and rotations
    shifts = mirrored_shifts((7, 7))                        the same number, without the torus's seam
    maps = surrogate_maps(key, u, distances, 1000)          atlases, SLIC: medjax.shortcuts.surrogates

    null_p(u, v, perms)     null_p(u, v, shifts, exact=True)     null_p(u, v, maps)

A null transforms the first argument, u, and keeps the second. Of the three correlations of x and y given z,

    pairwise        u = x                   v = y
    partial         u = residual(x, z)      v = residual(y, z)
    semi-partial    u = residual(x, z)      v = y

One index array serves every u and v over the same regions. Attribution maps are smooth over several cells, so their
profiles correlate by chance far more often than independent values do. Measured false-positive rates at α = 0.05, for
fields smoothed by σ cells (`scripts/calibration_nulls.py`):

    grid, σ             7×7, 1.0    7×7, 1.5    7×7, 2.5    14×14, 1.5    14×14, 2.5
    permutations           0.40        0.52        0.65          0.56          0.70
    torus shifts           0.09        0.15        0.28          0.08          0.11
    mirrored shifts        0.05        0.06        0.06          0.05          0.06
    surrogates             0.05        0.08        0.13          0.05          0.06

Source: permutation and p as in Achara et al., OSCAR, arXiv 2512.18888; the 1 + … of Phipson & Smyth, Statistical
Applications in Genetics and Molecular Biology 9(1), 2010; torus shifts of Lotwick & Silverman, Journal of the Royal
Statistical Society B 44(3), 1982.
"""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real, Scalar

from medjax.errors import ConfigError
from medjax.metrics.correlation import normalize

AnyArray = Array | np.ndarray
MAX_ENTRIES = 2**25  # of an index array: 128 MiB


def permutations(key: PRNGKeyArray, regions: int, number: int) -> Int[np.ndarray, "{number} {regions}"]:
    """Random permutations of the regions, drawn on the host: sorting is XLA's weak spot on CPUs.

    Raises:
        ConfigError: no region or no permutation.
    """
    if regions < 1 or number < 1:
        raise ConfigError(f"regions, number: {regions}, {number}; expected 1 or more of each")
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    rows = np.broadcast_to(np.arange(regions, dtype=np.int32), (number, regions))
    return draw.permuted(rows, axis=1)


def torus_shifts(cells: tuple[int, ...], symmetries: bool = True) -> Int[np.ndarray, "number region"]:
    """All shifts of a grid that wraps around, each with every flip and every exchange of axes of equal length.

    A flip and an exchange make a rotation. Each transformation stands once, the identity first: 7×7 cells have
    49 · 4 · 2 = 392 and 7×8 cells 56 · 4 = 224. Row g lists, for each cell in C order, the cell whose value it takes.

    They are a group: where the distribution of u does not change under it (a stationary and isotropic field on a
    torus), the rank of r among all |r_g| gives an exact p-value. Maps are not periodic: the seam where opposite edges
    meet makes shifted maps rougher than the map, and p too small where σ exceeds about a tenth of the grid.

    Args:
        cells: number of cells along each axis.
        symmetries: flips and exchanges of axes; without them, shifts only.

    Raises:
        ConfigError: no axis, an axis without cells, or an array of more than 2²⁵ numbers.
    """
    index = _grid(cells)
    points = _point_group(index) if symmetries else [index]
    _check_size(cells, len(points) * index.size, symmetries)
    axes = tuple(range(index.ndim))
    return np.stack([np.roll(point, step, axes).ravel() for point in points for step in np.ndindex(*cells)])


def mirrored_shifts(cells: tuple[int, ...], symmetries: bool = True) -> Int[np.ndarray, "number region"]:
    """All windows of a grid continued by its mirror images, each with every exchange of axes of equal length.

    A mirrored map of twice the length along each axis is periodic without a seam. Windows of the grid's size at all its
    shifts hold the map, its flips (with exchanges, rotations) and mixtures of a part and its mirror image: 7×7 cells
    have 14 · 14 · 2 = 392. Each stands once, the map itself first. They are no group, and a row may repeat cells; the
    p-value is approximate, and the closest to uniform of all nulls here on smooth fields.

    Args:
        cells: number of cells along each axis.
        symmetries: exchanges of axes.

    Raises:
        ConfigError: as `torus_shifts`.
    """
    index = _grid(cells)
    axes = tuple(range(index.ndim))
    _check_size(cells, 2**index.ndim * index.size * (len(_equal_orders(index)) if symmetries else 1), symmetries)
    mirrored = np.pad(index, [(0, length) for length in cells], mode="symmetric")
    window = tuple(slice(length) for length in cells)
    distinct = {}
    for order in _equal_orders(index) if symmetries else [axes]:
        for step in np.ndindex(*mirrored.shape):
            row = np.roll(mirrored.transpose(order), step, axes)[window].ravel()
            distinct.setdefault(row.tobytes(), row)
    return np.stack(list(distinct.values()))


def _grid(cells: tuple[int, ...]) -> Int[np.ndarray, "..."]:
    if not cells or min(cells) < 1:
        raise ConfigError(f"cells: {cells}; expected 1 or more along each axis")
    return np.arange(math.prod(cells), dtype=np.int32).reshape(cells)


def _check_size(cells: tuple[int, ...], number: int, symmetries: bool) -> None:
    if number * math.prod(cells) > MAX_ENTRIES:
        fewer = "; symmetries=False gives fewer" * symmetries
        raise ConfigError(f"cells: {cells} have {number} transformations of as many regions: too large an array{fewer}")


def _equal_orders(index: Int[np.ndarray, "..."]) -> list[tuple[int, ...]]:
    """The orders of axes that keep the shape."""
    return [order for order in itertools.permutations(range(index.ndim)) if index.transpose(order).shape == index.shape]


def _point_group(index: Int[np.ndarray, "..."]) -> list[np.ndarray]:
    """The distinct flips and axis exchanges that keep the first cell, i → −i modulo the length along some axes.

    Two of them that differ, differ after any shift too. Axes of one or two cells do not change when flipped.
    """
    axes = range(index.ndim)
    distinct = {}
    for order, flipped in itertools.product(_equal_orders(index), itertools.product((False, True), repeat=index.ndim)):
        along = tuple(axis for axis in axes if flipped[axis])
        point = np.roll(np.flip(index.transpose(order), along), 1, along) if along else index.transpose(order)
        distinct.setdefault(point.tobytes(), point)
    return list(distinct.values())


@partial(jax.jit, inline=True)
def null_correlations(
    u: Real[AnyArray, " region"], v: Real[AnyArray, " region"], null: Real[AnyArray, "number region"]
) -> Float[Array, " number"]:
    """Pearson's r of each transformed u with v: one gather, if `null` is an index array, and one product with v.

    NaN if u or v is constant.
    """
    maps = normalize(u)[jnp.asarray(null)] if jnp.issubdtype(null.dtype, jnp.integer) else null
    return jnp.matmul(normalize(maps), normalize(v), precision=Precision.HIGHEST)  # rows may repeat regions


@partial(jax.jit, static_argnames="exact", inline=True)
def null_p(
    u: Real[AnyArray, " region"],
    v: Real[AnyArray, " region"],
    null: Real[AnyArray, "number region"],
    exact: bool = False,
) -> Scalar:
    """Two-sided p-value of Pearson's r(u, v) under a null that transforms u.

        random transformations    p = (1 + #{|r_b| ≥ |r|}) / (B + 1)
        all of a set (exact)      p = #{|r_g| ≥ |r|} / G, the identity among them

    |r_b| that differ from |r| by rounding are equal. NaN if u or v is constant or not finite; a surrogate that is
    counts as extreme.

    Args:
        u: the profile, or residual, that the null transforms.
        v: the other one.
        null: integers: each row indices of u, from `permutations`, `torus_shifts` or `mirrored_shifts`; otherwise
            each row a surrogate map of u.
        exact: whether the rows are all of a set, with the identity, as those of both kinds of shifts are.
    """
    r = jnp.dot(normalize(u), normalize(v), precision=Precision.HIGHEST)
    extreme = jnp.sum(~(jnp.abs(null_correlations(u, v, null)) < jnp.abs(r) - 100 * jnp.finfo(r.dtype).eps))
    p = extreme / null.shape[0] if exact else (1 + extreme) / (null.shape[0] + 1)
    return jnp.where(jnp.isnan(r), jnp.nan, p)
