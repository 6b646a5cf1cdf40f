"""What the checker draws at random: inputs, targets, parameters and cotangents, in float64.

Random numbers come from NumPy, because a program that draws them takes longer to compile than the rest of a check.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnet.dtypes import is_key
from funcnet.errors import ConfigError
from funcnet.trees import is_padded, is_whole, map_leaves, values_of
from funcnet.types import Padded, Whole

__all__ = [
    "ELSEWHERE", "NUMBERS", "as_float64", "is_floating", "moved", "random_cotangent", "random_like", "refuse_tracers",
    "some_shapes", "widened",
]  # fmt: skip

#: How floating numbers are drawn where only a shape is given: (generator, shape) -> array.
NUMBERS = {
    "normal": lambda random, shape: random.normal(size=shape),
    "of size 1e-4": lambda random, shape: 1e-4 * random.normal(size=shape),
    "of size 1e2": lambda random, shape: 1e2 * random.normal(size=shape),
    "of size 1e6": lambda random, shape: 1e6 * random.normal(size=shape),
    "with ties": lambda random, shape: random.integers(-2, 3, shape) / 2.0,  # and zeros, where many functions bend
}
ELSEWHERE = tuple(NUMBERS)[1:]  #: where a gradient is compared that is right at normal numbers


def is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def some_shapes(tree: Any) -> bool:
    """Whether floating numbers of a tree are drawn, because only their shape is given."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) and is_floating(leaf) for leaf in jax.tree.leaves(tree))


def refuse_tracers(tree: Any) -> None:
    """Raise `ConfigError` for numbers that are traced, for example by `jit`, and so are not there yet."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree)):
        raise ConfigError(
            "expected numbers, got an array that is traced (by jit, grad, vmap or scan); a check compiles its own "
            "programs and reads their results: call it outside."
        )


def random_like(random: np.random.Generator, tree: Any, numbers: str = "normal") -> Any:
    """A tree with floating leaves as float64. Where only a shape is given, it is drawn.

    Integers are 0 and 1. The lengths of a `Padded` are from 1 to all.
    """
    return map_leaves(partial(_drawn, random, NUMBERS[numbers]), tree)


def _drawn(random, numbers, leaf):
    if is_padded(leaf):
        return Padded(_drawn(random, numbers, leaf.values), _drawn_where(random, leaf.where))
    if is_whole(leaf):
        return Whole(_drawn(random, numbers, leaf.array))
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return as_float64(leaf)
    if is_floating(leaf):
        return jnp.asarray(numbers(random, leaf.shape))
    return jnp.asarray(random.integers(0, 2, leaf.shape), leaf.dtype)


def _drawn_where(random, where):
    if not isinstance(where, jax.ShapeDtypeStruct):
        return jnp.asarray(where)
    *rows, time = where.shape
    return jnp.asarray(np.arange(time) < random.integers(1, time + 1, rows)[..., None])


def random_cotangent(random: np.random.Generator, y: Any) -> Any:
    """A cotangent for one output: normal numbers, or `None` if it has no gradient."""
    values = values_of(y)
    return jnp.asarray(random.normal(size=values.shape), values.dtype) if is_floating(values) else None


def moved(random: np.random.Generator, params: Any) -> Any:
    """Parameters moved off their start by a quarter of a standard normal, because zeros hide mistakes."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) + random.normal(size=leaf.shape) / 4, params)


def as_float64(tree: Any) -> Any:
    """Floating leaves as float64, by way of NumPy, because the caller's arrays may be of 32-bit mode."""
    return widened(jax.tree.map(lambda leaf: leaf if is_key(leaf) else np.asarray(leaf), tree))


def widened(tree: Any) -> Any:
    """Floating leaves as float64."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) if is_floating(leaf) else jnp.asarray(leaf), tree)
