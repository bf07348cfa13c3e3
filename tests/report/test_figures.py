"""Figures: left is left, lengths are true, scales are shared, equal input gives equal bytes."""

import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from medjax.errors import DataError
from medjax.report.figures import MR, PET, Scale, curves, montage, png, write_png
from medjax.report.theme import MARK_COLOR

RAS = np.diag([2.0, 2.0, 4.0, 1.0])


def placed(affine, point_mm, shape=(40, 50, 30)):
    """An image that is 1 in a ball of 10 mm about `point_mm`, 0.1 in the middle of the grid."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mm = index @ affine[:3, :3].T + affine[:3, 3]
    image = np.where(np.linalg.norm(mm - point_mm, axis=-1) < 10, 1.0, 0.0).astype(np.float32)
    image[tuple(slice(n // 8, -n // 8) for n in shape)] += 0.1
    return image


def drawn(figure, axes):
    """The pixels of one axes, first row at the top."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float).sum(axis=-1)
    box = axes.get_window_extent()
    rows = slice(round(len(pixels) - box.y1), round(len(pixels) - box.y0))
    return pixels[rows, round(box.x0) : round(box.x1)]


def brightest(pixels):
    """(right, up) of the brightest pixels' middle, as shares of the width and height."""
    rows, columns = np.nonzero(pixels > 0.9 * pixels.max())
    return columns.mean() / pixels.shape[1], 1 - rows.mean() / pixels.shape[0]


def turned(axes, signs):
    """The affine of a grid of (40, 50, 30) RAS voxels stored with these axes and signs, and its shape."""
    shape, affine = (40, 50, 30), np.eye(4)
    affine[:3, :3] = 0
    for column, (row, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[row, column] = sign * RAS[row, row]
        affine[row, 3] = 0 if sign > 0 else (shape[row] - 1) * RAS[row, row]
    return affine, tuple(shape[row] for row in axes)


@pytest.mark.parametrize(
    ("axes", "signs"),
    [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, 1, 1)), ((1, 0, 2), (1, -1, -1)), ((2, 0, 1), (-1, 1, -1))],
)
def test_left_is_left_front_and_head_are_up_whatever_the_affine(axes, signs):
    affine, shape = turned(axes, signs)
    point = (18.0, 74.0, 92.0)  # of 0 to 78, 0 to 98, 0 to 116: left, front, high
    figure = montage({"a": placed(affine, point, shape)}, affine, at_mm=point)
    axial, coronal, sagittal = (brightest(drawn(figure, one)) for one in figure.axes[:3])
    assert axial[0] < 0.35 and axial[1] > 0.65
    assert coronal[0] < 0.35 and coronal[1] > 0.65
    assert sagittal[0] > 0.65 and sagittal[1] > 0.65
    texts = [[text.get_text() for text in one.texts] for one in figure.axes[:3]]
    assert texts == [["L", "R", "z = 92 mm"], ["L", "R", "y = 74 mm"], ["P", "A", "x = 18 mm"]]


def test_a_millimetre_is_as_long_everywhere():
    image = np.ones((40, 50, 30), np.float32)
    figure = montage({"a": image, "b": image}, RAS)
    sizes = [one.get_window_extent().size for one in figure.axes[:6]]
    expected = [(80, 100), (80, 120), (100, 120)] * 2
    np.testing.assert_allclose(np.asarray(sizes) / expected, sizes[0][0] / 80, rtol=1e-6)


def test_images_share_a_scale_but_those_with_their_own():
    truth, noisy, mr = (np.full((20, 20, 20), level, np.float32) for level in (2.0, 5.0, 900.0))
    figure = montage({"truth": truth, "noisy": noisy, "MR": mr}, RAS, other_scales={"MR": MR}, title="t", note="n")
    limits = [one.images[0].get_clim() for one in figure.axes[:9]]
    assert limits == [(0, 2)] * 6 + [(0, 900)] * 3
    bars = figure.axes[9:]
    assert [bar.get_title(loc="left") for bar in bars] == [PET.unit, MR.unit]
    assert [[label.get_text() for label in bar.get_xticklabels()] for bar in bars] == [
        ["0", "1", "2"],
        ["0", "450", "900"],
    ]
    signed = montage({"d": truth - 2.5}, RAS, scale=Scale("difference", "RdBu_r", -1, 1))
    assert signed.axes[0].images[0].get_clim() == (-1, 1)


def test_a_thin_stack_shows_its_axial_slices_and_wide_rows_are_broken():
    images = {str(k): np.ones((30, 30, 1), np.float32) for k in range(7)}
    figure = montage(images, RAS)
    lefts = [round(one.get_position().x0, 3) for one in figure.axes[:7]]
    assert len(figure.axes) == 8 and len(set(lefts)) == 4


def test_a_long_name_stays_over_its_picture():
    image = np.ones((20, 30, 1), np.float32)
    figure = montage({"likelihood schedule, solved step, mean of samples": image, "short": image}, RAS)
    figure.canvas.draw()
    first, second = (next(t for t in figure.texts if t.get_text().startswith(start)) for start in ("like", "short"))
    assert first.get_window_extent().x1 < second.get_window_extent().x0


def test_dark_margins_are_cut():
    image = np.zeros((100, 100, 60), np.float32)
    image[40:70, 30:70, 20:40] = 1
    left, right, bottom, top = montage({"a": image}, np.eye(4)).axes[0].images[0].get_extent()
    assert (left, right, bottom, top) == (24.5, 84.5, 19.5, 79.5)  # 60 mm at least; 8 mm beside


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "expected images of one shape"),
        ({"a": np.ones((3, 3, 3)), "b": np.ones((3, 3, 4))}, r"\(3, 3, 4\).*one shape"),
        ({"a": np.full((3, 3, 3), np.nan)}, "a has NaN"),
    ],
)
def test_what_cannot_be_shown_is_refused(images, message):
    with pytest.raises(DataError, match=message):
        montage(images, RAS)


def test_dark_images_are_shown_dark():
    figure = montage({"a": np.zeros((20, 20, 20), np.float32)}, RAS)
    assert drawn(figure, figure.axes[0]).mean() < 40


def test_lines_are_named_at_their_ends_and_names_keep_apart():
    x = np.arange(1, 21)
    series = {"first": 1 / x, "second": 1 / x + 1e-3, "third": 1 / x + 2e-3, "high": 1 + 0 * x}
    figure = curves(x, series, "iteration", "NRMSE", sd={"first": 0.001 + 0 * x}, title="t", log_x=True)
    (axes,) = figure.axes
    figure.canvas.draw()
    heights = {text.get_text(): text.get_window_extent() for text in axes.texts}
    ordered = [heights[name] for name in ("first", "second", "third", "high")]
    assert all(low.y1 <= high.y0 for low, high in pairwise(ordered))
    assert ordered[0].y1 > axes.bbox.y0 and ordered[-1].y0 < axes.bbox.y1
    assert {text.get_text(): text.get_color() for text in axes.texts} == dict(
        zip(series, (line.get_color() for line in axes.lines), strict=True)
    )
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "iteration"


@pytest.mark.parametrize("series", [{}, {"a": [1.0, 2.0]}])
def test_curves_of_other_lengths_are_refused(series):
    with pytest.raises(DataError, match="expected series of 3"):
        curves([1, 2, 3], series, "x", "y")


def test_no_two_of_many_lines_look_alike():
    axes = curves([1, 2], {f"{number}": [0, number] for number in range(25)}, "x", "y").axes[0]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 25


def test_equal_figures_are_equal_bytes_and_nothing_global_changes(tmp_path):
    before = dict(matplotlib.rcParams)
    image = placed(RAS, (20, 20, 20))
    write_png(tmp_path / "a.png", montage({"a": image}, RAS, title="a", note="b"))
    again = png(montage({"a": image}, RAS, title="a", note="b"))
    assert (tmp_path / "a.png").read_bytes() == again
    assert again.startswith(b"\x89PNG") and again != png(montage({"a": image + 0.1}, RAS, title="a", note="b"))
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_a_mask_fills_its_panels_and_no_slice_misses_it():
    mask = np.zeros((40, 60, 30), bool)
    mask[4:9, 30:44, 10:20] = mask[20:25, 30:44, 10:20] = True  # two lungs: nothing lies between them
    image = np.where(mask, 1.0, 0.0).astype(np.float32)
    shown = montage({"a": image}, RAS, mask=mask)
    filled = [drawn(shown, axes).mean() for axes in shown.axes[:3]]
    whole = [drawn(one, axes).mean() for one in [montage({"a": image}, RAS)] for axes in one.axes[:3]]
    assert min(filled) > 60 and all(here > 1.3 * there for here, there in zip(filled, whole, strict=True))


def test_an_empty_mask_shows_all():
    assert len(montage({"a": np.ones((8, 8, 8), np.float32)}, RAS, mask=np.zeros((8, 8, 8), bool)).axes) == 4


def test_a_mask_is_drawn_as_it_is_and_marked_voxels_are_gray():
    mask, marked = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15], marked[5:10, 5:15, 5:15] = True, True
    scale = Scale("f", "inferno", 0.1, 0.9, clipped=True)
    images = {"f": mask.astype(np.float32), "D": mask.astype(np.float32)}
    figure = montage(images, RAS, mask=mask, scale=scale, marked={"f": marked}, mark="grey: at a bound", note="n")
    first, second = figure.axes[0], figure.axes[3]
    assert first.images[0].get_interpolation() == "nearest" and len(first.images) == 2 and len(second.images) == 1
    shown = np.ma.filled(first.images[0].get_array(), np.nan)
    assert set(shown[np.isfinite(shown)]) == {1.0} and np.isnan(shown).any()
    gray = first.images[1].get_array()
    assert gray[..., 3].sum() == 50 and np.allclose(gray[0, 0, :3], to_rgb(MARK_COLOR))
    assert {"n", "grey: at a bound"} <= {text.get_text() for text in figure.texts}
    assert len(figure.axes[-1].patches) == 2  # arrows beyond both ends
    assert montage({"a": images["f"]}, RAS).axes[0].images[0].get_interpolation() == "bicubic"


def test_deviations_of_few_points_stand_side_by_side_and_of_many_are_outlined():
    series = {name: np.linspace(0, 1, 5) for name in "abc"}
    sd = dict.fromkeys(series, np.full(5, 0.1))
    figure = curves(np.linspace(0.5, 1, 5), series, "x", "y", sd=sd)
    lefts = [bar.get_transform().transform((0.5, 0.0))[0] for bar in figure.axes[0].collections]
    assert len(set(np.round(lefts, 3))) == 3 and lefts[1] == pytest.approx(
        figure.axes[0].transData.transform((0.5, 0))[0]
    )
    ends = figure.axes[0].collections[0].get_paths()[-1].vertices[:, 1]
    np.testing.assert_allclose(ends, [0.9, 1.1])
    [band] = curves(np.arange(20), {"a": np.arange(20)}, "x", "y", sd={"a": np.ones(20)}).axes[0].collections
    assert band.get_facecolor()[0, 3] < 0.1 < band.get_edgecolor()[0, 3]


def test_an_axis_of_whole_numbers_has_whole_ticks():
    for x in ([1, 2, 3, 4], np.arange(1.0, 4.0)):
        [axes] = curves(x, {"a": x}, "iteration", "y").axes
        assert all(float(tick).is_integer() for tick in axes.get_xticks())
    [axes] = curves([0.5, 1.0, 1.5], {"a": [1, 2, 3]}, "x", "y").axes
    assert not all(float(tick).is_integer() for tick in axes.get_xticks())
