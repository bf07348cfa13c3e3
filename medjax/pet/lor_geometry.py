"""Lines of response on the host: unit normals and distances from the axis, the image axis that each runs along.

Joseph's method walks a line along the axis in which it crosses more voxels. Views of a scanner are walked along one
axis each, since their lines are nearly parallel; lines that are not are sorted into views by direction.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from medjax.errors import DataError
from medjax.pet.grid import Grid

_STEEPEST = 1.5  # columns a row: Joseph's method still reads the neighbourhood of every crossing
_SMALLEST_RING = 0.8  # of half the image's side: a ring smaller than that is a mistake
_WIDEST = 0.6  # columns a row by which lines of a view may differ: with more, the look-up table gets long


@dataclass(frozen=True)
class Lors:
    """Lines of response as arrays of any shape: unit normal (cos, sin) and signed distance from the axis in mm."""

    cos: np.ndarray
    sin: np.ndarray
    offset: np.ndarray

    def __getitem__(self, index: Any) -> "Lors":
        return Lors(self.cos[index], self.sin[index], self.offset[index])

    def rotate(self, quarters: int) -> "Lors":
        """The lines turned about the axis."""
        cos, sin = self.cos, self.sin
        for _ in range(quarters % 4):
            cos, sin = -sin, cos
        return Lors(cos, sin, self.offset)

    def key(self) -> np.ndarray:
        """A point that two equal lines share whatever the sign of their normal: foot point and doubled angle."""
        foot = self.offset[..., None] * np.stack([self.cos, self.sin], axis=-1)
        double = 100 * np.stack([self.cos**2 - self.sin**2, 2 * self.cos * self.sin], axis=-1)
        return np.concatenate([foot, double], axis=-1).reshape(-1, 4)


def concatenate(parts: list[Lors]) -> Lors:
    """Lines of several arrays, joined along the second axis."""
    return Lors(*(np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("cos", "sin", "offset")))


def from_end_points(end_points: Float[np.ndarray, "view bin 2 2"], grid: Grid) -> Lors:
    """Lines through both end points, which must cross the image between them or miss it.

    Of an image that passes the ring of end points, what counts is the part inside: see `inside_ring`.

    Raises:
        DataError: a line ends inside the image or before it, or its ends are one point or not finite.
    """
    first, second = np.moveaxis(np.asarray(end_points, float), -2, 0)
    half = np.asarray(grid.shape[:2]) * np.asarray(grid.voxel_mm[:2]) / 2
    size = f"the image of ±{half[0]:g} × ±{half[1]:g} mm"
    if not np.all(np.isfinite(end_points)):
        raise DataError("end points: hold values that are not finite")
    radius = float(np.hypot(end_points[..., 0], end_points[..., 1]).min())
    beyond = inside_ring(end_points, grid) is not None
    if beyond and radius < _SMALLEST_RING * half.min():
        raise DataError(f"end points: a line ends inside {size}; choose a smaller grid")
    along = second - first
    norm = np.hypot(along[..., 0], along[..., 1])
    if np.any(norm == 0):
        raise DataError("end points: both ends of a line are the same point")
    if beyond:
        nearest = -np.sum(first * along, axis=-1) / norm**2  # to the axis, from the first end to the second
        distance = np.abs(first[..., 0] * along[..., 1] - first[..., 1] * along[..., 0]) / norm
        before = (distance < radius) & ((nearest <= 0) | (nearest >= 1))
    else:
        enter, leave = _crossing(first, along, half)
        before = (enter < leave) & ((leave <= 0) | (enter >= 1))
    if np.any(before):
        raise DataError(f"end points: a line ends before {size}, which it would cross; move its end points apart")
    dx, dy = np.moveaxis(along, -1, 0)
    cos, sin = -dy / norm, dx / norm
    return Lors(cos, sin, first[..., 0] * cos + first[..., 1] * sin)


def inside_ring(end_points: Float[np.ndarray, "*line 2 2"], grid: Grid) -> Bool[np.ndarray, "x y"] | None:
    """Voxels that lie inside the ring of the end points as a whole; None where all of the grid does."""
    radius = float(np.hypot(end_points[..., 0], end_points[..., 1]).min())
    x, y = ((np.abs(np.arange(n) - (n - 1) / 2) + 0.5) * v for n, v in zip(grid.shape[:2], grid.voxel_mm, strict=False))
    inside = np.hypot(x[:, None], y) <= radius
    return None if inside.all() else inside


def miss_image(end_points: Float[np.ndarray, "view bin 2 2"], grid: Grid) -> Bool[np.ndarray, "view bin"]:
    """True for lines of response that no voxel's interpolation reaches: half a voxel beyond the image, or farther."""
    first, second = np.moveaxis(np.asarray(end_points, float), -2, 0)
    enter, leave = _crossing(first, second - first, (np.asarray(grid.shape[:2]) + 1) * grid.voxel_mm[:2] / 2)
    return enter >= leave


def _crossing(first: np.ndarray, along: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the line first + t · along enters and leaves a box of these half sides; it misses it if enter ≥ leave."""
    tiny = 1e-12 * np.abs(along).max(axis=-1, keepdims=True)
    along = np.where(np.abs(along) < tiny, tiny, along)
    ends = np.sort(np.stack([(-half - first) / along, (half - first) / along]), axis=0)
    return ends[0].max(axis=-1), ends[1].min(axis=-1)


def along_x(lors: Lors, grid: Grid) -> Bool[np.ndarray, "..."]:
    """True for lines that cross more voxels along x than along y."""
    vx, vy, _ = grid.voxel_mm
    return np.abs(lors.cos) * vx <= np.abs(lors.sin) * vy


def views_along_x(views: Lors, grid: Grid) -> Bool[np.ndarray, " view"] | None:
    """True for views whose lines mostly run along x, in voxels; None where lines of a view are far from parallel.

    A view's normal lies in [45°, 135°): half-open, so that a quarter turn swaps the two kinds.
    """
    vx, vy, _ = grid.voxel_mm
    norm = np.hypot(views.cos * vx, views.sin * vy)
    cos, sin = views.cos * vx / norm, views.sin * vy / norm
    double_cos, double_sin = np.mean(cos**2 - sin**2, axis=1), np.mean(2 * cos * sin, axis=1)
    chosen = (double_cos < -1e-9) | ((np.abs(double_cos) <= 1e-9) & (double_sin > 0))
    across, along = np.where(chosen[:, None], cos, -sin), np.where(chosen[:, None], sin, cos)
    if np.any(np.abs(across) > _STEEPEST * np.abs(along)):
        return None
    return chosen if np.all(np.ptp(across / along, axis=1) <= _WIDEST) else None


def by_direction(lors: Lors, numbers: np.ndarray, missing: int, width: int) -> tuple[Lors, np.ndarray]:
    """Lines in any order sorted into views of nearly equal slope, and the numbers that they go by.

    A view has as many lines as make it neither wide nor long to look up. The last one is filled with lines numbered
    `missing`.
    """
    size = int(np.clip(len(numbers) // width, 1, max(width // 2, 1)))
    order = np.argsort(lors.cos / lors.sin)
    filled = np.concatenate([order, np.repeat(order[-1], -len(order) % size)]).reshape(-1, size)
    known = np.arange(filled.size).reshape(filled.shape) < len(order)
    return lors[filled], np.where(known, numbers[filled], missing)


def in_voxels(
    rays: Lors, shape: tuple[int, int], voxel_mm: tuple[float, float]
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Position on the middle row and slope a row, in voxels, of x cos + y sin = offset, walked along x."""
    vx, vy = voxel_mm
    return rays.offset / rays.sin / vy + (shape[1] - 1) / 2, -rays.cos / rays.sin * vx / vy


def length_mm(lors: Lors, along_x: Bool[np.ndarray, "..."], grid: Grid) -> Float[np.ndarray, "..."]:
    """Length in mm that each line spends in one row of the image, which it walks along x or y."""
    vx, vy, _ = grid.voxel_mm
    return np.where(along_x, vx / np.abs(lors.sin + 1e-300), vy / np.abs(lors.cos + 1e-300))
