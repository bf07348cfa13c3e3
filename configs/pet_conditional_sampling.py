"""Score-based samplers against conventional reconstructions at 1 % counts, and how certain they are (paper 10).

`medjax run pet_conditional_sampling:small`: slices, the shipped prior, 50 steps; RESULTS.md has the time on two cores.
`tiny`: for tests. `paper`: the published numbers of steps, realisations and seeds, for an accelerator; not run yet.
"""

from ml_collections import ConfigDict

from configs import pet_oblique
from configs.pet_common import PRIOR, SAMPLED, base, check
from configs.pet_common import RULES as COMMON_RULES
from medjax.running.config_rules import Rule, count, subset

__all__ = ["RULES", "check", "get_config"]

METHODS = (
    "osem", "map_em", "patch_map_em", "bsrem", "naive", "dps", "dds", "dds_delta", "dds_cg", "split_gibbs"
)  # fmt: skip
CURVES = ("osem", "map_em", "dds", "dds_delta", "dds_cg")  # bias against deviation, along the first hyper-parameter
OBLIQUE_METHODS = (
    "osem", "map_em", "patch_map_em", "dds", "dds_delta", "dds_delta_perpendicular", "dds_cg", "dds_cg_perpendicular"
)  # fmt: skip
RULES = COMMON_RULES | {
    "methods": subset(*METHODS),
    "noise.methods": subset(*CURVES),
    "noise.realizations": count(2, 1000),
    "posterior.heads": count(1, 1000),
    "posterior.draws": Rule("0, or 4 to 10000", lambda value: value == 0 or 4 <= value <= 10_000),
    "posterior.without_lesions": PRIOR,
}


def get_config(preset: str) -> ConfigDict:
    """Config of a preset: `base`, and the numbers of noise realisations and of posterior samples."""
    tiny = preset == "tiny"
    config = base(preset, mean_of_samples=("dds_cg", "split_gibbs"))
    config.methods = ("osem", "map_em", "dds", "dds_cg", "split_gibbs") if tiny else METHODS
    config.noise = ConfigDict({"methods": CURVES, "realizations": 2 if tiny else 20})  # of bias–deviation curves
    config.posterior = ConfigDict(
        {
            "heads": 1 if tiny else 6,  # held-out heads of the prior's family
            "draws": 0 if tiny else 16,  # draws of each long chain, 4 or more; 0: no chains
            "without_lesions": ""
            if tiny
            else "without_lesions",  # a prior that has seen none, by name or file; "": none
        }
    )
    config.oblique = _oblique(preset)
    return config


def _oblique(preset: str) -> ConfigDict:
    """What replaces values of the same name with oblique planes."""
    tiny = preset == "tiny"
    own = pet_oblique.oblique(preset, ("osem", "dds_delta") if tiny else OBLIQUE_METHODS)
    own.noise = ConfigDict({"methods": ("osem",) if tiny else ("osem", "map_em"), "realizations": 2 if tiny else 20})
    own.posterior = ConfigDict({"methods": () if tiny else ("dds_delta",)})  # drawn `test.samples` times of one scan
    return own


RULES |= pet_oblique.rules(
    RULES,
    _oblique("small"),
    METHODS,
    {"oblique.posterior.methods": subset(*SAMPLED, *pet_oblique.PERPENDICULAR, min_length=0)},
)
