"""Fetal lung maturity: automatic segmentation, IVIM fit and regression on age (paper 6).

`medjax run fetal_lung_maturity:small`: simulated fetal diffusion scans, three cohorts; RESULTS.md has the time on two
cores. `tiny`: for tests. `paper`: the published training recipe (five folds of 1000 epochs, 32 features) on simulated
scans, for an accelerator; it has not been run.
"""

from ml_collections import ConfigDict

from medjax.running.config_rules import FRACTION, POSITIVE, RATE, count, distinct, elements, interval

PRESETS = ("tiny", "small", "paper")
RULES = {
    "seed": interval(0, 2**29),  # others are made of it, which stay below 2³²
    "seeds": count(1, 1000),
    "data.train": count(2, 100_000),
    "data.test": count(6, 100_000),
    "data.shape": elements(count(8, 1024), 3, 3),
    "data.spacing": elements(interval(0.1, 100), 3, 3),
    "data.ages": elements(interval(16, 42), 2, 2),
    "data.bvalues": distinct(elements(interval(0, 10_000), 4)),
    "data.snr": POSITIVE,
    "data.restricted_fraction": FRACTION,
    "motion.rigid_mm": interval(0, 100),
    "motion.smooth_mm": interval(0, 100),
    "motion.corrupted": FRACTION,
    "training.base_width": count(1, 4096),
    "training.memory_gb": POSITIVE,
    "training.patch": elements(count(4, 1024), 0, 3),
    "training.folds": interval(1, 5),
    "training.epochs": count(1, 1_000_000),
    "training.iterations": count(1, 1_000_000),
    "training.rate": RATE,
    "training.save_every": count(1, 1_000_000),
    **{f"margin.{parameter}": interval(0.001, 10) for parameter in ("f", "d", "d_star", "f_d_star")},
    "knot": interval(16, 42),
    "boundary_mm": distinct(elements(interval(-50, 50), 0)),
}


def get_config(preset: str) -> ConfigDict:
    """Config of a preset."""
    if preset not in PRESETS:
        raise KeyError(preset)
    tiny, paper = preset == "tiny", preset == "paper"
    return ConfigDict(
        {
            "seed": 0,  # random seed of the first cohort
            "seeds": 1 if tiny else 3,  # number of cohorts
            "data": {
                "train": 4 if tiny else 24,  # training fetuses of a cohort
                "test": 10 if tiny else 24,  # test fetuses of a cohort
                "shape": (20, 20, 12) if tiny else (96, 96, 32) if paper else (48, 48, 20),  # voxels
                "spacing": (7.0, 7.0, 8.0) if tiny else (1.5, 1.5, 3.0) if paper else (3.0, 3.0, 5.0),  # mm
                "ages": (23.0, 38.0) if tiny else (20.0, 38.0),  # weeks
                "bvalues": (0.0, 10.0, 30.0, 50.0, 75.0, 100.0, 200.0, 400.0, 700.0, 1000.0),  # s/mm²
                "snr": 20.0,  # signal-to-noise ratio of the lung at b = 0
                "restricted_fraction": 0.5,  # fraction of the fetuses that is growth-restricted
            },
            "motion": {"rigid_mm": 1.5, "smooth_mm": 0.7, "corrupted": 0.05},  # see `fetal_motion.Motion`
            "training": {
                "base_width": 4 if tiny else 32 if paper else 8,  # channels of the finest level
                "memory_gb": 8.0 if paper else 1.0,  # accelerator memory to plan for
                "patch": (16, 16, 8) if tiny else () if paper else (32, 32, 16),  # voxels; (): as planned
                "folds": 5 if paper else 1,  # number of the five folds that are trained
                "epochs": 2 if tiny else 1000 if paper else 40,
                "iterations": 4 if tiny else 250 if paper else 25,  # steps of an epoch
                "rate": 0.01,  # learning rate of the first step
                "save_every": 10,  # epochs between checkpoints
            },
            # equivalence margins, as a fraction of the mean: published test–retest variability (RESULTS.md)
            "margin": {"f": 0.15, "d": 0.12, "d_star": 0.2, "f_d_star": 0.2},
            "knot": 26.0,  # age at which the regression's slope changes, weeks
            "boundary_mm": (-5.0, -3.0, 3.0, 5.0),  # mask erosion (negative) and dilation
        }
    )
