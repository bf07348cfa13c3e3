"""Pseudo-PET sets of a target, one for each size |S| of the subsets that are averaged, and what they are like.

noise            SD of white matter from the cohort's scans alone, over its mean: falls as 1 / √|S|
gradient_energy  mean |∇|² at the border of the target's grey and white matter, over the truth's; free of noise, as the
                 product of two scans' gradients
nrmse            of one pseudo-PET against the target's noise-free activity, in the brain
nrmse_sources    against the mean of the same people's noise-free activity, carried by the same fields
diversity        root mean square distance of two images of the set
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import ndimage

from experiments.pet.cohort_registration import Fields
from experiments.pet.multi_subject import People
from medjax.metrics.image import nrmse
from medjax.phantoms.multi_subject import LABELS
from medjax.registration.pseudo_pet import carry, normalize_uptake, subset_weights, weighted_means

MEASURES = ("noise", "gradient_energy", "nrmse", "nrmse_sources", "diversity")
MEASURED = 8  # images of a set that are looked at


class CarriedImages(NamedTuple):
    """The cohort's images in a target's anatomy, each over its mean in the brain; and the target's own activity."""

    pets: Any  # (person, *space)
    pets_again: Any  # of the second scans
    activity: Any  # noise-free
    truth: Any  # the target's, (*space)
    labels: Any  # the target's tissues
    mask: Any


def carry_cohort(cohort: People, fields: Fields, targets: People, target: int) -> CarriedImages:
    """The cohort carried to a target; both scans are normalised by the first one's mean."""
    mask = np.asarray(targets.mask[target])
    pets, again, activity = (
        carry(images, fields.displacements) for images in (cohort.pet, cohort.pet_again, cohort.activity)
    )
    means = jnp.mean(pets[:, mask], axis=1)[:, None, None, None]
    truth = np.asarray(normalize_uptake(targets.activity[target][None], mask))[0]
    everyone = (normalize_uptake(pets, mask), again / means, normalize_uptake(activity, mask))
    first, second, known = (np.asarray(images) for images in everyone)
    return CarriedImages(first, second, known, truth, targets.labels[target], mask)


def pseudo_pets(
    carried: CarriedImages, size: int, number: int, seed: int
) -> Callable[[], Float[np.ndarray, "number *space"]]:
    """Function that makes the set of so many means of `size` people; one image where `size` is everyone."""
    everyone = len(carried.pets)
    number = 1 if size == everyone else number
    return lambda: np.asarray(weighted_means(carried.pets, _weights(seed, everyone, size, number)))


def set_measures(carried: CarriedImages, size: int, seed: int) -> dict[str, float]:
    """Measures of the pseudo-PETs of `size` people."""
    everyone = len(carried.pets)
    weights = _weights(seed, everyone, size, 1 if size == everyone else MEASURED)
    pets, again, sources = (
        np.asarray(weighted_means(images, weights)) for images in (carried.pets, carried.pets_again, carried.activity)
    )
    white = ndimage.binary_erosion(carried.labels == LABELS["white"])
    white = white if white.sum() > 50 else carried.labels == LABELS["white"]
    border = _border(carried.labels)
    noise = [np.std((one - two)[white]) / np.sqrt(2) / one[white].mean() for one, two in zip(pets, again, strict=True)]
    energy = [_gradient_product(one, two, border) for one, two in zip(pets, again, strict=True)]
    apart = [np.sqrt(np.mean((one - two)[carried.mask] ** 2)) for k, one in enumerate(pets) for two in pets[:k]]
    return {
        "noise": float(np.mean(noise)),
        "gradient_energy": float(np.mean(energy) / _gradient_product(carried.truth, carried.truth, border)),
        "nrmse": float(np.mean([nrmse(one, carried.truth, carried.mask) for one in pets])),
        "nrmse_sources": float(
            np.mean([nrmse(one, source, carried.mask) for one, source in zip(pets, sources, strict=True)])
        ),
        "diversity": float(np.mean(apart)) if apart else 0.0,
    }


def _weights(seed: int, everyone: int, size: int, number: int) -> Any:
    return subset_weights(jax.random.key(1000 * seed + size), everyone, size, number)


def _border(labels: np.ndarray) -> np.ndarray:
    """Voxels of grey or white matter that touch the other."""
    gray, white = (labels == LABELS[name] for name in ("gray", "white"))
    return (gray & ndimage.binary_dilation(white)) | (white & ndimage.binary_dilation(gray))


def _gradient_product(one: np.ndarray, two: np.ndarray, where: np.ndarray) -> float:
    axes = [axis for axis, side in enumerate(one.shape) if side > 1]
    return float(sum(np.mean((np.gradient(one, axis=k) * np.gradient(two, axis=k))[where]) for k in axes))
