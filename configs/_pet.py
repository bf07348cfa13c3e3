"""What the two sampling experiments share: slices of one scanner, counts, how the prior is sampled, tests."""

from ml_collections import ConfigDict


def base(preset: str, *, averaged: str) -> ConfigDict:
    """Sizes by preset; physics is the same in all. `averaged`: the method that is also judged by its samples' mean.

    Raises:
        KeyError: no such preset.
    """
    tiny, paper = preset == "tiny", preset == "paper"
    if preset not in ("tiny", "small", "paper"):
        raise KeyError(preset)
    return ConfigDict(
        {
            "seed": 0,
            "chunk": 60 if paper else 5,  # scans reconstructed at once
            "grid": {"size": 96, "voxel_mm": 2.5},
            "scan": {
                "scanner": "mmr",
                "trues_per_mm3": (10.0,) if tiny else (2.5, 10.0, 50.0),
                "background": 0.5,  # share of the prompts
                "lesions": 3,
            },
            "sampling": {
                "prior": "",
                "steps": 2 if tiny else 100 if paper else 50,
                "first": 0.5,
                "last": 1e-2,
                "eta": 1.0,
            },
            "training": {"heads": 0, "batch": 0, "unet_steps": 0, "unrolled_steps": 0},  # of supervised methods
            "tuning": {"heads": 1 if tiny else 3, "per_knob": 1 if tiny else 0},  # of each knob; 0: all
            "test": {
                "heads": 1 if tiny else 6 if paper else 2,
                "realisations": 2 if tiny else 20 if paper else 5,
                "samples": 2 if tiny else 4,
                "averaged": (averaged,),
            },
        }
    )
