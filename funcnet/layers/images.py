"""Layers that change the size of an image and have no parameters: padding and upsampling."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from funcnet.checks import check_choice, describe, is_count, number
from funcnet.errors import ConfigError
from funcnet.layers.convolution.windows import AXES, check_image, check_sizes, window_size
from funcnet.layers.layer import parameterless
from funcnet.made import constructor
from funcnet.trees import keep_shape, kept_shape
from funcnet.types import Layer

__all__ = ["pad", "upsample"]


@constructor
def pad(padding: Any, *, value: float = 0.0) -> Layer:
    """A border around the image, of zeros or of another constant.

    Args:
        padding: an integer for all sides, or a tuple. The tuple has an integer or a pair (before, after) for each
            spatial axis, or a single one for all axes.
        value: the number in the border.

    Input (batch, *size, channels), output (batch, *(n + before + after), channels).

    Backward. y holds the numbers of the image unchanged, and the border depends on nothing. So dx is g = ∂L/∂y without
    its border. Kept: the shape of x.

    Raises:
        ConfigError: `padding` is anything else, or `value` is not finite.
        ShapeError: `x` has other axes.
        DtypeError: `x` is not floating-point.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.pad(((1, 2),), value=9.0).apply((), (), jnp.ones((1, 2, 1)))[0].ravel()
    Array([9., 1., 1., 9., 9.], dtype=float32)
    """
    pairs = _pairs(padding)
    value = number("value", value)

    def around(x, sign=1):
        return ((0, 0, 0), *((sign * lo, sign * hi, 0) for lo, hi in _each_axis(pairs, x)), (0, 0, 0))

    def forward(x, *, key, train):
        del key, train
        return lax.pad(x, jnp.array(value, x.dtype), around(x)), keep_shape(x)

    def backward(shape, dy):
        return lax.pad(dy, jnp.zeros((), dy.dtype), around(kept_shape(shape), -1))

    return parameterless(forward, backward)


@constructor
def upsample(factor: int | tuple[int, ...], *, method: str = "nearest") -> Layer:
    """An image enlarged by an integer factor.

    Args:
        factor: an integer for all spatial axes, or a tuple with one for each.
        method: `"nearest"` repeats every number, y_i = x_⌊i/f⌋. `"bilinear"` interpolates linearly along each axis,
            between the centres of neighbouring pixels, y_i = Σ_j max(0, 1 − |c_i − j|) x_j. Here c_i = (i + ½)/f − ½,
            clipped to the range from the first pixel to the last. `jax.image.resize` does the same, and torch with
            `align_corners=False`.

    Input (batch, *size, channels), output (batch, *(f n), channels).

    Backward. Both methods are linear maps along each axis, y = A x, so dx = Aᵀ g with g = ∂L/∂y. For `"nearest"` row i
    of A has its 1 at ⌊i/f⌋, so Aᵀ sums over the f copies of each number. For `"bilinear"` A holds the weights above.
    Kept: the shape of x.

    Raises:
        ConfigError: `factor` is not a positive integer or tuple of one to three, or `method` has another name.
        ShapeError: `x` has other axes.
        DtypeError: `x` is not floating-point.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> x = jnp.array([0.0, 4.0]).reshape(1, 2, 1)
    >>> [fn.layers.upsample(2, method=how).apply((), (), x)[0].ravel().tolist() for how in ("nearest", "bilinear")]
    [[0.0, 0.0, 4.0, 4.0], [0.0, 1.0, 3.0, 4.0]]
    """
    factors = window_size("factor", factor if isinstance(factor, tuple) else (factor,))
    check_choice("method", method, ("nearest", "bilinear"))
    larger, smaller = (_repeated, _block_sums) if method == "nearest" else (_interpolated, _interpolated_back)

    def forward(x, *, key, train):
        del key, train
        return larger(x, _each_axis(factors, x)), keep_shape(x)

    def backward(shape, dy):
        return smaller(dy, _each_axis(factors, kept_shape(shape)))

    return parameterless(forward, backward)


# Spatial axes.


def _pairs(padding: Any) -> tuple[tuple[int, int], ...]:
    """One pair (before, after) for each entry of `padding`."""
    entries = padding if isinstance(padding, tuple) else (padding,)
    pairs = [one if isinstance(one, tuple) else (one, one) for one in entries]
    if len(pairs) not in AXES or not all(len(pair) == 2 and all(is_count(n, 0) for n in pair) for pair in pairs):
        wanted = "an integer >= 0, or a tuple of one to three integers or pairs (before, after)"
        raise ConfigError(f"expected padding to be {wanted}; got {describe(padding)}.")
    return tuple((int(lo), int(hi)) for lo, hi in pairs)


def _each_axis(values: tuple[Any, ...], x: Any) -> tuple[Any, ...]:
    """One value for each spatial axis of `x`. A single value holds for all of them."""
    if len(values) == 1:
        check_sizes(x)
        return values * (x.ndim - 2)
    check_image(x, len(values))
    return values


# Linear maps along each spatial axis, and their transposes.


def _repeated(x, factors):
    """Every number as a block of copies."""
    apart = jnp.expand_dims(x, tuple(range(2, 2 * len(factors) + 1, 2)))
    blocks = [length for n, f in zip(x.shape[1:-1], factors, strict=True) for length in (n, f)]
    size = [n * f for n, f in zip(x.shape[1:-1], factors, strict=True)]
    blocks = jnp.broadcast_to(apart, (x.shape[0], *blocks, x.shape[-1]))
    return blocks.reshape(x.shape[0], *size, x.shape[-1])


def _block_sums(y, factors):
    blocks = [length for n, f in zip(y.shape[1:-1], factors, strict=True) for length in (n // f, f)]
    return y.reshape(y.shape[0], *blocks, y.shape[-1]).sum(tuple(range(2, 2 * len(factors) + 1, 2)))


def _interpolated(x, factors):
    for axis, f in enumerate(factors, 1):
        x = _along(axis, _weights(x.shape[axis], f), x)
    return x


def _interpolated_back(y, factors):
    for axis, f in enumerate(factors, 1):
        y = _along(axis, _weights(y.shape[axis] // f, f).T, y)
    return y


def _along(axis, matrix, x):
    # At the default precision a GPU would round the weights to ten bits.
    product = jnp.tensordot(jnp.asarray(matrix, x.dtype), x, (1, axis), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(product, 0, axis)


def _weights(n: int, factor: int) -> np.ndarray:
    """The weight of each of n input pixels in each of n · factor output pixels, (n · factor, n)."""
    centres = np.clip((np.arange(n * factor) + 0.5) / factor - 0.5, 0, n - 1)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(n)))
