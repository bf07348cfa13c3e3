"""Bowsher weights: pairs of neighbours that are similar in an anatomical image, for an MR-guided penalty.

Quadratic(bowsher(neighbors(shape, voxel_mm), MR))      ½ Σ w (xⱼ − xₖ)², w = 0 unless j and k are similar in the MR
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.penalty import Neighbors, shift

_TIE = 1e-5  # of the largest value: above rounding, below a step of 16-bit images


def bowsher(pairs: Neighbors, guide: Float[Array, "x y z"], similar: int = 4) -> Neighbors:
    """Bowsher weights: for each voxel, the `similar` neighbours nearest to it in the anatomical `guide` (MR) image.

    Symmetrised: the weight of a pair is the mean of those of its two voxels, so the penalty has a gradient and De
    Pierro's form holds. Neighbours that tie get equal fractions: a flat region is smoothed equally in all directions.
    Differences tie within 1e-5 of the largest guide value, so that neither its unit nor rounding changes the weights.

    Raises:
        DataError: shapes differ, a guide value is not finite, or `similar` is not between 1 and the number of
        neighbours.

    Source: Bowsher et al., IEEE Nuclear Science Symposium Conference Record, 2004; symmetrised as in Schramm et al.
    2018.
    """
    if guide.shape != pairs.weights.shape[1:]:
        raise DataError(f"guide image: shape {guide.shape}; expected {pairs.weights.shape[1:]}")
    if not np.all(np.isfinite(guide)):
        raise DataError("guide image: holds values that are not finite")
    number = 2 * len(pairs.offsets)
    if not 1 <= similar <= number:
        raise DataError(f"similar: {similar}; expected 1 to {number}")
    return _similar_only(pairs, guide, similar)


@jax.jit
def _similar_only(plain: Neighbors, guide: Array, similar: Array) -> Neighbors:
    both = [*plain.offsets, *(tuple(-i for i in o) for o in plain.offsets)]
    inside = [shift(jnp.ones(guide.shape, bool), o) for o in both]
    outside = jnp.finfo(guide.dtype).max  # as a difference: last of all
    difference = jnp.stack(
        [jnp.where(i, jnp.abs(guide - shift(guide, o)), outside) for i, o in zip(inside, both, strict=True)]
    )
    tolerance = _TIE * jnp.max(jnp.abs(guide))
    chosen = jax.lax.map(lambda one: _tie_fraction(difference, one[None], similar, tolerance), difference)
    half = len(plain.offsets)
    pairs = zip(plain.weights, chosen[:half], chosen[half:], plain.offsets, strict=True)
    return replace(plain, weights=jnp.stack([w * (there + shift(back, o)) / 2 for w, there, back, o in pairs]))


def _tie_fraction(difference: Array, one: Array, similar: Array, tolerance: Array) -> Array:
    """1 for a neighbour among the `similar` nearest, 0 for one that is not, a fraction where some tie for the rest."""
    nearer = jnp.sum(difference < one - tolerance, axis=0)
    tied = jnp.sum(jnp.abs(difference - one) <= tolerance, axis=0)
    return jnp.clip((similar - nearer) / tied, 0.0, 1.0)
