"""Unrolled EM with a learned regulariser: a few ordered-subset updates, each fused with a network's output.

    x ← argmax of the EM surrogate − ½ λ ‖x − max(r(x), 0)‖²     r the network, λ learned, in closed form

A network's output may serve several updates, say a pass over all subsets: the network costs more than they do.
Gradients go through projector and fusion; updates are recomputed in the backward pass, the network is not.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from medjax.pet.acquisition import Acquisition, de_pierro_update
from medjax.pet.em import subset_order


def unrolled_em(
    stacked: Acquisition,
    image: Float[Array, "x y z"],
    regularize: Callable[[Float[Array, "x y z"]], Float[Array, "x y z"]],
    strength: float | Scalar,
    updates: int,
    shared: int = 1,
) -> Float[Array, "x y z"]:
    """Unrolled EM: `updates` from `image`, each fused with max(regularize(x), 0), one subset each.

    Args:
        stacked: ordered subsets of the data, from `ordered_subsets`.
        image: image to start from.
        regularize: a network r, image → regularised image.
        strength: λ in units of the subsets' mean sensitivity / mean activity: free of counts and of units.
        updates: number of updates, static.
        shared: number of updates in a row that share one regularize(x), static.

    Source: FBSEM-Net, Mehranian & Reader, IEEE Transactions on Radiation and Plasma Medical Sciences 5(1), 2021.
    """
    number = stacked.counts.shape[0]
    level = jnp.sum(image**2) / jnp.maximum(jnp.sum(image), jnp.finfo(image.dtype).tiny)
    weight = strength * jnp.mean(stacked.sensitivity) / jnp.maximum(level, jnp.finfo(image.dtype).tiny)

    @jax.checkpoint
    def update(x: Array, part: Acquisition, anchor: Array) -> Array:
        return de_pierro_update(part.update(x), part.sensitivity, anchor, weight)

    order = jnp.resize(subset_order(number), (updates,))
    for first in range(0, updates, shared):  # not a scan: on CPU the gradient of a network in one is many times slower
        anchor = jnp.maximum(regularize(image), 0)
        parts = jax.tree.map(lambda a, own=order[first : first + shared]: a[own], stacked)
        image, _ = jax.lax.scan(lambda x, part, anchor=anchor: (update(x, part, anchor), None), image, parts)
    return image
