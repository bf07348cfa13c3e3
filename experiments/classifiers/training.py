"""Training of a study's classifiers as populations: cross-entropy by ERM, balanced batches, reweighting or GroupDRO.

    networks = [Classifier(work, f"ts_{seed}", model, seed, settings) for seed in seeds]
    results = train(networks, load, finish)        load(network) → Examples; finish(network, params) → its result

Classifiers of equal model, settings, kind and GroupDRO or not train as one population, whatever they learn from: label
or attribute, balanced or biased sets. The parameters kept are those after the last step of a cosine schedule.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Scalar

from medjax.errors import MedjaxError
from medjax.iterate import Algorithm, static_partial
from medjax.models.model import Network
from medjax.running.plan import Stage, abstract, array, training_stage
from medjax.running.workdir import WorkDir
from medjax.shortcuts import group_dro
from medjax.shortcuts.attribution import methods as attribution_methods
from medjax.training import study
from medjax.training.batches import from_arrays
from medjax.training.schedules import warmup_cosine
from medjax.training.state import trainer

METHODS = {"erm": "ERM", "balanced": "balanced batches", "reweighted": "reweighting", "group_dro": "GroupDRO"}
Augment = Callable[[PRNGKeyArray, Array], Array]  # (key, images) → images; hashable: a module-level function


class Examples(NamedTuple):
    """Images, the class that a network learns, the group of each, and the weight of its loss (mean 1)."""

    image: Float[np.ndarray, "example *space channel"]
    target: Int[np.ndarray, " example"]
    group: Int[np.ndarray, " example"]  # 0 … groups − 1, of label and attribute
    weight: Float[np.ndarray, " example"]


class Settings(NamedTuple):
    """Settings of the training: learning rate and weight decay of AdamW, steps, batch, and η of GroupDRO."""

    rate: float
    weight_decay: float
    steps: int
    batch: int
    every: int  # steps between lines of metrics.jsonl
    group_step_size: float = 0.01  # η of GroupDRO's weights


class Classifier(NamedTuple):
    """Network of a study: its work directory, name, architecture, random seed and training."""

    work: WorkDir
    name: str  # of its stage
    model: Network
    seed: int
    settings: Settings
    method: str = "erm"  # key of `METHODS`
    kind: tuple = ()  # what else must be equal within a population, such as the size of the images
    augment: Augment | None = None
    groups: int = 4


def train(
    networks: Sequence[Classifier],
    load: Callable[[Classifier], Examples],
    finish: Callable[[Classifier, PyTree], PyTree],
    strategy: str | None = None,
    width: int | None = None,
) -> list[PyTree | MedjaxError]:
    """Results of all networks, in their order; an error in place of one whose loss is not finite.

    Args:
        networks: the classifiers; networks of equal seed and model begin with the same weights.
        load: training set of a network.
        finish: (network, parameters) → nested dict of arrays, which the work directory keeps.
        strategy, width: see `training.population`.

    Raises:
        ConfigError, DataError, WorkdirError: as `study.train`.
    """

    def training(network: Classifier) -> study.MemberTraining:
        data, own, key = load(network), _member(network), jax.random.key(network.seed)
        params = network.model.init(jax.random.fold_in(key, 0), jnp.asarray(data.image[:1]))
        groups = data.group if network.method in ("balanced", "group_dro") else None
        state = own.make(own.settings).init(params, jax.random.fold_in(key, 1))
        batches = from_arrays(data, network.settings.batch, network.seed, groups)
        return study.MemberTraining(state, batches, partial(finish, network))

    members = [_member(network) for network in networks]
    return study.train(members, lambda numbers: [training(networks[i]) for i in numbers], strategy, width)


def make_trainer(
    model: Network, groups: int | None, steps: int, augment: Augment | None, settings: Mapping[str, float | Scalar]
) -> Algorithm:
    """Training by AdamW on the weighted cross-entropy: its mean over images, or over `groups` by GroupDRO.

    The learning rate warms up in a twentieth of the steps and falls to zero as a cosine.
    """

    def losses(params: PyTree, batch: Examples, key: PRNGKeyArray) -> tuple[Array, Array]:
        draw, dropout = jax.random.split(key)
        images = jnp.asarray(batch.image) if augment is None else augment(draw, jnp.asarray(batch.image))
        logits = model.apply(params, images, key=dropout)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(batch.target))
        return jnp.asarray(batch.weight) * each, jnp.asarray(batch.group)

    def loss(params: PyTree, batch: Examples, key: PRNGKeyArray) -> Scalar:
        return jnp.mean(losses(params, batch, key)[0])

    optimizer = optax.adamw(warmup_cosine(settings["rate"], steps), weight_decay=settings["weight_decay"])
    if groups is None:
        return trainer(loss, optimizer)
    return group_dro.trainer(losses, optimizer, groups, settings["group_step_size"])


def plan_training(title: str, network: Classifier, shape: Sequence[int], number: int) -> Stage:
    """Stage of the trainings of `number` networks like this one, on images of `shape` (*space, channel)."""
    own, batch = _member(network), network.settings.batch
    whole = array(batch, dtype="int32")
    examples = Examples(array(batch, *shape), whole, whole, array(batch))
    algorithm, images = own.make(own.settings), (array(1, *shape),)
    return training_stage(title, algorithm, network.model.init, images, examples, number * network.settings.steps)


def plan_assessment(
    name: str, model: Network, shape: Sequence[int], batch: int, images: int, explained: Mapping[str, int], steps: int
) -> list[Stage]:
    """Stages of the logits of so many `images` and, for each attribution method, of the maps of so many."""
    some = array(batch, *shape)
    params = abstract(model.init, abstract(jax.random.key, 0), array(1, *shape))
    stages = [Stage(f"logits, {name}", model.apply, (params, some), -(-images // batch))]
    for method, number in explained.items():
        build = attribution_methods.build(method, model, steps)

        def maps(params: PyTree, images: Array, build: Any = build) -> PyTree:
            return jax.vmap(build(params))(images)

        stages.append(Stage(f"{method}, {name}", maps, (params, some), -(-number // batch)))
    return stages


def predict(
    model: Network, params: PyTree, images: Float[np.ndarray, "example *space channel"], batch: int = 32
) -> Float[np.ndarray, "example class"]:
    """Logits of images, computed in batches of one size: the last is filled up with its last image."""
    parts = []
    for start in range(0, len(images), batch):
        chunk = images[np.minimum(np.arange(start, start + batch), len(images) - 1)]
        parts.append(np.asarray(_apply(model, params, chunk)))
    return np.concatenate(parts)[: len(images)]


def _member(network: Classifier) -> study.StudyMember:
    s = network.settings
    robust = network.groups if network.method == "group_dro" else None
    make = static_partial(make_trainer, network.model, robust, s.steps, network.augment)
    traced = {"rate": s.rate, "weight_decay": s.weight_decay, "group_step_size": s.group_step_size}
    return study.StudyMember(network.work, network.name, make, traced, s.steps, s.every, None, (*network.kind, s.batch))


_apply = jax.jit(lambda model, params, images: model.apply(params, images), static_argnums=0)
