"""The checks of numbers, choices and keys that all of funcnet shares, and the words of their errors.

An error begins with `name`, the call as the user would write it (`spell` makes it), and goes on with the argument:
`dropout(1.0): expected rate to be a finite number in [0, 1), got 1.0.` A number that passes comes back as Python's own,
which takes the dtype of the arrays that it meets; one of NumPy's, as a sweep has them, would impose its own.
"""

import inspect
import math
from collections.abc import Callable, Collection
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.errors import ConfigError, DtypeError

__all__ = [
    "check_choice", "check_count", "check_key", "describe", "fraction", "is_count", "is_number", "nonnegative",
    "number", "positive", "spell", "unit_interval",
]  # fmt: skip


def spell(constructor: Callable[..., Any], *values: Any, **options: Any) -> str:
    """The call as a user would write it: `values` always, `options` where they differ from the default.

    `...` stands for a value that is not shown.

    >>> def dense(features, *, use_bias=True): ...
    >>> spell(dense, 10, use_bias=True), spell(dense, ..., use_bias=False)
    ('dense(10)', 'dense(…, use_bias=False)')
    """
    defaults = inspect.signature(constructor).parameters
    words = [_word(value) for value in values]
    options = {option: _word(value) for option, value in options.items()}
    words += [f"{option}={word}" for option, word in options.items() if word != _word(defaults[option].default)]
    return f"{constructor.__name__}({', '.join(words)})"


def _word(value: Any) -> str:
    """Functions by their name, which for initializers and schedules is the call that made them."""
    if value is ...:
        return "…"
    if type(value) in (tuple, list):
        words = ", ".join(map(_word, value))
        return f"[{words}]" if type(value) is list else f"({words},)" if len(value) == 1 else f"({words})"
    return getattr(value, "__name__", None) or repr(value)


def describe(value: Any) -> str:
    """What an error says it got: numbers, strings and `None` as they are, arrays by dtype and shape, the rest by type.

    >>> import jax.numpy as jnp
    >>> describe(0.5), describe(jnp.ones((2, 3))), describe([0.5])
    ('0.5', 'an array of dtype float32 and shape (2, 3)', 'a list [0.5]')
    """
    if value is None or isinstance(value, Real | str):
        return repr(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of dtype {value.dtype} and shape {tuple(value.shape)}"
    text = repr(value)
    return f"a {type(value).__name__}" + (f" {text}" if len(text) <= 40 else "")


def is_number(value: Any) -> bool:
    """Whether it is a finite real number of Python or NumPy, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any, least: int = 1) -> bool:
    """Whether it is an integer of Python or NumPy, no bool, and at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def number(name: str, what: str, value: Any) -> float:
    """A finite number, as a Python float; ConfigError for all else."""
    return _number(name, what, value, "", lambda x: True)


def nonnegative(name: str, what: str, value: Any) -> float:
    """A number ≥ 0, as a Python float; ConfigError for all else."""
    return _number(name, what, value, " >= 0", lambda x: x >= 0)


def positive(name: str, what: str, value: Any) -> float:
    """A number > 0, as a Python float; ConfigError for all else."""
    return _number(name, what, value, " > 0", lambda x: x > 0)


def fraction(name: str, what: str, value: Any) -> float:
    """A number in [0, 1), as a Python float; ConfigError for all else."""
    return _number(name, what, value, " in [0, 1)", lambda x: 0 <= x < 1)


def unit_interval(name: str, what: str, value: Any) -> float:
    """A number in [0, 1], as a Python float; ConfigError for all else."""
    return _number(name, what, value, " in [0, 1]", lambda x: 0 <= x <= 1)


def _number(name, what, value, bounds, holds):
    if not (is_number(value) and holds(value)):
        raise ConfigError(f"{name}: expected {what} to be a finite number{bounds}, got {describe(value)}.")
    return float(value)


def check_count(name: str, what: str, value: Any, least: int = 1) -> int:
    """An integer ≥ `least`, as a Python int; ConfigError for all else."""
    if not is_count(value, least):
        kind = "a positive integer" if least == 1 else f"an integer >= {least}"
        raise ConfigError(f"{name}: expected {what} to be {kind}, got {describe(value)}.")
    return int(value)


def check_choice(name: str, what: str, value: Any, choices: Collection[str]) -> None:
    """One of at least two strings; ConfigError for all else."""
    if not (isinstance(value, str) and value in choices):
        *others, last = (f'"{choice}"' for choice in choices)
        raise ConfigError(f"{name}: expected {what} to be {', '.join(others)} or {last}, got {describe(value)}.")


def check_key(name: str, key: Any, advice: str = "") -> None:
    """`key` must be one typed or raw PRNG key; more `advice` stands at the end of the error."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.shape == ():
        return
    # Keys of `jax.random.PRNGKey` are plain (2,) or (4,) uint32 arrays.
    if dtype == jnp.uint32 and key.shape in ((2,), (4,)):
        return
    raise DtypeError(
        f"{name}: expected key to be a PRNG key, got {describe(key)}; make one with jax.random.key(seed)"
        f"{advice and '; '}{advice}."
    )
