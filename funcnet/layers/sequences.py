"""What layers of sequences share: the values of a `Padded` and where there is something, and time as an axis."""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_shape
from funcnet.errors import ShapeError
from funcnet.layers.checks import check_array, check_padded
from funcnet.trees import is_padded
from funcnet.types import Padded

__all__ = [
    "chosen", "closed", "opened", "opened_sequence", "opened_times", "positions_of", "swapped", "zeroed",
]  # fmt: skip


def opened(x: Any, features: int = 1) -> tuple[Any, Any]:
    """`(values, where)` of an array or a `Padded`. `where` is `None` for an array.

    Of a `Padded` it checks that `features` or more axes come after those of `where`.
    """
    if is_padded(x):
        check_padded(x, features)
        return x.values, x.where
    check_array(x)
    return x, None


def opened_sequence(x: Any) -> tuple[Any, Any]:
    """`(values, where)`, with values (batch, time, features)."""
    values, where = opened(x)
    check_shape("x", values, "(batch, time, features)", "add the batch axis with x[None]")
    if where is not None:
        check_shape("x.where", where, "(batch, time)")
    return values, where


def opened_times(x: Any) -> tuple[Any, Any]:
    """`(values, where)`, with values (batch, time, …)."""
    values, where = opened(x, 0)
    if values.ndim < 2 or (where is not None and where.ndim != 2):
        got = f"{values.shape}" if where is None else f"{values.shape} with where of shape {where.shape}"
        raise ShapeError(f"expected x of shape (batch, time, …), got {got}; add the batch axis with x[None].")
    return values, where


def closed(values: Any, where: Any) -> Any:
    """The inverse of `opened`."""
    return values if where is None else Padded(values, where)


def positions_of(where: Any, time: int) -> jax.Array:
    """The position of each time, counted from 0, (batch, time) int32, or (1, time) if nothing is padded.

    Only times count at which there is something. So padding in front, behind or between moves no position. Before the
    first of them the position is −1.

    >>> positions_of(jnp.array([[False, True, True, False]]), 4)
    Array([[-1,  0,  1,  1]], dtype=int32)
    """
    if where is None:
        return jnp.arange(time, dtype=jnp.int32)[None]
    return jnp.cumsum(where, 1, jnp.int32) - 1


def chosen(where: Any, new: Any, old: Any) -> Any:
    """The tree `new` where there is something, else `old`. `where` has the first axes of each array, or is `None`.

    An array without axes, such as a count of positions, has no rows, so it is always the new one.
    """

    def choose(new, old):
        if jnp.ndim(new) == 0:
            return new
        return jnp.where(where.reshape(where.shape + (1,) * (new.ndim - where.ndim)), new, old)

    return new if where is None else jax.tree.map(choose, new, old)


def zeroed(where: Any, tree: Any) -> Any:
    """The tree with zeros where there is nothing."""
    return tree if where is None else chosen(where, tree, jax.tree.map(jnp.zeros_like, tree))


def swapped(tree: Any) -> Any:
    """The tree with the first two axes of each array, batch and time, exchanged."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), tree)
