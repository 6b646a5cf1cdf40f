"""Where the loop's batches come from: arrays on the device, or an iterable of batches."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import jax
import numpy as np

from funcnet.checks import describe
from funcnet.data import epoch_order, steps_per_epoch
from funcnet.errors import ConfigError, DataError
from funcnet.training.loop import Chunk

__all__ = ["ArrayFeed", "IteratorFeed"]


class ArrayFeed:
    """Batches of rows of arrays that lie on the device; their order is a pure function of (key, step)."""

    def __init__(self, data, batch_size, epochs, *, key, shuffle, drop_last, report_steps):
        x, target = data
        self.rows = len(x)
        self.batch_size = int(batch_size or self.rows)
        self.epoch_steps = steps_per_epoch(self.rows, self.batch_size, drop_last)
        self.masked = self.epoch_steps * self.batch_size > self.rows
        self.report_steps = int(report_steps or self.epoch_steps)
        self.steps = epochs * self.epoch_steps
        self.seed = tuple(int(word) for word in np.ravel(jax.random.key_data(key)))
        self.shuffle = shuffle
        self.most_steps = min(self.report_steps, 1024)
        self.x, self.target = jax.device_put((x, target))

    def check_unfinished(self, step) -> None:
        if step >= self.steps:
            raise ConfigError(
                f"fit: expected epochs above {step // self.epoch_steps}, those that state has done, got "
                f"{self.steps // self.epoch_steps}; epochs counts them too."
            )

    def chunks(self, step, pace, check) -> Iterator[Chunk]:
        """Chunks from `step` to the end, none longer than `pace.limit` or across a report."""
        del check  # all targets were looked at before
        while step < self.steps:
            due = min(step - step % self.report_steps + self.report_steps, self.steps)
            count = min(due - step, self.most_steps, pace.limit)
            rows, where = self._batches(step, count)
            step += count
            epoch = -(-step // self.epoch_steps)
            yield Chunk(self.x, self.target, rows, where, count, epoch, reports=step == due)

    def _batches(self, step, count):
        """Row numbers of the next `count` batches and their mask; what lies behind them is zero, and not read."""
        rows = np.zeros((self.most_steps, self.batch_size), np.int32)
        where = np.zeros((self.most_steps, self.batch_size), bool) if self.masked else None
        done = 0
        while done < count:
            epoch, first = divmod(step + done, self.epoch_steps)
            last = min(first + count - done, self.epoch_steps)
            epoch_rows, epoch_where = self._epoch(epoch)
            rows[done : done + last - first] = epoch_rows[first:last]
            if where is not None:
                where[done : done + last - first] = epoch_where[first:last]
            done += last - first
        return rows, where

    def _epoch(self, epoch):
        """Row numbers and mask of a whole epoch, (steps, batch); an incomplete last batch is filled from the start."""
        order = epoch_order(self.seed, epoch, self.rows) if self.shuffle else np.arange(self.rows)
        shape = (self.epoch_steps, self.batch_size)
        size = self.epoch_steps * self.batch_size
        return np.resize(order, size).reshape(shape), (np.arange(size) < self.rows).reshape(shape)


class IteratorFeed:
    """Batches of an iterable, stacked on the host, eight at a time; each pass is an epoch."""

    most_steps = 8

    def __init__(self, batches, checked, epochs, *, report_steps):
        if not isinstance(batches, Iterable):
            raise DataError(f"fit: expected data to be (x, target) or an iterable of batches, got {describe(batches)}.")
        self.batches, self.checked, self.epochs, self.report_steps = batches, checked, epochs, report_steps
        source = iter(batches)
        first = next(source, None)
        if first is None:
            raise DataError("fit: expected at least one batch, got an iterable without any.")
        self.first_pass = chain([first], source)
        self.shapes: Any = None
        first = self._checked(first)
        self.x, self.target = first[:2]
        self.masked = len(first) == 3
        self.batch_size = len(self.x)

    def check_unfinished(self, step) -> None:
        """An iterable has no end that could be known before."""

    def chunks(self, step, pace, check) -> Iterator[Chunk]:
        """Chunks of at most eight batches, none across a report or the end of a pass."""
        del pace
        for epoch in range(1, self.epochs + 1):
            batches = _with_last(self.first_pass if epoch == 1 else self._next_pass(epoch))
            group = []
            for batch, last in batches:
                group.append(self._checked(batch, check))
                reports = last if self.report_steps is None else (step + len(group)) % self.report_steps == 0
                reports = reports or (last and epoch == self.epochs)
                if len(group) == self.most_steps or reports or last:
                    yield self._stacked(group, epoch, reports)
                    step += len(group)
                    group = []

    def _next_pass(self, epoch):
        source = iter(self.batches)
        first = next(source, None)
        if first is None:
            raise DataError(
                f"fit: expected {self.epochs} passes over the batches, but they ended before pass {epoch}; "
                "give an iterable that can be iterated again (a list, or an object whose __iter__ starts anew)."
            )
        return chain([first], source)

    def _checked(self, batch, check=None):
        """The batch as NumPy arrays of the first batch's shapes and dtypes."""
        if not isinstance(batch, tuple) or len(batch) not in (2, 3):
            raise DataError(
                f"fit: expected each batch to be a tuple (x, target) or (x, target, where), got {describe(batch)}."
            )
        x, target = self.checked(batch[:2])
        batch = (np.asarray(x), np.asarray(target), *(np.asarray(where) for where in batch[2:]))
        shapes = [(array.shape, array.dtype) for array in batch]
        self.shapes = self.shapes or shapes
        if shapes != self.shapes:
            raise DataError(
                f"fit: expected all batches of the shapes and dtypes of the first one, {self.shapes}, got {shapes}; "
                "pad the last batch and mark its rows with a third entry, or leave it out."
            )
        if check is not None:
            check(x, target)
        return batch

    def _stacked(self, group, epoch, reports):
        most, size = self.most_steps, self.batch_size
        rows = np.arange(most * size, dtype=np.int32).reshape(most, size)
        filled = group + group[:1] * (most - len(group))  # one shape, one program; the filling is not read
        x, target, *where = (np.concatenate(arrays) for arrays in zip(*filled, strict=True))
        mask = where[0].reshape(most, size) if where else None
        return Chunk(x, target, rows, mask, len(group), epoch, reports)


def _with_last(items):
    """`(item, whether it is the last)`."""
    items = iter(items)
    item = next(items)
    for following in items:
        yield item, False
        item = following
    yield item, True
