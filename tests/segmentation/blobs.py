"""A data set of two blobs a case, bright and dark, for tests that train."""

import numpy as np

from medjax.segmentation.plan import Case


def blobs(seed, side=16):
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side, side), np.int32)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1)
    for kind, low in ((1, 3), (2, 9)):
        labels[((grid - rng.uniform(low, low + 4, 3)) ** 2).sum(-1) < 3.5**2] = kind
    image = np.array([0.0, 2.0, -2.0])[labels] + 0.4 * rng.normal(size=labels.shape)
    return Case(image.astype(np.float32)[..., None], labels, (1.0, 1.0, 1.0))
