"""Metrics: three pure functions that count, batch by batch, inside `jit` and `scan`. They are never differentiated.

    state = metric.init()
    state = metric.update(state, prediction, target, where)        # for each batch
    value = metric.compute(state)

`where` is a boolean mask over the leading axes, usually over the rows, (batch,): only what it marks counts, so a last
batch that was filled up counts by its own rows. Batches of any size add up to the value for all rows at once. Counts
are int32 and exact (float32 would stop at 2²⁴). A metric of no rows at all is NaN.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import check_count, number, spell
from funcnet.errors import DtypeError, ShapeError
from funcnet.types import Array, LossFn

__all__ = [
    "ClassScores", "Metric", "accuracy", "binary_accuracy", "confusion_matrix", "mean_loss", "precision_recall_f1",
    "r_squared", "top_k_accuracy",
]  # fmt: skip


class Metric(NamedTuple):
    """Three pure functions; your own metric is made of the same three."""

    init: Callable[[], Any]  #: () -> state
    update: Callable[..., Any]  #: (state, prediction, target, where=None) -> state
    compute: Callable[[Any], Any]  #: (state) -> value


class _Count(NamedTuple):
    """The state of a share."""

    hits: Array  #: (), int32
    total: Array  #: (), int32


class _Moments(NamedTuple):
    """The state of R²; each field is (outputs,)."""

    total: Array  #: int32
    origin: Array  #: the first target
    mean: Array  #: of target − origin
    centred: Array  #: Σ (target − its mean)²
    residual: Array  #: Σ (prediction − target)²


class ClassScores(NamedTuple):
    """What `precision_recall_f1` computes; each field is (num_classes,)."""

    precision: Array  #: of those predicted as the class, the share that is
    recall: Array  #: of those in the class, the share found
    f1: Array  #: their harmonic mean


def accuracy() -> Metric:
    """The share of rows whose highest prediction is that of the target's class; the first of equal ones counts.

    Prediction (batch, …, classes), logits or probabilities; target integer labels (batch, …), or one-hot or soft rows
    (batch, …, classes), whose highest entry is the class.

    Raises:
        ShapeError, DtypeError: in `update`, for a target or mask that does not fit.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.accuracy()
    >>> prediction = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    >>> metric.compute(metric.update(metric.init(), prediction, jnp.array([1, 0, 0])))
    Array(0.6666667, dtype=float32)
    """
    name = "accuracy()"

    def hits(prediction, target):
        return jnp.argmax(prediction, -1).astype(jnp.int32) == _labels(name, prediction, target)

    return _share(name, hits)


def binary_accuracy(threshold: float = 0.5) -> Metric:
    """The share of numbers on the right side of a threshold, p ≥ threshold for target 1 and below for 0.

    Prediction and target of one shape: (batch,), (batch, 1), or (batch, labels) for several labels at once.

    Args:
        threshold: 0.5 for probabilities, 0.0 for logits.

    Raises:
        ConfigError: `threshold` is no finite number.
        ShapeError, DtypeError: in `update`, for a target or mask that does not fit.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.binary_accuracy(threshold=0.0)
    >>> metric.compute(metric.update(metric.init(), jnp.array([[-2.0], [3.0]]), jnp.array([[0], [1]])))
    Array(1., dtype=float32)
    """
    name = spell(binary_accuracy, threshold=threshold)
    threshold = number(name, "threshold", threshold)

    def hits(prediction, target):
        _check_same_shape(name, prediction, target)
        return (prediction >= threshold) == (target.astype(prediction.dtype) > 0.5)

    return _share(name, hits)


def top_k_accuracy(k: int) -> Metric:
    """The share of rows whose class is among the `k` highest predictions; of equal ones the first ones are.

    Prediction and target as for `accuracy`.

    Raises:
        ConfigError: `k` is no positive integer.
        ShapeError, DtypeError: in `update`, for fewer than `k` classes, or a target or mask that does not fit.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.top_k_accuracy(2)
    >>> prediction = jnp.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    >>> metric.compute(metric.update(metric.init(), prediction, jnp.array([1, 2])))
    Array(0.5, dtype=float32)
    """
    name = spell(top_k_accuracy, k)
    k = check_count(name, "k", k)

    def hits(prediction, target):
        labels = _labels(name, prediction, target)
        if k > prediction.shape[-1]:
            raise ShapeError(f"{name}: expected at least {k} classes, got prediction of shape {prediction.shape}.")
        return jnp.any(jax.lax.top_k(prediction, k)[1] == labels[..., None], -1)

    return _share(name, hits)


def confusion_matrix(num_classes: int) -> Metric:
    """How often each class was taken for which, (num_classes, num_classes) int32: rows are true, columns predicted.

    Prediction and target as for `accuracy`. Labels outside 0 … num_classes − 1 are not counted.

    Raises:
        ConfigError: `num_classes` is no integer of at least 2.
        ShapeError, DtypeError: in `update`, for another number of classes, or a target or mask that does not fit.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.confusion_matrix(2)
    >>> prediction = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    >>> metric.compute(metric.update(metric.init(), prediction, jnp.array([1, 0, 0])))
    Array([[1, 1],
           [0, 1]], dtype=int32)
    """
    return _confusion_matrix(spell(confusion_matrix, num_classes), num_classes)


def precision_recall_f1(num_classes: int) -> Metric:
    """Precision, recall and F1 of each class, from the confusion matrix; their means are the macro averages.

    With m the matrix: precision_k = m_kk / Σ_i m_ik, recall_k = m_kk / Σ_j m_kj, and
    F1_k = 2 m_kk / (Σ_i m_ik + Σ_j m_kj), their harmonic mean. 0/0, for a class that was never predicted or does not
    occur, is 0.

    Prediction and target as for `accuracy`. The value is a `ClassScores`.

    Raises:
        ConfigError, ShapeError, DtypeError: as for `confusion_matrix`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.precision_recall_f1(2)
    >>> prediction = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    >>> metric.compute(metric.update(metric.init(), prediction, jnp.array([1, 0, 0]))).recall
    Array([0.5, 1. ], dtype=float32)
    """
    matrix = _confusion_matrix(spell(precision_recall_f1, num_classes), num_classes)

    def compute(state):
        right, predicted, true = jnp.diagonal(state), state.sum(0), state.sum(1)

        def share(part, whole):
            return _ratio(part, jnp.maximum(whole, 1))  # part is 0 wherever whole is

        return ClassScores(share(right, predicted), share(right, true), share(2 * right, predicted + true))

    return Metric(matrix.init, matrix.update, compute)


def r_squared(outputs: int = 1) -> Metric:
    """Coefficient of determination, R² = 1 − Σ (t − p)² / Σ (t − mean t)²; the mean over several outputs.

    1 for a perfect prediction, 0 for one as good as the mean of the targets, below for a worse one. If a target is
    constant R² is 1 for a perfect prediction and 0 for any other, as in scikit-learn.

    Prediction and target of one shape: (batch,) or (batch, …, outputs).

    The sums are merged batch by batch: two sets of n and m targets with means a and b have together
    Σ (t − mean)² = the sum of both + (a − b)² n m / (n + m). Everything is measured from the first target, which costs
    nothing and keeps the digits that a mean of 1e4 would take in float32.

    Args:
        outputs: width of the last axis.

    Raises:
        ConfigError: `outputs` is no positive integer.
        ShapeError, DtypeError: in `update`, for a target or mask that does not fit.

    References: Chan, Golub, LeVeque, "Algorithms for Computing the Sample Variance", 1983, equation 2.1.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.r_squared()
    >>> metric.compute(metric.update(metric.init(), jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 2.0, 3.0])))
    Array(0.5, dtype=float32)
    """
    name = spell(r_squared, outputs=outputs)
    outputs = check_count(name, "outputs", outputs)

    def init():
        zero = [jnp.zeros(outputs, _float()) for _ in range(4)]  # four buffers: a donated state must not share one
        return _Moments(jnp.zeros(outputs, jnp.int32), *zero)

    def update(state, prediction, target, where=None):
        prediction, target = jnp.asarray(prediction), jnp.asarray(target)
        _check_outputs(name, prediction, target, outputs)
        mask = _marked(name, where, target.shape).reshape(-1, outputs)
        p, t = (a.reshape(-1, outputs).astype(state.mean.dtype) for a in (prediction, target))
        first = jnp.take_along_axis(t, jnp.argmax(mask, 0, keepdims=True), 0)[0]
        origin = jnp.where(state.total > 0, state.origin, first)

        count = jnp.sum(mask, 0, dtype=jnp.int32)
        n, m = state.total.astype(t.dtype), count.astype(t.dtype)
        t0 = jnp.where(mask, t - origin, 0)
        mean = jnp.sum(t0, 0) / jnp.maximum(m, 1)
        share = m / jnp.maximum(n + m, 1)
        difference = mean - state.mean
        return _Moments(
            state.total + count,
            origin,
            state.mean + difference * share,
            state.centred + jnp.sum(jnp.where(mask, jnp.square(t0 - mean), 0), 0) + jnp.square(difference) * n * share,
            state.residual + jnp.sum(jnp.where(mask, jnp.square(p - t), 0), 0),
        )

    def compute(state):
        constant = state.centred == 0
        ratio = state.residual / jnp.where(constant, 1, state.centred)
        score = jnp.where(constant, (state.residual == 0).astype(ratio.dtype), 1 - ratio)
        return jnp.mean(jnp.where(state.total > 0, score, jnp.nan))

    return Metric(init, update, compute)


def mean_loss(loss: LossFn) -> Metric:
    """The mean of a loss over all values that count, whatever the batches.

    Args:
        loss: `loss(prediction, target, reduction="none")`, an array with the batch axis first: one of `funcnet.losses`
            or your own; it gets `where=` too where the metric does. Each entry of the array is a value.

    Raises:
        ShapeError, DtypeError: in `update`, for a mask that does not fit; and what the loss raises.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> def absolute_error(prediction, target, *, reduction):
    ...     return jnp.abs(prediction - target)
    >>> metric = fn.metrics.mean_loss(absolute_error)
    >>> state = metric.update(metric.init(), jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0]))
    >>> metric.compute(metric.update(state, jnp.array([3.0]), jnp.array([0.0])))
    Array(2., dtype=float32)
    """
    name = spell(mean_loss, loss)

    def init():
        return jnp.zeros((), _float()), jnp.zeros((), jnp.int32)

    def update(state, prediction, target, where=None):
        total, count = state
        options = {} if where is None else {"where": where}
        values = loss(prediction, target, reduction="none", **options).astype(total.dtype)
        marked = _marked(name, where, values.shape)
        return total + jnp.sum(jnp.where(marked, values, 0)), count + jnp.sum(marked, dtype=jnp.int32)

    return Metric(init, update, lambda state: _ratio(*state))


def _share(name: str, hits: Callable[[Array, Array], Array]) -> Metric:
    """The share of `hits(prediction, target)`, a boolean array."""

    def init():
        return _Count(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(state, prediction, target, where=None):
        hit = hits(jnp.asarray(prediction), jnp.asarray(target))
        marked = _marked(name, where, hit.shape)
        return _Count(
            state.hits + jnp.sum(hit & marked, dtype=jnp.int32), state.total + jnp.sum(marked, dtype=jnp.int32)
        )

    return Metric(init, update, lambda state: _ratio(*state))


def _confusion_matrix(name: str, num_classes: int) -> Metric:
    num_classes = check_count(name, "num_classes", num_classes, 2)

    def init():
        return jnp.zeros((num_classes, num_classes), jnp.int32)

    def update(state, prediction, target, where=None):
        prediction, target = jnp.asarray(prediction), jnp.asarray(target)
        labels = _labels(name, prediction, target)
        if prediction.shape[-1] != num_classes:
            raise ShapeError(
                f"{name}: expected prediction of shape (batch, {num_classes}), got {prediction.shape}; "
                "num_classes is the width of the prediction."
            )
        # A row beyond the last is dropped; a negative one would count from the end.
        rows = jnp.where(_marked(name, where, labels.shape) & (labels >= 0), labels, num_classes)
        return state.at[rows, jnp.argmax(prediction, -1)].add(1, mode="drop")

    return Metric(init, update, lambda state: state)


def _float():
    return jnp.result_type(float)


def _ratio(part: Array, whole: Array) -> Array:
    return part.astype(_float()) / whole.astype(_float())


def _marked(name: str, where: Any, shape: tuple[int, ...]) -> Array:
    """`where` as a mask of this shape."""
    if where is None:
        return jnp.ones(shape, bool)
    where = jnp.asarray(where)
    if where.dtype != bool:
        raise DtypeError(f"{name}: expected where of dtype bool, got {where.dtype}; compare it, as in where != 0.")
    if where.shape != shape[: where.ndim]:
        raise ShapeError(f"{name}: expected where of shape {shape[:1]}, got {where.shape}; it marks rows.")
    return jnp.broadcast_to(where.reshape(where.shape + (1,) * (len(shape) - where.ndim)), shape)


def _labels(name: str, prediction: Array, target: Array) -> Array:
    """The target's classes, int32, in the shape of the prediction without its last axis."""
    if prediction.ndim < 2 or prediction.shape[-1] < 2:
        raise ShapeError(
            f"{name}: expected prediction of shape (batch, classes), at least two of them, got {prediction.shape}; "
            "for one output use binary_accuracy."
        )
    if target.shape == prediction.shape:
        return jnp.argmax(target, -1).astype(jnp.int32)
    if target.shape != prediction.shape[:-1]:
        raise ShapeError(
            f"{name}: expected target of shape {prediction.shape[:-1]} (labels) or {prediction.shape} (one-hot), "
            f"got {target.shape}; target[:, 0] makes (batch,) of (batch, 1)."
        )
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise DtypeError(f"{name}: expected target of integer labels, got {target.dtype}; use target.astype(int).")
    return target.astype(jnp.int32)


def _check_same_shape(name: str, prediction: Array, target: Array) -> None:
    if prediction.shape != target.shape:
        raise ShapeError(
            f"{name}: expected prediction and target of one shape, got {prediction.shape} and {target.shape}; "
            "target[:, None] makes (batch, 1) of (batch,)."
        )


def _check_outputs(name: str, prediction: Array, target: Array, outputs: int) -> None:
    _check_same_shape(name, prediction, target)
    width = target.shape[-1] if target.ndim > 1 else 1
    if target.ndim == 0 or width != outputs:
        raise ShapeError(
            f"{name}: expected prediction and target of shape (batch, {outputs}), got {target.shape}; "
            f"use r_squared({width})."
        )
