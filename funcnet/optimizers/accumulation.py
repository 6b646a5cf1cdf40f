"""One update from the gradients of several batches: a large batch in the memory of a small one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import check_count, spell
from funcnet.optimizers.checks import check_grads
from funcnet.optimizers.slots import slots, widen
from funcnet.trees import zeros_like
from funcnet.types import Array, Optimizer, Params

__all__ = ["AccumulatedState", "accumulated"]


class AccumulatedState(NamedTuple):
    """The state of `accumulated`."""

    inner: Any  #: the state of the optimizer within, which counts its own updates
    step: Array  #: (), int32, calls of `update` so far
    total: Params  #: the sum of the gradients since the last update, like params

    @property
    def params(self) -> Params:
        """The params, which change with every k-th call."""
        return self.inner.params


def accumulated(optimizer: Optimizer, k: int) -> Optimizer:
    """Gather k gradients, then update once with their mean.

    s ← s + g in every call; in every k-th, `optimizer` sees s / k and s ← 0. If the loss is a mean over rows, k batches
    of n rows give the update of one batch of k n rows. The sum is kept in the dtype of the params, in float32 beside
    half precision.

    `step` counts calls of `update`, as a training loop counts batches; a schedule of `optimizer` counts its own
    updates, one for k of these. Each of the k gradients has the same weight, also that of a last batch of fewer rows.
    A wrapper within sees the mean and one outside sees each gradient: `accumulated(guarded(…), k)` skips all k if one
    is not finite, `guarded(accumulated(…, k))` that one alone.

    Args:
        optimizer: what to wrap.
        k: gradients for an update, 1 or more.

    Raises:
        ConfigError: `k` is no positive integer.
        StructureError, DtypeError: gradients that do not fit the params.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.accumulated(fn.optimizers.sgd(1.0), 2)
    >>> state = optimizer.init({"kernel": jnp.array([4.0])})
    >>> state = optimizer.update(state, {"kernel": jnp.array([1.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([2.0])}).params
    {'kernel': Array([2.5], dtype=float32)}
    """
    name = spell(accumulated, ..., k)
    k = check_count(name, "k", k)

    # The branches are made once: outside `jit`, new functions would be compiled in every call.
    def apply(inner, total):
        mean = jax.tree.map(lambda s, p: (s / k).astype(p.dtype), total, inner.params)
        return optimizer.update(inner, mean), zeros_like(total)

    def wait(inner, total):
        return inner, total

    def init(params):
        inner = optimizer.init(params)
        return AccumulatedState(inner, jnp.zeros((), jnp.int32), slots(inner.params))

    def update(state, grads):
        check_grads(name, state, grads)
        step, total = state.step + 1, jax.tree.map(lambda s, g: s + widen(g), state.total, grads)
        inner, total = jax.lax.cond(step % k == 0, apply, wait, state.inner, total)
        return AccumulatedState(inner, step, total)

    return Optimizer(init, update)
