"""`prepare`: what is found in the training rows, and nothing of any other row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from funcnet.checks import check_choice, check_count, describe, listed
from funcnet.data.arrays import checked_rows
from funcnet.data.cells import as_text, is_missing
from funcnet.data.columns import Column, columns_of, floats_of, pixels_of
from funcnet.data.preparation import TASKS, Preparation
from funcnet.errors import DataError
from funcnet.made import leading

__all__ = ["class_names", "found_task", "prepare"]

_MOST_CLASSES = 20  # whole numbers with more values are quantities
_LARGEST = float(np.finfo(np.float32).max)
_CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}


def prepare(
    x: Any,
    target: Any,
    *,
    task: str | None = None,
    classes: Sequence[str | None] | None = None,
    most_categories: int = 100,
) -> Preparation:
    """Means, scales, categories and class names of the training rows, and the task that follows from the target.

    Split first, and give the training rows alone. So nothing of the held-out rows is known before they are tested.

    A single target of texts, of booleans, or of whole numbers with at most 20 values, each in two rows or more on
    average, makes `"classes"`. Several targets that are all 0 or 1 make `"labels"`. Other numbers make `"regression"`.
    Whole numbers without repetition and with few gaps are refused, because they look like the numbers of the rows.

    Args:
        x, target: as from `read_table` or `image_folder`. An array of floats (n, …) as x stays as it is.
        task: `"classes"`, `"labels"` or `"regression"`, if it shall not follow from the target.
        classes: the names of all classes, if some may be absent from the training rows.
        most_categories: the most texts that a column may have.

    Raises:
        DataError: a target that does not fit the task, or columns that cannot be learnt from.

    >>> import numpy as np, funcnet as fn
    >>> x = {"age": np.array([20.0, 40.0, np.nan]), "town": np.array(["Bern", "Basel", "Bern"], object)}
    >>> preparation = fn.data.prepare(x, {"pays": np.array([True, False, True])})
    >>> print(preparation)
    task      classes: pays, 2 classes (False 33%, True 67%)
    columns   1 of numbers, 1 of texts (town) -> 4 features
    missing   age 1 of 3 rows
    >>> preparation.feature_names
    ('age', 'age missing', 'town=Basel', 'town=Bern')
    >>> new = {"town": np.array(["Bern", "Paris"], object), "age": np.array([np.nan, 40.0])}
    >>> preparation.rows(new)[0]
    array([[0., 1., 0., 1.],
           [1., 0., 0., 0.]], dtype=float32)
    >>> preparation.unusual(new)
    {'town': {'unknown': 1}}
    """
    with leading("prepare"):
        target = columns_of("target", target, None)
        x = _rows(x)
        size, rows = (len(next(iter(one.values())) if isinstance(one, Mapping) else one) for one in (target, x))
        if rows != size:
            raise DataError(f"expected x and target of one length, got {rows} and {size} rows.")
        task = found_task(target) if task is None else task
        check_choice("task", task, TASKS)
        targets = tuple(_target(name, values, task, classes) for name, values in target.items())
        if task == "classes" and len(targets) != 1:
            raise DataError(f"expected one target of classes, got {listed([*target])}; choose one of them.")
        if not isinstance(x, Mapping):
            if all(np.array_equal(row, x[0]) for row in x):
                raise DataError(f"expected rows that differ, got {size} that are the same; nothing can be learnt.")
            if x.dtype == np.uint8:
                return Preparation(task, _channels(x), targets, size, image_size=x.shape[1:3])
            return Preparation(task, (_whole(x),), targets, size, row_shape=x.shape[1:])
        check_count("most_categories", most_categories)
        columns = [_column(name, values, most_categories) for name, values in x.items()]
        kept = tuple(column for column in columns if not _is_constant(column))
        if not kept:
            got = f"{listed([*x])}, each the same in all rows; add others"
            raise DataError(f"expected a column with several values, got {got}.")
        constant = tuple(column.name for column in columns if _is_constant(column))
        return Preparation(task, kept, targets, size, constant)


def _rows(x):
    """Columns by name, pictures in uint8, or an array of floats."""
    if isinstance(x, Mapping):
        return columns_of("x", x, None)
    pictures = getattr(x, "dtype", None) == np.uint8 and np.ndim(x) == 4
    return pixels_of(x, ("height", "width", "channels")) if pictures else checked_rows(x)


def class_names(target: Mapping[str, np.ndarray]) -> tuple[str | None, ...]:
    """The classes of a single target, in the order of their numbers."""
    ((name, values),) = target.items()
    return _categories(name, values).categories


def found_task(target: Mapping[str, np.ndarray]) -> str:
    """The task that a target looks like."""
    kinds = {values.dtype.kind for values in target.values()}
    if len(target) > 1:
        if not kinds <= set("biuf"):
            texts = [name for name, values in target.items() if values.dtype.kind not in "biuf"]
            raise DataError(f"expected several targets to be numbers, got texts in {listed(texts)}; choose one target.")
        return "labels" if all(np.isin(values, (0, 1)).all() for values in target.values()) else "regression"
    ((name, values),) = target.items()
    if not kinds <= set("iuf"):
        return "classes"
    distinct = np.unique(values)
    if (distinct % 1 != 0).any():
        return "regression"
    if _MOST_CLASSES < len(distinct) == len(values) and distinct[-1] - distinct[0] < 2 * len(values):
        got = f"{distinct[0]:g} to {distinct[-1]:g}, each once, as rows are numbered"
        raise DataError(
            f"expected a target to learn, got {got}, in {name!r}; choose another or write task='regression'."
        )
    return "classes" if len(distinct) <= min(_MOST_CLASSES, len(values) / 2) else "regression"


def _target(name, values, task, classes):
    gone = np.flatnonzero([is_missing(value, sure=True) for value in values])
    if len(gone):
        raise DataError(f"expected the target {name!r} in every row, got none at row {gone[0]}; leave it out.")
    if task == "classes":
        column = _categories(name, values)
        if classes is not None:
            counts = tuple(column.rows_of.get(one, 0) for one in classes)
            column = column._replace(categories=tuple(classes), counts=counts)
        names = [*map(str, column.categories)]
        if len(names) < 2:
            raise DataError(f"expected at least two classes in {name!r}, got {listed(names)} alone; add another.")
        if len(names) > max(_MOST_CLASSES, len(values) / 2):
            got = f"{len(names)} in {len(values)} rows"
            raise DataError(f"expected classes of several rows each in {name!r}, got {got}; choose another target.")
        return column
    if values.dtype.kind not in "biuf":
        fix = "write task='classes', or choose another target"
        raise DataError(f"expected numbers in {name!r} for task={task!r}, got texts as {str(values[0])!r}; {fix}.")
    column = _numbers(name, floats_of(name, values))
    if task == "labels":
        if not np.isin(values, (0, 1)).all():
            raise DataError(f"expected labels 0 and 1 in {name!r}, got {column.low:g} to {column.high:g}.")
    elif column.low == column.high:
        raise DataError(f"expected values that differ in the target {name!r}, got {column.low:g} in every row.")
    return column


def _column(name, values, most_categories):
    if values.dtype.kind in "biuf":
        return _numbers(name, floats_of(name, values))
    if values.dtype.kind not in "OUT":
        raise DataError(f"expected column {name!r} of numbers or texts, got {describe(values)}; convert it.")
    column = _categories(name, values)
    if len(column.categories) > most_categories:
        got = f"{len(column.categories)} in {len(values)} rows"
        fix = f"leave it out with drop={(name,)}, or raise most_categories"
        raise DataError(f"expected at most {most_categories} different texts in column {name!r}, got {got}; {fix}.")
    return column


def _numbers(name, values):
    """The statistics of a column, in float64."""
    there = values[~np.isnan(values)]
    missing = len(values) - len(there)
    if not len(there):
        return Column(name)  # the same in all rows: nothing
    low, high = float(there.min()), float(there.max())
    if not -_LARGEST <= low <= high <= _LARGEST:
        raise DataError(f"expected column {name!r} of numbers that float32 holds, got {low:g} to {high:g}; correct it.")
    mean, scale = float(there.mean()), float(there.std())
    # A program takes float32. Of numbers that are large and close together, it would see a few steps.
    if low < high and scale < 16 * np.spacing(np.float32(max(-low, high))):
        got = f"{low!r} to {high!r}; subtract {low:g} in the file"
        raise DataError(f"expected column {name!r} with differences that float32 can hold, got {got}.")
    return Column(name, (), (), mean, scale if low < high else 1.0, low, high, missing)


def _categories(name, values):
    """The texts of a column with their rows. Numbers are in the order of numbers, and `None` comes last."""
    if values.dtype.kind in "biuf":
        names, counts = np.unique(values, return_counts=True)
        return Column(name, tuple(map(as_text, names)), tuple(map(int, counts)))
    texts = np.array([None if is_missing(value, sure=True) else as_text(value) for value in values], object)
    there = texts != None  # noqa: E711  # for each element
    names, counts = np.unique(texts[there], return_counts=True)
    missing = len(texts) - int(there.sum())
    return Column(
        name, (*map(str, names), *[None] * (missing > 0)), (*map(int, counts), *[missing] * (missing > 0))
    )  # fmt: skip


def _whole(x):
    """One column for all numbers of an array."""
    low, high, mean, scale = x.min(), x.max(), x.mean(dtype=np.float64), x.std(dtype=np.float64)
    return Column("x", (), (), float(mean), float(scale) or 1.0, float(low), float(high))


def _is_constant(column):
    """Whether a column is the same in all rows, so that nothing can be learnt from it."""
    if column.categories:
        return len(column.categories) < 2
    return column.low == column.high and not column.missing


def _channels(pixels):
    """The statistics of each channel in [0, 1], counted exactly from how often each of the 256 values occurs."""
    if pixels.shape[3] not in _CHANNELS:
        raise DataError(f"expected pictures of 1 or 3 channels, got {pixels.shape[3]}; image_folder gives them.")
    levels, columns = np.arange(256) / 255, []
    for i, name in enumerate(_CHANNELS[pixels.shape[3]]):
        counts = np.sum([np.bincount(picture.ravel(), minlength=256) for picture in pixels[..., i]], 0)
        share = counts / counts.sum()
        mean = float(share @ levels)
        scale = float(np.sqrt(share @ (levels - mean) ** 2))
        means = pixels[..., i].mean((1, 2)) / 255
        columns.append(Column(name, (), (), mean, scale or 1.0, float(means.min()), float(means.max())))
    return tuple(columns)
