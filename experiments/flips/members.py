"""Networks of `label_flips`: their data, and training by ERM, balanced batches, GroupDRO or CutMix."""

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
from medjax.running.arrays import to_numbered_leaves
from medjax.running.cells import cell_name
from medjax.running.config import flatten
from medjax.running.workdir import WorkDir
from medjax.shortcuts import group_dro
from medjax.shortcuts.cutmix import cutmix_batches
from medjax.shortcuts.flip_measures import Assessment, assess
from medjax.training import study
from medjax.training.batches import Batches, from_arrays
from medjax.training.losses import dice_cross_entropy
from medjax.training.schedules import warmup_cosine
from medjax.training.state import trainer

GROUPS, CLASSES, CHUNK = 4, 3, 80  # CHUNK: images in a batch of evaluation
NAMES = {"erm": "ERM", "balanced": "balanced batches", "group_dro": "GroupDRO", "cutmix": "CutMix"}
TRACED = (  # keys that change no program: what differs in them alone trains as one population
    "seed", "training.rate", "training.group_step_size", "cutmix.probability", "cutmix.min_fraction",
    "cutmix.max_fraction", "scenes.amplitudes", "scenes.contrast", "scenes.noise",
)  # fmt: skip


class Cell(NamedTuple):
    """Cell of the study: method, correlation and seed of a network, and its work directory."""

    config: FrozenConfigDict
    work: WorkDir
    model: Network
    method: str  # key of `NAMES`
    correlation: float  # ρ of class and scene in training
    seed: int  # number of the seed, from 0

    @property
    def key(self) -> PRNGKeyArray:
        """Random key of the seed."""
        return jax.random.fold_in(jax.random.key(self.config.seed), self.seed)


class TrainedNetwork(NamedTuple):
    """Parameters of a trained network, and its assessment on the test images."""

    params: dict[str, Any]  # their leaves, as `arrays.to_numbered_leaves` gives them
    assessment: Assessment


def train(cells: Sequence[Cell]) -> list[TrainedNetwork | MedjaxError]:
    """Trained networks of all cells, as populations: GroupDRO, whose state has group weights, and all others."""

    def load(numbers: list[int]) -> list[study.MemberTraining]:
        data = {data_key(cells[i]): cells[i] for i in numbers}
        shared = {key: splits(cell) for key, cell in data.items()}  # methods of one seed and correlation share theirs
        return [training(cells[i], shared[data_key(cells[i])]) for i in numbers]

    options = cells[0].config.population
    kept = study.train([member(cell) for cell in cells], load, options.strategy or None, options.width or None)
    return [
        one if isinstance(one, MedjaxError) else TrainedNetwork(one["params"], Assessment(**one["assessment"]))
        for one in kept
    ]


def member(cell: Cell) -> study.StudyMember:
    """Study member of a cell: its training algorithm, early stopping, and traced settings."""
    t = cell.config.training
    kind = tuple((key, value) for key, value in flatten(cell.config).items() if key not in TRACED)
    make = static_partial(make_trainer, cell.model, cell.method == "group_dro", t.steps, t.cosine)
    name, settings = (
        cell_name((cell.method, cell.correlation, cell.seed)),
        {"rate": t.rate, "group_step_size": t.group_step_size},
    )
    patience = t.patience * t.validate_every if t.selection == "validation" else None
    return study.StudyMember(cell.work, name, make, settings, t.steps, t.validate_every, patience, kind)


def make_trainer(
    model: Network, robust: bool, steps: int, cosine: bool, settings: Mapping[str, float | Scalar]
) -> Algorithm:
    """Training by Adam on Dice loss + cross-entropy: the mean over images, or, if `robust`, GroupDRO's over groups.

    With `cosine` the learning rate falls to a tenth over the steps.
    """

    def losses(params: PyTree, batch: Scenes, key: PRNGKeyArray) -> tuple[Array, Array]:
        return image_losses(model, params, batch), jnp.asarray(batch.group)

    def loss(params: PyTree, batch: Scenes, key: PRNGKeyArray) -> Scalar:
        return jnp.mean(image_losses(model, params, batch))

    rate = settings["rate"]
    optimizer = optax.adam(warmup_cosine(rate, steps, rate / 10) if cosine else rate)
    return (
        group_dro.trainer(losses, optimizer, GROUPS, settings["group_step_size"])
        if robust
        else trainer(loss, optimizer)
    )


def image_losses(model: Network, params: PyTree, data: Scenes) -> Array:
    """Dice loss + cross-entropy of each image."""
    return dice_cross_entropy(finest_logits(model, params, jnp.asarray(data.image)), jnp.asarray(data.label))


def assess_images(model: Network, params: PyTree, data: Scenes) -> Assessment:
    """Assessment of each image."""
    return assess(finest_logits(model, params, jnp.asarray(data.image)), jnp.asarray(data.label))


def training(cell: Cell, data: Splits) -> study.MemberTraining:
    """Initial state, batches and validation of a cell's training; methods of one seed have the same initial weights.

    The parameters kept are selected for every method by `training.selection`. `last`: those after the last step.
    `validation`: those with the lowest validation loss, balanced over groups, as published.
    """
    params = cell.model.init(jax.random.fold_in(cell.key, 0), jnp.asarray(data.train.image[:2]))
    own = member(cell)

    def validate(params: PyTree) -> float:
        return float(np.mean([float(_mean_loss(cell.model, params, some)) for some in chunks(data.validation)]))

    def finish(params: PyTree) -> PyTree:
        parts = [_assess(cell.model, params, some) for some in chunks(data.test)]
        assessment = jax.tree.map(lambda *each: np.concatenate([np.asarray(one) for one in each]), *parts)
        return {"params": to_numbered_leaves(params), "assessment": assessment._asdict()}

    state = own.make(own.settings).init(params, jax.random.fold_in(cell.key, 1))
    return study.MemberTraining(state, batches(cell, data.train), finish, None if own.patience is None else validate)


def batches(cell: Cell, data: Scenes) -> Batches:
    """Batches of the training set: balanced over groups for two of the methods, with mixed backgrounds for CutMix."""
    groups = np.asarray(data.group) if cell.method in ("balanced", "group_dro") else None
    plain = from_arrays(data, cell.config.training.batch, cell.seed, groups)
    key = jax.random.fold_in(cell.key, 2)
    return cutmix_batches(key, plain, data, **cell.config.cutmix) if cell.method == "cutmix" else plain


def splits(cell: Cell) -> Splits:
    """Data splits of a cell: validation and test are the same for all. `{:g}` in a path stands for the correlation."""
    config, rho = cell.config, cell.correlation
    if config.data.layout == "scenes":
        return draw_splits(jax.random.key(config.seed), rho, cell.seed, **config.scenes)
    where = [path.replace("{:g}", f"{rho:g}") for path in (config.data.folder, config.data.annotations)]
    return flip_manifests.load_splits(flip_manifests.read(config.data.layout, *where), config.scenes.side)


def data_key(cell: Cell) -> tuple:
    """Key of the data that `splits` gives: cells of equal keys share them."""
    config = cell.config
    seeds = (config.seed, cell.seed) if config.data.layout == "scenes" else None
    return config.data, config.scenes, cell.correlation, seeds


def chunks(data: Scenes) -> list[Scenes]:
    """Data in batches of `CHUNK` images, for evaluation."""
    return [Scenes(*(array[k : k + CHUNK] for array in data)) for k in range(0, len(data.group), CHUNK)]


_mean_loss = jax.jit(lambda model, params, data: jnp.mean(image_losses(model, params, data)), static_argnums=0)
_assess = jax.jit(assess_images, static_argnums=0)
