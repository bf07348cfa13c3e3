"""A report as one self-contained html file: figures inside it, no scripts, nothing fetched from elsewhere."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

from medjax.atomic import write_text
from medjax.errors import DataError

Cell = str | int | float | Real | None  # NumPy's numbers are Real


class Figure(NamedTuple):
    """A figure of a report: a PNG and its caption."""

    path: Path  # a PNG
    caption: str = ""


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


def write_report(path: Path, report: Report, details: Mapping[str, str | Mapping[str, object]] | None = None) -> None:
    """Write a report to `path`; `details` such as {"Command": "…", "Configuration": {…}} go to the foot of the page.

    Raises:
        DataError: a figure is missing or no PNG, or a table's row is not as long as its header.
        OSError: the file cannot be written.
    """
    write_text(path, render(report, details or {}))


def render(report: Report, details: Mapping[str, str | Mapping[str, object]]) -> str:
    """HTML page of a report; all text is escaped."""
    title = escape(report.title)
    summary = "".join(f"<p>{escape(paragraph)}</p>\n" for paragraph in report.summary)
    sections = "\n".join(_section(section) for section in report.sections)
    foot = "\n".join(_detail(name, value) for name, value in details.items())
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
{summary}</header>
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


def _section(section: Section) -> str:
    paragraphs = "".join(f"<p>{escape(part.strip())}</p>\n" for part in section.text.split("\n\n") if part.strip())
    table = _table(section.table) if section.table else ""
    figures = "".join(_figure(figure) for figure in section.figures)
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{paragraphs}{table}{figures}</section>"


def _figure(figure: Figure) -> str:
    try:
        content = Path(figure.path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"the report's figure {figure.path} does not exist; expected a PNG saved before") from error
    if not content.startswith(b"\x89PNG"):
        raise DataError(f"the report's figure {figure.path} is no PNG; expected one")
    data = base64.b64encode(content).decode()
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    return f'<figure><img src="data:image/png;base64,{data}" alt="{escape(figure.caption)}">{caption}</figure>\n'


def _table(table: Table) -> str:
    for row in table.rows:
        if len(row) != len(table.header):
            raise DataError(f"a table row has {len(row)} cells; expected {len(table.header)}, as many as the header")
    numeric = [all(is_number(row[column]) for row in table.rows) for column in range(len(table.header))]
    rows = "".join(f"<tr>{_cells('td', map(format_cell, row), numeric)}</tr>\n" for row in table.rows)
    caption = f"<caption>{escape(table.caption)}</caption>\n" if table.caption else ""
    head = f"<thead><tr>{_cells('th', table.header, numeric)}</tr></thead>"
    return f'<div class="wide"><table>\n{caption}{head}\n<tbody>\n{rows}</tbody>\n</table></div>\n'


def _cells(tag: str, texts: Iterable[str], numeric: Sequence[bool]) -> str:
    kinds = [' class="number"' if number else "" for number in numeric]
    return "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for text, kind in zip(texts, kinds, strict=True))


def _detail(name: str, value: str | Mapping[str, object]) -> str:
    if isinstance(value, str):
        return f"<p><b>{escape(name)}</b> <code>{escape(value)}</code></p>"
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(item))}</dd>" for key, item in value.items())
    return f"<details><summary>{escape(name)}</summary><dl>{rows}</dl></details>"


STYLE = """
:root { --ink: #1d2329; --quiet: #5b6570; --line: #dfe3e7; --page: #fff; --accent: #1f5f8b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e6e8; --quiet: #98a2ab; --line: #343b42; --page: #15191d; --accent: #7fb6db; }
}
* { box-sizing: border-box; }
html { font: 17px/1.6 Charter, "Bitstream Charter", "Iowan Old Style", Cambria, Georgia, serif; }
body { margin: 0; padding: 3.5rem 1.25rem; background: var(--page); color: var(--ink); }
main, footer { max-width: 46rem; margin: 0 auto; }
h1, h2, th, caption, figcaption, footer { font-family: system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 1.2rem; font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; }
h2 { margin: 3rem 0 0.6rem; font-size: 1.2rem; line-height: 1.3; color: var(--accent); }
p { margin: 0 0 0.9rem; hyphens: auto; }
header { padding-bottom: 0.6rem; border-bottom: 1px solid var(--line); }
.wide { margin: 1.4rem 0; overflow-x: auto; }
table { border-collapse: collapse; min-width: 50%; font-size: 0.88rem; font-variant-numeric: tabular-nums lining-nums; }
caption, figcaption { text-align: left; font-size: 0.8rem; line-height: 1.45; color: var(--quiet); }
caption { padding-bottom: 0.5rem; }
th, td { padding: 0.32rem 1.1rem 0.32rem 0; text-align: left; vertical-align: baseline; }
th { font-size: 0.78rem; font-weight: 600; border-bottom: 1.5px solid var(--ink); }
td { border-bottom: 1px solid var(--line); }
.number { padding: 0.32rem 0 0.32rem 1.1rem; text-align: right; white-space: nowrap; }
figure { margin: 1.6rem 0; }
img { display: block; max-width: 100%; height: auto; padding: 0.5rem; background: #fff; border-radius: 4px; }
figcaption { margin-top: 0.6rem; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--line); }
footer { font-size: 0.78rem; color: var(--quiet); }
code, dl { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 0.74rem; }
code { overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1.5rem; margin: 0.6rem 0 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { padding: 0; } section { break-inside: avoid-page; } }
"""
