"""Simulated heads on one grid, affinely aligned: what a registration network learns from, and is tested on.

They are subjects of `phantoms.multi_subject` without the affine part of their deformation, which is known here and
taken away: what is left is a diffeomorphism and what no warp removes. A subject's own tissues take longest to make, so
each is deformed several times; held-out heads are of subjects of their own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medjax.errors import ConfigError
from medjax.phantoms.head_anatomies import mni152, read_anatomy
from medjax.phantoms.heads import Deformation
from medjax.phantoms.multi_subject import SubjectHead, diffeomorphism, multi_subject, on_grid, tissue_labels
from medjax.running.progress import track
from medjax.tools.registration_training import HELD_OUT, Heads

SHAPE, VOXEL_MM = (80, 96, 80), 2.5
ANATOMY_MM = 1.5  # voxels that tissues are varied on
TIMES_DEFORMED = 4
STRENGTHS = (0.8, 1.4)  # of the deformations, smallest and largest


def simulated_heads(
    number: int,
    seed: int = 0,
    shape: tuple[int, int, int] = SHAPE,
    voxel_mm: float = VOXEL_MM,
    anatomies: Sequence[Path] = (),
) -> Heads:
    """Random heads of MNI152 and other `anatomies`; the last `HELD_OUT` are of subjects that no other head is of.

    Raises:
        ConfigError: too few heads to learn from and hold out.
        DataError: nilearn, which holds MNI152, is not installed, or an anatomy cannot be read.
    """
    learnt = number - HELD_OUT
    if learnt < 2:
        raise ConfigError(f"heads: {number}; expected {HELD_OUT + 2} or more, {HELD_OUT} of them held out")
    real = [mni152(ANATOMY_MM), *(read_anatomy(path, ANATOMY_MM) for path in anatomies)]
    subjects = -(-learnt // TIMES_DEFORMED)
    times = [min(TIMES_DEFORMED, learnt - n * TIMES_DEFORMED) for n in range(subjects)] + [1] * HELD_OUT
    images, labels = list[np.ndarray](), list[np.ndarray]()
    for n, head in enumerate(track(multi_subject(seed, len(times), real), "subjects")):
        for k in range(times[n]):
            image, own = _aligned(head, np.random.default_rng((seed, n, k)), shape, voxel_mm)
            images.append(image)
            labels.append(own)
    return Heads(np.stack(images), np.stack(labels), voxel_mm)


def without_affine(change: Deformation) -> Deformation:
    """The deformation without its affine map, M and shift: source(p) = p + M⁻¹ u(p)."""
    field = np.tensordot(np.linalg.inv(change.matrix), change.field_mm, 1)
    return change._replace(matrix=np.eye(3), shift_mm=np.zeros(3), field_mm=field)


def _aligned(
    head: SubjectHead, draw: np.random.Generator, shape: tuple[int, int, int], voxel_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    change = diffeomorphism(int(draw.integers(2**31)), float(draw.uniform(*STRENGTHS)))
    brain = on_grid(head._replace(change=without_affine(change)), voxel_mm, shape)
    t1 = np.maximum(brain.t1, 0)
    image = np.round(255 * np.minimum(t1 / np.percentile(t1, 99.9), 1)).astype(np.uint8)
    return image, tissue_labels(brain).astype(np.uint8)
