"""What the cells of one column are: numbers, true and false, or texts. Dates and mixtures are refused."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from funcnet.checks import is_number
from funcnet.errors import DataError

__all__ = ["as_text", "column_of_cells", "column_of_series", "is_missing", "is_number_text", "whole"]

# A cell without a value. In a column of texts only the empty cell is one, because "na" may be a text like any other.
_MISSING = {"", "?", "NA", "na", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"}

# 007 is not a number but a code, for example a postcode.
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ALMOST = re.compile(r"[$€£¥+-]?\s*\d[\d.,' ]*\s*[%$€£¥]?", re.ASCII)  # 1,234 or 5 %: meant as a number
_DATE = re.compile(
    r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?|\d{1,2}:\d\d(:\d\d.*)?|\d{1,2}\.?[ -][a-z]{3,9}\.?,?[ -]\d{2,4}"
    r"|[a-z]{3,9}\.? \d{1,2},? \d{4}",
    re.ASCII | re.IGNORECASE,
)
_LARGEST = float(np.finfo(np.float32).max)
_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "boolean"}  # the kinds as pandas names them
_TEXTS = {"string", "categorical", "empty"}
_TIMES = {"datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period", "interval"}

Place = Callable[[Any], str]  #: the numbers of rows -> "line 3", or "rows 0, 2, …"


def is_number_text(cell: str) -> bool:
    """Whether it is a number as programs write one.

    >>> [is_number_text(cell) for cell in ("-1.5e3", ".5", "1,5", "007", "inf")]
    [True, True, False, False, False]
    """
    return _NUMBER.fullmatch(cell) is not None


def as_text(value: Any) -> str:
    """The name of a category or class. A whole number has no point, whatever its dtype.

    >>> as_text(3.0), as_text(True), as_text("a")
    ('3', 'True', 'a')
    """
    if isinstance(value, str):
        return str(value)
    return str(int(value)) if is_number(value) and value == int(value) else str(value)


def is_missing(value: Any, *, sure: bool = False) -> bool:
    """Whether an entry of a column has no value. Where it is `sure` that a column holds texts, `na` is one."""
    if isinstance(value, str):
        return not sure and value in _MISSING
    return value is None or value != value


def column_of_cells(
    name: str,
    cells: Sequence[str],
    place: Place,
    kind: str | None = None,
    *,
    target: bool = False,
    decimal_comma: bool = False,
) -> np.ndarray:
    """The column that these texts stand for: float64 with NaN, booleans, or objects, texts and `None`.

    If its `kind` is not known, it is numbers if all cells are, and texts if most are not. Errors do not advise to leave
    a `target` out.

    >>> column_of_cells("a", ["1", "", "2.5"], str), column_of_cells("b", ["x", ""], str)
    (array([1. , nan, 2.5]), array(['x', None], dtype=object))
    """
    if kind == "text":
        return _texts([cell or None for cell in cells])
    plain = [cell.replace(",", ".", 1) for cell in cells] if decimal_comma else cells
    match = _NUMBER.fullmatch
    numbers = np.array([float(cell) if match(cell) else np.nan for cell in plain])
    numbers[np.abs(numbers) > _LARGEST] = np.nan
    present = np.array([cell not in _MISSING for cell in cells])
    wrong = np.flatnonzero(present & np.isnan(numbers)).tolist()
    if not len(wrong):
        return numbers
    others = [cells[i] for i in wrong]
    if len(wrong) == present.sum() and {cell.lower() for cell in others} <= {"true", "false"}:
        truth = np.array([cell.lower() == "true" for cell in cells])
        return truth if present.all() else np.where(present, truth, np.nan)
    if kind is None and _most(_DATE, others):
        raise _dates(name, others[0], place(wrong[:1]), kind, target)
    if kind is not None or 2 * len(wrong) <= present.sum() or _most(_ALMOST, others):
        raise _not_a_number(name, others[0], place(wrong[:1]), kind)
    return _texts([cell or None for cell in cells])


def column_of_series(
    name: str, series: Any, place: Place, kind: str | None = None, *, target: bool = False
) -> np.ndarray:
    """The column that a series of pandas stands for; see `column_of_cells`."""
    from pandas.api.types import infer_dtype

    found, absent = infer_dtype(series, skipna=True), series.isna().to_numpy()
    first = next((i for i in range(len(series)) if not absent[i]), 0)
    if found in _TIMES or series.dtype.kind in "mM":
        raise _dates(name, str(series.iloc[first]), place([first]), kind, target)
    if found not in _NUMBERS | _TEXTS:
        got = f"{series.iloc[first]!r} in {place([first])}, of the kind {found}; convert it{_or(name, kind, target)}"
        raise DataError(f"expected column {name!r} of numbers or of texts, got {got}.")
    if kind == "text" or found in _TEXTS:
        texts = [None if gone else as_text(value) for value, gone in zip(series, absent, strict=True)]
        known = kind == "number"
        cells = [text or "" for text in texts]
        return column_of_cells(name, cells, place, kind, target=target) if known else _texts(texts)
    if found == "boolean" and not absent.any():
        return series.to_numpy(bool)
    numbers = series.to_numpy(np.float64, na_value=np.nan)
    wrong = np.flatnonzero(np.abs(numbers) > _LARGEST).tolist()
    if len(wrong):
        raise _not_a_number(name, str(numbers[wrong[0]]), place(wrong[:1]), kind)
    return numbers


def whole(values: np.ndarray) -> np.ndarray:
    """Targets that are all whole numbers as integers, for `split(…, stratified=True)`, which takes classes."""
    if values.dtype.kind == "f" and (values % 1 == 0).all() and np.abs(values).max() < 2**53:
        return values.astype(np.int64)
    return values


def _texts(values):
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _most(pattern, cells):
    return 2 * sum(pattern.fullmatch(cell) is not None for cell in cells) > len(cells)


def _or(name, kind, target):
    """The advice to leave a column out, where that is possible: not a target, nor one that a trained model takes."""
    return "" if target or kind == "number" else f", or leave it out with drop={(name,)}"


def _dates(name, value, place, kind, target):
    fix = "put what matters into columns of its own, such as month or weekday" + _or(name, kind, target)
    if target or kind == "number":
        fix = "write numbers in its place, such as days since the first one"
    return DataError(f"expected column {name!r} of numbers or texts, got the date or time {value!r} in {place}; {fix}.")


def _not_a_number(name, value, place, kind):
    fix = f"correct it, or write categories={(name,)} if the column holds texts"
    fix = "correct it, as the training rows have numbers there" if kind == "number" else fix
    return DataError(f"expected column {name!r} of numbers that float32 holds, got {value!r} in {place}; {fix}.")
