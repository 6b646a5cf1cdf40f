"""Checks of class numbers and class names for pictures."""

from collections.abc import Sized
from typing import Any

import numpy as np

from funcnet.checks import check_shape, describe
from funcnet.errors import LabelError, ShapeError

__all__ = ["check_class_names", "check_class_numbers"]


def check_class_numbers(what: str, classes: Any, n: int) -> None:
    """Check that `classes` holds n integers, from 0."""
    check_shape(what, classes, f"({n},)", "give one for each")
    if not np.issubdtype(classes.dtype, np.integer) or (classes < 0).any():
        raise LabelError(f"expected {what} to be integers from 0, got {describe(classes)}.")


def check_class_names(names: Sized, last: int) -> None:
    """Check that there is a name for each class from 0 to the last."""
    if len(names) <= last:
        raise ShapeError(f"expected class_names for the classes 0..{last}, got {len(names)}.")
