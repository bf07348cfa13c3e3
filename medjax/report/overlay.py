"""Maps in colour over a grey image: 2-D, or three planes of a volume through one voxel."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real

from medjax.errors import DataError
from medjax.report.color_bars import draw_bars
from medjax.report.figures import ENDS, GAP, NAME, TITLE, _figure
from medjax.report.slices import VIEW_AXES, Scale, reorient_to_ras
from medjax.report.text import FONT, enumerate_names, finish
from medjax.report.theme import BAR, EDGE, MUTED_COLOR, TEXT_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 2.1  # inches
DIMMED = 0.55  # brightness of an image below a map
COLORMAP = "RdBu_r"
SMALL: dict[str, Any] = {"color": MUTED_COLOR, "family": FONT, "size": 6.5, "va": "center"}
BACKGROUND = "mean image"  # name of the image below


class _View(NamedTuple):
    """One plane of every image, rows downwards."""

    planes: dict[str, np.ndarray]
    aspect: float  # height / width
    ends: tuple[str, str]  # letters at the left and right edge


def overlay(
    maps: Mapping[str, Real[np.ndarray, "..."]],
    background: Real[np.ndarray, "..."] | None = None,
    affine: Float[np.ndarray, "4 4"] | None = None,
    *,
    unit: str = "",
    at: Int[np.ndarray, " axis"] | None = None,
    title: str = "",
    note: str = "",
) -> "Figure":
    """Maps of positive (red) and negative (blue) values over a grey image, zero being transparent; on one scale.

    2-D maps are (row, column). Of 3-D ones the axial, coronal and sagittal planes through a voxel are drawn, in
    neurological convention; each map is a column.

    Args:
        maps: maps by name.
        background: image below all of them, on their grid, which is drawn first by itself.
        affine: voxel index → RAS+ mm of volumes; default: voxels of 1 mm, axes as they are.
        unit: name of the quantity, beside the colour bar.
        at: voxel through which the planes go; default: the largest value of the first map.
        title: title of the figure.
        note: a line at the foot.

    Raises:
        DataError: no map, shapes that differ, or values that are not finite.
    """
    images = {**({} if background is None else {BACKGROUND: background}), **maps}
    shapes = {one.shape for one in images.values()}
    if not maps or len(shapes) != 1 or len(next(iter(shapes))) not in (2, 3):
        raise DataError(f"overlay: shapes {sorted(shapes)}; expected maps of one 2-D or 3-D shape")
    if not all(np.isfinite(one).all() for one in images.values()):
        raise DataError("overlay: NaN or infinite values; expected finite ones")
    if at is None:
        first = next(iter(maps.values()))
        at = np.array(np.unravel_index(int(np.argmax(first)), first.shape))
    views = [_flat(images)] if len(at) == 2 else _orthogonal(images, affine, at)
    limit = max(float(np.abs(one).max()) for one in maps.values()) or 1.0
    figure, axes = _grid(list(images), views, title, note)
    for view, row in zip(views, axes, strict=True):
        below = view.planes.get(BACKGROUND)
        for name, cell in zip(images, row, strict=True):
            _draw(cell, below, None if name == BACKGROUND else view.planes[name], limit)
        for x, letter, side in zip((0.02, 0.98), view.ends, ("left", "right"), strict=True):
            row[0].text(
                x,
                0.5,
                letter,
                ha=side,
                va="center",
                transform=row[0].transAxes,
                color=MUTED_COLOR,
                family=FONT,
                size=6.5,
            )
    draw_bars(figure, [Scale(unit, COLORMAP, -limit, limit)], 0.2 if note else 0.0)
    return finish(figure, f"Maps of {unit or 'values'} in colour over a grey image: {enumerate_names(maps)}")


def _flat(images: Mapping[str, np.ndarray]) -> _View:
    height, width = next(iter(images.values())).shape
    return _View(dict(images), height / width, ("", ""))


def _orthogonal(images: Mapping[str, np.ndarray], affine: np.ndarray | None, at: np.ndarray) -> list[_View]:
    mark = np.zeros(next(iter(images.values())).shape, np.float32)
    mark[tuple(at)] = 1  # reoriented with the images, it says where the voxel is
    upright, _, voxel = reorient_to_ras({**images, "at": mark}, np.eye(4) if affine is None else affine)
    index = np.argwhere(upright.pop("at"))[0]
    sizes = np.asarray(next(iter(upright.values())).shape) * voxel
    return [
        _View(
            {name: np.take(one, index[through], through).T[::-1] for name, one in upright.items()},
            float(sizes[up] / sizes[right]),
            ("", "") if affine is None else ENDS[view],
        )
        for view, (right, up, through) in VIEW_AXES.items()
    ]


def _grid(names: list[str], views: list[_View], title: str, note: str) -> tuple["Figure", list[list["Axes"]]]:
    """A figure with a column for each name and a row for each view."""
    heights = [CELL * view.aspect for view in views]
    top = EDGE + (TITLE if title else 0) + NAME
    width = 2 * EDGE + len(names) * (CELL + GAP) - GAP
    height = top + sum(heights) + GAP * (len(views) - 1) + BAR + EDGE + (0.2 if note else 0)
    figure = _figure(width, height)
    axes = list[list["Axes"]]()
    for row, one in enumerate(heights):
        bottom = height - top - sum(heights[: row + 1]) - GAP * row
        lefts = [(EDGE + column * (CELL + GAP)) / width for column in range(len(names))]
        size = (bottom / height, CELL / width, one / height)
        axes.append([figure.add_axes((left, *size), facecolor="black") for left in lefts])
    for column, name in enumerate(names):
        x, y = EDGE + column * (CELL + GAP), height - top + 0.07
        figure.text(x / width, y / height, name, color=TEXT_COLOR, family=FONT, size=8.5)
    if title:
        figure.text(EDGE / width, 1 - 0.33 / height, title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")
    if note:
        figure.text(EDGE / width, 0.12 / height, note, color=MUTED_COLOR, family=FONT, size=6.5)
    return figure, axes


def _draw(axes: "Axes", below: np.ndarray | None, plane: np.ndarray | None, limit: float) -> None:
    axes.set_xticks([]), axes.set_yticks([])
    for edge in axes.spines.values():
        edge.set(visible=False)
    if below is not None:
        low, high = float(below.min()), float(below.max())
        high = high if plane is None else low + (high - low) / DIMMED  # colours are seen better on a dark image
        axes.imshow(below, cmap="gray", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    if plane is not None:
        opacity = np.clip(np.abs(plane) / limit, 0, 1) ** 0.5  # so that half of the largest is well seen
        axes.imshow(
            plane, cmap=COLORMAP, vmin=-limit, vmax=limit, alpha=opacity, aspect="auto", interpolation="nearest"
        )
