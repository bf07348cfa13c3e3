"""Priors of the pseudo-PET study: all are fine-tuned from one network, in equally many steps."""

from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from experiments.pet.fine_tuning import fine_tune
from experiments.pet.pseudo_report import REAL, START, pseudo
from experiments.pet.pseudo_sets import CarriedImages, pseudo_pets
from medjax.diffusion.dds_cg import SIGMA_DATA
from medjax.diffusion.prior import Prior, PriorSettings
from medjax.diffusion.prior_file import example_inputs, load_prior
from medjax.diffusion.sde import vp
from medjax.phantoms.uptake import ACTIVITY_RANGES
from medjax.running.workdir import WorkDir
from medjax.tools.pet_prior import default_network


def first_prior(config: ConfigDict) -> Prior:
    """The trained network that all competitors start from, or, for tests, an untrained one of `training.widths`."""
    widths = tuple(config.training.widths)
    if not widths:
        return load_prior(config.training.prior or None)
    settings = PriorSettings(widths=widths, attention=(), tracers=tuple(ACTIVITY_RANGES))
    model = default_network(settings)
    params = jax.jit(model.init)(jax.random.key(config.seed), *example_inputs(settings))
    return Prior(params, SIGMA_DATA, vp(settings.beta_min, settings.beta_max), model, settings)


def personal_priors(
    config: ConfigDict,
    work: WorkDir,
    first: Prior,
    real: Sequence,
    carried: Sequence[CarriedImages],
    sizes: Sequence[Sequence[int]],
) -> list[dict[str, Prior]]:
    """Priors of each target by name: as it comes, of the cohort's PETs as they are, of pseudo-PETs of each of its |S|.

    Slices of real PETs are mirrored and shifted, as people differ; those of pseudo-PETs, of one anatomy, are not.
    """
    t, seed = config.training, config.seed
    shared = (t.steps, t.rate, seed, work)
    known = {START: first, REAL: fine_tune(first, real, *shared, "prior_real", batch=t.batch)}
    found = []
    for target, (images, own) in enumerate(zip(carried, sizes, strict=True)):
        personal = {
            pseudo(size): fine_tune(
                first, pseudo_pets(images, size, config.pseudo.images, seed), *shared, f"prior_{target}_{size}",
                batch=t.batch, one_anatomy=True,
            )
            for size in own
        }  # fmt: skip
        found.append(known | personal)
    return found
