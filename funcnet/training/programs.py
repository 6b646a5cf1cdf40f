"""Compiled programs, which equal arguments share."""

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["reused"]


def reused(make: Callable[..., Any], *arguments: Any) -> Any:
    """`make(*arguments)`, where `make` is under `lru_cache`, so that equal arguments get the same program.

    If an argument has no hash, such as a dictionary of models for a user's own engine, the program is made again.
    """
    try:
        hash(arguments)
    except TypeError:
        make = inspect.unwrap(make)
    return make(*arguments)
