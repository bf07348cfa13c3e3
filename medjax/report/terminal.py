"""Tables on the terminal."""

import os

from medjax.report.html import Table, format_cell, is_number


def print_table(table: Table) -> None:
    """Print a table to stdout, numbers right-aligned and whole; long text is folded.

    Where the terminal is narrower than its longest words, lines are longer than the terminal. The header is bold unless
    the environment has NO_COLOR.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=table.caption or None, title_justify="left", box=None, pad_edge=False)
    shown.header_style = "" if os.environ.get("NO_COLOR") else "bold"
    for column, name in enumerate(table.header):
        number = all(is_number(row[column]) for row in table.rows)
        shown.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in table.rows:
        shown.add_row(*(Text(format_cell(value)) for value in row))
    console = Console()
    minimum = Measurement.get(console, console.options.update(width=1000), shown).minimum
    Console(width=max(console.width, minimum)).print(shown)
