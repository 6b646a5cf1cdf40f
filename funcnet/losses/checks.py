"""What losses check before any mathematics runs: shapes and dtypes always, values where they can be read.

JAX broadcasts (4, 1) against (4,), clamps a label that is too large and wraps one beyond 32 bits, all without an error.
A check is `(prediction, target, where) -> None`. The prediction may be a tracer or a `jax.ShapeDtypeStruct`. The target
is an array, a tree of arrays or `None`. If the target is not a tracer, NumPy reads its values before JAX converts them.
Rows outside `where` may hold anything. The loss puts its name before the error.
"""

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import (
    check_floating,
    check_integers,
    check_one_array,
    check_same_shape,
    check_shape,
    check_values,
    check_where,
    first_wrong,
)
from funcnet.errors import DataError, DtypeError, LabelError, LabelWarning, ShapeError
from funcnet.types import Padded

__all__ = [
    "Check", "check_class_labels", "check_class_probabilities", "check_class_targets", "check_equal_shapes",
    "check_masks", "check_padding", "check_prediction", "check_probabilities", "check_unit_interval",
]  # fmt: skip

Check: TypeAlias = Callable[[Any, Any, Any], None]  #: (prediction, target, where)


def check_prediction(prediction: Any) -> None:
    """The prediction is floating-point. This catches most calls with the order (target, prediction)."""
    check_floating("prediction", prediction, "the order is loss(prediction, target)")


def check_padding(what: str, x: Any, shape: tuple[int, ...]) -> None:
    """If `x` is a `Padded`, the loss has a value at each of its positions. The values have `shape`."""
    if not isinstance(x, Padded):
        return
    if x.where.ndim > len(shape):
        got = f"positions {x.where.shape}; take a loss with a value per position, or reduce over time before it"
        raise ShapeError(f"expected {what} without padding for values of shape {shape}, got a Padded of {got}.")
    check_where(x.where, shape)


def check_equal_shapes(prediction: Any, target: Any, where: Any) -> None:
    """The target has the shape of the prediction, and its dtype, or holds integers or booleans.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_equal_shapes(jnp.ones((4, 1)), jnp.ones(4), None)
    Traceback (most recent call last):
    funcnet.errors.ShapeError: expected target of the shape of prediction, (4, 1), got (4,); reshape one of them.
    """
    del where
    _check_target(target)
    check_same_shape(prediction, target)
    if target.dtype == bool or jnp.issubdtype(target.dtype, jnp.integer):
        return
    check_floating("target", target, "convert it with .astype")
    # NumPy's float64 becomes float32 unless x64 is on.
    wanted, dtype = (jax.dtypes.canonicalize_dtype(one.dtype) for one in (prediction, target))
    if dtype != wanted:
        raise DtypeError(f"expected target of the dtype of prediction, {wanted}, got {dtype}; convert it with .astype.")


def check_unit_interval(prediction: Any, target: Any, where: Any) -> None:
    """As `check_equal_shapes`, and the target is within [0, 1].

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_unit_interval(jnp.ones(2), jnp.array([1.0, -1.0]), None)
    Traceback (most recent call last):
    funcnet.errors.LabelError: expected target in 0..1, got -1.0 at row 1; the classes are 0 and 1, not −1 and 1.
    """
    check_equal_shapes(prediction, target, where)
    fix = "the classes are 0 and 1, not −1 and 1"
    check_values(LabelError, "target in 0..1", target, where, lambda t: (t >= 0) & (t <= 1), fix)


def check_probabilities(prediction: Any, target: Any, where: Any) -> None:
    """As `check_unit_interval`, and the prediction is within [0, 1] too.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_probabilities(jnp.array([1.5]), jnp.array([1]), None)
    Traceback (most recent call last):
    funcnet.errors.DataError: expected prediction in 0..1, got 1.5 at row 0; end with a sigmoid, or take logits.
    """
    check_unit_interval(prediction, target, where)
    _check_unit_prediction(prediction, where, "end with a sigmoid, or take logits")


def check_class_targets(prediction: Any, target: Any, where: Any) -> None:
    """The target is integer labels, one for each row of the prediction, or a distribution over the classes.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_class_targets(jnp.ones((2, 3)), jnp.array([0, 2]), None)
    >>> fn.losses.check_class_targets(jnp.ones((2, 3)), jnp.ones((2, 3)) / 3, None)
    """
    _check_class_axis(prediction)
    _check_target(target)
    if target.shape == prediction.shape:
        check_equal_shapes(prediction, target, where)
        wanted, fix = "target >= 0 in every class", "give each class its probability"
        check_values(LabelError, wanted, target, where, lambda t: ~(t < 0), fix)
        if (wrong := first_wrong(target, where, _sums_to_1)) is not None:
            fix = "divide each row by its sum; where= excludes rows, weights= weighs them"
            warnings.warn(f"expected each row of target to sum to 1, got {wrong}; {fix}.", LabelWarning, stacklevel=2)
    elif target.ndim == prediction.ndim and target.shape[:-1] == prediction.shape[:-1]:
        if target.shape[-1] == 1 and jnp.issubdtype(target.dtype, jnp.integer):
            wanted = f"labels of shape {prediction.shape[:-1]}"
            raise LabelError(f"expected {wanted}, got {target.shape}; take target[..., 0].")
        wanted, got = f"{prediction.shape[-1]} classes, as prediction has", target.shape[-1]
        raise LabelError(f"expected a target of {wanted}, got {got}; make it as wide as the model's output.")
    else:
        check_class_labels(prediction, target, where)


def check_class_probabilities(prediction: Any, target: Any, where: Any) -> None:
    """As `check_class_targets`, and the prediction is within [0, 1].

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_class_probabilities(jnp.array([[0.5, -1.0]]), jnp.array([0]), None)
    Traceback (most recent call last):
    funcnet.errors.DataError: expected prediction in 0..1, got -1.0 at [0, 1]; end with a softmax, or take logits.
    """
    check_class_targets(prediction, target, where)
    _check_unit_prediction(prediction, where, "end with a softmax, or take logits")


def check_masks(prediction: Any, target: Any, where: Any) -> None:
    """The prediction is within [0, 1]. The target is integer labels, or of the shape of the prediction and in [0, 1].

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_masks(jnp.ones((2, 8, 8, 1)), jnp.ones((2, 8, 8)), None)
    Traceback (most recent call last):
    funcnet.errors.ShapeError: expected target of the shape of prediction, (2, 8, 8, 1), got (2, 8, 8); reshape one of them.
    """  # noqa: E501
    check_shape("prediction", prediction, "(…, classes)", "put the classes on the last axis")
    _check_target(target)
    if target.ndim == prediction.ndim or prediction.shape[-1] == 1:
        check_probabilities(prediction, target, where)
    else:
        check_class_labels(prediction, target, where)
        _check_unit_prediction(prediction, where, "end with a softmax")


def check_class_labels(prediction: Any, target: Any, where: Any) -> None:
    """The target is integer labels in 0 … classes − 1, one for each row of the prediction.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.losses.check_class_labels(jnp.ones((2, 3)), jnp.array([0, 3]), None)
    Traceback (most recent call last):
    funcnet.errors.LabelError: expected label in 0..2, got 3 at row 1; number the classes from 0.
    """
    _check_class_axis(prediction)
    _check_target(target)
    *rows, classes = prediction.shape
    fix = f"prediction has shape {prediction.shape}; reshape the labels, or take argmax(-1) of one-hot ones"
    check_shape("target of integer labels", target, f"{tuple(rows)}", fix)
    check_integers("target", target)
    wanted, fix = f"label in 0..{classes - 1}", "number the classes from 0"
    check_values(LabelError, wanted, target, where, lambda t: (t >= 0) & (t < classes), fix)


def _check_unit_prediction(prediction, where, fix):
    check_values(DataError, "prediction in 0..1", prediction, where, lambda p: ~((p < 0) | (p > 1)), fix)


def _check_target(target):
    check_one_array("target", target, "losses.weighted_sum has a loss for each entry")


def _sums_to_1(rows):
    return ~(abs(rows.astype(np.float64).sum(-1) - 1) > 0.01)


def _check_class_axis(prediction):
    check_shape("prediction", prediction, "(…, classes)", "put the classes on the last axis")
    if prediction.shape[-1] == 1:
        fix = "one output is for binary_cross_entropy_with_logits"
        raise ShapeError(f"expected prediction of two or more classes, got shape {prediction.shape}; {fix}.")
