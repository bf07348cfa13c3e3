"""Pseudo-PET: PET images of other people carried to one person's anatomy, and means of some of them.

    carried = normalize_uptake(carry(pets, displacements), mask)     registered by MR: `greedy.register`
    images = subset_means(key, carried, size=4, number=100)          mean of 4 others, 100 times

    w_i = PET_i ∘ φ_i,   pseudo-PET = Σ_i a_i w_i,   Σ a = 1: 1 / |S| for i in a random subset S, or Dirichlet

Noise that is independent between people has its variance multiplied by Σ a²: 1 / |S| in the mean of a subset.

Source: Webber et al., IEEE MIC 2024, arXiv 2412.04324; random weights are its suggestion.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from medjax.errors import DataError
from medjax.registration.warp import jacobian_determinant, warp


def carry(
    pets: Sequence[Float[Array | np.ndarray, "..."]] | Float[Array | np.ndarray, "person *old"],
    displacements: Sequence[Float[Array | np.ndarray, "..."]] | Float[Array | np.ndarray, "field dim *space"],
    *,
    modulate: bool = False,
) -> Float[Array, "number *space"]:
    """PET images carried to the target, w(x) = PET(x + u(x)), 0 from outside.

    Intensities are kept, as uptake per volume is of tissue, whatever its size there; `modulate` multiplies by
    det ∂(x + u)/∂x, which keeps the total activity instead.

    Args:
        pets: PET image of each person, on one grid.
        displacements: field of each, in voxels, from the target's grid to theirs: dim components first.
        modulate: keep mass instead of intensity.

    Raises:
        DataError: there is none, or their numbers differ.
    """
    if not len(pets) or len(pets) != len(displacements):
        raise DataError(f"pets: {len(pets)} images and {len(displacements)} fields; expected as many, 1 or more")
    carried = [_carry(jnp.asarray(pet), jnp.asarray(u), modulate) for pet, u in zip(pets, displacements, strict=True)]
    return jnp.stack(carried)


def normalize_uptake(
    pets: Float[Array | np.ndarray, "number *space"],
    mask: Bool[Array | np.ndarray, "*space"] | Bool[Array | np.ndarray, "number *space"],
) -> Float[Array, "number *space"]:
    """Each PET image over its own mean in the whole brain, `mask`: one for all, or one each.

    Raises:
        DataError: a mean is not above 0.
    """
    pets = jnp.asarray(pets)
    masks = jnp.broadcast_to(jnp.asarray(mask)[None] if mask.ndim < pets.ndim else jnp.asarray(mask), pets.shape)
    axes = tuple(range(1, pets.ndim))
    means = jnp.sum(pets, axis=axes, where=masks) / jnp.maximum(jnp.sum(masks, axis=axes), 1)
    if not bool(jnp.all(means > 0)):
        raise DataError(f"pets: means of {means.tolist()} in the brain; expected above 0")
    return pets / means.reshape(-1, *(1,) * len(axes))


def subset_means(
    key: PRNGKeyArray, pets: Float[Array | np.ndarray, "person *space"], size: int, number: int
) -> Float[Array, "number *space"]:
    """Means of random subsets of `size` people, drawn without replacement; subsets may repeat.

    Raises:
        DataError: there are not so many people.
    """
    return weighted_means(pets, subset_weights(key, len(pets), size, number))


def dirichlet_means(
    key: PRNGKeyArray, pets: Float[Array | np.ndarray, "person *space"], number: int, concentration: float = 1.0
) -> Float[Array, "number *space"]:
    """Random convex combinations of all people, with weights ~ Dirichlet(concentration, …).

    A small `concentration` gives images near those of one person, a large one images near the mean.

    Raises:
        DataError: the concentration is not above 0.
    """
    return weighted_means(pets, dirichlet_weights(key, len(pets), number, concentration))


def weighted_means(
    pets: Float[Array | np.ndarray, "person *space"], weights: Float[Array | np.ndarray, "number person"]
) -> Float[Array, "number *space"]:
    """Weighted means Σ_i a_i PET_i, one for each row of weights."""
    return jnp.tensordot(jnp.asarray(weights), jnp.asarray(pets), 1, precision=jax.lax.Precision.HIGHEST)


def subsets(key: PRNGKeyArray, people: int, size: int, number: int) -> Int[Array, "number size"]:
    """Random subsets of `size` out of so many `people`, each without replacement.

    Raises:
        DataError: `size` is not from 1 to `people`.
    """
    if not 1 <= size <= people:
        raise DataError(f"size: subsets of {size} out of {people} people; expected 1 to {people}")
    return jnp.argsort(jax.random.uniform(key, (number, people)), axis=1)[:, :size]


def subset_weights(key: PRNGKeyArray, people: int, size: int, number: int) -> Float[Array, "number person"]:
    """Weights of the means of random subsets: 1 / size for their members, else 0.

    Raises:
        DataError: as `subsets`.
    """
    members = subsets(key, people, size, number)
    return jnp.max(jax.nn.one_hot(members, people), axis=1) / size


def dirichlet_weights(
    key: PRNGKeyArray, people: int, number: int, concentration: float = 1.0
) -> Float[Array, "number person"]:
    """Convex weights ~ Dirichlet(concentration, …).

    Raises:
        DataError: the concentration is not above 0.
    """
    if not concentration > 0:
        raise DataError(f"concentration: {concentration:g}; expected above 0")
    return jax.random.dirichlet(key, jnp.full(people, concentration, jnp.float32), (number,))


def _carry(pet: Array, displacement: Array, modulate: bool) -> Array:
    carried = warp(pet, displacement, outside=0.0)
    return carried * jacobian_determinant(displacement) if modulate else carried
