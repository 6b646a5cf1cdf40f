"""Where two gradients differ at a kink, both may be right. Which gradient is none at all?

At a kink, or where several inputs tie for a maximum, a function has several derivatives, and which of them a program
gives is a convention: relu may have the slope 0 or 1 at 0, and a max pooling may hand its gradient to any of the
inputs that tie. Two things hold for all of them:

- Along a line on which equal numbers stay equal the function is often smooth. There a gradient must give its slope. So
  a pooling that hands the whole gradient to each of two inputs that tie is wrong: it gives twice the slope.
- For one element alone, the gradient usually lies between the slopes on its two sides. If not, that is not decided:
  where one element counts in several outputs, kinks of both signs can widen what is right.
"""

from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from funcnet.checking.judging import ENOUGH, NOT_DECIDED, RIGHT, VERDICTS, WRONG
from funcnet.checking.numeric import Differences, derivatives

__all__ = ["between_the_sides", "settled_at_kinks"]

MOST = 64  # elements, and lines, that are looked at


def settled_at_kinks(
    sampled: Any, point: Any, flat: np.ndarray, reference: np.ndarray, wrong: np.ndarray, numeric_tolerance: float
) -> np.ndarray:
    """The verdicts on elements that differ from the reference, by numeric derivatives of one element or of equal ones.

    Args:
        sampled: from `numeric.sampler`.
        point: where the gradient is compared.
        flat, reference: the gradients by hand and by autodiff, flat.
        wrong: bool, flat: the elements that differ.
        numeric_tolerance: largest error of a derivative, relative to it.

    Returns:
        For each element that differs its place in `VERDICTS`. Those beyond the first 64 get the worst of these.
    """
    numbers = np.asarray(ravel_pytree(point.variables)[0], np.float64)
    places = np.flatnonzero(wrong)
    looked_at = places[:MOST]
    found = np.full(len(places), VERDICTS.index(RIGHT))
    numeric = _filled(sampled, point, looked_at)
    slope = flat[looked_at]

    def agrees(slope):
        return np.abs(slope - numeric.value) <= numeric_tolerance * np.abs(slope) + numeric.error

    # relu(x) − relu(−x) is x, but autodiff has another slope at 0. Where it is right too, the finer comparison counts.
    smooth = ~numeric.kink & agrees(slope) & ~agrees(reference[looked_at])
    smooth &= numeric.error <= ENOUGH * np.abs(slope)
    found[: len(looked_at)] = np.select(
        [smooth, numeric.kink & between_the_sides(slope, numeric), numeric.kink],
        [VERDICTS.index(RIGHT), VERDICTS.index(RIGHT), VERDICTS.index(NOT_DECIDED)],
        VERDICTS.index(WRONG),
    )
    together = [numbers == value for value in np.unique(numbers[looked_at])[:MOST]]
    lines = np.stack([equal / np.sqrt(equal.sum()) for equal in together])
    along = derivatives(sampled, point, lines)
    shares = lines @ flat
    off = np.abs(shares - along.value) > numeric_tolerance * np.abs(lines) @ np.abs(flat) + along.error
    for equal in np.asarray(together)[off & ~along.kink]:
        found[: len(looked_at)][equal[looked_at]] = VERDICTS.index(WRONG)
    found[len(looked_at) :] = found.max(initial=0)
    return found


def _filled(sampled, point, places):
    """Numeric derivatives at up to `MOST` elements, by one program however many they are."""
    count = min(MOST, int(sum(leaf.size for leaf in jax.tree.leaves(point.variables))))
    numeric = derivatives(sampled, point, np.resize(places, count))
    return Differences(*(column[: len(places)] for column in numeric))


def between_the_sides(slope: np.ndarray, numeric: Differences) -> np.ndarray:
    """Where a gradient lies between the slopes on the two sides of a kink."""
    low, high = numeric.sides.min(1), numeric.sides.max(1)
    slack = ENOUGH * np.maximum(np.abs(low), np.abs(high))
    return (low - slack <= slope) & (slope <= high + slack)
