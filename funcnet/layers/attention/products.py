"""The weighted means of attention and their backward, from queries, keys and values.

There are two forms with one result. The plain one holds a weight for each pair of a query and a key. The other one goes
through blocks of queries and keys and holds one block of weights at a time. `in_blocks` chooses.

Shapes: queries (batch, kv_heads, group, queries, d), keys and values (batch, kv_heads, keys, d). The heads of a group
share their keys and values. So the products take their queries one after the other, as (batch, kv_heads, rows, d) with
group · queries rows. An axis for the group would cost a third of the time: XLA would keep copies of the weights with
that axis and without.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.dtypes import at_least_float32, widen
from funcnet.layers.attention.sight import Sight, visible
from funcnet.numerics import by_platform

__all__ = ["Looks", "attended", "attended_back", "in_blocks"]

#: Above this many pairs of a query and a key, attention goes through blocks. See `in_blocks`.
_MOST_PAIRS = 256 * 256
#: About as many queries, and keys, make a block.
_BLOCK = 256


class Looks(NamedTuple):
    """The options of attention that are the same at every call."""

    causal: bool
    window: int | None
    rate: float  #: the share of weights that is dropped in training


def in_blocks(queries: int, keys: int) -> bool:
    """Whether attention over so many queries and keys goes through blocks. This is the only place that chooses.

    Measured forward and backward for 4 heads, width 128, float32, with nothing else on a 2-core CPU: the median in ms
    of 15 runs that took turns (5 for 4096 tokens). "Softmax" is autodiff through a plain softmax.

        tokens × batch   causal: plain   in blocks   softmax   all: plain   in blocks   softmax
        256 × 4                    9.0                  10.8          5.5                   6.5
        512 × 2                   13.6        13.1      14.9          9.1        10.5      18.3
        1024 × 1                  37.9        13.3      43.2         32.5        17.2      37.9
        4096 × 1                   727         140       824          725         232       902

    Temporary memory of the causal programs in MiB, by their own count: for 256 × 4 it is 9.5 plain and 13.5 softmax,
    for 512 × 2 it is 17.5, 8.8 in blocks and 25.5, and for 4096 × 1 it is 1028, 18 and 774.
    """
    return queries * keys > _MOST_PAIRS


def attended(q: Any, k: Any, v: Any, sight: Sight, looks: Looks, key: Any) -> tuple[jax.Array, Any]:
    """The weighted means, and what the backward needs besides them: weights, or the logs of their sums.

    The means have the shape of `q`. Out of blocks they are in float32 or wider, because where a weight is near 1 the
    backward subtracts two numbers that are equal but for the rounding of the means. With `key`, weights are dropped.
    """
    form = _blocks if in_blocks(q.shape[3], k.shape[2]) else _plain
    return form(q, k, v, sight, looks, key)


def attended_back(
    q: Any, k: Any, v: Any, sight: Sight, looks: Looks, key: Any, y: Any, kept: Any, dy: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`(dq, dk, dv)` for the gradient `dy` of the means `y`."""
    form = _blocks_back if in_blocks(q.shape[3], k.shape[2]) else _plain_back
    return form(q, k, v, sight, looks, key, y, kept, dy)


# The products. In half precision they add up in float32.


def _scores(q, k):
    """q kᵀ / √d, (batch, kv_heads, rows, keys), in float32 or wider."""
    wide = at_least_float32(q.dtype)
    return jnp.einsum("bkrd,bknd->bkrn", q, k, preferred_element_type=wide) * q.shape[-1] ** -0.5


def _means(w, v):
    """w v, (batch, kv_heads, rows, d)."""
    return jnp.einsum("bkrn,bknd->bkrd", w.astype(v.dtype), v, preferred_element_type=w.dtype)


@partial(jax.jit, inline=True)  # so that outside jit the choice is not compiled at each call
def _spread(w, g):
    """wᵀ g, (batch, kv_heads, keys, d)."""
    product = partial(jnp.einsum, preferred_element_type=w.dtype)

    def transposed(w, g):
        # On a CPU an operand that has to be transposed is cheap on the right, and so is a wide one: (64, 128, 128) by
        # (64, 128, 32) takes 1.1 ms so, and 2.4 ms with the wide operand on the left.
        return jnp.swapaxes(product("bkrd,bkrn->bkdn", g, w), -1, -2)

    return by_platform(w.astype(g.dtype), g, cpu=transposed, default=partial(product, "bkrn,bkrd->bknd"))


def _of_weights(dy, v, wide):
    """dy vᵀ, (batch, kv_heads, rows, keys)."""
    return jnp.einsum("bkrd,bknd->bkrn", dy, v, preferred_element_type=wide)


def _dropped(key, shape, rate):
    """1/(1 − rate) for each weight that stays, else 0. Drawn in float32, so that a key gives one mask in all dtypes."""
    return jnp.where(jax.random.uniform(key, shape, jnp.float32) >= rate, 1 / (1 - rate), 0)


# Plain.


def _plain(q, k, v, sight, looks, key):
    scores = _hidden(_scores(_rows(q), k), visible(sight, looks.causal, looks.window), q.shape[2])
    most = _finite(jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True, initial=-jnp.inf)))
    w = jnp.exp(scores - most)
    w = w / _not_zero(jnp.sum(w, -1, keepdims=True))
    stays = None if key is None else _dropped(key, w.shape, looks.rate).astype(w.dtype)
    return _means(w if stays is None else w * stays, v).astype(q.dtype).reshape(q.shape), w


def _plain_back(q, k, v, sight, looks, key, y, w, dy):
    del sight, y
    stays = None if key is None else _dropped(key, w.shape, looks.rate).astype(w.dtype)
    rows, dy = _rows(q), _rows(dy)
    dv = _spread(w if stays is None else w * stays, dy)
    dw = _of_weights(dy, v, w.dtype)
    dw = dw if stays is None else dw * stays
    dscores = w * (dw - jnp.sum(w * dw, -1, keepdims=True))
    scale = q.shape[-1] ** -0.5
    dq, dk = _means(dscores, k) * scale, _spread(dscores, rows) * scale
    return dq.astype(q.dtype).reshape(q.shape), dk.astype(k.dtype), dv.astype(v.dtype)


def _rows(queries):
    """The queries of all heads of a group, one after the other: (batch, kv_heads, rows, d)."""
    batch, heads, group, count, d = queries.shape
    return queries.reshape(batch, heads, group * count, d)


def _hidden(scores, seen, group):
    """−∞ for what is not seen, (batch or 1, 1, queries or 1, keys), by any head of the group."""
    if seen is None:
        return scores
    return jnp.where(jnp.tile(seen, (1, 1, group, 1)) if seen.shape[2] > 1 else seen, scores, -jnp.inf)


def _finite(most):
    """0 for a row that sees no key."""
    return jnp.where(most == -jnp.inf, 0, most)


def _not_zero(total):
    """1 for a row that sees no key, whose weights are all 0."""
    return jnp.where(total == 0, 1, total)


# In blocks.


class _Cut(NamedTuple):
    """A sequence of pairs of blocks. The last blocks are filled up with keys that are not there."""

    pairs: np.ndarray  #: (n, 2), the numbers of the blocks of queries and of keys
    sizes: tuple[int, int]  #: how many queries, and keys, are in a block
    blocks: tuple[int, int]  #: how many blocks of queries, and of keys, there are


def _cut(queries, keys, sight, looks):
    """The pairs of blocks in which some query sees some key, in the order of the queries.

    Positions grow along both axes, and less than one per step where something is padded. So a block of later keys is
    hidden by `causal` in each case, and a block beyond the window if nothing is padded.
    """
    (nq, sq), (nk, sk) = _divided(queries), _divided(keys)
    i, j = np.indices((nq, nk)).reshape(2, -1)
    seen = np.ones(nq * nk, bool)
    if looks.causal:
        seen &= j * sk < (i + 1) * sq
    if looks.window is not None and sight.there is None:
        seen &= i * sq - ((j + 1) * sk - 1) < looks.window
        seen &= j * sk - ((i + 1) * sq - 1) < looks.window
    return _Cut(np.stack([i, j], 1)[seen].astype(np.int32), (sq, sk), (nq, nk))


def _divided(time):
    """The number of blocks, and the size of each, with as little to fill up as can be."""
    n = -(-time // _BLOCK)
    return n, -(-time // n)


def _prepared(q, k, v, sight, cut):
    """All of them in blocks, with a mark for each key if some are not there."""
    keys, there = k.shape[2], sight.there
    if there is None and cut.blocks[1] * cut.sizes[1] > keys:
        there = jnp.ones((1, keys), bool)
    filled = Sight(
        _filled(sight.queries, 1, cut.blocks[0] * cut.sizes[0]),
        _filled(sight.keys, 1, cut.blocks[1] * cut.sizes[1]),
        None if there is None else _filled(there, 1, cut.blocks[1] * cut.sizes[1]),
    )
    return _of_queries(q, cut), _of_keys(k, cut), _of_keys(v, cut), filled


def _filled(array, axis, size):
    """The array with zeros at the end of an axis, up to this size."""
    more = size - array.shape[axis]
    return jnp.pad(array, [(0, more if i == axis else 0) for i in range(array.ndim)]) if more else array


def _of_queries(array, cut):
    """(batch, kv_heads, group, queries, …) as (blocks, batch, kv_heads, rows, …), filled up."""
    n, size = cut.blocks[0], cut.sizes[0]
    batch, heads, group, _, *rest = array.shape
    blocks = _filled(array, 3, n * size).reshape(batch, heads, group, n, size, *rest)
    return jnp.moveaxis(blocks, 3, 0).reshape(n, batch, heads, group * size, *rest)


def _as_queries(blocks, group, queries):
    """The inverse of `_of_queries`."""
    n, batch, heads, rows, *rest = blocks.shape
    size = rows // group
    array = jnp.moveaxis(blocks.reshape(n, batch, heads, group, size, *rest), 0, 3)
    return array.reshape(batch, heads, group, n * size, *rest)[:, :, :, :queries]


def _of_keys(array, cut):
    """(batch, kv_heads, keys, d) as (blocks, batch, kv_heads, keys of a block, d), filled up."""
    n, size = cut.blocks[1], cut.sizes[1]
    batch, heads, _, d = array.shape
    return jnp.moveaxis(_filled(array, 2, n * size).reshape(batch, heads, n, size, d), 2, 0)


def _as_keys(blocks, keys):
    """The inverse of `_of_keys`."""
    n, batch, heads, size, d = blocks.shape
    return jnp.moveaxis(blocks, 0, 2).reshape(batch, heads, n * size, d)[:, :, :keys]


def _at(blocks, i):
    return jax.lax.dynamic_index_in_dim(blocks, i, keepdims=False)


def _put(blocks, block, i):
    return jax.lax.dynamic_update_index_in_dim(blocks, block, i, 0)


def _part(array, number, size):
    return jax.lax.dynamic_slice_in_dim(array, number * size, size, 1)


def _seen_in(sight, looks, cut, i, j):
    """`visible` for a pair of blocks."""
    (sq, sk), there = cut.sizes, sight.there
    part = Sight(
        _part(sight.queries, i, sq),
        _part(sight.keys, j, sk),
        None if there is None else _part(there, j, sk),
    )
    return visible(part, looks.causal, looks.window)


def _stays_in(key, looks, cut, i, j, like):
    if key is None:
        return None
    return _dropped(jax.random.fold_in(key, i * cut.blocks[1] + j), like.shape, looks.rate).astype(like.dtype)


def _blocks(q, k, v, sight, looks, key):
    """y, and the logarithm of the sum of e^score of each query, ∞ for one that sees no key."""
    (group, queries), cut = q.shape[2:4], _cut(q.shape[3], k.shape[2], sight, looks)
    q, k, v, sight = _prepared(q, k, v, sight, cut)

    def step(carry, pair):
        i, j = pair
        before, total, y = (_at(blocks, i) for blocks in carry)
        scores = _hidden(_scores(_at(q, i), _at(k, j)), _seen_in(sight, looks, cut, i, j), group)
        most = jax.lax.stop_gradient(jnp.maximum(before, jnp.max(scores, -1, initial=-jnp.inf)))
        w, shrunk = jnp.exp(scores - _finite(most)[..., None]), jnp.exp(before - _finite(most))
        stays = _stays_in(key, looks, cut, i, j, w)
        means = _means(w if stays is None else w * stays, _at(v, j))
        found = most, shrunk * total + jnp.sum(w, -1), shrunk[..., None] * y + means
        return tuple(_put(blocks, block, i) for blocks, block in zip(carry, found, strict=True)), None

    zeros = jnp.zeros(q.shape, at_least_float32(q.dtype))
    start = (jnp.full_like(zeros[..., 0], -jnp.inf), zeros[..., 0], zeros)
    (most, total, y), _ = jax.lax.scan(step, start, jnp.asarray(cut.pairs))
    logs = jnp.where(total == 0, jnp.inf, _finite(most) + jnp.log(_not_zero(total)))
    return _as_queries(y / _not_zero(total)[..., None], group, queries), _as_queries(logs, group, queries)


def _blocks_back(q, k, v, sight, looks, key, y, logs, dy):
    dtype, (group, queries), keys = q.dtype, q.shape[2:4], k.shape[2]
    cut = _cut(queries, keys, sight, looks)
    q, k, v, sight = _prepared(q, k, v, sight, cut)
    dy, logs, share = (_of_queries(array, cut) for array in (dy, logs, jnp.sum(y * widen(dy), -1)))

    def step(carry, pair):
        dq, dk, dv = carry
        i, j = pair
        q_i, k_j, dy_i = _at(q, i), _at(k, j), _at(dy, i)
        scores = _hidden(_scores(q_i, k_j), _seen_in(sight, looks, cut, i, j), group)
        w = jnp.exp(scores - _at(logs, i)[..., None])
        stays = _stays_in(key, looks, cut, i, j, w)
        dw = _of_weights(dy_i, _at(v, j), w.dtype)
        dscores = w * ((dw if stays is None else dw * stays) - _at(share, i)[..., None])
        dq = _put(dq, _at(dq, i) + _means(dscores, k_j), i)
        dk = _put(dk, _at(dk, j) + _spread(dscores, q_i), j)
        dv = _put(dv, _at(dv, j) + _spread(w if stays is None else w * stays, dy_i), j)
        return (dq, dk, dv), None

    start = tuple(jnp.zeros(array.shape, at_least_float32(array.dtype)) for array in (q, k, v))
    (dq, dk, dv), _ = jax.lax.scan(step, start, jnp.asarray(cut.pairs))
    scale = q.shape[-1] ** -0.5
    dq, dk, dv = ((dq * scale).astype(dtype), (dk * scale).astype(dtype), dv.astype(dtype))
    return _as_queries(dq, group, queries), _as_keys(dk, keys), _as_keys(dv, keys)
