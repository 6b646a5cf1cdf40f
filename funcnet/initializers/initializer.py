"""The maker of initializers. What one computes is compiled once for each shape and dtype, for all leaves and models.

Numbers narrower than 32 bits are drawn in float32 and then rounded. Drawn in bfloat16 itself, normal numbers would take
only 128 different values, and their mean would not be 0.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.core import Tracer

from funcnet.dtypes import at_least_float32
from funcnet.errors import DtypeError, ShapeError
from funcnet.types import Array, Key

__all__ = ["Initializer", "fans", "initializer"]


class Initializer(Protocol):
    """`initializer(key, shape, dtype) -> array`. The same key gives the same numbers."""

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: Any, /) -> Array: ...


def initializer(draw: Callable[..., Array], *parameters: Any) -> Initializer:
    """The initializer that returns `draw(numbers, shape, dtype, *parameters)`.

    `draw` gets its random numbers from `numbers(distribution, shape, dtype)`.
    """

    def drawn(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
        # Without 64-bit mode float64 becomes float32, as in every array that jax makes from one of NumPy.
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise DtypeError(f"expected a floating dtype, got {dtype}.")
        return _drawn(draw, tuple(shape), jnp.dtype(dtype), parameters, not isinstance(key, Tracer), key)

    return drawn


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _drawn(draw, shape, dtype, parameters, alone, key):
    """The numbers, drawn in at least 32 bits. With `alone` this is a program of its own, else a part of another one.

    The barrier keeps the bits the same in both cases. Without it XLA would merge the drawing into the program around
    it, and round differently.
    """

    def numbers(distribution, shape, dtype):
        """Number i is a function of the key and of i. It does not depend on the shape.

        In one row the numbers take less time to compile. Another program may run on several devices. There the numbers
        have their own shape, so that they can be cut along any axis and no device makes all of them.
        """
        if alone:
            return distribution(key, (math.prod(shape),), dtype).reshape(shape)
        return distribution(key, shape, dtype)

    drawn = draw(numbers, shape, at_least_float32(dtype), *parameters)
    return jax.lax.optimization_barrier(drawn).astype(dtype)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """`(fan_in, fan_out)` of a kernel."""
    if len(shape) < 2 or 0 in shape:
        raise ShapeError(
            f"expected the shape (…, in, out) of a kernel, without zeros, got {shape}; "
            "for a bias or a scale use zeros, constant or normal."
        )
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]
