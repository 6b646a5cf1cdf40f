"""Sequences of several lengths as one batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from funcnet.checks import check_count, describe, listed
from funcnet.data.checks import as_array
from funcnet.errors import DataError, ShapeError
from funcnet.made import leading
from funcnet.types import Padded

__all__ = ["padded"]


def padded(sequences: Sequence[Any], *, length: int | None = None) -> Padded:
    """A `Padded` of sequences of several lengths, filled up behind with zeros.

    Args:
        sequences: arrays (time, …), alike in all but the time. A sequence may be empty.
        length: how many times the batch has. By default these are the longest sequence's, rounded up to 1, 2, 3, 4, 6,
            8, 12, 16, 24, … So batches of many lengths have few shapes, and few programs are compiled for them. At most
            half of a batch's longest sequence is added, and a fifth on average.

    Returns:
        `values` (sequences, length, …) and `where` (sequences, length), of NumPy.

    Raises:
        DataError: the list is empty, or an entry of it is not an array.
        ShapeError: arrays that differ in more than the time, or one longer than `length`.
        ConfigError: `length` is not a positive integer.

    >>> import numpy as np, funcnet as fn
    >>> words = fn.data.padded([[7, 2], [5], [1, 2, 3, 4, 5]])
    >>> words.values
    array([[7, 2, 0, 0, 0, 0],
           [5, 0, 0, 0, 0, 0],
           [1, 2, 3, 4, 5, 0]])
    >>> words.where.sum(1)
    array([2, 1, 5])
    """
    with leading("padded"):
        if not isinstance(sequences, Sequence) or isinstance(sequences, str) or not sequences:
            raise DataError(f"expected a list of sequences, got {describe(sequences)}; give [first, second, …].")
        arrays = [_array(i, one) for i, one in enumerate(sequences)]
        kinds = sorted({f"{one.dtype}{['time', *one.shape[1:]]}".replace("'", "") for one in arrays})
        if len(kinds) > 1:
            raise ShapeError(
                f"expected sequences that differ in their time alone, got {listed(kinds)}; make them alike."
            )
        longest = max(len(one) for one in arrays)
        length = _rounded(longest) if length is None else check_count("length", length)
        if longest > length:
            raise ShapeError(
                f"expected sequences of at most {length} times, got one of {longest}; cut it, or raise length."
            )
    values = np.zeros((len(arrays), length, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, one in zip(values, arrays, strict=True):
        row[: len(one)] = one
    return Padded(values, np.arange(length) < np.array([[len(one)] for one in arrays]))


def _array(i: int, value: Any) -> np.ndarray:
    found = value if hasattr(value, "dtype") else np.asarray(value)
    if found.ndim == 0:
        raise DataError(f"expected sequence {i} with an axis of time, got {describe(value)}.")
    return np.asarray(as_array(f"sequence {i}", found)) if found.size else np.asarray(found)


def _rounded(longest: int) -> int:
    """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, … that is large enough."""
    power = 1 << max(longest - 1, 0).bit_length()
    return power * 3 // 4 if power >= 4 and longest <= power * 3 // 4 else power
