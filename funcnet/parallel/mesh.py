"""The mesh: the devices of a run in a grid whose axes have names."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from funcnet.checks import describe, is_count
from funcnet.errors import ConfigError

__all__ = ["axis_size", "mesh"]


def mesh(*, data: int = -1, devices: Sequence[Any] | None = None, **axes: int) -> Mesh:
    """The devices in a grid. `mesh()` divides the rows of a batch among all, `mesh(data=2, model=2)` among pairs.

    Args:
        data: how many parts a batch is divided into; −1 for all the devices that the other axes leave.
        devices: those of the grid; by default `jax.devices()`, the devices of all processes.
        axes: name -> size of further axes, over which parameters may be split. One size of all may be −1.

    Returns:
        A mesh with axes of type `Auto`: the compiler adds the communication that the places of the arrays need.

    Raises:
        ConfigError: a size is not a positive integer, more than one is −1, or the sizes do not use up the devices.

    >>> import funcnet as fn
    >>> dict(fn.parallel.mesh(data=1, model=-1).shape)
    {'data': 1, 'model': 1}
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = {"data": data, **axes}
    call = f"mesh({', '.join(f'{name}={size!r}' for name, size in sizes.items())})"
    for name, size in sizes.items():
        if not (is_count(size) or (is_count(size, -1) and size == -1)):
            raise ConfigError(f"{call}: expected {name} to be a positive integer, or -1, got {describe(size)}.")
    rest = [name for name, size in sizes.items() if size == -1]
    if len(rest) > 1:
        raise ConfigError(f"{call}: expected one axis of -1 at most, got {' and '.join(rest)}; give one a size.")
    known = math.prod(size for size in sizes.values() if size != -1)
    _check_product(call, known, rest, len(devices))
    sizes |= {name: len(devices) // known for name in rest}
    kinds = (AxisType.Auto,) * len(sizes)  # jax's own default differs between make_mesh and Mesh
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds, devices=devices)


def _check_product(call, known, rest, count):
    if rest and count % known:
        raise ConfigError(f"{call}: expected sizes whose product divides the {count} devices, got {known}; change one.")
    if not rest and known != count:
        fewer = f", or leave devices out with devices=jax.devices()[:{known}]" if known < count else ""
        fix = f"give one axis the size -1, which takes the rest{fewer}"
        raise ConfigError(f"{call}: expected sizes whose product is the {count} devices, got {known}; {fix}.")


def axis_size(call: str, mesh: Any, axis: str) -> int:
    """How many devices lie along an axis; ConfigError if the mesh has no such axis."""
    if axis not in mesh.shape:
        names = ", ".join(f'"{name}"' for name in mesh.shape)
        raise ConfigError(f'{call}: expected an axis of the mesh, which has {names}, got "{axis}".')
    return mesh.shape[axis]
