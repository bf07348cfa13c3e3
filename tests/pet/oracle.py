"""Truths that medjax did not write: Joseph's matrix by SciPy, and closed-form line integrals of ellipses."""

import numpy as np
import scipy.sparse
from scipy.ndimage import map_coordinates
from scipy.stats import norm

from medjax.pet.grid import Grid
from medjax.pet.tof import Tof


def joseph_matrix(end_points: np.ndarray, grid: Grid, along_x: np.ndarray | None = None) -> scipy.sparse.csr_matrix:
    """Joseph's interpolation line by line; rows (view, bin), columns (x, y). `along_x`: views that walk along x."""
    nx, ny, _ = grid.shape
    vx, vy, _ = grid.voxel_mm
    first, second = np.moveaxis(end_points, -2, 0)
    dx, dy = np.moveaxis(second - first, -1, 0)
    if along_x is None:
        along_x = (((dx / vx) ** 2 - (dy / vy) ** 2) / ((dx / vx) ** 2 + (dy / vy) ** 2)).mean(1) >= 0
    rows, columns, values = [], [], []
    bins = end_points.shape[1]
    for view in range(len(end_points)):
        (n, m, v, w) = (nx, ny, vx, vy) if along_x[view] else (ny, nx, vy, vx)
        start, step = (0, 1) if along_x[view] else (1, 0)
        center = (np.arange(n) - (n - 1) / 2) * v
        slope = ((second - first)[view, :, step] / (second - first)[view, :, start])[:, None]
        at = (first[view, :, step, None] + slope * (center - first[view, :, start, None])) / w + (m - 1) / 2
        low = np.floor(at).astype(int)
        for index, weight in ((low, 1 - (at - low)), (low + 1, at - low)):
            b, i = np.nonzero((index >= 0) & (index < m) & (weight > 0))
            pixel = i * ny + index[b, i] if along_x[view] else index[b, i] * ny + i
            rows.append(view * bins + b)
            columns.append(pixel)
            values.append((weight * v * np.sqrt(1 + slope**2))[b, i])
    shape = (end_points.shape[0] * bins, nx * ny)
    return scipy.sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape
    )


ELLIPSES = (
    (0, 0, 0.72, 0.86, 0.0, 1.0),
    (0.25, 0.1, 0.12, 0.25, 0.5, 0.8),
    (-0.25, -0.05, 0.2, 0.1, -0.4, -0.5),
    (0, 0.45, 0.08, 0.08, 0, 1.5),
)
"""(x, y, semi-axis, semi-axis, angle, value) in units of half the image."""


def ellipse_image(size: int, voxel_mm: float, ellipses=ELLIPSES, supersampling: int = 8) -> np.ndarray:
    """Area-averaged raster, (x, y)."""
    half = size * voxel_mm / 2
    g = ((np.arange(size * supersampling) + 0.5) / supersampling - size / 2) * voxel_mm
    x, y = np.meshgrid(g, g, indexing="ij")
    image = np.zeros_like(x)
    for x0, y0, a, b, angle, value in ellipses:
        u = (x - x0 * half) * np.cos(angle) + (y - y0 * half) * np.sin(angle)
        v = -(x - x0 * half) * np.sin(angle) + (y - y0 * half) * np.cos(angle)
        image += value * ((u / (a * half)) ** 2 + (v / (b * half)) ** 2 <= 1)
    return image.reshape(size, supersampling, size, supersampling).mean((1, 3))


def ellipse_integrals(end_points: np.ndarray, half: float, ellipses=ELLIPSES) -> np.ndarray:
    """Closed-form line integrals, (view, bin)."""
    first, second = np.moveaxis(end_points, -2, 0)
    direction = (second - first) / np.linalg.norm(second - first, axis=-1, keepdims=True)
    normal = np.stack([-direction[..., 1], direction[..., 0]], -1)
    offset = (first * normal).sum(-1)
    theta = np.arctan2(normal[..., 1], normal[..., 0])
    out = np.zeros(end_points.shape[:2])
    for x0, y0, a, b, angle, value in ellipses:
        s = offset - half * (x0 * np.cos(theta) + y0 * np.sin(theta))
        q = (a * half * np.cos(theta - angle)) ** 2 + (b * half * np.sin(theta - angle)) ** 2
        out += value * 2 * a * b * half**2 * np.sqrt(np.clip(q - s**2, 0, None)) / q
    return out


def joseph_rows(ends: np.ndarray, along_x: np.ndarray, grid: Grid, image: np.ndarray, tof: Tof | None = None):
    """Joseph's method in 3-D, line by line: SciPy's linear interpolation wherever a line crosses a row's middle.

    `ends` (line, 2, 3) in mm; with time of flight, (line, bin): the normal distribution's probability of each bin.
    """
    out = np.zeros((len(ends), 1 if tof is None else tof.bins))
    for axis in (0, 1):
        members = np.flatnonzero(along_x == (axis == 0))
        first, second = ends[members, 0], ends[members, 1]
        rows = np.arange(grid.shape[axis])
        center = (rows - (len(rows) - 1) / 2) * grid.voxel_mm[axis]
        fraction = (center - first[:, axis, None]) / (second - first)[:, axis, None]
        at = first[:, None] + fraction[..., None] * (second - first)[:, None]
        index = at / grid.voxel_mm + (np.array(grid.shape) - 1) / 2
        index[..., axis] = rows
        value = map_coordinates(image, np.moveaxis(index, -1, 0), order=1, mode="grid-constant")
        value = np.where((fraction >= 0) & (fraction <= 1), value, 0)
        length = np.linalg.norm(second - first, axis=1)
        step = grid.voxel_mm[axis] * length / np.abs((second - first)[:, axis])
        if tof is None:
            out[members, 0] = step * value.sum(1)
            continue
        distance = (fraction - 0.5) * length[:, None]
        chance = np.diff(norm.cdf((tof.edges_mm - distance[..., None]) / tof.sd_mm), axis=-1)
        out[members] = step[:, None] * (value[..., None] * chance).sum(1)
    return out
