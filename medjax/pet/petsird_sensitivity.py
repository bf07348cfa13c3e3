"""Sensitivity image of a PETSIRD scanner: the back-projection of all valid lines of response, or of a sample of them.

A line counts once, with the efficiencies of all pairs of energy windows and with the probability that an annihilation
on it is in one of the time-of-flight bins.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.io.petsird import TypePair
from medjax.pet.grid import Grid
from medjax.pet.lor_projector import backproject
from medjax.pet.lor_system import build_lor_system
from medjax.pet.petsird_events import crosses_axially
from medjax.pet.petsird_scanner import Detectors

MAX_LORS = 20_000_000  # of which all are taken
_BATCH = 1 << 17  # lines back-projected at once
_REALISATIONS = 16  # of a sample, whose spread gives the variance


class Sensitivity(NamedTuple):
    """Sensitivity image Pᵀ m, and how much of it is an estimate."""

    image: Float[Array, "x y z"]
    variance: Float[Array, "x y z"] | None  # of the image; None: all lines were taken
    lors: int  # number of valid lines of response
    taken: int  # number of lines back-projected


def line_sensitivity(
    scanner: Detectors,
    grid: Grid,
    *,
    factors: Callable[[np.ndarray], np.ndarray] | None = None,
    max_lors: int = MAX_LORS,
    seed: int = 0,
) -> Sensitivity:
    """Sensitivity Σ m Pᵀ 1 over the valid lines of response, m their efficiency times `factors`.

    Where there are more than `max_lors`, that many are drawn with replacement, all with the same probability, and the
    sum is scaled to all of them: unbiased, and its variance is that of the mean of 16 independent parts.

    Args:
        scanner: detectors.
        grid: image grid.
        factors: further multiplicative factors, such as attenuation, of end points (line, 2, 3) in mm; None: 1.
        max_lors: number of lines beyond which a sample is drawn.
        seed: random seed of the sample.

    Raises:
        DataError: no modules are in coincidence.
    """
    blocks = _module_pairs(scanner)
    total = sum(len(found) * size for _, found, size in blocks)
    if not total:
        raise DataError(f"{scanner.name}: no modules in coincidence; expected two or more")
    size = min(_BATCH, total)
    if total <= max_lors:
        image = _backproject_all(scanner, grid, _all_lines(scanner, blocks), size, factors)
        return Sensitivity(image, None, total, total)
    rng = np.random.default_rng(seed)
    each = -(-max_lors // _REALISATIONS)
    parts = [
        _backproject_all(scanner, grid, _sample(scanner, blocks, each, rng), min(size, each), factors) * (total / each)
        for _ in range(_REALISATIONS)
    ]
    stack = jnp.stack(parts)
    return Sensitivity(stack.mean(axis=0), stack.var(axis=0, ddof=1) / len(parts), total, each * len(parts))


Block = tuple[TypePair, np.ndarray, int]  # types, pairs of modules (pair, 2), number of lines of each


def _module_pairs(scanner: Detectors) -> list[Block]:
    """Pairs of modules in coincidence; a module with itself apart, since each of its lines is found twice."""
    blocks: list[Block] = []
    for pair, own in scanner.pairs.items():
        found = np.argwhere(own.group >= 0)
        first, second = (scanner.types[kind].efficiencies.shape[1] for kind in pair)
        itself = (found[:, 0] == found[:, 1]) & (pair[0] == pair[1])
        blocks += [(pair, found[~itself], first * second), (pair, found[itself], first * (first - 1) // 2)]
    return [block for block in blocks if len(block[1]) and block[2]]


class _Lines(NamedTuple):
    pair: TypePair
    modules: np.ndarray  # (line, 2)
    elements: np.ndarray  # (line, 2)


def _all_lines(scanner: Detectors, blocks: list[Block]) -> Iterator[_Lines]:
    for pair, found, size in blocks:
        elements = np.argwhere(_element_pairs(scanner, pair, size))
        for start in range(0, len(found), step := max(_BATCH // size, 1)):
            modules = found[start : start + step]
            yield _Lines(pair, np.repeat(modules, size, axis=0), np.tile(elements, (len(modules), 1)))


def _element_pairs(scanner: Detectors, pair: TypePair, size: int) -> np.ndarray:
    """Elements that share a line: of two modules all, of a module with itself the first above the second."""
    shape = [scanner.types[kind].efficiencies.shape[1] for kind in pair]
    return np.ones(shape, bool) if size == shape[0] * shape[1] else np.tri(*shape, k=-1, dtype=bool)


def _sample(scanner: Detectors, blocks: list[Block], number: int, rng: np.random.Generator) -> Iterator[_Lines]:
    """As many lines, drawn with replacement, each with the same probability."""
    weights = np.array([len(found) * size for _, found, size in blocks], float)
    for (pair, found, size), count in zip(blocks, rng.multinomial(number, weights / weights.sum()), strict=True):
        elements = np.argwhere(_element_pairs(scanner, pair, size))
        yield _Lines(pair, found[rng.integers(0, len(found), count)], elements[rng.integers(0, size, count)])


def _ends_and_weights(scanner: Detectors, lines: _Lines) -> tuple[np.ndarray, np.ndarray]:
    """End points of lines and their efficiencies, summed over energy windows."""
    own = [scanner.types[kind] for kind in lines.pair]
    at = [(lines.modules[:, k], lines.elements[:, k]) for k in range(2)]
    ends = np.stack([own[k].centers_mm[at[k]] for k in range(2)], axis=1)
    first, second = (own[k].efficiencies[at[k]] for k in range(2))
    pairs = scanner.pairs[lines.pair]
    if pairs.efficiencies is None:
        weights = first.sum(axis=-1) * second.sum(axis=-1)
    else:
        group = pairs.group[lines.modules[:, 0], lines.modules[:, 1]]
        table = pairs.efficiencies[group, lines.elements[:, 0], :, lines.elements[:, 1]]
        weights = np.einsum("na,nb,nab->n", first, second, table)
    return ends, scanner.calibration * weights


def _backproject_all(
    scanner: Detectors,
    grid: Grid,
    parts: Iterator[_Lines],
    size: int,
    factors: Callable[[np.ndarray], np.ndarray] | None,
) -> Float[Array, "x y z"]:
    """Σ weight · Pᵀ 1, in batches of one size that are walked along one axis, so that two programs do for all."""
    total = jnp.zeros(grid.shape, jnp.float32)
    waiting: dict[bool, list[tuple[np.ndarray, ...]]] = {True: [], False: []}
    for lines in parts:
        ends, weights = _ends_and_weights(scanner, lines)
        used = (weights > 0) & crosses_axially(ends)
        ends, weights = ends[used], weights[used]
        if factors is not None:
            weights = weights * factors(ends)
        edges, sd = scanner.pairs[lines.pair].tof_edges_mm, scanner.pairs[lines.pair].tof_sd_mm
        window = np.tile([-np.inf, np.inf] if edges is None else edges[[0, -1]], (len(ends), 1))
        sds = np.full(len(ends), 1.0 if edges is None else sd)
        steps = np.abs(ends[:, 1, :2] - ends[:, 0, :2]) / np.asarray(grid.voxel_mm[:2])
        for along_x, chosen in ((True, steps[:, 0] >= steps[:, 1]), (False, steps[:, 0] < steps[:, 1])):
            waiting[along_x].append(tuple(a[chosen] for a in (ends, weights, window, sds)))
            while sum(len(part[0]) for part in waiting[along_x]) >= size:
                joined = [np.concatenate(own) for own in zip(*waiting[along_x], strict=True)]
                total = total + _batch(scanner, grid, along_x, [a[:size] for a in joined])
                waiting[along_x] = [tuple(a[size:] for a in joined)]
    for along_x, rest in waiting.items():
        joined = [np.concatenate(own) for own in zip(*rest, strict=True)]
        if len(joined[0]):
            fill = [np.concatenate([a, np.repeat(a[-1:], size - len(a), axis=0)]) for a in joined]
            fill[1][len(joined[0]) :] = 0
            total = total + _batch(scanner, grid, along_x, fill)
    return total


def _batch(scanner: Detectors, grid: Grid, along_x: bool, batch: list[np.ndarray]) -> Float[Array, "x y z"]:
    ends, weights, window, sds = batch
    tof = {"tof_mm": window, "tof_sd_mm": sds} if scanner.tof else {}
    system = build_lor_system(ends, grid, along_x=np.full(len(ends), along_x), **tof)
    return backproject(system, jnp.asarray(weights, jnp.float32))
