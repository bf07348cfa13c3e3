"""Three priors for one person's PET, fine-tuned for equal steps from one network (paper 7).

unguided_prior       on PET of other people, each in their own anatomy
mr_channel_prior     on their PET and MR: the network sees the MR as a second channel, and the target's in its turn
personalised_prior   on pseudo-PET: PET of other people carried to the target's anatomy by its MR, and averaged; the
                     network may see the mean of all as its second channel
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pet.cohort_registration import Fields
from experiments.pet.fine_tuning import fine_tune
from experiments.pet.multi_subject import People
from medjax.diffusion.prior import Prior
from medjax.registration.pseudo_pet import carry, dirichlet_means, normalize_uptake, subset_means
from medjax.running.workdir import WorkDir, stage

ORIENTATIONS = (0, 1, 2)  # axes that slices are perpendicular to


class FineTuning(NamedTuple):
    """Fine-tuning that all priors share."""

    start: Prior
    steps: int
    rate: float
    batch: int
    seed: int


class Pseudo(NamedTuple):
    """Pseudo-PETs of a target: half of them means of random subsets, half of random weights."""

    number: int
    size: int  # of the subsets
    concentration: float  # of the Dirichlet weights
    template: bool = False  # whether the network sees the mean of all: it then learns the anatomy in few steps


def unguided_prior(work: WorkDir, cohort: People, tuning: FineTuning) -> Prior:
    """Score prior of PET images, in anatomies of their own."""
    return _tuned(work, "prior_unguided", cohort.pet, tuning)


def mr_channel_prior(work: WorkDir, cohort: People, tuning: FineTuning) -> Prior:
    """Score prior of PET images given MR images, its second channel."""
    return _tuned(work, "prior_mr_channel", cohort.pet, tuning, mr=cohort.mr)


def personalised_prior(
    work: WorkDir,
    name: str,
    cohort: People,
    fields: Fields,
    mask: np.ndarray,
    pseudo: Pseudo,
    tuning: FineTuning,
    seed: int,
) -> tuple[Prior, Any]:
    """Score prior of pseudo-PETs in the anatomy of one target, whose brain is the `mask`; stage `prior_NAME`.

    Also their mean, a second channel of the network in place of an MR, or None where `pseudo.template` is false.
    """

    def make() -> dict[str, Any]:
        return {"images": pseudo_pets(jax.random.key(seed), cohort, fields, mask, pseudo)}

    images = stage(work, f"pseudo_{name}", make)["images"]
    if not pseudo.template:
        return _tuned(work, f"prior_{name}", images, tuning, one_anatomy=True), None
    template = images.astype(np.float32).mean(axis=0)
    return _tuned(work, f"prior_{name}", images, tuning, one_anatomy=True, mr=[template] * len(images)), template


def pseudo_pets(key: Any, cohort: People, fields: Fields, mask: np.ndarray, pseudo: Pseudo) -> np.ndarray:
    """Pseudo-PETs, (number, *space), float16."""
    carried = normalize_uptake(carry(jnp.asarray(cohort.pet), jnp.asarray(fields.displacements)), jnp.asarray(mask))
    one, other = jax.random.split(key)
    half = pseudo.number // 2
    parts = [
        subset_means(one, carried, min(pseudo.size, cohort.number), pseudo.number - half),
        dirichlet_means(other, carried, half, pseudo.concentration),
    ]
    return np.concatenate([np.asarray(part, np.float16) for part in parts if len(part)])


def _tuned(work: WorkDir, name: str, images: Any, tuning: FineTuning, **more: Any) -> Prior:
    return fine_tune(
        tuning.start, images, tuning.steps, tuning.rate, tuning.seed, work, name, batch=tuning.batch,
        orientations=ORIENTATIONS, **more,
    )  # fmt: skip
