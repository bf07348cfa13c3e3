"""A network of two numbers a class that splits voxels by their intensity, and the model folder of one."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from medjax.models.model import Model
from medjax.running.arrays import save_arrays
from medjax.running.parts import load_part
from medjax.segmentation.plan import Case, fingerprint, plan
from medjax.tools.segment_model import ModelDescription, choose_network, write_description

NETWORK = f"{__file__}:net"


def _init(key, images):
    return {"kernel": jnp.zeros((images.shape[-1] + 1, 3))}


def _apply(params, images, key=None):
    """Logits linear in the intensities and 1."""
    return jnp.concatenate([images, jnp.ones_like(images[..., :1])], -1) @ params["kernel"]


net = Model(_init, _apply)


def write_model(folder, spacing, thresholds, names=("left lung", "right lung"), channels=("MR",), **more):
    """Model folder of a network whose class is 1 above the first threshold of z-scores and 2 above the second.

    `more` are fields of its plan.
    """
    image = np.arange(8.0**3 * len(channels), dtype=np.float32).reshape(8, 8, 8, -1)
    case = Case(image, np.arange(8**3).reshape(8, 8, 8) % 3, spacing)
    own = plan(fingerprint([case], 3, channels), base_width=4, patch=(8, 8, 8))
    own = replace(own, **{"mirror": (), **more})
    _, record = choose_network(load_part(NETWORK, "--network"), own)
    dataset = {
        "channel_names": list(channels), "labels": {"background": 0, names[0]: 1, names[1]: 2},
        "file_ending": ".nii.gz", "settings": {"seed": 0},
    }  # fmt: skip
    write_description(folder, ModelDescription(own, record, dataset))
    steep = 100.0
    slope, offset = steep * np.arange(3), -steep * np.concatenate([[0], np.cumsum(thresholds)])
    kernel = np.stack([slope, *[0 * slope] * (len(channels) - 1), offset]).astype(np.float32)
    (folder / "fold_0").mkdir()
    save_arrays(folder / "fold_0" / "params.npz", {"kernel": kernel})
    (folder / "keep.json").write_text("{}\n")
