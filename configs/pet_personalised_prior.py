"""Personalised pseudo-PET prior against unguided, MR-guided and Bowsher reconstruction of volumes (paper 7).

`medjax run pet_personalised_prior:small`: 31 planes, 12 people, three targets; about 100 minutes of processor time.
`tiny`: for tests. `paper`: more planes, realisations and steps, for an accelerator; it has not been run yet.

`--config.cohort.anatomies='("subject_1", "ch2bet.nii.gz")'` adds real anatomies beside MNI152's: folders with t1.nii.gz
and labels.nii.gz (FreeSurfer's numbers), or skull-stripped T1s.
"""

from ml_collections import ConfigDict

from configs.pet_common import COHORT_RULES, SCANNERS
from configs.pet_common import check_registration as check
from medjax.running.config_rules import POSITIVE, Rule, choice, count, distinct, elements, interval, subset

__all__ = ["RULES", "check", "get_config"]

METHODS = ("osem", "map_em", "bowsher", "unguided", "mr_channel", "personalised")
RULES = COHORT_RULES | {
    "methods": subset(*METHODS),
    "scan.scanner": choice(*SCANNERS),
    "scan.trues_per_mm3": distinct(elements(POSITIVE)),
    "scan.background": interval(0, 0.99),
    "cohort.subjects": count(1, 100_000),
    "cohort.tracer": choice("fdg", "dpa714"),
    "pseudo.number": count(2, 100_000),
    "pseudo.size": count(1, 1024),
    "pseudo.concentration": POSITIVE,
    "pseudo.template": Rule("True or False", lambda value: isinstance(value, bool)),
    "sampling.samples": count(1, 1000),
    "sampling.mode": choice("transverse", "alternated", "averaged"),
    "tuning.values_per_hyperparameter": count(0, 1000),
    "test.targets": count(1, 100_000),
    "test.lesions": count(1, 1000),
    "test.realizations": count(1, 1000),
}


def get_config(preset: str) -> ConfigDict:
    """Config of a preset: tiny, small or paper.

    Raises:
        KeyError: no such preset.
    """
    tiny, paper = preset == "tiny", preset == "paper"
    if preset not in ("tiny", "small", "paper"):
        raise KeyError(preset)
    return ConfigDict(
        {
            "seed": 0,  # random seed of subjects, noise, training and samples
            "methods": tuple(name for name in METHODS if name != "map_em") if tiny else METHODS,
            "grid": {
                "size": 40 if tiny else 80,  # voxels along x and y
                "voxel_mm": 6.0 if tiny else 3.0,
                "planes": 9 if tiny else 63 if paper else 31,
            },
            "scan": {
                "scanner": "ring_2d" if tiny else "mmr",
                "trues_per_mm3": (10.0,) if tiny else (1.0, 2.5, 10.0),
                "background": 0.5,  # fraction of the prompts (randoms + scatter)
            },
            "cohort": {
                "subjects": 2 if tiny else 12,
                "trues_per_mm3": 250.0,  # of their scans
                "iterations": 2 if tiny else 10,  # of OSEM with 14 subsets
                "anatomies": (),  # files or folders of real anatomies besides MNI152
                "anatomy_mm": 3.0 if tiny else 1.5,  # voxels that heads are made on
                "tracer": "fdg",
                "strength": 1.0,  # of the deformations
            },
            "registration": {
                "factors": (4, 2) if tiny else (4, 2, 1),
                "iterations": (2, 2) if tiny else (100, 60, 50),
            },
            "pseudo": {
                "number": 2 if tiny else 24,  # pseudo-PETs of a target
                "size": 4,  # people in a subset
                "concentration": 1.0,  # of the Dirichlet weights
                "template": preset != "paper",  # whether the network sees the mean pseudo-PET: for few steps
            },
            "training": {
                "prior": "osem",  # prior that all start from, by name or file
                "widths": (8, 16) if tiny else (),  # of an untrained network in its place; (): none
                "steps": 2 if tiny else 5000 if paper else 200,  # of fine-tuning
                "rate": 1e-3,  # Adam's peak learning rate
                "batch": 2 if tiny else 8,  # slices in a step
            },
            "sampling": {  # mode: orientations of planes, in turn; of one the program is compiled sooner
                "samples": 4 if paper else 1,
                "mode": "transverse" if tiny else "alternated",
            },
            "tuning": {"values_per_hyperparameter": 1 if tiny else 0},  # 0: all
            "test": {"targets": 1 if tiny else 3, "lesions": 2 if tiny else 3, "realizations": 2 if tiny else 5},
        }
    )
