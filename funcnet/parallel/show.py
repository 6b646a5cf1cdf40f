"""Where arrays lie, in words and pictures."""

import math
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, Sharding

from funcnet.parallel.rules import spell_spec
from funcnet.rendering import text_table
from funcnet.trees import flatten_with_paths

__all__ = ["Place", "Placement", "show"]


class Place(NamedTuple):
    """Where one leaf lies."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    sharding: Sharding
    shard: tuple[int, ...]  #: the shape of what one device holds
    bytes: int  #: of the whole leaf
    device_bytes: int  #: of what one device holds

    @property
    def spec(self) -> str:
        """`"P('data')"`, or `"one device"`."""
        return spell_spec(self.sharding.spec) if isinstance(self.sharding, NamedSharding) else "one device"


class Placement(NamedTuple):
    """Where the leaves of a tree lie. `str(placement)` is a table, with a picture of each way in which leaves lie."""

    places: tuple[Place, ...]

    @property
    def bytes(self) -> int:
        """The bytes of all leaves, each counted once."""
        return sum(place.bytes for place in self.places)

    @property
    def device_bytes(self) -> int:
        """The bytes that each device holds."""
        return sum(place.device_bytes for place in self.places)

    def __str__(self) -> str:
        head = ("leaf", "shape", "dtype", "spec", "shard", "bytes", "bytes per device")
        body = [
            (p.path, str(p.shape), p.dtype, p.spec, str(p.shard), f"{p.bytes:,}", f"{p.device_bytes:,}")
            for p in self.places
        ]
        total = ("total", "", "", "", "", f"{self.bytes:,}", f"{self.device_bytes:,}")
        return "\n\n".join([text_table([head, *body, total], right=2, total=True), *self._pictures()])

    def _pictures(self) -> list[str]:
        groups: dict[Any, list[Place]] = {}
        for place in self.places:
            groups.setdefault((place.spec, str(place.sharding)), []).append(place)
        return [_picture(members[0], len(members) - 1) for members in groups.values()]


def show(tree: Any, shardings: Any = None) -> Placement:
    """Where each leaf of a tree lies: its spec, the shape and bytes of a device's shard, and which device has which.

    Args:
        tree: of arrays, or with `shardings` of anything that has a shape and a dtype.
        shardings: a tree like it, for example `parallel.shardings(tree, mesh, rules)`, to see a layout before any array
            is made. By default those of the arrays.

    Returns:
        A `Placement`; print it. In the pictures the columns are the last dimension of a leaf, and the numbers in a
        block are those of the devices that hold it.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> mesh, params = fn.parallel.mesh(), {"kernel": jnp.zeros((8, 4))}
    >>> print(fn.parallel.show(params, fn.parallel.shardings(params, mesh, [(".*", fn.parallel.fsdp(min_bytes=0))])))
    leaf    shape   dtype    spec       shard   bytes  bytes per device
    -------------------------------------------------------------------
    kernel  (8, 4)  float32  P('data')  (8, 4)    128               128
    -------------------------------------------------------------------
    total                                         128               128
    <BLANKLINE>
    P('data') on a mesh of data 1: kernel
    +---+
    | 0 |
    +---+
    """
    lies = [leaf.sharding for leaf in jax.tree.leaves(tree)] if shardings is None else jax.tree.leaves(shardings)
    named = flatten_with_paths(tree)
    return Placement(tuple(_place(path, leaf, sharding) for (path, leaf), sharding in zip(named, lies, strict=True)))


def _place(path, leaf, sharding):
    shard, item = sharding.shard_shape(leaf.shape), leaf.dtype.itemsize
    return Place(path, leaf.shape, str(leaf.dtype), sharding, shard, leaf.size * item, math.prod(shard) * item)


def _picture(place, others):
    """A grid of blocks with the numbers of the devices that hold each."""
    starts = {
        device.id: tuple(part.start or 0 for part in index)
        for device, index in place.sharding.devices_indices_map(place.shape).items()
    }
    last = len(place.shape) - 1
    blocks: dict[tuple[Any, Any], list[str]] = {}
    for device, start in starts.items():
        blocks.setdefault((start[:last], start[last:]) if start else ((), ()), []).append(str(device))
    rows, columns = (sorted({block[i] for block in blocks}) for i in (0, 1))
    cells = [[" ".join(sorted(blocks[row, column], key=int)) for column in columns] for row in rows]
    width = max(len(cell) for row in cells for cell in row)
    rule = "+" + "+".join("-" * (width + 2) for _ in columns) + "+"
    lines = ["| " + " | ".join(f"{cell:^{width}}" for cell in row) + " |" for row in cells]
    grid = [rule, *(line for row in lines for line in (row, rule))]
    more = f" and {others} more" if others else ""
    return "\n".join([f"{place.spec}{_mesh_words(place.sharding)}: {place.path}{more}", *grid])


def _mesh_words(sharding):
    if not isinstance(sharding, NamedSharding):
        return ""
    return " on a mesh of " + " × ".join(f"{name} {size}" for name, size in sharding.mesh.shape.items())
