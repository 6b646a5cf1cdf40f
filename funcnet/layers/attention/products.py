"""The weighted means of attention and their backward, from queries, keys and values.

There are two forms with one result. The plain one holds a weight for each pair of a query and a key. The other one goes
through blocks of queries and keys and holds one block of weights at a time. `in_blocks` chooses.

Shapes: queries (batch, kv_heads, group, queries, d), keys and values (batch, kv_heads, keys, d). The heads of a group
share their keys and values.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.dtypes import at_least_float32, widen
from funcnet.layers.attention.sight import Sight, visible

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

    Measured forward and backward for 4 heads, width 128, float32, on a 2-core CPU that was busy with other work: the
    minimum in ms of 9 to 11 runs that took turns. The plain form of these runs took D from the means, as the blocks do.
    Now it sums over the keys, so its times should be measured again on a quiet machine.

        tokens × batch   causal: plain   in blocks   all: plain   in blocks
        256 × 4                   22.1        22.6         25.4        26.6
        512 × 2                   44.2        29.6         37.5        35.4
        1024 × 1                   174          49          205          55
        2048 × 1                  1154         135

    Temporary memory of the causal programs of today, by their own count: 17.0 MiB plain and 11.0 in blocks for 256 × 4,
    33.0 and 9.8 for 512 × 2.
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


# The products. In half precision they add up in float32. The operand that has to be transposed stands on the right,
# where that is cheap on a CPU, and the wide one too: (64, 128, 128) by (64, 128, 32) takes 1.1 ms so, and 2.4 ms with
# the wide operand on the left.


def _scores(q, k):
    """q kᵀ / √d, (batch, kv_heads, group, queries, keys), in float32 or wider."""
    wide = at_least_float32(q.dtype)
    return jnp.einsum("bkgqd,bknd->bkgqn", q, k, preferred_element_type=wide) * q.shape[-1] ** -0.5


def _means(w, v):
    """w v, (batch, kv_heads, group, queries, d)."""
    return jnp.einsum("bkgqn,bknd->bkgqd", w.astype(v.dtype), v, preferred_element_type=w.dtype)


def _spread(w, g):
    """wᵀ g summed over the group, (batch, kv_heads, keys, d), as the transpose of gᵀ w."""
    turned = jnp.einsum("bkgqd,bkgqn->bkdn", g, w.astype(g.dtype), preferred_element_type=w.dtype)
    return jnp.swapaxes(turned, -1, -2)


def _dropped(key, shape, rate):
    """1/(1 − rate) for each weight that stays, else 0. Drawn in float32, so that a key gives one mask in all dtypes."""
    return jnp.where(jax.random.uniform(key, shape, jnp.float32) >= rate, 1 / (1 - rate), 0)


# Plain.


def _plain(q, k, v, sight, looks, key):
    scores = _hidden(_scores(q, k), visible(sight, looks.causal, looks.window))
    most = _finite(jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True, initial=-jnp.inf)))
    w = jnp.exp(scores - most)
    w = w / _not_zero(jnp.sum(w, -1, keepdims=True))
    stays = None if key is None else _dropped(key, w.shape, looks.rate).astype(w.dtype)
    return _means(w if stays is None else w * stays, v).astype(q.dtype), w


def _plain_back(q, k, v, sight, looks, key, y, w, dy):
    del sight, y
    stays = None if key is None else _dropped(key, w.shape, looks.rate).astype(w.dtype)
    dv = _spread(w if stays is None else w * stays, dy)
    dw = jnp.einsum("bkgqd,bknd->bkgqn", dy, v, preferred_element_type=w.dtype)
    dw = dw if stays is None else dw * stays
    dscores = w * (dw - jnp.sum(w * dw, -1, keepdims=True))
    return _of_scores(q, k, dscores, dv, v)


def _of_scores(q, k, dscores, dv, v):
    scale = q.shape[-1] ** -0.5
    dq, dk = _means(dscores, k) * scale, _spread(dscores, q) * scale
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


def _hidden(scores, seen):
    return scores if seen is None else jnp.where(seen, scores, -jnp.inf)


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


def _filled(array, axis, size):
    """The array with zeros at the end of an axis, up to this size."""
    more = size - array.shape[axis]
    return jnp.pad(array, [(0, more if i == axis else 0) for i in range(array.ndim)]) if more else array


def _prepared(q, k, v, sight, cut):
    """All of them filled up, with a mark for each key if some are not there."""
    (sq, sk), (nq, nk) = cut.sizes, cut.blocks
    keys, there = k.shape[2], sight.there
    if there is None and nk * sk > keys:
        there = jnp.ones((1, keys), bool)
    filled = Sight(
        _filled(sight.queries, 1, nq * sq),
        _filled(sight.keys, 1, nk * sk),
        None if there is None else _filled(there, 1, nk * sk),
    )
    return _filled(q, 3, nq * sq), _filled(k, 2, nk * sk), _filled(v, 2, nk * sk), filled


def _part(array, axis, number, size):
    return jax.lax.dynamic_slice_in_dim(array, number * size, size, axis)


def _put(array, part, axis, number):
    return jax.lax.dynamic_update_slice_in_dim(array, part, number * part.shape[axis], axis)


def _added(array, part, axis, number):
    return _put(array, _part(array, axis, number, part.shape[axis]) + part, axis, number)


def _seen_in(sight, looks, cut, i, j):
    """`visible` for a pair of blocks."""
    (sq, sk), there = cut.sizes, sight.there
    part = Sight(
        _part(sight.queries, 1, i, sq),
        _part(sight.keys, 1, j, sk),
        None if there is None else _part(there, 1, j, sk),
    )
    return visible(part, looks.causal, looks.window)


def _stays_in(key, looks, cut, i, j, like):
    if key is None:
        return None
    return _dropped(jax.random.fold_in(key, i * cut.blocks[1] + j), like.shape, looks.rate).astype(like.dtype)


def _blocks(q, k, v, sight, looks, key):
    """y, and the logarithm of the sum of e^score of each query, ∞ for one that sees no key."""
    queries, cut = q.shape[3], _cut(q.shape[3], k.shape[2], sight, looks)
    q, k, v, sight = _prepared(q, k, v, sight, cut)
    sq, sk = cut.sizes

    def step(carry, pair):
        most, total, y = carry
        i, j = pair
        scores = _scores(_part(q, 3, i, sq), _part(k, 2, j, sk))
        scores = _hidden(scores, _seen_in(sight, looks, cut, i, j))
        before = _part(most, 3, i, sq)
        now = jax.lax.stop_gradient(jnp.maximum(before, jnp.max(scores, -1, initial=-jnp.inf)))
        w, shrunk = jnp.exp(scores - _finite(now)[..., None]), jnp.exp(before - _finite(now))
        stays = _stays_in(key, looks, cut, i, j, w)
        means = _means(w if stays is None else w * stays, _part(v, 2, j, sk))
        total = _put(total, shrunk * _part(total, 3, i, sq) + jnp.sum(w, -1), 3, i)
        y = _put(y, shrunk[..., None] * _part(y, 3, i, sq) + means, 3, i)
        return (_put(most, now, 3, i), total, y), None

    zeros = jnp.zeros(q.shape, at_least_float32(q.dtype))
    start = (jnp.full_like(zeros[..., 0], -jnp.inf), zeros[..., 0], zeros)
    (most, total, y), _ = jax.lax.scan(step, start, jnp.asarray(cut.pairs))
    y = (y / _not_zero(total)[..., None])[..., :queries, :]
    logs = jnp.where(total == 0, jnp.inf, _finite(most) + jnp.log(_not_zero(total)))
    return y, logs[..., :queries]


def _blocks_back(q, k, v, sight, looks, key, y, logs, dy):
    queries, keys, cut = q.shape[3], k.shape[2], _cut(q.shape[3], k.shape[2], sight, looks)
    q, k, v, sight = _prepared(q, k, v, sight, cut)
    dy, logs, share = (_filled(array, 3, q.shape[3]) for array in (dy, logs, jnp.sum(y * widen(dy), -1)))
    sq, sk = cut.sizes

    def step(carry, pair):
        dq, dk, dv = carry
        i, j = pair
        q_i, k_j, v_j, dy_i = _part(q, 3, i, sq), _part(k, 2, j, sk), _part(v, 2, j, sk), _part(dy, 3, i, sq)
        scores = _hidden(_scores(q_i, k_j), _seen_in(sight, looks, cut, i, j))
        w = jnp.exp(scores - _part(logs, 3, i, sq)[..., None])
        stays = _stays_in(key, looks, cut, i, j, w)
        dw = jnp.einsum("bkgqd,bknd->bkgqn", dy_i, v_j, preferred_element_type=w.dtype)
        dscores = w * ((dw if stays is None else dw * stays) - _part(share, 3, i, sq)[..., None])
        dq = _added(dq, _means(dscores, k_j), 3, i)
        dk = _added(dk, _spread(dscores, q_i), 2, j)
        dv = _added(dv, _spread(w if stays is None else w * stays, dy_i), 2, j)
        return (dq, dk, dv), None

    start = tuple(jnp.zeros(array.shape, at_least_float32(array.dtype)) for array in (q, k, v))
    (dq, dk, dv), _ = jax.lax.scan(step, start, jnp.asarray(cut.pairs))
    scale = q.shape[-1] ** -0.5
    dq, dk, dv = (dq * scale)[..., :queries, :], (dk * scale)[:, :, :keys], dv[:, :, :keys]
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)
