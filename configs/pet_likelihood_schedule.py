"""Likelihood-scheduled sampling against samplers, conventional and supervised reconstructions (paper 8).

`medjax run pet_likelihood_schedule:small`: slices, the shipped prior, 50 steps; RESULTS.md has the time on two cores.
`tiny`: for tests. `paper`: more heads and realisations, 100 steps, for an accelerator; it has not been run yet.

`--config.other_brain=DIR` adds an out-of-distribution test: DIR holds t1.nii.gz and labels.nii.gz (FreeSurfer's
numbers).
"""

from ml_collections import ConfigDict

from configs import pet_oblique
from configs.pet_common import RULES as COMMON_RULES
from configs.pet_common import base, check
from medjax.running.config_rules import INPUT_PATH, POSITIVE, RATE, STRATEGY, count, elements, interval, subset

__all__ = ["RULES", "check", "get_config"]

METHODS = (
    "osem", "map_em", "mr_map_em", "supervised", "unrolled", "dps", "dds", "dds_delta", "likelihood_schedule",
    "likelihood_schedule_fit", "likelihood_schedule_cg", "dds_cg", "split_gibbs",
)  # fmt: skip
OBLIQUE_METHODS = (
    "osem", "map_em", "dds", "dds_delta", "likelihood_schedule", "likelihood_schedule_perpendicular",
    "likelihood_schedule_cg", "likelihood_schedule_cg_perpendicular",
)  # fmt: skip
RULES = COMMON_RULES | {
    "methods": subset(*METHODS),
    "training.slices": count(1, 100_000),
    "training.validation_slices": count(1, 100_000),
    "training.realizations": count(1, 1000),
    "training.batch": count(1, 100_000),
    "training.unet.widths": elements(count(1, 4096)),
    "training.unet.attention": elements(count(0, 1000), 0),
    "training.unet.patch": count(1, 1024),
    "training.unet.steps": count(1, 1_000_000),
    "training.unrolled.widths": elements(count(1, 4096)),
    "training.unrolled.steps": count(1, 1_000_000),
    "training.rate": RATE,
    "population.strategy": STRATEGY,
    "population.width": count(0, 4096),
    "volume.planes": interval(3, 127),
    "volume.head": count(0, 1000),
    "volume.trues_per_mm3": POSITIVE,
    "volume.modes": subset("transverse", "alternated", "averaged"),
    "other_brain": INPUT_PATH,
}


def get_config(preset: str) -> ConfigDict:
    """Config of a preset: `base`, with supervised methods to train, a volume and another brain."""
    tiny, paper = preset == "tiny", preset == "paper"
    averaged = ("likelihood_schedule_cg",) if tiny else ("likelihood_schedule_cg", "split_gibbs")
    config = base(preset, mean_of_samples=averaged)
    tried = ("osem", "map_em", "supervised", "unrolled", "likelihood_schedule_cg")  # tiny paper 10 tries the others
    config.methods = tried if tiny else METHODS
    config.training = ConfigDict(
        {
            "slices": 2 if tiny else 4000 if paper else 400,  # to learn from
            "validation_slices": 2 if tiny else 24,
            "realizations": 1 if tiny else 2,  # of noise, of a training slice at each count level
            "batch": 2 if tiny else 8,
            "rate": 1e-3,  # Adam's peak learning rate
            "unet": {  # behind MLEM and OSEM
                "widths": (8, 16) if tiny else (64, 96, 128),
                "attention": (),
                "patch": 2,  # voxels along each side of a block that becomes channels
                "steps": 2 if tiny else 20000 if paper else 1000,  # of training
            },
            "unrolled": {"widths": (8, 16) if tiny else (32, 64, 96), "steps": 2 if tiny else 10000 if paper else 600},
        }
    )
    config.population = ConfigDict({"strategy": "", "width": 0})  # of networks trained together; the backend's default
    config.volume = ConfigDict(
        {
            "planes": 9 if tiny else 63,
            "head": 0,
            "trues_per_mm3": 10.0,
            "modes": ("alternated",) if tiny else ("transverse", "alternated", "averaged"),  # orientations of slices
        }
    )
    config.other_brain = ""  # folder of another brain; "": none
    config.oblique = _oblique(preset)
    return config


def _oblique(preset: str) -> ConfigDict:
    """What replaces values of the same name with oblique planes."""
    tiny, paper = preset == "tiny", preset == "paper"
    methods = ("osem", "likelihood_schedule_cg_perpendicular") if tiny else OBLIQUE_METHODS
    own = pet_oblique.oblique(preset, methods)
    own.test.realizations = 2 if tiny else 20 if paper else 5
    return own


RULES |= pet_oblique.rules(RULES, _oblique("small"), METHODS)
