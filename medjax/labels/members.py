"""Members of a population of networks that train on labels of their own: their data, groups and training loop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from medjax.errors import DataError, MedjaxError
from medjax.iterate import Algorithm, static_partial
from medjax.labels import dynamics, scores
from medjax.labels.audit import batches
from medjax.labels.checks import ImageLabels, Images
from medjax.labels.dynamics import TrainingSettings
from medjax.labels.scores import LabelScore
from medjax.models.model import Network
from medjax.training import population
from medjax.training.layout import member_groups
from medjax.training.state import TrainState


class TrainingRun(NamedTuple):
    """Seed, data and learning rate of one member's training."""

    seed: int
    images: Images
    labels: ImageLabels
    learning_rate: float
    weight: Float[np.ndarray, " image"] | None = None  # weight of each image in the loss; None: 1


def bytes_per_member(
    run: TrainingRun, model: Network, settings: TrainingSettings, label_scores: Mapping[str, LabelScore]
) -> int:
    """Device memory of a member in bytes: a step of its training, as far as the compiler says, and its score states."""
    init = partial(scores.init, label_scores, len(run.images), run.labels.shape[1:])
    tracked = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(init)))
    state = population.stack([dynamics.algorithm(model, settings).init(jax.random.key(run.seed), run.images)])
    weight = np.ones(len(run.images), np.float32)
    batch = batches(run.seed, run.images, run.labels, weight, settings.batch)(0)
    return tracked + (
        population.bytes_per_member(_make(model, settings), jnp.array([run.learning_rate]), state, batch) or 0
    )


def parallel_groups(
    factories: Sequence[Callable[[], Any]],
    member_of: Callable[[Any], TrainingRun],
    model: Network,
    settings: TrainingSettings,
    label_scores: Mapping[str, LabelScore],
    strategy: str | None,
    width: int | None,
) -> list[Int[np.ndarray, " member"]]:
    """Members that train in parallel; on an accelerator as many as its memory holds, by the size of the first."""
    size = None
    if not width and jax.default_backend() != "cpu":
        made, _ = build_members(factories, range(min(1, len(factories))))
        size = bytes_per_member(member_of(made[0]), model, settings, label_scores) if made else None
    return member_groups(len(factories), strategy, width, size)


def build_members(
    factories: Sequence[Callable[[], Any]], part: Sequence[int]
) -> tuple[dict[int, Any], dict[int, MedjaxError]]:
    """Values of the factories of a group, and the errors of those that failed."""
    made: dict[int, Any] = {}
    failed: dict[int, MedjaxError] = {}
    for k in part:
        try:
            made[k] = factories[k]()
        except MedjaxError as error:
            failed[k] = error
    return made, failed


def train_states(
    members: Sequence[TrainingRun],
    states: Sequence[TrainState],
    model: Network,
    settings: TrainingSettings,
    every: int,
    strategy: str | None,
    width: int | None,
    mesh: Mesh | None = None,
) -> Iterator[tuple[int, TrainState | DataError]]:
    """Training states, with the number of their member, after each `every` steps and at its end, or once an error."""
    if not members:
        return
    first = np.array([int(state.step) for state in states])
    left = np.maximum(settings.steps - first, 0)
    inputs = []
    for one in members:
        weight = np.ones(len(one.images), np.float32) if one.weight is None else one.weight
        inputs.append(batches(one.seed, one.images, one.labels, weight, settings.batch))
    make = _make(model, settings)
    rates = jnp.array([one.learning_rate for one in members], jnp.float32)
    reached, made = first.copy(), 0
    for now, infos in population.loop(
        make, rates, population.stack(states), left.tolist(), inputs=inputs, every=every,
        strategy=strategy, width=width, mesh=mesh,
    ):  # fmt: skip
        made += len(infos.loss)
        for k in np.flatnonzero(reached < first + np.minimum(made, left)).tolist():
            train = population.member(now.members, k)
            reached[k] = first[k] + min(made, left[k])
            if int(train.step) == reached[k]:
                yield k, train
            else:
                reached[k] = first[k] + left[k]  # no more of it
                yield k, _not_finite(int(train.step))


def _make(model: Network, settings: TrainingSettings) -> population.Make:
    return static_partial(_algorithm, model, settings._replace(learning_rate=0.0))


def _algorithm(model: Network, settings: TrainingSettings, rate: Array) -> Algorithm:
    return dynamics.algorithm(model, settings._replace(learning_rate=rate))


def _not_finite(step: int) -> DataError:
    return DataError(f"training: the loss or its gradient is not finite after step {step}; try a smaller learning rate")
