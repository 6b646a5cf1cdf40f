"""Dropout."""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import fraction, spell
from funcnet.errors import ConfigError
from funcnet.layers.checks import check_axis, check_dy, check_floating, require_key
from funcnet.layers.layer import parameterless
from funcnet.types import Layer

__all__ = ["dropout"]


def dropout(rate: float, *, broadcast_dims: tuple[int, ...] = ()) -> Layer:
    """In training each number is dropped with probability `rate` and the others are scaled by 1/(1 − rate).

    At evaluation y = x; E[y] = x in both modes. Training needs a key.

    Args:
        rate: share dropped, 0 ≤ rate < 1 (not the share kept).
        broadcast_dims: axes along which all numbers are dropped or kept together. Of images, (batch, height, width,
            channels), `(1, 2)` drops whole channels (spatial dropout) and `(3,)` whole pixels; of sequences, `(1,)`
            drops the same features at all times. With 0 all examples of the batch share their draws.

    Backward. y_i = m_i x_i / (1 − rate) with a mask m of zeros and ones that does not depend on x, so
    dx = m ⊙ g / (1 − rate), and dx = g at evaluation. Kept: m in training, `None` at evaluation.

    Raises:
        ConfigError: `rate` outside [0, 1), or `broadcast_dims` no tuple of integers.
        ShapeError: `x` has not the axes of `broadcast_dims`.
        MissingKeyError: in training without a key.

    References: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout", JMLR 15, 2014 (there scaled at
    evaluation). Tompson, Goroshin, Jain, LeCun, Bregler, "Efficient Object Localization Using Convolutional Networks",
    CVPR 2015 (whole channels).

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> y, _ = fn.layers.dropout(0.5).apply((), (), jnp.ones(1000), key=jax.random.key(0), train=True)
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    """
    name = spell(dropout, rate, broadcast_dims=broadcast_dims)
    rate = fraction(name, "rate", rate)
    _check_axes(name, broadcast_dims)

    def forward(x, *, key, train):
        check_floating(name, x)
        for axis in broadcast_dims:
            check_axis(name, axis, x)
        if not train:
            return x, None
        require_key(name, key)
        # Drawn in float32 whatever the mode, so that one key gives one mask with and without 64-bit numbers.
        together = {axis % x.ndim for axis in broadcast_dims}
        draws = tuple(1 if axis in together else n for axis, n in enumerate(x.shape))
        kept = jnp.broadcast_to(jax.random.uniform(key, draws, jnp.float32) >= rate, x.shape)
        return jnp.where(kept, x / (1 - rate), 0), kept

    def backward(kept, dy):
        if kept is None:
            return dy
        check_dy(name, dy, kept.shape)
        return jnp.where(kept, dy / (1 - rate), 0)

    return parameterless(forward, backward, name=name)


def _check_axes(name: str, axes: Any) -> None:
    if not isinstance(axes, tuple) or not all(isinstance(axis, int) and not isinstance(axis, bool) for axis in axes):
        raise ConfigError(f"{name}: expected broadcast_dims to be a tuple of axes, such as (1, 2), got {axes!r}.")
