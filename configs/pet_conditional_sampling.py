"""Score-based samplers against conventional reconstructions at 1 % counts, and how certain they are (paper 10).

`medjax run pet_conditional_sampling:small`: slices, the shipped prior, 50 steps; RESULTS.md has the time on two cores.
`tiny`: for tests. `paper`: the published numbers of steps, realisations and seeds, for an accelerator; not run yet.
"""

from ml_collections import ConfigDict


def get_config(preset: str) -> ConfigDict:
    """Sizes by preset; physics is the same in all."""
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
                "trues_per_mm3": (2.5, 10.0) if tiny else (2.5, 10.0, 50.0),
                "background": 0.5,  # share of the prompts
                "lesions": 3,
            },
            "sampling": {
                "prior": "",
                "steps": 4 if tiny else 100 if paper else 50,
                "first": 0.5,
                "last": 1e-2,
                "eta": 1.0,
            },
            "training": {"heads": 0, "batch": 0, "unet_steps": 0, "unrolled_steps": 0},  # no supervised methods here
            "tuning": {"heads": 1 if tiny else 3, "per_knob": 2 if tiny else 0},  # of each knob; 0: all
            "test": {
                "heads": 1 if tiny else 6 if paper else 2,
                "realisations": 2 if tiny else 20 if paper else 5,
                "samples": 2 if tiny else 4,
                "averaged": ("dds",),  # also judged by the mean of so many samples
            },
            "noise": {"realisations": 3 if tiny else 20},  # of the bias–deviation curves
            "posterior": {"seeds": 3 if tiny else 25},
        }
    )
