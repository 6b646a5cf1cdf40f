"""Who may look at whom: which keys each query sees."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.layers.sequences import positions_of

__all__ = ["Sight", "sight_of", "visible"]


class Sight(NamedTuple):
    """What decides which keys a query sees, as arrays. Each has a first axis of length 1 if all examples are alike."""

    queries: Any  #: (batch or 1, queries), the position of each query
    keys: Any  #: (batch or 1, keys), the position of each key
    there: Any  #: (batch or 1, keys), bool, whether there is such a key; `None` if all are there


def sight_of(where: Any, queries: int, there: Any, keys: int) -> Sight:
    """From what a `Padded` says of the queries and of the keys, or `None`."""
    return Sight(positions_of(where, queries), positions_of(there, keys), there)


def visible(sight: Sight, causal: bool, window: int | None) -> jax.Array | None:
    """Whether a query sees a key, (batch or 1, 1, queries or 1, keys), or `None` if each sees all.

    With `causal` a query sees the keys up to its own position. With `window` it sees those that are less than `window`
    positions away. A key that is not there is never seen.

    >>> where = jnp.array([[True, True, False]])
    >>> visible(sight_of(where, 3, where, 3), True, None)[0, 0]
    Array([[ True, False, False],
           [ True,  True, False],
           [ True,  True, False]], dtype=bool)
    """
    seen = None if sight.there is None else sight.there[:, None, :]
    if causal or window is not None:
        apart = sight.queries[:, :, None] - sight.keys[:, None, :]
        if causal:
            seen = _both(seen, apart >= 0)
        if window is not None:
            seen = _both(seen, jnp.abs(apart) < window)
    return None if seen is None else seen[:, None]


def _both(one, other):
    return other if one is None else one & other
