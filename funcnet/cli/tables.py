"""What the commands print: tables for people, JSON for machines."""

from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from funcnet import logs
from funcnet.reading import shown

__all__ = ["MOST_CLASSES", "confusion_table", "new_table", "print_json"]

MOST_CLASSES = 1000  # of a confusion matrix: with 40,000 classes it would take 6.4 GB
_MOST_MISTAKES = 20


def new_table(title: str, *columns: str) -> Table:
    """A table whose first column holds words and whose others hold numbers."""
    table = Table(title=escape(shown(title)), title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def confusion_table(counts: np.ndarray, width: int) -> Table:
    """The confusion matrix, or the commonest mistakes where it is wider than `width` characters.

    Args:
        counts: (classes, classes), rows are the true class, columns the predicted one.
        width: of the terminal. The table would leave out columns that do not fit, without a sign.
    """
    cells = [[f"{count:.0f}" if count else "·" for count in row] for row in counts]
    names = [str(i) for i in range(len(counts))]
    columns = [names, *([name, *column] for name, column in zip(names, zip(*cells, strict=True), strict=True))]
    if 1 + sum(max(map(len, column)) + 3 for column in columns) > width:  # two blanks and a line beside each column
        return _mistakes_table(counts)
    table = new_table("rows are the true class, columns the predicted one", "", *names)
    for name, row in zip(names, cells, strict=True):
        table.add_row(name, *row)
    return table


def _mistakes_table(counts):
    """The cells beside the diagonal, the largest first."""
    wrong = counts * (1 - np.eye(len(counts)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_MISTAKES]
    title = f"the commonest mistakes of {len(counts)} classes (--json has the whole matrix)"
    table = new_table(title, "true class", "predicted", "rows")
    for true, predicted in zip(*np.unravel_index(order, counts.shape), strict=True):
        if wrong[true, predicted]:
            table.add_row(str(true), str(predicted), f"{wrong[true, predicted]:.0f}")
    return table


def print_json(value: Any) -> None:
    """One value on standard output."""
    print(logs.as_json(value))
