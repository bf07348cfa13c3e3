"""Background CutMix: a rectangle of another scene behind the object, so that the scene no longer predicts the class.

The donor shows the same class in the other scene. Only pixels that are background in both images change, so labels stay
as they are.

Source: CutMix, Yun et al., ICCV 2019; its form for backgrounds, Achara et al., arXiv 2604.13326, 2026. (Their code
fills the rectangle with one colour where less than 0.3 of it is background in both; here that part is pasted.)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Scalar

from medjax.errors import DataError
from medjax.phantoms.scenes import Scenes


def donors(
    key: PRNGKeyArray, group: Int[np.ndarray, " image"], pool: Int[np.ndarray, " example"]
) -> Int[np.ndarray, " image"]:
    """Donor of each image: index in `pool` of an example of the same class in the other scene, group g xor 1.

    Groups are g = 2 · class + scene.

    Raises:
        DataError: the pool has no example of such a group.
    """
    wanted = group ^ 1
    members = {one: np.flatnonzero(pool == one) for one in np.unique(wanted).tolist()}
    if empty := [one for one, indices in members.items() if not len(indices)]:
        raise DataError(f"CutMix: no example of group {empty} to take a background from")
    uniform = np.asarray(jax.random.uniform(key, group.shape), np.float64)
    return np.array([members[one][int(u * len(members[one]))] for one, u in zip(wanted.tolist(), uniform, strict=True)])


def background_cutmix(
    key: PRNGKeyArray,
    image: Float[Array, "image *space channel"],
    label: Int[Array, "image *space"],
    donor: Float[Array, "image *space channel"],
    donor_label: Int[Array, "image *space"],
    probability: float | Scalar = 0.5,
    min_fraction: float | Scalar = 0.1,
    max_fraction: float | Scalar = 0.4,
) -> Float[Array, "image *space channel"]:
    """Images with their donor's background pasted into a random rectangle, where both are background.

    Args:
        probability: probability that an image is changed.
        min_fraction, max_fraction: range of the rectangle's sides, uniform, as a fraction of the image's.
    """
    space = label.shape[1:]

    def rectangle(key: PRNGKeyArray) -> Array:
        whether, size, position = jax.random.split(key, 3)
        inside = jnp.broadcast_to(jax.random.uniform(whether) < probability, space)
        fractions = jax.random.uniform(size, (len(space),), minval=min_fraction, maxval=max_fraction)
        starts = jax.random.uniform(position, (len(space),))
        for axis, (side, fraction, start) in enumerate(zip(space, fractions, starts, strict=True)):
            length = jnp.floor(fraction * side)
            first = jnp.floor(start * (side - length + 1))
            along = (jnp.arange(side) >= first) & (jnp.arange(side) < first + length)
            inside = inside & along.reshape([-1 if one == axis else 1 for one in range(len(space))])
        return inside

    pasted = jax.vmap(rectangle)(jax.random.split(key, len(image))) & (label == 0) & (donor_label == 0)
    return jnp.where(pasted[..., None], donor, image)


def cutmix_batches(
    key: PRNGKeyArray,
    batches: Callable[[int], Scenes],
    pool: Scenes,
    probability: float = 0.5,
    min_fraction: float = 0.1,
    max_fraction: float = 0.4,
) -> Callable[[int], Scenes]:
    """Batches after background CutMix; batch n draws with fold_in(key, n).

    Args:
        key: random key.
        batches: batches of the training images, by number.
        pool: images from which donors are drawn.
        probability: probability that an image is mixed.
        min_fraction: minimum fraction of the image that the pasted rectangle covers.
        max_fraction: maximum fraction.
    """
    groups = np.asarray(pool.group)

    def mixed(number: int) -> Scenes:
        batch, now = batches(number), jax.random.fold_in(key, number)
        chosen = donors(jax.random.fold_in(now, 0), np.asarray(batch.group), groups)
        image = _mix(
            jax.random.fold_in(now, 1), batch.image, batch.label, pool.image[chosen], pool.label[chosen],
            probability, min_fraction, max_fraction,
        )  # fmt: skip
        return batch._replace(image=image)

    return mixed


_mix = jax.jit(background_cutmix)
