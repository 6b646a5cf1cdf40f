"""The checks of data before training: on the host, once, and vectorised.

Data are `(x, target)`, `(x, target, where)` or `(x, target, where, weights)`; each entry is a tree of arrays with the
rows on the first axis. These checks come first because nothing inside a compiled step can raise an error. An infinity
would spoil all parameters there, and jax itself silently turns an integer that is too large for 32 bits into another
one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import (
    check_floating,
    check_mask,
    check_weights,
    check_where,
    describe,
    is_floating,
    listed,
    over_leading_axes,
)
from funcnet.data.owned import as_numpy
from funcnet.dtypes import as_jax_has
from funcnet.errors import DataError, DtypeError, LabelError, ShapeError, translated
from funcnet.made import leading
from funcnet.trees import apart, is_leaf, is_padded, is_whole, path_string, values_of
from funcnet.types import Padded, Whole

__all__ = [
    "as_array", "as_trees", "check_batches", "check_data", "check_devices", "check_order", "checked_data", "count_rows",
    "is_arraylike", "named_leaves", "unpacked",
]  # fmt: skip

ENTRIES = ("x", "target", "where", "weights")
_JOIN = "join batches, x, target = map(np.concatenate, zip(*batches)); only the data of fit may be batches"


def check_data(
    x: Any, target: Any = None, where: Any = None, weights: Any = None, *, integers: bool = False
) -> tuple[Any, ...]:
    """The data as training needs them, or an error that says where they are wrong.

    Args:
        x: a tree of arrays (n, …), floating-point numbers.
        target: a tree of arrays (n, …), numbers: class labels, one-hot rows, values. `None` if there is none.
        where, weights: what counts in the loss, and by how much. The shape is that of the loss's values or a leading
            part of it, for example (n,) or (n, time). For a `losses.weighted_sum` it may be a dictionary of such
            arrays, by the names of the parts.
        integers: whether `x` may hold integers and booleans, such as token ids. Otherwise they are refused, because
            images of 8-bit integers must be scaled first.

    A tree in which nothing has a dtype, such as nested lists of numbers, counts as one array.

    What `where` excludes in the target may be anything, for example NaN or an impossible label. NaN in `x` is refused
    everywhere, because a loss multiplies the gradient there by 0, and 0 · NaN is NaN in the backward pass.

    Returns: `(x, target)`, and `where` and `weights` if they are given. Arrays of jax come back as they are, wherever
    they lie. All others become NumPy arrays, contiguous and in native byte order, in the dtype that jax gives them:
    without 64-bit mode, float64 becomes float32 and int64 becomes int32.

    Raises:
        DataError: no rows, different lengths, `x` and `target` in the wrong order, a value that is NaN or infinite, or
            one that its dtype under jax cannot hold (LabelError for an integer target).
        DtypeError: `x` or `target` that are not numbers, or integers in `x`; `where` that is not boolean, or weights
            that are not numbers.
        ShapeError: `where` and `weights` that do not fit each other.

    >>> import numpy as np, funcnet as fn
    >>> x, target = fn.data.check_data(np.ones((3, 2)), np.array([0, 1, 2]))
    >>> x.dtype, target.dtype
    (dtype('float32'), dtype('int32'))
    >>> fn.data.check_data({"a": np.array([[1.0, np.nan]])}, np.array([0]))
    Traceback (most recent call last):
    funcnet.errors.DataError: check_data: x/a[0, 1] is nan; 1 of 1 rows have such values, leave them out or fill them.
    """
    with leading("check_data"):
        return checked_data((x, target, where, weights), integers=integers, way="; token ids need integers=True")


def checked_data(
    data: tuple[Any, ...], *, integers: bool = True, graphs: bool = False, way: str = ""
) -> tuple[Any, ...]:
    """`check_data` of a tuple. With `graphs`, the first axes of the leaves of x may have any lengths. `way` is how the
    caller's caller lets integers pass."""
    data = as_trees(data)
    x, target, where, weights = (*data, None, None)[:4]
    if not integers:
        check_order(x, target)
    count_rows(data, graphs=graphs)
    for name, leaf in named_leaves("x", x):
        _check_numbers(name, leaf, integers, way)
    for name, leaf in named_leaves("target", target):
        if not (is_floating(leaf) or _is_integer(leaf) or leaf.dtype == bool):
            fix = "make classes of texts with data.prepare" if leaf.dtype.kind in "OUT" else "convert it"
            raise DtypeError(f"expected {name} of a numeric dtype, got {leaf.dtype}; {fix}.")
    _check_counting(where, weights)
    x, target = _converted("x", x), _converted("target", target, where)
    return x, target, *(_converted(name, entry) for name, entry in zip(ENTRIES[2:], data[2:], strict=False))


def unpacked(what: str, data: Any) -> tuple[Any, ...]:
    """`(x, target[, where[, weights]])`, given as a tuple or a list."""
    several = isinstance(data, tuple | list)
    batches = several and bool(data) and all(isinstance(entry, tuple) for entry in data)
    if several and 2 <= len(data) <= (2 if batches else 4):
        return tuple(data)
    kind = f"a {type(data).__name__} of {len(data)}" if several else describe(data)
    fix = "put them in this order"
    if (several and len(data) == 1) or is_arraylike(data):
        fix = "without a target write (x, None)"
    elif isinstance(data, Mapping):
        kind = f"a {type(data).__name__} of {listed([*map(repr, data)])}"
        fix = "choose two of them by name, (batch['a'], batch['b'])"
        if what == "each batch":
            fix += ", as the function lambda: ((batch['a'], batch['b']) for batch in data) does"
    elif batches or (what != "each batch" and not several and (isinstance(data, Iterable) or callable(data))):
        fix = _JOIN
    wanted = "(x, target), (x, target, where) or (x, target, where, weights)"
    raise DataError(f"expected {what} to be {wanted}, got {kind}; {fix}.")


def is_arraylike(value: Any) -> bool:
    """Whether it is one array, tensor or frame."""
    return hasattr(value, "dtype") or hasattr(value, "__array__")


def as_trees(data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Each entry as a tree of arrays. `weights` is left out if it is `None`, and `where` if both are."""
    while len(data) > 2 and data[-1] is None:
        data = data[:-1]
    return tuple(_as_tree(name, entry) for name, entry in zip(ENTRIES, data, strict=False))


def _as_tree(what, value):
    if is_padded(value):
        padded = Padded(as_array(what, value.values), as_array(f"{what}.where", value.where))
        check_where(padded.where, padded.values.shape, f"{what}.where")
        return padded
    if is_whole(value):
        return Whole(as_array(what, value.array))
    children, structure = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda node: node is not value)
    if type(value) in (list, tuple) and not any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(value)):
        return as_array(what, value)
    if len(children) == 1 and children[0][1] is value:
        return as_array(what, value)
    entries = [_as_tree(f"{what}/{path_string(path)}", child) for path, child in children]
    return jax.tree.unflatten(structure, entries)


def as_array(what: str, value: Any) -> Any:
    """A jax array as it is, anything else as a NumPy array. It must have at least one axis and one element."""
    if not isinstance(value, jax.Array):
        if np.ma.is_masked(value):  # asarray would use the values under the mask
            raise DataError(f"expected {what} without masked values, got some; leave them out or fill them.")
        # NumPy raises a ValueError for rows of different lengths, and torch the others for tensors with gradients and
        # for dtypes that NumPy lacks.
        problem = f"expected {what} to be an array, got {type(value).__name__}"
        with translated((ValueError, TypeError, RuntimeError), DataError, problem, "give an array of NumPy or jax"):
            value = np.asarray(as_numpy(value))
    if value.size == 0 or value.ndim == 0:
        fix = "" if value.ndim else "; this is a single example, so stack several of them into a batch"
        raise DataError(f"expected {what} with at least one row and no empty axis, got shape {value.shape}{fix}.")
    return value


def named_leaves(what: str, tree: Any) -> list[tuple[str, Any]]:
    """The leaves of an entry, with names such as `x/image/0`. Of a `Padded` or `Whole` they are the values."""
    found = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
    return [("/".join([what, path_string(path)] if path else [what]), values_of(leaf)) for path, leaf in found]


def count_rows(data: tuple[Any, ...], *, graphs: bool = False) -> int:
    """How many rows there are. Each leaf must have the same number, except a `Whole`, which has none.

    With `graphs`, if there is a target, `where` or weights, these have the rows, and the leaves of x may have any first
    lengths.
    """
    x, *others = (named_leaves(name, apart(entry)[0]) for name, entry in zip(ENTRIES, data, strict=False))
    counted = [leaf for entry in others for leaf in entry]
    if not x:
        raise DataError(f"expected x with at least one array, got {describe(data[0])}.")
    if not (graphs and counted):
        counted = x + counted
    (first, one), *rest = counted
    for name, leaf in rest:
        if len(leaf) != len(one):
            fix = "; a list of examples becomes one array by np.stack" if isinstance(data[0], list) else ""
            if graphs and not any(others):
                fix = "; if the leaves of x differ in length, a target or where= must give the number of rows"
            raise DataError(f"expected {first} and {name} of one length, got {len(one)} and {len(leaf)} rows{fix}.")
    return len(one)


def check_devices(data: tuple[Any, ...], **others: Any) -> None:
    """Check that all arrays that are bound to devices are on the same ones, because one program reads them."""
    trees = dict(zip(ENTRIES, data, strict=False)) | others
    bound = {
        str(sorted(leaf.devices(), key=str)): name
        for name, tree in trees.items()
        for leaf in jax.tree.leaves(tree)
        if getattr(leaf, "committed", False)
    }
    if len(bound) > 1:
        got = " and ".join(f"{name} on {devices}" for devices, name in bound.items())
        raise DataError(f"expected all arrays on the same device, got {got}; move one with jax.device_put.")


def check_order(x: Any, target: Any) -> None:
    """DataError if x looks like labels, and the target like the data that they belong to."""
    if not (hasattr(x, "dtype") and hasattr(target, "dtype")):
        return
    if _is_integer(x) and x.ndim == 1 and is_floating(target) and target.ndim > 1:
        raise DataError(f"expected (x, target), got {describe(x)} and {describe(target)}; they look swapped.")


def check_batches(x: Any, target: Any) -> None:
    """DataError if x and target look like two batches. To be asked where the model does not take x."""
    if not (isinstance(x, tuple) and isinstance(target, tuple) and len(x) in (2, 3, 4)):
        return
    kinds = [[(leaf.dtype, leaf.shape[1:]) for leaf in jax.tree.leaves(one)] for one in (x, target)]
    if kinds[0] == kinds[1]:
        raise DataError(f"expected (x, target), got two tuples of {len(x)} that look like batches; {_JOIN}.")


def _check_numbers(name, leaf, integers, way):
    is_integer = _is_integer(leaf) or leaf.dtype == bool
    if not (integers and is_integer):
        fix = f"convert it with x.astype(np.float32) and scale images to [0, 1]{way if is_integer else ''}"
        texts = "make features of the columns of a table with data.read_table and data.prepare"
        check_floating(name, leaf, texts if leaf.dtype.kind in "OUT" and leaf.ndim <= 2 else fix)


def _check_counting(where, weights):
    """Masks must be boolean and weights numbers, each over leading axes of the same values."""
    for name, leaf in named_leaves("where", where):
        check_mask(name, leaf)
    for name, leaf, mask in _with_where("weights", weights, where):
        axes = 0 if mask is None else min(mask.ndim, leaf.ndim)
        if mask is not None and mask.shape[:axes] != leaf.shape[:axes]:
            got = f"{mask.shape} and {leaf.shape}; both must fit the loss's values"
            raise ShapeError(f"expected where and {name} over the same leading axes, got {got}.")
        check_weights(leaf, leaf.shape, mask, what=name)


def _with_where(what, tree, where):
    """`(name, leaf, mask)` of each leaf. A dictionary of masks gives each entry the mask of the same name."""
    if not isinstance(where, dict):
        return [(name, leaf, where) for name, leaf in named_leaves(what, tree)]
    if not isinstance(tree, dict):  # several parts of a loss read it: what one excludes, another may count
        return [(name, leaf, None) for name, leaf in named_leaves(what, tree)]
    found = []
    for key, entry in tree.items():
        found += _with_where(f"{what}/{key}", entry, where.get(key))
    return found


def _converted(what, tree, where=None):
    """Each array in the dtype and layout that jax gives it, with its values checked where they count."""
    masks = {name: mask for name, _, mask in _with_where(what, tree, where)}

    def convert(path, leaf):
        name = "/".join([what, path_string(path)] if path else [what])
        if is_padded(leaf):
            there = [leaf.where] if what == "target" else []
            return Padded(_as_jax_would(name, leaf.values, [*there, masks[name]]), _as_jax_would(name, leaf.where))
        if is_whole(leaf):
            return Whole(_as_jax_would(name, leaf.array))
        return _as_jax_would(name, leaf, [masks[name]])

    return jax.tree_util.tree_map_with_path(convert, tree, is_leaf=is_leaf)


def _as_jax_would(what, array, masks=()):
    """`array` in the dtype and layout that jax gives it. Values that all masks mark must stay the same and finite."""
    converted = array
    if not isinstance(array, jax.Array):
        dtype = as_jax_has(array.dtype)
        if array.dtype != dtype or not array.flags.c_contiguous:
            with np.errstate(over="ignore"):  # an overflow is found below
                converted = np.ascontiguousarray(array, dtype)
    if what.startswith("weights"):  # checked already
        return converted
    if is_floating(array):
        if not (jnp if isinstance(array, jax.Array) else np).isfinite(converted).all():
            _check_where_counted(what, np.asarray(array), ~np.isfinite(np.asarray(converted)), converted.dtype, masks)
    elif array.dtype != converted.dtype and (converted != array).any():
        error = LabelError if what.startswith("target") else DataError
        _check_where_counted(what, array, converted != array, converted.dtype, masks, error)
    return converted


def _check_where_counted(what, array, bad, dtype, masks, error=DataError):
    """Raise an error that names the first `bad` element that counts, if there is one."""
    for mask in masks:
        if mask is not None:
            bad = bad & _over(np.asarray(mask), bad.shape)
    places = np.argwhere(bad)
    if not len(places):
        return
    first = tuple(places[0])
    value = array[first]
    problem = f"{value}" if not np.isfinite(value) else f"{value!s}, which {dtype} cannot hold"
    place, rows = f"{what}[{', '.join(map(str, first))}]", f"{len(np.unique(places[:, 0]))} of {len(array)} rows"
    raise error(f"{place} is {problem}; {rows} have such values, leave them out or fill them.")


def _over(mask, shape):
    """A mask over the axes that it shares with `shape`. With more axes, an element counts if any part of it does."""
    shared = next((i for i, (a, b) in enumerate(zip(mask.shape, shape, strict=False)) if a != b), None)
    shared = min(mask.ndim, len(shape)) if shared is None else shared
    return over_leading_axes(mask.any(tuple(range(shared, mask.ndim))), len(shape))


def _is_integer(array):
    return jnp.issubdtype(array.dtype, jnp.integer)
