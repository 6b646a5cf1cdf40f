"""Derivatives by finite differences, in float64, with an estimate of their own error.

Central differences at h, h/2 and h/4 are extrapolated twice (Richardson), which removes the errors of order h² and h⁴.
Where the function has a kink or a jump nearby, a difference quotient says nothing about the derivative *at* the point.
Such a place shows itself in one of two ways: the extrapolated values do not settle, or the quotients from the left and
the right stay apart however small h is. It is reported, not blamed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from funcnet.types import Array

__all__ = ["Differences", "differences", "elements", "sample"]

STEP = 1e-3  # near the best of the extrapolated rule: truncation h⁶ against rounding ε/h
SHIFTS = STEP * np.array([1, -1, 0.5, -0.5, 0.25, -0.25])
AT_ONCE = 64  # shifted points computed together: few enough for memory, enough to fill the machine


class Differences(NamedTuple):
    """Numeric derivatives along some directions; each array is (directions,)."""

    value: np.ndarray  #: the twice extrapolated difference quotient
    error: np.ndarray  #: how far it may be off: disagreement of the extrapolations, and rounding
    kink: np.ndarray  #: bool, a kink or jump is near


def differences(
    function: Callable[[Any], tuple[Array, Array]], tree: Any, direction: Callable[[Array], Array], count: int
) -> Differences:
    """Derivatives of a scalar function along `count` directions.

    Args:
        function: tree -> (value, magnitude): the scalar, and the sum of the absolute terms that it is made of, which
            bounds its rounding error.
        tree: where; all leaves float64.
        direction: number of a direction -> a flat vector, of as many numbers as the tree has.
        count: how many directions.
    """
    flat, unravel = ravel_pytree(tree)

    def along(i):
        values, magnitudes = jax.lax.map(lambda h: function(unravel(flat + h * direction(i))), jnp.asarray(SHIFTS))
        return values, magnitudes.max()

    @jax.jit
    def run():
        return function(tree)[0], jax.lax.map(along, jnp.arange(count), batch_size=min(AT_ONCE, count))

    centre, (values, magnitudes) = jax.tree.map(np.asarray, run())
    return _extrapolated(values, centre, magnitudes)


def elements(indices: np.ndarray, size: int) -> Callable[[Array], Array]:
    """The directions along single elements, given by their flat indices."""
    chosen = jnp.asarray(indices)
    return lambda i: jnp.zeros(size).at[chosen[i]].set(1)


def _extrapolated(values, centre, magnitudes):
    plus, minus, h = values[:, 0::2], values[:, 1::2], SHIFTS[0::2]  # (count, 3), for h, h/2, h/4
    central = (plus - minus) / (2 * h)
    once = (4 * central[:, 1:] - central[:, :-1]) / 3
    value = (16 * once[:, 1] - once[:, 0]) / 15
    rounding = 256 * np.finfo(np.float64).eps * magnitudes / STEP
    spread = np.abs(once[:, 1] - once[:, 0])
    right, left = (plus - centre) / h, (centre - minus) / h
    scale = np.maximum(np.abs(right), np.abs(left)).max(1)
    # A smooth function settles to about h⁴ of its slope; 1e-5 leaves room for steep ones.
    settled = spread <= 1e-5 * scale + rounding
    # Of a smooth function the gap between the sides is h f″: at h/4 a quarter of what it was at h.
    gap = np.abs(right - left)
    closing = gap[:, 2] <= 0.5 * gap[:, 0] + 1e-5 * scale + rounding
    return Differences(value, spread + rounding, ~(settled & closing))


def sample(sizes: list[int], most: int, seed: int) -> np.ndarray:
    """Flat indices of the elements to check: all of them up to `most`, else a share of each leaf, at least eight.

    Args:
        sizes: elements of each leaf, in order.
        most: about how many in all.
        seed: of the choice.

    >>> sample([3, 2], 10, 0)
    array([0, 1, 2, 3, 4])
    >>> len(sample([1000, 10], 100, 0))
    107
    """
    total = sum(sizes)
    if total <= most:
        return np.arange(total)
    random = np.random.default_rng(seed)
    chosen, start = [], 0
    for size in sizes:
        count = min(size, max(8, most * size // total))
        chosen.append(start + np.sort(random.choice(size, count, replace=False)))
        start += size
    return np.concatenate(chosen)
