"""What optimizers check, and how they say it. Under `jit` none of it costs anything at run time."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from funcnet.errors import ConfigError, DtypeError
from funcnet.trees import check_same_structure, flatten_with_paths
from funcnet.types import Params

__all__ = ["Mask", "check_grads", "check_mask", "checked_params", "fraction", "nonnegative", "positive"]

Mask: TypeAlias = Callable[[str], bool]  #: chooses leaves by their path, such as `"2/kernel"`


def fraction(name: str, what: str, value: Any) -> float:
    """0 ≤ value < 1, as a Python float."""
    return _number(name, what, value, "in [0, 1)", lambda number: 0 <= number < 1)


def nonnegative(name: str, what: str, value: Any) -> float:
    """value ≥ 0, as a Python float."""
    return _number(name, what, value, ">= 0", lambda number: number >= 0)


def positive(name: str, what: str, value: Any) -> float:
    """value > 0, as a Python float."""
    return _number(name, what, value, "> 0", lambda number: number > 0)


def _number(name, what, value, bounds, holds):
    # A Python float takes the dtype of the arrays that it meets; a NumPy number, as a sweep has them, would not.
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (is_number and holds(value)):
        raise ConfigError(f"{name}(…, {what}={value!r}): expected {what} to be a number {bounds}, got {value!r}.")
    return float(value)


def check_mask(name: str, what: str, mask: Any) -> None:
    if not callable(mask):
        raise ConfigError(
            f"{name}(…, {what}={mask!r}): expected {what} to be a function of a leaf's path, got {mask!r}; "
            f'write {what}=lambda path: path.endswith("kernel"), say.'
        )


def checked_params(name: str, params: Params) -> Params:
    """The params, every leaf an array of real floating-point numbers with a strong type.

    `jnp.array(1.0)` is weakly typed and what an update returns is not: a jitted update would compile again.
    """
    for path, leaf in flatten_with_paths(params):
        if not (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)):
            raise DtypeError(
                f"{name}.init(params): expected {path!r} to be an array of a floating dtype, got {_describe(leaf)}; "
                "convert it with jnp.asarray(…, jnp.float32), or keep it out of the params."
            )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), params)


def check_grads(name: str, params: Params, grads: Params) -> None:
    """`grads` has the leaves of `params`, in their shapes and dtypes."""
    name = f"{name}.update(state, grads)"
    check_same_structure(name, "params", params, "grads", grads)
    for (path, leaf), grad in zip(flatten_with_paths(params), jax.tree.leaves(grads), strict=True):
        if not (hasattr(grad, "dtype") and grad.dtype == leaf.dtype):
            raise DtypeError(
                f"{name}: expected the gradient of {path!r} in the parameter's dtype, {leaf.dtype}, "
                f"got {_describe(grad)}; convert it with .astype."
            )


def _describe(leaf):
    return f"an array of {leaf.dtype}" if hasattr(leaf, "dtype") else f"{leaf!r}, a {type(leaf).__name__}"
