"""Columns by name: what the training rows say about one, and the arrays of new rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from funcnet.checks import check_shape, describe, is_count, is_number, listed
from funcnet.data.cells import as_text, is_missing
from funcnet.data.tables import Table
from funcnet.errors import DataError, DtypeError, LabelError

__all__ = ["Column", "check_known", "codes_of", "column_of_json", "columns_of", "floats_of", "pixels_of"]


class Column(NamedTuple):
    """What the training rows say about an input column, a channel of pictures or a target."""

    name: str
    categories: tuple[str | None, ...] = ()  #: of texts and classes, `None` last if some were missing
    counts: tuple[int, ...] = ()  #: the rows of each category
    mean: float = 0.0  #: of numbers, as are all below
    scale: float = 1.0  #: the standard deviation √(Σ (x − mean)² / n)
    low: float = 0.0  #: the smallest value; for a channel the smallest mean of a picture
    high: float = 0.0
    missing: int = 0  #: rows without a value

    @property
    def rows_of(self) -> dict[str | None, int]:
        """The rows of each category."""
        return dict(zip(self.categories, self.counts, strict=True))


def column_of_json(entry: dict[str, Any]) -> Column:
    """A column from its fields, each of them checked, because somebody may have edited the file."""
    lists = {name: tuple(entry[name]) for name in ("categories", "counts")}
    column = Column(**{**entry, **lists})
    numbers = all(map(is_number, (column.mean, column.scale, column.low, column.high))) and column.scale > 0
    names = isinstance(column.name, str) and all(one is None or isinstance(one, str) for one in column.categories)
    counts = all(is_count(count, 0) for count in (column.missing, *column.counts))
    if not (numbers and names and counts and len(column.rows_of) == len(column.counts)):
        raise ValueError(f"a wrong entry for the column {column.name!r}")
    return column


def columns_of(what: str, x: Any, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Columns (n,) by name, all of one length. One target may be given as an array."""
    if what == "target" and not isinstance(x, Mapping):
        x = {names[0] if names else what: x}
    if not isinstance(x, Mapping) or not x:
        fix = "read_table gives them"
        raise DataError(f"expected {what} to be a dictionary of columns, got {describe(x)}; {fix}.")
    found = {str(name): np.asarray(values) for name, values in x.items()}
    Table(found).check_names(names or ())
    lengths = {values.shape for values in found.values()}
    if len(lengths) > 1 or len(next(iter(lengths))) != 1 or (0,) in lengths:
        got = listed([f"{name} {values.shape}" for name, values in found.items()])
        raise DataError(f"expected columns of {what} of shape (n,) and one length, got {got}.")
    return found


def floats_of(name: str, values: np.ndarray) -> np.ndarray:
    """A column of numbers or booleans as float64."""
    if values.dtype.kind not in "biuf":
        raise DataError(f"expected column {name!r} of numbers, got {describe(values)}; the training rows have numbers.")
    return values.astype(np.float64)


def pixels_of(x: Any, wanted: Sequence[int | str]) -> np.ndarray:
    """Pictures of these height, width and channels."""
    x = np.asarray(x)
    check_shape("x", x, f"(n, {', '.join(map(str, wanted))})", "read pictures with image_folder or Preparation.read")
    if x.dtype != np.uint8:
        raise DtypeError(f"expected pictures of dtype uint8, got {x.dtype}; image_folder gives them.")
    return x


def check_known(column: Column, values: np.ndarray, place: Callable[[Any], str], fix: str) -> np.ndarray:
    """The number of each class, which must be one that the training rows have."""
    codes = codes_of(column, values)
    unknown = np.flatnonzero(codes < 0)
    if len(unknown):
        known, got = listed([*map(str, column.categories)]), f"{as_text(values[unknown[0]])!r} {place(unknown[:1])}"
        raise LabelError(f"expected a class that training rows have, {known}, got {got}; {fix}.")
    return codes


def codes_of(column: Column, values: np.ndarray) -> np.ndarray:
    """The number of each category, −1 for an unknown one. What is not a text or `None` counts by its name."""
    codes = {category: code for code, category in enumerate(column.categories)}
    names = [None if is_missing(value, sure=True) else as_text(value) for value in values]
    return np.array([codes.get(name, -1) for name in names], np.int32)
