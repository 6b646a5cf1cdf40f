"""Memory in which copies of batches lie side by side, so that several of them are one array without another copy."""

import itertools
import math
from typing import Any

import jax
import numpy as np

from funcnet.data.owned import own_batch

__all__ = ["Room"]

#: Where memory begins at a multiple of so many bytes, jax on a CPU takes it without a copy.
ALIGNMENT = 64


class Room:
    """Room for a number of batches.

    >>> room = Room(2)
    >>> room.stacked([room.own(np.full(3, i)) for i in range(2)])
    array([[0, 0, 0],
           [1, 1, 1]])
    """

    def __init__(self, batches: int):
        self.batches = batches
        self._arrays: dict[int, np.ndarray] = {}  #: by the number of the leaf, (batches, *shape)
        self._used = 0

    def own(self, batch: Any) -> Any:
        """A copy of the batch. Its arrays of NumPy lie in this memory if they are like those of the first batch."""
        number = itertools.count()
        owned = own_batch(batch, lambda array: self._copied(array, next(number)))
        self._used += 1
        return owned

    def stacked(self, batches: list[Any]) -> Any:
        """The batches along a new first axis. What follows them until the room is full has no meaning."""
        return jax.tree.map(lambda *leaves: self._stacked(leaves), *batches)

    def _copied(self, array, number):
        plain = type(array) is np.ndarray and not array.dtype.hasobject
        if plain and self._used == 0:
            self._arrays[number] = _empty((self.batches, *array.shape), array.dtype)
        whole = self._arrays.get(number)
        if not plain or whole is None or self._used >= len(whole) or not _alike(array, whole[self._used]):
            return array.copy()
        whole[self._used] = array
        return whole[self._used]

    def _stacked(self, leaves):
        for whole in self._arrays.values():
            if all(map(_same, leaves, whole)):
                return whole
        return np.stack((*leaves, *leaves[:1] * (self.batches - len(leaves))))


def _empty(shape, dtype):
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _alike(a, b):
    return (a.shape, a.dtype) == (b.shape, b.dtype)


def _same(a, b):
    return _alike(a, b) and a.__array_interface__["data"] == b.__array_interface__["data"]
