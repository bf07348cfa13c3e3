"""Surface distances: Hausdorff distance and its 95th percentile (HD95), ASSD, NSD.

Tools that share a name differ by more than 100 mm on the same masks, because they differ in convention (Podobnik &
Vrtovec, arXiv 2410.02630). Here the convention is part of the name, and one call gives all of them.

Masks are boolean, of any rank; spacing is in mm along each axis (1 mm without one), and so are distances. Where both
masks are empty there is nothing to measure and every metric is NaN. Where one is empty the other's surface is
infinitely far from it: distances are infinite, so that a mean over cases shows the failure, or `one_empty`, for which
`image_diagonal` is the largest distance that an image allows; the NSD is 0. All functions jit and vmap. On a CPU
`jax.lax.map` over a batch is twice as fast as vmap, where each image waits for the slowest.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Integer, Real, Scalar, Shaped

from medjax.errors import DataError
from medjax.metrics.distance import AnyArray, Spacing, checked_spacing, distances_to, require_mask

Number = float | int | Real[AnyArray, ""]


@partial(jax.jit, inline=True)
def surface(mask: Bool[AnyArray, "*space"]) -> Bool[Array, "*space"]:
    """Surface voxels of a mask: those with a face neighbour outside it or beyond the border of the image.

    The same as mask & ~`scipy.ndimage.binary_erosion(mask)`, which MONAI and MedPy (connectivity 1) take.
    """
    mask = inner = jnp.asarray(mask, bool)
    for axis, side in enumerate(mask.shape):
        padded = jnp.pad(mask, [(int(axis == other),) * 2 for other in range(mask.ndim)])
        inner &= lax.slice_in_dim(padded, 0, side, axis=axis) & lax.slice_in_dim(padded, 2, side + 2, axis=axis)
    return mask & ~inner


class SurfaceDistances(NamedTuple):
    """Distances in mm on each surface to the other one; NaN off the surface, so NumPy's nan-functions read them."""

    prediction: Float[Array, "*space"]  # on the prediction's surface, to the reference's
    reference: Float[Array, "*space"]  # on the reference's surface, to the prediction's


def surface_distances(
    prediction: Bool[AnyArray, "*space"], reference: Bool[AnyArray, "*space"], spacing: Spacing | None = None
) -> SurfaceDistances:
    """Surface distances: from each surface voxel of either mask to the nearest one of the other, mm; see `surface`.

    If one mask is empty the other's distances are infinite.

    Raises:
        DataError: a mask is not boolean, shapes differ, or the spacing is not one positive number per axis.
    """
    require_mask("prediction", prediction)
    require_mask("reference", reference)
    if prediction.shape != reference.shape:
        raise DataError(f"prediction: shape {prediction.shape}; the reference has {reference.shape}")
    return _surface_distances(prediction, reference, checked_spacing(prediction, spacing))


@partial(jax.jit, inline=True)
def _surface_distances(prediction: Array, reference: Array, steps: Array) -> SurfaceDistances:
    ours, theirs = surface(prediction), surface(reference)
    forth, back = distances_to(theirs, steps, ours), distances_to(ours, steps, theirs)
    return SurfaceDistances(jnp.where(ours, forth, jnp.nan), jnp.where(theirs, back, jnp.nan))


@partial(jax.jit, inline=True)
def hausdorff(distances: SurfaceDistances, one_empty: Number = np.inf) -> Scalar:
    """Hausdorff distance in mm, the largest of all surface distances; `one_empty` if one mask is, NaN if both are."""
    return _unless_empty(distances, jnp.maximum(*(jnp.nanmax(each, initial=0) for each in distances)), one_empty)


@partial(jax.jit, inline=True)
def hausdorff_percentile_max(
    distances: SurfaceDistances, percentile: Number = 95, one_empty: Number = np.inf
) -> Scalar:
    """Hausdorff percentile (HD95), the larger of the two directed ones, mm, as MONAI; 0–100, linear as NumPy's.

    `one_empty` if one mask is; NaN if both are or the percentile is out of its range.
    """
    larger = jnp.maximum(*(_percentile(each[None], percentile) for each in distances))
    return _unless_empty(distances, larger, one_empty)


@partial(jax.jit, inline=True)
def hausdorff_percentile_pooled(
    distances: SurfaceDistances, percentile: Number = 95, one_empty: Number = np.inf
) -> Scalar:
    """Hausdorff percentile (HD95) of both surfaces' distances pooled, mm, as MedPy; 0–100, linear as NumPy's.

    `one_empty` if one mask is; NaN if both are or the percentile is out of its range.
    """
    return _unless_empty(distances, _percentile(jnp.stack(distances), percentile), one_empty)


@partial(jax.jit, inline=True)
def average_distance_pooled(distances: SurfaceDistances, one_empty: Number = np.inf) -> Scalar:
    """Average symmetric surface distance (ASSD), mm, both surfaces pooled as in MONAI.

    `one_empty` if one mask is, NaN if both are.
    """
    return _unless_empty(distances, jnp.nanmean(jnp.stack(distances)), one_empty)


@partial(jax.jit, inline=True)
def average_distance_mean(distances: SurfaceDistances, one_empty: Number = np.inf) -> Scalar:
    """Mean of the two directed average distances in mm (MetricsReloaded's MASD).

    `one_empty` if one mask is, NaN if both are.
    """
    mean = (jnp.nanmean(distances.prediction) + jnp.nanmean(distances.reference)) / 2
    return _unless_empty(distances, mean, one_empty)


@partial(jax.jit, inline=True)
def normalized_surface_dice(distances: SurfaceDistances, tolerance: Number) -> Scalar:
    """Normalized surface Dice (NSD): fraction of both surfaces' voxels within the tolerance (mm) of the other.

    (|{a ∈ A: d(a, B) ≤ τ}| + |{b ∈ B: d(b, A) ≤ τ}|) / (|A| + |B|). Voxels are counted, as MONAI does; the paper weighs
    them by area. A distance that rounding alone keeps from the tolerance is within it. 0 if one mask is empty; NaN if
    both are or the tolerance is negative.

    Source: Nikolov et al., Journal of Medical Internet Research 23(7), 2021.
    """
    pooled = jnp.stack(distances)
    threshold = jnp.asarray(tolerance, pooled.dtype) * (1 + 8 * jnp.finfo(pooled.dtype).eps)
    fraction = jnp.sum(pooled <= threshold) / jnp.sum(~jnp.isnan(pooled))
    return jnp.where(threshold >= 0, jnp.where(_number_empty(distances) == 1, 0.0, fraction), jnp.nan)


class SurfaceMetrics(NamedTuple):
    """All surface metrics, each named with its convention; mm but for `nsd`."""

    hd: Float[Array, "*class"]
    hd95_max: Float[Array, "*class"]
    hd95_pooled: Float[Array, "*class"]
    assd_pooled: Float[Array, "*class"]
    assd_mean: Float[Array, "*class"]
    nsd: Float[Array, "*class"]  # 0–1


def image_diagonal(image: Shaped[AnyArray, "*space"], spacing: Spacing | None = None) -> Scalar:
    """Distance in mm between opposite corner voxels of an image, √(Σ ((n − 1) s)²): none in it is larger.

    Raises:
        DataError: the spacing is not one positive number per axis.
    """
    steps = checked_spacing(image, spacing)
    return jnp.sqrt(jnp.sum((steps * (np.array(image.shape) - 1)) ** 2))


def surface_metrics(
    prediction: Bool[AnyArray, "*space"],
    reference: Bool[AnyArray, "*space"],
    spacing: Spacing | None = None,
    *,
    tolerance: Number,
    one_empty: Number = np.inf,
) -> SurfaceMetrics:
    """All surface metrics of two masks, from two distance transforms; `tolerance` (mm) is the NSD's.

    Where one mask is empty distances are `one_empty`, such as the `image_diagonal`, and the NSD is 0; NaN if both are.

    Raises:
        DataError: a mask is not boolean, shapes differ, or the spacing is not one positive number per axis.
    """
    return _metrics(surface_distances(prediction, reference, spacing), tolerance, one_empty)


@partial(jax.jit, inline=True)
def _metrics(distances: SurfaceDistances, tolerance: Number, one_empty: Number) -> SurfaceMetrics:
    return SurfaceMetrics(
        hd=hausdorff(distances, one_empty),
        hd95_max=hausdorff_percentile_max(distances, one_empty=one_empty),
        hd95_pooled=hausdorff_percentile_pooled(distances, one_empty=one_empty),
        assd_pooled=average_distance_pooled(distances, one_empty),
        assd_mean=average_distance_mean(distances, one_empty),
        nsd=normalized_surface_dice(distances, tolerance),
    )


def surface_metrics_per_class(
    prediction: Integer[AnyArray, "*space"],
    reference: Integer[AnyArray, "*space"],
    labels: Sequence[int] | Integer[AnyArray, "class"],
    spacing: Spacing | None = None,
    *,
    tolerance: Number,
    one_empty: Number = np.inf,
) -> SurfaceMetrics:
    """`surface_metrics` of each label of two label maps, in the order of `labels`: arrays of shape (class,).

    A label that both maps lack gets NaN. `spacing` (of a voxel) and `tolerance` (of the NSD) are in mm.

    Raises:
        DataError: shapes differ, or the spacing is not one positive number per axis.
    """
    if prediction.shape != reference.shape:
        raise DataError(f"prediction: shape {prediction.shape}; the reference has {reference.shape}")
    steps = checked_spacing(prediction, spacing)
    return _metrics_per_class(prediction, reference, jnp.asarray(labels), steps, tolerance, one_empty)


@partial(jax.jit, inline=True)
def _metrics_per_class(
    prediction: Array, reference: Array, labels: Array, steps: Array, tolerance: Number, one_empty: Number
) -> SurfaceMetrics:
    def of_label(label: Array) -> SurfaceMetrics:
        masks = prediction == label, reference == label
        return _metrics(_surface_distances(*masks, steps), tolerance, one_empty)

    return lax.map(of_label, labels)  # one label at a time: fast on a CPU, and the memory of one


def _unless_empty(distances: SurfaceDistances, value: Array, one_empty: Number) -> Scalar:
    """The value; `one_empty` if one of the surfaces has no voxel, NaN if both have none."""
    each = jnp.stack([value, jnp.asarray(one_empty, value.dtype), jnp.asarray(jnp.nan, value.dtype)])
    return each[_number_empty(distances)]


def _number_empty(distances: SurfaceDistances) -> Integer[Array, ""]:
    """How many of the surfaces have no voxel."""
    return sum((jnp.all(jnp.isnan(each)).astype(int) for each in distances), jnp.zeros((), int))


def _percentile(distances: Float[Array, "surface *space"], percentile: Number) -> Scalar:
    """numpy.nanpercentile, without sorting an image for the few voxels of its surface.

    Floating-point numbers ≥ 0 have the order of their bits read as integers: the one at a given rank is found by
    bisection over those, exactly, in as many counts as there are bits.
    """
    integer = jnp.int32 if distances.dtype.itemsize == 4 else jnp.int64
    largest = jnp.iinfo(integer).max
    bits = jnp.where(jnp.isnan(distances), largest, lax.bitcast_convert_type(distances, integer))
    rank, fraction = _rank(jnp.sum(bits < largest), jnp.asarray(percentile, distances.dtype))

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        reached = jnp.sum(bits <= middle) > rank
        return jnp.where(reached, low, middle + 1), jnp.where(reached, middle, high)

    start = jnp.zeros((), integer), jnp.array(largest, integer)
    at_rank, _ = lax.fori_loop(0, jnp.iinfo(integer).bits - 1, halve, start)
    above = jnp.where(jnp.sum(bits <= at_rank) > rank + 1, at_rank, jnp.min(jnp.where(bits > at_rank, bits, largest)))
    lower, upper = (lax.bitcast_convert_type(each, distances.dtype) for each in (at_rank, above))
    between = jnp.where(fraction > 0, lower + fraction * (upper - lower), lower)  # at 100 % nothing is above
    return jnp.where((percentile >= 0) & (percentile <= 100), between, jnp.nan)


def _rank(count: Array, percentile: Array) -> tuple[Array, Array]:
    """percentile / 100 · (count − 1) as whole and fraction, split so that float32 keeps the fraction's digits."""
    hundreds, rest = jnp.divmod(jnp.maximum(count - 1, 0), 100)
    large, small = percentile * hundreds, percentile * rest / 100
    fraction = large - jnp.floor(large) + small
    return (jnp.floor(large) + jnp.floor(fraction)).astype(count.dtype), fraction - jnp.floor(fraction)
