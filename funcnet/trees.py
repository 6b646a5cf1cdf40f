"""Pytrees and the paths of their leaves: `2/kernel` is the leaf `kernel` of the third layer of a `serial`."""

import re
from collections.abc import Callable, Collection, Iterable
from functools import reduce
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from funcnet.checks import as_shaped, check_kind, listed, over_leading_axes
from funcnet.dtypes import as_jax_has, is_key
from funcnet.errors import ConfigError, ShapeError, StructureError, translated
from funcnet.numerics import power_of_two, root
from funcnet.types import Array, Padded, Whole

__all__ = [
    "Select", "apart", "check_matches", "check_same_structure", "differences", "equal_rows", "filled",
    "flatten_with_paths", "global_norm", "is_empty", "is_leaf", "is_padded", "is_whole", "keep_shape", "kept_shape",
    "leaves", "map_leaves", "map_rows", "map_with_paths", "norm_factors", "on_host", "path_string", "selector",
    "shapes", "spread", "to_the_front", "together", "total", "total_bytes", "total_size", "unpadded", "values_of",
    "with_values", "zeros_like",
]  # fmt: skip

#: Chooses leaves by their path, such as `"2/kernel"`: a regular expression that matches the whole path, or a function.
Select: TypeAlias = str | Callable[[str], bool]


def path_string(path: tuple[Any, ...]) -> str:
    """A path of `jax.tree_util`, as funcnet writes it.

    >>> from jax.tree_util import DictKey, SequenceKey
    >>> path_string((SequenceKey(2), DictKey("kernel")))
    '2/kernel'
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten_with_paths(tree: Any) -> list[tuple[str, Any]]:
    """The leaves with their paths, in the tree's order.

    >>> flatten_with_paths(({"kernel": 1.0, "bias": 2.0}, ()))
    [('0/bias', 2.0), ('0/kernel', 1.0)]
    """
    return [(path_string(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def map_with_paths(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` whose function gets the leaf's path first.

    >>> map_with_paths(lambda path, leaf: path, {"kernel": 1.0})
    {'kernel': 'kernel'}
    """
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(path_string(path), *leaves), tree, *rest)


def selector(what: str, select: Select) -> Callable[[str], bool]:
    """`select` as a function of a leaf's path; ConfigError for anything else than a `Select`.

    >>> selector("select", ".*kernel")("2/kernel"), selector("select", "kernel")("2/kernel")
    (True, False)
    """
    if callable(select):
        return select
    fix = f'write for example {what}=".*kernel"'
    check_kind(what, select, str, "a regular expression or a function of a leaf's path", fix)
    with translated(re.error, ConfigError, f"expected {select!r} to be a regular expression, got an error"):
        pattern = re.compile(select)
    return lambda path: pattern.fullmatch(path) is not None


def check_matches(select: Any, paths: Collection[str]) -> None:
    """If `select` is a regular expression, it has to match one of these paths, if there are any.

    >>> check_matches("bias", ["a"])
    Traceback (most recent call last):
    funcnet.errors.ConfigError: expected 'bias' to match a leaf, got none of a; a pattern has to match the whole path.
    """
    if paths and isinstance(select, str) and not any(re.fullmatch(select, path) for path in paths):
        got = f"none of {listed(paths)}; a pattern has to match the whole path"
        raise ConfigError(f"expected {select!r} to match a leaf, got {got}.")


# Batches: trees of arrays with the rows on the first axis. A `Padded` is one leaf. So is a `Whole`, which has no rows.


def is_padded(node: Any) -> bool:
    """Whether it is a batch of sequences of several lengths.

    >>> is_padded(Padded(jnp.ones((1, 2, 3)), jnp.array([[True, False]])))
    True
    """
    return isinstance(node, Padded)


def is_whole(node: Any) -> bool:
    """Whether it is an array without rows.

    >>> is_whole(Whole(jnp.ones((3, 2))))
    True
    """
    return isinstance(node, Whole)


def is_leaf(node: Any) -> bool:
    """Whether it is one leaf of a batch, although JAX sees a tree in it.

    >>> is_leaf(Whole(jnp.ones(2))), is_leaf((jnp.ones(2),))
    (True, False)
    """
    return isinstance(node, Padded | Whole)


def leaves(tree: Any) -> list[Any]:
    """The leaves of a batch.

    >>> len(leaves({"words": Padded(jnp.ones((1, 2, 3)), jnp.array([[True, False]])), "age": jnp.ones(1)}))
    2
    """
    return jax.tree.leaves(tree, is_leaf=is_leaf)


def map_leaves(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` over the leaves of batches.

    >>> map_leaves(is_padded, {"words": Padded(jnp.ones((1, 2)), jnp.ones((1, 2), bool)), "age": jnp.ones(1)})
    {'age': False, 'words': True}
    """
    return jax.tree.map(function, tree, *rest, is_leaf=is_leaf)


def map_rows(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` over the arrays that have rows. A `Whole` stays as it is.

    >>> map_rows(lambda array: array[:1], (jnp.ones((2, 1)), Whole(jnp.ones(2))))
    (Array([[1.]], dtype=float32), Whole(array=Array([1., 1.], dtype=float32)))
    """
    return jax.tree.map(lambda *a: a[0] if is_whole(a[0]) else function(*a), tree, *rest, is_leaf=is_whole)


def apart(tree: Any) -> tuple[Any, Any]:
    """Two trees: the arrays that have rows, and the `Whole` ones, each with `None` for the rest.

    >>> apart((jnp.ones(1), Whole(jnp.ones(2))))
    ((Array([1.], dtype=float32), None), (None, Whole(array=Array([1., 1.], dtype=float32))))
    """
    rows = jax.tree.map(lambda leaf: None if is_whole(leaf) else leaf, tree, is_leaf=is_whole)
    return rows, jax.tree.map(lambda leaf: leaf if is_whole(leaf) else None, tree, is_leaf=is_whole)


def together(rows: Any, whole: Any) -> Any:
    """The tree that `apart` took apart.

    >>> together(*apart((jnp.ones(1), Whole(jnp.ones(2)))))
    (Array([1.], dtype=float32), Whole(array=Array([1., 1.], dtype=float32)))
    """

    def either(row, one):
        return one if row is None else row

    return jax.tree.map(either, rows, whole, is_leaf=lambda node: node is None)


def equal_rows(batch: Any, fix: str) -> int:
    """How many rows each array of a batch has, except a `Whole`. What cuts a batch, or pairs its rows, asks this first.

    Raises:
        ShapeError: the arrays have not the same number of rows, or one of them has no axis.

    >>> equal_rows((jnp.ones((4, 3)), jnp.ones(4)), "batches of graphs cannot be cut")
    4
    """
    found = flatten_with_paths(apart(batch)[0])
    if not found:
        raise ShapeError("expected arrays with rows, got none.")
    if any(jnp.ndim(array) == 0 for _, array in found):
        raise ShapeError("expected arrays with rows, got a scalar.")
    rows = found[0][1].shape[0]
    for path, array in found:
        if array.shape[0] != rows:
            got = f"{rows} at {found[0][0]} and {array.shape[0]} at {path}"
            raise ShapeError(f"expected the same number of rows in every array of a batch, got {got}; {fix}.")
    return rows


def values_of(x: Any) -> Any:
    """The values of a `Padded`, the array of a `Whole`, and anything else as it is.

    >>> values_of(Padded(jnp.ones((1, 2)), jnp.array([[True, False]]))).shape
    (1, 2)
    """
    return x.values if isinstance(x, Padded) else x.array if isinstance(x, Whole) else x


def with_values(leaf: Any, values: Any) -> Any:
    """A leaf of a batch with other values. A `Padded` keeps its mask.

    >>> with_values(Whole(jnp.ones(2)), None)
    Whole(array=None)
    """
    if isinstance(leaf, Padded):
        return Padded(values, leaf.where)
    return Whole(values) if isinstance(leaf, Whole) else values


def unpadded(prediction: Any, target: Any, where: Any) -> tuple[Any, Any, Any]:
    """The values of prediction and target, and the mask of positions that count and exist in both.

    >>> where = jnp.array([[True, False]])
    >>> unpadded(Padded(jnp.ones((1, 2, 3)), where), None, np.array([True]))[2]
    Array([[ True, False]], dtype=bool)
    """
    for one in (prediction, target):
        if isinstance(one, Padded) and one.where is not where:
            where = one.where if where is None else _both(as_shaped(where), as_shaped(one.where))
    return values_of(prediction), values_of(target), where


def _both(a: Any, b: Any) -> Any:
    if isinstance(a, jax.ShapeDtypeStruct) or isinstance(b, jax.ShapeDtypeStruct):
        return jax.eval_shape(_both, jnp.zeros(a.shape, a.dtype), jnp.zeros(b.shape, b.dtype))
    ndim = max(a.ndim, b.ndim)
    return over_leading_axes(a, ndim) & over_leading_axes(b, ndim)


def to_the_front(xp: Any, values: Any, there: Any) -> tuple[Any, Any]:
    """Sequences (batch, time) with what is there before all else, in its order, and the mask of that.

    >>> to_the_front(np, np.array([[7, 0, 5]]), np.array([[True, False, True]]))[0]
    array([[7, 5, 0]])
    """
    order = (~there).argsort(axis=1, stable=True)
    return xp.take_along_axis(values, order, axis=1), xp.take_along_axis(there, order, axis=1)


def shapes(tree: Any) -> Any:
    """The shapes and dtypes of arrays, as a tree of `jax.ShapeDtypeStruct`.

    >>> shapes({"kernel": jnp.ones(2)})
    {'kernel': ShapeDtypeStruct(shape=(2,), dtype=float32)}
    """

    def shape(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, as_jax_has(leaf.dtype))

    return jax.tree.map(shape, tree)


def keep_shape(x: Any) -> Any:
    """The shape and dtype of `x` as residuals: an array without numbers, which crosses jit and scan at no cost.

    For a `Padded` they are those of its values, which its gradient has too.

    >>> keep_shape(jnp.ones((4, 3))).shape
    (0, 4, 3)
    """
    x = values_of(x)
    shape = (0, *x.shape)
    return jax.ShapeDtypeStruct(shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else jnp.zeros(shape, x.dtype)


def kept_shape(residuals: Array) -> jax.ShapeDtypeStruct:
    """What `keep_shape` kept.

    >>> kept_shape(keep_shape(jnp.ones((4, 3)))).shape
    (4, 3)
    """
    return jax.ShapeDtypeStruct(residuals.shape[1:], residuals.dtype)


# Gradients with respect to batches: trees in which `None` stands for a leaf, or a whole tree, without a gradient.


def is_empty(gradient: Any) -> bool:
    """Whether it is `None` everywhere.

    >>> is_empty({"digit": None, "ink": None}), is_empty({"digit": jnp.ones(1), "ink": None})
    (True, False)
    """
    return not jax.tree.leaves(gradient)


def total(gradients: Iterable[Any]) -> Any:
    """The sum of several gradients of one tree. It is `None` where all of them are `None`.

    >>> total([{"image": jnp.ones(1), "label": None}, None, {"image": jnp.ones(1), "label": None}])
    {'image': Array([2.], dtype=float32), 'label': None}
    """
    return reduce(_added, gradients, None)


def _added(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    if jax.tree.structure(a).num_nodes == 1 and hasattr(a, "dtype"):
        return a + b
    return jax.tree.map(_added, a, b, is_leaf=lambda node: node is not a)  # one level down


def filled(kept: Any, gradient: Any) -> Any:
    """A gradient with zeros for `None` at floating leaves. `kept` is what `keep_shape` kept of each leaf.

    >>> filled({"image": keep_shape(jnp.ones(1)), "label": keep_shape(jnp.array([3]))}, None)
    {'image': Array([0.], dtype=float32), 'label': None}
    """
    structure = jax.tree.structure(kept)
    given = [None] * structure.num_leaves if gradient is None else structure.flatten_up_to(gradient)

    def fill(like, leaf):
        if leaf is not None or not jnp.issubdtype(like.dtype, jnp.floating):
            return leaf
        return jnp.zeros(like.shape[1:], like.dtype)

    return jax.tree.unflatten(structure, list(map(fill, jax.tree.leaves(kept), given)))


def on_host(tree: Any) -> Any:
    """The arrays as NumPy arrays. If other processes hold parts of them, all processes must call this together.

    >>> on_host({"kernel": jnp.ones(2)})
    {'kernel': array([1., 1.], dtype=float32)}
    """

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


def spread(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Spread an array over the devices of all processes. Each one has the array, and puts its parts on its devices.

    >>> spread(np.ones(2, np.float32), jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    Array([1., 1.], dtype=float32)
    """
    if is_key(leaf):
        return jax.random.wrap_key_data(spread(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def zeros_like(tree: Any) -> Any:
    """A tree of zeros, in new buffers each time, because two fields of a donated state must not share one.

    >>> zeros_like({"kernel": jnp.ones(2)})
    {'kernel': Array([0., 0.], dtype=float32)}
    """
    return jax.tree.map(jnp.zeros_like, tree)


def global_norm(tree: Any) -> Array:
    """The Euclidean norm of all leaves together, √(Σ x²).

    It is computed in JAX's default float dtype, whatever the leaves' own dtype, because 300² is infinite in float16.

    >>> global_norm({"kernel": jnp.array([[3.0]]), "bias": jnp.array([4.0])})
    Array(5., dtype=float32)
    """
    size, share = norm_factors(tree)
    return size * share


def norm_factors(tree: Any) -> tuple[Array, Array]:
    """The norm as a product: a power of two s near the largest |x|, and √(Σ (x/s)²), whose squares are no extremes.

    >>> norm_factors({"kernel": jnp.array([3e20]), "bias": jnp.array([4e20])})
    (Array(1.4757395e+20, dtype=float32), Array(3.3881319, dtype=float32))
    """
    dtype = jnp.result_type(float)
    leaves = [jnp.asarray(leaf, dtype) for leaf in jax.tree.leaves(tree)]
    size = power_of_two(leaves, dtype)
    return size, root(sum((jnp.sum(jnp.square(leaf / size)) for leaf in leaves), jnp.zeros((), dtype)))


def total_size(tree: Any) -> int:
    """How many numbers all leaves have together.

    >>> total_size({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)})
    8
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def total_bytes(tree: Any) -> int:
    """How many bytes all leaves have together. `jax.ShapeDtypeStruct` leaves count too.

    >>> total_bytes({"kernel": jax.ShapeDtypeStruct((3, 2), jnp.bfloat16)})
    12
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_same_structure(expected_name: str, expected: Any, given_name: str, given: Any) -> None:
    """Raise `StructureError` unless both trees have the same leaves with the same shapes.

    The message lists by path the leaves that are missing, unexpected or of another shape.

    >>> check_same_structure("params", {"kernel": jnp.ones(2)}, "grads", {"kernel": jnp.ones(3)})
    Traceback (most recent call last):
    funcnet.errors.StructureError: grads do not fit params: kernel has shape (3,), expected (2,).
    """
    if found := differences(expected, given):
        raise StructureError(f"{given_name} do not fit {expected_name}: {found}.")


def differences(expected: Any, given: Any, *, dtypes: bool = False) -> str:
    """The leaves in which two trees differ by path or shape, or with `dtypes` by dtype, as text; "" for none.

    >>> differences({"kernel": jnp.ones(2)}, {"kernel": jnp.ones(3), "bias": jnp.ones(1)})
    'bias is unexpected; kernel has shape (3,), expected (2,)'
    """
    want, have = dict(flatten_with_paths(expected)), dict(flatten_with_paths(given))
    found = [f"{path} is missing" for path in want if path not in have]
    found += [f"{path} is unexpected" for path in have if path not in want]
    for path in (path for path in want if path in have):
        shapes, kinds = [[of(tree[path]) for tree in (have, want)] for of in (jnp.shape, _dtype)]
        if shapes[0] != shapes[1]:
            found.append(f"{path} has shape {shapes[0]}, expected {shapes[1]}")
        elif dtypes and kinds[0] != kinds[1]:
            found.append(f"{path} has dtype {kinds[0]}, expected {kinds[1]}")
    if not found and (wanted := jax.tree.structure(expected)) != (got := jax.tree.structure(given)):
        return f"expected the tree {wanted}, got {got}"
    return "; ".join(found[:8]) + (f"; and {len(found) - 8} more" if len(found) > 8 else "")


def _dtype(leaf):
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
