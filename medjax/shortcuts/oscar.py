"""OSCAR: does a network look where the predictor of a sensitive attribute looks, beyond what its task explains?

Three networks of one architecture are compared by their rank profiles (`rank_profile`) on the same images: TS, the one
under audit, trained where label and attribute are tied; BA, trained for the same task on balanced data; SA, trained
for the attribute. With res(a | b) the residual of the least-squares regression of a on b and a constant:

    ρ(TS, SA | BA) = Pearson(res(TS | BA), res(SA | BA))       shortcut: rises with the tie
    ρ(TS, BA | SA) = Pearson(res(TS | SA), res(BA | SA))       task: falls with it
    u, v = z(res(TS | BA)), z(res(SA | BA));  RCS = u · v      region contribution scores, Σ RCS / (R − 1) = shortcut

The last axis of a profile is the region; leading axes broadcast. What no regression leaves a residual of (TS and BA
the same, say) is NaN. `oscar_audit` adds p-values, intervals and a verdict.

Source: Achara et al., OSCAR, arXiv 2512.18888, 2025; the quadrants: its authors' code of shortcut groups.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from medjax.errors import DataError
from medjax.metrics.correlation import normalize, pearson, residual

AnyArray = Array | np.ndarray
Values = Float[AnyArray, "*batch"] | float
Profile = Real[AnyArray, "..."]  # (…, region); shapes are checked by hand, for a message that names them


class Correlations(NamedTuple):
    """Correlations between the rank profiles; or what belongs to each, such as its p-value."""

    shortcut: Values  # ρ(TS, SA | BA)
    task: Values  # ρ(TS, BA | SA)
    deviation: Values  # semi-partial: res(TS | BA) and SA
    ts_sa: Values
    ts_ba: Values
    sa_ba: Values


SYMBOLS = {
    "shortcut": "ρ(TS, SA | BA)",
    "task": "ρ(TS, BA | SA)",
    "deviation": "ρ(TS − BA, SA)",
    "ts_sa": "ρ(TS, SA)",
    "ts_ba": "ρ(TS, BA)",
    "sa_ba": "ρ(SA, BA)",
}


class Quadrants(NamedTuple):
    """|u · v| of each region, in the one quadrant of its signs; 0 in the others.

    More important: of a lower rank than BA's predicts.
    """

    both_more: Float[AnyArray, "*batch region"]  # more important to TS and SA
    both_less: Float[AnyArray, "*batch region"]  # less important to both: scores positive too
    ts_more: Float[AnyArray, "*batch region"]  # more important to TS only
    sa_more: Float[AnyArray, "*batch region"]  # more important to SA only


@partial(jax.jit, inline=True)
def correlations(ts: Profile, ba: Profile, sa: Profile) -> Correlations:
    """Pairwise, partial and semi-partial correlations of the rank profiles.

    Pairwise ones depend on what the images share, whatever the shortcut: only the partial ones are evidence.

    Raises:
        DataError: profiles of different shapes, or of fewer than four regions.
    """
    return Correlations(*jnp.moveaxis(pearson(*correlated_pairs(ts, ba, sa)), -1, 0))


@partial(jax.jit, inline=True)
def correlated_pairs(
    ts: Profile, ba: Profile, sa: Profile
) -> tuple[Float[Array, "*batch 6 region"], Float[Array, "*batch 6 region"]]:
    """x and y of which each of `Correlations` is Pearson's; a null distribution permutes x.

    Raises:
        DataError: as `correlations`.
    """
    ts, ba, sa = _check(ts, ba, sa)
    ts_ba, sa_ba, ts_sa, ba_sa = residual(ts, ba), residual(sa, ba), residual(ts, sa), residual(ba, sa)
    return jnp.stack([ts_ba, ts_sa, ts_ba, ts, ts, sa], axis=-2), jnp.stack([sa_ba, ba_sa, sa, sa, ba, ba], axis=-2)


@partial(jax.jit, inline=True)
def standardized_residuals(
    ts: Profile, ba: Profile, sa: Profile
) -> tuple[Float[Array, "*batch region"], Float[Array, "*batch region"]]:
    """u and v: residuals of TS and SA given BA, with variance 1 (over R − 1). Negative: more important than to BA.

    Raises:
        DataError: as `correlations`.
    """
    ts, ba, sa = _check(ts, ba, sa)
    u, v = (normalize(residual(one, ba)) * (ba.shape[-1] - 1) ** 0.5 for one in (ts, sa))
    return u, v


def contribution_scores(ts: Profile, ba: Profile, sa: Profile) -> Float[Array, "*batch region"]:
    """Region contribution scores RCS = u · v; their sum over R − 1 is ρ(TS, SA | BA).

    A region that both TS and SA ignore scores as one that both rely on: see `quadrants`.

    Raises:
        DataError: as `correlations`.
    """
    u, v = standardized_residuals(ts, ba, sa)
    return u * v


def quadrants(ts: Profile, ba: Profile, sa: Profile) -> Quadrants:
    """Region contribution scores by the signs of u and v; `both_more` says where the shortcut is.

    RCS = both_more + both_less − ts_more − sa_more, and |RCS| is the sum of the four.

    Raises:
        DataError: as `correlations`.
    """
    u, v = standardized_residuals(ts, ba, sa)
    size = jnp.abs(u * v)
    signs = ((u < 0) & (v < 0), (u >= 0) & (v >= 0), (u < 0) & (v >= 0), (u >= 0) & (v < 0))
    return Quadrants(*(jnp.where(one, size, jnp.where(jnp.isnan(size), jnp.nan, 0.0)) for one in signs))


@partial(jax.jit, inline=True)
def effective_area(scores: Real[AnyArray, "*batch region"]) -> Float[Array, "*batch"]:
    """Effective area of the positive scores s, a fraction of the regions: participation ratio (Σ s)² / (R Σ s²).

    1 / R for one region, 1 for equal scores: a localised shortcut has a small one. NaN where no score is positive.
    """
    positive = jnp.maximum(jnp.asarray(scores, jnp.result_type(scores, float)), 0.0)
    positive = positive / jnp.max(positive, axis=-1, keepdims=True)  # so that squares are in range
    return jnp.sum(positive, axis=-1) ** 2 / (positive.shape[-1] * jnp.sum(positive**2, axis=-1))


def _check(*profiles: AnyArray) -> tuple[Array, Array, Array]:
    shapes = {profile.shape for profile in profiles}
    if len(shapes) != 1 or profiles[0].shape[-1] < 4:
        found = ", ".join(str(profile.shape) for profile in profiles)
        raise DataError(f"ts, ba, sa: profiles of shapes {found}; expected one shape, of four regions or more")
    ts, ba, sa = (jnp.asarray(profile, jnp.result_type(profile, float)) for profile in profiles)
    return ts, ba, sa
