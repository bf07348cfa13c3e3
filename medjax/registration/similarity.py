"""Similarities of images: mean squares, local normalised cross-correlation (LNCC), mutual information, MIND.

A Similarity is `(warped, fixed, mask) -> loss`, lower is better; any function of that form is one. The mask, if any,
has weights ≥ 0 of the fixed image's voxels. The functions that make one give equal ones for equal settings, so `jit`
compiles them once. None gives NaN for constant images or an empty mask: the loss is finite, and its gradient 0.

    similarity = lncc(radius=2)
    loss, gradient = jax.value_and_grad(similarity)(warped, fixed, None)
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Scalar

from medjax.errors import DataError
from medjax.iterate import static_partial
from medjax.registration.smoothing import box_sum, window_counts

Similarity = Callable[..., Scalar]  # (warped, fixed, mask or None) -> loss
ROUNDING = 1e-5  # of the largest value: differences below are rounding in float32
TINY = 1e-18  # of variances: the product of two is still a normal float32


def mean_squares(
    warped: Float[Array, "*space"], fixed: Float[Array, "*space"], mask: Float[Array, "*space"] | None = None
) -> Scalar:
    """Mean squared difference Σ m (w − f)² / Σ m: for images of one modality and scale."""
    return _mean((warped - fixed) ** 2, mask)


def lncc(radius: int = 2, floor: float = 1e-3) -> Similarity:
    """Local normalised cross-correlation, 1 − mean of cov² / ((var_w + ε_w)(var_f + ε_f)).

    It does not change with the local contrast, even if reversed.

    Means, variances and covariance are those of the (2·radius + 1)ⁿ window around a voxel, its part inside the image
    and weighted by the mask. ε of each image is `floor` times the variance of the whole image, and is kept fixed in the
    gradient; where both windows are flat the correlation is 0, not noise. The gradient is exact otherwise, from three
    box sums.

    Args:
        radius: of the window, in voxels, ≥ 1.
        floor: of the variances, > 0.

    Raises:
        DataError: radius or floor is too small.

    Source: Avants et al., Medical Image Analysis 12(1), 2008.
    """
    if radius < 1 or not floor > 0:
        raise DataError(f"lncc(radius={radius}, floor={floor}); expected a radius ≥ 1 and a floor > 0")
    return static_partial(_lncc_loss, radius=radius, floor=float(floor))


def _lncc_loss(warped: Array, fixed: Array, mask: Array | None = None, *, radius: int, floor: float) -> Scalar:
    return _lncc(radius, floor, warped, fixed, mask)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _lncc(radius: int, floor: float, warped: Array, fixed: Array, mask: Array | None) -> Scalar:
    return _lncc_forward(radius, floor, warped, fixed, mask)[0]


def _lncc_forward(radius: int, floor: float, warped: Array, fixed: Array, mask: Array | None) -> tuple[Scalar, tuple]:
    """Loss, and what the gradient needs: the images around their means, the windows' means and the correlation."""
    (w, w_floor), (f, f_floor) = (_centered(image, mask, floor) for image in (warped, fixed))
    counts = jnp.asarray(window_counts(w.shape, radius), w.dtype) if mask is None else box_sum(mask, radius)
    scale = 1 / jnp.maximum(counts, 1e-6)
    weigh = (lambda image: image) if mask is None else (lambda image: mask * image)
    w_mean, f_mean, ww, ff, wf = (scale * box_sum(weigh(each), radius) for each in (w, f, w * w, f * f, w * f))
    w_var = jnp.maximum(ww - w_mean**2, 0) + w_floor
    f_var = jnp.maximum(ff - f_mean**2, 0) + f_floor
    covariance = wf - w_mean * f_mean
    ratio = covariance / (w_var * f_var)
    loss = 1 - _mean(covariance * ratio, mask)
    return loss, (w, f, mask, scale, w_mean, f_mean, w_var, f_var, covariance, ratio)


def _lncc_backward(radius: int, floor: float, saved: tuple, cotangent: Scalar) -> tuple:
    """With cc = c² / (A B), ∂cc/∂w(y) = m(y) Σₓ p(x) (f(y) − f̄(x)) + q(x) (w(y) − w̄(x)) over windows x that hold y.

    p = (2c / AB) / n and q = −(2cc / A) / n; for the fixed image the roles change.
    """
    w, f, mask, scale, w_mean, f_mean, w_var, f_var, covariance, ratio = saved
    weights = -cotangent * scale * (1 / w.size if mask is None else mask / jnp.maximum(mask.sum(), 1e-6))
    p = 2 * weights * ratio
    shrink = -p * covariance

    def gradient(own: Array, own_mean: Array, own_var: Array, other: Array, other_mean: Array) -> Array:
        q = shrink / own_var
        shift = box_sum(p * other_mean + q * own_mean, radius)
        total = other * box_sum(p, radius) + own * box_sum(q, radius) - shift
        return total if mask is None else mask * total

    of_warped = gradient(w, w_mean, w_var, f, f_mean)
    of_fixed = gradient(f, f_mean, f_var, w, w_mean)  # dropped by the compiler if it is not asked for
    return of_warped, of_fixed, None if mask is None else jnp.zeros_like(mask)


_lncc.defvjp(_lncc_forward, _lncc_backward)


def _centered(image: Array, mask: Array | None, floor: float) -> tuple[Array, Scalar]:
    """Image minus its mean (so that little cancels in its windows' variances), and the floor of those variances."""
    weights = jnp.ones((), image.dtype) if mask is None else mask
    centered = image - image[(0,) * image.ndim]  # exactly 0 for a constant image, which the rounded mean is not
    centered = centered - _mean(centered, mask)
    rounding = (ROUNDING * jnp.abs(weights * image).max()) ** 2
    return centered, jnp.maximum(jnp.maximum(floor * _mean(centered**2, mask), rounding), TINY)


def mutual_information(bins: int = 32, chunk: int = 16384) -> Similarity:
    """Negative mutual information −Σ p(i, j) log(p(i, j) / p(i) p(j)), nats, of a Parzen-window joint histogram.

    Intensities of each image, from its lowest to its highest, are spread over the bins by cubic B-splines for the
    warped image and linear ones for the fixed. The gradient is exact for fixed ranges; that of the fixed image is 0.

    Args:
        bins: of each image, ≥ 8.
        chunk: voxels whose weights are in memory at a time.

    Raises:
        DataError: too few bins.

    Source: Mattes et al., IEEE Transactions on Medical Imaging 22(1), 2003.
    """
    if bins < 8 or chunk < 1:
        raise DataError(f"mutual_information(bins={bins}, chunk={chunk}); expected at least 8 bins and 1 voxel")
    return static_partial(_mutual_information_loss, bins=bins, chunk=chunk)


def _mutual_information_loss(
    warped: Array, fixed: Array, mask: Array | None = None, *, bins: int, chunk: int
) -> Scalar:
    weights = jnp.ones(warped.size, warped.dtype) if mask is None else mask.reshape(-1)
    return _mutual_information(bins, chunk, warped.reshape(-1), fixed.reshape(-1), weights)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mutual_information(bins: int, chunk: int, warped: Array, fixed: Array, weights: Array) -> Scalar:
    return _mutual_information_forward(bins, chunk, warped, fixed, weights)[0]


def _mutual_information_forward(
    bins: int, chunk: int, warped: Array, fixed: Array, weights: Array
) -> tuple[Scalar, tuple]:
    (w, w_scale), (f, _) = _to_bins(warped, weights, bins), _to_bins(fixed, weights, bins)
    total = jnp.maximum(weights.sum(), 1e-6)
    joint = _joint_histogram(w, f, weights, bins, chunk) / total
    w_law, f_law = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    ratio = jnp.log(jnp.maximum(joint, 1e-12)) - jnp.log(jnp.maximum(w_law * f_law, 1e-12))
    ratio = jnp.where(joint > 1e-12, ratio, 0)
    # dMI/dp(i, j) = log(p(i, j) / p(i)); the rest of the derivative is constant, and Σ dp = 0
    slope = jnp.where(joint > 1e-12, jnp.log(jnp.maximum(joint, 1e-12)) - jnp.log(jnp.maximum(w_law, 1e-12)), 0)
    return -jnp.sum(joint * ratio), (w, f, w_scale * weights / total, slope)


def _mutual_information_backward(bins: int, chunk: int, saved: tuple, cotangent: Scalar) -> tuple:
    """∂MI/∂w = Σ log(p(i, j) / p(i)) β₃′(w − i) β₁(f − j): 4 × 2 look-ups a voxel, and no scatter."""
    del chunk
    w, f, weights, slope = saved
    first, f_first = jnp.floor(w).astype(jnp.int32) - 1, jnp.floor(f).astype(jnp.int32)
    table, total = slope.reshape(-1), jnp.zeros_like(w)
    for i in range(4):
        for j in range(2):
            index = jnp.clip(first + i, 0, bins - 1) * bins + jnp.clip(f_first + j, 0, bins - 1)
            parzen = _cubic_slope(w - (first + i)) * (1 - jnp.abs(f - (f_first + j)))
            total = total + parzen * jnp.take(table, index, mode="clip")
    return -cotangent * weights * total, jnp.zeros_like(f), jnp.zeros_like(f)


_mutual_information.defvjp(_mutual_information_forward, _mutual_information_backward)


def _to_bins(image: Array, weights: Array, bins: int) -> tuple[Array, Scalar]:
    """Continuous bin 2 … bins − 3 of each intensity, so that every Parzen window is inside; and bins a unit."""
    inside = weights > 0
    low = jnp.min(jnp.where(inside, image, jnp.inf), initial=jnp.inf)
    high = jnp.max(jnp.where(inside, image, -jnp.inf), initial=-jnp.inf)
    low, high = jnp.where(jnp.isfinite(low), low, 0), jnp.where(jnp.isfinite(high), high, 0)
    width = high - low
    varies = width > ROUNDING * jnp.maximum(jnp.abs(low), jnp.abs(high))
    scale = jnp.where(varies, (bins - 5) / jnp.where(varies, width, 1), 0)
    return 2 + scale * (jnp.clip(image, low, high) - low), scale


def _joint_histogram(w: Array, f: Array, weights: Array, bins: int, chunk: int) -> Array:
    """Σ m β₃(w − i) β₁(f − j): products of matrices of a chunk's weights, which need no scatter."""
    number = -(-w.size // chunk)
    size = -(-w.size // number)  # equal chunks
    rows = [jnp.pad(each, (0, number * size - each.size)).reshape(number, size) for each in (w, f, weights)]
    centers = jnp.arange(bins, dtype=w.dtype)[:, None]

    def add(joint: Array, row: list[Array]) -> tuple[Array, None]:
        own, other, mass = row
        left = mass[None] * _cubic(own[None] - centers)
        right = jnp.maximum(1 - jnp.abs(other[None] - centers), 0)
        return joint + jnp.matmul(left, right.T, precision=lax.Precision.HIGHEST), None

    return lax.scan(add, jnp.zeros((bins, bins), w.dtype), rows)[0]


def _cubic(x: Array) -> Array:
    """Cubic B-spline."""
    a = jnp.abs(x)
    return jnp.where(a < 1, 2 / 3 - a**2 + a**3 / 2, jnp.maximum(2 - a, 0) ** 3 / 6)


def _cubic_slope(x: Array) -> Array:
    a = jnp.abs(x)
    return jnp.sign(x) * jnp.where(a < 1, -2 * a + 1.5 * a**2, -(jnp.maximum(2 - a, 0) ** 2) / 2)


def mind(radius: int = 1, dilation: int = 2) -> Similarity:
    """Mean squared difference of MIND self-similarity descriptors: for images of different modalities.

    Args:
        radius: of the patches, in voxels, ≥ 0.
        dilation: distance from a voxel to its neighbours, in voxels, ≥ 1.

    Raises:
        DataError: radius or dilation is too small.

    Source: Heinrich et al., MICCAI 2013 (self-similarity context, MIND-SSC).
    """
    if radius < 0 or dilation < 1:
        raise DataError(f"mind(radius={radius}, dilation={dilation}); expected a radius ≥ 0 and a dilation ≥ 1")
    return static_partial(_mind_loss, radius=radius, dilation=dilation)


def _mind_loss(warped: Array, fixed: Array, mask: Array | None = None, *, radius: int, dilation: int) -> Scalar:
    descriptors = (mind_descriptor(image, radius, dilation) for image in (warped, fixed))
    return _mean(jnp.mean((next(descriptors) - next(descriptors)) ** 2, 0), mask)


def mind_descriptor(image: Float[Array, "*space"], radius: int = 1, dilation: int = 2) -> Float[Array, "pair *space"]:
    """MIND-SSC: exp(−(D − min D) / V) for pairs of face neighbours that are √2 · dilation apart, V the mean of D.

    D is the mean squared difference of the patches around the two. 12 pairs in 3-D, 4 in 2-D; beyond an edge its voxels
    are repeated.

    Source: Heinrich et al., MICCAI 2013.
    """
    neighbors = [(axis, sign) for axis in range(image.ndim) for sign in (-1, 1)]
    pairs = [(one, two) for one, two in combinations(neighbors, 2) if one[0] != two[0]]
    at = {each: _neighbor(image, *each, dilation) for each in neighbors}
    counts = window_counts(image.shape, radius)
    distance = jnp.stack(
        [box_sum(lax.optimization_barrier(at[one] - at[two]) ** 2, radius) / counts for one, two in pairs]
    )
    distance = lax.optimization_barrier(distance)  # in memory: fused, every pair would be computed anew for each other
    distance = distance - distance.min(0)[None]
    variance = distance.mean(0)
    typical = lax.stop_gradient(variance.mean())
    rounding = (ROUNDING * lax.stop_gradient(jnp.abs(image).max())) ** 2
    variance = jnp.clip(variance, 1e-3 * typical, 1e3 * typical) + jnp.maximum(rounding, TINY)
    return jnp.exp(-distance / variance[None])


def _neighbor(image: Array, axis: int, sign: int, dilation: int) -> Array:
    padded = jnp.pad(image, [(dilation, dilation) if k == axis else (0, 0) for k in range(image.ndim)], mode="edge")
    start = dilation * (1 + sign)
    return lax.slice_in_dim(padded, start, start + image.shape[axis], axis=axis)


def _mean(values: Array, mask: Array | None) -> Scalar:
    return values.mean() if mask is None else jnp.sum(mask * values) / jnp.maximum(mask.sum(), 1e-6)
