"""Config of `shortcut_audit`: OSCAR's audit against the strength of a planted shortcut (paper 4).

`medjax run shortcut_audit:small --config.images=pneumoniamnist.npz`: chest X-rays of 28×28 pixels, MedMNIST's own file
(or any of its sets with two classes), two small networks, three seeds; RESULTS.md has the time on two cores. Without
`images` it draws simulated chests, and its report says so; `--config.phantoms.space=(24,24,24)` with
`--config.mark.center=(0.2,0.2,0.2)` draws volumes.
`tiny`: for tests. `paper`: the published training sizes and numbers of resamples for an accelerator, with CheXpert
(`--config.images=DIR --config.layout=chexpert --config.cues=('attribute',)`, effusion against sex) or CelebA
(`--config.layout=celeba --config.listed.label=Blond_Hair`). Not run yet. It differs from the published training in its
networks (no ImageNet weights).
"""

from ml_collections import ConfigDict

from medjax.errors import ConfigError
from medjax.running.config_rules import (
    ANY,
    FRACTION,
    INPUT_PATH,
    NOT_NEGATIVE,
    POSITIVE,
    RATE,
    SEED,
    STRATEGY,
    Rule,
    choice,
    count,
    distinct,
    elements,
    interval,
    subset,
)


def _is_partition(name: str) -> bool:
    kind, _, number = name.partition("_")
    return kind in ("grid", "slic") and number.isdecimal() and len(number) <= 6 and int(number) > 1


PARTITION = Rule("grid_N (cells along each axis) or slic_N (superpixels)", _is_partition)
RULES = {
    "seed": SEED,
    "seeds": count(1, 1000),
    "images": INPUT_PATH,
    "layout": choice("medmnist", "chexpert", "celeba"),
    "listed.label": ANY,
    "listed.attribute": ANY,
    "listed.side": count(8, 1024),
    "train": count(8, 100_000),
    "holdout": count(16, 100_000),
    "fractions": distinct(elements(interval(0, 0.5))),
    "cues": subset("localized", "diffuse", "attribute"),
    "mark.center": elements(FRACTION, 2, 3),
    "mark.radius": interval(0.1, 1000),
    "mark.height": interval(0.001, 10),
    "wave.wavelength": interval(2, 1000),
    "wave.amplitude": interval(0.001, 10),
    "phantoms.space": elements(count(8, 1024), 2, 3),
    "phantoms.contrast": interval(0.001, 100),
    "phantoms.noise": interval(0, 100),
    "regions": distinct(elements(PARTITION)),
    "compactness": POSITIVE,
    "architectures": subset("resnet", "vgg"),
    "resnet.depth": Rule("10, 18, 34 or 50", lambda depth: depth in (10, 18, 34, 50)),
    "resnet.widths": elements(count(1, 4096), 4, 4),
    "resnet.strides": elements(count(1, 1000), 5, 5),
    "resnet.stem_pool": ANY,
    "vgg.widths": elements(count(1, 4096)),
    "vgg.convolutions": elements(count(1, 1000)),
    "population.strategy": STRATEGY,
    "population.width": count(0, 4096),
    "training.rate": RATE,
    "training.weight_decay": NOT_NEGATIVE,
    "training.steps": count(1, 1_000_000),
    "training.batch": count(4, 100_000),
    "training.every": count(1, 1_000_000),
    "training.group_step_size": interval(0, 100),
    "attribution.methods": subset("grad_cam", "gradient", "input_times_gradient", "integrated_gradients", "lrp"),
    "attribution.steps": count(1, 1_000_000),
    "attribution.batch": count(1, 100_000),
    "audit.resamples": count(10, 1_000_000),
    "audit.permuted": count(10, 1_000_000),
    "audit.surrogates": count(10, 1_000_000),
    "mitigation.methods": subset("balanced", "reweighted", "group_dro", min_length=0),
    "mitigation.fraction": interval(0, 0.5),
    "mitigation.folds": count(2, 1000),
    "mitigation.controls": count(1, 1000),
}


def check(config: ConfigDict) -> None:
    """Check that numbers of images and axes fit, and that other trainings have the tie of a network of the study.

    Raises:
        ConfigError: they do not.
    """
    if config.train % 2 or config.holdout % 4:
        found = f"train {config.train}, holdout {config.holdout}"
        raise ConfigError(f"{found}; expected multiples of 2 classes, and of 4 groups of class and attribute")
    if not config.images and len(config.mark.center) != len(config.phantoms.space):
        found = f"mark.center {tuple(config.mark.center)}, phantoms.space {tuple(config.phantoms.space)}"
        raise ConfigError(f"{found}; expected one number for each axis")
    if (config.layout == "medmnist") == ("attribute" in config.cues):
        found = f"layout {config.layout}, cues {tuple(config.cues)}"
        raise ConfigError(f"{found}; expected planted cues in MedMNIST's images, and the attribute of other data sets")
    if config.layout != "medmnist" and not config.images:
        raise ConfigError(f"images '' with layout {config.layout}; expected the folder of the data set")
    if len(config.vgg.widths) != len(config.vgg.convolutions):
        found = f"vgg.widths {tuple(config.vgg.widths)}, vgg.convolutions {tuple(config.vgg.convolutions)}"
        raise ConfigError(f"{found}; expected one of each a stage")
    if config.mitigation.fraction not in config.fractions:
        expected = f"one of fractions {tuple(config.fractions)}"
        raise ConfigError(f"mitigation.fraction {config.mitigation.fraction:g}; expected {expected}")


def get_config(preset: str) -> ConfigDict:
    """Config of a preset."""
    tiny, paper = preset == "tiny", preset == "paper"
    small = not (tiny or paper)
    regions = ("grid_8", "grid_16", "slic_64") if paper else ("grid_7", "grid_14", "slic_49")
    regions = ("grid_5", "slic_25") if tiny else regions
    methods = ("grad_cam", "lrp") if paper else ("grad_cam", "input_times_gradient") if small else ("grad_cam",)
    return ConfigDict(
        {
            "seed": 0,  # first random seed
            "seeds": 5 if paper else 3 if small else 2,  # number of seeds
            **_images(tiny, paper),
            "regions": regions,  # grid_N: cells along each axis; slic_N: superpixels
            "compactness": 10.0,  # of superpixels: weight of distance against difference in edges
            "architectures": ("resnet", "vgg"),
            "resnet": {
                "depth": 50 if paper else 10,
                "widths": (64, 128, 256, 512) if paper else (8, 16, 32, 32) if small else (4, 4, 8, 8),
                "strides": (2, 1, 2, 2, 2) if paper else (1, 1, 2, 2, 1),  # of the stem and of four stages
                "stem_pool": paper,
            },
            "vgg": {
                "widths": (64, 128, 256, 512, 512) if paper else (16, 32, 32) if small else (4, 8, 8),
                "convolutions": (2, 2, 3, 3, 3) if paper else (1, 1, 1),
            },
            "population": {"strategy": "", "width": 0},  # loop, vmap or shard; networks at once; "", 0: automatic
            "training": {
                "rate": 1e-4 if paper else 3e-3,  # learning rate after the warm-up; it falls to 0 as a cosine
                "weight_decay": 1e-4,
                "steps": 30_000 if paper else 400 if small else 6,
                "batch": 32 if not tiny else 16,
                "every": 100 if not tiny else 3,  # steps between lines of metrics.jsonl
                "group_step_size": 0.01,  # step size η of GroupDRO's weights
            },
            "attribution": {
                "methods": methods,
                "steps": 16,  # of integrated gradients
                "batch": 32 if not small else 58,  # images at a time
            },
            "audit": {
                "resamples": 10_000 if paper else 1000 if small else 50,  # bootstrap of the images
                "permuted": 9999 if not tiny else 99,  # permutations of the regions, for the published p
                "surrogates": 999 if not tiny else 99,  # surrogate maps, for the spatial p
            },
            "mitigation": {
                "methods": ("balanced", "reweighted", "group_dro"),
                "fraction": 0.005 if paper else 0.05 if small else 0.1,  # tie at which these trainings are compared
                "folds": 4,
                "controls": 10,  # places of the rolled control
            },
        }
    )


def _images(tiny: bool, paper: bool) -> dict:
    """Images, their numbers, and the cues that are planted into them."""
    small = not (tiny or paper)
    fractions = (0.4, 0.3, 0.2, 0.1, 0.005) if paper else (0.5, 0.4, 0.2, 0.05, 0.005) if small else (0.5, 0.1)
    return {
        "images": "",  # MedMNIST's npz, or the folder of another layout; "": simulated chests
        "layout": "medmnist",  # chexpert or celeba, whose attribute is their own: cues=('attribute',)
        "listed": {  # of these layouts
            "label": "Pleural Effusion",  # finding, or attribute of CelebA
            "attribute": "Male",  # of CelebA; CheXpert's is sex
            "side": 224,  # pixels
        },
        "train": 10_000 if paper else 2400 if small else 64,  # number of images, half of each class
        "holdout": 1000 if paper else 464 if small else 32,  # as many of each class and attribute
        "fractions": fractions,  # of anti-correlated training images; 0.5: no tie
        "cues": ("localized", "diffuse"),
        "mark": {  # localised cue, dark or bright by the attribute
            "center": (3 / 14, 3 / 14),  # fraction of the image along each axis
            "radius": 12.0 if paper else 1.5,  # voxels
            "height": 0.3,  # of an intensity of 0 … 1
        },
        "wave": {  # diffuse cue, along one or the other diagonal by the attribute
            "wavelength": 16.0 if paper else 4.0,  # voxels
            "amplitude": 0.04,
        },
        "phantoms": {  # simulated chests
            "space": (224, 224) if paper else (28, 28) if small else (20, 20),  # voxels along each axis
            "contrast": 0.2,  # brightness of the opacity of class 1 above the lung
            "noise": 0.05,  # standard deviation
        },
    }
