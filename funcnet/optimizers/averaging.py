"""The average of the parameters during training, which often predicts better than the last parameters."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import check_count, fraction
from funcnet.dtypes import widen
from funcnet.made import constructor
from funcnet.optimizers.checks import check_grads, check_optimizer
from funcnet.types import Array, Optimizer, Params, brief

__all__ = ["AveragedState", "averaged"]


class AveragedState(NamedTuple):
    """The state of `averaged`."""

    inner: Any  #: the state of the optimizer within
    mean: Params  #: the average, like params, in float32 beside half precision

    @property
    def step(self) -> Array:
        """(), int32, calls of `update` so far."""
        return self.inner.step

    @property
    def params(self) -> Params:
        """The params that are trained."""
        return self.inner.params

    @property
    def average(self) -> Params:
        """The averaged params, in the dtypes of the params."""
        return jax.tree.map(lambda a, p: a.astype(p.dtype), self.mean, self.params)

    __repr__ = brief


@constructor
def averaged(optimizer: Optimizer, decay: float | None = 0.999, *, start: int = 0) -> Optimizer:
    """Keep an average of the parameters beside those that are trained: `state.average` beside `state.params`.

    a ← a + w (p − a) after every update, with w = (1 − d) / (1 − dᵗ) for the decay d, and w = 1/t without decay. Here t
    counts the updates from `start` on, including this one. So the average is Σ dᵗ⁻ⁱ pᵢ / Σ dᵗ⁻ⁱ over the params after
    each update. The initial params do not count, because training did not make them. Until `start` the average equals
    the params.

    With `decay=None` (the plain mean) and a `start` late in the training this is stochastic weight averaging (SWA). The
    training itself is that of `optimizer`. Predict with `model.apply(state.average, …)`. The running statistics of a
    `batch_norm` belong to `params`. So before it predicts, such a model needs a pass over the data in training mode.

    Every call of `update` counts. To count only those that were not skipped, put this wrapper within `guarded`.

    Args:
        optimizer: what to wrap.
        decay: d in [0, 1), which averages over about 1 / (1 − d) updates; `None` for the mean of all.
        start: how many calls of `update` come before the average begins.

    Raises:
        ConfigError: an argument out of its range.
        StructureError, DtypeError: gradients that do not fit the params.

    References: Polyak, Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; Izmailov, Podoprikhin,
    Garipov, Vetrov, Wilson, "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.averaged(fn.optimizers.sgd(1.0), decay=None)
    >>> state = optimizer.init({"kernel": jnp.array([9.0])})
    >>> for _ in range(3):
    ...     state = optimizer.update(state, {"kernel": jnp.array([1.0])})
    >>> state.params, state.average
    ({'kernel': Array([6.], dtype=float32)}, {'kernel': Array([7.], dtype=float32)})
    """
    check_optimizer(optimizer)
    decay = None if decay is None else fraction("decay", decay)
    start = check_count("start", start, 0)

    def init(params):
        inner = optimizer.init(params)
        return AveragedState(inner, jax.tree.map(lambda p: jnp.array(widen(p)), inner.params))

    def update(state, grads):
        check_grads(state, grads, AveragedState)
        inner = optimizer.update(state.inner, grads)
        weight = _weight(decay, jnp.maximum(inner.step - start, 1))
        mean = jax.tree.map(lambda a, p: a + weight.astype(a.dtype) * (widen(p) - a), state.mean, inner.params)
        return AveragedState(inner, mean)

    return Optimizer(init, update)


def _weight(decay: float | None, t: Array) -> Array:
    """The weight of the newest of t params. It uses expm1, because 1 − 0.999ᵗ loses three digits in float32."""
    t = t.astype(jnp.result_type(float))
    if decay is None:
        return 1 / t
    return (decay - 1) / jnp.expm1((math.log(decay) if decay > 0 else -math.inf) * t)
