"""Metrics of classes: shares of correct predictions, the confusion matrix, and scores for each class.

They are NaN if a prediction that counts is NaN.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import check_count, check_integers, check_same_shape, check_shape, number
from funcnet.errors import DtypeError, ShapeError
from funcnet.made import constructor
from funcnet.metrics.metric import Metric, Sum, as_arrays, counting
from funcnet.numerics import blocked, rows_at_a_time, unblocked
from funcnet.trees import is_whole
from funcnet.types import Array

__all__ = [
    "ClassScores", "accuracy", "binary_accuracy", "confusion_matrix", "mean_iou", "precision_recall_f1",
    "top_k_accuracy",
]  # fmt: skip


class _Count(NamedTuple):
    """The state of a share."""

    hits: Sum
    total: Sum


class ClassScores(NamedTuple):
    """What `precision_recall_f1` computes; each field is (num_classes,)."""

    precision: Array  #: of the rows predicted as the class, the share that belongs to it
    recall: Array  #: of the rows in the class, the share that was found
    f1: Array  #: their harmonic mean


@constructor
def accuracy() -> Metric:
    """The share of rows whose highest prediction is that of the target's class; the first of equal ones counts.

    The prediction is (batch, …, classes), logits or probabilities. The target is integer labels (batch, …), or one-hot
    or soft rows (batch, …, classes), whose highest entry is the class. The prediction may also be the pair of
    `layers.deferred`, whose logits are then computed in blocks of rows, as in `losses.linear_cross_entropy`.

    Raises:
        ShapeError, DtypeError: in `update`, for a target or mask that does not fit.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.accuracy()
    >>> prediction = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    >>> metric.compute(metric.update(metric.init(), prediction, jnp.array([1, 0, 0])))
    Array(0.6666667, dtype=float32)
    """

    return _share(_among(lambda scores: jnp.argmax(scores, -1, keepdims=True)))


@constructor
def binary_accuracy(threshold: float = 0.5) -> Metric:
    """The share of numbers on the right side of a threshold, p ≥ threshold for target 1 and below for 0.

    Prediction and target have one shape: (batch,), (batch, 1), or (batch, labels) for several labels at once.

    Args:
        threshold: 0.5 for probabilities, 0.0 for logits.

    Raises:
        ConfigError: `threshold` is not a finite number.
        ShapeError, DtypeError: in `update`, for a target or mask that does not fit.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.binary_accuracy(threshold=0.0)
    >>> metric.compute(metric.update(metric.init(), jnp.array([[-2.0], [3.0]]), jnp.array([[0], [1]])))
    Array(1., dtype=float32)
    """
    threshold = number("threshold", threshold)

    def judge(prediction, target, where):
        prediction, target, where = as_arrays(prediction, target, where)
        check_same_shape(prediction, target)
        hit = (prediction >= threshold) == (target.astype(prediction.dtype) > 0.5)
        return hit, jnp.isnan(prediction), where

    return _share(judge)


@constructor
def top_k_accuracy(k: int) -> Metric:
    """The share of rows whose class is among the `k` highest predictions; of equal ones the first ones count.

    Prediction and target are as for `accuracy`.

    Raises:
        ConfigError: `k` is not a positive integer.
        ShapeError, DtypeError: in `update`, for fewer than `k` classes, or a target or mask that does not fit.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.top_k_accuracy(2)
    >>> prediction = jnp.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    >>> metric.compute(metric.update(metric.init(), prediction, jnp.array([1, 2])))
    Array(0.5, dtype=float32)
    """
    k = check_count("k", k)

    return _share(_among(lambda scores: jax.lax.top_k(scores, k)[1], k))


@constructor
def confusion_matrix(num_classes: int) -> Metric:
    """How often each class was predicted as which class, (num_classes, num_classes): rows are true, columns predicted.

    Prediction and target are as for `accuracy`. Labels outside 0 … num_classes − 1 are not counted. The numbers are
    floats, because with weights they are sums of weights. Without weights they are counted exactly, as integers.

    Raises:
        ConfigError: `num_classes` is not an integer of at least 2.
        ShapeError, DtypeError: in `update`, for another number of classes, or a target or mask that does not fit.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.confusion_matrix(2)
    >>> prediction = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    >>> metric.compute(metric.update(metric.init(), prediction, jnp.array([1, 0, 0])))
    Array([[1., 1.],
           [0., 1.]], dtype=float32)
    """
    return _confusion_matrix(num_classes)


@constructor
def precision_recall_f1(num_classes: int) -> Metric:
    """Precision, recall and F1 of each class, from the confusion matrix; their means are the macro averages.

    With m the matrix: precision_k = m_kk / Σ_i m_ik, recall_k = m_kk / Σ_j m_kj, and
    F1_k = 2 m_kk / (Σ_i m_ik + Σ_j m_kj), their harmonic mean. 0/0, for a class that was never predicted or does not
    occur, is 0.

    Prediction and target are as for `accuracy`. The value is a `ClassScores`.

    Raises:
        ConfigError, ShapeError, DtypeError: as for `confusion_matrix`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.precision_recall_f1(2)
    >>> prediction = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    >>> metric.compute(metric.update(metric.init(), prediction, jnp.array([1, 0, 0]))).recall
    Array([0.5, 1. ], dtype=float32)
    """
    matrix = _confusion_matrix(num_classes)

    def compute(state):
        counts = matrix.compute(state)
        right, predicted, true = jnp.diagonal(counts), counts.sum(0), counts.sum(1)

        def share(part, whole):
            return part / jnp.where(whole == 0, 1, whole)  # part is 0 wherever whole is

        return ClassScores(share(right, predicted), share(right, true), share(2 * right, predicted + true))

    return Metric(matrix.init, matrix.update, compute)


@constructor
def mean_iou(num_classes: int) -> Metric:
    """Mean intersection over union: how far the areas of each class overlap, as a mean over the classes that occur.

    With m the confusion matrix: IoU_k = m_kk / (Σ_i m_ik + Σ_j m_kj − m_kk), the positions where prediction and target
    both are of class k, divided by those where one of them is. The counts are those of all batches together, and not a
    mean over images. A class that neither of them has anywhere is left out of the mean.

    Prediction and target are as for `accuracy`, in segmentation (batch, height, width, classes) and labels (batch,
    height, width). `where` over (batch, height, width) leaves out pixels.

    Raises:
        ConfigError, ShapeError, DtypeError: as for `confusion_matrix`.

    References: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015, section
    4.1; Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, section 5.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.mean_iou(3)
    >>> prediction = jnp.eye(3)[jnp.array([0, 0, 1, 1])]  # class 2 is nowhere
    >>> metric.compute(metric.update(metric.init(), prediction, jnp.array([0, 1, 1, 1])))  # 1/2 and 2/3
    Array(0.5833334, dtype=float32)
    """
    matrix = _confusion_matrix(num_classes)

    def compute(state):
        counts = matrix.compute(state)
        both = jnp.diagonal(counts)
        either = counts.sum(0) + counts.sum(1) - both
        return jnp.sum(both / jnp.where(either == 0, 1, either)) / jnp.sum((either != 0).astype(both.dtype))

    return Metric(matrix.init, matrix.update, compute)


def _share(judge: Callable[[Any, Any, Any], tuple[Array, Array, Any]]) -> Metric:
    """The share of hits. `judge(prediction, target, where)` gives hits and what is NaN, two masks, and what counts."""

    def init():
        return _Count(Sum.zero(), Sum.zero())

    def update(state, prediction, target, where=None, weights=None):
        hit, nan, where = judge(prediction, target, where)
        marked, weights = counting(where, weights, hit.shape)
        found = state.hits.plus(hit & marked, weights).spoiled(jnp.any(marked & nan))
        return _Count(found, state.total.plus(marked, weights))

    return Metric(init, update, lambda state: state.hits.number / state.total.number)


def _among(best: Callable[[Array], Array], k: int = 1) -> Callable[[Any, Any, Any], tuple[Array, Array, Any]]:
    """Whether the target's class is among the `k` classes (…, k) that `best` finds from the scores (…, classes)."""

    def judge(prediction, target, where):
        scores, target, where = _scores(prediction, target, where)
        labels = _labels(scores, target)
        if k > scores.shape[-1]:
            raise ShapeError(f"expected at least {k} classes, got prediction of shape {scores.shape}; lower k.")
        found = scores.classes(best, k)
        return jnp.any(found == labels[..., None], -1), found[..., 0] == -1, where

    return judge


class _Scores(NamedTuple):
    """The scores of classes, (batch, …, classes): an array, or the product of features and a kernel."""

    features: Array
    kernel: Any = None  #: (features, classes), of which a product of all rows may be too large

    @property
    def shape(self) -> tuple[int, ...]:
        return self.features.shape if self.kernel is None else (*self.features.shape[:-1], self.kernel.shape[1])

    def classes(self, best: Callable[[Array], Array], k: int = 1) -> Array:
        """The classes (batch, …, k) that `best` finds, int32; −1 where a score is NaN, although a class is named."""

        def of_block(scores):
            return jnp.where(jnp.isnan(scores).any(-1, keepdims=True), -1, best(scores).astype(jnp.int32))

        if self.kernel is None:
            return of_block(self.features)
        rows = self.features.reshape(-1, self.features.shape[-1])
        blocks = blocked(rows, rows_at_a_time(self.kernel.shape[1]))
        found = jax.lax.map(lambda block: of_block(block @ self.kernel), blocks)
        return unblocked(found, len(rows)).reshape(*self.shape[:-1], k)


def _scores(prediction: Any, target: Any, where: Any) -> tuple[_Scores, Array, Any]:
    """The scores of a prediction, also of the pair of `layers.deferred`; the target and the mask as arrays."""
    kernel = None
    if isinstance(prediction, tuple) and len(prediction) == 2 and is_whole(prediction[1]):
        prediction, kernel = prediction[0], jnp.asarray(prediction[1].array)
    prediction, target, where = as_arrays(prediction, target, where)
    return _Scores(prediction, kernel), target, where


def _confusion_matrix(num_classes: int) -> Metric:
    num_classes = check_count("num_classes", num_classes, 2)

    def init():
        return Sum.zero((num_classes, num_classes))

    def update(state, prediction, target, where=None, weights=None):
        scores, target, where = _scores(prediction, target, where)
        labels = _labels(scores, target)
        shape = jax.ShapeDtypeStruct(scores.shape, jnp.float32)
        check_shape("prediction", shape, f"(…, {num_classes})", "num_classes is the width of the prediction")
        marked, weights = counting(where, weights, labels.shape)
        predicted = scores.classes(lambda scores: jnp.argmax(scores, -1, keepdims=True))[..., 0]
        # A row beyond the last is dropped. A negative one would count from the end.
        cells = jnp.where(marked & (labels >= 0), labels, num_classes), predicted
        state = state.spoiled(jnp.any(marked & (predicted < 0)))
        if weights is None:
            return state._replace(exact=state.exact.at[cells].add(1, mode="drop"))
        return state._replace(weighted=state.weighted.at[cells].add(weights, mode="drop"))

    return Metric(init, update, lambda state: state.number)


def _labels(prediction: _Scores, target: Array) -> Array:
    """The target's classes, int32, in the shape of the prediction without its last axis."""
    if len(prediction.shape) < 2 or prediction.shape[-1] < 2:
        got = f"{prediction.shape}; for one output use binary_accuracy"
        raise ShapeError(f"expected prediction of shape (batch, classes), two or more classes, got {got}.")
    if target.shape == prediction.shape:
        return jnp.argmax(target, -1).astype(jnp.int32)
    fix = f"one-hot rows have shape {prediction.shape}; target[:, 0] makes (batch,) of (batch, 1)"
    check_shape("target of labels", target, f"{prediction.shape[:-1]}", fix)
    check_integers("target", target, DtypeError)
    return target.astype(jnp.int32)
