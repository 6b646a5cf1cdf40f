"""Layers that move numbers about and change none: identity, flatten, reshape."""

import math

import jax
import jax.numpy as jnp

from funcnet.checks import is_count, spell
from funcnet.errors import ConfigError, ShapeError
from funcnet.layers.layer import parameterless
from funcnet.types import Layer

__all__ = ["flatten", "identity", "reshape"]


def identity() -> Layer:
    """y = x.

    Backward. dx = g. Kept: nothing.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.identity().apply((), (), jnp.array([[-1.0, 2.0]]))[0]
    Array([[-1.,  2.]], dtype=float32)
    """
    return parameterless(lambda x, *, key, train: (x, None), lambda residuals, dy: dy, name="identity()")


def flatten() -> Layer:
    """All axes but the batch's made one: (batch, a, b, …) -> (batch, a·b·…).

    Backward. The numbers keep their order, so dx is g in the shape of x. Kept: the shape of x.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.flatten().apply((), (), jnp.ones((2, 8, 8, 1)))[0].shape
    (2, 64)
    """

    def forward(x, *, key, train):
        del key, train
        if x.ndim < 1:
            raise ShapeError(f"flatten(): expected x of shape (batch, …), got {x.shape}; add the batch axis.")
        return _reshape(x, (x.shape[0], math.prod(x.shape[1:])))

    return parameterless(forward, _restore, name="flatten()")


def reshape(shape: tuple[int, ...]) -> Layer:
    """All axes but the batch's in another shape: (batch, …) -> (batch, *shape).

    Args:
        shape: without the batch axis; one entry may be −1 and is then computed.

    Backward. The numbers keep their order, so dx is g in the shape of x. Kept: the shape of x.

    Raises:
        ConfigError: `shape` is no tuple of positive integers with at most one −1.
        ShapeError: an example of `x` has another number of elements.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.reshape((8, 8, -1)).apply((), (), jnp.ones((2, 64)))[0].shape
    (2, 8, 8, 1)
    """
    name = spell(reshape, shape)
    entries = shape if isinstance(shape, tuple) else (0,)
    if not all(is_count(n, -1) and n != 0 for n in entries) or entries.count(-1) > 1:
        raise ConfigError(
            f"{name}: expected shape to be a tuple of positive integers, at most one of them -1, got {shape!r}."
        )

    def forward(x, *, key, train):
        del key, train
        size = math.prod(x.shape[1:])
        known = math.prod(n for n in shape if n != -1)
        if x.ndim < 1 or (size % known if -1 in shape else size != known):
            raise ShapeError(
                f"{name}: expected x of shape (batch, …) with {known} elements an example"
                f"{' or a multiple' if -1 in shape else ''}, got {x.shape}."
            )
        return _reshape(x, (x.shape[0], *(size // known if n == -1 else n for n in shape)))

    return parameterless(forward, _restore, name=name)


def _reshape(x, shape):
    """`x` reshaped, and its shape as residuals: an array of no numbers, which crosses jit and scan for nothing."""
    return x.reshape(shape), jnp.zeros((0, *x.shape))


def _restore(residuals: jax.Array, dy):
    return None if dy is None else dy.reshape(residuals.shape[1:])
