"""Michelogram: which pairs of rings each plane of a 3-D sinogram sums.

A pair of rings (first, second) has a ring difference, second − first, and lies at the axial position first + second, in
half ring spacings from the first ring. A segment is a band of ring differences; axial compression (span) sums those
pairs of a segment that share a position into one plane. Segments go 0, +1, −1, +2, …, planes by position.

Source: Defrise & Kinahan, in Bendriem & Townsend, The Theory and Practice of 3D PET, 1998; Fahey, Journal of Nuclear
Medicine Technology 30(2), 2002.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import ConfigError


@dataclass(frozen=True)
class Segment:
    """Band of ring differences, both ends included."""

    lowest: int
    highest: int

    @property
    def ring_difference(self) -> float:
        """Mean ring difference, that of the line of response which stands for all of a plane's."""
        return (self.lowest + self.highest) / 2

    @property
    def smallest(self) -> int:
        """Smallest |ring difference|."""
        return 0 if self.lowest <= 0 <= self.highest else min(abs(self.lowest), abs(self.highest))

    @property
    def step(self) -> int:
        """Distance between neighbouring planes, in half ring spacings."""
        return 2 if self.lowest == self.highest else 1


@dataclass(frozen=True)
class Michelogram:
    """Planes of a sinogram of `rings` rings: those of each segment, one segment after the other. Hashable."""

    rings: int
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        for segment in self.segments:
            if segment.lowest > segment.highest or segment.smallest >= self.rings:
                raise ConfigError(
                    f"segment of ring differences {segment.lowest} to {segment.highest}; expected an interval within "
                    f"±{self.rings - 1}, as {self.rings} rings have"
                )
        bands = sorted((segment.lowest, segment.highest) for segment in self.segments)
        if not bands or any(below[1] >= above[0] for below, above in pairwise(bands)):
            raise ConfigError("segments: none, or two share a ring difference; expected bands without overlap")

    @cached_property
    def positions(self) -> tuple[Int[np.ndarray, " plane"], ...]:
        """Axial position of each plane, first + second ring, a segment at a time."""
        return tuple(np.arange(s.smallest, 2 * self.rings - 1 - s.smallest, s.step) for s in self.segments)

    @property
    def planes_per_segment(self) -> tuple[int, ...]:
        """Number of planes of each segment."""
        return tuple(len(positions) for positions in self.positions)

    @property
    def planes(self) -> int:
        """Number of planes of all segments."""
        return sum(self.planes_per_segment)

    @cached_property
    def plane_of_pair(self) -> Int[np.ndarray, "ring ring"]:
        """Plane of each pair of rings (first, second); −1 for pairs of no segment."""
        first, second = np.indices((self.rings, self.rings))
        plane = np.full(first.shape, -1)
        start = 0
        for segment, positions in zip(self.segments, self.positions, strict=True):
            held = (second - first >= segment.lowest) & (second - first <= segment.highest)
            plane[held] = start + (first + second - positions[0])[held] // segment.step
            start += len(positions)
        return plane

    @cached_property
    def ring_pairs(self) -> Int[np.ndarray, " plane"]:
        """Number of pairs of rings that each plane sums."""
        return np.bincount(self.plane_of_pair[self.plane_of_pair >= 0], minlength=self.planes)

    @cached_property
    def mirrored(self) -> Int[np.ndarray, " plane"]:
        """Plane of the same pairs with both rings swapped: that of the opposite segment.

        Raises:
            ConfigError: a segment has no opposite one.
        """
        starts = dict(zip(self.segments, np.cumsum([0, *self.planes_per_segment[:-1]]), strict=True))
        opposite = [Segment(-segment.highest, -segment.lowest) for segment in self.segments]
        if any(segment not in starts for segment in opposite):
            raise ConfigError("segments: one has no opposite; expected both +n and −n, or give segment 0 alone")
        numbers = zip(opposite, self.planes_per_segment, strict=True)
        return np.concatenate([starts[segment] + np.arange(planes) for segment, planes in numbers])

    @cached_property
    def plane_rings(self) -> Float[np.ndarray, "plane 2"]:
        """Rings of the first and the second crystal of a plane's mean line of response, which may be fractions.

        At the ends of a segment the pairs that exist have another mean ring difference; the line keeps the segment's.
        """
        pairs = zip(self.segments, self.positions, strict=True)
        return np.concatenate(
            [np.stack([at - s.ring_difference, at + s.ring_difference], axis=-1) / 2 for s, at in pairs]
        )


def michelogram(rings: int, span: int = 1, max_ring_difference: int | None = None) -> Michelogram:
    """Michelogram of all segments of an odd span: segment n holds ring differences n · span ± (span − 1) / 2.

    Args:
        rings: number of rings.
        span: axial compression; 1: none.
        max_ring_difference: the largest |ring difference|; None: rings − 1. The last segments may hold fewer than span.

    Raises:
        ConfigError: the span is even or below 1, or the ring difference is not one that the rings have.
    """
    largest = rings - 1 if max_ring_difference is None else max_ring_difference
    if span < 1 or span % 2 == 0:
        raise ConfigError(f"span {span}; expected an odd number of 1 or more")
    if not 0 <= largest < rings:
        raise ConfigError(f"maximum ring difference {largest}; expected 0 to {rings - 1}, as {rings} rings have")
    half = (span - 1) // 2
    segments = [Segment(-min(half, largest), min(half, largest))]
    for middle in range(span, largest + half + 1, span):
        low, high = middle - half, min(middle + half, largest)
        if low <= largest:
            segments += [Segment(low, high), Segment(-high, -low)]
    return Michelogram(rings, tuple(segments))


def oblique_lors(
    end_points: Float[np.ndarray, "*line 2 2"], rings: Float[np.ndarray, "plane 2"], spacing_mm: float, number: int
) -> Float[np.ndarray, "*line plane 2 3"]:
    """End points (x, y, z) in mm of the lines of response of a ring, between each of these pairs of `number` rings."""
    z = (rings - (number - 1) / 2) * spacing_mm
    shape = (*end_points.shape[:-2], len(z), 2)
    return np.concatenate(
        [
            np.broadcast_to(end_points[..., None, :, :], (*shape, 2)),
            np.broadcast_to(z[..., None], (*shape, 1)),
        ],
        axis=-1,
    )
