"""The mean of a loss as a metric, and what is made of it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.made import constructor
from funcnet.metrics.metric import Metric, Sum, counting
from funcnet.trees import equal_rows, unpadded
from funcnet.types import LossFn

__all__ = ["mean_loss", "perplexity"]


@constructor
def mean_loss(loss: LossFn) -> Metric:
    """The mean of a loss over all values that count, however they are split into batches.

    A loss of `funcnet.losses` counts as `loss.counted` says, class weights included. A weighted sum Σ c_k L_k counts
    part by part, Σ c_k mean(L_k), and its state is `{name: the state of mean_loss(its part)}`. A function with an
    argument `reduction` gives values that count one by one. For all others (the root of a mean, a function
    `(prediction, target) -> ()`) it is the mean over batches, weighted by how many of their rows count.

    Args:
        loss: one of `funcnet.losses`, or your own `(prediction, target)`. It gets `reduction="none"` if it has that
            argument, and `where=` and `weights=` if the metric gets them. Each entry of the array that it returns is a
            value times its weight, with the batch axis first.

    Raises:
        ShapeError, DtypeError, DataError: in `update`, for a mask or weights that do not fit; and what the loss raises.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> def absolute_error(prediction, target, *, reduction):
    ...     return jnp.abs(prediction - target)
    >>> metric = fn.metrics.mean_loss(absolute_error)
    >>> state = metric.update(metric.init(), jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0]))
    >>> metric.compute(metric.update(state, jnp.array([3.0]), jnp.array([0.0])))
    Array(2., dtype=float32)
    """
    if getattr(loss, "parts", None):
        return _mean_of_parts(loss)
    if getattr(loss, "counted", None) is not None:
        terms = _counted_values
    else:
        has_values = not hasattr(loss, "counted") and "reduction" in inspect.signature(loss).parameters
        terms = _values if has_values else _scalar

    def init():
        return jnp.zeros((), jnp.result_type(float)), Sum.zero()

    def update(state, prediction, target, where=None, weights=None):
        total, counted = state
        given = {"where": where, "weights": weights}
        values, marked, by = terms(loss, prediction, target, {name: x for name, x in given.items() if x is not None})
        return total + jnp.sum(values.astype(total.dtype)), counted.plus(marked, by)

    return Metric(init, update, lambda state: state[0] / state[1].number)


@constructor
def perplexity(loss: LossFn) -> Metric:
    """e to the power of the mean of a loss, Π (1/p_t)^(1/N): the inverse of the geometric mean of N probabilities p_t.

    It is the number of equally likely tokens among which a language model would have to guess as badly. So it is 1 for
    a perfect model, and the number of classes for one that knows nothing. Padding does not count.

    Args:
        loss: a loss −log p_t for each position, in nats: `losses.softmax_cross_entropy` for logits, or
            `losses.negative_log_likelihood` for log-probabilities.

    Raises:
        ShapeError, DtypeError, DataError: in `update`, as for `mean_loss`.

    References: Jelinek, Mercer, Bahl, Baker, "Perplexity — a measure of the difficulty of speech recognition tasks",
    1977.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.perplexity(fn.losses.softmax_cross_entropy)
    >>> logits = jnp.log(jnp.array([[[0.5, 0.5], [0.875, 0.125]]]))  # probabilities 1/2 and 1/8: the mean is 1/4
    >>> round(float(metric.compute(metric.update(metric.init(), logits, jnp.array([[0, 1]])))), 4)
    4.0
    """
    mean = mean_loss(loss)
    return Metric(mean.init, mean.update, lambda state: jnp.exp(mean.compute(state)))


# These return what a batch adds to the sum of a loss, what is marked, and by how much it counts.


def _counted_values(loss, prediction, target, given):
    values = loss(prediction, target, reduction="none", **given)
    return values, True, loss.counted(prediction, target, reduction="mean", **given).astype(jnp.result_type(float))


def _values(loss, prediction, target, given):
    prediction, target, where = unpadded(prediction, target, given.get("where"))
    values = loss(prediction, target, reduction="none", **given | ({} if where is None else {"where": where}))
    marked, weights = counting(where, given.get("weights"), values.shape)
    return jnp.where(marked, values, 0), marked, weights


def _scalar(loss, prediction, target, given):
    value = loss(prediction, target, **given)
    known = target if jax.tree.leaves(target) else prediction
    rows = equal_rows(known, "give the loss a target with one row for each example")
    longest = max((np.shape(x) for x in given.values()), key=len, default=())
    marked, weights = counting(given.get("where"), given.get("weights"), (rows, *longest[1:]))
    by = Sum.zero().plus(marked, weights).number
    return value.astype(by.dtype) * by, marked, weights


def _mean_of_parts(loss):
    """For a weighted sum: the same sum, of the means of its parts."""
    means = {name: (factor, mean_loss(part)) for name, (factor, part) in loss.parts.items()}

    def update(state, prediction, target, where=None, weights=None):
        parts = loss.each_part(prediction, target, where, weights)
        return {
            name: mean.update(state[name], parts[name].prediction, parts[name].target, **parts[name].options)
            for name, (_, mean) in means.items()
        }

    return Metric(
        lambda: {name: mean.init() for name, (_, mean) in means.items()},
        update,
        lambda state: sum(factor * mean.compute(state[name]) for name, (factor, mean) in means.items()),
    )
