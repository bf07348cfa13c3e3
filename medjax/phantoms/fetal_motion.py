"""Fetal motion between the frames of a scan, and the frames that it gives.

A frame is the displaced fetus over a uterus that stays where it is; what it uncovers is fluid. At a location p of the
frame is the part of the fetus that was, in frame 0, at

    p₀ = c + Rᵀ(p − c − t) + u(p),      R, t rigid about the chest c; u smooth

Frames are made on a grid finer than the voxels, SUBVOXELS points a voxel along each axis, and averaged over each voxel.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from medjax.io.nifti import Number
from medjax.phantoms.fetal_anatomy import smooth_field

SUBVOXELS = (2, 2, 2)  # points of the fine grid in a voxel, along each axis
LEVER_MM = 40.0  # from the chest, at which a rotation moves the fetus as far as a shift does
SMOOTH_MM = 22.0  # correlation length of the non-rigid displacement
JUMP_MM, DROPOUT_SIGNAL = (
    8.0,
    (0.2, 0.7),
)  # corrupted frames: length of a jump; range of the fraction of signal left in a slice


class Motion(NamedTuple):
    """Fetal motion between frames: standard deviations along each axis, and the probability of a corrupted frame."""

    rigid_mm: Number = 1.5  # shift, and what a rotation adds 40 mm from the chest
    smooth_mm: Number = 0.7  # non-rigid displacement
    corrupted: Number = 0.05  # probability that a frame is corrupted: half by a jump, half by signal dropout in slices


class FrameMotion(NamedTuple):
    """Motion of the fetus in each frame of a scan, and which frames are corrupted; none in frame 0."""

    shifts_mm: Float[np.ndarray, "b 3"]
    rotations: Float[np.ndarray, "b 3"]  # rotation vectors about the chest, radians
    corrupted: Bool[np.ndarray, " b"]
    dropout: Bool[np.ndarray, " b"]  # corrupted frames with signal dropout in slices; the others jump


def random_motion(rng: np.random.Generator, count: int, motion: Motion) -> FrameMotion:
    """Random motion in `count` frames, independent from frame to frame."""
    shifts = motion.rigid_mm * rng.standard_normal((count, 3))
    rotations = motion.rigid_mm / LEVER_MM * rng.standard_normal((count, 3))
    corrupted, jump, way = (
        rng.random(count) < motion.corrupted,
        rng.random(count) < 0.5,
        rng.standard_normal((count, 3)),
    )
    corrupted[0] = False
    shifts += (corrupted & jump)[:, None] * JUMP_MM * way / np.linalg.norm(way, axis=1, keepdims=True)
    shifts[0] = rotations[0] = 0
    return FrameMotion(shifts, rotations, corrupted, corrupted & ~jump)


def frames(
    rng: np.random.Generator,
    motion: FrameMotion,
    scene: Callable[[int], tuple[np.ndarray, np.ndarray]],
    mask: Float[np.ndarray, "i j k"],
    shade: Float[np.ndarray, "i j k"],
    spacing: Sequence[Number],
    center_mm: Float[np.ndarray, "3"],
    smooth_mm: Number,
) -> Float[np.ndarray, "b x y z"]:
    """Noise-free frames of a scan: voxel means of shade · (displaced fetus + (1 − displaced mask) · uterus).

    Args:
        rng: random generator.
        motion: motion of each frame.
        scene: k → signals of the fetus and of the uterus in frame k on the fine grid, without motion.
        mask: 1 in the fetus.
        shade: receive field.
        spacing: spacing of the fine grid, mm.
        center_mm: centre of rotation.
        smooth_mm: standard deviation of the non-rigid displacement, mm.
    """
    out = []
    for k in range(len(motion.corrupted)):
        fetus, uterus = scene(k)
        fetus, here = fetus * mask, mask
        if k and (motion.shifts_mm[k].any() or motion.rotations[k].any() or smooth_mm):
            coordinates = _places(motion.shifts_mm[k], motion.rotations[k], mask.shape, spacing, center_mm)
            for coordinate, step in zip(coordinates, spacing, strict=True):
                coordinate += np.float32(smooth_mm / step) * smooth_field(rng, mask.shape, spacing, SMOOTH_MM)
            fetus, here = _interpolated(fetus, mask, coordinates)
        frame = voxel_means(shade * (fetus + (1 - here) * uterus))
        if motion.dropout[k]:
            left = np.where(rng.random(frame.shape[2]) < 0.5, rng.uniform(*DROPOUT_SIGNAL, frame.shape[2]), 1)
            frame = frame * left.astype(np.float32)
        out.append(frame)
    return np.stack(out)


def voxel_means(values: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "x y z"]:
    """Mean over the SUBVOXELS points of each voxel."""
    for axis, n in enumerate(SUBVOXELS):
        head = (slice(None),) * axis
        parts = [values[(*head, slice(start, None, n))] for start in range(n)]
        values = sum(parts[1:], parts[0]) / np.float32(n)
    return values


def _places(
    shift_mm: np.ndarray,
    rotation: np.ndarray,
    shape: tuple[int, ...],
    spacing: Sequence[Number],
    center_mm: np.ndarray,
) -> np.ndarray:
    """c + Rᵀ(p − c − t) of every point, in fractional points of frame 0."""
    back = Rotation.from_rotvec(rotation).as_matrix().T
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    away = np.ix_(*(axis - c - t for axis, c, t in zip(axes, center_mm, shift_mm, strict=True)))
    out = np.empty((3, *shape), np.float32)
    for i, (n, step) in enumerate(zip(shape, spacing, strict=True)):
        x, y, z = ((back[i, j] / step * away[j]).astype(np.float32) for j in range(3))
        out[i] = x + y + (z + np.float32(center_mm[i] / step + (n - 1) / 2))
    return out


def _interpolated(one: np.ndarray, other: np.ndarray, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both images at fractional points, linearly, the edge's value beyond it.

    As one complex image: three times as fast as `scipy.ndimage.map_coordinates` twice.
    """
    shape, values = one.shape, (one + 1j * other).astype(np.complex64).ravel()
    first, fractions = np.zeros(coordinates[0].size, np.int64), list[np.ndarray]()
    for coordinate, n in zip(coordinates, shape, strict=True):
        inside = np.clip(coordinate.ravel(), 0, np.float32(n - 1))
        low = np.minimum(inside.astype(np.int64), n - 2)
        fractions.append(inside - low.astype(np.float32))
        first = first * n + low
    strides = (shape[1] * shape[2], shape[2], 1)

    def between(base: np.ndarray, axis: int) -> np.ndarray:
        if axis == 3:
            return values.take(base)
        low = between(base, axis + 1)
        return low + fractions[axis] * (between(base + strides[axis], axis + 1) - low)

    found = between(first, 0).reshape(coordinates.shape[1:])
    return found.real, found.imag
