"""Likelihood-scheduled sampling against samplers, conventional and supervised reconstructions (paper 8).

`medjax run pet_likelihood_schedule:small`: slices, the shipped prior, 50 steps; RESULTS.md has the time on two cores.
`tiny`: for tests. `paper`: more heads and realisations, 100 steps, for an accelerator; it has not been run yet.

`--config.other_brain=DIR` adds a test out of the family: DIR holds t1.nii.gz and labels.nii.gz (FreeSurfer's numbers).
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
            "training": {
                "heads": 4 if tiny else 400 if paper else 48,
                "batch": 4 if tiny else 8,
                "unet_steps": 2 if tiny else 20000 if paper else 800,
                "unrolled_steps": 2 if tiny else 5000 if paper else 200,
            },
            "tuning": {"heads": 1 if tiny else 3, "per_knob": 2 if tiny else 0},  # of each knob; 0: all
            "test": {
                "heads": 1 if tiny else 6 if paper else 2,
                "realisations": 2 if tiny else 20 if paper else 5,
                "samples": 2 if tiny else 4,
                "averaged": ("likelihood_schedule",),  # also judged by the mean of so many samples
            },
            "volume": {"planes": 15 if tiny else 63, "head": 0, "trues_per_mm3": 10.0, "iterations": 20.0},
            "other_brain": "",
        }
    )
