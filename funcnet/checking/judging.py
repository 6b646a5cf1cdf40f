"""When two gradients agree. `check_gradients` and `mutation_score` both judge by these functions.

They are compared element by element. Two elements agree if they are equal up to a small tolerance, relative to the
element itself. If not, the question is what rounding does to that element (see `rounding`), and there are three
answers:

- right: they differ by no more than rounding, and rounding is small beside the gradient;
- wrong: they differ by more than rounding;
- not decided: they differ by no more than rounding, but rounding is so large that a mistake could hide behind it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "DTYPES", "NOT_DECIDED", "RIGHT", "VERDICTS", "WRONG", "as_precise", "judged", "norm_relative", "trifles",
    "verdict",
]  # fmt: skip

DTYPES = ("float64", "float32", "float16", "bfloat16")
VERDICTS = RIGHT, NOT_DECIDED, WRONG = "right", "not decided", "wrong"  #: the worst last

ENOUGH = 1e-3  #: rounding below this share of an element leaves room for no mistake worth the name
TRIFLE = 1e-6  #: an element that moves the result by a smaller share than others do may be all rounding


def norm_relative(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖; 0 for two zeros.

    >>> norm_relative(np.array([3e200, 4e200]), np.array([0.0, 4e200]))
    0.75
    """
    with np.errstate(invalid="ignore", over="ignore"):
        differences = np.where(a == b, 0.0, a - b)  # equal infinities do not differ
        largest = max(np.max(np.abs(differences), initial=0), np.max(np.abs(b), initial=0)) or 1.0
        # Divided before they are squared, because a gradient may be as large as numbers get.
        distance, reference = np.linalg.norm(differences / largest), np.linalg.norm(b / largest)
        return float(distance / reference if reference else np.inf if distance else 0.0)


def judged(
    a: np.ndarray, b: np.ndarray, tolerance: float, rounding: Callable[[], np.ndarray], trifle: Any = 0.0
) -> np.ndarray:
    """The verdict on each element of a gradient `a`, as its place in `VERDICTS`.

    Args:
        a, b: the gradient and the reference.
        tolerance: largest difference of elements that agree without a second look, relative to the reference.
        rounding: gives how far rounding may move each element. It is called only where it is needed.
        trifle: rounding of an element up to this size does not count.

    >>> a, b = np.array([1.0, 1.0, 1e-17, 1.0]), np.array([1.0, 1.1, 3e-17, 1.5])
    >>> judged(a, b, 1e-10, lambda: np.array([1e-16, 1e-16, 1e-16, 1.0]), trifle=1e-12).tolist()
    [0, 2, 0, 1]
    """
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(a - b)
        near = gap <= tolerance * np.abs(b)  # not of two infinities, which say nothing: 1/x and 2/x are both ∞ at 0
        if near.all():
            return np.zeros(a.shape, int)
        moved = np.nan_to_num(rounding(), nan=np.inf)
        known = (moved <= ENOUGH * np.abs(b)) | (moved <= trifle)
        # Not "gap > …", which is false for NaN.
        apart = ~(gap <= tolerance * np.abs(b) + moved) & np.isfinite(b)
        return np.where(near, 0, np.where(apart, 2, np.where(known & np.isfinite(b), 0, 1)))


def verdict(states: Iterable[np.ndarray]) -> str:
    """The worst verdict in some arrays of them."""
    return VERDICTS[max((int(state.max(initial=0)) for state in states), default=0)]


def trifles(gradient: Any, variables: Any, result: float) -> list[np.ndarray]:
    """How small a gradient is a trifle, for each element of each leaf.

    An element counts by how much it moves the result: its gradient times its size, or the usual size in its leaf. A
    trifle is small beside the result, or beside what the element that counts most does.

    Args:
        gradient, variables: trees.
        result: the size of what the gradient belongs to.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        sizes = [_sizes(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(variables)]
        slopes = [np.abs(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(gradient)]
        moves = [np.nan_to_num(slope * size, posinf=0) for slope, size in zip(slopes, sizes, strict=True)]
        most = max([float(np.nan_to_num(result, posinf=0)), *(float(move.max(initial=0)) for move in moves)])
        return [TRIFLE * most / size for size in sizes]


def _sizes(numbers):
    usual = np.sqrt(np.mean(np.square(numbers))) if numbers.size else 0.0
    return np.maximum(np.abs(numbers), usual or 1.0)


def as_precise(
    a: np.ndarray, other: np.ndarray, exact: np.ndarray, dtype: Any, rounding: Callable[[], np.ndarray]
) -> bool:
    """Whether a gradient in a short dtype is about as near to the exact one as another gradient in that dtype is.

    Args:
        a, other, exact: the gradient, another one in the same dtype, and the one in float64.
        dtype: the short dtype.
        rounding: gives how far rounding may move the other gradient. It is called only where it is needed.
    """
    distance = np.linalg.norm(a - exact)
    allowed = 8 * np.linalg.norm(other - exact) + 16 * float(jnp.finfo(dtype).eps) * np.linalg.norm(exact)
    return bool(distance <= allowed or distance <= allowed + np.linalg.norm(rounding()))
