"""Tables on the terminal, and text that it can show whatever its encoding."""

import codecs
import io
import os
import re
import sys
import unicodedata
from collections.abc import Sequence

from medjax.report.html import Table, format_cell, is_number
from medjax.report.text import printable

UNIT = re.compile(
    r"\S+ (?:±|\+/-) \S+|\[[^\]\n]*\]\S*|\S+"
)  # what is never broken: a value with its SD, an interval, a word
GAP = 2  # spaces between columns
HANDLER = "medjax.replace"  # name of the error handler of streams
ASCII = {
    "–": "-", "—": "-", "−": "-", "±": "+/-", "×": "x", "·": "*", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "≈": "~",
    "√": "sqrt", "‘": "'", "’": "'", "“": '"', "”": '"', "Δ": "delta", "α": "alpha", "β": "beta", "δ": "delta",
    "ε": "epsilon", "κ": "kappa", "λ": "lambda", "μ": "u", "ρ": "rho", "σ": "sigma", "χ": "chi",
}  # fmt: skip


def accept_any_text() -> None:
    """Make stdout and stderr accept what their encoding lacks, which is written in ASCII or as an escape."""
    codecs.register_error(HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def to_ascii(text: str) -> str:
    """Text in ASCII: the usual words for symbols, letters without accents, escapes for all else."""
    return "".join(letter if letter.isascii() else _spell(letter) for letter in printable(text))


def print_table(table: Table) -> None:
    """Print a table to stdout, numbers right-aligned; numbers, values with their SD, intervals and words stay whole.

    Long text is folded. Where the terminal is narrower than what stays whole, lines are longer than it. The header is
    bold unless the environment has NO_COLOR.
    """
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    spell = printable if console.encoding.lower().startswith("utf") else to_ascii  # before columns are laid out
    title = Text(spell(table.caption)) if table.caption else None
    shown = RichTable(title=title, title_justify="left", box=None, pad_edge=False)
    shown.header_style = "" if os.environ.get("NO_COLOR") else "bold"
    cells = [[spell(text) for text in row] for row in (table.header, *(map(format_cell, row) for row in table.rows))]
    widths = _widths(cells, console.width)
    for column, width in enumerate(widths):
        number = all(is_number(row[column]) for row in table.rows)
        shown.add_column(Text(_fold(cells[0][column], width)), justify="right" if number else "left", width=width)
    for row in cells[1:]:
        shown.add_row(*(Text(_fold(cell, width)) for cell, width in zip(row, widths, strict=True)))
    console.width = max(console.width, sum(widths) + GAP * (len(widths) - 1))
    console.print(shown)


def _widths(cells: Sequence[Sequence[str]], room: int) -> list[int]:
    """Widths of columns: the widest give way until all fit, but keep what stays whole."""
    from rich.cells import cell_len

    columns = list(zip(*cells, strict=True))
    widths = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    least = [max((cell_len(unit) for cell in column for unit in UNIT.findall(cell)), default=0) for column in columns]
    while sum(widths) + GAP * (len(widths) - 1) > room:
        foldable = [k for k, width in enumerate(widths) if width > least[k]]
        if not foldable:
            break
        widths[max(foldable, key=lambda k: widths[k])] -= 1
    return widths


def _fold(text: str, width: int) -> str:
    """Text in lines of at most that width, broken between units only."""
    from rich.cells import cell_len

    lines = list[str]()
    for line in text.split("\n"):
        lines.append("")
        for unit in UNIT.findall(line):
            joined = f"{lines[-1]} {unit}".lstrip()
            if lines[-1] and cell_len(joined) > width:
                lines.append(unit)
            else:
                lines[-1] = joined
    return "\n".join(lines)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return to_ascii(error.object[error.start : error.end]), error.end


def _spell(letter: str) -> str:
    if letter in ASCII:
        return ASCII[letter]
    bare = "".join(one for one in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(one))
    return "".join(ASCII.get(one, one) for one in bare).encode("ascii", "backslashreplace").decode()
