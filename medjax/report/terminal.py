"""Tables on the terminal."""

from medjax.report.html import Table, format_cell, is_number


def print_table(table: Table) -> None:
    """Print a table to stdout, numbers right-aligned; long text is folded."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=table.caption or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column, name in enumerate(table.header):
        number = all(is_number(row[column]) for row in table.rows)
        shown.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(format_cell(value)) for value in row))
    Console().print(shown)
