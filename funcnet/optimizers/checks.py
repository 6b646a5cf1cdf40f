"""What optimizers check, and how they say it. Under `jit` none of it costs anything at run time."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from funcnet.checks import describe
from funcnet.errors import ConfigError, DtypeError, StructureError
from funcnet.trees import check_same_structure, flatten_with_paths
from funcnet.types import Params

__all__ = ["Mask", "check_grads", "check_mask", "checked_params"]

Mask: TypeAlias = Callable[[str], bool]  #: chooses leaves by their path, such as `"2/kernel"`


def check_mask(name: str, what: str, mask: Any) -> None:
    if not callable(mask):
        raise ConfigError(
            f"{name}: expected {what} to be a function of a leaf's path, got {describe(mask)}; "
            f'write {what}=lambda path: path.endswith("kernel"), say.'
        )


def checked_params(name: str, params: Params) -> Params:
    """The params, every leaf an array of real floating-point numbers with a strong type.

    `jnp.array(1.0)` is weakly typed and what an update returns is not: a jitted update would compile again.
    """
    for path, leaf in flatten_with_paths(params):
        if not (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)):
            raise DtypeError(
                f"{name}.init(params): expected {path!r} to be an array of a floating dtype, got {describe(leaf)}; "
                "convert it with jnp.asarray(…, jnp.float32), or keep it out of the params."
            )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), params)


def check_grads(name: str, state: Any, grads: Params) -> None:
    """`state` is an optimizer's, and `grads` has the leaves of its params, in their shapes and dtypes."""
    name = f"{name}.update(state, grads)"
    if not (hasattr(state, "step") and hasattr(state, "params")):
        raise StructureError(
            f"{name}: expected state to be what init or update returned, got {describe(state)}; "
            "the order is update(state, grads)."
        )
    check_same_structure(name, "params", state.params, "grads", grads)
    for (path, leaf), grad in zip(flatten_with_paths(state.params), jax.tree.leaves(grads), strict=True):
        if not (hasattr(grad, "dtype") and grad.dtype == leaf.dtype):
            raise DtypeError(
                f"{name}: expected the gradient of {path!r} in the parameter's dtype, {leaf.dtype}, "
                f"got {describe(grad)}; convert it with .astype."
            )
