"""Arrays on a mesh: the train state by its rules, batches by their rows."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from funcnet.errors import ShapeError
from funcnet.made import leading
from funcnet.parallel.mesh import axis_size
from funcnet.parallel.rules import Rules, specs
from funcnet.trees import apart, equal_rows, flatten_with_paths, is_whole, map_with_paths, spread, together
from funcnet.types import Key, TrainState, Whole

__all__ = ["check_rows", "global_batch", "init_state", "place", "place_rows", "place_whole", "shardings"]


def shardings(tree: Any, mesh: Mesh, rules: Rules) -> Any:
    """A tree like `tree` of the sharding of each leaf.

    Args:
        tree: a `TrainState`, an optimizer's state, or parameters; of arrays or `jax.ShapeDtypeStruct`.
        mesh: of `parallel.mesh`.
        rules: for the parameters. An optimizer's slots follow their parameter: `optimizer/mu/2/kernel` lies as
            `2/kernel` does, because its path ends with the parameter's path and its shape is the same. Everything else,
            such as counters, keys and the statistics of norms, is whole on every device.

    Raises:
        ConfigError: the rules do not fit the parameters or the mesh.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> mesh, rules = fn.parallel.mesh(), [(".*", fn.parallel.fsdp(min_bytes=0))]
    >>> state = fn.optimizers.adam(0.1).init({"kernel": jnp.zeros((8, 4))})
    >>> lies = fn.parallel.shardings(state, mesh, rules)
    >>> lies.mu["kernel"].spec, lies.step.spec
    (P('data',), P())
    """
    optimizer, prefix = (tree.optimizer, "optimizer/") if isinstance(tree, TrainState) else (tree, "")
    params = getattr(optimizer, "params", optimizer)
    by_path = dict(flatten_with_paths(specs(params, mesh, rules)))
    shapes = {path: leaf.shape for path, leaf in flatten_with_paths(params)}

    def sharding(path, leaf):
        parts = path.split("/") if path.startswith(prefix) else []
        suffixes = ("/".join(parts[i:]) for i in range(len(parts) + 1))
        owner = next((suffix for suffix in suffixes if shapes.get(suffix) == leaf.shape), None)
        return NamedSharding(mesh, PartitionSpec() if owner is None else by_path[owner])

    return map_with_paths(sharding, tree)


def init_state(init: Callable[[Key], Any], key: Key, mesh: Mesh, rules: Rules) -> Any:
    """`init(key)`, made in its final place, so that no device ever holds more than its part.

    Args:
        init: `key -> state`, a pure function, such as `lambda key: training.create_state(model, optimizer, key, x)`.
        key: a PRNG key.
        mesh, rules: as for `shardings`.

    The state is bit for bit the one that a single device makes.

    Raises: as `shardings`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, optimizer = fn.layers.dense(4), fn.optimizers.adam(0.1)
    >>> x = jax.ShapeDtypeStruct((1, 8), jnp.float32)
    >>> state = fn.parallel.init_state(
    ...     lambda key: fn.training.create_state(model, optimizer, key, x), jax.random.key(0),
    ...     fn.parallel.mesh(), [(".*", fn.parallel.fsdp(min_bytes=0))])
    >>> state.optimizer.params["kernel"].sharding.spec
    P('data',)
    """
    lies = shardings(jax.eval_shape(init, key), mesh, rules)
    return jax.jit(init, out_shardings=lies)(key)


def place(tree: Any, lies: Any) -> Any:
    """Each leaf in its sharding. Inside `jit` this is a constraint. Outside, it copies leaves that lie elsewhere."""

    def put(leaf, sharding):
        if isinstance(leaf, Tracer):
            return jax.lax.with_sharding_constraint(leaf, sharding)
        if getattr(leaf, "sharding", None) == sharding:
            return leaf
        if not sharding.is_fully_addressable and getattr(leaf, "is_fully_addressable", True):
            return spread(leaf, sharding)
        # If a shard shared the original array's buffer, a step that donates the shard would delete that array too.
        return jax.device_put(leaf, sharding, may_alias=False)

    return jax.tree.map(put, tree, lies)


def place_whole(tree: Any, mesh: Mesh) -> Any:
    """Every array whole on every device of the mesh; each process gives all of it."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def put(array):
        if isinstance(array, jax.Array) or _is_local(mesh):
            return place(array, everywhere)
        return jax.make_array_from_process_local_data(everywhere, np.asarray(array))

    return jax.tree.map(put, tree)


def _is_local(mesh):
    return all(device.process_index == jax.process_index() for device in mesh.devices.flat)


def place_rows(call: str, tree: Any, mesh: Mesh, data: str) -> Any:
    """Every array with its rows divided along the axis `data`, and a `Whole` on every device."""
    parts = axis_size(call, mesh, data)
    _check_leaves(call, tree, parts, data)
    rows = NamedSharding(mesh, PartitionSpec(data))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return place(tree, jax.tree.map(lambda leaf: Whole(everywhere) if is_whole(leaf) else rows, tree, is_leaf=is_whole))


def global_batch(local_rows: Any, mesh: Mesh, *, data: str = "data") -> Any:
    """One batch over the whole mesh from the rows that each process has.

    Each of P processes gives n rows. Its own devices hold them, so nothing is sent. The rows follow one another in the
    order of the mesh, which is that of the processes.

    Args:
        local_rows: a tree of arrays (n, …) on the host, for example `(x, target)`.
        mesh: of `parallel.mesh`.
        data: the axis over which the rows are divided.

    Returns:
        A tree of global arrays (P n, …).

    Raises:
        ShapeError: the arrays do not have the same number of rows, or the process's devices cannot share these evenly.

    >>> import numpy as np, funcnet as fn
    >>> x = fn.parallel.global_batch(np.ones((4, 3), np.float32), fn.parallel.mesh())
    >>> x.shape, x.sharding.spec
    ((4, 3), P('data',))
    """
    axis_size("global_batch", mesh, data)
    here = np.vectorize(lambda device: device.process_index == jax.process_index())(mesh.devices)
    parts = len(set(np.nonzero(here)[mesh.axis_names.index(data)]))
    _check_leaves("global_batch", local_rows, parts, data)
    rows = NamedSharding(mesh, PartitionSpec(data))
    with_rows, whole = apart(local_rows)
    made = jax.tree.map(lambda array: jax.make_array_from_process_local_data(rows, np.asarray(array)), with_rows)
    return together(made, place_whole(whole, mesh))


def _check_leaves(call, tree, parts, data):
    """Check that all leaves have the same number of rows, and that these can be divided."""
    with leading(call):
        rows = equal_rows(tree, "batches of graphs run on one device")
    check_rows(call, "rows", rows, parts, data)


def check_rows(call: str, what: str, count: int, parts: int, data: str) -> None:
    """ShapeError unless `count` rows can be divided evenly."""
    if count % parts or not count:
        below = count // parts * parts
        nearest = f"{below} or {below + parts}" if below else f"{parts}"
        wanted = f'a multiple of the {parts} devices along "{data}"'
        with leading(call):
            raise ShapeError(f"expected {what} to be {wanted}, got {count}; nearest: {nearest}.")
