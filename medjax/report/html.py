"""A report as one self-contained html file: figures inside it, no scripts, nothing fetched from elsewhere.

A click on a figure shows it at full size, by a hidden checkbox before it. A summary at the foot opens on a click; what
it opens stands behind it and not in it, so that print, where browsers keep a closed one closed, shows it all.
"""

import base64
import html
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

from medjax.atomic import write_text
from medjax.errors import DataError
from medjax.report.page_style import STYLE
from medjax.report.text import printable

CODE = ("Command",)  # details that are set as code; others are text
Cell = str | int | float | Real | None  # NumPy's numbers are Real


class Figure(NamedTuple):
    """A figure of a report: a PNG, its caption, and what it shows in words, for those who cannot see it."""

    path: Path  # a PNG
    caption: str = ""
    alt: str = ""  # alternative text, another than the caption; default: the description that the PNG holds


class Table(NamedTuple):
    """A table of a report: rows of text and numbers under a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


class Section(NamedTuple):
    """A section of a report. Empty lines in `text` separate paragraphs; it is plain text, not markup."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    table: Table | None = None


class Report(NamedTuple):
    """The content of a report: title, summary and sections."""

    title: str
    summary: Sequence[str] = ()  # paragraphs
    sections: Sequence[Section] = ()
    notice: str = ""  # what must be known before any number is read, above all else


def write_report(path: Path, report: Report, details: Mapping[str, str | Mapping[str, object]] | None = None) -> None:
    """Write a report to `path`; `details` such as {"Command": "…", "Configuration": {…}} go to the foot of the page.

    Empty details are left out.

    Raises:
        DataError: a figure is missing or no PNG, or a table's row is not as long as its header.
        OSError: the file cannot be written.
    """
    write_text(path, render(report, details or {}))


def render(report: Report, details: Mapping[str, str | Mapping[str, object]]) -> str:
    """HTML page of a report; all text is escaped."""
    title, numbers = _escape(report.title), count(1)
    notice = f'<p class="notice">{_escape(report.notice)}</p>\n' if report.notice else ""
    summary = "".join(f"<p>{_escape(paragraph)}</p>\n" for paragraph in report.summary)
    sections = "\n".join(_section(section, numbers) for section in report.sections)
    foot = "\n".join(_detail(name, value) for name, value in details.items() if value)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
{notice}{summary}</header>
{sections}
</main>
<footer>
{foot}
</footer>
</body>
</html>
"""


def format_cell(value: Cell) -> str:
    """Text of a table cell: numbers with four significant digits, a dash for undefined ones."""
    if value is None:
        return "–"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def is_number(value: Cell) -> bool:
    """Whether a table cell is a number, which is right-aligned."""
    return value is None or (isinstance(value, Real) and not isinstance(value, bool))


def _escape(text: str) -> str:
    return html.escape(printable(text))


def _section(section: Section, numbers: Iterator[int]) -> str:
    paragraphs = "".join(f"<p>{_escape(part.strip())}</p>\n" for part in section.text.split("\n\n") if part.strip())
    table = _table(section.table) if section.table else ""
    figures = "".join(_figure(figure, next(numbers)) for figure in section.figures)
    return f"<section>\n<h2>{_escape(section.title)}</h2>\n{paragraphs}{table}{figures}</section>"


def _figure(figure: Figure, number: int) -> str:
    try:
        content = Path(figure.path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"the report's figure {figure.path} does not exist; expected a PNG saved before") from error
    data = base64.b64encode(content).decode()
    alt = _escape(figure.alt or _description(figure.path, content) or f"Figure {Path(figure.path).stem}")
    caption = f"<figcaption>{_escape(figure.caption)}</figcaption>" if figure.caption else ""
    return (
        f'<figure><input type="checkbox" class="zoom" id="figure{number}" aria-label="Figure at full size">'
        f'<label for="figure{number}"><img src="data:image/png;base64,{data}" alt="{alt}"></label>{caption}</figure>\n'
    )


def _description(path: Path, content: bytes) -> str:
    """Description that a PNG holds, as those of this package do."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return str(image.info.get("Description", ""))
    except UnidentifiedImageError as error:
        raise DataError(f"the report's figure {path} is no PNG; expected one") from error


def _table(table: Table) -> str:
    for row in table.rows:
        if len(row) != len(table.header):
            raise DataError(f"a table row has {len(row)} cells; expected {len(table.header)}, as many as the header")
    numeric = [all(is_number(row[column]) for row in table.rows) for column in range(len(table.header))]
    rows = "".join(f"<tr>{_cells('td', map(format_cell, row), numeric)}</tr>\n" for row in table.rows)
    head = f"<thead><tr>{_cells('th', table.header, numeric)}</tr></thead>"
    wide = f'<div class="wide"><table>\n{head}\n<tbody>\n{rows}</tbody>\n</table></div>'
    caption = f"<figcaption>{_escape(table.caption)}</figcaption>\n" if table.caption else ""  # is not scrolled
    return f"<figure>{caption}{wide}</figure>\n"


def _cells(tag: str, texts: Iterable[str], numeric: Sequence[bool]) -> str:
    kinds = [' class="number"' if number else "" for number in numeric]
    return "".join(f"<{tag}{kind}>{_escape(text)}</{tag}>" for text, kind in zip(texts, kinds, strict=True))


def _detail(name: str, value: str | Mapping[str, object]) -> str:
    if isinstance(value, str):
        text = f"<code>{_escape(value)}</code>" if name in CODE else _escape(value)
        return f"<p><b>{_escape(name)}</b> {text}</p>"
    rows = "".join(f"<dt>{_escape(key)}</dt><dd>{_escape(str(item))}</dd>" for key, item in value.items())
    return f"<details><summary>{_escape(name)}</summary></details><dl>{rows}</dl>"
