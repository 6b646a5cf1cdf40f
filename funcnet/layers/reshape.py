"""Layers that leave all numbers as they are: identity, flatten, reshape."""

import math

from funcnet.checks import check_shape, is_count
from funcnet.errors import ConfigError, ShapeError
from funcnet.layers.layer import parameterless
from funcnet.made import constructor
from funcnet.trees import keep_shape, kept_shape
from funcnet.types import Array, Layer, Rules

__all__ = ["flatten", "identity", "reshape"]


@constructor
def identity() -> Layer:
    """y = x.

    Backward. dx = g. Kept: nothing.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.identity().apply((), (), jnp.array([[-1.0, 2.0]]))[0]
    Array([[-1.,  2.]], dtype=float32)
    """
    rules = Rules(positionwise=0)
    return parameterless(lambda x, *, key, train: (x, None), lambda residuals, dy: dy, rules=rules, trees=True)


@constructor
def flatten() -> Layer:
    """All axes after the batch axis merged into one: (batch, a, b, …) -> (batch, a·b·…).

    Backward. The numbers keep their order, so dx is g in the shape of x. Kept: the shape of x.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.flatten().apply((), (), jnp.ones((2, 8, 8, 1)))[0].shape
    (2, 64)
    """

    def forward(x, *, key, train):
        del key, train
        check_shape("x", x, "(batch, …)", "add the batch axis with x[None]")
        return _reshape(x, (x.shape[0], math.prod(x.shape[1:])))

    return parameterless(forward, _restore)


@constructor
def reshape(shape: tuple[int, ...]) -> Layer:
    """Another shape for all axes after the batch axis: (batch, …) -> (batch, *shape).

    Args:
        shape: the new shape without the batch axis. One entry may be −1. It is then computed from the others.

    Backward. The numbers keep their order, so dx is g in the shape of x. Kept: the shape of x.

    Raises:
        ConfigError: `shape` is not a tuple of positive integers with at most one −1.
        ShapeError: an example of `x` has another number of elements.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.reshape((8, 8, -1)).apply((), (), jnp.ones((2, 64)))[0].shape
    (2, 8, 8, 1)
    """
    entries = shape if isinstance(shape, tuple) else (0,)
    if not all(is_count(n, -1) and n != 0 for n in entries) or entries.count(-1) > 1:
        raise ConfigError(f"expected shape to be a tuple of positive integers, at most one of them -1, got {shape!r}.")

    def forward(x, *, key, train):
        del key, train
        size = math.prod(x.shape[1:])
        known = math.prod(n for n in shape if n != -1)
        if x.ndim < 1 or (size % known if -1 in shape else size != known):
            wanted = f"{known} elements per example{' or a multiple' if -1 in shape else ''}"
            raise ShapeError(f"expected x with {wanted}, got {x.shape}; choose a shape that has as many.")
        return _reshape(x, (x.shape[0], *(size // known if n == -1 else n for n in shape)))

    return parameterless(forward, _restore)


def _reshape(x, shape):
    """`x` in another shape, and what `_restore` needs."""
    return x.reshape(shape), keep_shape(x)


def _restore(shape: Array, dy):
    return None if dy is None else dy.reshape(kept_shape(shape).shape)
