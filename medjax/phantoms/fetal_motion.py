"""How a fetus moves between the frames of a scan, and the frames that come of it.

A frame is the fetus, moved, over a uterus that stays where it is; what it uncovers is fluid. Of a place p of the frame
the fetus is seen that was, in frame 0, at

    p₀ = c + Rᵀ(p − c − t) + u(p),      R, t rigid about the chest c; u smooth

Frames are made on a grid finer than the voxels, FINE points a voxel along each axis, and averaged over each voxel.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from medjax.io.nifti import Number
from medjax.phantoms.fetal_anatomy import smooth

FINE = (2, 2, 2)
LEVER_MM = 40.0  # from the chest, at which a rotation moves the fetus as far as a shift does
SMOOTH_MM = 22.0  # how far one part's motion reaches
JUMP_MM, LEFT = 8.0, (0.2, 0.7)  # bad frames: how far one jumps; what share of the signal is left in a lost slice


class Motion(NamedTuple):
    """How the fetus moves between frames; standard deviations along each axis."""

    rigid_mm: Number = 1.5  # shift, and what a rotation adds 40 mm from the chest
    smooth_mm: Number = 0.7  # displacement of one part against another
    bad: Number = 0.05  # probability that a frame is spoilt: half by a jump, half by slices that lose signal


class Moves(NamedTuple):
    """What became of each frame; frame 0 is as it was."""

    shifts_mm: Float[np.ndarray, "b 3"]
    turns: Float[np.ndarray, "b 3"]  # rotation vectors about the chest, radians
    bad: Bool[np.ndarray, " b"]
    dropped: Bool[np.ndarray, " b"]  # of the bad, those that lose slices; the others jump


def moves(draw: np.random.Generator, count: int, motion: Motion) -> Moves:
    """Independent from frame to frame."""
    shifts = motion.rigid_mm * draw.standard_normal((count, 3))
    turns = motion.rigid_mm / LEVER_MM * draw.standard_normal((count, 3))
    bad, jump, way = draw.random(count) < motion.bad, draw.random(count) < 0.5, draw.standard_normal((count, 3))
    bad[0] = False
    shifts += (bad & jump)[:, None] * JUMP_MM * way / np.linalg.norm(way, axis=1, keepdims=True)
    shifts[0] = turns[0] = 0
    return Moves(shifts, turns, bad, bad & ~jump)


def frames(
    draw: np.random.Generator,
    moved: Moves,
    scene: Callable[[int], tuple[np.ndarray, np.ndarray]],
    mask: Float[np.ndarray, "i j k"],
    shade: Float[np.ndarray, "i j k"],
    spacing: Sequence[Number],
    centre_mm: Float[np.ndarray, "3"],
    smooth_mm: Number,
) -> Float[np.ndarray, "b x y z"]:
    """All frames without noise: voxel means of shade · (moved fetus + (1 − moved mask) · uterus).

    `scene(k)` gives frame k's signals of the fetus and of the uterus on the fine grid, of that `spacing`, before
    anything moves; `mask` is 1 in the fetus; `shade` is the receive field.
    """
    out = []
    for k in range(len(moved.bad)):
        fetus, uterus = scene(k)
        fetus, here = fetus * mask, mask
        if k and (moved.shifts_mm[k].any() or moved.turns[k].any() or smooth_mm):
            places = _places(moved.shifts_mm[k], moved.turns[k], mask.shape, spacing, centre_mm)
            for place, step in zip(places, spacing, strict=True):
                place += np.float32(smooth_mm / step) * smooth(draw, mask.shape, spacing, SMOOTH_MM)
            fetus, here = _interpolated(fetus, mask, places)
        frame = voxel_means(shade * (fetus + (1 - here) * uterus))
        if moved.dropped[k]:
            left = np.where(draw.random(frame.shape[2]) < 0.5, draw.uniform(*LEFT, frame.shape[2]), 1)
            frame = frame * left.astype(np.float32)
        out.append(frame)
    return np.stack(out)


def voxel_means(values: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "x y z"]:
    """Means over the FINE points of each voxel."""
    for axis, n in enumerate(FINE):
        head = (slice(None),) * axis
        parts = [values[(*head, slice(start, None, n))] for start in range(n)]
        values = sum(parts[1:], parts[0]) / np.float32(n)
    return values


def _places(
    shift_mm: np.ndarray,
    turn: np.ndarray,
    shape: tuple[int, ...],
    spacing: Sequence[Number],
    centre_mm: np.ndarray,
) -> np.ndarray:
    """c + Rᵀ(p − c − t) of every point, in fractional points of frame 0."""
    back = Rotation.from_rotvec(turn).as_matrix().T
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    away = np.ix_(*(axis - c - t for axis, c, t in zip(axes, centre_mm, shift_mm, strict=True)))
    out = np.empty((3, *shape), np.float32)
    for i, (n, step) in enumerate(zip(shape, spacing, strict=True)):
        x, y, z = ((back[i, j] / step * away[j]).astype(np.float32) for j in range(3))
        out[i] = x + y + (z + np.float32(centre_mm[i] / step + (n - 1) / 2))
    return out


def _interpolated(one: np.ndarray, other: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both images at fractional points, linearly, the edge's value beyond it.

    As one complex image: three times as fast as `scipy.ndimage.map_coordinates` twice.
    """
    shape, values = one.shape, (one + 1j * other).astype(np.complex64).ravel()
    first, shares = np.zeros(places[0].size, np.int64), list[np.ndarray]()
    for place, n in zip(places, shape, strict=True):
        inside = np.clip(place.ravel(), 0, np.float32(n - 1))
        low = np.minimum(inside.astype(np.int64), n - 2)
        shares.append(inside - low.astype(np.float32))
        first = first * n + low
    strides = (shape[1] * shape[2], shape[2], 1)

    def between(base: np.ndarray, axis: int) -> np.ndarray:
        if axis == 3:
            return values.take(base)
        low = between(base, axis + 1)
        return low + shares[axis] * (between(base + strides[axis], axis + 1) - low)

    found = between(first, 0).reshape(places.shape[1:])
    return found.real, found.imag
