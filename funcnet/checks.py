"""The checks of numbers, choices and keys that all of funcnet shares, and the words of their errors.

An error speaks of the argument alone, `expected rate to be a finite number in [0, 1), got 1.0.` The call is put before
it by `made.constructor`, and by `made.leading` in functions that are not constructors. A number that passes comes back
as Python's own, which takes the dtype of the arrays that it meets. One of NumPy's, as a sweep has them, would impose
its own.
"""

import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnet.dtypes import is_key
from funcnet.errors import ConfigError, DataError, DtypeError, ShapeError, StructureError

__all__ = [
    "as_shaped", "check_choice", "check_count", "check_key", "check_one_array", "check_values", "check_weights",
    "check_where", "describe", "fraction", "is_count", "is_number", "is_one_array", "nonnegative", "number",
    "over_leading_axes", "positive", "unit_interval",
]  # fmt: skip


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


def number(what: str, value: Any) -> float:
    """A finite number, as a Python float; ConfigError for all else."""
    return _number(what, value, "", lambda x: True)


def nonnegative(what: str, value: Any) -> float:
    """A number ≥ 0, as a Python float; ConfigError for all else."""
    return _number(what, value, " >= 0", lambda x: x >= 0)


def positive(what: str, value: Any) -> float:
    """A number > 0, as a Python float; ConfigError for all else."""
    return _number(what, value, " > 0", lambda x: x > 0)


def fraction(what: str, value: Any) -> float:
    """A number in [0, 1), as a Python float; ConfigError for all else."""
    return _number(what, value, " in [0, 1)", lambda x: 0 <= x < 1)


def unit_interval(what: str, value: Any) -> float:
    """A number in [0, 1], as a Python float; ConfigError for all else."""
    return _number(what, value, " in [0, 1]", lambda x: 0 <= x <= 1)


def _number(what, value, bounds, holds):
    if not (is_number(value) and holds(value)):
        raise ConfigError(f"expected {what} to be a finite number{bounds}, got {describe(value)}.")
    return float(value)


def check_count(what: str, value: Any, least: int = 1) -> int:
    """An integer ≥ `least`, as a Python int; ConfigError for all else."""
    if not is_count(value, least):
        kind = "a positive integer" if least == 1 else f"an integer >= {least}"
        raise ConfigError(f"expected {what} to be {kind}, got {describe(value)}.")
    return int(value)


def check_choice(what: str, value: Any, choices: Collection[str]) -> None:
    """One of at least two strings; ConfigError for all else."""
    if not (isinstance(value, str) and value in choices):
        *others, last = (f'"{choice}"' for choice in choices)
        raise ConfigError(f"expected {what} to be {', '.join(others)} or {last}, got {describe(value)}.")


def check_key(key: Any, advice: str = "") -> None:
    """`key` must be one typed or raw PRNG key; more `advice` stands at the end of the error."""
    if is_key(key) and key.shape == ():
        return
    # Keys of `jax.random.PRNGKey` are plain (2,) or (4,) uint32 arrays.
    if getattr(key, "dtype", None) == jnp.uint32 and key.shape in ((2,), (4,)):
        return
    raise DtypeError(
        f"expected key to be a PRNG key, got {describe(key)}; make one with jax.random.key(seed)"
        f"{advice and '; '}{advice}."
    )


# What counts in a loss or metric, and by how much: arrays over leading axes of its values. The values of an array that
# is not a tracer are judged with NumPy, before JAX converts them.


def as_shaped(x: Any) -> Any:
    """`x` itself if it has a shape and a dtype, else (a number, a list) a NumPy array of it."""
    return x if hasattr(x, "shape") and hasattr(x, "dtype") else np.asarray(x)


def is_one_array(x: Any) -> bool:
    """Whether it is an array or numbers of which NumPy makes one, and not `None` or a tree of arrays."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return True
    return x is not None and not isinstance(x, Mapping) and not any(map(np.ndim, jax.tree.leaves(x)))


def check_one_array(what: str, x: Any, fix: str) -> None:
    """Refuse `None` and trees; the fix is that of a tree."""
    if x is None:
        raise StructureError(f"expected {what} to be an array, got None; give one.")
    if not is_one_array(x):
        raise StructureError(f"expected {what} to be one array, got the tree {jax.tree.structure(x)}; {fix}.")


def over_leading_axes(x: Any, ndim: int) -> Any:
    """An array over leading axes, with axes of length 1 appended up to `ndim`."""
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))


def check_where(where: Any, shape: tuple[int, ...]) -> None:
    """The mask is boolean and lies over leading axes of the values, which have `shape`."""
    if where is None:
        return
    where = as_shaped(where)
    if where.dtype != bool:
        raise DtypeError(f"expected where of dtype bool, got {where.dtype}; compare it, as in where != 0.")
    _check_leading("where", where, shape, "mark")


def check_weights(weights: Any, shape: tuple[int, ...], where: Any = None, *, what: str = "weights") -> None:
    """The weights are numbers >= 0 and lie over leading axes of the values; what `where` excludes may be anything."""
    if weights is None:
        return
    weights = as_shaped(weights)
    if not (jnp.issubdtype(weights.dtype, jnp.floating) or jnp.issubdtype(weights.dtype, jnp.integer)):
        fix = "pass booleans as where=" if weights.dtype == bool and what == "weights" else "convert it with .astype"
        raise DtypeError(f"expected {what} of numbers, got dtype {weights.dtype}; {fix}.")
    _check_leading(what, weights, shape, "weigh")
    expected = "finite numbers >= 0"
    fix = "where= leaves out what is not to count" if what == "weights" else "0 is for what is not to count"
    check_values(DataError, what, weights, where, lambda w: np.isfinite(w) & (w >= 0), expected, fix)


def _check_leading(what, x, shape, verb):
    if x.shape != shape[: x.ndim]:
        expected = " or ".join(str(shape[:axes]) for axes in range(1, len(shape) + 1)) or "()"
        raise ShapeError(f"expected {what} of shape {expected}, got {x.shape}; {verb} examples, or single values.")


def check_values(
    error: type[Exception],
    what: str,
    values: Any,
    where: Any,
    is_valid: Callable[[Any], Any],
    expected: str,
    fix: str,
) -> None:
    """An error for the first marked entry that is not valid, if the values can be looked at."""
    if not (_is_concrete(values) and _is_concrete(where)):
        return
    values = np.asarray(values)
    wrong = ~is_valid(values)
    if where is not None:
        marked = np.asarray(where)
        marked = marked.any(tuple(range(wrong.ndim, marked.ndim)))
        wrong &= over_leading_axes(marked, wrong.ndim)
    if np.any(wrong):
        index = tuple(np.argwhere(wrong)[0].tolist())
        place = f" at row {index[0]}" if len(index) == 1 else f" at {list(index)}" if index else ""
        raise error(f"{what} {values[index]}{place}, expected {expected}; {fix}.")


def _is_concrete(x):
    """Whether this process can look at the values."""
    return not isinstance(x, (Tracer, jax.ShapeDtypeStruct)) and getattr(x, "is_fully_addressable", True)
