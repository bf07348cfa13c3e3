"""Reports in a real browser, narrow and wide, light and dark."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure as Drawing

from medjax.report.html import Figure, Report, Section, Table, write_report
from tests.browser import SIZES, chromium, faults


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all that reports have: figures, a wide table, a notice, links, details."""
    folder = tmp_path_factory.mktemp("report")
    drawing = Drawing(figsize=(12, 3))
    drawing.add_subplot().plot(np.arange(9.0) ** 2)
    drawing.savefig(folder / "curve.png")
    figure = Figure(folder / "curve.png", "Caption.", "A parabola of nine points")
    wide = Table([f"a long heading {k}" for k in range(12)], [[k / 7 for k in range(12)], ["text"] * 12])
    section = Section("Curve", "See https://example.org/x for more.", [figure], wide)
    details = {"Command": "medjax run x:small --workdir y", "Config": {"a": 1, "b": "c" * 200}}
    write_report(folder / "report.html", Report("Title", ["Summary."], [section]), details)
    return folder / "report.html"


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_a_report_reads_well(browser: Any, report: Path, width: int, scheme: str):
    assert faults(browser, report, width, scheme) == []


def test_faults_are_found(browser: Any, tmp_path: Path):
    """Each kind once, so that the test above can fail."""
    (tmp_path / "bad.html").write_text(
        "<body style='background:#fff'><img src=none.png><a href='#nowhere'>x</a><p style='color:#aaa'>pale</p>"
        "<div style='width:3000px'>wide</div><script>fail()</script><a href='#' tabindex=-1>aside</a>"
        "<a href='#' style='outline:none'>unseen</a>"
    )
    found = "\n".join(faults(browser, tmp_path / "bad.html", 390, "light"))
    for fault in ("without a text", "broken image", "nowhere", "wider", "no language", "contrast 2.3: pale"):
        assert fault in found, found
    assert "does not come to: aside" in found and "without an outline when the Tab key comes to it: unseen" in found
    assert "fail is not defined" in found and "cannot be loaded" in found
