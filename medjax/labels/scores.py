"""Which labels are suspect: scores of images, from the dynamics of a network that trains on their labels.

A score is a value of three functions; high means suspect:

    init(images, space)            → state           nothing seen of so many images yet
    update(state, index, probe)    → state           after each probe of the images `index`, see `labels.probe.Probe`
    score(state, labels)           → (image,)

One of your own, the worst cross-entropy that an image ever had, for the audit's table:

    worst = LabelScore(
        lambda images, space: jnp.zeros(images),
        lambda state, index, probe: state.at[index].max(probe.losses["cross_entropy"]),
        lambda state, labels: state,
    )
    audit.training_dynamics(…, label_scores={**built_in(), "worst": worst})

Scores with equal init and update share one state: the maps of VOG are kept once for all of its forms.

Source: small loss as in Han et al., NeurIPS 2018 and, with a cyclic learning rate, O2U-Net, Huang et al., ICCV 2019;
AUM, Pleiss et al., NeurIPS 2020; EL2N, Paul et al., NeurIPS 2021; softmin, Lad & Mueller, 2023 (cleanlab).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from medjax.errors import ConfigError
from medjax.iterate import static_partial
from medjax.labels import vog
from medjax.labels.probe import READINGS, Probe
from medjax.training.losses import soft
from medjax.training.spatial import mean

FORMS = {  # of VOG: reading, region, whether the mean over probes is subtracted
    "vog_published": ("gt_logit", "image", True),
    "vog_foreground": ("gt_logit", "foreground", True),
    "vog_class": ("gt_logit", "class", True),
    "vog_probability": ("gt_prob", "image", True),
    "vog_loss": ("loss", "image", True),
    "vog_difference": ("gt_minus_own", "image", True),
    "vog_logit_over_own": ("logit_over_own", "image", True),
    "vog_loss_over_own": ("loss_over_own", "image", True),
    "vog_difference_over_own": ("difference_over_own", "image", True),
    "vog_peak": ("difference_over_own", "peak", True),
    "moment_peak": ("difference_over_own", "peak", False),  # no variance: the gradients' second moment
}
DEFAULT = "vog_peak"  # the form that is also called "vog"
SOFTMIN_TEMPERATURE = 0.1  # cleanlab's

States = tuple[PyTree, ...]
Trackers = tuple[tuple[Callable[..., Any], Callable[..., Any]], ...]  # pairs (init, update)


class LabelScore(NamedTuple):
    """A score of labels: three pure functions, hashable. `readings` names the gradients that `update` looks at.

    An update ignores an index beyond all images, as `state.at[index]` does: see riding probes in `labels.audit`.
    """

    init: Callable[[int, tuple[int, ...]], Any]
    update: Callable[[Any, Array, Probe], Any]
    score: Callable[[Any, Array], Array]
    readings: tuple[str, ...] = ()


def built_in(pool: int = 1, dtype: Any = jnp.float32, readings: tuple[str, ...] = READINGS) -> dict[str, LabelScore]:
    """The scores that need no other gradients than `readings`. Maps of VOG are kept as `dtype` of blocks of `pool`.

    loss, dice          cross-entropy and Dice loss at the last probe
    loss_mean, dice_mean    their means over probes; with a cyclic learning rate this is O2U-Net's ranking
    aum                 mean over probes of the largest other logit minus the given one's: the negative of AUM
    el2n, softmin       at the last probe              gradient    mean |∂ loss / ∂ image| over probes
    vog_…               see `FORMS`                    vog         the default form
    """
    every = {
        "loss": last_value(cross_entropy),
        "dice": last_value(dice_loss),
        "loss_mean": mean_value(cross_entropy),
        "dice_mean": mean_value(dice_loss),
        "aum": mean_value(negative_margin),
        "el2n": last_value(el2n),
        "softmin": last_value(one_minus_softmin),
        "gradient": mean_value(gradient_size, ("loss",)),
    }
    forms = {name: form for name, form in FORMS.items() if set(vog.gradients_for(form[0])) <= set(readings)}
    forms |= {"vog": forms[DEFAULT]} if DEFAULT in forms else {}
    maps = tuple(dict.fromkeys(part for reading, _, _ in forms.values() for part in vog.maps_for(reading)))
    every |= {name: vog_form(*form, maps, pool, dtype) for name, form in forms.items()}
    return {name: score for name, score in every.items() if set(score.readings) <= set(readings)}


def with_own(label_scores: Any, needed: Sequence[str] = ()) -> dict[str, LabelScore]:
    """The built-in scores, and a LabelScore of one's own as `score`; or a dict of them in place of the built-in ones.

    Those `needed` stay in any case, unless the dict has its own of that name.

    Raises:
        ConfigError: something else is given.
    """
    every: dict[str, LabelScore] = built_in()
    if label_scores is None:
        return every
    if isinstance(label_scores, LabelScore):
        return {**every, "score": label_scores}
    given = label_scores.values() if isinstance(label_scores, Mapping) else [label_scores]
    if other := [type(one).__name__ for one in given if not isinstance(one, LabelScore)]:
        raise ConfigError(f"label_scores: {other[0]}; expected a LabelScore, or a dict of them by name")
    return {**{name: every[name] for name in needed}, **label_scores}


# ── a number of each image, at the last probe or as the mean over probes ──


class Series(NamedTuple):
    """Of every image: the number of probes, and the sum and the last of what they gave."""

    count: Int[Array, " image"]
    total: Float[Array, " image"]
    last: Float[Array, " image"]


def last_value(quantity: Callable[[Probe], Array], readings: tuple[str, ...] = ()) -> LabelScore:
    """quantity(probe) → (batch,) at the last probe."""
    return LabelScore(_no_values, static_partial(_with_value, quantity), _last, readings)


def mean_value(quantity: Callable[[Probe], Array], readings: tuple[str, ...] = ()) -> LabelScore:
    """The mean over probes of quantity(probe) → (batch,)."""
    return LabelScore(_no_values, static_partial(_with_value, quantity), _mean, readings)


def _no_values(images: int, space: tuple[int, ...]) -> Series:
    return Series(jnp.zeros(images, jnp.int32), jnp.zeros(images), jnp.zeros(images))


def _with_value(quantity: Callable[[Probe], Array], state: Series, index: Array, probe: Probe) -> Series:
    value = quantity(probe)
    count, total = state.count.at[index].add(1), state.total.at[index].add(value)
    return Series(count, total, state.last.at[index].set(value))


def _last(state: Series, labels: Array) -> Array:
    return state.last


def _mean(state: Series, labels: Array) -> Array:
    return state.total / jnp.maximum(state.count, 1)


def cross_entropy(probe: Probe) -> Float[Array, " batch"]:
    """The cross-entropy with the given label."""
    return probe.losses["cross_entropy"]


def dice_loss(probe: Probe) -> Float[Array, " batch"]:
    """The soft Dice loss with the given label."""
    return probe.losses["dice_loss"]


def negative_margin(probe: Probe) -> Float[Array, " batch"]:
    """The largest other logit minus the given class's, mean over voxels."""
    given = soft(probe.labels, probe.logits.shape[-1])
    other = jnp.max(jnp.where(given > 0, -jnp.inf, probe.logits), axis=-1)
    return mean(other - jnp.sum(probe.logits * given, axis=-1))


def el2n(probe: Probe) -> Float[Array, " batch"]:
    """‖p − one-hot label‖₂, mean over voxels."""
    return mean(jnp.linalg.norm(jax.nn.softmax(probe.logits) - soft(probe.labels, probe.logits.shape[-1]), axis=-1))


def one_minus_softmin(probe: Probe) -> Float[Array, " batch"]:
    """1 − `softmin` of the given class's probability."""
    given = soft(probe.labels, probe.logits.shape[-1])
    return 1 - softmin(jnp.sum(jax.nn.softmax(probe.logits) * given, axis=-1))


def gradient_size(probe: Probe) -> Float[Array, " batch"]:
    """|∂ loss / ∂ image|, mean over voxels."""
    return mean(jnp.abs(probe.gradients["loss"]))


def softmin(quality: Float[Array, "batch *space"], temperature: float = SOFTMIN_TEMPERATURE) -> Float[Array, " batch"]:
    """Σ_i softmax((1 − s) / T)_i s_i over voxels, s the probability of the given label: near the worst voxels' mean."""
    flat = quality.reshape(len(quality), -1)
    return jnp.sum(jax.nn.softmax((1 - flat) / temperature, axis=-1) * flat, axis=-1)


# ── variance of gradients ──


def vog_form(
    reading: str, region: str, centered: bool, maps: tuple[str, ...], pool: int = 1, dtype: Any = jnp.float32
) -> LabelScore:
    """A form of VOG, see `vog.score`. Forms that keep the same `maps` share them."""
    gradients = tuple(dict.fromkeys(need for name in maps for need in vog.gradients_for(name)))
    init = static_partial(_no_maps, maps, pool, dtype)
    return LabelScore(init, _with_maps, static_partial(_vog_score, reading, region, centered), gradients)


def _no_maps(maps: tuple[str, ...], pool: int, dtype: Any, images: int, space: tuple[int, ...]) -> vog.State:
    return vog.init(images, space, maps, pool, dtype)


def _with_maps(state: vog.State, index: Array, probe: Probe) -> vog.State:
    return vog.update(state, index, vog.with_difference(probe.gradients))


def _vog_score(reading: str, region: str, centered: bool, state: vog.State, labels: Array) -> Array:
    return vog.score(state, reading, labels, region, centered)


# ── several scores at once ──


def trackers(scores: Mapping[str, LabelScore]) -> Trackers:
    """The different pairs (init, update), each of which has one state."""
    return tuple(dict.fromkeys((score.init, score.update) for score in scores.values()))


def readings_of(scores: Mapping[str, LabelScore]) -> tuple[str, ...]:
    """The gradients that the scores look at."""
    return tuple(dict.fromkeys(reading for score in scores.values() for reading in score.readings))


def init(scores: Mapping[str, LabelScore], images: int, space: tuple[int, ...]) -> States:
    """The states of `trackers(scores)`, nothing seen yet; no two leaves share memory, so all can be donated."""
    return tuple(jax.tree.map(jnp.array, first(images, space)) for first, _ in trackers(scores))


def update(pairs: Trackers, states: States, index: Int[Array, " batch"], probe: Probe) -> States:
    """The states of `pairs`, which are `trackers(scores)`, with one more probe of the images `index`."""
    return tuple(one(state, index, probe) for (_, one), state in zip(pairs, states, strict=True))


def evaluate(
    scores: Mapping[str, LabelScore], states: States, labels: Int[Array | np.ndarray, "image *space"]
) -> dict[str, Float[np.ndarray, " image"]]:
    """Every score of every image; `scores` are those that the states were made for.

    Raises:
        ConfigError: a score is not one number an image.
    """
    found = dict(zip(trackers(scores), states, strict=True))
    given = jnp.asarray(labels)
    values = {name: np.asarray(one.score(found[one.init, one.update], given)) for name, one in scores.items()}
    for name, value in values.items():
        if value.shape != (len(labels),):
            raise ConfigError(f"score {name} gave an array of {value.shape}; expected ({len(labels)},), one an image")
    return values
