"""Training dynamics of many networks that train side by side: seeds, kinds of error, fractions of wrong labels.

    for member, snapshot in training_dynamics(seeds, model, images, labels, settings): …      of each, as `audit` gives
    states = continue_training(seeds, model, states, images, labels, weights, settings)       from where each one stands

Members have one network and one `Settings`, of which the learning rate may be a member's own, and data of their own in
equal shapes. A member is the training that `audit` makes of its seed and data alone, to rounding; by the `strategy` of
`training.population` the members are compiled and trained as one program. One whose loss is not finite ends with an
error in place of its next snapshot, and the others go on.

The scores' states of all members, maps of VOG above all, are held at once: where they are too many, give a part of the
members at a time, see `training.layout.parts`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import DataError
from medjax.iterate import Algorithm, static_partial
from medjax.labels import dynamics
from medjax.labels.audit import batches_of, probe_all
from medjax.labels.checks import ImageLabels, Images, check_run
from medjax.labels.dynamics import Settings
from medjax.labels.followed import Snapshot, advance, begin, snapshot
from medjax.labels.scores import LabelScore
from medjax.models.model import Network
from medjax.training import population
from medjax.training.state import TrainState

Weights = Float[np.ndarray, " image"]


def training_dynamics(
    seeds: Sequence[int],
    model: Network,
    images: Sequence[Images],
    labels: Sequence[ImageLabels],
    settings: Settings,
    label_scores: Mapping[str, LabelScore] | None = None,
    *,
    rates: Sequence[float] | None = None,
    checkpoints: Sequence[Path] | None = None,
    strategy: str | None = None,
    width: int | None = None,
) -> Iterator[tuple[int, Snapshot | DataError]]:
    """(member, snapshot) of every member after each probe of its images; its last one is at `settings.steps`.

    A snapshot's training state is a copy; the states of its scores are used up by the member's next probe.

    Args:
        label_scores: what to keep track of; default: all built-in scores.
        rates: the learning rate of each member; default: that of `settings`.
        checkpoints: a folder for each member alone. It is kept there at every snapshot; called again, with these
            members or others and by any strategy, those that have come so far yield their last snapshot once more.
        strategy, width: see `training.population`; the backend's best if None.

    Raises:
        ConfigError, DataError, WorkdirError: as `audit.training_dynamics`, but for a loss that is not finite.
    """
    each = _settings(settings, rates, len(seeds))
    folders = [None] * len(seeds) if checkpoints is None else checkpoints
    chosen: dict[str, LabelScore] = {}
    runs = []
    for k, (seed, own) in enumerate(zip(seeds, each, strict=True)):
        chosen = check_run(model, images[k], labels[k], own, label_scores, "separate")
        run, resumed = begin(seed, model, images[k], labels[k], own, chosen, "separate", folders[k])
        runs.append(run)
        if resumed:
            yield k, snapshot(run, settings)
    weights = [np.ones(len(one), np.float32) for one in images]
    starts = [run.train for run in runs]
    for k, train in _train(seeds, model, starts, images, labels, weights, each, settings.every, strategy, width):
        if isinstance(train, DataError):
            yield k, train
            continue
        states, predictions = probe_all(model, chosen, train.params, runs[k].scores, images[k], labels[k])
        runs[k] = advance(runs[k], train, states, predictions, labels[k], folders[k])
        yield k, snapshot(runs[k], settings)


def continue_training(
    seeds: Sequence[int],
    model: Network,
    states: Sequence[TrainState],
    images: Sequence[Images],
    labels: Sequence[ImageLabels],
    weights: Sequence[Weights],
    settings: Settings,
    *,
    rates: Sequence[float] | None = None,
    strategy: str | None = None,
    width: int | None = None,
) -> list[TrainState | DataError]:
    """The members' states at the end, each trained from its own state, at any step, on with these labels and weights.

    One whose loss is not finite is an error instead. As `audit.continue_training`.
    """
    each = _settings(settings, rates, len(seeds))
    ends: list[TrainState | DataError] = list(states)
    for k, end in _train(seeds, model, states, images, labels, weights, each, settings.steps, strategy, width):
        ends[k] = end
    return ends


def _train(
    seeds: Sequence[int],
    model: Network,
    states: Sequence[TrainState],
    images: Sequence[Images],
    labels: Sequence[ImageLabels],
    weights: Sequence[Weights],
    each: Sequence[Settings],
    every: int,
    strategy: str | None,
    width: int | None,
) -> Iterator[tuple[int, TrainState | DataError]]:
    """(member, state) after each `every` steps and at the end of each, or once an error."""
    first = np.array([int(state.step) for state in states])
    left = np.maximum(each[0].steps - first, 0)
    make = static_partial(_algorithm, model, each[0]._replace(learning_rate=0.0))
    rates = jnp.array([own.learning_rate for own in each], jnp.float32)
    data = zip(seeds, images, labels, weights, strict=True)
    inputs = [batches_of(*own, each[0].batch) for own in data]
    start = population.stack(states)
    reached, made = first.copy(), 0
    for now, infos in population.loop(
        make, rates, start, left.tolist(), inputs=inputs, every=every, strategy=strategy, width=width
    ):
        made += len(infos.loss)
        for k in np.flatnonzero(reached < first + np.minimum(made, left)).tolist():
            train = population.member(now.members, k)
            reached[k] = first[k] + min(made, left[k])
            if int(train.step) == reached[k]:
                yield k, train
            else:
                reached[k] = first[k] + left[k]  # no more of it
                yield k, _not_finite(int(train.step))


def _algorithm(model: Network, settings: Settings, rate: Array) -> Algorithm:
    return dynamics.algorithm(model, settings._replace(learning_rate=rate))


def _settings(settings: Settings, rates: Sequence[float] | None, members: int) -> list[Settings]:
    """Each member's own."""
    own = [settings.learning_rate] * members if rates is None else rates
    return [settings._replace(learning_rate=rate) for rate in own]


def _not_finite(step: int) -> DataError:
    return DataError(f"training: the loss or its gradient is not finite after step {step}; try a smaller learning rate")
