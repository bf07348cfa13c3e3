"""What a network gives for labelled images at one moment of its training: logits, losses, gradient maps.

    probe(apply, params, images, labels) → Probe(logits, labels, losses, gradients)

Images are probed as they are, without augmentation, so that maps of different moments can be compared voxel by voxel.
No image may influence another's output (no batch statistics): then the gradient of a sum over the batch is each image's
own, and one forward pass serves all readings. `medjax.labels.dynamics` makes a Probe of a training step's own passes.

Source: gradients of the assigned class's pre-softmax activation as in VOG, Agarwal et al., CVPR 2022.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from medjax.training.losses import Labels, cross_entropy, soft, soft_dice

# `own_logit` is the logit of the predicted class; names of metrics are made of this key.
READINGS = ("gt_logit", "own_logit", "gt_prob", "loss", "own_loss")


class Probe(NamedTuple):
    """What a score of labels may look at, for the images of one batch.

    `losses` are "cross_entropy" and "dice_loss"; `gradients` are those of the readings that were asked for, with
    respect to the image, mean of its channels.
    """

    logits: Float[Array, "batch *space class"]
    labels: Int[Array, "batch *space"]  # as given
    losses: dict[str, Float[Array, " batch"]]
    gradients: dict[str, Float[Array, "batch *space"]]


def probe(
    apply: Callable[[PyTree, Array], Array],
    params: PyTree,
    images: Float[Array, "batch *space channel"],
    labels: Int[Array, "batch *space"],
    readings: Sequence[str] = READINGS,
) -> Probe:
    """The Probe of these images, with the gradients of the readings asked for; each costs one backward pass.

    A reading is the image's gradient of a sum over all voxels of, with class y given and ŷ predicted by the network,

        gt_logit    logit_y       own_logit   logit_ŷ, the logit of the predicted class
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
    gradients = {name: jnp.mean(pull(along[name])[0], axis=-1) for name in readings}
    return Probe(logits, labels, image_losses(logits, labels), gradients)


def image_losses(logits: Float[Array, "batch *space class"], labels: Labels) -> dict[str, Float[Array, " batch"]]:
    """The losses that a Probe carries."""
    return {"cross_entropy": cross_entropy(logits, labels), "dice_loss": soft_dice(logits, labels)}
