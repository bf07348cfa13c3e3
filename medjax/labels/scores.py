"""Label scores from training dynamics: loss, AUM, EL2N, softmin, variance of gradients (VOG); high means suspect.

A LabelScore is three functions:

    init(images, space)            → state           before the first probe of so many images
    update(state, index, probe)    → state           after each probe of the images `index`, see `labels.probe.Probe`
    score(state, labels)           → (image,)

A custom score, the largest cross-entropy that an image ever had, for the audit's table:

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
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from medjax.errors import ConfigError
from medjax.iterate import static_partial
from medjax.labels import vog
from medjax.labels.probe import GRADIENTS, Probe
from medjax.training.losses import soft_labels
from medjax.training.spatial import mean

VOG_FORMS = {  # quantity differentiated, region, whether the mean over probes is subtracted
    "vog_published": ("gt_logit", "image", True),
    "vog_foreground": ("gt_logit", "foreground", True),
    "vog_class": ("gt_logit", "class", True),
    "vog_probability": ("gt_prob", "image", True),
    "vog_loss": ("loss", "image", True),
    "vog_difference": ("gt_minus_predicted", "image", True),
    "vog_logit_over_predicted": ("logit_over_predicted", "image", True),
    "vog_loss_over_predicted": ("loss_over_predicted", "image", True),
    "vog_difference_over_predicted": ("difference_over_predicted", "image", True),
    "vog_peak": ("difference_over_predicted", "peak", True),
    "vog_peak_uncentered": ("difference_over_predicted", "peak", False),  # no variance: the gradients' second moment
}
DEFAULT_VOG = "vog_peak"  # the form that is also called "vog"
SOFTMIN_TEMPERATURE = 0.1  # cleanlab's

States = tuple[PyTree, ...]
Trackers = tuple[tuple[Callable[..., Any], Callable[..., Any]], ...]  # pairs (init, update)


class LabelScore(NamedTuple):
    """Score of labels: three pure functions, hashable; `gradients` names those of a Probe that `update` uses.

    An update ignores an index beyond all images, as `state.at[index]` does: see in-step probes in `labels.audit`.
    """

    init: Callable[[int, tuple[int, ...]], Any]  # (images, space) → state
    update: Callable[[Any, Array, Probe], Any]  # (state, index, probe) → state
    score: Callable[[Any, Array], Array]  # (state, labels) → score of each image
    gradients: tuple[str, ...] = ()


def built_in(pool: int = 1, dtype: Any = jnp.float32, gradients: tuple[str, ...] = GRADIENTS) -> dict[str, LabelScore]:
    """Built-in label scores by name: those that need no other gradients of a probe than `gradients`.

    loss, dice            cross-entropy and Dice loss at the last probe
    loss_mean, dice_mean  their means over probes; with a cyclic learning rate this is O2U-Net's ranking
    aum                   mean over probes of the largest other logit minus the label's: the negative of AUM
    el2n, softmin         at the last probe
    gradient              mean over probes of |∂ loss / ∂ image|
    vog_…                 variance of gradients, see `VOG_FORMS`; vog: the default form

    VOG's gradient maps are kept as `dtype`, averaged over blocks of `pool` voxels along every axis.
    """
    every = {
        "loss": last_value(cross_entropy),
        "dice": last_value(dice_loss),
        "loss_mean": mean_value(cross_entropy),
        "dice_mean": mean_value(dice_loss),
        "aum": mean_value(negative_margin),
        "el2n": last_value(el2n),
        "softmin": last_value(one_minus_softmin),
        "gradient": mean_value(gradient_magnitude, ("loss",)),
    }
    forms = {name: form for name, form in VOG_FORMS.items() if set(vog.gradients_for(form[0])) <= set(gradients)}
    forms |= {"vog": forms[DEFAULT_VOG]} if DEFAULT_VOG in forms else {}
    maps = tuple(dict.fromkeys(part for quantity, _, _ in forms.values() for part in vog.maps_for(quantity)))
    every |= {name: vog_score(*form, maps, pool, dtype) for name, form in forms.items()}
    return {name: score for name, score in every.items() if set(score.gradients) <= set(gradients)}


def with_custom_scores(label_scores: Any, needed: Sequence[str] = ()) -> dict[str, LabelScore]:
    """Built-in scores and a custom LabelScore, named `score`; or a dict of custom ones in place of the built-in ones.

    The built-in ones `needed` stay in any case, unless the dict has one of that name.

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


# ── scalar of each image, at the last probe or as the mean over probes ──


class ProbeStatistics(NamedTuple):
    """Number of probes, sum and last value of a scalar, of every image."""

    count: Int[Array, " image"]
    total: Float[Array, " image"]
    last: Float[Array, " image"]


def last_value(quantity: Callable[[Probe], Array], gradients: tuple[str, ...] = ()) -> LabelScore:
    """Label score: the value of quantity(probe) → (batch,) at the last probe."""
    return LabelScore(_no_values, static_partial(_with_value, quantity), _last, gradients)


def mean_value(quantity: Callable[[Probe], Array], gradients: tuple[str, ...] = ()) -> LabelScore:
    """Label score: the mean over probes of quantity(probe) → (batch,)."""
    return LabelScore(_no_values, static_partial(_with_value, quantity), _mean, gradients)


def _no_values(images: int, space: tuple[int, ...]) -> ProbeStatistics:
    return ProbeStatistics(jnp.zeros(images, jnp.int32), jnp.zeros(images), jnp.zeros(images))


def _with_value(
    quantity: Callable[[Probe], Array], state: ProbeStatistics, index: Array, probe: Probe
) -> ProbeStatistics:
    value = quantity(probe)
    count, total = state.count.at[index].add(1), state.total.at[index].add(value)
    return ProbeStatistics(count, total, state.last.at[index].set(value))


def _last(state: ProbeStatistics, labels: Array) -> Array:
    return state.last


def _mean(state: ProbeStatistics, labels: Array) -> Array:
    return state.total / jnp.maximum(state.count, 1)


def cross_entropy(probe: Probe) -> Float[Array, " batch"]:
    """Cross-entropy with the label, of every image."""
    return probe.losses["cross_entropy"]


def dice_loss(probe: Probe) -> Float[Array, " batch"]:
    """Soft Dice loss with the label, of every image."""
    return probe.losses["dice_loss"]


def negative_margin(probe: Probe) -> Float[Array, " batch"]:
    """Negative margin of AUM: the largest other logit minus that of the label's class, mean over voxels."""
    given = soft_labels(probe.labels, probe.logits.shape[-1])
    other = jnp.max(jnp.where(given > 0, -jnp.inf, probe.logits), axis=-1)
    return mean(other - jnp.sum(probe.logits * given, axis=-1))


def el2n(probe: Probe) -> Float[Array, " batch"]:
    """EL2N: ‖p − one-hot label‖₂, mean over voxels."""
    return mean(
        jnp.linalg.norm(jax.nn.softmax(probe.logits) - soft_labels(probe.labels, probe.logits.shape[-1]), axis=-1)
    )


def one_minus_softmin(probe: Probe) -> Float[Array, " batch"]:
    """1 − `softmin` of the probability of the label's class."""
    given = soft_labels(probe.labels, probe.logits.shape[-1])
    return 1 - softmin(jnp.sum(jax.nn.softmax(probe.logits) * given, axis=-1))


def gradient_magnitude(probe: Probe) -> Float[Array, " batch"]:
    """Gradient magnitude |∂ loss / ∂ image|, mean over voxels."""
    return mean(jnp.abs(probe.gradients["loss"]))


@partial(jax.jit, static_argnames="temperature", inline=True)
def softmin(quality: Float[Array, "batch *space"], temperature: float = SOFTMIN_TEMPERATURE) -> Float[Array, " batch"]:
    """Softmin Σ_i softmax((1 − s) / T)_i s_i over voxels, s the label's probability: near the mean of the worst."""
    flat = quality.reshape(len(quality), -1)
    return jnp.sum(jax.nn.softmax((1 - flat) / temperature, axis=-1) * flat, axis=-1)


# ── variance of gradients ──


def vog_score(
    quantity: str, region: str, centered: bool, maps: tuple[str, ...], pool: int = 1, dtype: Any = jnp.float32
) -> LabelScore:
    """Label score: a form of the variance of gradients, see `vog.score`; forms with the same `maps` share one state.

    Args:
        quantity: quantity that is differentiated, one of `vog.QUANTITIES`.
        region: region of the average over voxels, one of `vog.REGIONS`.
        centered: whether the mean over probes is subtracted (variance), or not (second moment).
        maps: names of the gradient maps that the state keeps.
        pool: side in voxels of the blocks over which maps are averaged.
        dtype: precision of the maps.
    """
    gradients = tuple(dict.fromkeys(need for name in maps for need in vog.gradients_for(name)))
    init = static_partial(_no_maps, maps, pool, dtype)
    return LabelScore(init, _with_maps, static_partial(_vog_score, quantity, region, centered), gradients)


def _no_maps(maps: tuple[str, ...], pool: int, dtype: Any, images: int, space: tuple[int, ...]) -> vog.State:
    return vog.init(images, space, maps, pool, dtype)


def _with_maps(state: vog.State, index: Array, probe: Probe) -> vog.State:
    return vog.update(state, index, vog.add_difference(probe.gradients))


def _vog_score(quantity: str, region: str, centered: bool, state: vog.State, labels: Array) -> Array:
    return vog.score(state, quantity, labels, region, centered)


# ── several scores at once ──


def trackers(scores: Mapping[str, LabelScore]) -> Trackers:
    """Distinct pairs (init, update) of the scores, each of which has one state."""
    return tuple(dict.fromkeys((score.init, score.update) for score in scores.values()))


def required_gradients(scores: Mapping[str, LabelScore]) -> tuple[str, ...]:
    """Names of the gradients of a Probe that the scores use."""
    return tuple(dict.fromkeys(name for score in scores.values() for name in score.gradients))


def init(scores: Mapping[str, LabelScore], images: int, space: tuple[int, ...]) -> States:
    """Initial states of `trackers(scores)`; no two leaves share memory, so all can be donated."""
    return tuple(jax.tree.map(jnp.array, first(images, space)) for first, _ in trackers(scores))


def update(pairs: Trackers, states: States, index: Int[Array, " batch"], probe: Probe) -> States:
    """States of `pairs`, which are `trackers(scores)`, after one more probe of the images `index`."""
    return tuple(one(state, index, probe) for (_, one), state in zip(pairs, states, strict=True))


def evaluate(
    scores: Mapping[str, LabelScore], states: States, labels: Int[Array | np.ndarray, "image *space"]
) -> dict[str, Float[np.ndarray, " image"]]:
    """Every score of every image, from the states that were initialised for these `scores`.

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
