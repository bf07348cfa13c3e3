"""Segmentation losses, one number an image: means over a batch are the caller's, and so are weights of images.

Labels are class numbers `(batch, *space)`, or soft ones `(batch, *space, class)` that sum to 1: a blend of opinions.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from medjax.segmentation.places import block_means, mean

Logits = Float[Array, "batch *space class"]
Labels = Int[Array, "batch *space"] | Float[Array, "batch *space class"]
PerImage = Float[Array, " batch"]
Loss = Callable[[Array, Array], Array]


def soft(labels: Labels, classes: int) -> Float[Array, "batch *space class"]:
    """Shares of the classes: one-hot class numbers, or what is soft already."""
    return labels if jnp.issubdtype(labels.dtype, jnp.floating) else jax.nn.one_hot(labels, classes)


def cross_entropy(logits: Logits, labels: Labels) -> PerImage:
    """−Σ_c q_c log p_c, mean over places."""
    return -mean(jnp.sum(soft(labels, logits.shape[-1]) * jax.nn.log_softmax(logits), axis=-1))


def focal(logits: Logits, labels: Labels, gamma: float = 2.0) -> PerImage:
    """−Σ_c q_c (1 − p_c)^γ log p_c, mean over places. Source: Lin et al., ICCV 2017."""
    log_p = jax.nn.log_softmax(logits)
    return -mean(jnp.sum(soft(labels, logits.shape[-1]) * (1 - jnp.exp(log_p)) ** gamma * log_p, axis=-1))


def soft_dice(logits: Logits, labels: Labels, smooth: float = 1.0) -> PerImage:
    """1 − mean over foreground classes of (2 Σ p q + s) / (Σ p + Σ q + s), s in voxels: an absent class costs little.

    Source: Milletari et al., 3DV 2016, with sums instead of squares as in nnU-Net.
    """
    p, q = jax.nn.softmax(logits), soft(labels, logits.shape[-1])
    space = tuple(range(1, logits.ndim - 1))
    both, total = jnp.sum(p * q, axis=space), jnp.sum(p + q, axis=space)
    return 1 - jnp.mean(((2 * both + smooth) / (total + smooth))[:, 1:], axis=-1)


def dice_cross_entropy(logits: Logits, labels: Labels) -> PerImage:
    """Soft Dice + cross-entropy, the usual pair."""
    return soft_dice(logits, labels) + cross_entropy(logits, labels)


def deep_supervision(loss: Loss) -> Callable[[Sequence[Array], Array], Array]:
    """The loss of logits of several levels, finest first, weights 1, 1/2, 1/4, … scaled to sum to 1.

    Labels of coarser levels are means of soft labels over what a coarse voxel covers: no structure vanishes by chance.
    """

    def over_levels(levels: Sequence[Array], labels: Array) -> Array:
        shares = soft(labels, levels[0].shape[-1])
        total = sum(2.0**-depth for depth in range(len(levels)))
        value = jnp.zeros(len(levels[0]))
        for depth, logits in enumerate(levels):
            value = value + 2.0**-depth / total * loss(logits, block_means(shares, logits.shape[1:-1]))
        return value

    return over_levels
