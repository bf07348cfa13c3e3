"""Brain regions of the MNI152 template by nearest landmark: named, on both sides, for simulated cohorts and tests.

Every voxel of the brain belongs to the nearest of `LANDMARKS` on its side of the midline. It is a partition of our own
with the names of what lies at each landmark, not an anatomical atlas: boundaries are half-way planes.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.phantoms.mni import voxel_coordinates

# Right-hand landmarks in MNI mm; the left-hand ones are their mirror images.
LANDMARKS = {
    "hippocampus": (27, -22, -12),
    "amygdala": (25, -3, -18),
    "parahippocampal": (22, -32, -16),
    "temporal pole": (40, 14, -28),
    "superior temporal": (56, -20, 6),
    "middle temporal": (58, -36, -4),
    "inferior temporal": (50, -28, -24),
    "fusiform": (34, -48, -18),
    "insula": (38, 6, 2),
    "superior frontal": (18, 30, 46),
    "middle frontal": (36, 34, 28),
    "inferior frontal": (48, 22, 12),
    "orbitofrontal": (22, 44, -10),
    "precentral": (40, -8, 50),
    "postcentral": (44, -26, 50),
    "superior parietal": (24, -60, 58),
    "inferior parietal": (46, -46, 44),
    "precuneus": (8, -58, 46),
    "anterior cingulate": (6, 36, 14),
    "middle cingulate": (6, -12, 40),
    "posterior cingulate": (6, -44, 24),
    "lateral occipital": (34, -80, 16),
    "medial occipital": (10, -80, 6),
    "caudate": (12, 12, 10),
    "putamen": (26, 4, 2),
    "thalamus": (12, -18, 8),
    "lateral ventricle": (18, -34, 16),
    "cerebellum": (26, -64, -36),
}
BRAINSTEM = {"brainstem": (0, -28, -30)}


def landmark_regions(
    brain: Bool[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> tuple[Int[np.ndarray, "x y z"], tuple[str, ...]]:
    """Label of each voxel, 0 … regions − 1 and −1 outside the brain, and the regions' names ("hippocampus L", …).

    Args:
        brain: mask of the brain in MNI space.
        affine: voxel → MNI mm (RAS+) of the mask; axis-aligned.
    """
    names = [f"{name} {side}" for name in LANDMARKS for side in "LR"]
    sides = [(-x if side == "L" else x, y, z) for x, y, z in LANDMARKS.values() for side in "LR"]
    points = np.array(sides + list(BRAINSTEM.values()), np.float32)
    x, y, z = voxel_coordinates(brain.shape, affine)
    voxels = np.stack(np.broadcast_arrays(x, y, z), axis=-1)[brain]
    distance = ((voxels[:, None] - points) ** 2).sum(-1)
    distance[(voxels[:, :1] > 0) != (points[:, 0] > 0)] = np.inf  # the other side of the midline
    distance[:, -1] = ((voxels - points[-1]) ** 2).sum(-1)
    labels = np.full(brain.shape, -1, np.int32)
    labels[brain] = distance.argmin(1)
    return labels, (*names, *BRAINSTEM)
