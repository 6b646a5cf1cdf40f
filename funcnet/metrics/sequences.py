"""Metrics of sequences of labels, and what a network with unaligned labels says."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import (
    as_shaped,
    check_floating,
    check_integers,
    check_kind,
    check_mask,
    check_one_array,
    check_shape,
    is_floating,
)  # fmt: skip
from funcnet.errors import DtypeError
from funcnet.made import constructor
from funcnet.metrics.metric import Metric, Sum, counting
from funcnet.trees import to_the_front, values_of
from funcnet.types import Array, Padded

__all__ = ["ctc_labels", "edit_distance"]


class _Edits(NamedTuple):
    """The state of an edit distance."""

    edits: Sum
    total: Sum  #: of rows, or of their labels


@constructor
def edit_distance(*, normalized: bool = False, read: Callable[[Any], Any] | None = None) -> Metric:
    """How many labels are inserted, deleted or replaced to make the prediction the target: Levenshtein's distance.

    The value is the mean over rows, or with `normalized` the sum of all distances divided by the number of all labels
    of the targets. That is the error rate of labels, words or characters. It may exceed 1.

    The distance d(i, j) between the first i labels of the prediction and the first j of the target is
        d(i, j) = min(d(i−1, j) + 1, d(i, j−1) + 1, d(i−1, j−1) + [p_i ≠ t_j]),   d(i, 0) = i,  d(0, j) = j.

    Prediction and target are integers, (batch, length), each a `Padded` or an array whose labels all count. The two
    lengths may differ. `where` and `weights` are over rows, (batch,). With weights a distance and a number of labels
    count by the weight of their row.

    Args:
        normalized: whether to divide by the labels of the targets and not by the rows.
        read: `(prediction) -> labels`, for a model that gives other numbers, such as `metrics.ctc_labels`.

    Raises:
        ConfigError: `normalized` is not a bool, or `read` cannot be called.
        ShapeError, DtypeError, DataError: in `update`, for sequences, a mask or weights that do not fit.

    References: Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals", 1966; Wagner,
    Fischer, "The String-to-String Correction Problem", JACM 1974.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.edit_distance()
    >>> kitten, sitting = (jnp.array([[*word.encode()]]) for word in ("kitten", "sitting"))
    >>> metric.compute(metric.update(metric.init(), kitten, sitting))
    Array(3., dtype=float32)
    >>> rate = fn.metrics.edit_distance(normalized=True)
    >>> rate.compute(rate.update(rate.init(), kitten, sitting))
    Array(0.42857143, dtype=float32)
    """
    check_kind("normalized", normalized, bool, "True or False")
    check_kind("read", read, Callable | None, "a function of the prediction, such as metrics.ctc_labels, or None")

    def init():
        return _Edits(Sum.zero(), Sum.zero())

    def update(state, prediction, target, where=None, weights=None):
        said = prediction if read is None else read(prediction)
        said, there = _labels("prediction", said, "read it, for example with edit_distance(read=metrics.ctc_labels)")
        wanted, written = _labels("target", target, "convert it with .astype(int)")
        check_shape("target", wanted, f"({len(said)}, length)", "give one sequence for each row of prediction")
        marked, weights = counting(where, weights, said.shape[:1])
        edits = _distances(said, there, *to_the_front(jnp, wanted, written))
        total = written.sum(1, dtype=jnp.int32) if normalized else jnp.ones_like(edits)
        edits, total = (_plus(*pair, marked, weights) for pair in zip(state, (edits, total), strict=True))
        return _Edits(edits.spoiled(jnp.any(marked & _has_nan(prediction))), total)

    return Metric(init, update, lambda state: state.edits.number / state.total.number)


def ctc_labels(prediction: Any, *, blank: int = 0) -> Padded:
    """What a network says that was trained with `losses.ctc`, by the likeliest class of each position.

    Equal neighbours are one label, and blanks are none. This "greedy" or "best path" decoding finds the likeliest
    alignment. The likeliest labels may be others, because several alignments read as one sequence.

    Args:
        prediction: (batch, time, classes), logits or probabilities; an array, or a `Padded` whose padding is skipped.
        blank: the class that stands for "no label here".

    Returns:
        A `Padded` of labels, (batch, time), int32, which come first in each row, with 0 after them.

    Raises:
        ShapeError: the prediction is not (batch, time, classes).
        DtypeError: the prediction is not floating-point.

    References: Graves, Fernández, Gomez, Schmidhuber, "Connectionist Temporal Classification", ICML 2006, section 3.2.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> said = fn.metrics.ctc_labels(jnp.eye(3)[jnp.array([[1, 1, 0, 1, 2]])])
    >>> said.values, said.where
    (Array([[1, 1, 2, 0, 0]], dtype=int32), Array([[ True,  True,  True, False, False]], dtype=bool))
    """
    scores = jnp.asarray(values_of(prediction))
    check_floating("prediction", scores, "give the scores of the classes")
    check_shape("prediction", scores, "(batch, time, classes)", "put the classes on the last axis")
    best, there = to_the_front(jnp, jnp.argmax(scores, -1).astype(jnp.int32), _there(prediction, scores.shape[:2]))
    before = jnp.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    labels, there = to_the_front(jnp, best, there & (best != blank) & (best != before[:, : best.shape[1]]))
    return Padded(jnp.where(there, labels, 0), there)


def _labels(what, x, fix):
    """The labels, and which of them exist."""
    labels = values_of(x)
    check_one_array(what, labels, "take the metric of one entry")
    labels = as_shaped(labels)
    if is_floating(labels):
        raise DtypeError(f"expected {what} to be integers, got dtype {labels.dtype}; {fix}.")
    check_integers(what, labels, DtypeError)
    check_shape(what, labels, "(batch, length)", "give one sequence of labels for each row")
    return jnp.asarray(labels), _there(x, labels.shape)


def _there(x, shape):
    if not isinstance(x, Padded):
        return jnp.ones(shape, bool)
    check_mask("where", as_shaped(x.where))
    check_shape("the mask of a Padded", x.where, f"{shape}", "mark each position")
    return jnp.asarray(x.where)


def _distances(said: Array, there: Array, wanted: Array, written: Array) -> Array:
    """The distance of each row, (batch,). The labels that are wanted come first in their row."""
    places = jnp.arange(wanted.shape[1] + 1, dtype=jnp.int32)

    def step(before, one):
        """d(i, ·) from d(i−1, ·), each (batch, length + 1)."""
        label, is_there = one
        replaced = before[:, :-1] + (wanted != label[:, None].astype(wanted.dtype)).astype(jnp.int32)
        shorter = jnp.concatenate([before[:, :1] + 1, jnp.minimum(before[:, 1:] + 1, replaced)], 1)
        # An insertion costs 1 for each place to the right: the least of all places k on the left, with j − k beside it.
        after = jax.lax.cummin(shorter - places, axis=1) + places
        return jnp.where(is_there[:, None], after, before), None

    start = jnp.broadcast_to(places, (len(said), len(places)))
    last, _ = jax.lax.scan(step, start, (said.T, there.T))
    return jnp.take_along_axis(last, written.sum(1)[:, None], axis=1)[:, 0]


def _plus(total: Sum, numbers: Array, marked: Array, weights: Any) -> Sum:
    """The sum plus these integers, each times the weight of its row."""
    if weights is None:
        return total.plus(jnp.where(marked, numbers, 0), None)
    return total.plus(marked, jnp.where(marked, weights, 0) * numbers.astype(weights.dtype))


def _has_nan(prediction):
    """Which rows have a NaN where the prediction exists, so that they say nothing."""
    values = jnp.asarray(values_of(prediction))
    if not is_floating(values):
        return jnp.zeros(len(values), bool)
    found = jnp.isnan(values).any(tuple(range(2, values.ndim)))
    return (found & _there(prediction, found.shape)).any(1)
