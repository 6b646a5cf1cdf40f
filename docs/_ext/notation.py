"""How formulas are written in docstrings and pages: plain Unicode, with indices such as `W_jk` and `x_{i+1}`."""

import re
import unicodedata
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Mark", "cells", "has_marks", "marked"]

MARKS = re.compile(
    r"""(?P<word>  [A-Za-z][A-Za-z0-9]{2,} (?:_[A-Za-z0-9]{3,})+ )
      | (?P<lower> (?<=\S)_ (?: \{[^{}]+\} | ⌊[^⌊⌋]+⌋ | [A-Za-z0-9α-ω]+(?:,[a-z])* ) | [₀-₉₊₋ᵢ-ᵥₐ-ₜ]+ )
      | (?P<upper> (?<=\S)\^ (?: \((?:[^()]|\([^()]*\))+\) | ⌊[^⌊⌋]+⌋ | [A-Za-z0-9]+ ) | [²³¹⁰ⁱ⁴-⁹⁺⁻ⁿˣᴬ-ᵛ]+ )
      | (?P<wrong> [_^] )""",
    re.VERBOSE,
)


class Mark(NamedTuple):
    """What stands lower or higher than the line."""

    kind: str  #: "lower" or "upper"
    inside: list["str | Mark"]


def has_marks(text: str) -> bool:
    """Whether anything in it is set lower or higher, or cannot be read."""
    return any(match.lastgroup != "word" for match in MARKS.finditer(text))


def marked(text: str) -> list[str | Mark]:
    """`dW_jk = xᵀ` -> "dW", lower "jk", " = x", upper "T". A name of words, such as `batch_size`, stays as it is."""
    parts: list[str | Mark] = []
    end = 0
    for match in MARKS.finditer(text):
        if match.lastgroup == "word":
            continue
        if match.lastgroup == "wrong":
            near = text[max(0, match.start() - 20) : match.end() + 20]
            raise ValueError(
                f"expected an index such as x_i, x_{{i+1}}, e^x or e^(−x), got {near!r}; code stands in `backticks`."
            )
        parts += [text[end : match.start()], Mark(match.lastgroup, marked(_inside(match[0])))]
        end = match.end()
    return [part for part in (*parts, text[end:]) if part]


def _inside(mark: str) -> str:
    """`_{i+1}` -> i+1, `^(−x)` -> −x, `_i` -> i, `ᵀ` -> T"""
    if mark[0] not in "_^":
        return unicodedata.normalize("NFKC", mark)
    return mark[2:-1] if mark[1] in "{(" else mark[1:]


def cells(formula: str) -> list[list[str]]:
    """The columns of each line, with two or more spaces between them.

    A line that is indented continues the one above it, and stands below the part that begins there.
    """
    lines = formula.strip("\n").splitlines()
    indents = {len(line) - len(line.lstrip()) for line in lines} - {0}
    rows = []
    for line in lines:
        starts = {0, *(gap.end() for gap in re.finditer("  +", line))}
        starts |= {indent for indent in indents if line[indent - 1 : indent] == " "}
        starts = sorted(start for start in starts if start < len(line))
        rows.append([line[start:end].strip() for start, end in pairwise([*starts, None])])
    return rows
