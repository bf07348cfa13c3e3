"""The demonstration: a low-count FDG scan of the MNI brain, with and without its MR; a few slices with a score prior.

`medjax run demo:small`: the whole brain, RESULTS.md has the time on two cores. `tiny`: seven coarse planes, for tests.
`paper`: the scanner's whole length, 256² voxels of its own size, for an accelerator; it has not been run yet.
"""

from ml_collections import ConfigDict

from configs.pet_common import SCANNERS
from medjax.errors import ConfigError
from medjax.running.config_rules import NOT_NEGATIVE, POSITIVE, SEED, choice, count, elements, interval

FAN_VIEWS = {"ring_2d": 126, "mmr": 126, "mct": 84}  # what a number of subsets must divide
RULES = {
    "seed": SEED,
    "scan.scanner": choice(*SCANNERS),
    "scan.tracer": choice("fdg", "dpa714"),
    "scan.trues_per_mm3": POSITIVE,
    "scan.background": interval(0, 0.99),
    "scan.resolution_mm": interval(0, 200),
    "scan.planes": interval(1, 127),
    "scan.center_mm": elements(interval(-100, 100), 3, 3),
    "grid.size": interval(8, 512),
    "grid.voxel_mm": interval(0.5, 20),
    "osem.subsets": count(1, 1000),
    "osem.iterations": count(1, 1_000_000),
    "osem.beta": NOT_NEGATIVE,
    "osem.post_filter_mm": interval(0, 200),
    "map_em.subsets": count(1, 1000),
    "map_em.iterations": count(1, 1_000_000),
    "map_em.beta": NOT_NEGATIVE,
    "mr_map_em.subsets": count(1, 1000),
    "mr_map_em.iterations": count(1, 1_000_000),
    "mr_map_em.beta": NOT_NEGATIVE,
    "mr_map_em.similar": interval(1, 26),
    "slices.planes": count(1, 1000),
    "slices.size": interval(8, 512),
    "slices.voxel_mm": interval(0.5, 20),
    "slices.trues_per_mm3": POSITIVE,
    "slices.dds_steps": count(1, 1_000_000),
    "slices.gibbs_steps": count(1, 1_000_000),
    "slices.samples": count(2, 1000),
}


def check(config: ConfigDict) -> None:
    """Check that the numbers of subsets divide the scanner's views evenly, and that it has so many planes.

    Raises:
        ConfigError: they do not.
    """
    views = FAN_VIEWS[config.scan.scanner]
    for method in ("osem", "map_em", "mr_map_em"):
        if views % config[method].subsets:
            possible = ", ".join(str(number) for number in range(1, views + 1) if views % number == 0)
            raise ConfigError(f"{method}.subsets {config[method].subsets}; expected one of {possible}")
    most = 1 if config.scan.scanner == "ring_2d" else 127 if config.scan.scanner == "mmr" else 109
    if config.scan.planes > most or config.scan.planes % 2 == 0:
        found = f"scan.planes {config.scan.planes} of {config.scan.scanner}"
        raise ConfigError(f"{found}; expected an odd number, {most} or less")


def get_config(preset: str) -> ConfigDict:
    """Config of a preset; the physics is the same in all."""
    size, voxel_mm, planes = {"tiny": (32, 8.0, 7), "small": (128, 2.08625, 77), "paper": (256, 2.08625, 127)}[preset]
    return ConfigDict(
        {
            "seed": 0,  # random seed of the noise
            "scan": {
                "scanner": "mmr",
                "tracer": "fdg",
                "trues_per_mm3": 2.5,
                "background": 0.5,  # fraction of the prompts (randoms + scatter)
                "resolution_mm": 4.5,  # FWHM of the point spread function
                "planes": planes,
                "center_mm": (0.0, -18.0, 14.0),  # scanner's centre in MNI space
            },
            "grid": {"size": size, "voxel_mm": voxel_mm},
            "osem": {"subsets": 21, "iterations": 3, "beta": 0.0, "post_filter_mm": 4.0},
            "map_em": {"subsets": 21, "iterations": 6, "beta": 3.0},
            "slices": {  # a few, sampled with the score prior that comes with medjax
                "planes": 1 if preset == "tiny" else 3,
                "size": 96,
                "voxel_mm": 2.5,
                "trues_per_mm3": 10.0,
                "dds_steps": 4 if preset == "tiny" else 8,  # reverse diffusion steps
                "gibbs_steps": 2 if preset == "tiny" else 6,  # the same in each draw from the prior
                "samples": 2 if preset == "tiny" else 8,  # posterior samples that are averaged
            },
            "mr_map_em": {"subsets": 21, "iterations": 10, "beta": 60.0, "similar": 4},  # Bowsher neighbours,
        }
    )
