"""What stands around the weighted means: widths of heads, affine maps, and heads taken apart and put together."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import check_multiple
from funcnet.errors import ShapeError

__all__ = ["Heads", "apart", "bias_sum", "projected", "together"]


class Heads(NamedTuple):
    """How many heads there are, of queries and of keys and values, and how wide each of them is."""

    heads: int
    kv_heads: int
    d: Any  #: features of a head, `None` for the width of x divided by the heads
    even: bool  #: whether that must be even, for pairs of features

    def of_width(self, width: int) -> "Heads":
        """The same for `x` of this width."""
        own = self if self.d is not None else self._replace(d=_share(width, self.heads))
        if own.even:
            check_multiple("the features of a head", own.d, 2, "as rotary turns pairs of them", "set head_features")
        return own


def _share(width, heads):
    check_multiple("the width of x", width, heads, "the number of heads", "set head_features", ShapeError)
    return width // heads


def projected(params: Any, name: str, x: jax.Array) -> jax.Array:
    """x W + b with the leaves of this name, and without b if there is none."""
    y = x @ params[f"{name}_kernel"]
    return y + params[f"{name}_bias"] if f"{name}_bias" in params else y


def apart(x: jax.Array, sizes: Heads, name: str) -> jax.Array:
    """(batch, time, heads · d) as (batch, kv_heads, group, time, d) for queries, or (batch, kv_heads, time, d)."""
    group = (sizes.heads // sizes.kv_heads,) if name == "query" else ()
    x = x.reshape(*x.shape[:2], sizes.kv_heads, *group, sizes.d)
    return jnp.moveaxis(x, 1, -2)


def together(x: jax.Array) -> jax.Array:
    """The inverse of `apart`."""
    x = jnp.moveaxis(x, -2, 1)
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def bias_sum(g: jax.Array) -> jax.Array:
    return g.sum((0, 1))
