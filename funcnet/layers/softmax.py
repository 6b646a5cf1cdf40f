"""Softmax and its logarithm, the activations that combine numbers along an axis."""

from numbers import Integral

import jax
import jax.numpy as jnp

from funcnet.checks import check_floating, describe
from funcnet.dtypes import widen
from funcnet.errors import ConfigError
from funcnet.layers.checks import check_axis
from funcnet.layers.layer import parameterless
from funcnet.made import constructor
from funcnet.types import Layer, Rules

__all__ = ["log_softmax", "softmax"]


@constructor
def softmax(axis: int = -1) -> Layer:
    """Probabilities that sum to 1 along `axis`, y_k = e^(x_k) / Σ_j e^(x_j).

    For training leave it out and use `losses.softmax_cross_entropy`, which takes the logits. The logarithm of a softmax
    loses precision that `log_softmax` keeps.

    Args:
        axis: counted from the front or, if negative, from the end. `Padded` sequences need a negative one.

    Backward. Every x_j reaches every y_k. Since log y_k = x_k − log Σ_j e^(x_j), ∂(log y_k)/∂x_j = δ_kj − y_j, where
    δ_kj is 1 for k = j, else 0. Also ∂y_k/∂x_j = y_k ∂(log y_k)/∂x_j. So with g = ∂L/∂y
        dx_j = Σ_k g_k y_k (δ_kj − y_j) = y_j (g_j − Σ_k g_k y_k).
    Kept: y.

    Raises:
        ConfigError: `axis` is not an integer.
        ShapeError: `x` does not have that axis.
        DtypeError: `x` is not floating-point.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.softmax().apply((), (), jnp.array([[0.0, 0.0]]))[0]
    Array([[0.5, 0.5]], dtype=float32)
    """
    rules = _rules(axis)

    def forward(x, *, key, train):
        del key, train
        check_floating("x", x)
        check_axis(axis, x)
        y = jax.nn.softmax(widen(x), axis).astype(x.dtype)
        return y, y

    def backward(y, dy):
        y, g = widen(y), widen(dy)
        return (y * (g - jnp.sum(g * y, axis, keepdims=True))).astype(dy.dtype)

    return parameterless(forward, backward, rules=rules)


@constructor
def log_softmax(axis: int = -1) -> Layer:
    """Logarithm of the softmax, y_k = x_k − log Σ_j e^(x_j), without overflow.

    Args:
        axis: counted from the front or, if negative, from the end. `Padded` sequences need a negative one.

    Backward. ∂(log Σ_i e^(x_i))/∂x_j = e^(x_j) / Σ_i e^(x_i) = p_j with p = softmax(x) = e^y. So ∂y_k/∂x_j = δ_kj −
    p_j, where δ_kj is 1 for k = j, else 0. So with g = ∂L/∂y
        dx_j = Σ_k g_k (δ_kj − p_j) = g_j − p_j Σ_k g_k.
    Kept: y, in float32 or wider, because e^y would multiply its rounding by |y|.

    Raises:
        ConfigError: `axis` is not an integer.
        ShapeError: `x` does not have that axis.
        DtypeError: `x` is not floating-point.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.log_softmax().apply((), (), jnp.array([[0.0, 200.0]]))[0]
    Array([[-200.,    0.]], dtype=float32)
    """
    rules = _rules(axis)

    def forward(x, *, key, train):
        del key, train
        check_floating("x", x)
        check_axis(axis, x)
        y = jax.nn.log_softmax(widen(x), axis)
        return y.astype(x.dtype), y

    def backward(y, dy):
        g = widen(dy)
        return (g - jnp.exp(y) * jnp.sum(g, axis, keepdims=True)).astype(dy.dtype)

    return parameterless(forward, backward, rules=rules)


def _rules(axis):
    """An axis counted from the end stays the same when the time axis, which is in front of it, is removed."""
    if not isinstance(axis, Integral) or isinstance(axis, bool):
        raise ConfigError(f"expected axis to be an integer, got {describe(axis)}.")
    return Rules(positionwise=-int(axis) if axis < 0 else None)
