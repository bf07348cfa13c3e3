"""Names from outside are drawn, written and described as they are, whatever they hold."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from medjax.report.bars import bars
from medjax.report.calibration import plot_coverage, plot_reliability, plot_risk_coverage
from medjax.report.curve_panels import plot_curve_panels
from medjax.report.figures import FONT, Scale, curves, montage, png
from medjax.report.gallery import gallery, image_rows
from medjax.report.html import Figure, Report, Section, render
from medjax.report.interval_panels import Estimate, plot_intervals
from medjax.report.intervals import intervals
from medjax.report.overlay import overlay
from medjax.report.points import plot_bland_altman, plot_identity, points
from medjax.report.text import printable, wrap
from medjax.report.violins import plot_paired_violins

NAMES = ("$\\foo$", "$x$", "_hidden", "<b>", "{0}", "50 %", os.fsdecode(b"caf\xe9"), "名前", "a\x07b")
N = len(NAMES)
RAMP = np.arange(4.0)
CUBE = np.arange(8 * 9 * 10, dtype=np.float32).reshape(8, 9, 10)
ONES = np.ones(4)


def _figures():
    series = {name: RAMP + k for k, name in enumerate(NAMES)}
    pairs = {name: (RAMP, RAMP + k) for k, name in enumerate(NAMES)}
    bounds = {name: Estimate(1.0, 0.5, 1.5) for name in NAMES}
    images, one = np.stack([CUBE[..., 0]] * N), NAMES[0]
    samples = np.random.default_rng(0).normal(size=(N, 5))
    yield "montage", lambda: montage(dict.fromkeys(NAMES, CUBE), np.eye(4), scale=Scale(one), title=one, note=one)
    yield "curves", lambda: curves(RAMP + 1, series, one, one, title=one, log_x=True)
    yield "bars", lambda: bars(NAMES, {name: np.ones(N) for name in NAMES}, one, one)
    yield "reliability", lambda: plot_reliability({n: (RAMP / 4, RAMP / 4, ONES) for n in NAMES}, one, one, title=one)
    yield "coverage", lambda: plot_coverage({name: (RAMP / 4, RAMP / 4) for name in NAMES}, title=one)
    yield "risk", lambda: plot_risk_coverage({name: (RAMP / 4, RAMP / 4) for name in NAMES}, one, title=one)
    yield "panels", lambda: plot_curve_panels(RAMP, dict.fromkeys(NAMES, series), one, one, title=one)
    yield "gallery", lambda: gallery(images, None, NAMES, note=one)
    yield "rows", lambda: image_rows(dict.fromkeys(NAMES, images), dict.fromkeys(NAMES, Scale(one, high=9.0)), one)
    yield "estimates", lambda: plot_intervals(dict.fromkeys(NAMES, bounds), title=one)
    yield "intervals", lambda: intervals(NAMES, samples[:, 0], *samples.T[1:3], one, notes=NAMES, title=one)
    yield "overlay", lambda: overlay(dict.fromkeys(NAMES, CUBE), unit=one, title=one, note=one)
    yield "points", lambda: points(pairs, one, one, labels=dict.fromkeys(NAMES, (1.0, 1.0)), title=one)
    yield "Bland–Altman", lambda: plot_bland_altman(pairs, (-1.0, 0.0, 1.0), one, one, title=one)
    yield "identity", lambda: plot_identity(pairs, {}, one, one, title=one)
    yield "violins", lambda: plot_paired_violins(samples, samples, one, NAMES, names=NAMES[:2], title=one)


FIGURES = dict(_figures())


@pytest.mark.parametrize("kind", FIGURES)
def test_names_are_drawn_letter_by_letter_and_none_is_left_out(kind):
    figure = FIGURES[kind]()
    drawn = {text.get_text().replace("\n", " ") for text in figure.findobj(Text)}
    assert {printable(name) for name in NAMES} <= drawn or kind == "violins"  # has numbers behind its names
    assert png(figure).startswith(b"\x89PNG")  # no formula is read, nothing is refused, no warning


@pytest.mark.parametrize("kind", FIGURES)
def test_a_picture_says_what_it_shows_as_its_alternative_text(kind, tmp_path):
    figure, file = FIGURES[kind](), tmp_path / "a.png"
    file.write_bytes(png(figure))
    html = render(Report("T", (), [Section("S", "", [Figure(file, "A caption")])]), {})
    [alt] = [part.partition('"')[0] for part in html.split(' alt="')[1:]]
    assert len(alt) > 20 and alt != "A caption" and "$\\foo$" in alt
    assert alt.isprintable()


@given(st.text(st.characters(), max_size=30))
def test_any_text_can_be_encoded_and_what_can_be_shown_stays(text):
    shown = printable(text)
    shown.encode()
    assert shown.replace("\n", "").replace("\t", "").replace("\ufeff", "").count("\x00") == 0
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_a_byte_that_is_no_text_stands_as_an_escape():
    assert printable(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert printable("a\x00\x1b[31mb\ud800") == "a\\x00\\x1b[31mb\\ud800"


@pytest.mark.parametrize(
    "name", ["LIKELIHOOD-SCHEDULE, 4 samples", "W" * 60, "posterior mean of 4 samples " * 6, "i", ""]
)
def test_a_name_in_lines_is_as_wide_as_it_may_be(name):
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    text, size = wrap(name, 1.8, 8.5)
    assert text.replace("\n", " ") == name.strip() and text.count("\n") <= 2 and size <= 8.5
    font = FontProperties(family=FONT, size=size)
    widths = [text_to_path.get_text_width_height_descent(line, font, False)[0] for line in text.split("\n")]
    assert max(widths) <= 72 * 1.8 * 1.001
