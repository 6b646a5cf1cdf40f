"""Copies of arrays that a caller may write to later.

A view of a NumPy array changes when its owner writes to it, and so does an array that jax puts over its memory, as it
does on a CPU where the memory is aligned. So whatever is held longer than a call is copied first.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
import numpy as np

__all__ = ["as_numpy", "own_arrays", "own_batch"]


def as_numpy(value: Any) -> np.ndarray:
    """What has arrays of NumPy in it or can become one: lists, tensors of torch, frames and columns of tables.

    What NumPy cannot take, such as a tensor of bfloat16, goes through jax and DLPack.

    >>> as_numpy([1, 2])
    array([1, 2])
    """
    try:
        return np.asanyarray(value)  # which keeps the mask of a masked array
    except (TypeError, RuntimeError):
        with suppress(Exception):  # the first error says what the tensor lacks
            return np.asarray(jax.dlpack.from_dlpack(value))
        raise


def own_arrays(tree: Any) -> Any:
    """The tree with copies of its NumPy arrays. Arrays of jax stay as they are, because nothing can write to them."""
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, tree)


def own_batch(batch: Any, copied: Callable[[np.ndarray], np.ndarray] = lambda array: array.copy()) -> Any:
    """A batch of an iterable with copies of everything that is an array or can become one.

    Those of jax are copied too: an iterable may refill a buffer of NumPy and give it out by `jnp.asarray`. What is or
    becomes an array of NumPy goes through `copied`.

    >>> buffer = np.zeros(2)
    >>> x, names = own_batch((buffer, ["a", "b"]))
    >>> buffer[:] = 1
    >>> x.tolist(), names
    ([0.0, 0.0], ['a', 'b'])
    """
    return jax.tree.map(lambda leaf: _own(leaf, copied), batch)


def _own(leaf, copied):
    if isinstance(leaf, jax.Array):
        return leaf.copy().block_until_ready()  # the buffer may change as soon as this returns
    if hasattr(leaf, "__array__"):
        with suppress(TypeError, RuntimeError):  # of a tensor that cannot become an array, which a check will refuse
            return copied(as_numpy(leaf))
    return leaf
