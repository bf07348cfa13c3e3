"""Config of `cmr_precision`: precision of cardiac biomarkers, measured on scan and rescan (paper 3).

`medjax run cmr_precision:small`: simulated short-axis cines, ensembles of five 2-D U-Nets for each of three seeds, two
cohorts of 40 subjects who were scanned twice on scanners that training has not seen; RESULTS.md has the time on two
cores. `tiny`: for tests. `paper`: nnU-Net's full training on ACDC (`--config.data.layout=acdc
--config.data.training=DIR`), and cohorts of your own (`--config.data.cohorts="('B.csv','C.csv')"`, CSV files of scans
with the columns that docs/papers/cmr_precision.md describes, each named by its stem: B and C in metrics and figures).
Not run yet: the paper's scan–rescan data are not public.
"""

from ml_collections import ConfigDict

from medjax.errors import ConfigError
from medjax.running.config_rules import (
    ANY,
    FRACTION,
    RATE,
    STRATEGY,
    choice,
    count,
    distinct,
    elements,
    interval,
    subset,
)

PRESETS = ("tiny", "small", "paper")
METHODS = ("ensemble", "tta", "dropout", "swag")
RULES = {
    "seed": interval(0, 2**20),  # others are made of it, which stay below 2³²
    "seeds": count(1, 1000),
    "methods": subset(*METHODS),
    "members": count(2, 1000),
    "numbers": distinct(elements(count(2, 1000))),
    "data.layout": choice("simulated", "acdc"),
    "data.training": ANY,
    "data.cohorts": distinct(elements(ANY)),
    "data.still": distinct(elements(ANY, 0)),
    "data.train": count(2, 100_000),
    "data.test": count(1, 100_000),
    "data.subjects": count(4, 100_000),
    "data.roi_mm": interval(1, 1000),
    "population.strategy": STRATEGY,
    "population.width": count(0, 4096),
    "training.crop": count(16, 1024),
    "training.base_width": count(1, 4096),
    "training.max_width": count(1, 4096),
    "training.dropout": FRACTION,
    "training.batch": count(1, 100_000),
    "training.epochs": count(1, 1_000_000),
    "training.iterations": count(1, 1_000_000),
    "training.rate": RATE,
    "augmentation.gamma": interval(0, 5),
    "augmentation.contrast": interval(0, 5),
    "augmentation.noise": interval(0, 10),
    "swag.rate": RATE,
    "swag.snapshots": count(2, 1_000_000),
    "swag.every": count(1, 1_000_000),
    "swag.rank": count(2, 1000),
    "interval.kind": choice("percentile", "normal", "mean"),
    "interval.level": interval(0.5, 0.999),
    "interval.overlap": choice("iou", "shorter", "dice"),
    "alpha": interval(0.0001, 0.5),
    "resamples": count(10, 1_000_000),
    "curve": distinct(elements(count(2, 1000))),
    "figures.subjects": count(1, 100),
}


def check(config: ConfigDict) -> None:
    """Check that the samples can be compared at equal number, and that the curve does not go beyond them.

    Raises:
        ConfigError: an ensemble cannot give so many samples, or the curve needs more.
    """
    largest = max(config.numbers)
    if min(config.numbers) != config.members or any(number % config.members for number in config.numbers):
        raise ConfigError(f"numbers {tuple(config.numbers)}; expected {config.members} (members) and multiples of it")
    if max(config.curve) > largest:
        raise ConfigError(f"curve {tuple(config.curve)}; expected numbers up to {largest}, the most samples drawn")
    if config.data.layout == "simulated" and not set(config.data.cohorts) <= {"B", "C"}:
        raise ConfigError(f"data.cohorts {tuple(config.data.cohorts)}; expected some of B, C, the simulated scanners")


def get_config(preset: str) -> ConfigDict:
    """Config of a preset."""
    if preset not in PRESETS:
        raise KeyError(preset)
    tiny, paper = preset == "tiny", preset == "paper"
    return ConfigDict(
        {
            "seed": 0,  # random seed of the first seed's data and networks; sweep it in steps of `seeds`
            "seeds": 1 if tiny else 3,  # number of seeds: seed, seed + 1, …
            "methods": ("ensemble", "tta", "dropout", "swag"),
            "members": 2 if tiny else 5,  # networks of an ensemble
            "numbers": (2, 4) if tiny else (5, 20),  # of samples at which methods are compared
            "data": {
                "layout": "acdc" if paper else "simulated",
                "training": "",  # folder of the training set, with layout acdc; test subjects are drawn from it
                "still": ("B",),  # simulated cohorts with one more rescan, of hearts that have not changed
                "cohorts": ("B",) if tiny else ("B", "C"),  # simulated scanners, or CSV files, named by stem
                "train": 3 if tiny else 60,  # simulated training subjects
                "test": 2 if tiny else 10,  # test subjects on the scanner of the training set
                "subjects": 4 if tiny else 40,  # simulated subjects of each cohort
                "roi_mm": 60.0 if tiny else 150.0,  # side of the region about the heart
            },
            "population": {"strategy": "", "width": 0},  # loop, vmap or shard; networks at once; "", 0: automatic
            "training": {
                "crop": 16 if tiny else 128 if paper else 80,  # voxels of a patch
                "base_width": 4 if tiny else 32 if paper else 8,  # channels of the finest level
                "max_width": 512 if paper else 64,  # most channels
                "dropout": 0.1,  # probability that a channel is dropped, after each block
                "batch": 2 if tiny else 12 if paper else 6,
                "epochs": 1 if tiny else 1000 if paper else 64,
                "iterations": 3 if tiny else 250 if paper else 25,  # steps of an epoch
                "rate": 0.01 if paper else 0.02,  # learning rate of the first step
            },
            # test-time augmentation beside flips and turns: largest log γ and log contrast, noise in sd of an image
            "augmentation": {"gamma": 0.3, "contrast": 0.2, "noise": 0.1},
            "swag": {  # snapshots of a training that goes on at a constant rate; few steps, see swag_posterior
                "rate": 2e-3,
                "snapshots": 2 if tiny else 20,
                "every": 1 if tiny else 10,  # steps between snapshots
                "rank": 2 if tiny else 20,  # columns of deviations
            },
            "interval": {"kind": "percentile", "level": 0.95, "overlap": "iou"},
            "alpha": 0.05,  # level of the tests
            "resamples": 50 if tiny else 1000,  # of the bootstrap
            "curve": (2, 4) if tiny else (3, 5, 8, 12, 16, 20),  # numbers of samples of the N-curve
            "figures": {"subjects": 12},
        }
    )
