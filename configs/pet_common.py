"""Settings that the two PET experiments share: scanner, counts, sampler, tuning and test scans."""

from ml_collections import ConfigDict

from medjax.errors import ConfigError
from medjax.running.config_rules import INPUT_PATH, POSITIVE, SEED, choice, distinct, elements, interval, minimum

SCANNERS = ("ring_2d", "mmr", "mct")
RULES = {
    "seed": SEED,
    "scans_per_batch": minimum(1),
    "grid.size": interval(8, 512),
    "grid.voxel_mm": interval(0.5, 20),
    "scan.scanner": choice(*SCANNERS),
    "scan.trues_per_mm3": distinct(elements(POSITIVE)),
    "scan.background": interval(0, 0.99),
    "scan.lesions": minimum(1),
    "sampling.prior": INPUT_PATH,
    "sampling.steps": minimum(1),
    "sampling.t_max": interval(1e-3, 1),
    "sampling.t_min": interval(1e-5, 1),
    "sampling.eta": interval(0, 1),
    "tuning.heads": minimum(1),
    "tuning.values_per_hyperparameter": minimum(0),
    "test.heads": minimum(1),
    "test.realizations": minimum(2),
    "test.samples": minimum(2),
    "test.mean_of_samples": elements(choice("naive", "dps", "dds", "dds_delta", "likelihood_schedule"), 0),
}


def check(config: ConfigDict) -> None:
    """Check that sampling goes from a larger diffusion time to a smaller one.

    Raises:
        ConfigError: it does not.
    """
    if not config.sampling.t_min < config.sampling.t_max:
        raise ConfigError(f"sampling.t_min {config.sampling.t_min:g}; expected below t_max {config.sampling.t_max:g}")


def base(preset: str, *, mean_of_samples: str) -> ConfigDict:
    """Base config of the PET experiments, by preset. `mean_of_samples`: method also tested by the mean of its samples.

    Raises:
        KeyError: no such preset.
    """
    tiny, paper = preset == "tiny", preset == "paper"
    if preset not in ("tiny", "small", "paper"):
        raise KeyError(preset)
    return ConfigDict(
        {
            "seed": 0,  # random seed of noise and samples
            "scans_per_batch": 60 if paper else 2 if tiny else 5,  # scans reconstructed at once
            "grid": {"size": 96, "voxel_mm": 2.5},
            "scan": {
                "scanner": "mmr",
                "trues_per_mm3": (10.0,) if tiny else (2.5, 10.0, 50.0),
                "background": 0.5,  # fraction of the prompts (randoms + scatter)
                "lesions": 3,  # number of lesions in a head
            },
            "sampling": {
                "prior": "",  # file of a score prior; "": medjax's brain prior
                "steps": 2 if tiny else 100 if paper else 50,  # reverse diffusion steps
                "t_max": 0.5,  # diffusion time at which sampling starts
                "t_min": 1e-2,  # and ends
                "eta": 1.0,  # DDIM's stochasticity
            },
            "training": {"heads": 0, "batch": 0, "unet_steps": 0, "unrolled_steps": 0},  # of supervised methods
            "tuning": {"heads": 1 if tiny else 3, "values_per_hyperparameter": 1 if tiny else 0},  # 0: all
            "test": {
                "heads": 1 if tiny else 6 if paper else 2,  # number of held-out heads
                "realizations": 2 if tiny else 20 if paper else 5,  # noise realisations of each
                "samples": 2 if tiny else 4,  # samples that are averaged
                "mean_of_samples": (mean_of_samples,),  # methods tested by the mean of samples too
            },
        }
    )
