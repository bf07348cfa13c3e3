"""Tables on the terminal, and text that it can show whatever its encoding."""

import codecs
import io
import os
import sys
import unicodedata

from medjax.report.html import Table, format_cell, is_number
from medjax.report.text import printable

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
    """Print a table to stdout, numbers right-aligned and whole; long text is folded.

    Where the terminal is narrower than the numbers, lines are longer than it. The header is bold unless the environment
    has NO_COLOR.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    spell = printable if console.encoding.lower().startswith("utf") else to_ascii  # before columns are laid out
    title = Text(spell(table.caption)) if table.caption else None
    shown = RichTable(title=title, title_justify="left", box=None, pad_edge=False)
    shown.header_style = "" if os.environ.get("NO_COLOR") else "bold"
    for column, name in enumerate(table.header):
        number = all(is_number(row[column]) for row in table.rows)
        shown.add_column(Text(spell(name)), justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in table.rows:
        shown.add_row(*(Text(spell(format_cell(value))) for value in row))
    minimum = Measurement.get(console, console.options.update(width=1000), shown).minimum
    console.width = max(console.width, minimum)
    console.print(shown)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return to_ascii(error.object[error.start : error.end]), error.end


def _spell(letter: str) -> str:
    if letter in ASCII:
        return ASCII[letter]
    bare = "".join(one for one in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(one))
    return "".join(ASCII.get(one, one) for one in bare).encode("ascii", "backslashreplace").decode()
