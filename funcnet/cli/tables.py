"""What the commands print: tables for people, JSON for machines."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from funcnet import logs
from funcnet.reading import shown

__all__ = ["MOST_CLASSES", "confusion_table", "new_table", "print_json", "print_lines", "print_table", "width_of_lines"]

MOST_CLASSES = 1000  # of a confusion matrix: with 40,000 classes it would take 6.4 GB
_MOST_MISTAKES = 20
_INDENT = 10  # characters of `rows      ` and the like


def new_table(title: str, *columns: str) -> Table:
    """A table whose first column holds words and whose others hold numbers."""
    table = Table(title=escape(shown(title)), title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def print_table(table: Table) -> None:
    """Print it, or in a terminal that is too narrow, the cells of each row below one another. None is cut off."""
    console = Console()
    if _width(table) <= console.width:
        console.print(table)
        return
    print(Text.from_markup(str(table.title)))
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        print()
        for column, cell in zip(table.columns, cells, strict=True):
            if cell:
                print(Text.from_markup(f"{column.header}  {cell}".strip()))


def width_of_lines() -> int | None:
    """How many characters a line of the terminal has; `None` where nothing limits them, as in a file."""
    console = Console()
    return console.width if console.is_terminal or "COLUMNS" in os.environ else None


def print_lines(text: object) -> None:
    """Print lines that begin with a word of ten characters. What is longer than the terminal goes on below the text."""
    width = width_of_lines()
    for line in str(text).splitlines():
        if width is None or cell_len(line) <= width or width <= 2 * _INDENT:
            print(line, flush=True)
            continue
        parts = Text(line[_INDENT:]).wrap(Console(), width - _INDENT)
        print(line[:_INDENT] + ("\n" + " " * _INDENT).join(part.plain.rstrip() for part in parts), flush=True)


def _width(table: Table) -> int:
    """How many characters its lines need, with two blanks and a line beside each column. Headings may be broken."""
    columns = ([*str(column.header).split(), *column.cells] for column in table.columns)
    return 1 + sum(max(Text.from_markup(str(cell)).cell_len for cell in cells or [""]) + 3 for cells in columns)


def confusion_table(counts: np.ndarray, width: int, names: Sequence[str]) -> Table:
    """The confusion matrix, or the commonest mistakes where it is wider than `width` characters.

    Args:
        counts: (classes, classes), rows are the true class, columns the predicted one.
        width: of the terminal. The table would leave out columns that do not fit, without a sign.
        names: of the classes.
    """
    names = [escape(shown(name)) for name in names]
    if len(counts) < width:  # a larger one is not made at all
        table = new_table("rows are the true class, columns the predicted one", "", *names)
        for name, row in zip(names, counts, strict=True):
            table.add_row(name, *(f"{count:.0f}" if count else "·" for count in row))
        if _width(table) <= width:
            return table
    return _mistakes_table(counts, names)


def _mistakes_table(counts, names):
    """The cells beside the diagonal, the largest first."""
    wrong = counts * (1 - np.eye(len(counts)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_MISTAKES]
    title = f"the commonest mistakes of {len(counts)} classes (--json has the whole matrix)"
    table = new_table(title, "true class", "predicted", "rows")
    for true, predicted in zip(*np.unravel_index(order, counts.shape), strict=True):
        if wrong[true, predicted]:
            table.add_row(names[true], names[predicted], f"{wrong[true, predicted]:.0f}")
    return table


def print_json(value: Any) -> None:
    """One value on standard output."""
    print(logs.as_json(value))
