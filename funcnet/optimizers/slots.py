"""The arithmetic that optimizers share: slots beside the params, and the descent itself.

A slot, such as Adam's mean gradient, is kept in the dtype of its parameter, and in float32 beside a parameter of
half precision: in bfloat16 a decay of 0.999 rounds to 1, in float16 an epsilon of 1e-8 to 0.
"""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.errors import ShapeError
from funcnet.optimizers.checks import check_grads
from funcnet.types import Array, Params, Schedule

__all__ = ["descend", "rate_at", "slot_grads", "slots", "widen"]


def widen(x: Any) -> Array:
    """`x` in the dtype of its slots."""
    return jnp.asarray(x, _slot_dtype(x))


def _slot_dtype(x):
    return x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32


def slots(params: Params, value: float = 0.0) -> Params:
    """A tree like `params`, filled with `value`: new buffers each time, as a donated state shares none."""
    return jax.tree.map(lambda p: jnp.full_like(p, value, dtype=_slot_dtype(p)), params)


def slot_grads(name: str, state: Any, grads: Params) -> Params:
    """The gradients, checked against the state, in the dtypes of the slots."""
    check_grads(name, state, grads)
    return jax.tree.map(widen, grads)


def rate_at(name: str, schedule: Schedule, step: Array) -> Array:
    """The learning rate, a scalar: any other shape would broadcast the params to a new one."""
    rate = jnp.asarray(schedule(step))
    if rate.shape != ():
        raise ShapeError(f"{name}: expected learning_rate(step) to be a scalar, got an array of shape {rate.shape}.")
    return rate


def descend(params: Params, rate: Array, direction: Params) -> Params:
    """p − rate · d, leaf by leaf, in the dtype of d; the result has the dtype of p."""
    return jax.tree.map(lambda p, d: (widen(p) - rate.astype(d.dtype) * d).astype(p.dtype), params, direction)
