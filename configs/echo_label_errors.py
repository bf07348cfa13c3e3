"""Config of `echo_label_errors`: label errors in echocardiography segmentation, their detection and repair (paper 1).

`medjax run echo_label_errors:small`: simulated echocardiograms, three seeds; RESULTS.md has the time on two cores.
`medium`: all kinds of error and five seeds. `tiny`: for tests. `paper`: CAMUS (NIfTI release) at --config.camus=DIR,
for an accelerator; it has not been run.
"""

from ml_collections import ConfigDict

from medjax.errors import ConfigError
from medjax.running.config_rules import (
    FRACTION,
    INPUT_PATH,
    RATE,
    STRATEGY,
    count,
    distinct,
    elements,
    interval,
    subset,
)

PRESETS = ("tiny", "small", "medium", "paper")
KINDS = ("random", "systematic", "truncation", "shift", "omission", "swap")
RULES = {
    "seed": interval(0, 2**29),  # others are made of it, which stay below 2³²
    "seeds": count(1, 1000),
    "camus": INPUT_PATH,
    "data.train": count(8, 100_000),
    "data.test": count(1, 100_000),
    "data.size": interval(16, 1024),
    "data.hard": FRACTION,
    "errors.kinds": subset(*KINDS),
    "errors.more_kinds": subset(*KINDS, min_length=0),
    "errors.fractions": distinct(elements(interval(0.01, 0.99))),
    "errors.strategy_fractions": distinct(elements(FRACTION, 0)),
    "errors.trusted_fractions": distinct(elements(FRACTION, 0)),
    **{f"errors.target_dice.{kind}": FRACTION for kind in KINDS},
    "training.widths": elements(count(1, 4096)),
    "training.rate": RATE,
    "training.batch": count(1, 100_000),
    "training.epochs": count(1, 1_000_000),
    "training.probe_every": count(1, 1_000_000),
    "training.latest_judgement": count(1, 1_000_000),
    "population.strategy": STRATEGY,
    "population.width": count(0, 4096),
}


def check(config: ConfigDict) -> None:
    """Check that strategies are at some of the fractions, kinds of error are named once, and probes fit the epochs.

    Raises:
        ConfigError: they do not.
    """
    e, t = config.errors, config.training
    if not set(e.strategy_fractions) <= set(e.fractions):
        found = f"errors.strategy_fractions {tuple(e.strategy_fractions)}"
        raise ConfigError(f"{found}; expected some of errors.fractions {tuple(e.fractions)}")
    if twice := set(e.kinds) & set(e.more_kinds):
        raise ConfigError(f"errors.more_kinds has {min(twice)}, as errors.kinds has; expected each kind once")
    if not t.probe_every <= t.latest_judgement <= t.epochs or t.probe_every * config.data.train < t.batch:
        epochs = f"probe_every {t.probe_every}, latest_judgement {t.latest_judgement}, epochs {t.epochs}"
        raise ConfigError(f"training: {epochs}; expected rising")


def get_config(preset: str) -> ConfigDict:
    """Config of a preset. `target_dice`: Dice of corrupted labels with the clean ones, by kind of error."""
    tiny, medium, paper = (preset == name for name in ("tiny", "medium", "paper"))
    if preset not in PRESETS:
        raise KeyError(preset)
    return ConfigDict(
        {
            "seed": 0,  # first random seed
            "seeds": 1 if tiny else 5 if medium or paper else 3,  # number of seeds
            "camus": "",  # folder of the NIfTI release; "": simulated
            "data": {
                "train": 24 if tiny else 1600 if paper else 128,  # number of images
                "test": 8 if tiny else 400 if paper else 64,
                "size": 32 if tiny else 256 if paper else 64,  # pixels
                "hard": 0.2,  # fraction of images of poor quality
            },
            "errors": {
                "kinds": ("random",) if tiny else ("random", "systematic", "truncation"),
                "more_kinds": ("shift", "omission", "swap") if medium or paper else (),
                "fractions": (0.25,) if tiny else (0.1, 0.25, 0.5, 0.75),  # of labels that are wrong
                "strategy_fractions": (0.25,) if tiny else (0.1, 0.25, 0.5, 0.75) if medium else (0.25, 0.5, 0.75),
                "trusted_fractions": () if tiny else (0.75,),  # of these, where a trusted set is compared too
                "target_dice": {  # Dice of wrong labels with the true ones
                    "random": 0.7,
                    "systematic": 0.7,
                    "truncation": 0.85,
                    "shift": 0.7,
                    "omission": 0.0,
                    "swap": 0.0,
                },
            },
            "training": {
                "widths": (8, 16) if tiny else (32, 64, 128, 256, 256) if paper else (8, 16, 32, 48),
                "rate": 8e-3 if not paper else 1e-3,  # peak learning rate
                "batch": 8,
                "epochs": 6 if tiny else 24 if not paper else 100,
                "probe_every": 2 if tiny else 3 if not paper else 5,  # epochs
                "latest_judgement": 4
                if tiny
                else 12
                if not paper
                else 50,  # epoch, if early learning has not ended before
            },
            "population": {"strategy": "", "width": 0},  # loop, vmap or shard; networks at once; "", 0: automatic
        }
    )
