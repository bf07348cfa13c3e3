"""Config of `echo_label_errors`: label errors in echocardiography segmentation, their detection and repair (paper 1).

`medjax run echo_label_errors:small`: simulated echocardiograms, three seeds; RESULTS.md has the time on two cores.
`medium`: all kinds of error and five seeds. `tiny`: for tests. `paper`: CAMUS (NIfTI release) at --config.camus=DIR,
for an accelerator; it has not been run.
"""

from ml_collections import ConfigDict

PRESETS = ("tiny", "small", "medium", "paper")


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
                "strategy_fractions": (0.25,) if tiny else (0.1, 0.25, 0.5, 0.75) if medium else (0.25, 0.5),
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
