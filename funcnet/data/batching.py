"""Which rows a batch has: a pure function of seed and step.

One integer, the step, says where a run stands; nothing else need be saved to go on exactly. An epoch's order is
`default_rng([*seed, epoch]).permutation(n)`, and batch i of it is a slice.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from funcnet.checks import check_count, is_count
from funcnet.data.checks import as_array
from funcnet.errors import ConfigError, DataError

__all__ = ["Batches", "Seed", "batch_rows", "epoch_order", "generator", "steps_per_epoch"]

Seed: TypeAlias = int | tuple[int, ...]  #: the words of a seed, such as `tuple(jax.random.key_data(key).tolist())`


def epoch_order(seed: Seed, epoch: int, n: int) -> np.ndarray:
    """The order of `n` rows in an epoch, (n,) integers.

    Raises:
        ConfigError: `seed` is no non-negative integer or tuple of them.

    >>> import funcnet as fn
    >>> fn.data.epoch_order(0, epoch=1, n=5)
    array([1, 4, 3, 0, 2])
    """
    return generator("epoch_order", seed, epoch).permutation(n)


def steps_per_epoch(n: int, batch_size: int, drop_last: bool = False, *, name: str = "steps_per_epoch") -> int:
    """Batches in an epoch of `n` rows: ⌈n / batch_size⌉, or ⌊n / batch_size⌋ without an incomplete last one.

    Args:
        n, batch_size, drop_last: rows, rows a batch, and whether an incomplete last batch is left out.
        name: what errors begin with.

    Raises:
        ConfigError: `batch_size` is no positive integer.
        DataError: there are no rows, or fewer than `batch_size`.

    >>> import funcnet as fn
    >>> fn.data.steps_per_epoch(10, 4), fn.data.steps_per_epoch(10, 4, drop_last=True)
    (3, 2)
    """
    if n < 1:
        raise DataError(f"{name}: expected at least one row, got {n}.")
    batch_size = check_count(name, "batch_size", batch_size)
    if batch_size > n:
        raise DataError(f"{name}: expected batch_size to be at most {n}, the number of rows, got {batch_size}.")
    return n // batch_size if drop_last else -(-n // batch_size)


def batch_rows(
    seed: Seed, step: int, n: int, batch_size: int, drop_last: bool = False, *, shuffle: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the batch of a step, counted from 0 over all epochs.

    An incomplete last batch is filled up with rows from the start of the epoch's order, so all batches have one shape.

    Args:
        seed, n: as for `epoch_order`.
        batch_size, drop_last: as for `steps_per_epoch`.
        shuffle: `False` for the order 0, 1, 2 … in every epoch.

    Returns: row numbers (batch_size,), and a mask (batch_size,) that is `False` for rows that only fill up.

    Raises:
        ConfigError, DataError: as for the two functions above; ConfigError also for a negative step.

    >>> import funcnet as fn
    >>> fn.data.batch_rows(0, step=2, n=5, batch_size=2, shuffle=False)
    (array([4, 0]), array([ True, False]))
    """
    step = check_count("batch_rows", "step", step, 0)
    epoch, index = divmod(step, steps_per_epoch(n, batch_size, drop_last, name="batch_rows"))
    return _slice(epoch_order(seed, epoch, n) if shuffle else np.arange(n), index, batch_size)


class Batches:
    """Batches of arrays, whose position can be saved and restored.

    Each pass, `for batch in batches`, hands out batches up to the end of its epochs; the next pass goes on with the
    epochs after them. A pass that is broken off, or restored, goes on where it was.

    Args:
        x, target: arrays with n rows.
        batch_size, seed, drop_last, shuffle: as for `batch_rows`.
        epochs: epochs a pass; `None` for no end.

    A batch is `(x, target)`, or `(x, target, where)` if the last batch of an epoch is incomplete: `where` (batch_size,)
    is `False` for rows that only fill up.

    Raises:
        ConfigError, DataError: as for `batch_rows`; DataError also if `x` and `target` differ in length.

    >>> import numpy as np, funcnet as fn
    >>> batches = fn.data.Batches(np.arange(5.0), np.arange(5), 2, shuffle=False)
    >>> [where.tolist() for x, target, where in batches]
    [[True, True], [True, True], [True, False]]
    >>> batches.get_state()
    {'step': 3}
    """

    def __init__(
        self,
        x: Any,
        target: Any,
        batch_size: int,
        *,
        epochs: int | None = 1,
        seed: Seed = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ):
        self._x, self._target = as_array("Batches", "x", x), as_array("Batches", "target", target)
        if len(self._x) != len(self._target):
            raise DataError(
                f"Batches: expected x and target of one length, got {len(self._x)} and {len(self._target)} rows."
            )
        if epochs is not None:
            check_count("Batches", "epochs", epochs)
        generator("Batches", seed)
        self._epoch_steps = steps_per_epoch(len(self._x), batch_size, drop_last, name="Batches")
        self._masked = self._epoch_steps * batch_size > len(self._x)
        self._batch_size, self._epochs, self._seed, self._shuffle = batch_size, epochs, seed, shuffle
        self._step = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        pass_steps = math.inf if self._epochs is None else self._epochs * self._epoch_steps
        end = (self._step // pass_steps + 1) * pass_steps
        order, order_epoch = np.arange(len(self._x)), None
        while self._step < end:
            epoch, index = divmod(self._step, self._epoch_steps)
            if self._shuffle and epoch != order_epoch:
                order, order_epoch = epoch_order(self._seed, epoch, len(self._x)), epoch
            rows, where = _slice(order, index, self._batch_size)
            self._step += 1
            batch = (self._x[rows], self._target[rows])
            yield (*batch, where) if self._masked else batch

    def get_state(self) -> dict[str, int]:
        """How many batches were handed out."""
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Go on from a state of `get_state`, of an object made with the same arguments.

        Raises:
            ConfigError: no such state.
        """
        if not isinstance(state, dict) or set(state) != {"step"}:
            raise ConfigError(f"Batches.set_state: expected {{'step': integer}}, got {state!r}.")
        self._step = check_count("Batches.set_state", "step", state["step"], 0)


def generator(name: str, seed: Seed, *more: int) -> np.random.Generator:
    """NumPy's generator for the words of a seed and more; errors begin with `name`."""
    words = seed if isinstance(seed, tuple) else (seed,)
    if not words or not all(is_count(word, 0) for word in words):
        raise ConfigError(f"{name}: expected seed to be a non-negative integer or a tuple of them, got {seed!r}.")
    return np.random.default_rng([*words, *more])


def _slice(order, index, batch_size):
    places = np.arange(index * batch_size, (index + 1) * batch_size)
    return order[places % len(order)], places < len(order)
