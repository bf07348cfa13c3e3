"""Look-up table of the lines of response (LORs) near each voxel: back-projection gathers instead of scattering.

In a view the lines of response near a voxel depend, up to a small tilt, on one number u = y − mean_slope · i, i the
row. The table lists, for cells of u, the first line that may be near, and the positions and the slopes beyond the mean
of the next `taps` ones.
"""

import numpy as np
from jaxtyping import Float

CELL_WIDTH = 0.375  # width of a table cell, in voxels: wider cells list more lines, narrower ones make a longer table
_MARGIN = 1e-3  # voxels by which a cell reaches over its edges, against rounding in float32


def lor_table(
    position: Float[np.ndarray, "view bin"],
    slope: Float[np.ndarray, "view bin"],
    shape: tuple[int, int],
    first_row: float,
) -> tuple[Float[np.ndarray, "view cell entry"], Float[np.ndarray, " view"], float]:
    """Look-up table of lines of response over cells of u, the views' mean slopes, and the u at which the table starts.

    A cell lists a line if it passes within one voxel of a point (row, y) of the image with u in that cell; rows before
    `first_row` do not count.
    """
    last_row = (shape[0] - 1) / 2
    mean = slope.mean(axis=1)
    tilt = slope - mean[:, None]
    table_start = -2.0 - float(np.abs(mean).max()) * last_row
    cells = table_start + CELL_WIDTH * np.arange(int(np.ceil((shape[1] + 2 - 2 * table_start) / CELL_WIDTH)))
    reach = np.abs(tilt) * last_row + _MARGIN
    highest = np.maximum.accumulate(position + reach, axis=1)
    lowest = np.minimum.accumulate((position - reach)[:, ::-1], axis=1)[:, ::-1]
    first = np.stack([np.searchsorted(view, cells, side="right") for view in highest])
    last = np.stack([np.searchsorted(view, cells + CELL_WIDTH + 2, side="left") for view in lowest])
    first, taps = _tighten(position, tilt, mean, cells, (first, last), (first_row, last_row), shape[1])
    taps = min(taps, position.shape[1])
    first = np.minimum(first, position.shape[1] - taps)
    return (
        np.concatenate([first[..., None], *_take_lines(position, tilt, first[..., None] + np.arange(taps))], axis=-1),
        mean,
        table_start,
    )


def _tighten(
    position: np.ndarray,
    tilt: np.ndarray,
    mean: np.ndarray,
    cells: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    rows: tuple[float, float],
    width: int,
) -> tuple[np.ndarray, int]:
    """Each cell's first line, and the largest number of lines of a cell, over rows where the cell is in the image."""
    steep = np.where(np.abs(mean) > 1e-9, mean, np.nan)[:, None]
    ends = np.sort(np.stack([(-2 - CELL_WIDTH - cells) / steep, (width - cells) / steep]), axis=0)
    low, high = (np.clip(np.nan_to_num(end, nan=row), *rows)[..., None] for end, row in zip(ends, rows, strict=True))
    reachable = (cells > -2 - CELL_WIDTH - np.abs(mean)[:, None] * rows[1]) & (
        cells < width + np.abs(mean)[:, None] * rows[1]
    )
    first, last = bounds
    number = first[..., None] + np.arange(max(int(np.where(reachable, last - first, 0).max()), 1))
    inside = (number < position.shape[1]) & reachable[..., None]
    offset, lean = _take_lines(position, tilt, np.where(inside, number, 0))
    crossing = np.sort(np.stack([offset + lean * low, offset + lean * high]), axis=0)
    near = inside & (crossing[1] > cells[:, None] - _MARGIN) & (crossing[0] < cells[:, None] + CELL_WIDTH + 2 + _MARGIN)
    skipped = np.where(near.any(axis=-1), near.argmax(axis=-1), 0)
    count = np.where(near, np.arange(near.shape[-1]) + 1, 0).max(axis=-1) - skipped
    return first + skipped, max(int(count.max()), 1)


def _take_lines(position: np.ndarray, tilt: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and tilts of the lines of these numbers, in each view."""
    index = number.reshape(len(position), -1)
    offset, lean = (np.take_along_axis(a, index, axis=1).reshape(number.shape) for a in (position, tilt))
    return offset, lean
