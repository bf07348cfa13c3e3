"""Figure of a registration: fixed image, moving image before and after, their checkerboard, and the deformed grid."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from medjax.report.figures import COLORS, ENDS, FONT, MUTED_COLOR, TEXT_COLOR, _figure
from medjax.report.slices import VIEW_AXES, check_images, reorient_to_ras
from medjax.report.text import enumerate_names, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = Float[np.ndarray, "x y z"]
SQUARES = 8  # of the checkerboard, along the longer side
GRID_LEVELS = 16  # lines of the deformed grid along the longer side
WIDTH = 2.3  # inches of an image


def checkerboard(
    fixed: Image,
    before: Image,
    after: Image,
    moving_mm: Float[np.ndarray, "3 x y z"],
    affine: Float[np.ndarray, "4 4"],
    *,
    note: str = "",
) -> "Figure":
    """Middle slices of a registration, a row a view; of one slice, that one.

    Each image is scaled by its own 0.5th and 99.5th percentile. The grid shows lines of equal x, y and z in the moving
    image's space: straight ones where the map is affine.

    Args:
        fixed: fixed image.
        before: moving image on the fixed grid, before registration.
        after: the same after registration.
        moving_mm: world position in the moving image's space of each voxel, RAS+ mm.
        affine: voxel index → RAS+ mm of the fixed grid.
        note: a line at the foot.

    Raises:
        DataError: shapes differ, or values are not finite.
    """
    named = check_images({"fixed": fixed, "before": before, "after": after})
    positions = check_images({axis: one for axis, one in zip("xyz", moving_mm, strict=True)} | {"fixed": fixed})
    upright, _, voxel = reorient_to_ras(named | {axis: positions[axis] for axis in "xyz"}, affine)
    images = {name: _scale(upright[name]) for name in named}
    sides = np.asarray(fixed.shape) if fixed.shape[2] == 1 else np.asarray(images["fixed"].shape)
    views = ["axial"] if sides.min() == 1 else list(VIEW_AXES)
    titles = ("Fixed", "Moving, before", "Moving, after", "Checkerboard", "Grid")
    sizes = [
        np.asarray(images["fixed"].shape)[list(VIEW_AXES[view][:2])] * voxel[list(VIEW_AXES[view][:2])]
        for view in views
    ]
    heights = [WIDTH * size[1] / size[0] for size in sizes]
    figure = _figure(5 * WIDTH, sum(heights) + 0.3 + 0.25 * bool(note))
    total = figure.get_size_inches()
    top = total[1] - 0.3
    for view, height in zip(views, heights, strict=True):
        top -= height
        cut = _slices(view, images["fixed"].shape)
        shown = {name: image[cut].T for name, image in images.items()}
        lines = [upright["xyz"[axis]][cut].T for axis in VIEW_AXES[view][:2]]
        ratio = voxel[VIEW_AXES[view][1]] / voxel[VIEW_AXES[view][0]]
        board = np.where(_squares(shown["fixed"].shape, ratio), shown["fixed"], shown["after"])
        for column, title in enumerate(titles):
            box = (column / 5, top / total[1], 0.996 / 5, height / total[1])
            axes = figure.add_axes(box, facecolor="black")
            axes.set_axis_off()
            picture = (shown["fixed"], shown["before"], shown["after"], board, 0.5 * shown["after"])[column]
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, origin="lower", aspect="auto", interpolation="nearest")
            if title == "Grid":
                _draw_grid(axes, lines)
            if column == 0:
                _mark_ends(axes, view)
            if view == views[0]:
                style = {"color": TEXT_COLOR, "family": FONT, "size": 8.5}
                figure.text((column + 0.02) / 5, 1 - 0.2 / total[1], title, **style)
    if note:
        figure.text(0.004, 0.08 / total[1], note, color=TEXT_COLOR, family=FONT, size=7)
    return finish(figure, f"Slices ({enumerate_names(views)}) of {enumerate_names(titles)}")


def _scale(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, [0.5, 99.5])
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1)


def _slices(view: str, shape: tuple[int, ...]) -> tuple[slice | int, ...]:
    """The middle slice of a view."""
    return tuple(side // 2 if axis == VIEW_AXES[view][2] else slice(None) for axis, side in enumerate(shape))


def _squares(shape: tuple[int, ...], ratio: float) -> np.ndarray:
    """Squares of a checkerboard; `ratio` is the height of a voxel over its width."""
    side = max(shape[0] * ratio, shape[1]) / SQUARES
    rows, columns = np.indices(shape)
    return ((rows * ratio // side) + (columns // side)) % 2 == 0


def _mark_ends(axes: "Axes", view: str) -> None:
    for x, letter, side in zip((0.02, 0.98), ENDS[view], ("left", "right"), strict=True):
        style: dict[str, Any] = {"transform": axes.transAxes, "color": MUTED_COLOR, "family": FONT, "size": 6.5}
        axes.text(x, 0.5, letter, ha=side, va="center", **style)


def _draw_grid(axes: "Axes", lines: list[np.ndarray]) -> None:
    step = max(float(np.ptp(one)) for one in lines) / GRID_LEVELS
    for values in lines:
        levels = np.arange(np.floor(values.min() / step) + 0.5, np.ceil(values.max() / step)) * step
        if min(values.shape) > 1 and len(levels) and step > 0:
            axes.contour(values, levels=levels, colors=[COLORS[0]], linewidths=0.6, linestyles="solid")
