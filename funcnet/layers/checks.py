"""What layers check before any mathematics runs, and how they say it.

JAX broadcasts, clamps and casts in silence, and its own errors name no layer. These checks read shapes and dtypes
only, so under `jit` they cost nothing at run time.
"""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_key, describe
from funcnet.errors import DtypeError, MissingKeyError, ShapeError, StructureError
from funcnet.trees import kept_shape
from funcnet.types import Padded

__all__ = [
    "check_array", "check_arrays", "check_axis", "check_dy", "check_floating", "check_leaves", "check_padded",
    "check_train", "describe_tree", "require_key",
]  # fmt: skip


def require_key(key: Any) -> None:
    """For layers that draw random numbers in training."""
    if key is None:
        raise MissingKeyError("train=True draws random numbers, got key=None; pass key=jax.random.key(seed).")
    check_key(key)


def check_train(train: Any) -> None:
    if not isinstance(train, bool):
        raise DtypeError(
            f"expected train to be a Python bool, got {describe(train)}; "
            'under jit mark it static: jax.jit(layer.apply, static_argnames="train").'
        )


def check_arrays(what: str, tree: Any) -> None:
    """Every leaf has a shape and a dtype."""
    for leaf in jax.tree.leaves(tree):
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise DtypeError(
                f"expected {what} to be an array or jax.ShapeDtypeStruct, got {describe(tree)}; "
                "the example input is a batch, or jax.ShapeDtypeStruct((batch, …), jnp.float32)."
            )


def check_floating(x: Any) -> None:
    """`x` is one array of floating-point numbers."""
    if not (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)):
        raise DtypeError(
            f"expected x of a floating dtype, got {describe(x)}; convert it with x.astype(jnp.float32), "
            "and scale images to [0, 1] first."
        )


def check_axis(axis: int, x: Any) -> None:
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"expected x with an axis {axis}, got shape {x.shape}; choose another axis.")


def check_array(x: Any) -> None:
    """`x` is one array."""
    if not hasattr(x, "dtype"):
        raise StructureError(
            f"expected x to be one array, got {describe_tree(x)}; give each entry its layer with each(…), or take the "
            "one that is meant."
        )


def describe_tree(tree: Any) -> str:
    """A tree of arrays, by the shapes and dtypes of its leaves."""
    shown = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)
    return f"a {type(tree).__name__} {str(shown).replace(chr(39), '')}"


def check_padded(x: Padded, positionwise: int | None) -> None:
    """A padded batch goes through a layer that takes each of its positions by itself."""
    if positionwise is None:
        raise StructureError(
            "expected x without padding, got a Padded batch: this layer looks at several positions together, and would "
            "mix what is padded into what is not; take x.values if that is meant, or a layer for sequences."
        )
    if x.values.ndim - x.where.ndim < positionwise:
        raise ShapeError(
            f"expected x with {positionwise} more axes than where, which the layer reads together, got values of shape "
            f"{x.values.shape} and where of shape {x.where.shape}; add an axis of features."
        )


def check_dy(kept: Any, dy: Any) -> None:
    """`dy` is like the y of which `keep_shape` kept each leaf, or `None`.

    One of another shape or dtype would be broadcast or promoted into a wrong gradient.
    """
    y, structure = [kept_shape(leaf) for leaf in jax.tree.leaves(kept)], jax.tree.structure(kept)
    try:
        given = [None] * len(y) if dy is None else structure.flatten_up_to(dy)
    except ValueError as error:
        raise StructureError(
            f"expected dy to be a tree like y, {describe_tree(structure.unflatten(y))}, got {describe(dy)}; "
            "the order is backward(params, residuals, dy)."
        ) from error
    for like, leaf in zip(y, given, strict=True):
        if leaf is not None:
            _check_leaf(like, leaf)


def _check_leaf(y: Any, dy: Any) -> None:
    """`dy` has the shape and dtype of `y`."""
    if getattr(dy, "shape", None) != y.shape:
        raise ShapeError(
            f"expected dy of the shape of y, {y.shape}, got {describe(dy)}; "
            "the order is backward(params, residuals, dy)."
        )
    if dy.dtype != y.dtype:
        raise DtypeError(f"expected dy of the dtype of y, {y.dtype}, got {dy.dtype}; convert it with .astype.")


def check_leaves(what: str, tree: Any, x: Any, expected: dict[str, Any]) -> None:
    """`tree`, the params or the state, has exactly the leaves that `x` wants, in their shapes and dtypes."""
    order = "the order is apply(params, state, x), with params and state from init of this very layer."
    if not expected:
        if not (isinstance(tree, tuple) and tree == ()):
            raise StructureError(f"expected {what} to be (), got {describe(tree)}; {order}")
        return
    if not isinstance(tree, dict) or set(tree) != set(expected):
        got = f"the leaves {sorted(tree)}" if isinstance(tree, dict) else describe(tree)
        raise StructureError(f"expected {what} with the leaves {sorted(expected)}, got {got}; {order}")
    for leaf, want in expected.items():
        got = tree[leaf]
        if got.shape != want.shape:
            raise ShapeError(
                f"expected {what}[{leaf!r}] of shape {want.shape} for x of shape {x.shape}, got {got.shape}; feed the "
                "width that init saw, or init again."
            )
        if got.dtype != want.dtype:
            raise DtypeError(
                f"expected x of dtype {got.dtype}, the dtype of {what}[{leaf!r}], got {x.dtype}; "
                "convert one of them with .astype."
                if want.dtype == x.dtype
                else f"expected {what}[{leaf!r}] of dtype {want.dtype}, got {got.dtype}; convert it with .astype."
            )
