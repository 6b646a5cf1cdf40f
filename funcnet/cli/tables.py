"""What the commands print: tables for people, JSON for machines."""

from typing import Any

from rich.table import Table

from funcnet import logs

__all__ = ["new_table", "print_json"]


def new_table(title: str, *columns: str) -> Table:
    """A table whose first column holds words and whose others hold numbers."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def print_json(value: Any) -> None:
    """One value on standard output."""
    print(logs.as_json(value))
