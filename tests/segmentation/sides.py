"""Two equal blobs a case, one on either side, and a network of nine numbers that can tell them apart by their place."""

import jax.numpy as jnp
import numpy as np

from medjax.io.nnunet_raw import Scan
from medjax.models.model import Model

AFFINE = np.array([[0.0, 1, 0, 5], [-1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])  # left–right runs along y
NAMES = ("background", "kidney_left", "kidney_right")


def sides(seed, shape=(16, 16, 16)):
    """A case of `shape` voxels, 16 along x and y."""
    rng = np.random.default_rng(seed)
    labels, depth = np.zeros(shape, np.int32), shape[2] / 2
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    for kind, low in ((1, 2.5), (2, 9.5)):
        center = rng.uniform([6, low, depth - 1], [9, low + 3, depth])
        labels[((grid - center) ** 2).sum(-1) < 3.2**2] = kind
    image = 2.0 * (labels > 0) + 0.3 * rng.normal(size=labels.shape)
    return Scan(f"case_{seed}", image.astype(np.float32)[..., None], labels, (1.0, 1.0, 1.0), AFFINE)


def _init(key, images):
    return {"kernel": jnp.zeros((3, 3))}


def _apply(params, images, key=None):
    """Logits linear in the intensity, its product with the place along y, and 1."""
    place = jnp.linspace(-1, 1, images.shape[2])[None, None, :, None, None]
    features = jnp.concatenate([images, images * place, jnp.ones_like(images)], -1)
    return features @ params["kernel"]


net = Model(_init, _apply)
