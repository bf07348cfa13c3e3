"""Unrolled EM with a learned regulariser: a few ordered-subset updates, each fused with a network's output.

    x ← argmax of the EM surrogate − ½ λ ‖x − max(r(x), 0)‖²     r the network, λ learned, in closed form

Gradients go through projector and fusion; each update is recomputed in the backward pass, so memory stays that of one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from medjax.pet.acquisition import Acquisition, de_pierro_update, select_subset
from medjax.pet.em import subset_order


def unrolled_em(
    stacked: Acquisition,
    image: Float[Array, "x y plane"],
    regularize: Callable[[Float[Array, "x y plane"]], Float[Array, "x y plane"]],
    strength: float | Scalar,
    updates: int,
) -> Float[Array, "x y plane"]:
    """Unrolled EM: `updates` from `image`, each fused with max(regularize(x), 0), one subset each.

    Args:
        stacked: ordered subsets of the data, from `ordered_subsets`.
        image: image to start from.
        regularize: a network r, image → regularised image.
        strength: λ in units of the subsets' mean sensitivity / mean activity: free of counts and of units.
        updates: static.

    Source: FBSEM-Net, Mehranian & Reader, IEEE Transactions on Radiation and Plasma Medical Sciences 5(1), 2021.
    """
    number = stacked.counts.shape[0]
    level = jnp.sum(image**2) / jnp.maximum(jnp.sum(image), jnp.finfo(image.dtype).tiny)
    weight = strength * jnp.mean(stacked.sensitivity) / jnp.maximum(level, jnp.finfo(image.dtype).tiny)

    @jax.checkpoint
    def update(x: Array, part: Acquisition) -> Array:
        anchor = jnp.maximum(regularize(x), 0)
        return de_pierro_update(part.update(x), part.sensitivity, anchor, weight)

    for k in range(updates):  # not a scan: on CPU the gradient of a network inside one is many times slower
        image = update(image, select_subset(stacked, subset_order(number)[k % number]))
    return image
