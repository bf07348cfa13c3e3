"""Paired violin plots: the distributions of two measurements of every subject, back to back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Real

from medjax.errors import DataError
from medjax.report.figures import BACKGROUND_COLOR, COLORS, FONT, MUTED_COLOR, TEXT_COLOR, _dress, _figure
from medjax.report.legends import draw_legend
from medjax.report.text import finish, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUBJECT, HALF = 0.24, 0.42  # inches a subject; half width of its violin, where 1 is the distance of two subjects
MIN_SAMPLES = 3  # for a density; fewer are drawn as points


def plot_paired_violins(
    scan: Real[np.ndarray, "subject _"],
    rescan: Real[np.ndarray, "subject _"],
    quantity: str,
    subjects: Sequence[str],
    *,
    names: tuple[str, str] = ("scan", "rescan"),
    truth: Real[np.ndarray, "subject 2"] | None = None,
    centered: bool = False,
    title: str = "",
) -> "Figure":
    """Violins of the samples of both scans of every subject, in the order of their means; a bar is a scan's mean.

    The left half is the scan, the right half the rescan: Gaussian kernel densities (Scott's bandwidth), all of one
    width. Fewer than three samples, or equal ones, are points.

    Args:
        scan, rescan: samples.
        quantity: what was measured, with its unit.
        subjects: name of each subject.
        names: names of the two measurements.
        truth: true value of each subject in scan and rescan; NaN: unknown.
        centered: values minus the subject's mean of both scans, which stands below it: shows distributions that are
            narrow beside the differences between subjects.
        title: title of the figure.

    Raises:
        DataError: no subject, not as many of each, or samples that are not finite.
    """
    lengths = [len(scan), len(rescan), len(subjects), *([] if truth is None else [len(truth)])]
    if len({*lengths}) > 1 or not lengths[0] or not (np.isfinite(scan).all() and np.isfinite(rescan).all()):
        raise DataError(f"violins: {lengths} subjects; expected one number, finite samples of at least one subject")
    middle = (scan.mean(1) + rescan.mean(1)) / 2
    order = np.argsort(middle, kind="stable")
    width, height = 1.0 + SUBJECT * max(len(order), 12), 4.1
    figure = _figure(width, height)
    box = (0.75 / width, 0.8 / height, 1 - 0.9 / width, 1 - (1.35 if title else 1.1) / height)
    axes = figure.add_axes(box, facecolor=BACKGROUND_COLOR)
    for at, subject in enumerate(order):
        shift = middle[subject] if centered else 0.0
        for side, samples in ((-1, scan), (1, rescan)):
            _draw_half(axes, samples[subject] - shift, at, side)
        if truth is not None:
            xs = at + HALF / 2 * np.array([-1, 1])
            axes.plot(xs, truth[subject] - shift, "D", color=TEXT_COLOR, ms=3.0, mew=0, zorder=4)
    if centered:
        _dress(axes, f"subject (mean of {names[0]} and {names[1]})", f"deviation from the mean, {quantity}")
    else:
        _dress(axes, "subject", quantity)
    marks = [f"{subjects[k]} ({middle[k]:.3g})" if centered else str(subjects[k]) for k in order]
    axes.set_xticks(range(len(order)), [*map(printable, marks)], rotation=90, family=FONT, size=6.5)
    axes.set_xlim(-0.8, len(order) - 0.2)
    if centered:
        axes.axhline(0, color=MUTED_COLOR, lw=0.8)
    _draw_legend(axes, names, truth is not None)
    if title:
        figure.text(0.12 / width, 1 - 0.3 / height, title, color=TEXT_COLOR, family=FONT, size=11, weight="bold")
    return finish(figure, f"Distributions of {quantity} in {names[0]} and {names[1]}, of {len(order)} subjects")


def _draw_half(axes: "Axes", samples: np.ndarray, at: int, side: int) -> None:
    from scipy.stats import gaussian_kde

    color, mean = COLORS[0 if side < 0 else 1], float(samples.mean())
    if len(samples) < MIN_SAMPLES or np.ptp(samples) <= 1e-9 * max(abs(mean), 1e-300):
        axes.plot(np.full(len(samples), at + side * HALF / 2), samples, "o", color=color, ms=3.0, mew=0)
    else:
        density = gaussian_kde(samples)
        reach = 2 * float(density.covariance[0, 0]) ** 0.5
        y = np.linspace(samples.min() - reach, samples.max() + reach, 80)
        heights = density(y)
        axes.fill_betweenx(y, at, at + side * HALF * heights / heights.max(), color=color, alpha=0.75, lw=0)
    axes.plot([at, at + side * HALF], [mean, mean], color=TEXT_COLOR, lw=1.2, solid_capstyle="butt", zorder=3)


def _draw_legend(axes: "Axes", names: tuple[str, str], truth: bool) -> None:
    """Above the axes, so that it covers no data."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: dict[str, Patch | Line2D] = {name: Patch(color=COLORS[k]) for k, name in enumerate(names)}
    handles["mean"] = Line2D([], [], color=TEXT_COLOR, lw=1.2)
    if truth:
        handles["truth"] = Line2D([], [], color=TEXT_COLOR, marker="D", ms=3.0, mew=0, lw=0)
    draw_legend(axes, handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(handles), borderaxespad=0.2)
