"""Pytrees and the paths of their leaves: `2/kernel` is the leaf `kernel` of the third layer of a `serial`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from funcnet.errors import StructureError
from funcnet.types import Array

__all__ = [
    "check_same_structure", "flatten_with_paths", "global_norm", "map_with_paths", "on_host", "path_string",
    "spread", "total_bytes", "total_size", "zeros_like",
]  # fmt: skip


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


def on_host(tree: Any) -> Any:
    """The arrays as NumPy's. Where parts lie with other processes, all processes must call this together.

    >>> on_host({"kernel": jnp.ones(2)})
    {'kernel': array([1., 1.], dtype=float32)}
    """

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


def spread(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array that every process has, over several of them: each puts its own parts onto its own devices.

    >>> spread(np.ones(2, np.float32), jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    Array([1., 1.], dtype=float32)
    """
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(spread(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def zeros_like(tree: Any) -> Any:
    """A tree of zeros: new buffers each time, because two fields of a donated state must not share one.

    >>> zeros_like({"kernel": jnp.ones(2)})
    {'kernel': Array([0., 0.], dtype=float32)}
    """
    return jax.tree.map(jnp.zeros_like, tree)


def global_norm(tree: Any) -> Array:
    """The Euclidean norm of all leaves together, √(Σ x²).

    It is computed in JAX's default float dtype, whatever the leaves' own: 300² is infinite in float16.

    >>> global_norm({"kernel": jnp.array([[3.0]]), "bias": jnp.array([4.0])})
    Array(5., dtype=float32)
    """
    dtype = jnp.result_type(float)
    squares = [jnp.sum(jnp.square(jnp.asarray(leaf, dtype))) for leaf in jax.tree.leaves(tree)]
    total = sum(squares, jnp.zeros((), dtype))
    # √ is infinitely steep at 0, where autodiff would make NaN of it: the norm of zeros is 0, and so is its gradient.
    zero = total == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, total)))


def total_size(tree: Any) -> int:
    """Numbers in all leaves together.

    >>> total_size({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)})
    8
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def total_bytes(tree: Any) -> int:
    """Bytes of all leaves together; works on `jax.ShapeDtypeStruct` too.

    >>> total_bytes({"kernel": jax.ShapeDtypeStruct((3, 2), jnp.bfloat16)})
    12
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_same_structure(name: str, expected_name: str, expected: Any, given_name: str, given: Any) -> None:
    """Raise `StructureError` unless both trees have the same leaves with the same shapes.

    The message lists leaves by path: missing, unexpected, mis-shaped.

    >>> check_same_structure("mine", "params", {"kernel": jnp.ones(2)}, "grads", {"kernel": jnp.ones(3)})
    Traceback (most recent call last):
    funcnet.errors.StructureError: mine: grads do not fit params: kernel has shape (3,), expected (2,).
    """
    want, got = dict(flatten_with_paths(expected)), dict(flatten_with_paths(given))
    problems = [f"{path} is missing" for path in want if path not in got]
    problems += [f"{path} is unexpected" for path in got if path not in want]
    problems += [
        f"{path} has shape {jnp.shape(got[path])}, expected {jnp.shape(want[path])}"
        for path in want
        if path in got and jnp.shape(got[path]) != jnp.shape(want[path])
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise StructureError(f"{name}: {given_name} do not fit {expected_name}: {shown}.")
    if jax.tree.structure(expected) != jax.tree.structure(given):
        raise StructureError(
            f"{name}: {given_name} do not fit {expected_name}: expected the tree {jax.tree.structure(expected)}, "
            f"got {jax.tree.structure(given)}."
        )
