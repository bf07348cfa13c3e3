"""What a network says of given labels at one moment of its training: gradient maps and scores, one an image.

    probe(apply, params, images, labels) → Probe(maps, scores)

Images are probed as they are, without augmentation, so that maps of different moments can be compared place by place.
No image may influence another's output (no batch statistics): then the gradient of a sum over the batch is each image's
own, and one forward pass serves all readings.

Source: gradients of the assigned class's pre-softmax activation as in VOG, Agarwal et al., CVPR 2022; AUM, Pleiss et
al., NeurIPS 2020; EL2N, Paul et al., NeurIPS 2021; softmin, Lad & Mueller, 2023 (cleanlab).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from medjax.training.losses import cross_entropy, soft, soft_dice
from medjax.training.spatial import mean

READINGS = ("gt_logit", "own_logit", "gt_prob", "loss", "own_loss")
SOFTMIN_TEMPERATURE = 0.1  # cleanlab's


class Probe(NamedTuple):
    """Maps `(batch, *space)`: gradients with respect to the image, mean of its channels. Scores: high is suspect."""

    maps: dict[str, Float[Array, "batch *space"]]
    scores: dict[str, Float[Array, " batch"]]


def probe(
    apply: Callable[[PyTree, Array], Array],
    params: PyTree,
    images: Float[Array, "batch *space channel"],
    labels: Int[Array, "batch *space"],
    readings: Sequence[str] = READINGS,
) -> Probe:
    """Maps of the readings asked for, and all scores.

    A reading is the image's gradient of a sum over all places of, with class y given and ŷ the network's own,

        gt_logit    logit_y       own_logit   logit_ŷ
        loss        −log p_y      own_loss    −log p_ŷ
        gt_prob     p_y           gt_minus_own   logit_y − logit_ŷ, or gt_logit − own_logit if both are there
    """
    logits, pull = jax.vjp(lambda x: apply(params, x), images)
    p, given = jax.nn.softmax(logits), soft(labels, logits.shape[-1])
    own = soft(jnp.argmax(logits, axis=-1), logits.shape[-1])
    p_given = jnp.sum(p * given, axis=-1, keepdims=True)
    along = {
        "gt_logit": given,
        "own_logit": own,
        "gt_minus_own": given - own,
        "gt_prob": p_given * (given - p),
        "loss": p - given,
        "own_loss": p - own,
    }
    maps = {name: jnp.mean(pull(along[name])[0], axis=-1) for name in readings}
    return Probe(maps, _scores(logits, labels, p, given, maps.get("loss")))


def _scores(logits: Array, labels: Array, p: Array, given: Array, loss_map: Array | None) -> dict[str, Array]:
    of_given = jnp.sum(logits * given, axis=-1)
    other = jnp.max(jnp.where(given > 0, -jnp.inf, logits), axis=-1)
    scores = {
        "cross_entropy": cross_entropy(logits, labels),
        "dice_loss": soft_dice(logits, labels),
        "margin": mean(other - of_given),
        "el2n": mean(jnp.linalg.norm(p - given, axis=-1)),
        "softmin": 1 - softmin(jnp.sum(p * given, axis=-1)),
    }
    return scores if loss_map is None else scores | {"gradient": mean(jnp.abs(loss_map))}


def softmin(quality: Float[Array, "batch *space"], temperature: float = SOFTMIN_TEMPERATURE) -> Float[Array, " batch"]:
    """Σ_i softmax((1 − s) / T)_i s_i over places, s the probability of the given label: near the worst places' mean."""
    flat = quality.reshape(len(quality), -1)
    return jnp.sum(jax.nn.softmax((1 - flat) / temperature, axis=-1) * flat, axis=-1)
