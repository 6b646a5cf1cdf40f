"""When two gradients agree. `check_gradients` and `mutation_score` both judge by these functions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checking.numeric import Differences
from funcnet.checking.subjects import Point

__all__ = ["DTYPES", "agree", "agree_with_differences", "as_precise", "norm_relative", "rounding_floor"]

DTYPES = ("float64", "float32", "float16", "bfloat16")


def rounding_floor(point: Point, dtype: Any = jnp.float64) -> float:
    """The rounding error where a gradient cancels to zero: 64 ε times ‖dy‖ times the largest input (at least 1)."""
    numbers = [np.max(np.abs(np.asarray(leaf, np.float64)), initial=0) for leaf in jax.tree.leaves(point.variables)]
    squares = [np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(point.dy)]
    cotangent = 1.0 if point.dy is None else np.sqrt(sum(squares))
    return float(64 * jnp.finfo(dtype).eps * max([1.0, *numbers]) * cotangent)


def norm_relative(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖; 0 for two zeros."""
    distance, reference = np.linalg.norm(a - b), np.linalg.norm(b)
    return float(distance / reference if reference else np.inf if distance else 0.0)


def agree(a: np.ndarray, b: np.ndarray, tolerance: float, floor: float) -> bool:
    """Whether two gradients of one leaf are equal, norm-relative; NaN equals nothing."""
    return bool(np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b) + floor)


def as_precise(a: np.ndarray, other: np.ndarray, exact: np.ndarray, dtype: Any, floor: float) -> bool:
    """Whether a gradient in a short dtype is about as near to the exact one as another gradient in that dtype is."""
    allowed = 8 * np.linalg.norm(other - exact) + 16 * float(jnp.finfo(dtype).eps) * np.linalg.norm(exact) + floor
    return bool(np.linalg.norm(a - exact) <= allowed)


def agree_with_differences(
    suspect: np.ndarray, numeric: Differences, size: float, tolerance: float, numeric_tolerance: float, floor: float
) -> np.ndarray:
    """Where a gradient agrees with numeric derivatives. At a kink these prove nothing, so that counts as agreement.

    `size` is the root mean square of the gradient. An element far below it is rounding noise.
    """
    by_step = tolerance * np.maximum(np.abs(suspect), size) + floor
    by_differences = numeric_tolerance * np.maximum(np.abs(suspect), 1e-3 * size) + numeric.error
    allowed = np.where(numeric.exact, by_step, by_differences)
    return (np.abs(suspect - numeric.value) <= allowed) | numeric.kink
