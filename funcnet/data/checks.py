"""What is checked before training: on the host, once, and vectorised.

Inside a compiled step nothing can raise: an infinity poisons all parameters, and jax itself turns an integer that is
too large for 32 bits into another one, in silence.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.errors import DataError, DtypeError, LabelError

__all__ = ["as_array", "check_data"]


def check_data(x: Any, target: Any, *, integers: bool = False, name: str = "check_data") -> tuple[Any, Any]:
    """Data as training needs it, or an error that says where it is wrong.

    Args:
        x: (n, …), floating-point numbers.
        target: (n, …), numbers: class labels, one-hot rows, values.
        integers: whether `x` may hold integers, such as token ids. Otherwise they are refused: images of 8-bit
            integers are to be scaled first.
        name: what errors begin with.

    Returns: `x` and `target`. Arrays of jax come back as they are, wherever they lie. All others become NumPy arrays,
    contiguous and in native byte order, in the dtype that jax gives them: without 64-bit mode float64 becomes float32
    and int64 int32.

    Raises:
        DataError: no rows, different lengths, `x` and `target` in the wrong order, a value that is NaN or infinite, or
            one that its dtype under jax cannot hold (LabelError for an integer target).
        DtypeError: no numbers, or integers in `x`.

    >>> import numpy as np, funcnet as fn
    >>> x, target = fn.data.check_data(np.ones((3, 2)), np.array([0, 1, 2]))
    >>> x.dtype, target.dtype
    (dtype('float32'), dtype('int32'))
    >>> fn.data.check_data(np.array([[1.0, np.nan]]), np.array([0]))
    Traceback (most recent call last):
    funcnet.errors.DataError: check_data: x[0, 1] is nan; 1 of 1 rows have such values, leave them out or fill them.
    """
    x, target = as_array(name, "x", x), as_array(name, "target", target)
    if not integers and _is_integer(x) and x.ndim == 1 and _is_floating(target) and target.ndim > 1:
        raise DataError(
            f"{name}: expected (x, target), got x of dtype {x.dtype} and shape {x.shape} and target of dtype "
            f"{target.dtype} and shape {target.shape}; they look swapped."
        )
    if len(x) != len(target):
        raise DataError(f"{name}: expected x and target of one length, got {len(x)} and {len(target)} rows.")
    if not (_is_floating(x) or (integers and _is_integer(x))):
        raise DtypeError(
            f"{name}: expected x of a floating dtype, got {x.dtype}; convert it with x.astype(np.float32) and "
            "scale images to [0, 1]. Token ids need integers=True."
        )
    if not (_is_floating(target) or _is_integer(target) or target.dtype == bool):
        raise DtypeError(f"{name}: expected target of a numeric dtype, got {target.dtype}; convert it.")
    return _as_jax_would(name, "x", x), _as_jax_would(name, "target", target)


def as_array(name: str, what: str, value: Any) -> Any:
    """An array of jax as it is, all else as NumPy's; with at least one axis and one element."""
    if not isinstance(value, jax.Array):
        if np.ma.is_masked(value):  # asarray would uncover what lies under the mask
            raise DataError(f"{name}: expected {what} without masked values, got some; leave them out or fill them.")
        try:
            value = np.asarray(value)
        except ValueError as error:  # rows of different lengths
            raise DataError(f"{name}: expected {what} to be an array, got {type(value).__name__}: {error}") from error
    if value.size == 0 or value.ndim == 0:
        raise DataError(f"{name}: expected {what} with at least one row and no empty axis, got shape {value.shape}.")
    return value


def _as_jax_would(name, what, array):
    """`array` in the dtype and layout that jax makes of it, every value the same and finite."""
    converted = array
    if not isinstance(array, jax.Array):
        # canonicalize_dtype takes big-endian dtypes for others than the native ones.
        dtype = jax.dtypes.canonicalize_dtype(array.dtype.newbyteorder("="))
        with np.errstate(over="ignore"):  # an overflow is found below
            converted = np.ascontiguousarray(array, dtype)
    if _is_floating(array):
        if not (jnp if isinstance(array, jax.Array) else np).isfinite(converted).all():
            _raise_at(name, what, np.asarray(array), ~np.isfinite(np.asarray(converted)), converted.dtype)
    elif array.dtype != converted.dtype and (converted != array).any():
        error = LabelError if what == "target" else DataError
        _raise_at(name, what, array, converted != array, converted.dtype, error)
    return converted


def _raise_at(name, what, array, bad, dtype, error=DataError):
    """Name the first `bad` element."""
    places = np.argwhere(bad)
    first = tuple(places[0])
    value = array[first]
    problem = f"{value}" if not np.isfinite(value) else f"{value}, which {dtype} cannot hold"
    raise error(
        f"{name}: {what}[{', '.join(map(str, first))}] is {problem}; {len(np.unique(places[:, 0]))} of "
        f"{len(array)} rows have such values, leave them out or fill them."
    )


def _is_floating(array):
    return jnp.issubdtype(array.dtype, jnp.floating)


def _is_integer(array):
    return jnp.issubdtype(array.dtype, jnp.integer)
