"""Compiled programs, found again by the equality of what was written."""

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["reused"]


def reused(make: Callable[..., Any], *arguments: Any) -> Any:
    """`make(*arguments)` of a function under `lru_cache`, which finds a program again by the equality of these.

    What has no hash, such as a dictionary of models for an engine of one's own, is made anew.
    """
    try:
        hash(arguments)
    except TypeError:
        make = inspect.unwrap(make)
    return make(*arguments)
