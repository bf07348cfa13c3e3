"""OSCAR's audit of a network: correlations of rank profiles with p-values and intervals, scores of the regions.

    regions = grid_regions((28, 28), (7, 7))
    found = audit(key, ts, ba, sa, regions)              attribution maps of three networks, of the same images
    verdict(found)                                       of `oscar_verdict`, by its documented rule

Permuting the regions gives the published p-value, which ignores that neighbouring regions resemble each other and finds
far too much. The spatial p-value is for decisions: on a grid that of all mirrored shifts with flips and rotations, else
that of surrogate maps with the profile's variogram. Torus shifts are given too: their seam makes them find too much on
few cells. `spatial_null` has the false-positive rates of all.

Source: Achara et al., OSCAR, arXiv 2512.18888, 2025.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Real

from medjax.errors import ConfigError, DataError
from medjax.shortcuts import oscar
from medjax.shortcuts.image_ids import match_ids
from medjax.shortcuts.median_bootstrap import bootstrap_medians, percentile_interval
from medjax.shortcuts.oscar import Correlations, Quadrants
from medjax.shortcuts.rank_profile import ROUNDING, rank_profile, rank_regions
from medjax.shortcuts.regions import Regions, region_means
from medjax.shortcuts.reliability import split_half_reliability
from medjax.shortcuts.spatial_null import mirrored_shifts, null_p, permutations, torus_shifts
from medjax.shortcuts.surrogates import centroid_distances, geometry, has_variogram, surrogate_maps

AnyArray = Array | np.ndarray
Maps = Real[AnyArray, "..."]  # (image, *space) or (image, region); checked by hand, for a message that names one
NETWORKS = ("ts", "ba", "sa")
PAIRS_AT_ONCE = 4e7  # pairs of regions in memory, over all surrogates of a chunk


class Audit(NamedTuple):
    """Result of an audit."""

    regions: tuple[str, ...]  # names of the regions
    images: int  # number of images
    profiles: Float[np.ndarray, "3 region"]  # rank profiles of TS, BA and SA
    correlations: Correlations
    low: Correlations  # bounds of the 95 % bootstrap intervals
    high: Correlations
    undefined: float  # fraction of resamples that define no ρ(TS, SA | BA), and are left out
    p_spatial: Correlations  # two-sided, for decisions: of mirrored shifts, or of surrogate maps
    p_torus: Correlations  # of torus shifts; NaN where the regions are no grid
    p_permutation: Correlations  # of permuted regions, as published
    smallest_p: float  # the smallest value that `p_spatial` can have
    scores: Float[np.ndarray, " region"]  # region contribution scores
    quadrants: Quadrants
    effective_area: float  # of the positive scores
    reliability: tuple[float, float, float]  # split-half reliability of the profiles of TS, BA and SA


def audit(
    key: PRNGKeyArray,
    ts: Maps,
    ba: Maps,
    sa: Maps,
    regions: Regions,
    *,
    ids: tuple[Sequence[str], Sequence[str], Sequence[str]] | None = None,
    spacing: Sequence[float] | None = None,
    resamples: int = 2000,
    permuted: int = 9999,
    surrogates: int = 999,
) -> Audit:
    """Audit of network TS by its attribution maps, those of BA and those of SA, of the same images.

    Args:
        key: random key of resamples, permutations, surrogates and splits.
        ts, ba, sa: maps (image, *space), or their means in the regions (image, region).
        regions: the partition.
        ids: ids of the images of each network, by which they are matched; default: they are in one order.
        spacing: size of a voxel along each axis, for distances between regions that are no grid.
        resamples: number of bootstrap resamples of the images, the same ones for all networks.
        permuted: number of permutations of the regions.
        surrogates: number of surrogate maps, where the regions are no grid.

    Raises:
        DataError: ids or counts that differ, NaN or infinite maps, maps of a network that are all constant, two
            networks of equal maps, another shape than the regions', or a region without a voxel.
    """
    maps = dict(zip(NETWORKS, (ts, ba, sa), strict=True))
    counts = {name: len(one) for name, one in maps.items()}
    if ids is not None:
        names = dict(zip(NETWORKS, ids, strict=True))
        if wrong := next((name for name in NETWORKS if len(names[name]) != counts[name]), None):
            raise DataError(f"ids: {len(names[wrong])} of {wrong}, for {counts[wrong]} maps; expected one of each")
        _, order = match_ids(names)
        maps = {name: one[order[name]] for name, one in maps.items()}
    elif len(set(counts.values())) != 1:
        raise DataError(f"ts, ba, sa: {', '.join(map(str, counts.values()))} maps; expected those of the same images")
    ranks = [rank_regions(check_means(_means(one, regions), name)) for name, one in maps.items()]
    distances = centroid_distances(regions.labels, len(regions.names), None if spacing is None else tuple(spacing))
    return audit_ranks(
        key, np.stack(ranks), regions, distances, resamples=resamples, permuted=permuted, surrogates=surrogates
    )


def audit_ranks(
    key: PRNGKeyArray,
    ranks: Real[AnyArray, "3 image region"],
    regions: Regions,
    distances: Float[np.ndarray, "region region"] | None = None,
    *,
    resamples: int = 2000,
    permuted: int = 9999,
    surrogates: int = 999,
) -> Audit:
    """Audit by the ranks of the regions within the images (`rank_regions`), those of TS, BA and SA in this order.

    Ranks may be means over several networks, such as those of several seeds. `distances` are those between regions, for
    surrogate maps; default: between their centres, in voxels. Other arguments are those of `audit`.

    Raises:
        DataError: fewer than two images or four regions, ranks that are NaN, or equal ones of two networks.
    """
    ranks, names = jnp.asarray(ranks, jnp.result_type(ranks, float)), regions.names
    if ranks.shape[1] < 2 or ranks.shape[2] != len(names) or len(names) < 4:
        raise DataError(f"ranks: shape {ranks.shape}; expected (3, images, {len(names)} regions), two images or more")
    _check_ranks(np.asarray(ranks))
    keys = jax.random.split(key, 4)
    profiles = jnp.stack([rank_profile(one) for one in ranks])
    pairs = oscar.correlated_pairs(*profiles)
    spatial, smallest_p = _shifted_p(pairs, regions.cells, mirrored_shifts)
    if not smallest_p:
        between = centroid_distances(regions.labels, len(names)) if distances is None else distances
        spatial, smallest_p = _surrogate_p(keys[0], pairs, between, surrogates), 1 / (surrogates + 1)
    perms = jnp.asarray(permutations(keys[1], len(names), permuted))
    drawn = bootstrap_medians(keys[2], ranks, resamples)
    intervals = [percentile_interval(one) for one in oscar.correlations(*jnp.moveaxis(drawn, 1, 0))]
    scores = oscar.contribution_scores(*profiles)
    return Audit(
        names,
        ranks.shape[1],
        np.asarray(profiles),
        _floats(oscar.correlations(*profiles)),
        _floats([one.low for one in intervals]),
        _floats([one.high for one in intervals]),
        float(intervals[0].undefined),
        spatial,
        _shifted_p(pairs, regions.cells, torus_shifts)[0],
        _floats([null_p(x, y, perms) for x, y in zip(*pairs, strict=True)]),
        smallest_p,
        np.asarray(scores),
        Quadrants(*map(np.asarray, oscar.quadrants(*profiles))),
        float(oscar.effective_area(scores)),
        _reliability(keys[3], ranks),
    )


def check_means(means: Real[AnyArray, "image region"], name: str) -> Real[AnyArray, "image region"]:
    """Check that the means of maps in regions are finite, and that they are not the same in all regions of all images.

    Raises:
        DataError: they are not; `name` is the network in the message.
    """
    values = np.asarray(means)
    if wrong := int((~np.isfinite(values)).any(1).sum()):
        raise DataError(f"{name}: NaN or infinite values in {wrong} of {len(values)} maps; expected finite ones")
    if is_constant(values).all():
        raise DataError(f"{name}: all {len(values)} maps are constant; expected maps that tell regions apart")
    return means


def is_constant(means: Real[np.ndarray, "image region"]) -> Bool[np.ndarray, " image"]:
    """Whether an image has the same mean in all regions but for rounding, so that it tells them not apart."""
    low, high = means.min(axis=1), means.max(axis=1)
    return high - low <= ROUNDING * np.minimum(np.abs(low), np.abs(high))


def _means(maps: AnyArray, regions: Regions) -> AnyArray:
    if maps.ndim == 2 and regions.labels.ndim > 1 and maps.shape[1] == len(regions.names):
        return maps
    return region_means(maps, regions)


def _check_ranks(ranks: np.ndarray) -> None:
    if np.isnan(ranks).any():
        network, image, region = np.argwhere(np.isnan(ranks))[0]
        raise DataError(
            f"{NETWORKS[network]}: no rank of region {region} in image {image}; expected each in all images"
        )
    for one, other in ((0, 1), (0, 2), (1, 2)):
        if np.array_equal(ranks[one], ranks[other]):
            raise DataError(f"{NETWORKS[one]}, {NETWORKS[other]}: the same maps; expected those of two networks")


def _shifted_p(
    pairs: tuple[Array, Array], cells: tuple[int, ...] | None, shifts_of: Callable[..., np.ndarray]
) -> tuple[Correlations, float]:
    """p-values of shifts, with flips and rotations unless these are too many, and the smallest possible one; or 0."""
    if cells is not None:
        for symmetries in (True, False):
            with suppress(ConfigError):
                shifts = jnp.asarray(shifts_of(cells, symmetries))
                return _floats([null_p(x, y, shifts, exact=True) for x, y in zip(*pairs, strict=True)]), 1 / len(shifts)
    return Correlations(*[np.nan] * 6), 0.0


def _surrogate_p(key: Array, pairs: tuple[Array, Array], distances: np.ndarray, number: int) -> Correlations:
    """p-values of surrogate maps; NaN for regions that are too few, or too evenly spaced."""
    if not has_variogram(distances):
        return Correlations(*[np.nan] * 6)
    space = geometry(distances)
    chunk = int(np.clip(PAIRS_AT_ONCE / distances.size, 1, 50))
    found, drawn = list[Array](), dict[bytes, Array]()
    for fold, (x, y) in enumerate(zip(*pairs, strict=True)):
        profile = np.asarray(x).tobytes()  # several correlations transform one
        if profile not in drawn:
            drawn[profile] = surrogate_maps(jax.random.fold_in(key, fold), x, space, number, chunk=chunk)
        found.append(null_p(x, y, drawn[profile]))
    return _floats(found)


def _reliability(key: Array, ranks: Array) -> tuple[float, float, float]:
    ts, ba, sa = (float(split_half_reliability(key, one).median) for one in ranks)  # the same splits
    return ts, ba, sa


def _floats(values: Sequence[Array] | Correlations | np.ndarray) -> Correlations:
    return Correlations(*(float(one) for one in values))
