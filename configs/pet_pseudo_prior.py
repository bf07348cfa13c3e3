"""Priors from averages of registered PETs of other people, against priors from their PETs as they are (paper 9).

`medjax run pet_pseudo_prior:small`: 12 people, three targets, 2.5 mm, direct planes; two hours of processor time.
`tiny`: for tests. `paper`: every plane of the volume, more training and realisations, for an accelerator; not run yet.
"""

from ml_collections import ConfigDict

from configs.pet_common import COHORT_RULES, SCANNERS, check_registration
from medjax.errors import ConfigError
from medjax.running.config_rules import POSITIVE, choice, count, distinct, elements, interval

RULES = COHORT_RULES | {
    "scans_per_batch": count(1, 100_000),
    "cohort.people": count(1, 100_000),
    "cohort.targets": count(1, 100_000),
    "cohort.scanner": choice(*SCANNERS),
    "registration.by_pet": interval(0, 1000),
    "pseudo.sizes": distinct(elements(count(1, 1000))),
    "pseudo.images": count(2, 100_000),
    "test.scanners": elements(choice(*SCANNERS)),
    "test.trues_per_mm3": elements(POSITIVE),
    "test.background": interval(0, 0.99),
    "test.planes": count(1, 1000),
    "test.realizations": count(2, 1000),
    "test.samples": count(1, 1000),
    "test.values_per_hyperparameter": count(0, 1000),
}


def check(config: ConfigDict) -> None:
    """Check that subsets, levels of registration and scanners fit one another.

    Raises:
        ConfigError: they do not.
    """
    if max(config.pseudo.sizes) > config.cohort.people:
        raise ConfigError(f"pseudo.sizes {config.pseudo.sizes}; the cohort has {config.cohort.people} people")
    check_registration(config)
    if len(config.test.scanners) != len(config.test.trues_per_mm3):
        raise ConfigError("test.scanners and test.trues_per_mm3; expected as many of both")


def get_config(preset: str) -> ConfigDict:
    """Config of a preset.

    Raises:
        KeyError: no such preset.
    """
    tiny, paper = preset == "tiny", preset == "paper"
    if preset not in ("tiny", "small", "paper"):
        raise KeyError(preset)
    return ConfigDict(
        {
            "seed": 0,  # random seed of subjects, noise, training and samples
            "scans_per_batch": 60 if paper else 2 if tiny else 5,  # scans reconstructed at once
            "grid": {"size": 64 if tiny else 96, "voxel_mm": 3.2 if tiny else 2.5, "planes": 9 if tiny else 63},
            "cohort": {
                "people": 2 if tiny else 12,
                "targets": 1 if tiny else 3,
                "anatomies": (),  # files or folders of other anatomies than MNI152; see `head_anatomies.read_anatomy`
                "anatomy_mm": 3.0 if tiny else 1.0,  # voxels that heads are drawn on
                "strength": 1.0,  # of the random deformations
                "scanner": "ring_2d" if tiny else "mmr",
                "trues_per_mm3": 50.0,  # of the cohort's full-count scans
                "iterations": 3,  # of OSEM with 14 subsets
            },
            "registration": {
                "factors": (1,) if tiny else (4, 2, 1),  # of the levels' resolutions
                "iterations": (5,) if tiny else (100, 60, 50),
                "by_pet": 0 if tiny else 4,  # people who are registered by PET too, of each tracer
            },
            "pseudo": {"sizes": (1, 2) if tiny else (1, 4, 8, 12), "images": 4 if tiny else 2400 if paper else 40},
            "training": {
                "prior": "",  # that every competitor starts from, by name or file; "": medjax's brain prior
                "widths": (8, 8) if tiny else (),  # channels of an untrained network in its place, for tests; (): none
                "steps": 2 if tiny else 5000 if paper else 300,  # of fine-tuning
                "batch": 2 if tiny else 8,
                "rate": 1e-3,  # Adam's peak learning rate
            },
            "test": {
                "scanners": ("ring_2d",) if tiny else ("mmr", "mct"),  # the training scanner, and others
                "trues_per_mm3": (10.0,) if tiny else (10.0, 2.5),  # counts on each
                "background": 0.5,  # fraction of the prompts (randoms + scatter)
                "planes": 1 if tiny else 63 if paper else 2,  # direct planes of each target
                "realizations": 2 if tiny else 20 if paper else 5,  # noise realisations of each
                "samples": 1 if tiny else 4,  # samples that are averaged
                "values_per_hyperparameter": 1 if tiny else 0,  # 0: all
            },
        }
    )
