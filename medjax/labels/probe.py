"""Probe of a network during training: its logits, losses and image gradients for labelled images.

    probe(apply, params, images, labels) → Probe(logits, labels, losses, gradients)

Images are probed as they are, without augmentation, so that maps of different moments can be compared voxel by voxel.
No image may influence another's output (no batch statistics): then the gradient of a sum over the batch is each image's
own, and one forward pass serves all of them. `medjax.labels.dynamics` makes a Probe of a training step's own passes.

Source: gradients of the assigned class's pre-softmax activation as in VOG, Agarwal et al., CVPR 2022.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from medjax.training.losses import Labels, cross_entropy, soft_dice, soft_labels

# of the logit, probability and cross-entropy of the label's class (gt) and of the predicted class
GRADIENTS = ("gt_logit", "predicted_logit", "gt_prob", "loss", "predicted_loss")


class Probe(NamedTuple):
    """Logits, losses and image gradients of one batch: the input of a label score.

    `losses` are "cross_entropy" and "dice_loss"; `gradients` are with respect to the image, mean over its channels, by
    the name of the quantity differentiated, see `probe`.
    """

    logits: Float[Array, "batch *space class"]
    labels: Int[Array, "batch *space"]  # labels as given, which may be wrong
    losses: dict[str, Float[Array, " batch"]]
    gradients: dict[str, Float[Array, "batch *space"]]


def probe(
    apply: Callable[[PyTree, Array], Array],
    params: PyTree,
    images: Float[Array, "batch *space channel"],
    labels: Int[Array, "batch *space"],
    gradients: Sequence[str] = GRADIENTS,
) -> Probe:
    """Probe of a batch of images: logits, losses, and the image gradients named, each at the cost of one backward pass.

    Each is the gradient of a sum over all voxels of, with the label's class y and the predicted class ŷ,

        gt_logit    logit_y       predicted_logit      logit_ŷ
        loss        −log p_y      predicted_loss       −log p_ŷ
        gt_prob     p_y           gt_minus_predicted   logit_y − logit_ŷ

    Args:
        apply: network, (params, images) → logits.
        params: parameters of the network.
        images: images to probe.
        labels: their labels y, which may be wrong.
        gradients: names of the image gradients, as in the table above.
    """
    logits, pull = jax.vjp(lambda x: apply(params, x), images)
    p, given = jax.nn.softmax(logits), soft_labels(labels, logits.shape[-1])
    own = soft_labels(jnp.argmax(logits, axis=-1), logits.shape[-1])
    p_given = jnp.sum(p * given, axis=-1, keepdims=True)
    along = {
        "gt_logit": given,
        "predicted_logit": own,
        "gt_minus_predicted": given - own,
        "gt_prob": p_given * (given - p),
        "loss": p - given,
        "predicted_loss": p - own,
    }
    maps = {name: jnp.mean(pull(along[name])[0], axis=-1) for name in gradients}
    return Probe(logits, labels, image_losses(logits, labels), maps)


def image_losses(logits: Float[Array, "batch *space class"], labels: Labels) -> dict[str, Float[Array, " batch"]]:
    """Cross-entropy and soft Dice loss of every image, by name."""
    return {"cross_entropy": cross_entropy(logits, labels), "dice_loss": soft_dice(logits, labels)}
