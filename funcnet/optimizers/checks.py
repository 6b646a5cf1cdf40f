"""The checks of optimizers, with their messages. Under `jit` they cost nothing at run time."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from funcnet.checks import check_floating, check_jax_holds, check_kind, describe
from funcnet.errors import DtypeError, StructureError
from funcnet.trees import check_same_structure, flatten_with_paths
from funcnet.types import Optimizer, Params, Schedule

__all__ = ["Rate", "check_grads", "check_optimizer", "checked_params"]

Rate: TypeAlias = float | Schedule  #: a number, or a schedule of the updates already done


def check_optimizer(optimizer: Any) -> None:
    """The first argument of a wrapper is an optimizer."""
    check_kind("optimizer", optimizer, Optimizer, "an optimizer, such as adam(1e-3)", "call its constructor")


def checked_params(params: Params) -> Params:
    """The params, with strong types. Every leaf must be an array of real floating-point numbers.

    `jnp.array(1.0)` is weakly typed, but what an update returns is not. So a jitted update would compile twice.
    """
    for path, leaf in flatten_with_paths(params):
        fix = "convert it with jnp.asarray(…, jnp.float32), or keep it out of the params"
        check_floating(f"the parameter {path!r} to be an array", leaf, fix)
        check_jax_holds(f"the parameter {path!r} to be an array", leaf)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), params)


def check_grads(state: Any, grads: Params, State: Any = object) -> None:
    """`state` is a `State` of an optimizer, and `grads` has the tree, shapes and dtypes of its params."""
    if not (isinstance(state, State) and hasattr(state, "step") and hasattr(state, "params")):
        got = f"{describe(state)}; the order is update(state, grads)"
        raise StructureError(f"expected state from init or update of this very optimizer, got {got}.")
    check_same_structure("params", state.params, "grads", grads)
    for (path, leaf), grad in zip(flatten_with_paths(state.params), jax.tree.leaves(grads), strict=True):
        if getattr(grad, "dtype", None) != leaf.dtype:
            got = f"{describe(grad)}; convert it with .astype"
            raise DtypeError(f"expected the gradient of {path!r} in the parameter's dtype, {leaf.dtype}, got {got}.")
