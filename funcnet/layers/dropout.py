"""Dropout."""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_floating, fraction
from funcnet.errors import ConfigError
from funcnet.layers.checks import check_axis, check_training_key
from funcnet.layers.layer import parameterless
from funcnet.made import constructor
from funcnet.types import Layer, Rules

__all__ = ["dropout"]


@constructor
def dropout(rate: float, *, broadcast_dims: tuple[int, ...] = ()) -> Layer:
    """In training each number is set to 0 with probability `rate`, and the others are scaled by 1/(1 − rate).

    At evaluation y = x. In both modes E[y] = x. Training needs a key.

    Args:
        rate: the share that is dropped, not the share that is kept, 0 ≤ rate < 1.
        broadcast_dims: axes along which all numbers are dropped or kept together. For images (batch, height, width,
            channels), `(1, 2)` drops whole channels (spatial dropout) and `(3,)` whole pixels. For sequences, `(1,)`
            drops the same features at all times. If 0 is among the axes, all examples of the batch share one mask.

    Backward. y_i = m_i x_i / (1 − rate) with a mask m of zeros and ones that does not depend on x. So with g = ∂L/∂y,
    dx = m ⊙ g / (1 − rate) in training and dx = g at evaluation. Kept: m in training, `None` at evaluation.

    Raises:
        ConfigError: `rate` is outside [0, 1), or `broadcast_dims` is not a tuple of integers.
        ShapeError: `x` does not have the axes of `broadcast_dims`.
        MissingKeyError: in training without a key.

    References: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout", JMLR 15, 2014 (there scaled at
    evaluation). Tompson, Goroshin, Jain, LeCun, Bregler, "Efficient Object Localization Using Convolutional Networks",
    CVPR 2015 (whole channels).

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> y, _ = fn.layers.dropout(0.5).apply((), (), jnp.ones(1000), key=jax.random.key(0), train=True)
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    """
    rate = fraction("rate", rate)
    _check_axes(broadcast_dims)

    def forward(x, *, key, train):
        check_floating("x", x)
        for axis in broadcast_dims:
            check_axis(axis, x)
        if not train:
            return x, None
        check_training_key(key)
        # Always drawn in float32, so that a key gives the same mask with and without 64-bit numbers.
        together = {axis % x.ndim for axis in broadcast_dims}
        draws = tuple(1 if axis in together else n for axis, n in enumerate(x.shape))
        kept = jnp.broadcast_to(jax.random.uniform(key, draws, jnp.float32) >= rate, x.shape)
        return jnp.where(kept, x / (1 - rate), 0), kept

    def backward(kept, dy):
        return dy if kept is None else jnp.where(kept, dy / (1 - rate), 0)

    # Numbers that are dropped together may belong to several positions.
    return parameterless(forward, backward, rules=Rules(positionwise=None if broadcast_dims else 0))


def _check_axes(axes: Any) -> None:
    if not isinstance(axes, tuple) or not all(isinstance(axis, int) and not isinstance(axis, bool) for axis in axes):
        raise ConfigError(f"expected broadcast_dims to be a tuple of axes, such as (1, 2), got {axes!r}.")
