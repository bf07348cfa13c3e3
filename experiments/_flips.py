"""The members of the label-flips study: their data, their four ways of training, and how a test image is judged."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree, Scalar
from ml_collections import ConfigDict

from medjax import iterate
from medjax.datasets import flip_manifests
from medjax.iterate import Algorithm
from medjax.metrics.overlap import confusion_matrix
from medjax.models.model import Model
from medjax.models.unet import unet
from medjax.phantoms import scenes
from medjax.phantoms.scenes import Scenes
from medjax.running.progress import track
from medjax.running.workdir import WorkDir, append_jsonl, stage
from medjax.shortcuts import cutmix, flips, group_dro
from medjax.training.batches import Batches, from_arrays
from medjax.training.early_stopping import early_stopping, first
from medjax.training.losses import dice_cross_entropy
from medjax.training.schedules import warmup_cosine
from medjax.training.state import Info, TrainState, mean_loss, require_finite_loss, trainer

GROUPS, CLASSES, CHUNK = 4, 3, 80
NAMES = {"erm": "ERM", "balanced": "balanced batches", "group_dro": "GroupDRO", "cutmix": "CutMix"}


class Splits(NamedTuple):
    """Training data with its correlation; validation and test with equally many images a group."""

    train: Scenes
    validation: Scenes
    test: Scenes


class Judged(NamedTuple):
    """What is kept of a network's prediction for each test image."""

    confusion: Array  # (image, true, predicted)
    flip_risk: Array  # (image,), as the two rivals
    entropy: Array
    max_probability: Array  # 1 − it, so that all three are higher where doubt is


class Setup(NamedTuple):
    """What all members share, made once so that it is compiled once."""

    model: Model
    trainers: dict[str, Algorithm]  # of each method
    validate: Callable[[PyTree, Scenes], Scalar]
    judge: Callable[[PyTree, Scenes], Judged]


def setup(config: ConfigDict) -> Setup:
    """Network, a trainer of each method, and the compiled functions that look at predictions."""
    t = config.training
    model = unet(CLASSES, tuple(config.model.widths))
    falling = warmup_cosine(t.rate, t.steps, t.rate / 10)
    optimizer = optax.adam(falling if t.cosine else t.rate)

    def losses(params: PyTree, batch: Scenes, key: PRNGKeyArray) -> tuple[Array, Array]:
        label, group = jnp.asarray(batch.label), jnp.asarray(batch.group)
        return dice_cross_entropy(model.apply(params, batch.image), label), group

    def loss(params: PyTree, batch: Scenes, key: PRNGKeyArray) -> Scalar:
        return jnp.mean(losses(params, batch, key)[0])

    robust = group_dro.trainer(losses, optimizer, GROUPS, t.dro_rate)
    trainers = dict.fromkeys(NAMES, trainer(loss, optimizer)) | {"group_dro": robust}
    validate = jax.jit(lambda params, data: loss(params, data, jax.random.key(0)))
    return Setup(model, trainers, validate, jax.jit(functools.partial(_judge, model.apply)))


def splits(config: ConfigDict, correlation: float, seed: int) -> Splits:
    """The data of a member. Methods of one seed share it; validation and test are the same for all members."""
    if config.data.layout != "scenes":
        return _published(config, correlation)
    s, key = config.scenes, jax.random.key(config.seed)
    tied = scenes.groups(s.train, correlation)
    sizes = {"train": tied, "validation": scenes.groups(s.validation, 0.5), "test": scenes.groups(s.test, 0.5)}
    keys = {"train": jax.random.fold_in(key, 100 + seed), "validation": jax.random.fold_in(key, 1)}

    def drawn(name: str) -> Scenes:
        lobes = functools.partial(scenes.lobes, least=s.amplitudes[0], greatest=s.amplitudes[1])
        shapes = lobes if s.kind == "lobes" else scenes.digits(held_out=name == "test")
        key_of = keys.get(name, jax.random.fold_in(key, 2))
        made = scenes.draw(key_of, jnp.asarray(sizes[name]), s.side, shapes, s.contrast, s.noise)
        return jax.tree.map(np.asarray, made)

    return Splits(drawn("train"), drawn("validation"), drawn("test"))


def _published(config: ConfigDict, correlation: float) -> Splits:
    folder, side = config.data.folder.format(correlation), config.scenes.side
    records = flip_manifests.read(config.data.layout, folder, config.data.annotations.format(correlation))
    return Splits(*(flip_manifests.load([r for r in records if r.split == name], side) for name in Splits._fields))


def train(config: ConfigDict, work: WorkDir, b: Setup, data: Splits, method: str, name: str, seed: int) -> PyTree:
    """The parameters that the rule `training.selection` takes, one rule for every method.

    `last`: those after the last step. `validation`: those with the lowest validation loss, balanced over groups, as
    published; it ends the training after `patience` validations that were not the best.
    """
    t, key = config.training, jax.random.fold_in(jax.random.key(config.seed), seed)
    params = b.model.init(jax.random.fold_in(key, 0), jnp.asarray(data.train.image[:2]))
    state = b.trainers[method].init(params, jax.random.fold_in(key, 1))
    batches = _batches(config, data.train, method, key, seed)
    states = iterate.loop(
        b.trainers[method], state, t.steps, inputs=batches, every=t.every, check=require_finite_loss, donate=True
    )

    def report(state: TrainState, infos: Info, **values: float) -> None:
        append_jsonl(work, {"member": name, **mean_loss(infos, int(state.step)), **values})

    if t.selection == "last":
        for state, infos in states:
            report(state, infos)
        return state.params

    def validate(now: TrainState) -> float:
        losses.append(float(np.mean([float(b.validate(now.params, part)) for part in chunks(data.validation)])))
        return losses[-1]

    losses, best = list[float](), first(state)
    for now, infos, reached in early_stopping(states, best, validate, t.patience * t.every):
        report(now, infos, validation=losses[-1])
        best = reached
    return best.state.params


def _batches(config: ConfigDict, data: Scenes, method: str, key: PRNGKeyArray, seed: int) -> Batches:
    """Batches of the training set: with equally many images a group for two of the methods, mixed for CutMix."""
    even = np.asarray(data.group) if method in ("balanced", "group_dro") else None
    plain = from_arrays(data, config.training.batch, seed, even)
    if method != "cutmix":
        return plain
    mix = jax.jit(cutmix.background_cutmix)

    def mixed(number: int) -> Scenes:
        batch, now = plain(number), jax.random.fold_in(jax.random.fold_in(key, 2), number)
        donor = cutmix.donors(jax.random.fold_in(now, 0), np.asarray(batch.group), np.asarray(data.group))
        c = config.cutmix
        image = mix(
            jax.random.fold_in(now, 1), batch.image, batch.label, data.image[donor], data.label[donor],
            c.probability, c.smallest, c.largest,
        )  # fmt: skip
        return batch._replace(image=image)

    return mixed


def assess(b: Setup, params: PyTree, test: Scenes) -> Judged:
    """The test set through a network."""
    parts = [b.judge(params, part) for part in chunks(test)]
    return jax.tree.map(lambda *arrays: np.concatenate([np.asarray(one) for one in arrays]), *parts)


def _judge(apply: Callable[..., Array], params: PyTree, data: Scenes) -> Judged:
    logits = apply(params, data.image)
    named = jnp.argmax(logits, axis=-1)
    return Judged(
        jax.vmap(lambda p, y: confusion_matrix(p, y, CLASSES))(named, data.label),
        flips.flip_risk(logits),
        flips.foreground_mean(flips.class_entropy(logits), named),
        flips.foreground_mean(flips.doubt(logits), named),
    )


def chunks(data: Scenes) -> list[Scenes]:
    """The data in pieces that a network looks at at once."""
    return [Scenes(*(array[k : k + CHUNK] for array in data)) for k in range(0, len(data.group), CHUNK)]


class Member(NamedTuple):
    """A trained network and what it did to the test set."""

    params: Any
    judged: Judged


def members(config: ConfigDict, work: WorkDir, b: Setup) -> dict[tuple[str, float], list[Member]]:
    """Every (method, correlation), a member for each seed; each is a stage, so that a killed run goes on after it."""
    found: dict[tuple[str, float], list[Member]] = {}
    places = [(m, r, s) for s in range(config.seeds) for r in config.correlations for m in config.methods]
    for method, correlation, seed in track(places, "members"):
        name = f"{method}_{correlation:g}_{seed}"

        def made(method: str = method, rho: float = correlation, seed: int = seed, name: str = name) -> dict[str, Any]:
            data = splits(config, rho, seed)
            params = train(config, work, b, data, method, name, seed)
            return {"params": params, "judged": assess(b, params, data.test)._asdict()}

        kept = stage(work, name, made)
        found.setdefault((method, correlation), []).append(Member(kept["params"], Judged(**kept["judged"])))
    return found
