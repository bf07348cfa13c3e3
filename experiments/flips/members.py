"""The networks of the label-flips study: their data, and their four ways of training."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree, Scalar
from ml_collections import FrozenConfigDict

from medjax.datasets import flip_manifests
from medjax.errors import MedjaxError
from medjax.iterate import Algorithm, static_partial
from medjax.models.model import Network, finest_logits
from medjax.phantoms.scenes import Scenes, Splits, draw_splits
from medjax.running.arrays import numbered
from medjax.running.cells import cell_name
from medjax.running.config import flatten
from medjax.running.workdir import WorkDir
from medjax.shortcuts import group_dro
from medjax.shortcuts.cutmix import mixed_batches
from medjax.shortcuts.flip_measures import Assessment, assess
from medjax.training import study
from medjax.training.batches import Batches, from_arrays
from medjax.training.losses import dice_cross_entropy
from medjax.training.schedules import warmup_cosine
from medjax.training.state import trainer

GROUPS, CLASSES, CHUNK = 4, 3, 80  # CHUNK images are looked at at once
NAMES = {"erm": "ERM", "balanced": "balanced batches", "group_dro": "GroupDRO", "cutmix": "CutMix"}
TRACED = (  # keys that change no program: what differs in them alone trains as one population
    "seed", "training.rate", "training.dro_rate", "cutmix.probability", "cutmix.smallest", "cutmix.largest",
    "scenes.amplitudes", "scenes.contrast", "scenes.noise",
)  # fmt: skip


class Case(NamedTuple):
    """A network of the study: how it is trained, on what, and where it is kept."""

    config: FrozenConfigDict
    work: WorkDir
    model: Network
    method: str
    correlation: float
    seed: int

    @property
    def key(self) -> PRNGKeyArray:
        return jax.random.fold_in(jax.random.key(self.config.seed), self.seed)


class Trained(NamedTuple):
    """Its parameters, and what it made of the test images."""

    params: dict[str, Any]  # their leaves, as `arrays.numbered` gives them
    assessment: Assessment


def train(cases: Sequence[Case]) -> list[Trained | MedjaxError]:
    """Every network, as populations: GroupDRO, whose state has weights of groups, and all others."""

    def load(numbers: list[int]) -> list[study.Training]:
        data = {data_key(cases[i]): cases[i] for i in numbers}
        shared = {key: splits(case) for key, case in data.items()}  # methods of one seed and correlation share theirs
        return [training(cases[i], shared[data_key(cases[i])]) for i in numbers]

    options = cases[0].config.population
    kept = study.train([member(case) for case in cases], load, options.strategy or None, options.width or None)
    return [
        one if isinstance(one, MedjaxError) else Trained(one["params"], Assessment(**one["judged"])) for one in kept
    ]


def member(case: Case) -> study.Member:
    """How a network is trained: Adam, a checkpoint's rule of selection, and what is traced."""
    t = case.config.training
    kind = tuple((key, value) for key, value in flatten(case.config).items() if key not in TRACED)
    make = static_partial(make_trainer, case.model, case.method == "group_dro", t.steps, t.cosine)
    name, settings = cell_name((case.method, case.correlation, case.seed)), {"rate": t.rate, "dro_rate": t.dro_rate}
    patience = t.patience * t.every if t.selection == "validation" else None
    return study.Member(case.work, name, make, settings, t.steps, t.every, patience, kind)


def make_trainer(
    model: Network, robust: bool, steps: int, cosine: bool, settings: Mapping[str, float | Scalar]
) -> Algorithm:
    """Adam on Dice loss + cross-entropy: the mean over images, or, if `robust`, GroupDRO's weighted mean over groups.

    With `cosine` the learning rate falls to a tenth over the steps.
    """

    def losses(params: PyTree, batch: Scenes, key: PRNGKeyArray) -> tuple[Array, Array]:
        return image_losses(model, params, batch), jnp.asarray(batch.group)

    def loss(params: PyTree, batch: Scenes, key: PRNGKeyArray) -> Scalar:
        return jnp.mean(image_losses(model, params, batch))

    rate = settings["rate"]
    optimizer = optax.adam(warmup_cosine(rate, steps, rate / 10) if cosine else rate)
    return group_dro.trainer(losses, optimizer, GROUPS, settings["dro_rate"]) if robust else trainer(loss, optimizer)


def image_losses(model: Network, params: PyTree, data: Scenes) -> Array:
    """Dice loss + cross-entropy of each image."""
    return dice_cross_entropy(finest_logits(model, params, jnp.asarray(data.image)), jnp.asarray(data.label))


def training(case: Case, data: Splits) -> study.Training:
    """What a network starts with and is given; methods of one seed start with the same weights.

    The parameters that are kept follow one rule for every method, `training.selection`. `last`: those after the last
    step. `validation`: those with the lowest validation loss, balanced over groups, as published.
    """
    params = case.model.init(jax.random.fold_in(case.key, 0), jnp.asarray(data.train.image[:2]))
    own = member(case)

    def validate(params: PyTree) -> float:
        return float(np.mean([float(_mean_loss(case.model, params, some)) for some in chunks(data.validation)]))

    def finish(params: PyTree) -> PyTree:
        parts = [_assess(case.model, params, some) for some in chunks(data.test)]
        judged = jax.tree.map(lambda *each: np.concatenate([np.asarray(one) for one in each]), *parts)
        return {"params": numbered(params), "judged": judged._asdict()}

    state = own.make(own.settings).init(params, jax.random.fold_in(case.key, 1))
    return study.Training(state, batches(case, data.train), finish, None if own.patience is None else validate)


def batches(case: Case, data: Scenes) -> Batches:
    """Batches of the training set: with equally many images a group for two of the methods, mixed for CutMix."""
    even = np.asarray(data.group) if case.method in ("balanced", "group_dro") else None
    plain = from_arrays(data, case.config.training.batch, case.seed, even)
    key = jax.random.fold_in(case.key, 2)
    return mixed_batches(key, plain, data, **case.config.cutmix) if case.method == "cutmix" else plain


def splits(case: Case) -> Splits:
    """The data of a network: validation and test are the same for all. `{:g}` in a path stands for the correlation."""
    config, rho = case.config, case.correlation
    if config.data.layout == "scenes":
        return draw_splits(jax.random.key(config.seed), rho, case.seed, **config.scenes)
    where = (config.data.folder.format(rho), config.data.annotations.format(rho))
    return flip_manifests.load_splits(flip_manifests.read(config.data.layout, *where), config.scenes.side)


def data_key(case: Case) -> tuple:
    """What `splits` depend on."""
    config = case.config
    seeds = (config.seed, case.seed) if config.data.layout == "scenes" else None
    return config.data, config.scenes, case.correlation, seeds


def chunks(data: Scenes) -> list[Scenes]:
    """The data in pieces that a network looks at at once."""
    return [Scenes(*(array[k : k + CHUNK] for array in data)) for k in range(0, len(data.group), CHUNK)]


_mean_loss = jax.jit(lambda model, params, data: jnp.mean(image_losses(model, params, data)), static_argnums=0)
_assess = jax.jit(
    lambda model, params, data: assess(finest_logits(model, params, data.image), data.label), static_argnums=0
)
