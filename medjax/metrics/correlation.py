"""Correlations: Pearson, Spearman and Kendall's τ-b, partial and semi-partial ones, and the ranks they are made of.

    pearson(x, y), spearman(x, y), kendall(x, y)
    partial_correlation(x, y, z)            Pearson(res(x | z), res(y | z))
    semipartial_correlation(x, y, z)        Pearson(res(x | z), y): z removed from x only
    partial_spearman(x, y, z)               partial correlation of the ranks; not Spearman of the residuals

The last axis is the sample; axes before it are batches, which broadcast. res(a | z) is the least-squares residual of a
on [1, z]. The textbook's (r_xy − r_xz r_yz)/√… loses its digits in float32 where x and z nearly agree; residuals don't.

A correlation is NaN where it is not defined: an x or y that is constant (or a single value), is NaN or infinite
somewhere, or is explained by the covariates to rounding; a covariate that is constant, or linear in the others. All
functions jit and vmap, and compute in JAX's precision.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import Precision
from jax.scipy.stats import rankdata
from jaxtyping import Array, Float, Real

from medjax.errors import DataError

AnyArray = Array | np.ndarray
ROUNDING = 16  # a residual below this many machine epsilons of the data's norm is rounding


@partial(jax.jit, inline=True)
def average_ranks(x: Real[AnyArray, "*batch sample"]) -> Float[Array, "*batch sample"]:
    """Ranks from 1 (lowest) to the number of samples; tied values share the mean of theirs. NaN where any value is."""
    return rankdata(x, axis=-1)


@partial(jax.jit, inline=True)
def pearson(x: Real[AnyArray, "*#batch sample"], y: Real[AnyArray, "*#batch sample"]) -> Float[Array, "*batch"]:
    """Pearson's correlation r = Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² Σ (y − ȳ)²).

    Raises:
        DataError: x and y have different numbers of samples, or batches that do not broadcast.
    """
    x, y = (normalize(each) for each in _broadcast(x, y))
    return jnp.clip(jnp.einsum("...i,...i->...", x, y, precision=Precision.HIGHEST), -1, 1)


@partial(jax.jit, inline=True)
def spearman(x: Real[AnyArray, "*#batch sample"], y: Real[AnyArray, "*#batch sample"]) -> Float[Array, "*batch"]:
    """Spearman's rank correlation: Pearson's of the average ranks.

    Raises:
        DataError: as `pearson`.
    """
    return pearson(average_ranks(x), average_ranks(y))


@partial(jax.jit, inline=True)
def kendall(x: Real[AnyArray, "*#batch sample"], y: Real[AnyArray, "*#batch sample"]) -> Float[Array, "*batch"]:
    """Kendall's τ-b = Σ sign(xᵢ − xⱼ) sign(yᵢ − yⱼ) / √(Σ sign²(xᵢ − xⱼ) Σ sign²(yᵢ − yⱼ)), sums over all n² pairs.

    Raises:
        DataError: as `pearson`.

    Source: Kendall, Biometrika 33(3), 1945.
    """
    x, y = _broadcast(x, y)
    undefined, kind = ~(jnp.isfinite(x) & jnp.isfinite(y)).all(-1), x.dtype
    x, y = (
        (each[..., :, None] > each[..., None, :]).astype(jnp.int32) - (each[..., :, None] < each[..., None, :])
        for each in (x, y)
    )
    concordance, of_x, of_y = (jnp.sum(each, (-2, -1)).astype(kind) for each in (x * y, x * x, y * y))
    return jnp.where(undefined, jnp.nan, concordance / (jnp.sqrt(of_x) * jnp.sqrt(of_y)))


@partial(jax.jit, inline=True)
def residual(x: Real[AnyArray, "..."], covariates: Real[AnyArray, "..."]) -> Float[Array, "..."]:
    """Least-squares residual of x on [1, covariates]: x − x̄ − Q Qᵀ (x − x̄), Q an orthonormal basis of the covariates.

    In float32 it keeps about 7 digits of its own where x and a covariate agree to 5: the fit is subtracted in exact
    parts, then what is left is projected once more.

    NaN for a covariate that is constant or linear in the others. An x that the covariates explain to rounding has a
    residual of exactly 0, whose correlations are NaN.

    Args:
        x: (…, sample).
        covariates: (…, sample), one of each x; or (…, k, sample), one axis more than x, for k of them.

    Raises:
        DataError: as `pearson`.
    """
    single = covariates.ndim <= x.ndim
    covariates = _floating(covariates)[..., None, :] if single else _floating(covariates)
    x = _floating(x)
    if x.shape[-1] != covariates.shape[-1]:
        raise DataError(f"x, covariates: {x.shape[-1]} and {covariates.shape[-1]} samples; expected as many")
    batch = _batch(x.shape[:-1], covariates.shape[:-2])
    x = jnp.broadcast_to(x, (*batch, x.shape[-1]))
    covariates = jnp.broadcast_to(covariates, (*batch, *covariates.shape[-2:]))
    basis, made_by = _orthonormal(covariates)
    product = partial(jnp.einsum, precision=Precision.HIGHEST)
    coefficients = product("...kj,...k->...j", made_by, product("...ki,...i->...k", basis, _centred(x)))
    left = _centred(_subtract_products(x, coefficients, covariates))
    left = _centred(left - product("...ki,...k->...i", basis, product("...ki,...i->...k", basis, left)))
    explained = _norm(left) <= ROUNDING * jnp.finfo(x.dtype).eps * _norm(x)
    return jnp.where(explained, 0, left)


@partial(jax.jit, inline=True)
def partial_correlation(
    x: Real[AnyArray, "*#batch sample"], y: Real[AnyArray, "*#batch sample"], covariates: Real[AnyArray, "..."]
) -> Float[Array, "..."]:
    """Partial correlation of x and y given covariates: Pearson(res(x | covariates), res(y | covariates)).

    Covariates are (…, sample) or (…, k, sample), as in `residual`.

    Raises:
        DataError: as `pearson`.
    """
    x, y = _broadcast(x, y)
    return pearson(residual(x, covariates), residual(y, covariates))


@partial(jax.jit, inline=True)
def semipartial_correlation(
    x: Real[AnyArray, "*#batch sample"], y: Real[AnyArray, "*#batch sample"], covariates: Real[AnyArray, "..."]
) -> Float[Array, "..."]:
    """Semi-partial (part) correlation Pearson(res(x | covariates), y): the covariates are removed from x only.

    Covariates are (…, sample) or (…, k, sample), as in `residual`.

    Raises:
        DataError: as `pearson`.
    """
    x, y = _broadcast(x, y)
    return pearson(residual(x, covariates), y)


@partial(jax.jit, inline=True)
def partial_spearman(
    x: Real[AnyArray, "*#batch sample"], y: Real[AnyArray, "*#batch sample"], covariates: Real[AnyArray, "..."]
) -> Float[Array, "..."]:
    """Partial Spearman correlation: the partial correlation of the average ranks of x, y and each covariate.

    Raises:
        DataError: as `pearson`.
    """
    return partial_correlation(average_ranks(x), average_ranks(y), average_ranks(covariates))


def normalize(x: Real[AnyArray, "*batch sample"]) -> Float[Array, "*batch sample"]:
    """(x − x̄) / ‖x − x̄‖, so that the correlation of two is their dot product; NaN where x is constant."""
    x = _floating(x)
    centred = _centred(x)
    centred = jnp.where(x.min(-1, keepdims=True) == x.max(-1, keepdims=True), jnp.nan, centred)
    centred = centred / jnp.abs(centred).max(-1, keepdims=True)  # squares neither overflow nor vanish
    return centred / _norm(centred)


def _orthonormal(covariates: Float[Array, "*batch k sample"]) -> tuple[Array, Array]:
    """Orthonormal rows that span the centred covariates, and the k×k matrix that makes them of these.

    One covariate is divided by its norm, several go through a thin QR.
    """
    unit, scale = normalize(covariates), _norm(_centred(covariates))
    if covariates.shape[-2] == 1:
        return unit, 1 / scale
    if covariates.shape[-1] < covariates.shape[-2]:  # fewer samples than covariates
        return jnp.full_like(unit, jnp.nan), jnp.full((*unit.shape[:-1], unit.shape[-2]), jnp.nan)
    basis, triangle = jnp.linalg.qr(unit.mT)
    least = ROUNDING * jnp.finfo(unit.dtype).eps * _norm(covariates) / scale  # centring a large mean loses digits
    independent = (jnp.abs(jnp.diagonal(triangle, axis1=-2, axis2=-1)) > least[..., 0]).all(-1)[..., None, None]
    made_by = jnp.linalg.inv(triangle.mT) / scale.mT
    return jnp.where(independent, basis.mT, jnp.nan), jnp.where(independent, made_by, jnp.nan)


def _subtract_products(x: Array, coefficients: Array, covariates: Array) -> Array:
    """x − Σ coefficient · covariate in nearly twice the digits.

    Factors are split in halves, whose leading product is exact, and the rounding error of each sum is kept (Dekker,
    Numerische Mathematik 18, 1971).
    """
    kind = jnp.finfo(x.dtype)
    upper = partial(lax.reduce_precision, exponent_bits=kind.nexp, mantissa_bits=kind.nmant // 2)
    rest = jnp.zeros_like(x)
    for number in range(covariates.shape[-2]):
        covariate, coefficient = covariates[..., number, :], coefficients[..., number, None]
        leading, most = upper(covariate), upper(coefficient)
        product = most * leading
        total = x - product
        kept = total - x
        rest = rest + (x - (total - kept)) - (product + kept)
        rest = rest - most * (covariate - leading) - (coefficient - most) * covariate
        x = total
    return x + rest


def _centred(x: Array) -> Array:
    return x - x.mean(-1, keepdims=True)


def _norm(x: Array) -> Array:
    """Norm along the sample, kept as an axis of 1."""
    return jnp.linalg.norm(x, axis=-1, keepdims=True)


def _floating(x: AnyArray) -> Array:
    return jnp.asarray(x, jnp.result_type(x, float))


def _broadcast(x: AnyArray, y: AnyArray) -> tuple[Array, Array]:
    """x and y in floating point, of one shape."""
    if x.shape[-1] != y.shape[-1]:
        raise DataError(f"x, y: {x.shape[-1]} and {y.shape[-1]} samples; expected as many of each")
    shape = (*_batch(x.shape[:-1], y.shape[:-1]), x.shape[-1])
    return jnp.broadcast_to(_floating(x), shape), jnp.broadcast_to(_floating(y), shape)


def _batch(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(one, other)
    except ValueError:
        raise DataError(f"batches {one} and {other} do not broadcast") from None
