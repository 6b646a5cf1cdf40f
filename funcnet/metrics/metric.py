"""What a metric is, and how it counts: exactly in integers, and by weights in floats."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from funcnet.checks import check_jax_holds, check_one_array, check_weights, check_where, over_leading_axes
from funcnet.made import Made, own_call
from funcnet.trees import unpadded
from funcnet.types import Array

__all__ = ["Metric", "Sum", "as_arrays", "counting"]


class Metric(NamedTuple):
    """Three pure functions, of which you can also make your own metric. It prints as the call that made it."""

    init: Callable[[], Any]  #: () -> state
    update: Callable[..., Any]  #: (state, prediction, target, where=None, weights=None) -> state
    compute: Callable[[Any], Any]  #: (state) -> value
    made: Made = own_call("metric")  #: the call that made it

    def __repr__(self) -> str:
        return str(self.made)


class Sum(NamedTuple):
    """A sum of what counts: exact where there are no weights."""

    exact: Array  #: int32, of batches without weights
    weighted: Array  #: float, of batches with them

    @classmethod
    def zero(cls, shape=()):
        return cls(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.result_type(float)))

    def plus(self, marked, weights, axis=None):
        """The sum plus what is marked, by its weights, summed over `axis`."""
        if weights is None:
            return self._replace(exact=self.exact + jnp.sum(marked, axis, dtype=jnp.int32))
        return self._replace(weighted=self.weighted + jnp.sum(jnp.where(marked, weights, 0), axis))

    def spoiled(self, where):
        """NaN if `where` is true, because something that was counted has no value; else the sum."""
        return self._replace(weighted=self.weighted + jnp.where(where, jnp.nan, 0))

    @property
    def number(self):
        return self.exact.astype(jnp.result_type(float)) + self.weighted


def as_arrays(prediction: Any, target: Any, where: Any) -> tuple[Array, Array, Any]:
    """Prediction and target as arrays. Their padding goes into the mask."""
    check_where(where, np.shape(where))
    prediction, target, where = unpadded(prediction, target, where)
    for what, x in (("prediction", prediction), ("target", target)):
        check_one_array(what, x, "put the metric of one entry in a dictionary under its name, {name: {metric: ...}}")
        check_jax_holds(what, x)
    return jnp.asarray(prediction), jnp.asarray(target), where


def counting(where: Any, weights: Any, shape: tuple[int, ...]) -> tuple[Array, Any]:
    """`where` as a mask of this shape, and the weights as floats of this shape or `None`."""
    check_where(where, shape)
    check_weights(weights, shape, where)

    def whole(x):
        return jnp.broadcast_to(over_leading_axes(x, len(shape)), shape)

    marked = jnp.ones(shape, bool) if where is None else whole(jnp.asarray(where))
    return marked, None if weights is None else whole(jnp.asarray(weights).astype(jnp.result_type(float)))
