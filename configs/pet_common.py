"""Settings that the two PET experiments share: scanner, counts, sampler, tuning and test scans."""

from ml_collections import ConfigDict


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
