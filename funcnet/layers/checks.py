"""The checks of layers that run before any mathematics, besides those of `funcnet.checks`.

JAX broadcasts, clamps and casts silently, and its own errors do not name the layer. These checks read only shapes and
dtypes, so under `jit` they cost nothing at run time.
"""

from collections.abc import Collection
from typing import Any

import jax

from funcnet.checks import check_key, check_kind, check_like, describe
from funcnet.errors import DtypeError, MissingKeyError, ShapeError, StructureError
from funcnet.trees import kept_shape
from funcnet.types import Padded

__all__ = [
    "ORDER", "check_array", "check_axis", "check_dy", "check_entries", "check_leaves", "check_padded", "check_pair",
    "check_train", "check_training_key", "describe_tree",
]  # fmt: skip

ORDER = "the order is apply(params, state, x), with params and state from init of this very layer"


def check_training_key(key: Any) -> None:
    """For layers that draw random numbers in training."""
    if key is None:
        raise MissingKeyError("train=True draws random numbers, got key=None; pass key=jax.random.key(seed).")
    check_key(key)


def check_train(train: Any) -> None:
    fix = 'under jit mark it static: jax.jit(layer.apply, static_argnames="train")'
    check_kind("train", train, bool, "a Python bool", fix, DtypeError)


def check_axis(axis: int, x: Any) -> None:
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"expected x with an axis {axis}, got shape {x.shape}; choose another axis.")


def check_array(x: Any) -> None:
    """`x` is one array."""
    if not hasattr(x, "dtype"):
        fix = "give each entry its layer with each(…), or take one entry"
        raise StructureError(f"expected x to be one array, got {describe_tree(x)}; {fix}.")


def describe_tree(tree: Any) -> str:
    """A tree of arrays, by the shapes and dtypes of its leaves."""
    if hasattr(tree, "dtype"):
        return f"{tree.dtype}{list(tree.shape)}"
    shown = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)
    return f"a {type(tree).__name__} {str(shown).replace(chr(39), '')}"


def check_padded(x: Padded, positionwise: int | None) -> None:
    """`x` may be padded only for a layer that treats each position separately."""
    if positionwise is None:
        fix = "this layer would mix padding into its output; take x.values, or a layer for sequences"
        raise StructureError(f"expected x without padding, got a Padded batch; {fix}.")
    values, where = x.values.shape, x.where.shape
    if values[: len(where)] != where:
        got = f"values of shape {values} and where of shape {where}; mark each position of each row"
        raise ShapeError(f"expected x.where over leading axes of x.values, got {got}.")
    if len(values) - len(where) < positionwise:
        got = f"values of shape {values} and where of shape {where}; add an axis of features"
        raise ShapeError(f"expected x.values with {positionwise} or more axes beyond those of x.where, got {got}.")


def check_pair(x: Any, wanted: str, fix: str) -> None:
    """`x` is a carry, with one position of a sequence or with all of them."""
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise StructureError(f"expected x to be the pair {wanted}, got {describe_tree(x)}; {fix}.")


def check_dy(kept: Any, dy: Any) -> None:
    """`dy` is like y, whose leaves `keep_shape` kept, or it is `None`.

    A `dy` of another shape or dtype would be broadcast or promoted, and give a wrong gradient.
    """
    order = "the order is backward(params, residuals, dy)"
    y, structure = [kept_shape(leaf) for leaf in jax.tree.leaves(kept)], jax.tree.structure(kept)
    try:
        given = [None] * len(y) if dy is None else structure.flatten_up_to(dy)
    except ValueError as error:
        like = describe_tree(structure.unflatten(y))
        raise StructureError(f"expected dy to be a tree like y, {like}, got {describe(dy)}; {order}.") from error
    for like, leaf in zip(y, given, strict=True):
        if leaf is not None:
            check_like("dy", leaf, like, "as y has", order)


def check_entries(what: str, tree: Any, names: Collection[str], kind: str = "leaves") -> None:
    """`tree` is a dictionary with these names."""
    if not isinstance(tree, dict) or set(tree) != set(names):
        got = f"the {kind} {sorted(tree)}" if isinstance(tree, dict) else describe(tree)
        raise StructureError(f"expected {what} with the {kind} {sorted(names)}, got {got}; {ORDER}.")


def check_leaves(what: str, tree: Any, x: Any, expected: dict[str, Any]) -> None:
    """`tree`, the params or the state, has exactly the leaves that fit `x`, with their shapes and dtypes."""
    if not expected:
        if not isinstance(tree, tuple) or tree:
            raise StructureError(f"expected {what} to be (), got {describe(tree)}; {ORDER}.")
        return
    check_entries(what, tree, expected)
    whole = hasattr(x, "dtype")
    why = f"for x of shape {x.shape}" if whole else f"for x, {describe_tree(x)}"
    for leaf, like in expected.items():
        name, dtype = f"{what}[{leaf!r}]", tree[leaf].dtype
        if whole and like.dtype == x.dtype != dtype and tree[leaf].shape == like.shape:
            fix = "convert one of them with .astype"
            raise DtypeError(f"expected x of dtype {dtype}, the dtype of {name}, got {x.dtype}; {fix}.")
        check_like(name, tree[leaf], like, why, "feed the width that init saw, or init again")
