"""Config of `label_flips`: label flips against the correlation of class and scene, and their prediction (paper 2).

`medjax run label_flips:small`: drawn shapes, a small U-Net, three seeds; RESULTS.md has the time on two cores.
`medjax sweep label_flips:small --over training.group_step_size=0.01,0.1`: all networks of both runs as two populations.
`tiny`: for tests. `paper`: the published sizes and optimiser for an accelerator, with Waterbirds-Seg as its authors'
script writes it (`--config.data.layout=waterbirds_seg --config.data.folder=…/correlation_{:g}`), COCO-CD
(`--config.data.layout=coco_cd`, `folder` with train2017/ and val2017/, `annotations` with the three files), or any CSV
(`--config.data.layout=csv`, the file as `folder`); `{:g}` in a path stands for the correlation. Not run yet. It
differs from the published training in its network (no ImageNet encoder) and has no augmentation.
"""

from ml_collections import ConfigDict

from medjax.errors import ConfigError
from medjax.running.config_rules import (
    ANY,
    FRACTION,
    RATE,
    SEED,
    STRATEGY,
    choice,
    count,
    distinct,
    elements,
    interval,
    subset,
)

PUBLISHED = (0.5, 0.95)  # correlations whose manifests were published
RULES = {
    "seed": SEED,
    "seeds": count(1, 1000),
    "correlations": distinct(elements(FRACTION)),
    "methods": subset("erm", "balanced", "group_dro", "cutmix"),
    "data.layout": choice("scenes", "waterbirds_seg", "coco_cd", "csv"),
    "data.folder": ANY,  # may hold {:g}
    "data.annotations": ANY,
    "scenes.kind": choice("lobes", "digits"),
    "scenes.side": interval(8, 1024),
    "scenes.train": count(8, 100_000),
    "scenes.validation": count(4, 100_000),
    "scenes.test": count(4, 100_000),
    "scenes.amplitudes": elements(FRACTION, 2, 2),
    "scenes.contrast": interval(0, 100),
    "scenes.noise": interval(0, 100),
    "population.strategy": STRATEGY,
    "population.width": count(0, 4096),
    "model.widths": elements(count(1, 4096)),
    "training.rate": RATE,
    "training.cosine": ANY,
    "training.steps": count(1, 1_000_000),
    "training.selection": choice("last", "validation"),
    "training.batch": count(1, 100_000),
    "training.validate_every": count(1, 1_000_000),
    "training.patience": count(1, 1_000_000),
    "training.group_step_size": interval(0, 100),
    "cutmix.probability": FRACTION,
    "cutmix.min_fraction": FRACTION,
    "cutmix.max_fraction": FRACTION,
    "flip_prone": distinct(elements(FRACTION)),
    "figures.correlation": FRACTION,
    "figures.images": count(1, 100),
}


def check(config: ConfigDict) -> None:
    """Check that the correlation of the figures is one of the study's, and that CutMix's fractions rise.

    Raises:
        ConfigError: it is not, or they do not.
    """
    if config.figures.correlation not in config.correlations:
        expected = f"one of correlations {tuple(config.correlations)}"
        raise ConfigError(f"figures.correlation {config.figures.correlation:g}; expected {expected}")
    if config.cutmix.min_fraction > config.cutmix.max_fraction:
        low, high = config.cutmix.min_fraction, config.cutmix.max_fraction
        raise ConfigError(f"cutmix.min_fraction {low:g}; expected no more than max_fraction {high:g}")


def get_config(preset: str) -> ConfigDict:
    """Config of a preset."""
    tiny, paper = preset == "tiny", preset == "paper"
    small = not (tiny or paper)
    return ConfigDict(
        {
            "seed": 0,  # first random seed
            "seeds": 5 if paper else 3 if small else 2,  # number of seeds
            "correlations": PUBLISHED if paper else (0.5, 0.75, 0.9, 0.95, 0.99) if small else (0.5, 0.9),  # ρ
            "methods": ("erm", "balanced", "group_dro", "cutmix"),
            "data": {"layout": "scenes", "folder": "", "annotations": ""},
            "scenes": {  # simulated images
                "kind": "lobes",  # or digits
                "side": 512 if paper else 24 if small else 16,  # pixels
                "train": 1668 if paper else 800 if small else 48,  # number of images
                "validation": 200 if paper else 160 if small else 16,
                "test": 500 if paper else 400 if small else 40,
                "amplitudes": (0.2, 0.6),  # of the lobes: the smaller, the more similar the classes
                "contrast": 1.5,  # brightness of the shapes above the texture's mean
                "noise": 0.1,  # standard deviation
            },
            "population": {"strategy": "", "width": 0},  # loop, vmap or shard; networks at once; "", 0: automatic
            "model": {"widths": (32, 64, 128, 256, 512) if paper else (8, 16, 32) if small else (8, 8)},
            "training": {
                "rate": 1e-4 if paper else 1e-2,  # learning rate of the first step
                "cosine": not paper,  # learning rate falls to a tenth over the steps; else it is constant
                "steps": 40_000 if paper else 1000 if small else 4,
                "selection": "validation" if paper else "last",  # of the parameters to test
                "batch": 8,
                "validate_every": 200 if paper else 50 if small else 2,  # steps
                "patience": 25,  # validations without improvement, then early stopping
                "group_step_size": 0.01,  # step size η of GroupDRO's weights
            },
            "cutmix": {"probability": 0.5, "min_fraction": 0.1, "max_fraction": 0.4},
            "flip_prone": (0.1, 0.5),  # an image is flip-prone if more of its foreground is flipped
            "figures": {"correlation": 0.95 if not tiny else 0.9, "images": 6 if small else 3},
        }
    )
