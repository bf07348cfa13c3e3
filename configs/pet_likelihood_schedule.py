"""Likelihood-scheduled sampling against samplers, conventional and supervised reconstructions (paper 8).

`medjax run pet_likelihood_schedule:small`: slices, the shipped prior, 50 steps; RESULTS.md has the time on two cores.
`tiny`: for tests. `paper`: more heads and realisations, 100 steps, for an accelerator; it has not been run yet.

`--config.other_brain=DIR` adds an out-of-distribution test: DIR holds t1.nii.gz and labels.nii.gz (FreeSurfer's
numbers).
"""

from ml_collections import ConfigDict

from configs.pet_common import RULES as COMMON_RULES
from configs.pet_common import base, check
from medjax.running.config_rules import INPUT_PATH, POSITIVE, STRATEGY, elements, interval, minimum

__all__ = ["RULES", "check", "get_config"]

RULES = COMMON_RULES | {
    "training.heads": minimum(1),
    "training.batch": minimum(1),
    "training.unet.widths": elements(minimum(1)),
    "training.unet.attention": elements(minimum(0), 0),
    "training.unet_steps": minimum(1),
    "training.unrolled_steps": minimum(1),
    "training.rate": POSITIVE,
    "population.strategy": STRATEGY,
    "population.width": minimum(0),
    "volume.planes": interval(3, 127),
    "volume.head": minimum(0),
    "volume.trues_per_mm3": POSITIVE,
    "volume.iterations": POSITIVE,
    "other_brain": INPUT_PATH,
}


def get_config(preset: str) -> ConfigDict:
    """Config of a preset: `base`, with supervised methods to train, a volume and another brain."""
    tiny, paper = preset == "tiny", preset == "paper"
    config = base(preset, mean_of_samples="likelihood_schedule")
    config.training = ConfigDict(
        {
            "heads": 2 if tiny else 400 if paper else 48,  # number of training heads
            "batch": 2 if tiny else 8,
            "unet": {"widths": (8, 16) if tiny else (16, 32, 64), "attention": () if tiny else (2,)},  # behind OSEM
            "unet_steps": 2 if tiny else 20000 if paper else 800,  # training steps
            "unrolled_steps": 2 if tiny else 5000 if paper else 200,
            "rate": 2e-3,  # Adam's peak learning rate
        }
    )
    config.population = ConfigDict({"strategy": "", "width": 0})  # of networks trained together; the backend's default
    config.volume = ConfigDict(
        {"planes": 9 if tiny else 63, "head": 0, "trues_per_mm3": 10.0, "iterations": 4.0 if tiny else 20.0}
    )
    config.other_brain = ""  # folder of another brain; "": none
    return config
