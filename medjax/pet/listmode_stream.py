"""List mode read from its file in every iteration, a chunk at a time, however many events there are.

    stream = EventStream(read, events, additive, sensitivity)
    acquisition = acquire_stream(stream, grid, number)     all events in memory, for every algorithm
    states = osem(stream, grid, image, iterations)         a chunk in memory, for EM alone
    totals = single_bin(stream)                            counts and sensitivity as an acquisition of one bin

Events come in batches of one size that are walked along one axis: two programs do for all.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.pet.acquisition import Acquisition, divide
from medjax.pet.em import State
from medjax.pet.grid import Grid
from medjax.pet.listmode import Events, acquire_events
from medjax.pet.lor_projector import backproject, project
from medjax.pet.lor_system import LorSystem, build_lor_system, runs_along_x
from medjax.pet.psf import Psf, blur

_BATCH = 65536  # events of a batch: a block of `lor_system`


class EventStream(NamedTuple):
    """List mode of a time frame that can be read again and again."""

    read: Callable[[], Iterator[Events]]  # chunks of the events, in the order of detection
    events: int  # as many, or with those that are left out
    additive: float  # expected randoms + scatter of all lines of response
    sensitivity: Float[Array, "x y z"]  # Pᵀ m of all valid lines of response, before any point spread function


class _Batch(NamedTuple):
    """Events that are walked along one axis, and padding."""

    system: LorSystem
    factors: Float[Array, " event"]
    additive: Float[Array, " event"]
    counts: Float[Array, " event"]  # 1; 0 for padding


def acquire_stream(stream: EventStream, grid: Grid, number: int = 1, psf: Psf | None = None) -> Acquisition:
    """List-mode acquisition of all events in `number` subsets: see `listmode.acquire_events`.

    Raises:
        ConfigError, DataError: as there.
    """
    events = _join(list(stream.read()))
    return acquire_events(events, grid, stream.sensitivity, stream.additive, number=number, psf=psf)


def single_bin(stream: EventStream, psf: Psf | None = None) -> Acquisition:
    """Acquisition whose only bin holds the counts of all lines of response: their totals, and the sensitivity."""
    counts, factor, additive = (jnp.full(1, value, jnp.float32) for value in (stream.events, 1, stream.additive))
    sensitivity = blur(psf, stream.sensitivity)
    return Acquisition(counts, factor, additive, sensitivity, stream.sensitivity, psf, _project_all, _backproject_all)


def _project_all(sensitivity: Array, image: Array) -> Array:
    return jnp.vdot(sensitivity, image, precision="highest")[None]


def _backproject_all(sensitivity: Array, counts: Array) -> Array:
    return counts[0] * sensitivity


def osem(
    stream: EventStream,
    grid: Grid,
    image: Float[Array, "x y z"],
    iterations: int,
    subsets: int = 1,
    psf: Psf | None = None,
) -> Iterator[State]:
    """OSEM, or with one subset MLEM, whose events are read anew in every iteration; the state after each update.

    Subset k holds the k-th run of events / subsets events, in the order of detection (several cost one pass more, which
    counts them: those on lines of response without efficiency are left out):

        x ← x / (s / subsets) · Gᵀ Σₑ mₑ Pₑᵀ 1 / (mₑ Pₑ G x + bₑ)

    Args:
        stream: the events.
        grid: image grid.
        image: first image, such as `em.init` gives.
        iterations: passes over the file.
        subsets: updates a pass.
        psf: image-space point spread function; None: none.
    """
    sensitivity = blur(psf, stream.sensitivity) / subsets
    events = stream.events if subsets == 1 else sum(len(chunk.factors) for chunk in stream.read())
    state, total = State(image, jnp.zeros((), jnp.int32)), jnp.zeros_like(image)
    for _ in range(iterations):
        blurred = blur(psf, state.image)
        for batch in _batches(stream.read(), -(-events // subsets), grid):
            if batch is not None:
                total = _add(total, batch, blurred)
                continue
            updated = divide(state.image, sensitivity) * blur(psf, total)
            state, total = State(updated, state.step + 1), jnp.zeros_like(image)
            blurred = blur(psf, state.image)
            yield state


@jax.jit
def _add(total: Array, batch: _Batch, blurred: Array) -> Array:
    expected = batch.factors * project(batch.system, blurred) + batch.additive
    return total + backproject(batch.system, batch.factors * divide(batch.counts, expected))


def _batches(chunks: Iterator[Events], length: int, grid: Grid) -> Iterator[_Batch | None]:
    """Batches of each run of `length` events, and None after the last one of each."""
    waiting: dict[bool, list[Events]] = {True: [], False: []}
    for events, ends in _cut(chunks, length):
        chosen = events.along_x if events.along_x is not None else runs_along_x(events.end_points, grid)
        for axis, before in waiting.items():
            ready = _join([*before, _pick(events, np.flatnonzero(chosen == axis))])
            while len(ready.factors) >= _BATCH or (ends and len(ready.factors)):
                yield _batch(_pick(ready, np.arange(min(_BATCH, len(ready.factors)))), grid, along_x=axis)
                ready = _pick(ready, np.arange(min(_BATCH, len(ready.factors)), len(ready.factors)))
            waiting[axis] = [ready]
        if ends:
            yield None


def _cut(chunks: Iterator[Events], length: int) -> Iterator[tuple[Events, bool]]:
    """The events of chunks in order, and whether a run of `length` events ends with them; the last run is shorter."""
    left, rest = length, None
    for events in chunks:
        start, number = 0, len(events.factors)
        while number - start >= left:
            yield _pick(events, np.arange(start, start + left)), True
            start, left = start + left, length
        rest = _pick(events, np.arange(start, number))
        left -= number - start
        if number > start:
            yield rest, False
    if rest is not None and left < length:
        yield _pick(rest, np.arange(0)), True


def _batch(events: Events, grid: Grid, *, along_x: bool) -> _Batch:
    number = len(events.factors)
    filled, real = _pick(events, np.resize(np.arange(number), _BATCH)), np.arange(_BATCH) < number
    system = build_lor_system(
        filled.end_points,
        grid,
        along_x=np.full(_BATCH, along_x),
        tof_mm=filled.tof_mm,
        tof_sd_mm=filled.tof_sd_mm,
    )
    return _Batch(system, *(jnp.asarray(a, jnp.float32) for a in (filled.factors, filled.additive, real)))


def _pick(events: Events, index: np.ndarray) -> Events:
    return jax.tree.map(lambda a: a[index], events)


def _join(parts: list[Events]) -> Events:
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)
