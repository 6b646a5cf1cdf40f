"""Lion: the sign of the momentum."""

from typing import NamedTuple

import jax.numpy as jnp

from funcnet.checks import fraction
from funcnet.made import constructor
from funcnet.optimizers.checks import Rate
from funcnet.optimizers.descent import descent
from funcnet.types import Array, Optimizer, Params, brief

__all__ = ["LionState", "lion"]


class LionState(NamedTuple):
    """The state of `lion`."""

    step: Array  #: (), int32, updates done
    params: Params
    mu: Params  #: the running mean of the gradient, like params
    scale: Array  #: (), a factor of the rate, 1 until `rescaled`

    __repr__ = brief


@constructor
def lion(learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 0.0) -> Optimizer:
    """Lion: each number moves by the rate, in the direction of the sign of its momentum.

    d = sign(β₁ m + (1 − β₁) g),   m ← β₂ m + (1 − β₂) g,   p ← p − η (d + λ p)
    Every number moves by the whole rate. So the rate should be 3 to 10 times smaller than that of `adamw`, and λ larger
    by the same factor. Where d = 0, only the decay moves the number. To decay only some parameters, use `partitioned`.

    Args:
        learning_rate: η, a number or a schedule of the updates already done (`state.step` before the update).
        b1: β₁ in [0, 1), the weight of the old mean in the direction.
        b2: β₂ in [0, 1), the weight of the old mean in the new mean.
        weight_decay: λ ≥ 0, decoupled as in `adamw`.

    Raises:
        ConfigError: an argument out of its range.
        DtypeError: params that are not floating-point arrays, or a gradient in another dtype than its parameter.
        StructureError: gradients that do not fit the params.

    References: Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, algorithm 2.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.lion(0.5)
    >>> state = optimizer.init({"kernel": jnp.array([1.0, 2.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([3.0, -0.1])}).params
    {'kernel': Array([0.5, 2.5], dtype=float32)}
    """
    b1, b2 = fraction("b1", b1), fraction("b2", b2)

    def direction(p, g, t, mu):
        return jnp.sign(b1 * mu + (1 - b1) * g), b2 * mu + (1 - b2) * g

    return descent(LionState, learning_rate, direction, slots=["mu"], weight_decay=weight_decay)
