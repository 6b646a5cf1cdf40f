"""Dropout."""

import jax
import jax.numpy as jnp

from funcnet.checks import fraction, spell
from funcnet.layers.checks import check_dy, check_floating, require_key
from funcnet.layers.layer import parameterless
from funcnet.types import Layer

__all__ = ["dropout"]


def dropout(rate: float) -> Layer:
    """In training each number is dropped with probability `rate` and the others are scaled by 1/(1 − rate).

    At evaluation y = x; E[y] = x in both modes. Training needs a key.

    Args:
        rate: share dropped, 0 ≤ rate < 1 (not the share kept).

    Backward. y_i = m_i x_i / (1 − rate) with a mask m of zeros and ones that does not depend on x, so
    dx = m ⊙ g / (1 − rate), and dx = g at evaluation. Kept: m in training, `None` at evaluation.

    Raises:
        ConfigError: `rate` outside [0, 1).
        MissingKeyError: in training without a key.

    References: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout", JMLR 15, 2014 (there scaled at
    evaluation).

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> y, _ = fn.layers.dropout(0.5).apply((), (), jnp.ones(1000), key=jax.random.key(0), train=True)
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    """
    name = spell(dropout, rate)
    rate = fraction(name, "rate", rate)

    def forward(x, *, key, train):
        check_floating(name, x)
        if not train:
            return x, None
        require_key(name, key)
        # Drawn in float32 whatever the mode, so that one key gives one mask with and without 64-bit numbers.
        kept = jax.random.uniform(key, x.shape, jnp.float32) >= rate
        return jnp.where(kept, x / (1 - rate), 0), kept

    def backward(kept, dy):
        if kept is None:
            return dy
        check_dy(name, dy, kept.shape)
        return jnp.where(kept, dy / (1 - rate), 0)

    return parameterless(forward, backward, name=name)
