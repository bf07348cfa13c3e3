"""The report: one file that needs nothing else, with every text escaped."""

import base64
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure as Drawing

from medjax.errors import DataError
from medjax.report.html import Figure, Report, Section, Table, format_cell, render, write_report
from medjax.report.page_style import STYLE
from medjax.report.terminal import print_table

VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; every tag must be closed in order."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def png(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("figures") / "curve.png"
    Drawing(figsize=(1, 1)).savefig(path)
    return path


def test_it_is_one_file_that_fetches_nothing_and_runs_nothing(png, tmp_path):
    section = Section(
        "Curve", "See https://example.org/x for more.", [Figure(png, "Caption", 'A "curve" <b>')], Table(["a"], [[1]])
    )
    write_report(tmp_path / "report.html", Report("Title", ["Summary."], [section]), {"Command": "medjax run x"})
    html = (tmp_path / "report.html").read_text()
    page = Page(html)
    links = [
        value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href", "srcset")
    ]
    assert [link.partition(",")[0] for link in links] == ["data:image/png;base64"]
    assert base64.b64decode(links[0].partition(",")[2]) == png.read_bytes()
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert "@import" not in html and "url(" not in html
    assert "prefers-color-scheme: dark" in html
    assert dict(page.tags)["img"]["alt"] == 'A "curve" <b>'
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


TEXT = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=8) | st.sampled_from(
    ["</style><script>alert(1)</script>", "a & b < c", '"><img src=x>', "&lt;", "</title>", "<!--", "{0}", "100 %"]
)


@settings(max_examples=50)
@given(st.lists(TEXT, min_size=9, max_size=9))
def test_every_text_is_escaped(texts):
    title, summary, heading, text, header, cell, caption, key, value = texts
    section = Section(heading, text, table=Table([header], [[cell]], caption))
    html = render(Report(title, [summary], [section]), {key: {key: value}, f"{key} one": value})
    page = Page(html)
    plain = Page(
        render(Report("x", ["x"], [Section("x", "x", table=Table(["x"], [["x"]], "x"))]), {"a": {"x": "x"}, "b": "x"})
    )
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert set(texts) <= {piece for piece in page.text} | {"".join(page.text[i : i + 2]) for i in range(len(page.text))}


def test_columns_of_numbers_are_set_to_the_right():
    rows = [["OSEM", np.float32(0.31234), 40, "1"], ["DDS", float("nan"), None, "x"]]
    html = render(Report("T", (), [Section("S", table=Table(["method", "NRMSE", "calls", "note"], rows))]), {})
    cells = re.findall(r"<(th|td)( class=\"number\")?>([^<]*)</", html)
    assert [(text, bool(number)) for _, number, text in cells] == [
        *[("method", False), ("NRMSE", True), ("calls", True), ("note", False)],
        *[("OSEM", False), ("0.3123", True), ("40", True), ("1", False)],
        *[("DDS", False), ("–", True), ("–", True), ("x", False)],
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1234567"), (0.000123456, "0.0001235"), (True, "True"), (np.int64(3), "3"), (2.0, "2")],
)
def test_numbers_have_four_digits_and_counts_have_all(value, text):
    assert format_cell(value) == text


def test_empty_lines_separate_paragraphs():
    html = render(Report("T", (), [Section("S", "one\ntwo\n\n\n\nthree\n")]), {})
    assert re.findall(r"<p>(.*?)</p>", html, re.DOTALL) == ["one\ntwo", "three"]


def test_a_figure_that_is_missing_or_no_png_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no")
    for name, message in (("absent.png", "does not exist"), ("text.png", "is no PNG")):
        with pytest.raises(DataError, match=rf"{name} {message}"):
            write_report(tmp_path / "report.html", Report("T", (), [Section("S", "", [Figure(tmp_path / name)])]))
    assert not (tmp_path / "report.html").exists()


def test_a_row_of_another_length_is_refused():
    with pytest.raises(DataError, match="a table row has 1 cells; expected 2"):
        render(Report("T", (), [Section("S", table=Table(["a", "b"], [[1, 2], [1]]))]), {})


def test_the_terminal_shows_text_as_it_is_and_cuts_nothing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    print_table(Table(["name", "value"], [["a [bold]tag[/bold]", 0.123456], ["long " * 20, None]], "Caption"))
    out = capsys.readouterr().out
    assert "[bold]tag[/bold]" in out and "0.1235" in out
    assert out.split().count("long") == 20


def test_a_figure_opens_at_full_size_by_a_click_without_a_script(png):
    page = Page(
        render(Report("T", (), [Section("S", "", [Figure(png), Figure(png)]), Section("R", "", [Figure(png)])]), {})
    )
    boxes = [attributes for tag, attributes in page.tags if tag == "input"]
    labels = [attributes["for"] for tag, attributes in page.tags if tag == "label"]
    assert [box["id"] for box in boxes] == labels and len({*labels}) == 3
    assert {box["type"] for box in boxes} == {"checkbox"}
    assert ".zoom:checked + label" in STYLE


def test_a_caption_of_a_table_is_not_scrolled_with_it():
    html = render(Report("T", (), [Section("S", table=Table(["a"], [[1]], "Caption"))]), {})
    assert re.search(r"<figure><figcaption>Caption</figcaption>\s*<div class=\"wide\"><table>", html)


def test_what_a_summary_opens_is_printed_whether_it_is_open_or_not():
    html = render(Report("T"), {"Configuration": {"key": "value"}})
    assert "<details><summary>Configuration</summary></details><dl><dt>key</dt>" in html  # not in it: never hidden
    hidden = re.search(r"@media screen \{(.*?)\n\}", STYLE[STYLE.index(".zoom {") :], re.DOTALL)
    assert hidden and "details:not([open]) + dl { display: none; }" in hidden[1]
    assert STYLE.count("display: none") == 1


def test_cells_keep_their_distance():
    """A column of numbers ends where the next column of text begins: both have room on that side."""
    assert "th, td { padding: 0.32rem 0.55rem;" in STYLE
    [number] = re.findall(r"\.number \{(.*?)\}", STYLE)
    assert "padding" not in number


def test_a_notice_stands_above_all_else():
    html = render(Report("T", ["Summary."], notice="Numbers <mean> nothing."), {})
    assert html.index("<h1>") < html.index("Numbers &lt;mean&gt; nothing.") < html.index("Summary.")


def test_an_alternative_text_is_said_by_the_figure_or_the_picture(tmp_path):
    pictures = {}
    for name, metadata in (("told", {"Description": "Curves of a"}), ("plain_picture", {})):
        pictures[name] = tmp_path / f"{name}.png"
        Drawing(figsize=(1, 1)).savefig(pictures[name], metadata=metadata)
    figures = [Figure(pictures["told"], "C", "Own"), *(Figure(path, "C") for path in pictures.values())]
    page = Page(render(Report("T", (), [Section("S", "", figures)]), {}))
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alts == ["Own", "Curves of a", "Figure plain_picture"]


def test_bytes_that_are_no_text_are_written_as_escapes(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    section = Section(name, name, table=Table([name], [[name]], name))
    write_report(tmp_path / "report.html", Report(name, [name], [section]), {"Command": name, name: {name: name}})
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("caf\\xe9.png") == 12


def test_only_the_command_is_set_as_code():
    page = render(Report("Title"), {"Command": "medjax run x", "Repeatability": "Equal runs give equal numbers."})
    assert "<code>medjax run x</code>" in page and "<p><b>Repeatability</b> Equal runs give equal numbers.</p>" in page
