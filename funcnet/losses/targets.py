"""Targets as losses on classes compute with them: a weight for each class, and NaN where a target is impossible.

Under `jit` the checks cannot read the values. NaN then shows in the loss what an error would have said.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.losses.reduction import as_floats
from funcnet.types import Array

__all__ = ["as_distribution", "as_unit_interval", "within_unit_interval"]


def as_distribution(target: Any, prediction: Array) -> Array:
    """The target as one weight for each class: one-hot for labels, NaN in a row whose label names no class."""
    if np.ndim(target) == prediction.ndim:
        return as_floats(target, prediction)
    # Labels in NumPy are checked before JAX converts them, because the conversion wraps 2**40 to the valid class 0.
    xp = jnp if isinstance(target, jax.Array) else np
    labels, classes = xp.asarray(target), prediction.shape[-1]
    valid = (labels >= 0) & (labels <= min(classes - 1, xp.iinfo(labels.dtype).max))
    labels = xp.where(valid, labels, 0).astype(np.int32)
    one_hot = jax.nn.one_hot(labels, classes, dtype=prediction.dtype)
    return jnp.where(jnp.asarray(valid)[..., None], one_hot, jnp.nan)


def as_unit_interval(target: Any, prediction: Array) -> Array:
    """The target, NaN where it is not within [0, 1]."""
    return within_unit_interval(as_floats(target, prediction))


def within_unit_interval(p: Array) -> Array:
    """The numbers, NaN where they are not within [0, 1]."""
    return jnp.where((p >= 0) & (p <= 1), p, jnp.nan)
