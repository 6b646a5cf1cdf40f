"""How the values of a loss become the loss, and how their slopes become its gradient."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import check_choice, check_shape, over_leading_axes
from funcnet.dtypes import at_least_float32
from funcnet.errors import ConfigError
from funcnet.types import Array

__all__ = ["Reduction", "as_floats", "check_only_mean", "reduction_of"]


class Reduction(NamedTuple):
    """How values become a loss, and how their slopes become its gradient. `prepare` makes one."""

    kind: str  #: "mean", "sum" or "none"
    shape: tuple[int, ...]  #: of the values
    mask: Array | None  #: over leading axes of the values
    weights: Array | None  #: over leading axes of the values, 0 outside the mask
    dtype: Any  #: of the prediction, and so of the loss and its gradient; half precision is computed in float32
    share: Array | None = None  #: like the values: how much each counts in the mean, as a factor beside its weight

    def reduce(self, values: Array) -> Array:
        """The loss: the values, their sum or their mean. Values that are not marked are 0."""
        fix = "say which axes of prediction they have with losses.loss(axes=…)"
        check_shape("values", values, f"{self.shape}", fix)
        values = self._weighed(self.select(values))
        if self.kind != "none":
            values = values.sum()
        if self.kind == "mean":
            values = values / self.count(values.dtype)
        return values.astype(self.dtype)

    def spread(self, slopes: Array) -> Array:
        """The gradient, from `slopes`: for each element of the prediction the derivative of its value."""
        slopes = self._weighed(slopes)
        if self.kind == "mean":
            slopes = slopes * (1 / self.count(slopes.dtype))
        return self.select(slopes).astype(self.dtype)

    def select(self, x: Array) -> Array:
        """`x`, and 0 where it is not marked. A product with the mask would let NaN through."""
        if self.mask is None:
            return x
        ndim = max(self.mask.ndim, x.ndim)
        return jnp.where(over_leading_axes(self.mask, ndim), over_leading_axes(x, ndim), 0)

    def _weighed(self, x):
        return x if self.weights is None else x * over_leading_axes(self.weights, x.ndim).astype(x.dtype)

    def total(self, dtype: Any) -> Any:
        """How much counts: the number of marked values, or the sum of their weights times their shares."""
        numbers = [x for x in (self.weights, self.share) if x is not None]
        counts = self.select(functools.reduce(_product, numbers)) if numbers else self.mask
        if counts is None:
            return float(math.prod(self.shape))
        return counts.sum().astype(dtype) * float(math.prod(self.shape[counts.ndim :]))

    def count(self, dtype: Any) -> Any:
        """The divisor of the mean: `total`, or 1 if nothing counts."""
        total = self.total(dtype)
        return max(total, 1.0) if isinstance(total, float) else jnp.where(total == 0, 1, total)


def _product(a, b):
    ndim = max(a.ndim, b.ndim)
    return over_leading_axes(a, ndim) * over_leading_axes(b, ndim)


def reduction_of(kind: str, prediction: Any, where: Any, weights: Any, axes: int | None) -> Reduction:
    """The `Reduction` for the arguments of a loss. Of the prediction it reads only shape and dtype."""
    check_choice("reduction", kind, ("mean", "sum", "none"))
    mask = None if where is None else jnp.asarray(where)
    over = Reduction(kind, prediction.shape[:axes], mask, None, prediction.dtype)
    if weights is None:
        return over
    # Outside the mask a weight may be NaN.
    wide = jax.ShapeDtypeStruct((), at_least_float32(prediction.dtype))
    return over._replace(weights=over.select(as_floats(weights, wide)))


def check_only_mean(reduction: str, why: str) -> None:
    """Refuse all reductions but the mean, for a loss that is not a mean of values."""
    if reduction != "mean":
        raise ConfigError(f'expected reduction to be "mean", got {reduction!r}; {why}.')


def as_floats(target: Any, prediction: Any) -> Array:
    """The target in the dtype of the prediction."""
    if not isinstance(target, jax.Array):
        # On the host, because jnp.asarray wraps the integer 2**40 to 0 unless x64 is on.
        target = jnp.asarray(np.asarray(target).astype(prediction.dtype))
    return target.astype(prediction.dtype)
