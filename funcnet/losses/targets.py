"""Targets as losses on classes compute with them: a weight for each class, and NaN where a target is impossible.

Under `jit` the checks cannot read the values. NaN then shows in the loss what an error would have said.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import as_shaped, check_shape, check_weights
from funcnet.losses.reduction import as_floats
from funcnet.types import Array

__all__ = ["as_class_weights", "as_distribution", "as_labels", "as_unit_interval", "within_unit_interval"]


def as_class_weights(class_weights: Any, classes: int, like: Any) -> Array:
    """The weights of the classes, checked, in the dtype of `like`."""
    weights = as_shaped(class_weights)
    check_shape("class_weights", weights, f"({classes},)", "give one number for each class")
    check_weights(weights, (classes,), what="class_weights")
    return as_floats(weights, like)


def as_distribution(target: Any, prediction: Array) -> Array:
    """The target as one weight for each class: one-hot for labels, NaN in a row whose label names no class."""
    if np.ndim(target) == prediction.ndim:
        return as_floats(target, prediction)
    labels, valid = as_labels(target, prediction.shape[-1])
    one_hot = jax.nn.one_hot(labels, prediction.shape[-1], dtype=prediction.dtype)
    return jnp.where(valid[..., None], one_hot, jnp.nan)


def as_labels(target: Any, classes: int) -> tuple[Array, Array]:
    """The labels as int32, with 0 for those that name no class, and which ones do."""
    # Labels in NumPy are checked before JAX converts them, because the conversion wraps 2**40 to the valid class 0.
    xp = jnp if isinstance(target, jax.Array) else np
    labels = xp.asarray(target)
    valid = (labels >= 0) & (labels <= min(classes - 1, xp.iinfo(labels.dtype).max))
    return jnp.asarray(xp.where(valid, labels, 0).astype(np.int32)), jnp.asarray(valid)


def as_unit_interval(target: Any, prediction: Array) -> Array:
    """The target, NaN where it is not within [0, 1]."""
    return within_unit_interval(as_floats(target, prediction))


def within_unit_interval(p: Array) -> Array:
    """The numbers, NaN where they are not within [0, 1]."""
    return jnp.where((p >= 0) & (p <= 1), p, jnp.nan)
