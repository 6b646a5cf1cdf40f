"""Which rows a batch has: a pure function of seed and step.

One integer, the step, is the position of a run. Nothing else has to be saved to continue exactly. An epoch's order is
`default_rng([*seed, epoch]).permutation(n)`, and batch i is a slice of it.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from funcnet.checks import check_count, is_count, over_leading_axes
from funcnet.data.checks import as_trees, count_rows
from funcnet.errors import ConfigError, DataError
from funcnet.made import leading
from funcnet.trees import map_rows

__all__ = ["Batches", "Seed", "batch_rows", "count_steps", "epoch_order", "generator", "masked", "steps_per_epoch"]

Seed: TypeAlias = int | tuple[int, ...]  #: the words of a seed, such as `tuple(jax.random.key_data(key).tolist())`


def epoch_order(seed: Seed, epoch: int, n: int) -> np.ndarray:
    """The order of `n` rows in an epoch, (n,) integers.

    Raises:
        ConfigError: `seed` is not a non-negative integer or a tuple of them.

    >>> import funcnet as fn
    >>> fn.data.epoch_order(0, epoch=1, n=5)
    array([1, 4, 3, 0, 2])
    """
    with leading("epoch_order"):
        return generator(seed, epoch).permutation(n)


def steps_per_epoch(n: int, batch_size: int, drop_last: bool = False) -> int:
    """Batches in an epoch of `n` rows: ⌈n / batch_size⌉, or ⌊n / batch_size⌋ without an incomplete last one.

    Args:
        n, batch_size, drop_last: rows, rows per batch, and whether an incomplete last batch is left out.

    Raises:
        ConfigError: `batch_size` is not a positive integer.
        DataError: there are no rows, or fewer than `batch_size`.

    >>> import funcnet as fn
    >>> fn.data.steps_per_epoch(10, 4), fn.data.steps_per_epoch(10, 4, drop_last=True)
    (3, 2)
    """
    with leading("steps_per_epoch"):
        return count_steps(n, batch_size, drop_last)


def count_steps(n: int, batch_size: int, drop_last: bool) -> int:
    """Like `steps_per_epoch`, but its errors begin with the function that calls it."""
    if n < 1:
        raise DataError(f"expected at least one row, got {n}.")
    batch_size = check_count("batch_size", batch_size)
    if batch_size > n:
        raise DataError(f"expected batch_size to be at most {n}, the number of rows, got {batch_size}.")
    return n // batch_size if drop_last else -(-n // batch_size)


def batch_rows(
    seed: Seed, step: int, n: int, batch_size: int, drop_last: bool = False, *, shuffle: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the batch of a step. Steps count from 0 over all epochs.

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
    with leading("batch_rows"):
        step = check_count("step", step, 0)
        epoch, index = divmod(step, count_steps(n, batch_size, drop_last))
        order = generator(seed, epoch).permutation(n) if shuffle else np.arange(n)
    return _slice(order, index, batch_size)


def masked(where: Any, mask: Any, parts: Any = None) -> Any:
    """`where`, with only the rows in `mask` counting. Both may be `None`.

    A dictionary gets an entry for each of the `parts` of a `losses.weighted_sum`. A part that it leaves out counts all
    rows in `mask`.

    >>> import numpy as np
    >>> masked(np.array([[True, False], [True, True]]), np.array([True, False])).tolist()
    [[True, False], [False, False]]
    """
    if mask is None or where is None:
        return mask if where is None else where
    if isinstance(where, dict):
        within = {name: getattr(loss, "parts", None) for name, (_, loss) in (parts or {}).items()}
        return {name: masked(where.get(name), mask, within.get(name)) for name in within | where}
    return over_leading_axes(mask, where.ndim) & where


class Batches:
    """Batches of arrays, whose position can be saved and restored.

    Each pass, `for batch in batches`, hands out batches up to the end of its epochs. The next pass continues with the
    epochs after them. If a pass is broken off, or a position is restored, the next pass continues from there.

    Args:
        x, target: trees of arrays with n rows; the target may be `None`. They are not copied, so that a `numpy.memmap`
            may be larger than memory. What is written to them appears in later batches.
        batch_size, seed, drop_last, shuffle: as for `batch_rows`.
        where, weights: what counts in the loss, and by how much, with n rows too.
        epochs: epochs per pass; `None` for no end.

    A batch is `(x, target)`, followed by the rows of `where` and `weights` if they are given. If the last batch of an
    epoch is incomplete, all batches have a `where`. It is `False` for rows that only fill up. If no `where` was given,
    its shape is (batch_size,).

    Raises:
        ConfigError, DataError: as for `batch_rows`; DataError also for arrays of different lengths, ConfigError also
            for a dictionary as `where` with an incomplete last batch.

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
        where: Any = None,
        weights: Any = None,
        epochs: int | None = 1,
        seed: Seed = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ):
        with leading("Batches"):
            self._data = as_trees((x, target, where, weights))
            self._rows = count_rows(self._data)
            if epochs is not None:
                check_count("epochs", epochs)
            generator(seed)
            self._epoch_steps = count_steps(self._rows, batch_size, drop_last)
            self._masked = self._epoch_steps * batch_size > self._rows
            if self._masked and isinstance(where, dict):
                got = f"{batch_size} for {self._rows} rows; take another, set drop_last=True, or pass the arrays to fit"
                raise ConfigError(f"expected batch_size to divide the rows if where is a dictionary, got {got}.")
        self._batch_size, self._epochs, self._seed, self._shuffle = batch_size, epochs, seed, shuffle
        self._step = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        pass_steps = math.inf if self._epochs is None else self._epochs * self._epoch_steps
        end = (self._step // pass_steps + 1) * pass_steps
        order, order_epoch = np.arange(self._rows), None
        while self._step < end:
            epoch, index = divmod(self._step, self._epoch_steps)
            if self._shuffle and epoch != order_epoch:
                order, order_epoch = epoch_order(self._seed, epoch, self._rows), epoch
            rows, mask = _slice(order, index, self._batch_size)
            self._step += 1
            x, target, *rest = map_rows(lambda leaf, rows=rows: leaf[rows], self._data)
            if self._masked:
                rest = [masked(rest[0] if rest else None, mask), *rest[1:]]
            yield (x, target, *rest)

    def get_state(self) -> dict[str, int]:
        """How many batches were handed out."""
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Continue from a state of `get_state`, from an object that was made with the same arguments.

        Raises:
            ConfigError: `state` is not such a state.
        """
        if not isinstance(state, dict) or set(state) != {"step"}:
            raise ConfigError(f"Batches.set_state: expected {{'step': integer}}, got {state!r}.")
        with leading("Batches.set_state"):
            self._step = check_count("step", state["step"], 0)


def generator(seed: Seed, *more: int) -> np.random.Generator:
    """NumPy's generator for the words of a seed and further words."""
    words = seed if isinstance(seed, tuple) else (seed,)
    if not words or not all(is_count(word, 0) for word in words):
        raise ConfigError(f"expected seed to be a non-negative integer or a tuple of them, got {seed!r}.")
    return np.random.default_rng([*words, *more])


def _slice(order, index, batch_size):
    places = np.arange(index * batch_size, (index + 1) * batch_size)
    return order[places % len(order)], places < len(order)
