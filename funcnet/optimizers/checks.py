"""What optimizers check, and how they say it. Under `jit` none of it costs anything at run time."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from funcnet.checks import check_floating, check_kind, describe
from funcnet.errors import DtypeError, StructureError
from funcnet.trees import check_same_structure, flatten_with_paths
from funcnet.types import Optimizer, Params, Schedule

__all__ = ["Mask", "Rate", "check_grads", "check_mask", "check_optimizer", "checked_params"]

Mask: TypeAlias = Callable[[str], bool]  #: chooses leaves by their path, such as `"2/kernel"`
Rate: TypeAlias = float | Schedule  #: a number, or a schedule of the updates already done


def check_mask(what: str, mask: Any) -> None:
    fix = f'write for example {what}=lambda path: path.endswith("kernel")'
    check_kind(what, mask, Callable, "a function of a leaf's path", fix)


def check_optimizer(optimizer: Any) -> None:
    """What a wrapper gets first."""
    check_kind("optimizer", optimizer, Optimizer, "an optimizer, such as adam(1e-3)", "call its constructor")


def checked_params(params: Params) -> Params:
    """The params, every leaf an array of real floating-point numbers with a strong type.

    `jnp.array(1.0)` is weakly typed and what an update returns is not: a jitted update would compile again.
    """
    for path, leaf in flatten_with_paths(params):
        fix = "convert it with jnp.asarray(…, jnp.float32), or keep it out of the params"
        check_floating(f"the parameter {path!r} to be an array", leaf, fix)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), params)


def check_grads(state: Any, grads: Params, State: Any = object) -> None:
    """`state` is an optimizer's, a `State`, and `grads` has the leaves of its params, in their shapes and dtypes."""
    if not (isinstance(state, State) and hasattr(state, "step") and hasattr(state, "params")):
        got = f"{describe(state)}; the order is update(state, grads)"
        raise StructureError(f"expected state from init or update of this very optimizer, got {got}.")
    check_same_structure("params", state.params, "grads", grads)
    for (path, leaf), grad in zip(flatten_with_paths(state.params), jax.tree.leaves(grads), strict=True):
        if getattr(grad, "dtype", None) != leaf.dtype:
            got = f"{describe(grad)}; convert it with .astype"
            raise DtypeError(f"expected the gradient of {path!r} in the parameter's dtype, {leaf.dtype}, got {got}.")
