"""Figures with Matplotlib: montages of slices of volumes, and curves; no global state is changed.

Equal input gives equal bytes. Images are in neurological convention, the patient's left at the left, and say so.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Bool, Float, Real

from medjax.atomic import replacing
from medjax.errors import DataError
from medjax.report.color_bars import draw_bars
from medjax.report.deviations import draw_deviation
from medjax.report.slices import (
    DEVIATION,
    MR,
    PET,
    VIEW_AXES,
    MontageCell,
    RasGrid,
    Scale,
    center_of_mass,
    check_images,
    complete_scales,
    crop_windows,
    fullest_slices,
    layout,
    mask_windows,
    reorient_to_ras,
)
from medjax.report.text import FONT, enumerate_names, finish, wrap
from medjax.report.theme import BACKGROUND_COLOR, BAR, COLORS, EDGE, LINE_COLOR, MARK_COLOR, MUTED_COLOR, TEXT_COLOR

__all__ = ["DEVIATION", "MR", "PET", "Scale", "curves", "montage", "png", "write_png"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = Real[Array | np.ndarray, " point"] | Sequence[float | int]

DASHES = ("-", "--", ":")  # of the lines that take a colour for the first, second, third time
ENDS = {"axial": ("L", "R"), "coronal": ("L", "R"), "sagittal": ("P", "A")}
WIDTH, GAP, NAME, LINE, TITLE, FOOT = 2.4, 0.07, 0.27, 0.136, 0.36, 0.2  # inches


def montage(
    images: Mapping[str, Real[Array | np.ndarray, "x y z"]],
    affine: Float[np.ndarray, "4 4"],
    *,
    scale: Scale = PET,
    other_scales: Mapping[str, Scale] | None = None,
    at_mm: Sequence[float] | None = None,
    mask: Bool[np.ndarray, "x y z"] | None = None,
    columns: bool | None = None,
    marked: Mapping[str, Bool[np.ndarray, "x y z"]] | None = None,
    mark: str = "",
    title: str = "",
    note: str = "",
) -> "Figure":
    """Montage of axial, coronal and sagittal slices of images on one grid, with colour bars.

    Slices are cropped to the foreground, or to a mask; left is left. Of a stack thinner than a sixth of its width:
    axial slices only.

    Args:
        images: images by name.
        affine: voxel index → RAS+ mm, of all images; slices are upright whatever way its axes point.
        scale: intensity scale of the images.
        other_scales: intensity scales of some images, by name, as of an MR image among PET ones.
        at_mm: position (mm) at which the three slices meet; default: the first image's centre of mass; of a mask, where
            slices have most of it.
        mask: voxels of interest, which alone are drawn, not smoothed; slices are cropped to their box.
        marked: voxels of some images, by name, that are grey: their values are not to be read.
        mark: what the grey voxels are, at the foot.
        columns: whether an image is a column and not a row; default: where there are more than two images.
        title: title of the figure.
        note: a line at the foot, such as the origin of the data.

    Raises:
        DataError: no image, shapes that differ, or values that are not finite.
    """
    arrays = check_images(images)
    upright, corner, voxel = reorient_to_ras(arrays, affine)
    scales = complete_scales(upright, scale, other_scales or {})
    inside = None if mask is None else reorient_to_ras({"mask": mask}, affine)[0]["mask"]
    windows = crop_windows(upright, scales, voxel) if inside is None else mask_windows(inside, voxel)
    space, first = RasGrid(corner, voxel, windows), next(iter(upright.values()))
    at = center_of_mass(first) if inside is None else fullest_slices(inside)
    if at_mm is not None:
        at = (np.asarray(at_mm, float) - corner) / voxel
    index = np.clip(np.rint(at), 0, np.subtract(first.shape, 1)).astype(int)
    gray, notes = reorient_to_ras(marked, affine)[0] if marked else {}, [one for one in (note, mark) if one]
    figure, places = _canvas(layout(list(images), np.asarray(first.shape) * voxel, columns), space, title, notes)
    for cell, axes in places:
        smooth = mask is None  # else the mask's border would mix with what is outside
        shown = upright[cell.name] if inside is None else np.where(inside, upright[cell.name], np.nan)
        _draw_slice(axes, cell, shown, scales[cell.name], space, index, smooth, gray.get(cell.name))
    draw_bars(figure, list(dict.fromkeys(scales.values())), FOOT * len(notes))
    views = enumerate_names(cell.view for cell, _ in places)
    return finish(figure, f"Slices ({views}) of {enumerate_names(images) or 'an image'}")


def curves(
    x: Numbers,
    series: Mapping[str, Numbers],
    xlabel: str,
    ylabel: str,
    *,
    sd: Mapping[str, Numbers] | None = None,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
) -> "Figure":
    """Curves of several series over x, named at their right ends.

    Args:
        x: common abscissa.
        series: values of each curve, by name.
        xlabel: label of the x axis.
        ylabel: label of the y axis.
        sd: standard deviation of the curves that have one, by name: bars of ± sd side by side, or bands of many points.
        title: title of the figure.
        log_x: logarithmic x axis.
        log_y: logarithmic y axis.

    Raises:
        DataError: no series, or one not as long as `x`.
    """
    if not series or any(len(y) != len(x) for y in series.values()):
        raise DataError(f"curves: lengths {[len(y) for y in series.values()]}; expected series of {len(x)}, that of x")
    figure = _figure(6.4, 3.7)
    axes = figure.add_axes((0.11, 0.15, 0.69, 0.72 if title else 0.8), facecolor=BACKGROUND_COLOR)
    marker, styles = "o" if len(x) < 12 else "", cycle((color, dash) for dash in DASHES for color in COLORS)
    for (name, y), (color, dash) in zip(series.items(), styles, strict=False):
        values = np.asarray(y, float)
        axes.plot(x, values, color=color, ls=dash, lw=1.8, solid_capstyle="round", marker=marker, ms=3.5)
        if sd and name in sd:
            draw_deviation(axes, x, values, sd[name], color, list(sd).index(name) - (len(sd) - 1) / 2)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    _dress(axes, xlabel, ylabel, () if log_x else x)
    _name_ends(axes, series)
    if title:
        figure.text(0.02, 0.93, title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")
    return finish(figure, f"Curves of {ylabel} against {xlabel}: {enumerate_names(series)}")


def png(figure: "Figure", dpi: int = 150) -> bytes:
    """PNG file of a figure, as bytes, with its label as description; equal figures give equal bytes."""
    file, description = io.BytesIO(), str(figure.get_label())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a name's: it is a box in the picture
        about = {"Software": None, "Description": description or None}
        figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight", metadata=about)
    return file.getvalue()


def write_png(path: str | Path, figure: "Figure", dpi: int = 150) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(Path(path)) as file:
        file.write(png(figure, dpi))


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=BACKGROUND_COLOR)
    FigureCanvasAgg(figure)
    return figure


def _canvas(
    cells: list[MontageCell], space: RasGrid, title: str, notes: list[str]
) -> tuple["Figure", list[tuple[MontageCell, "Axes"]]]:
    """A figure that holds the cells at one scale, with an axes for each."""
    inch = WIDTH / max(space.size(axis) for axis in range(3))
    sizes = [[space.size(axis) * inch for axis in VIEW_AXES[cell.view][:2]] for cell in cells]
    rows, columns = max(cell.row for cell in cells) + 1, max(cell.column for cell in cells) + 1
    widths, heights, heads = np.zeros(columns), np.zeros(rows), np.zeros(rows)
    one_named = sum(cell.named for cell in cells if cell.row == 0) == 1  # the name has the whole row
    names = dict[MontageCell, tuple[str, float]]()
    for cell, (width, height) in zip(cells, sizes, strict=True):
        widths[cell.column] = max(widths[cell.column], width)
        heights[cell.row] = max(heights[cell.row], height)
    for cell in (one for one in cells if one.named and one.name):
        room = widths.sum() + GAP * (columns - 1) if one_named else widths[cell.column]
        names[cell] = wrap(cell.name, room - 0.02, 8.5)
        heads[cell.row] = max(heads[cell.row], NAME + LINE * names[cell][0].count("\n"))
    lefts = EDGE + np.cumsum(widths + GAP) - widths - GAP
    tops = EDGE + (TITLE if title else 0) + np.cumsum(heights + heads + GAP) - heights - GAP
    total = lefts[-1] + widths[-1] + EDGE, tops[-1] + heights[-1] + BAR + EDGE + FOOT * len(notes)
    figure = _figure(*total)
    places: list[tuple[MontageCell, Axes]] = []
    for cell, (width, height) in zip(cells, sizes, strict=True):
        left = lefts[cell.column] + (widths[cell.column] - width) / 2
        bottom = total[1] - tops[cell.row] - (heights[cell.row] + height) / 2
        box = (left / total[0], bottom / total[1], width / total[0], height / total[1])
        places.append((cell, figure.add_axes(box, facecolor="black")))
        if cell in names:
            x, y = lefts[cell.column] + 0.02, total[1] - tops[cell.row] + 0.07
            name, size = names[cell]
            figure.text(x / total[0], y / total[1], name, color=TEXT_COLOR, family=FONT, size=size, linespacing=1.15)
    if title:
        figure.text(EDGE / total[0], 1 - 0.33 / total[1], title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")
    for row, note in enumerate(notes):
        y = (0.12 + FOOT * row) / total[1]
        figure.text(EDGE / total[0], y, note, color=MUTED_COLOR, family=FONT, size=6.5)
    return figure, places


def _draw_slice(
    axes: "Axes",
    cell: MontageCell,
    image: np.ndarray,
    scale: Scale,
    space: RasGrid,
    index: np.ndarray,
    smooth: bool,
    gray: np.ndarray | None,
) -> None:
    from matplotlib.colors import to_rgba

    right, up, through = VIEW_AXES[cell.view]
    cut = tuple(index[axis] if axis == through else slice(*space.window[axis]) for axis in range(3))
    extent = (*space.extent(right), *space.extent(up))
    axes.imshow(
        image[cut].T, cmap=scale.colormap, vmin=scale.low, vmax=scale.high, extent=extent, origin="lower",
        interpolation="bicubic" if smooth else "nearest", interpolation_stage="data", aspect="auto",
    )  # fmt: skip
    if gray is not None:
        color = np.full((*gray[cut].T.shape, 4), to_rgba(MARK_COLOR))
        color[..., 3] = gray[cut].T
        axes.imshow(color, extent=extent, origin="lower", interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    if not cell.marked:
        return
    style: dict[str, Any] = {"transform": axes.transAxes, "color": MUTED_COLOR, "family": FONT, "size": 6.5}
    for x, letter, side in zip((0.02, 0.98), ENDS[cell.view], ("left", "right"), strict=True):
        axes.text(x, 0.5, letter, ha=side, va="center", **style)
    millimetres = space.corner[through] + index[through] * space.voxel[through]
    axes.text(0.02, 0.025, f"{'xyz'[through]} = {millimetres:.0f} mm".replace("-", "\N{MINUS SIGN}"), **style)


def _dress(axes: "Axes", xlabel: str, ylabel: str, x: Numbers = ()) -> None:
    """Labels, grid and edges; an axis of whole numbers `x` has ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    if len(x) and np.array_equal(x, np.rint(x)):
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    axes.set_xlabel(xlabel, color=MUTED_COLOR, family=FONT, size=8.5)
    axes.set_ylabel(ylabel, color=MUTED_COLOR, family=FONT, size=8.5)
    axes.tick_params(colors=MUTED_COLOR, labelsize=7.5, length=0, which="both")
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(family=FONT)
    axes.grid(axis="y", color=LINE_COLOR, lw=0.6)
    axes.set_axisbelow(True)
    for side, edge in axes.spines.items():
        edge.set(visible=side == "bottom", color=LINE_COLOR)


def _name_ends(axes: "Axes", series: Mapping[str, Any]) -> None:
    """Each line's name right of its last finite point, moved up or down where names would touch."""
    last = [np.asarray(y, float)[np.isfinite(np.asarray(y, float))][-1:] for y in series.values()]
    ends = [axes.transData.transform((1, float(y[0]) if y.size else 0.0))[1] for y in last]
    low, high = axes.transAxes.transform([(0, 0), (0, 1)])[:, 1]
    apart = axes.figure.dpi * 0.16
    order = np.argsort(ends)
    places = np.clip(np.asarray(ends)[order], low, high)
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + apart)
    places -= max(0.0, places[-1] - high)
    for k in range(len(places) - 2, -1, -1):
        places[k] = min(places[k], places[k + 1] - apart)
    for place, k in zip(places, order, strict=True):
        height = (place - low) / (high - low)
        color, name = COLORS[k % len(COLORS)], list(series)[k]
        axes.text(1.02, height, name, color=color, family=FONT, size=8, va="center", transform=axes.transAxes)
