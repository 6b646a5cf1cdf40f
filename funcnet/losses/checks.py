"""What losses check before any mathematics runs: shapes and dtypes always, values where they can be looked at.

JAX broadcasts (4, 1) against (4,), clamps a label that is too large and wraps one beyond 32 bits, all in silence.
A check is `(name, prediction, target, where) -> None`. The prediction may be a tracer or a `jax.ShapeDtypeStruct`. The
values of a target that is no tracer are judged with NumPy, before JAX converts them; rows outside `where` may
hold anything.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnet.errors import DtypeError, LabelError, ShapeError

__all__ = [
    "Check", "as_shaped", "check_class_labels", "check_class_targets", "check_equal_shapes", "check_prediction",
    "check_unit_interval", "check_where", "over_leading_axes",
]  # fmt: skip

Check: TypeAlias = Callable[[str, Any, Any, Any], None]  #: (name, prediction, target, where)


def as_shaped(x: Any) -> Any:
    """`x` itself if it has a shape and a dtype, else (a number, a list) a NumPy array of it."""
    return x if hasattr(x, "shape") and hasattr(x, "dtype") else np.asarray(x)


def over_leading_axes(mask: Any, ndim: int) -> Any:
    """A mask over leading axes, with axes of length 1 appended up to `ndim`."""
    return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))


def check_prediction(name: str, prediction: Any) -> None:
    """The prediction is floating-point; this catches most losses called as (target, prediction)."""
    if not jnp.issubdtype(prediction.dtype, jnp.floating):
        raise DtypeError(
            f"{name}: expected prediction of a floating dtype, got {prediction.dtype}; "
            "the order is loss(prediction, target)."
        )


def check_where(name: str, where: Any, shape: tuple[int, ...]) -> None:
    """The mask is boolean and lies over leading axes of the values, which have `shape`."""
    if where is None:
        return
    where = as_shaped(where)
    if where.dtype != bool:
        raise DtypeError(f"{name}: expected where of dtype bool, got {where.dtype}; compare it, as in where != 0.")
    if where.shape != shape[: where.ndim]:
        expected = " or ".join(str(shape[:axes]) for axes in range(1, len(shape) + 1)) or "()"
        raise ShapeError(
            f"{name}: expected where of shape {expected}, got {where.shape}; mark examples, or single values."
        )


def check_equal_shapes(name: str, prediction: Any, target: Any, where: Any) -> None:
    """The target has the shape of the prediction, and its dtype, or holds integers or booleans.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_equal_shapes("mine", jnp.ones((4, 1)), jnp.ones(4), None)
    Traceback (most recent call last):
    funcnet.errors.ShapeError: mine: expected target of the shape of prediction, (4, 1), got (4,); reshape one of them.
    """
    del where
    if target.shape != prediction.shape:
        raise ShapeError(
            f"{name}: expected target of the shape of prediction, {prediction.shape}, got {target.shape}; "
            "reshape one of them."
        )
    if target.dtype == bool or jnp.issubdtype(target.dtype, jnp.integer):
        return
    # NumPy's float64 becomes float32 unless x64 is on.
    if jnp.issubdtype(target.dtype, jnp.floating):
        dtype = jax.dtypes.canonicalize_dtype(target.dtype)
        if dtype != jax.dtypes.canonicalize_dtype(prediction.dtype):
            raise DtypeError(
                f"{name}: expected target of dtype {prediction.dtype}, the dtype of prediction, got {dtype}; "
                "convert one of them with .astype."
            )
        return
    raise DtypeError(f"{name}: expected target of numbers, got dtype {target.dtype}; convert it with .astype.")


def check_unit_interval(name: str, prediction: Any, target: Any, where: Any) -> None:
    """As `check_equal_shapes`, and the target is within [0, 1].

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_unit_interval("mine", jnp.ones(2), jnp.array([1.0, -1.0]), None)
    Traceback (most recent call last):
    funcnet.errors.LabelError: mine: target -1.0 at row 1, expected 0..1; the classes are 0 and 1, not −1 and 1.
    """
    check_equal_shapes(name, prediction, target, where)
    _check_values(name, target, where, lambda t: (t >= 0) & (t <= 1), "0..1", "the classes are 0 and 1, not −1 and 1")


def check_class_targets(name: str, prediction: Any, target: Any, where: Any) -> None:
    """The target is integer labels, one for each row of the prediction, or one weight for each class.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_class_targets("mine", jnp.ones((2, 3)), jnp.array([0, 2]), None)
    >>> fn.losses.check_class_targets("mine", jnp.ones((2, 3)), jnp.ones((2, 3)) / 3, None)
    """
    _check_class_axis(name, prediction)
    if target.shape == prediction.shape:
        check_equal_shapes(name, prediction, target, where)
    elif target.ndim == prediction.ndim and target.shape[:-1] == prediction.shape[:-1]:
        if target.shape[-1] == 1 and jnp.issubdtype(target.dtype, jnp.integer):
            raise LabelError(
                f"{name}: expected labels of shape {prediction.shape[:-1]}, got {target.shape}; take target[..., 0]."
            )
        raise LabelError(
            f"{name}: expected a target of {prediction.shape[-1]} classes, as prediction has, got {target.shape[-1]}; "
            "make the one-hot target as wide as the model's output."
        )
    else:
        check_class_labels(name, prediction, target, where)


def check_class_labels(name: str, prediction: Any, target: Any, where: Any) -> None:
    """The target is integer labels in 0 … classes − 1, one for each row of the prediction.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_class_labels("mine", jnp.ones((2, 3)), jnp.array([0, 3]), None)
    Traceback (most recent call last):
    funcnet.errors.LabelError: mine: label 3 at row 1, expected 0..2; number the classes from 0.
    """
    _check_class_axis(name, prediction)
    *rows, classes = prediction.shape
    if target.shape != tuple(rows):
        raise ShapeError(
            f"{name}: expected target of integer labels of shape {tuple(rows)} for prediction of shape "
            f"{prediction.shape}, got {target.shape}; reshape the labels, or take argmax(-1) of one-hot ones."
        )
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise LabelError(f"{name}: expected integer labels, got dtype {target.dtype}; convert them with .astype(int).")
    valid = f"0..{classes - 1}"
    _check_values(name, target, where, lambda t: (t >= 0) & (t < classes), valid, "number the classes from 0", "label")


def _check_class_axis(name, prediction):
    if prediction.ndim == 0:
        raise ShapeError(
            f"{name}: expected prediction of shape (batch, classes), got (); put the classes on the last axis."
        )


def _check_values(name, target, where, is_valid, expected, fix, what="target"):
    """LabelError for the first marked entry that is not valid, if the values can be looked at."""
    if not (_is_concrete(target) and _is_concrete(where)):
        return
    target = np.asarray(target)
    wrong = ~is_valid(target)
    if where is not None:
        wrong &= over_leading_axes(np.asarray(where), wrong.ndim)
    if np.any(wrong):
        index = tuple(np.argwhere(wrong)[0].tolist())
        place = f" at row {index[0]}" if len(index) == 1 else f" at {list(index)}" if index else ""
        raise LabelError(f"{name}: {what} {target[index]}{place}, expected {expected}; {fix}.")


def _is_concrete(x):
    """Whether this process can look at the values."""
    return not isinstance(x, (Tracer, jax.ShapeDtypeStruct)) and getattr(x, "is_fully_addressable", True)
