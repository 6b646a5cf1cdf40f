"""Where the loop's batches come from: arrays on the device, or an iterable of batches.

A feed has these attributes:

- `example`: the shapes of a batch,
- `data`: the values that are checked before the first step,
- `batch_size`: the rows of a batch,
- `masked`: whether a mask marks rows that only fill up a batch.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from funcnet.checks import check_count, describe
from funcnet.data.batching import count_steps, epoch_order
from funcnet.data.checks import count_rows, unpacked
from funcnet.data.owned import own_arrays
from funcnet.data.passes import Pass
from funcnet.data.room import Room
from funcnet.errors import ConfigError, DataError
from funcnet.made import leading, within
from funcnet.training.loop import Chunk
from funcnet.training.vectors import as_vectors, lies_on_tpu
from funcnet.trees import flatten_with_paths, map_rows, shapes

__all__ = ["ArrayFeed", "IteratorFeed"]

_PAD = "fill smaller batches up and mark the rows with a third entry, where, or leave them out"


class ArrayFeed:
    """Batches of rows of arrays that are on the device. Their order is a pure function of (key, step)."""

    def __init__(self, data, batch_size, epochs, *, key, shuffle, drop_last, report_steps, layout):
        self.rows = count_rows(data)
        self.batch_size = int(batch_size or self.rows)
        self.epoch_steps = count_steps(self.rows, self.batch_size, drop_last)
        self.masked = self.epoch_steps * self.batch_size > self.rows
        self.report_steps = int(report_steps or self.epoch_steps)
        self.steps = epochs * self.epoch_steps
        self.seed = tuple(int(word) for word in np.ravel(jax.random.key_data(key)))
        self.shuffle = shuffle
        self.most_steps = min(self.report_steps, 1024)
        on_tpu, self.data = lies_on_tpu(layout), own_arrays(data)
        self.stored = layout.place_data(as_vectors(self.data) if on_tpu else self.data)
        self.data = self.data if on_tpu else self.stored
        self.example = map_rows(
            lambda leaf: jax.ShapeDtypeStruct((self.batch_size, *leaf.shape[1:]), leaf.dtype), shapes(self.data)
        )

    def kind(self) -> Chunk:
        """A chunk of this feed, with shapes in place of the arrays of the host."""
        shape = (self.most_steps, self.batch_size)
        mask = jax.ShapeDtypeStruct(shape, bool) if self.masked else None
        return Chunk(self.stored, jax.ShapeDtypeStruct(shape, np.int32), mask, self.batch_size, 1, 1, True, None)

    def check_unfinished(self, step) -> None:
        if step >= self.steps:
            done, epochs = step // self.epoch_steps, self.steps // self.epoch_steps
            fix = "epochs counts these too"
            raise ConfigError(f"expected epochs above {done}, the number that state has done, got {epochs}; {fix}.")

    def rows_of(self, step) -> np.ndarray:
        """The numbers of the rows in the batch of a step."""
        return self._batches(step, 1)[0][0]

    def chunks(self, step, pace, check) -> Iterator[Chunk]:
        """Chunks from `step` to the end. None is longer than `pace.limit`, and none goes across a report."""
        del check  # all targets were checked before
        while step < self.steps:
            due = min(step - step % self.report_steps + self.report_steps, self.steps)
            count = min(due - step, self.most_steps, pace.limit)
            rows, mask = self._batches(step, count)
            step += count
            epoch = -(-step // self.epoch_steps)
            yield Chunk(self.stored, rows, mask, self.batch_size, count, epoch, step == due, None)

    def _batches(self, step, count):
        """Row numbers of the next `count` batches and their mask. The entries behind them are zero and not read."""
        rows = np.zeros((self.most_steps, self.batch_size), np.int32)
        mask = np.zeros((self.most_steps, self.batch_size), bool) if self.masked else None
        done = 0
        while done < count:
            epoch, first = divmod(step + done, self.epoch_steps)
            last = min(first + count - done, self.epoch_steps)
            epoch_rows, epoch_mask = self._epoch(epoch)
            rows[done : done + last - first] = epoch_rows[first:last]
            if mask is not None:
                mask[done : done + last - first] = epoch_mask[first:last]
            done += last - first
        return rows, mask

    def _epoch(self, epoch):
        """Row numbers and mask of a whole epoch, (steps, batch). An incomplete last batch is filled from the start."""
        order = epoch_order(self.seed, epoch, self.rows) if self.shuffle else np.arange(self.rows)
        shape = (self.epoch_steps, self.batch_size)
        size = self.epoch_steps * self.batch_size
        return np.resize(order, size).reshape(shape), (np.arange(size) < self.rows).reshape(shape)


class IteratorFeed:
    """Batches of an iterable, side by side on the host, eight at a time. Each pass is an epoch.

    If the iterable can be resumed, each chunk has the position after it. Batches of two lengths are two programs: the
    last batch of a pass may be smaller, and a resumed run may begin with it.
    """

    steps = None  #: the end of an iterable is not known in advance
    masked = False  #: a batch brings its own `where`

    def __init__(
        self,
        batches: Iterable[Any] | Callable[[], Any],
        checked: Callable[[tuple[Any, ...]], tuple[Any, ...]],
        check_rows: Callable[[int], None],
        epochs: int,
        *,
        report_steps: int | None,
        cursor: Any,
    ):
        self.batches, self.epochs, self.report_steps = batches, epochs, report_steps
        self.most_steps = min(8, report_steps or 8)
        self.checked, self.check_rows = checked, check_rows
        self.done, position = _read_cursor(cursor)
        if self.done >= epochs:
            raise ConfigError(f"expected epochs above {self.done}, the number that cursor has done, got {epochs}.")
        self._start_pass(position)
        if self.first is None and position is not None:  # the position was the end of a pass
            self._start_pass()
        if self.first is None:
            raise DataError("expected at least one batch, got an iterable without any.")
        self.example: Any = None
        self.kinds: list[Any] = []  #: those that were found right
        self.lengths: list[int] = []
        with self._place(0, self.done + 1):
            self.data = self._checked(self.first)
        self.batch_size = self.lengths[0]

    def kind(self) -> Chunk:
        """A chunk of this feed, with shapes in place of arrays."""
        data = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.most_steps, *x.shape), x.dtype), self.example)
        return Chunk(data, None, None, self.batch_size, 1, 1, True, None)

    def check_unfinished(self, step) -> None:
        """Nothing to check, because the end of an iterable is not known in advance."""

    def rows_of(self, step) -> None:
        """The rows of an iterable have no numbers."""

    def chunks(self, step, pace, check) -> Iterator[Chunk]:
        """Chunks of at most eight batches of one length, none across a report or the end of a pass.

        Whether a pass has ended is known when the next batch has been asked for. That batch is in a new room.
        """
        del pace
        for epoch in range(self.done + 1, self.epochs + 1):
            following, number = self._first_batch(epoch), 0
            group, room, cursor = [], self.room, None
            while following is not None:
                with leading("fit"), self._place(number, epoch):
                    batch = self._checked(following, check)
                if group and _kind(batch) != _kind(group[0]):
                    yield self._chunk(room, group, epoch, False, cursor)
                    step += len(group)
                    group, room = [], self.room
                group.append(batch)
                reports = self.report_steps is not None and (step + len(group)) % self.report_steps == 0
                full = reports or len(group) == self.most_steps
                if full:
                    self.room = Room(self.most_steps)
                position = self.source.position()
                following, number = next(self.source, None), number + 1
                last = following is None
                cursor = self._cursor(epoch, position, last)
                if full or last:
                    reports = reports or (last and (self.report_steps is None or epoch == self.epochs))
                    yield self._chunk(room, group, epoch, reports, cursor)
                    step += len(group)
                    group, room = [], self.room

    def _place(self, number, epoch):
        """Errors say which batch it is, counted from 0."""
        return within(f"batch {number}{' after the cursor' if self.resumed else ''} of pass {epoch}:")

    def _first_batch(self, epoch):
        if epoch > self.done + 1:
            self._start_pass()
        if self.first is None:
            fix = "give what can be iterated again, such as a list, or a function that makes the iterator"
            passes = f"{self.epochs} passes over the batches, but they ended before pass {epoch}"
            raise DataError(f"fit: expected {passes}; {fix}.")
        return self.first

    def _start_pass(self, position=None):
        self.room = Room(self.most_steps)
        self.source = Pass(self.batches, position, lambda batch: self.room.own(batch))
        self.resumed = position is not None
        self.first = next(self.source, None)

    def _cursor(self, epoch, position, last):
        if not self.source.has_position:
            return None
        if last and not isinstance(self.batches, Iterable):  # what a function gives next begins at its own start
            position = None
        return {"epoch": epoch if last else epoch - 1, "position": position}

    def _checked(self, batch, check=None):
        """The batch as NumPy arrays. Its shapes and dtypes must be those of the first batch, but for the rows."""
        batch = self.checked(unpacked("each batch", batch))
        if (kind := _kind(batch)) not in self.kinds:
            self._check_kind(batch)
            self.kinds.append(kind)
        if check is not None:
            check(batch)
        return jax.tree.map(np.asarray, batch)

    def _check_kind(self, batch):
        found, rows = shapes(batch), count_rows(batch, graphs=True)
        if self.example is None:
            self.example = found
        if rows not in self.lengths:
            if len(self.lengths) == 2:
                lengths = f"{rows} rows after {self.lengths[0]} and {self.lengths[1]}"
                raise DataError(f"expected batches of one length, and a last one of another, got {lengths}; {_PAD}.")
            if self.lengths:
                self.check_rows(rows)
            self.lengths.append(rows)
        if _different(_resized(self.example, self.lengths[0], rows), found):
            different = _different(self.example, found)
            raise DataError(f"expected all batches of the shapes and dtypes of the first one, {different}; {_PAD}.")

    def _chunk(self, room, group, epoch, reports, cursor):
        data = room.stacked(group)  # as long as the room: one shape, one program
        return Chunk(data, None, None, self.batch_size, len(group), epoch, reports, cursor)


def _kind(batch):
    """The structure of a batch, and the shapes and dtypes of its arrays."""
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _resized(example, rows, to):
    """The shapes of a batch with another number of rows. What has no rows, as the nodes of graphs, stays."""

    def resized(leaf):
        return jax.ShapeDtypeStruct((to, *leaf.shape[1:]), leaf.dtype) if leaf.shape[0] == rows else leaf

    return map_rows(resized, example)


def _different(first, batch):
    """How a batch differs from the first one, as the words of an error; `None` if it does not."""
    names = {"0": "x", "1": "target", "2": "where", "3": "weights"}

    def entries(data):
        found = ((path.partition("/"), leaf) for path, leaf in flatten_with_paths(data))
        return {names[entry] + slash + rest: leaf for (entry, slash, rest), leaf in found}

    want, got = entries(first), entries(batch)
    for name in (*want, *got):
        kinds = [f"{one[name].dtype}{list(one[name].shape)}" if name in one else "nothing" for one in (want, got)]
        if kinds[0] != kinds[1]:
            return f"{kinds[0]} in {name}, got {kinds[1]}"
    if jax.tree.structure(first) != jax.tree.structure(batch):
        return f"{jax.tree.structure(first)}, got {jax.tree.structure(batch)}"
    return None


def _read_cursor(cursor):
    """`(passes done, position within the next pass)`."""
    if cursor is None:
        return 0, None
    if not isinstance(cursor, dict) or set(cursor) != {"epoch", "position"}:
        raise ConfigError(f"expected cursor to be that of a report, got {describe(cursor)}.")
    return check_count("cursor epoch", cursor["epoch"], 0), cursor["position"]
