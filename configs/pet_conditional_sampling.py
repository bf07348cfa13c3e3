"""Score-based samplers against conventional reconstructions at 1 % counts, and how certain they are (paper 10).

`medjax run pet_conditional_sampling:small`: slices, the shipped prior, 50 steps; RESULTS.md has the time on two cores.
`tiny`: for tests. `paper`: the published numbers of steps, realisations and seeds, for an accelerator; not run yet.
"""

from ml_collections import ConfigDict

from configs.pet_common import RULES as COMMON_RULES
from configs.pet_common import base, check
from medjax.running.config_rules import minimum

__all__ = ["RULES", "check", "get_config"]

RULES = COMMON_RULES | {
    "noise.realizations": minimum(2),
    "posterior.seeds": minimum(2),
    **{f"training.{key}": minimum(0) for key in ("heads", "batch", "unet_steps", "unrolled_steps")},  # none is trained
}


def get_config(preset: str) -> ConfigDict:
    """Config of a preset: `base`, and the numbers of noise realisations and of posterior samples."""
    tiny = preset == "tiny"
    config = base(preset, mean_of_samples="dds")
    config.noise = ConfigDict({"realizations": 2 if tiny else 20})  # of the bias–deviation curves
    config.posterior = ConfigDict({"seeds": 3 if tiny else 25})  # posterior samples of one scan
    return config
