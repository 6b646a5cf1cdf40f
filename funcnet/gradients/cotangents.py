"""Gradients of trees, from funcnet to JAX and back: `None` in funcnet is an array of `float0` or of zeros in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.trees import is_leaf, is_padded, is_whole, leaves, map_leaves, values_of
from funcnet.types import Padded, Whole

__all__ = ["as_cotangent", "as_gradient"]


def as_cotangent(y: Any, dy: Any) -> Any:
    """What `jax.vjp` takes for the gradient `dy` of `y`: zeros for `None`, `float0` for integers and booleans."""
    structure, found = jax.tree.structure(y, is_leaf=is_leaf), leaves(y)
    given = [None] * len(found) if dy is None else structure.flatten_up_to(dy)
    return jax.tree.unflatten(structure, list(map(_cotangent, found, given)))


def _cotangent(leaf, gradient):
    if is_padded(leaf):
        return Padded(_cotangent(leaf.values, gradient), _cotangent(leaf.where, None))
    if is_whole(leaf):
        return Whole(_cotangent(leaf.array, gradient))
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return np.zeros(leaf.shape, jax.dtypes.float0)
    return jnp.zeros_like(leaf) if gradient is None else gradient


def as_gradient(cotangent: Any) -> Any:
    """The gradient that a cotangent of `jax.vjp` or `jax.grad` stands for."""
    return map_leaves(_gradient, cotangent)


def _gradient(leaf):
    leaf = values_of(leaf)
    return None if leaf.dtype == jax.dtypes.float0 else leaf
