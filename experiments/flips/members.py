"""The members of the label-flips study: their data, their four ways of training, and populations of them."""

import functools
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree, Scalar
from ml_collections import FrozenConfigDict

from medjax.datasets import flip_manifests
from medjax.errors import MedjaxError
from medjax.iterate import Algorithm, StaticPartial, static_partial
from medjax.models.model import Network
from medjax.phantoms import scenes
from medjax.phantoms.scenes import Scenes
from medjax.running.config import config_hash, flatten
from medjax.running.workdir import WorkDir, append_jsonl, keep_jsonl, stages
from medjax.shortcuts import cutmix, group_dro
from medjax.shortcuts.flip_measures import Assessment, assess
from medjax.training import population
from medjax.training.batches import Batches, from_arrays
from medjax.training.fit import fit
from medjax.training.layout import parts
from medjax.training.losses import dice_cross_entropy
from medjax.training.schedules import warmup_cosine
from medjax.training.state import Info, mean_loss, trainer

GROUPS, CLASSES, CHUNK = 4, 3, 80  # CHUNK images are looked at at once
NAMES = {"erm": "ERM", "balanced": "balanced batches", "group_dro": "GroupDRO", "cutmix": "CutMix"}
TRACED = (  # what members of one population may differ in: no program depends on it
    "seed", "training.rate", "training.dro_rate", "cutmix.probability", "cutmix.smallest", "cutmix.largest",
    "scenes.amplitudes", "scenes.contrast", "scenes.noise",
)  # fmt: skip


class Splits(NamedTuple):
    """Training data with its correlation; validation and test with equally many images a group."""

    train: Scenes
    validation: Scenes
    test: Scenes


class Member(NamedTuple):
    """One network of the study: how it is trained, on what, and where it is kept."""

    config: FrozenConfigDict
    work: WorkDir
    model: Network
    method: str
    correlation: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}_{self.correlation:g}_{self.seed}"

    @property
    def key(self) -> PRNGKeyArray:
        return jax.random.fold_in(jax.random.key(self.config.seed), self.seed)

    @property
    def structure(self) -> tuple:
        """Members in which it is equal train side by side."""
        rest = [(name, value) for name, value in flatten(self.config).items() if name not in TRACED]
        return self.model, self.method == "group_dro", *rest


class Trained(NamedTuple):
    """A member's parameters, and what it made of the test images."""

    params: Any
    assessment: Assessment


# ── data ──


def splits(member: Member) -> Splits:
    """The data of a member. Methods of one seed share it; validation and test are the same for all members."""
    config = member.config
    if config.data.layout != "scenes":
        return published(member.correlation, config.scenes.side, **config.data)
    return drawn(jax.random.key(config.seed), member.correlation, member.seed, **config.scenes)


def drawn(
    key: PRNGKeyArray, correlation: float, seed: int, *, train: int, validation: int, test: int, kind: str, side: int,
    amplitudes: tuple[float, float], contrast: float, noise: float,
) -> Splits:  # fmt: skip
    """Drawn shapes on textures: training images of this correlation and seed, the others with even groups."""
    lobes = functools.partial(scenes.lobes, least=amplitudes[0], greatest=amplitudes[1])

    def draw(number: int, group: np.ndarray, held_out: bool = False) -> Scenes:
        shapes = lobes if kind == "lobes" else scenes.digits(held_out=held_out)
        made = scenes.draw(jax.random.fold_in(key, number), jnp.asarray(group), side, shapes, contrast, noise)
        return jax.tree.map(np.asarray, made)

    return Splits(
        draw(100 + seed, scenes.groups(train, correlation)),
        draw(1, scenes.groups(validation, 0.5)),
        draw(2, scenes.groups(test, 0.5), held_out=True),
    )


def published(correlation: float, side: int, *, layout: str, folder: str, annotations: str) -> Splits:
    """Published data on disk; `{:g}` in a path stands for the correlation."""
    records = flip_manifests.read(layout, folder.format(correlation), annotations.format(correlation))
    return Splits(*(flip_manifests.load([r for r in records if r.split == name], side) for name in Splits._fields))


# ── the four ways of training ──


def empirical_risk(model: Network, steps: int, cosine: bool, settings: Mapping[str, Scalar]) -> Algorithm:
    """The mean of Dice loss + cross-entropy. ERM, balanced batches and CutMix differ in what they are given."""

    def loss(params: PyTree, batch: Scenes, key: PRNGKeyArray) -> Scalar:
        return mean_of_losses(model, params, batch)

    return trainer(loss, _optimizer(settings["rate"], steps, cosine))


def robust(model: Network, steps: int, cosine: bool, settings: Mapping[str, Scalar]) -> Algorithm:
    """GroupDRO: the same losses, weighted towards the group with the greatest."""

    def losses(params: PyTree, batch: Scenes, key: PRNGKeyArray) -> tuple[Array, Array]:
        return image_losses(model, params, batch), jnp.asarray(batch.group)

    return group_dro.trainer(losses, _optimizer(settings["rate"], steps, cosine), GROUPS, settings["dro_rate"])


def image_losses(model: Network, params: PyTree, data: Scenes) -> Array:
    """Dice loss + cross-entropy of each image."""
    return dice_cross_entropy(model.apply(params, data.image), jnp.asarray(data.label))


def mean_of_losses(model: Network, params: PyTree, data: Scenes) -> Scalar:
    """Their mean."""
    return jnp.mean(image_losses(model, params, data))


def _optimizer(rate: Scalar, steps: int, cosine: bool) -> optax.GradientTransformation:
    """Adam; with `cosine` its rate falls to a tenth over the steps."""
    return optax.adam(warmup_cosine(rate, steps, rate / 10) if cosine else rate)


def make_of(member: Member) -> StaticPartial:
    """What makes its trainer from the settings that are traced."""
    t = member.config.training
    way = robust if member.method == "group_dro" else empirical_risk
    return static_partial(way, member.model, t.steps, t.cosine)


def batches_of(member: Member, data: Scenes) -> Batches:
    """Batches of the training set: with equally many images a group for two of the methods, mixed for CutMix."""
    even = np.asarray(data.group) if member.method in ("balanced", "group_dro") else None
    plain = from_arrays(data, member.config.training.batch, member.seed, even)
    key, c = jax.random.fold_in(member.key, 2), member.config.cutmix

    def mixed(number: int) -> Scenes:
        batch, now = plain(number), jax.random.fold_in(key, number)
        donor = cutmix.donors(jax.random.fold_in(now, 0), np.asarray(batch.group), np.asarray(data.group))
        image = _mix(
            jax.random.fold_in(now, 1), batch.image, batch.label, data.image[donor], data.label[donor],
            c.probability, c.smallest, c.largest,
        )  # fmt: skip
        return batch._replace(image=image)

    return mixed if member.method == "cutmix" else plain


# ── populations ──


def train(members: Sequence[Member]) -> list[Trained | MedjaxError]:
    """Every member, trained in populations; each is a stage, so that a killed run goes on after it.

    A member whose loss is not finite gives an error.
    """

    def compute(missing: list[int]) -> Iterator[tuple[int, PyTree]]:
        for part in side_by_side(members, missing):
            yield from zip(part, train_together([members[number] for number in part]), strict=True)

    kept = stages([(member.work, member.name) for member in members], compute)
    return [
        one if isinstance(one, MedjaxError) else Trained(one["params"], Assessment(**one["judged"])) for one in kept
    ]


def side_by_side(members: Sequence[Member], numbers: Iterable[int]) -> Iterator[list[int]]:
    """The numbers of members that one step trains together, as the strategy of their config says."""
    populations: dict[tuple, list[int]] = {}
    for number in numbers:
        populations.setdefault(members[number].structure, []).append(number)
    for several in populations.values():
        options = members[several[0]].config.population
        for part in parts(len(several), options.strategy or None, options.width or None):
            yield [several[i] for i in part]


def train_together(members: Sequence[Member]) -> Iterator[PyTree | MedjaxError]:
    """One part of a population, which goes on from its checkpoint; the parameters are those of `training.selection`.

    `last`: those after the last step. `validation`: those with the least validation loss, balanced over groups, as
    published; a member stops `patience` validations after that.
    """
    first, model, data = members[0], members[0].model, shared_splits(members)
    t, options = first.config.training, first.config.population

    def validate(params: PyTree, number: int) -> float:
        losses = [float(_validation_loss(model, params, some)) for some in chunks(data[number].validation)]
        return float(np.mean(losses))

    def report(number: int, step: int, infos: Info, **values: float) -> None:
        append_jsonl(members[number].work, {"member": members[number].name, **mean_loss(infos, step), **values})

    def begin(steps: Sequence[int]) -> None:
        for member, step in zip(members, steps, strict=True):
            keep_jsonl(member.work, lambda row, m=member, last=step: row["member"] != m.name or row["step"] <= last)

    rule = {"validate": validate, "patience": t.patience * t.every} if t.selection == "validation" else {}
    folder = first.work.checkpoints / f"population_{_identity(members)}"
    done = fit(
        make_of(first), _settings(members), start(members, data), t.steps,
        inputs=[batches_of(member, own.train) for member, own in zip(members, data, strict=True)],
        every=t.every, strategy=options.strategy or None, width=options.width or None,
        checkpoints=folder, report=report, begin=begin, **rule,
    )  # fmt: skip
    for number, own in enumerate(data):
        if done.diverged[number]:
            yield DataError(f"{members[number].name}: the loss is not finite; try a smaller training.rate")
            continue
        params = population.member(done.params, number)
        each = [_assess(model, params, some) for some in chunks(own.test)]
        judged = jax.tree.map(lambda *arrays: np.concatenate([np.asarray(one) for one in arrays]), *each)
        yield {"params": params, "judged": judged._asdict()}
    shutil.rmtree(folder, ignore_errors=True)


def shared_splits(members: Sequence[Member]) -> list[Splits]:
    """The data of each; what is equal is made once. Published data do not depend on the seed."""

    def key(member: Member) -> tuple:
        drawn = member.config.data.layout == "scenes"
        return member.config.data, member.config.scenes, member.correlation, drawn and (member.config.seed, member.seed)

    made = {key(member): member for member in members}
    data = {name: splits(member) for name, member in made.items()}
    return [data[key(member)] for member in members]


def start(members: Sequence[Member], data: Sequence[Splits]) -> population.State:
    """The members before the first step; methods of one seed start with the same weights."""

    def one(member: Member, own: Splits, settings: PyTree) -> Any:
        params = member.model.init(jax.random.fold_in(member.key, 0), jnp.asarray(own.train.image[:2]))
        return make_of(member)(settings).init(params, jax.random.fold_in(member.key, 1))

    settings = _settings(members)
    return population.stack(
        [one(m, own, population.member(settings, i)) for i, (m, own) in enumerate(zip(members, data, strict=True))]
    )


def chunks(data: Scenes) -> list[Scenes]:
    """The data in pieces that a network looks at at once."""
    return [Scenes(*(array[k : k + CHUNK] for array in data)) for k in range(0, len(data.group), CHUNK)]


def _settings(members: Sequence[Member]) -> dict[str, Array]:
    each = [member.config.training for member in members]
    return {name: jnp.asarray([t[name] for t in each], jnp.float32) for name in ("rate", "dro_rate")}


def _identity(members: Sequence[Member]) -> str:
    """Of a part: the same members, and no others, go on from its checkpoint."""
    names = [(config_hash(member.config), member.name) for member in members]
    return hashlib.sha256(repr(names).encode()).hexdigest()[:8]


_mix = jax.jit(cutmix.background_cutmix)
_validation_loss = jax.jit(mean_of_losses, static_argnums=0)
_assess = jax.jit(lambda model, params, data: assess(model.apply(params, data.image), data.label), static_argnums=0)
