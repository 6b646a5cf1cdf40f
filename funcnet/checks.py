"""The checks of numbers, choices, keys and arrays that all of funcnet shares, and the words of their errors.

An error names the argument alone: `expected rate to be a finite number in [0, 1), got 1.0.` `made.constructor` puts the
call before it, and in functions that are not constructors `made.leading` does. A number that passes comes back as a
Python number, because that takes the dtype of the arrays that it meets. A NumPy number, for example from a sweep, would
impose its own dtype.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnet.dtypes import as_jax_has, is_key
from funcnet.errors import ConfigError, DataError, DtypeError, LabelError, ShapeError, StructureError, either

__all__ = [
    "as_shaped", "check_arrays", "check_choice", "check_count", "check_floating", "check_integers", "check_jax_holds",
    "check_key", "check_kind", "check_like", "check_mask", "check_multiple", "check_one_array", "check_same_shape",
    "check_shape", "check_values", "check_weights", "check_where", "describe", "first_wrong", "fraction", "is_array",
    "is_concrete", "is_count", "is_floating", "is_number", "is_one_array", "listed", "nonnegative", "number",
    "over_leading_axes", "positive", "unit_interval",
]  # fmt: skip


def describe(value: Any) -> str:
    """How an error describes a value.

    Numbers, strings and `None` are shown as they are, arrays by dtype and shape, and others by type. If the text of the
    others is short, it follows.

    >>> import jax.numpy as jnp
    >>> describe(0.5), describe(jnp.ones((2, 3))), describe([0.5])
    ('0.5', 'an array of dtype float32 and shape (2, 3)', 'a list [0.5]')
    """
    if value is None or isinstance(value, Real | str):
        return repr(value)
    if is_array(value):
        return f"an array of dtype {value.dtype} and shape {tuple(value.shape)}"
    text = repr(value)
    return f"a {type(value).__name__}" + (f" {text}" if len(text) <= 40 else "")


def listed(words: Collection[str]) -> str:
    """The first eight words, separated by commas.

    >>> listed([f"layer {i}" for i in range(20)])[-19:]
    'layer 6, layer 7, …'
    """
    return ", ".join([*words][:8]) + (", …" if len(words) > 8 else "")


def is_number(value: Any) -> bool:
    """Whether it is a finite real number of Python or NumPy, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any, least: int = 1) -> bool:
    """Whether it is an integer of Python or NumPy, not a bool, and at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def number(what: str, value: Any) -> float:
    """A finite number, as a Python float; ConfigError for anything else."""
    return _number(what, value, "", lambda x: True)


def nonnegative(what: str, value: Any) -> float:
    """A number ≥ 0, as a Python float; ConfigError for anything else."""
    return _number(what, value, " >= 0", lambda x: x >= 0)


def positive(what: str, value: Any) -> float:
    """A number > 0, as a Python float; ConfigError for anything else."""
    return _number(what, value, " > 0", lambda x: x > 0)


def fraction(what: str, value: Any) -> float:
    """A number in [0, 1), as a Python float; ConfigError for anything else."""
    return _number(what, value, " in [0, 1)", lambda x: 0 <= x < 1)


def unit_interval(what: str, value: Any) -> float:
    """A number in [0, 1], as a Python float; ConfigError for anything else."""
    return _number(what, value, " in [0, 1]", lambda x: 0 <= x <= 1)


def _number(what, value, bounds, holds):
    if not (is_number(value) and holds(value)):
        raise ConfigError(f"expected {what} to be a finite number{bounds}, got {describe(value)}.")
    return float(value)


def check_count(what: str, value: Any, least: int = 1, most: float = math.inf) -> int:
    """An integer from `least` to `most`, as a Python int; ConfigError for anything else."""
    if not is_count(value, least) or value > most:
        kind = "a positive integer" if least == 1 else f"an integer >= {least}"
        kind = f"at most {most}" if is_count(value, least) else kind
        raise ConfigError(f"expected {what} to be {kind}, got {describe(value)}.")
    return int(value)


def check_choice(what: str, value: Any, choices: Collection[str]) -> None:
    """The value must be one of `choices`, at least two strings; ConfigError for anything else."""
    if not (isinstance(value, str) and value in choices):
        wanted = either(f'"{choice}"' for choice in choices)
        raise ConfigError(f"expected {what} to be {wanted}, got {describe(value)}.")


def check_kind(
    what: str, value: Any, kind: Any, wanted: str, fix: str = "", error: type[Exception] = ConfigError
) -> None:
    """The value must be of the type `kind`, or of one of several. `Callable` stands for anything that can be called."""
    if not isinstance(value, kind):
        raise error(f"expected {what} to be {wanted}, got {describe(value)}{_last(fix)}.")


def _last(fix):
    """The end of an error that may have a fix."""
    return fix and f"; {fix}"


def check_key(key: Any, advice: str = "") -> None:
    """`key` must be one typed or raw PRNG key. `advice` is added at the end of the error."""
    if is_key(key) and key.shape == ():
        return
    # Keys of `jax.random.PRNGKey` are plain (2,) or (4,) uint32 arrays.
    if getattr(key, "dtype", None) == jnp.uint32 and key.shape in ((2,), (4,)):
        return
    fix = "make one with jax.random.key(seed)" + _last(advice)
    raise DtypeError(f"expected key to be a PRNG key, got {describe(key)}; {fix}.")


# Arrays: their shape and dtype. These are known under `jit` too, where the checks cost nothing at run time.


def is_array(x: Any) -> bool:
    """Whether it has a shape and a dtype, as arrays, tracers and `jax.ShapeDtypeStruct` have."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def is_floating(x: Any) -> bool:
    """Whether it is an array of floating-point numbers."""
    dtype = getattr(x, "dtype", None)  # those of torch are none of NumPy
    return isinstance(dtype, np.dtype) and jnp.issubdtype(dtype, jnp.floating)


def check_arrays(what: str, tree: Any) -> None:
    """Every leaf must be an array."""
    if not all(map(is_array, jax.tree.leaves(tree))):
        fix = "the example input is a batch, or jax.ShapeDtypeStruct((batch, …), jnp.float32)"
        raise DtypeError(f"expected {what} to be an array or jax.ShapeDtypeStruct, got {describe(tree)}; {fix}.")
    for leaf in jax.tree.leaves(tree):
        check_jax_holds(what, leaf)


def check_jax_holds(what: str, x: Any) -> None:
    """An array of NumPy must hold what jax has: numbers in native byte order, no long double, no larger integers."""
    if not isinstance(x, np.ndarray | np.generic):
        return
    dtype: np.dtype = x.dtype
    is_numeric = dtype.kind == "b" or jnp.issubdtype(dtype, jnp.number)
    if not is_numeric or not dtype.isnative or dtype.type in (np.longdouble, np.clongdouble):
        fix = f"convert it with .astype({as_jax_has(dtype).name!r})" if is_numeric else "give numbers"
        raise DtypeError(f"expected {what} of a dtype that jax has, got {dtype.str} of NumPy; {fix}.")
    held = as_jax_has(dtype)
    if dtype.kind in "iu" and held != dtype and x.size:
        outside = [int(one) for one in (x.min(), x.max()) if not jnp.iinfo(held).min <= one <= jnp.iinfo(held).max]
        if outside:  # jax would keep its last 32 bits
            fix = "jax.config.update('jax_enable_x64', True) makes room"
            raise DtypeError(f"expected {what} of integers that {held} holds, got {outside[0]}; {fix}.")


def check_floating(
    what: str, x: Any, fix: str = "convert it with x.astype(jnp.float32), and scale images to [0, 1] first"
) -> None:
    """`x` must be one array of floating-point numbers."""
    if not is_floating(x):
        raise DtypeError(f"expected {what} of a floating dtype, got {describe(x)}; {fix}.")


def check_integers(what: str, x: Any, error: type[Exception] = LabelError) -> None:
    """`x` must be one array of integers, which usually are labels."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise error(f"expected {what} to be integers, got dtype {x.dtype}; convert them with .astype(int).")


def check_shape(what: str, x: Any, wanted: str, fix: str = "") -> None:
    """`x` must have the shape `wanted`. In it a word stands for any length, and … for any number of axes.

    >>> check_shape("x", np.ones((4, 3)), "(batch, 3)")
    >>> check_shape("x", np.ones((4, 3)), "(batch, …, 5)", "take 5 features")
    Traceback (most recent call last):
    funcnet.errors.ShapeError: expected x of shape (batch, …, 5), got (4, 3); take 5 features.
    """
    shape = np.shape(x)
    if not _fits(shape, wanted):
        raise ShapeError(f"expected {what} of shape {wanted}, got {shape}{_last(fix)}.")


def _fits(shape, wanted):
    axes = re.findall(r"[^(), ]+", wanted)
    if "…" in axes:
        i = axes.index("…")
        axes[i : i + 1] = ["any"] * (len(shape) - len(axes) + 1)
    return len(axes) == len(shape) and all(
        not axis.isdigit() or int(axis) == n for axis, n in zip(axes, shape, strict=True)
    )


def check_multiple(what: str, n: int, k: int, whose: str, fix: str, error: type[Exception] = ShapeError) -> None:
    """`n` must be a multiple of `k`. The error says `whose` number k is."""
    if n % k:
        raise error(f"expected {what} to be a multiple of {k}, {whose}, got {n}; {fix}.")


def check_like(what: str, x: Any, like: Any, why: str, fix: str) -> None:
    """`x` must have the shape and dtype of `like`. The error says `why`; the `fix` is for a wrong shape."""
    if getattr(x, "shape", None) != like.shape:
        got = x.shape if is_array(x) else describe(x)
        raise ShapeError(f"expected {what} of shape {like.shape} {why}, got {got}; {fix}.")
    if x.dtype != like.dtype:
        raise DtypeError(f"expected {what} of dtype {like.dtype} {why}, got {x.dtype}; convert it with .astype.")


# What counts in a loss or metric, and by how much: arrays over leading axes of its values. If such an array is not a
# tracer, NumPy checks its values before JAX converts them.


def as_shaped(x: Any) -> Any:
    """`x` itself if it has a shape and a dtype. Anything else, for example a list, becomes a NumPy array."""
    return x if is_array(x) else np.asarray(x)


def is_one_array(x: Any) -> bool:
    """Whether it is an array, or numbers that NumPy makes into one, and not `None` or a tree of arrays."""
    if is_array(x):
        return True
    return x is not None and not isinstance(x, Mapping) and not any(map(np.ndim, jax.tree.leaves(x)))


def check_one_array(what: str, x: Any, fix: str) -> None:
    """Refuse `None` and trees. The `fix` is for trees."""
    if x is None:
        raise StructureError(f"expected {what} to be an array, got None; give one.")
    if not is_one_array(x):
        raise StructureError(f"expected {what} to be one array, got the tree {jax.tree.structure(x)}; {fix}.")


def check_same_shape(prediction: Any, target: Any) -> None:
    """The target must have the shape of the prediction, because another shape would be broadcast."""
    shape = prediction.shape
    if target.shape != shape:
        raise ShapeError(
            f"expected target of the shape of prediction, {shape}, got {target.shape}; reshape one of them."
        )


def over_leading_axes(x: Any, ndim: int) -> Any:
    """An array over leading axes, with axes of length 1 appended up to `ndim`."""
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))


def check_where(where: Any, shape: tuple[int, ...], what: str = "where") -> None:
    """The mask must be boolean and lie over leading axes of the values, which have the shape `shape`."""
    if where is None:
        return
    where = as_shaped(where)
    check_mask(what, where)
    _check_leading(what, where, shape, "mark")


def check_mask(what: str, x: Any) -> None:
    """`x` must be an array of booleans."""
    if x.dtype != bool:
        raise DtypeError(f"expected {what} of dtype bool, got {x.dtype}; compare it, as in where != 0.")


def check_weights(weights: Any, shape: tuple[int, ...], where: Any = None, *, what: str = "weights") -> None:
    """The weights must be numbers >= 0 over leading axes of the values. What `where` excludes may be anything."""
    if weights is None:
        return
    weights = as_shaped(weights)
    if not (jnp.issubdtype(weights.dtype, jnp.floating) or jnp.issubdtype(weights.dtype, jnp.integer)):
        fix = "pass booleans as where=" if weights.dtype == bool and what == "weights" else "convert it with .astype"
        raise DtypeError(f"expected {what} of numbers, got dtype {weights.dtype}; {fix}.")
    _check_leading(what, weights, shape, "weigh")
    wanted = f"{what} to be finite numbers >= 0"
    fix = "use where to exclude values" if what == "weights" else "use 0 to exclude values"
    check_values(DataError, wanted, weights, where, lambda w: np.isfinite(w) & (w >= 0), fix)


def _check_leading(what, x, shape, verb):
    if x.shape != shape[: x.ndim]:
        expected = " or ".join(str(shape[:axes]) for axes in range(1, len(shape) + 1)) or "()"
        raise ShapeError(f"expected {what} of shape {expected}, got {x.shape}; {verb} examples, or single values.")


def check_values(
    error: type[Exception], wanted: str, values: Any, where: Any, is_valid: Callable[[Any], Any], fix: str
) -> None:
    """Raise `error` for the first marked entry that is not valid, if this process can read the values."""
    if (wrong := first_wrong(values, where, is_valid)) is not None:
        raise error(f"expected {wanted}, got {wrong}; {fix}.")


def first_wrong(values: Any, where: Any, is_valid: Callable[[Any], Any]) -> str | None:
    """The first marked entry that is not valid, and its place; `None` if there is none that this process can read."""
    if not (is_concrete(values) and is_concrete(where)):
        return None
    values = np.asarray(values)
    wrong = ~is_valid(values)
    if where is not None:
        marked = np.asarray(where)
        marked = marked.any(tuple(range(wrong.ndim, marked.ndim)))
        wrong &= over_leading_axes(marked, wrong.ndim)
    if not np.any(wrong):
        return None
    index = tuple(np.argwhere(wrong)[0].tolist())
    place = f" at row {index[0]}" if len(index) == 1 else f" at {list(index)}" if index else ""
    return f"{values[index]}{place}"


def is_concrete(x: Any) -> bool:
    """Whether this process can read the values."""
    return not isinstance(x, (Tracer, jax.ShapeDtypeStruct)) and getattr(x, "is_fully_addressable", True)
