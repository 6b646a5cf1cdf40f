"""Where the loop's batches come from: arrays on the device, or an iterable of batches."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from funcnet.checks import check_count, describe
from funcnet.data import epoch_order, steps_per_epoch
from funcnet.data.passes import Pass
from funcnet.errors import ConfigError, DataError
from funcnet.training.loop import Chunk

__all__ = ["ArrayFeed", "IteratorFeed"]


class ArrayFeed:
    """Batches of rows of arrays that lie on the device; their order is a pure function of (key, step)."""

    def __init__(self, data, batch_size, epochs, *, key, shuffle, drop_last, report_steps, layout):
        x, target = data
        self.rows = len(x)
        self.batch_size = int(batch_size or self.rows)
        self.epoch_steps = steps_per_epoch(self.rows, self.batch_size, drop_last, name="fit")
        self.masked = self.epoch_steps * self.batch_size > self.rows
        self.report_steps = int(report_steps or self.epoch_steps)
        self.steps = epochs * self.epoch_steps
        self.seed = tuple(int(word) for word in np.ravel(jax.random.key_data(key)))
        self.shuffle = shuffle
        self.most_steps = min(self.report_steps, 1024)
        self.x, self.target = layout.place_data((x, target))

    def check_unfinished(self, step) -> None:
        if step >= self.steps:
            raise ConfigError(
                f"fit: expected epochs above {step // self.epoch_steps}, those that state has done, got "
                f"{self.steps // self.epoch_steps}; epochs counts them too."
            )

    def rows_of(self, step) -> np.ndarray:
        """The numbers of the rows in the batch of a step."""
        return self._batches(step, 1)[0][0]

    def chunks(self, step, pace, check) -> Iterator[Chunk]:
        """Chunks from `step` to the end, none longer than `pace.limit` or across a report."""
        del check  # all targets were looked at before
        while step < self.steps:
            due = min(step - step % self.report_steps + self.report_steps, self.steps)
            count = min(due - step, self.most_steps, pace.limit)
            rows, where = self._batches(step, count)
            step += count
            epoch = -(-step // self.epoch_steps)
            yield Chunk(self.x, self.target, rows, where, count, epoch, step == due, None)

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
    """Batches of an iterable, stacked on the host, eight at a time; each pass is an epoch.

    Where they can be taken up again, a chunk says where they stood after it.
    """

    most_steps = 8

    def __init__(self, batches, checked, epochs, *, report_steps, cursor):
        if not isinstance(batches, Iterable):
            raise DataError(f"fit: expected data to be (x, target) or an iterable of batches, got {describe(batches)}.")
        self.batches, self.checked, self.epochs, self.report_steps = batches, checked, epochs, report_steps
        self.done, position = _read_cursor(cursor)
        if self.done >= epochs:
            raise ConfigError(f"fit: expected epochs above {self.done}, those that cursor has done, got {epochs}.")
        self._start_pass(position)
        if self.first is None and position is not None:  # an iterator that stood at its end
            self._start_pass()
        if self.first is None:
            raise DataError("fit: expected at least one batch, got an iterable without any.")
        self.shapes: Any = None
        first = self._checked(self.first)
        self.x, self.target = first[:2]
        self.masked = len(first) == 3
        self.batch_size = len(self.x)

    def check_unfinished(self, step) -> None:
        """An iterable has no end that could be known before."""

    def rows_of(self, step) -> None:
        """The rows of an iterable have no numbers."""

    def chunks(self, step, pace, check) -> Iterator[Chunk]:
        """Chunks of at most eight batches, none across a report or the end of a pass."""
        del pace
        for epoch in range(self.done + 1, self.epochs + 1):
            group = []
            for batch, last, cursor in self._pass(epoch):
                group.append(self._checked(batch, check))
                reports = last if self.report_steps is None else (step + len(group)) % self.report_steps == 0
                reports = reports or (last and epoch == self.epochs)
                if len(group) == self.most_steps or reports or last:
                    yield self._stacked(group, epoch, reports, cursor)
                    step += len(group)
                    group = []

    def _start_pass(self, position=None):
        self.source = Pass("fit", self.batches, position)
        self.first = next(self.source.iterator, None)

    def _pass(self, epoch):
        """`(batch, whether it is the last, cursor after it)`, one batch read ahead."""
        if epoch > self.done + 1:
            self._start_pass()
        if self.first is None:
            raise DataError(
                f"fit: expected {self.epochs} passes over the batches, but they ended before pass {epoch}; "
                "give an iterable that can be iterated again (a list, or an object whose __iter__ starts anew)."
            )
        batch, position = self.first, self.source.position()
        for following in self.source.iterator:
            yield batch, False, self._cursor(epoch - 1, position)
            batch, position = following, self.source.position()
        yield batch, True, self._cursor(epoch, position)

    def _cursor(self, epoch, position):
        return {"epoch": epoch, "position": position} if self.source.has_position else None

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

    def _stacked(self, group, epoch, reports, cursor):
        most, size = self.most_steps, self.batch_size
        rows = np.arange(most * size, dtype=np.int32).reshape(most, size)
        filled = group + group[:1] * (most - len(group))  # one shape, one program; the filling is not read
        x, target, *where = (np.concatenate(arrays) for arrays in zip(*filled, strict=True))
        mask = where[0].reshape(most, size) if where else None
        return Chunk(x, target, rows, mask, len(group), epoch, reports, cursor)


def _read_cursor(cursor):
    """`(passes done, position within the next)`."""
    if cursor is None:
        return 0, None
    if not isinstance(cursor, dict) or set(cursor) != {"epoch", "position"}:
        raise ConfigError(f"fit: expected cursor to be that of a report, got {describe(cursor)}.")
    return check_count("fit", "cursor epoch", cursor["epoch"], 0), cursor["position"]
