"""Events of PETSIRD list mode in the form that `listmode.acquire_events` takes, by time frame."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.errors import ConfigError, DataError
from medjax.io.frames import Frames, check_frames
from medjax.io.petsird import Coincidences, TimeBlock, TypePair, read_petsird
from medjax.pet.listmode import Events
from medjax.pet.petsird_scanner import Detectors, coincidence_efficiencies, detectors, expand_bins

_CHUNK = 2**20  # prompts that are read at a time
_STILL = 1e-4  # of a movement's matrix from one that moves nothing


class Frame(NamedTuple):
    """Delayeds of a time frame by pair of types of modules, and the number of its prompts."""

    prompts: int
    delayeds: dict[TypePair, Coincidences]

    @property
    def counts(self) -> tuple[int, int]:
        """Number of prompts and of delayeds."""
        return self.prompts, sum(map(len, self.delayeds.values()))


@dataclass(frozen=True)
class PetsirdScan:
    """Scanner and time frames of list mode; of the coincidences the delayeds are in memory, 12 bytes each."""

    detectors: Detectors
    frames: tuple[Frame, ...]
    duration_s: float
    not_used: tuple[str, ...]  # kinds of time blocks that were skipped


def read_petsird_scan(path: str | Path, frames: Frames | None = None) -> PetsirdScan:
    """Read and check list mode in one pass over the file; `read_prompts` then reads a frame's prompts.

    A time block belongs to the frame that its middle lies in; one in none is skipped.

    Args:
        path: PETSIRD file.
        frames: start and end in seconds of each frame, in their order; None: one frame, all of the scan.

    Raises:
        ConfigError: frames overlap, or one ends after the scan.
        DataError: see `read_petsird` and `detectors`; a coincidence of a detection bin, a time-of-flight bin or a type
            that the scanner has not; the bed or the gantry moves.
    """
    if frames is not None:
        check_frames(frames, np.inf)
    header, blocks = read_petsird(path)
    scanner = detectors(header, str(path))
    known = (None,) if frames is None else frames
    kept: list[dict[TypePair, list[Coincidences]]] = [dict[TypePair, list[Coincidences]]() for _ in known]
    prompts, stop_ms, others = [0] * len(known), 0, set[str]()
    for block in blocks:
        if not isinstance(block, TimeBlock):
            _check_still(str(path), block.kind, block.value)
            others.add(block.kind)
            continue
        if block.stop_ms < block.start_ms:
            raise DataError(f"{path}: a time block from {block.start_ms} to {block.stop_ms} ms; expected a later end")
        stop_ms = max(stop_ms, block.stop_ms)
        for own in (block.prompts, block.delayeds):
            _check_coincidences(str(path), scanner, own)
        for k, frame_s in enumerate(known):
            if _within(block, frame_s):
                prompts[k] += sum(map(len, block.prompts.values()))
                for pair, coincidences in block.delayeds.items():
                    kept[k].setdefault(pair, []).append(coincidences)
    if frames is not None:
        check_frames(frames, stop_ms / 1000)
    joined = tuple(
        Frame(number, {pair: np.concatenate(parts) for pair, parts in own.items()})
        for number, own in zip(prompts, kept, strict=True)
    )
    return PetsirdScan(scanner, joined, stop_ms / 1000, tuple(sorted(others)))


def read_prompts(
    path: str | Path, frame_s: tuple[float, float] | None = None
) -> Iterator[dict[TypePair, Coincidences]]:
    """Read the prompts of a frame, or of the whole scan, about a million at a time.

    Raises:
        DataError: see `read_petsird`.
    """
    waiting: dict[TypePair, list[Coincidences]] = {}
    number = 0
    for block in read_petsird(path)[1]:
        if isinstance(block, TimeBlock) and _within(block, frame_s):
            for pair, own in block.prompts.items():
                waiting.setdefault(pair, []).append(own)
                number += len(own)
            if number >= _CHUNK:
                yield {pair: np.concatenate(parts) for pair, parts in waiting.items()}
                waiting, number = dict[TypePair, list[Coincidences]](), 0
    if number:
        yield {pair: np.concatenate(parts) for pair, parts in waiting.items()}


def _within(block: TimeBlock, frame_s: tuple[float, float] | None) -> bool:
    middle = (block.start_ms + block.stop_ms) / 2
    return frame_s is None or 1000 * frame_s[0] <= middle < 1000 * frame_s[1]


class ListedEvents(NamedTuple):
    """Events of all pairs of types."""

    events: Events
    left_out: int  # events on lines of an efficiency of 0, or along the axis of the scanner


def list_events(
    scanner: Detectors,
    coincidences: dict[TypePair, Coincidences],
    *,
    factors: Callable[[np.ndarray], np.ndarray] | None = None,
    additive: Callable[[TypePair, np.ndarray], np.ndarray] | None = None,
) -> ListedEvents:
    """Lines of response, efficiencies and time-of-flight bins of coincidences.

    Args:
        scanner: detectors, as the file describes them.
        coincidences: those of a frame.
        factors: further multiplicative factors, such as attenuation, of end points (line, 2, 3) in mm; None: 1.
        additive: expected randoms + scatter of a pair of types and its coincidences (event, 3), in counts; None: 0.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    left_out = 0
    for pair, own in coincidences.items():
        bins = own[:, :2].astype(np.int64)
        efficiencies = coincidence_efficiencies(scanner, pair, bins)
        ends = end_points(scanner, pair, bins)
        used = (efficiencies > 0) & crosses_axially(ends)
        left_out += int(np.sum(~used))
        own, ends, efficiencies = own[used], ends[used], efficiencies[used]
        if factors is not None:
            efficiencies = efficiencies * factors(ends)
        expected = np.zeros(len(own)) if additive is None else additive(pair, own)
        edges, sd = scanner.pairs[pair].tof_edges_mm, scanner.pairs[pair].tof_sd_mm
        tof = np.tile([-np.inf, np.inf], (len(own), 1))
        if edges is not None:
            tof = np.stack([edges[own[:, 2]], edges[own[:, 2] + np.uint32(1)]], axis=-1)
        sds = np.full(len(own), sd if edges is not None else 1.0)
        parts.append((ends, efficiencies, expected, tof, sds))
    empty = (np.zeros((0, 2, 3)), np.zeros(0), np.zeros(0), np.zeros((0, 2)), np.zeros(0))
    ends, weights, expected, tof, sds = (np.concatenate(own) for own in zip(empty, *parts, strict=True))
    flight = (tof, sds) if scanner.tof else (None, None)
    return ListedEvents(Events(ends, weights, expected, None, *flight), left_out)


def end_points(scanner: Detectors, pair: TypePair, bins: Int[np.ndarray, "event 2"]) -> Float[np.ndarray, "event 2 3"]:
    """Centres of the detecting elements of coincidences in mm, the middle of the scanner at z = 0."""
    own = [scanner.types[kind] for kind in pair]
    places = [expand_bins(bins[:, k], own[k]) for k in range(2)]
    return np.stack([own[k].centers_mm[places[k][0], places[k][1]] for k in range(2)], axis=1)


def crosses_axially(ends: Float[np.ndarray, "line 2 3"]) -> np.ndarray:
    """False for lines along the axis of the scanner, which no projector here walks and which miss the image."""
    return np.hypot(*np.moveaxis(ends[:, 1, :2] - ends[:, 0, :2], -1, 0)) > 0.1


def _check_coincidences(name: str, scanner: Detectors, events: dict[TypePair, np.ndarray]) -> None:
    for pair, own in events.items():
        if not len(own):
            continue
        if pair not in scanner.pairs:
            raise DataError(
                f"{name}: coincidences of module types {pair[0]} and {pair[1]}; it has {len(scanner.types)}"
            )
        edges = scanner.pairs[pair].tof_edges_mm
        most = [scanner.types[kind].efficiencies.size for kind in pair] + [1 if edges is None else len(edges) - 1]
        found = own.max(axis=0)
        for label, value, limit in zip(("detection bin", "detection bin", "TOF bin"), found, most, strict=True):
            if value >= limit:
                raise DataError(f"{name}: {label} {value} of module types {pair[0]} and {pair[1]}, which have {limit}")


def _check_still(name: str, kind: str, value: Any) -> None:
    """Movements are not corrected for: only those that move nothing pass."""
    moved = [value.transform] if kind == "BedMovementTimeBlock" else []
    for transform in value.transforms if kind == "GantryMovementTimeBlock" else moved:
        if not np.allclose(transform.matrix, np.eye(3, 4), atol=_STILL):
            raise ConfigError(f"{name}: the bed or the gantry moves during the scan; expected one that stands still")
