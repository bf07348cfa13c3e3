"""Shortcuts and bias in the diagnosis from brain MRI (paper 5), on a simulated cohort or on scans of your own.

`tiny` runs the code in a few minutes on CPU; its figures say nothing. `small` shows the effects on two cores: a
ResNet-10 with three seeds and a Swin transformer with one. `medium` has three seeds of both. `paper` has the published
networks and sizes, on accelerators; the cohort is still the simulated one. Not run yet.

Regions are the cohort's own, or those of a label volume in MNI space, such as AAL: --config.data.regions=AAL.nii.gz

Scans on disk, brain-extracted and registered to MNI space, take the cohort's place by --config.data.layout, with
--config.data.folder, .regions and the tables of the layout:

    adni      table: report of images   races: subject_id, PTRACCAT
    oasis3    table: demographics       diagnoses: UDSd1
    hcp       table: open data          races: restricted data        no disease: attributes only

`external_table` and so on are another data set of that layout, site B; without it there is one site.
"""

from ml_collections import ConfigDict

from medjax.errors import ConfigError
from medjax.running.config_rules import (
    INPUT_PATH,
    NOT_NEGATIVE,
    RATE,
    SEED,
    STRATEGY,
    choice,
    count,
    elements,
    interval,
)

PRESETS = ("tiny", "small", "medium", "paper")
LAYOUTS = {  # on disk: what each needs
    "adni": ("table", "races", "folder"),
    "oasis3": ("table", "diagnoses", "folder"),
    "hcp": ("table", "races", "folder"),
}
FILES = ("table", "races", "diagnoses", "folder")
EFFECT = elements(interval(-1, 1), 3, 3)
TRAINING = {"rate": RATE, "weight_decay": NOT_NEGATIVE, "steps": count(1, 1_000_000), "batch": count(1, 100_000)}
RULES = {
    "seed": SEED,
    "seeds": count(1, 1000),
    "volume_seeds": count(0, 1000),
    "anti_fraction": interval(0, 0.5),
    "data.seed": SEED,
    "data.layout": choice("simulated", *LAYOUTS),
    **{f"data.{name}": INPUT_PATH for name in FILES},
    **{f"data.external_{name}": INPUT_PATH for name in FILES},
    "data.pool": count(16, 100_000),
    "data.train": count(8, 100_000),
    "data.test": count(16, 100_000),
    "data.variation": interval(0, 10),
    "data.voxel_mm": interval(0.1, 100),
    "data.shape": elements(count(8, 1024), 3, 3),
    "data.regions": INPUT_PATH,
    **{f"data.effects.{name}": EFFECT for name in ("atrophy", "frontal", "size", "darkening")},
    "population.strategy": STRATEGY,
    "population.width": count(0, 4096),
    "resnet.depth": count(10, 1000),
    "resnet.widths": elements(count(1, 4096), 4, 4),
    "resnet.strides": elements(count(1, 1000), 5, 5),
    "resnet.dropout": interval(0, 0.99),
    **{f"resnet.{name}": rule for name, rule in TRAINING.items()},
    "swin.seeds": count(1, 1000),
    "swin.patch": count(1, 1024),
    "swin.width": count(1, 4096),
    "swin.depths": elements(count(1, 1000)),
    "swin.heads": elements(count(1, 1000)),
    "swin.window": count(2, 1000),
    **{f"swin.{name}": rule for name, rule in TRAINING.items()},
    "attribution.method": choice("grad_cam", "integrated_gradients", "input_times_gradient"),
    "attribution.steps": count(1, 1_000_000),
    "attribution.batch": count(1, 100_000),
    "audit.resamples": count(2, 1_000_000),
    "audit.permuted": count(1, 1_000_000),
}


def check(config: ConfigDict) -> None:
    """Check the files of the layout, the stages of the transformer, and the sizes of the sets: multiples of groups.

    A simulated pool can fill the training sets.

    Raises:
        ConfigError: they are not.
    """
    d = config.data
    if d.train % 8 or d.pool % 8 or d.test % 8:
        raise ConfigError(f"data.pool, train, test {d.pool}, {d.train}, {d.test}; expected multiples of 8")
    if round(d.train / 4 * config.anti_fraction, 6) % 1:
        expected = "a whole number of subjects in each of the four rare groups"
        raise ConfigError(f"anti_fraction {config.anti_fraction:g} of {d.train}; expected {expected}")
    check_files(d)
    depths, heads = tuple(config.swin.depths), tuple(config.swin.heads)
    if len(depths) != len(heads):
        raise ConfigError(f"swin.depths {depths}, swin.heads {heads}; expected one number of both a stage")
    for stage, number in enumerate(heads):
        if config.swin.width * 2**stage % number:
            found = f"swin.heads {heads} of {config.swin.width * 2**stage} channels in stage {stage + 1}"
            raise ConfigError(f"{found}; expected numbers that divide them")
    if d.layout == "simulated" and d.train / 2 * (1 - config.anti_fraction) > d.pool / 4:
        raise ConfigError(f"data.pool {d.pool}; expected {2 * d.train} or more, for biased sets of {d.train}")


def check_files(data: ConfigDict) -> None:
    """Check that the layout has the files that it needs, and no others.

    Raises:
        ConfigError: it lacks one, or has one that nothing reads.
    """
    needed = LAYOUTS.get(data.layout, ())
    outside = [f"external_{name}" for name in needed]
    wanted = [*needed, *(outside if any(data[name] for name in outside) else ())]
    for name in [*wanted, *(["regions"] if needed else [])]:
        if not data[name]:
            raise ConfigError(f"data.{name} ''; expected a file or folder for data.layout={data.layout}")
    for name in (*FILES, *(f"external_{name}" for name in FILES)):
        if data[name] and name not in wanted:
            layouts = " or ".join(one for one, own in LAYOUTS.items() if name.removeprefix("external_") in own)
            raise ConfigError(f"data.{name} {data[name]}; expected data.layout={layouts}, not {data.layout}")


def get_config(preset: str) -> ConfigDict:
    """Config of a preset."""
    tiny, paper = preset == "tiny", preset == "paper"
    medium = preset == "medium"
    return ConfigDict(
        {
            "seed": 0,  # first random seed of networks and training sets
            "seeds": 2 if tiny else 3,  # number of seeds of the ResNet
            "volume_seeds": 0 if tiny else 1 if preset == "small" else 3,  # seeds with intensities over the volume
            "anti_fraction": 0.125 if tiny else 0.025,  # fraction of each diagnosis with the other attribute
            "data": {
                "seed": 0,  # random seed of the cohort, and of the test set
                "layout": "simulated",  # or adni, oasis3, hcp: scans on disk
                **dict.fromkeys([*FILES, *(f"external_{name}" for name in FILES)], ""),  # of the layout
                "pool": 64 if tiny else 640,  # simulated subjects of whom training sets are drawn
                "train": 32 if tiny else 320,
                "test": 24 if tiny else 160,  # of each site
                "variation": 0.35,  # strength of each simulated subject's own deformation
                "voxel_mm": 12.0 if tiny else 1.0 if paper else 4.0,
                "shape": (16, 18, 16) if tiny else (192, 224, 192) if paper else (48, 56, 48),  # voxels
                "regions": "",  # a label volume in MNI space, in place of the cohort's own regions
                "effects": {  # of the simulation: without the label, with it, standard deviation over subjects
                    "atrophy": (0.05, 0.34, 0.09),  # fraction by which the hippocampus is shorter
                    "frontal": (-0.06, 0.06, 0.03),  # fraction by which the frontal lobe is wider
                    "size": (-0.012, 0.012, 0.0),  # log of the head's scale
                    "darkening": (0.0, 0.10, 0.03),  # of white matter, fraction of its signal
                },
            },
            "population": {"strategy": "", "width": 0},  # loop, vmap or shard; networks at once; "", 0: automatic
            "resnet": {
                "depth": 50 if paper else 10,
                "widths": (64, 128, 256, 512) if paper else (4, 4, 8, 8) if tiny else (8, 16, 32, 64),
                "strides": (2, 2, 2, 2, 2) if paper else (2, 2, 2, 1, 1),  # of the stem and of four stages
                "dropout": 0.2 if paper else 0.0,
                "rate": 5e-5 if paper else 1e-3,
                "weight_decay": 1e-3 if paper else 1e-2,
                "steps": 11_400 if paper else 4 if tiny else 500,
                "batch": 4 if paper else 8,
            },
            "swin": {
                "seeds": 3 if medium or paper else 1,  # number of seeds
                "patch": 2 if tiny or paper else 4,  # voxels
                "width": 24 if paper else 6 if tiny else 12,
                "depths": (2, 2, 2, 2) if paper else (1, 1) if tiny else (2, 2),
                "heads": (3, 6, 12, 24) if paper else (1, 2) if tiny else (3, 6),
                "window": 5 if paper else 3 if tiny else 4,
                "rate": 1e-4 if paper else 1e-3,
                "weight_decay": 1e-2,
                "steps": 11_400 if paper else 4 if tiny else 300,
                "batch": 4 if paper else 8,
            },
            "attribution": {"method": "grad_cam", "steps": 16, "batch": 8},  # steps: of integrated gradients
            "audit": {"resamples": 50 if tiny else 2000, "permuted": 99 if tiny else 9999},
        }
    )
