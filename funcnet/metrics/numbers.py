"""Metrics of numbers."""

from typing import NamedTuple

import jax.numpy as jnp

from funcnet.checks import check_count, check_same_shape
from funcnet.errors import ShapeError
from funcnet.made import constructor
from funcnet.metrics.metric import Metric, Sum, as_arrays, counting
from funcnet.types import Array

__all__ = ["r_squared"]


class _Moments(NamedTuple):
    """The state of R²; each field is (outputs,)."""

    total: Sum
    origin: Array  #: the first target
    mean: Array  #: of target − origin
    centred: Array  #: Σ (target − its mean)²
    residual: Array  #: Σ (prediction − target)²


@constructor
def r_squared(outputs: int = 1) -> Metric:
    """Coefficient of determination, R² = 1 − Σ (t − p)² / Σ (t − mean t)²; the mean over several outputs.

    It is 1 for a perfect prediction, 0 for one as good as the mean of the targets, and negative for a worse one. If a
    target is constant, R² is 1 for a perfect prediction and 0 for any other, as in scikit-learn.

    Prediction and target have one shape: (batch,) or (batch, …, outputs).

    The sums are merged batch by batch. Let two sets of targets have the sizes n and m (numbers of targets, or sums of
    their weights) and the means a and b. Together they have Σ (t − mean)² = the sum of both + (a − b)² n m / (n + m).
    All targets are measured from the first one. This costs nothing and keeps the digits that a mean of 1e4 would take
    in float32. The squares are not scaled: there, differences beyond 1e19 give NaN, and those below 1e-23 count as 0.

    Args:
        outputs: width of the last axis.

    Raises:
        ConfigError: `outputs` is not a positive integer.
        ShapeError, DtypeError: in `update`, for a target or mask that does not fit.

    References: Chan, Golub, LeVeque, "Algorithms for Computing the Sample Variance", 1983, equation 2.1.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.r_squared()
    >>> metric.compute(metric.update(metric.init(), jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 2.0, 3.0])))
    Array(0.5, dtype=float32)
    """
    outputs = check_count("outputs", outputs)

    def init():
        # Four buffers: a donated state must not share one.
        zero = [jnp.zeros(outputs, jnp.result_type(float)) for _ in range(4)]
        return _Moments(Sum.zero(outputs), *zero)

    def update(state, prediction, target, where=None, weights=None):
        prediction, target, where = as_arrays(prediction, target, where)
        _check_outputs(prediction, target, outputs)
        mask, weights = counting(where, weights, target.shape)
        p, t = (a.reshape(-1, outputs).astype(state.mean.dtype) for a in (prediction, target))
        mask = mask.reshape(-1, outputs)
        w = mask.astype(t.dtype) if weights is None else jnp.where(mask, weights.reshape(-1, outputs), 0)
        first = jnp.take_along_axis(t, jnp.argmax(mask, 0, keepdims=True), 0)[0]
        seen = state.total.number
        origin = jnp.where(seen > 0, state.origin, jnp.where(mask.any(0), first, 0))

        total = state.total.plus(mask, None if weights is None else w, 0)
        n, m = seen, total.number - seen if weights is None else w.sum(0)
        t0 = jnp.where(mask, t - origin, 0)
        mean = jnp.sum(w * t0, 0) / jnp.where(m > 0, m, 1)
        share = m / jnp.where(n + m > 0, n + m, 1)
        difference = mean - state.mean

        def squares(x):
            return jnp.sum(w * jnp.square(jnp.where(mask, x, 0)), 0)

        return _Moments(
            total,
            origin,
            state.mean + difference * share,
            state.centred + squares(t0 - mean) + jnp.square(difference) * n * share,
            state.residual + squares(p - t),
        )

    def compute(state):
        constant = state.centred == 0
        ratio = state.residual / jnp.where(constant, 1, state.centred)
        score = jnp.where(constant, (state.residual == 0).astype(ratio.dtype), 1 - ratio)
        return jnp.mean(jnp.where(state.total.number > 0, score, jnp.nan))

    return Metric(init, update, compute)


def _check_outputs(prediction: Array, target: Array, outputs: int) -> None:
    check_same_shape(prediction, target)
    width = target.shape[-1] if target.ndim > 1 else 1
    if target.ndim == 0 or width != outputs:
        fix = f"use r_squared({width})"
        raise ShapeError(f"expected prediction and target of shape (batch, {outputs}), got {target.shape}; {fix}.")
