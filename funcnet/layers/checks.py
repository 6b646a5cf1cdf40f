"""What layers check before any mathematics runs, and how they say it.

JAX broadcasts, clamps and casts in silence, and its own errors name no layer. These checks read shapes and dtypes
only, so under `jit` they cost nothing at run time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_key, describe
from funcnet.errors import DtypeError, FuncnetError, MissingKeyError, ShapeError, StructureError

__all__ = [
    "check_arrays", "check_axis", "check_dy", "check_empty", "check_floating", "check_leaves",
    "check_train", "require_key", "within",
]  # fmt: skip


@contextmanager
def within(place: str) -> Iterator[None]:
    """Lead an error that a sublayer raises with its place: `serial[2] dense(16): …`."""
    try:
        yield
    except FuncnetError as error:
        error.args = (f"{place} {error.args[0]}", *error.args[1:])
        raise
    except Exception as error:
        error.add_note(f"funcnet: raised in {place}")
        raise


def require_key(name: str, key: Any) -> None:
    """For layers that draw random numbers in training."""
    if key is None:
        raise MissingKeyError(f"{name}: train=True draws random numbers, got key=None; pass key=jax.random.key(seed).")
    check_key(name, key)


def check_train(name: str, train: Any) -> None:
    if not isinstance(train, bool):
        raise DtypeError(
            f"{name}: expected train to be a Python bool, got {describe(train)}; "
            'under jit mark it static: jax.jit(layer.apply, static_argnames="train").'
        )


def check_arrays(name: str, what: str, tree: Any) -> None:
    """Every leaf has a shape and a dtype."""
    for leaf in jax.tree.leaves(tree):
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise DtypeError(
                f"{name}: expected {what} to be an array or jax.ShapeDtypeStruct, got {describe(tree)}; "
                "the example input is a batch, or jax.ShapeDtypeStruct((batch, …), jnp.float32)."
            )


def check_floating(name: str, x: Any) -> None:
    """`x` is one array of floating-point numbers."""
    if not (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)):
        raise DtypeError(
            f"{name}: expected x of a floating dtype, got {describe(x)}; convert it with x.astype(jnp.float32), "
            "and scale images to [0, 1] first."
        )


def check_axis(name: str, axis: int, x: Any) -> None:
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"{name}: expected x with an axis {axis}, got shape {x.shape}; choose another axis.")


def check_dy(name: str, dy: Any, shape: tuple[int, ...], dtype: Any = None) -> None:
    """`dy` has the shape and dtype of y: another one would be broadcast or promoted into a wrong gradient."""
    if getattr(dy, "shape", None) != shape:
        raise ShapeError(
            f"{name}: expected dy of the shape of y, {shape}, got {describe(dy)}; "
            "the order is backward(params, residuals, dy)."
        )
    if dtype is not None and dy.dtype != dtype:
        raise DtypeError(f"{name}: expected dy of the dtype of y, {dtype}, got {dy.dtype}; convert it with .astype.")


def check_empty(name: str, what: str, tree: Any) -> None:
    """A layer without parameters or state has `()` in their place."""
    if not (isinstance(tree, tuple) and tree == ()):
        raise StructureError(
            f"{name}: expected {what} to be (), got {describe(tree)}; the order is apply(params, state, x), "
            "with params and state from init of this very layer."
        )


def check_leaves(name: str, params: Any, x: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    """`params` has exactly these leaves, with these shapes, in the dtype of `x`."""
    if not isinstance(params, dict) or set(params) != set(shapes):
        got = f"the leaves {sorted(params)}" if isinstance(params, dict) else describe(params)
        raise StructureError(
            f"{name}: expected params with the leaves {sorted(shapes)}, got {got}; the order is "
            "apply(params, state, x), with params and state from init of this very layer."
        )
    for leaf, shape in shapes.items():
        if params[leaf].shape != shape:
            raise ShapeError(
                f"{name}: expected params[{leaf!r}] of shape {shape}, got {params[leaf].shape}; "
                "take params from init of this very layer."
            )
        if params[leaf].dtype != x.dtype:
            raise DtypeError(
                f"{name}: expected x of dtype {params[leaf].dtype}, the dtype of params[{leaf!r}], got {x.dtype}; "
                "convert one of them with .astype."
            )
