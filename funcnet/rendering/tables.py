"""Tables of plain text."""

from collections.abc import Sequence
from typing import Any

__all__ = ["headed", "numeral", "text_table"]


def text_table(rows: Sequence[Sequence[str]], *, right: int = 0, total: bool = False) -> str:
    """Aligned columns, with a rule below the first row, which holds the headings.

    Args:
        rows: lists of words, all of the same length.
        right: how many of the last columns, those of numbers, are aligned to the right.
        total: whether there is a rule above the last row too.

    >>> print(text_table([("layer", "bytes"), ("dense(16)", "4,160"), ("relu()", "0")], right=1))
    layer      bytes
    ----------------
    dense(16)  4,160
    relu()         0
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = "<" * (len(widths) - right) + ">" * right
    lines = [
        "  ".join(f"{word:{side}{width}}" for word, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    if total:
        lines.insert(-1, rule)
    return "\n".join([lines[0], rule, *lines[1:]])


def numeral(value: float, digits: int = 6) -> str:
    """A number with so many significant digits, and with all those before its point, up to 15.

    >>> numeral(1276193.7), numeral(166178.25), numeral(0.5, 4), numeral(2e30)
    ('1276194', '166178', '0.5', '2e+30')
    """
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e15 else f"{value:.{digits}g}"


def headed(rows: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    """The headings and the lines of words of rows that have `cells()`. The row with the most cells has all headings."""
    cells = [row.cells() for row in rows]
    headings = list(max(cells, key=len))
    return headings, [[words.get(heading, "") for heading in headings] for words in cells]
