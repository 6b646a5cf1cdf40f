"""Attention one position at a time: what its cell carries are the keys and values so far."""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_floating, check_shape
from funcnet.errors import StructureError
from funcnet.layers.attention.products import Looks, attended
from funcnet.layers.attention.projections import Heads, apart, projected, together
from funcnet.layers.attention.sight import Sight
from funcnet.layers.layer import cell
from funcnet.layers.positions import rotated
from funcnet.types import InitFn, Layer

__all__ = ["stepping"]


def stepping(sizes: Heads, window: int | None, rotary: float | None, init: InitFn) -> Layer:
    """The cell of causal attention.

    Its carry holds `key` and `value` (batch, kv_heads, room, d) and `position` (). Position p is stored at
    the index p mod room. A window is a room of at most its own size: the new key then replaces the one that has just
    left the window. Without a window, y is NaN from the position `room` on.

    Args:
        init: `(key, x_t) -> (params, state)`.
    """

    def start(params, state, x, length):
        del params, state
        own, room = sizes.of_width(x.shape[-1]), length if window is None else min(length, window)
        # Two arrays, because a loop that may overwrite its carry must not get one twice.
        key, value = (jnp.zeros((x.shape[0], own.kv_heads, room, own.d), x.dtype) for _ in range(2))
        return {"key": key, "position": jnp.zeros((), jnp.int32), "value": value}

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        carry, x = x
        check_floating("x", x)
        check_shape("x", x, "(batch, features)")
        own, position, room = sizes.of_width(x.shape[-1]), carry["position"], carry["key"].shape[2]
        here = position[None, None]
        q, k, v = (apart(projected(params, name, x[:, None]), own, name) for name in ("query", "key", "value"))
        if rotary is not None:
            q, k = rotated(q, here, rotary), rotated(k, here, rotary)
        place = jnp.mod(position, room)
        keys, values = (_written(carry[name], part, place) for name, part in (("key", k), ("value", v)))
        there = jnp.arange(room, dtype=jnp.int32)[None] <= position
        o, _ = attended(q, keys, values, Sight(here, here, there), Looks(False, None, 0.0), None)
        y = projected(params, "out", together(o.astype(x.dtype)))[:, 0]
        if window is None or room < window:
            y = jnp.where(position < room, y, jnp.nan)
        return ({"key": keys, "position": position + 1, "value": values}, y), state, None

    def backward(params, residuals, dy):
        fix = "train the layer itself, which looks at all positions at once"
        raise StructureError(f"expected a cell with a backward, got that of attention, which only steps; {fix}.")

    return cell(forward, backward, lambda key, x: init(key, x[1]), start)


def _written(cache: Any, part: Any, place: Any) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(cache, part, place, 2)
