"""Flips against the strength of the tie between class and scene, and what predicts them (paper 2).

`medjax run label_flips:small`: drawn shapes, a small U-Net, three seeds; RESULTS.md has the time on two cores.
`medjax sweep label_flips:small --over training.dro_rate=0.01,0.1`: all networks of both runs as two populations.
`tiny`: for tests. `paper`: the published sizes and optimiser for an accelerator, with Waterbirds-Seg as its authors'
script writes it (`--config.data.layout=waterbirds_seg --config.data.folder=…/correlation_{:g}`), COCO-CD
(`--config.data.layout=coco_cd`, `folder` with train2017/ and val2017/, `annotations` with the three files), or any CSV
(`--config.data.layout=csv`, the file as `folder`); `{:g}` in a path stands for the correlation. Not run yet. It
differs from the published training in its network (no ImageNet encoder) and has no augmentation.
"""

from ml_collections import ConfigDict

PUBLISHED = (0.5, 0.95)  # the correlations whose manifests were published


def get_config(preset: str) -> ConfigDict:
    """Sizes by preset."""
    tiny, paper = preset == "tiny", preset == "paper"
    small = not (tiny or paper)
    return ConfigDict(
        {
            "seed": 0,
            "seeds": 5 if paper else 3 if small else 2,
            "correlations": PUBLISHED if paper else (0.5, 0.75, 0.9, 0.95, 0.99) if small else (0.5, 0.9),
            "methods": ("erm", "balanced", "group_dro", "cutmix"),
            "data": {"layout": "scenes", "folder": "", "annotations": ""},
            "scenes": {  # drawn ones
                "kind": "lobes",  # or digits
                "side": 512 if paper else 24 if small else 16,
                "train": 1668 if paper else 800 if small else 48,
                "validation": 200 if paper else 160 if small else 16,
                "test": 500 if paper else 400 if small else 40,
                "amplitudes": (0.2, 0.6),  # of the lobes: the less, the more alike
                "contrast": 1.5,
                "noise": 0.1,
            },
            "population": {"strategy": "", "width": 0},  # loop, vmap, shard; members at once; default: of the backend
            "model": {"widths": (32, 64, 128, 256, 512) if paper else (8, 16, 32) if small else (8, 8)},
            "training": {
                "rate": 1e-4 if paper else 1e-2,
                "cosine": not paper,  # to a tenth over the steps; else constant
                "steps": 40_000 if paper else 1000 if small else 4,
                "selection": "validation" if paper else "last",
                "batch": 8,
                "every": 200 if paper else 50 if small else 2,  # steps between validations
                "patience": 25,  # validations
                "dro_rate": 0.01,
            },
            "cutmix": {"probability": 0.5, "smallest": 0.1, "largest": 0.4},
            "flip_prone": (0.1, 0.5),  # an image is flip-prone if more of its foreground is flipped
            "shown": {"correlation": 0.95 if not tiny else 0.9, "images": 6 if small else 3},
        }
    )
