"""Background CutMix: a rectangle of another scene behind the same object, so that the scene stops telling the class.

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
    """For each image of a group g = 2 · class + scene, the place in `pool` of an example of group g xor 1.

    Raises:
        DataError: the pool has no example of a group that is wanted.
    """
    wanted = group ^ 1
    members = {one: np.flatnonzero(pool == one) for one in np.unique(wanted).tolist()}
    if empty := [one for one, places in members.items() if not len(places)]:
        raise DataError(f"CutMix: no example of group {empty} to take a background from")
    share = np.asarray(jax.random.uniform(key, group.shape), np.float64)
    return np.array([members[one][int(u * len(members[one]))] for one, u in zip(wanted.tolist(), share, strict=True)])


def background_cutmix(
    key: PRNGKeyArray,
    image: Float[Array, "image *space channel"],
    label: Int[Array, "image *space"],
    donor: Float[Array, "image *space channel"],
    donor_label: Int[Array, "image *space"],
    probability: float | Scalar = 0.5,
    smallest: float | Scalar = 0.1,
    largest: float | Scalar = 0.4,
) -> Float[Array, "image *space channel"]:
    """The images, each with `probability` given its donor's background in a rectangle where its own is background.

    The rectangle's sides are ⌊u · side⌋, u uniform from `smallest` to `largest`, and it lies anywhere inside.
    """
    space = label.shape[1:]

    def rectangle(key: PRNGKeyArray) -> Array:
        whether, size, place = jax.random.split(key, 3)
        inside = jnp.broadcast_to(jax.random.uniform(whether) < probability, space)
        shares = jax.random.uniform(size, (len(space),), minval=smallest, maxval=largest)
        starts = jax.random.uniform(place, (len(space),))
        for axis, (side, share, start) in enumerate(zip(space, shares, starts, strict=True)):
            length = jnp.floor(share * side)
            first = jnp.floor(start * (side - length + 1))
            along = (jnp.arange(side) >= first) & (jnp.arange(side) < first + length)
            inside = inside & along.reshape([-1 if one == axis else 1 for one in range(len(space))])
        return inside

    pasted = jax.vmap(rectangle)(jax.random.split(key, len(image))) & (label == 0) & (donor_label == 0)
    return jnp.where(pasted[..., None], donor, image)


def mixed_batches(
    key: PRNGKeyArray,
    batches: Callable[[int], Scenes],
    pool: Scenes,
    probability: float = 0.5,
    smallest: float = 0.1,
    largest: float = 0.4,
) -> Callable[[int], Scenes]:
    """The same `batches` with mixed backgrounds, their donors from `pool`; batch n draws with fold_in(key, n)."""
    groups = np.asarray(pool.group)

    def mixed(number: int) -> Scenes:
        batch, now = batches(number), jax.random.fold_in(key, number)
        chosen = donors(jax.random.fold_in(now, 0), np.asarray(batch.group), groups)
        image = _mix(
            jax.random.fold_in(now, 1), batch.image, batch.label, pool.image[chosen], pool.label[chosen],
            probability, smallest, largest,
        )  # fmt: skip
        return batch._replace(image=image)

    return mixed


_mix = jax.jit(background_cutmix)
