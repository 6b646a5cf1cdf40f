"""What a training keeps is its own: nothing that is written to the data later reaches it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.data.room import Room

MODEL = fn.layers.dense(3)
LOSS = fn.losses.softmax_cross_entropy
OPTIMIZER = fn.optimizers.sgd(0.1)
RANDOM = np.random.default_rng(0)
BATCHES = [
    (RANDOM.normal(size=(16, 4)).astype(np.float32), RANDOM.integers(0, 3, 16).astype(np.int32)) for _ in range(8)
]


def aligned(array):
    """A copy in memory that begins where jax on a CPU takes an array without copying it."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Refilled:
    """An iterable that gives out one buffer, filled anew for each batch."""

    def __init__(self, given=lambda buffer: buffer):
        self.buffers, self.given = tuple(aligned(leaf) for leaf in BATCHES[0]), given

    def __iter__(self):
        for batch in BATCHES:
            for buffer, leaf in zip(self.buffers, batch, strict=True):
                buffer[...] = leaf
            yield tuple(self.given(buffer) for buffer in self.buffers)


def kernel(data, **options):
    *_, last = fn.training.fit(MODEL, LOSS, OPTIMIZER, data, epochs=2, **options)
    return np.asarray(last.state.optimizer.params["kernel"])


class Wrapped:
    """What is not an array and can become one, over the same memory."""

    def __init__(self, array):
        self.array, self.dtype, self.shape = array, array.dtype, array.shape

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype) if copy else np.asarray(self.array, dtype)


@pytest.mark.parametrize("report_steps", [None, 1, 3])
@pytest.mark.parametrize(
    "source",
    [
        Refilled,
        lambda: Refilled(jnp.asarray),
        lambda: Refilled(Wrapped),
        lambda: fn.data.prefetch(Refilled()),
        lambda: fn.data.prefetch(Refilled(jnp.asarray), size=8),
    ],
    ids=["NumPy", "jax", "an object with __array__", "prefetched", "prefetched jax"],
)
def test_a_buffer_may_be_filled_again(source, report_steps):
    want = kernel(BATCHES, report_steps=report_steps)
    np.testing.assert_array_equal(kernel(source(), report_steps=report_steps), want)
    assert not np.allclose(want, kernel(8 * [BATCHES[-1]], report_steps=report_steps), atol=1e-3)


def test_the_batches_of_a_chunk_are_copied_once():
    room = Room(4)
    owned = [room.own(batch) for batch in BATCHES[:3]]
    stacked = room.stacked(owned)
    for whole, parts, given in zip(stacked, zip(*owned, strict=True), zip(*BATCHES[:3], strict=True), strict=True):
        assert len(whole) == 4
        np.testing.assert_array_equal(whole[:3], np.stack(given))
        assert all(np.shares_memory(part, whole) for part in parts)
        assert whole.ctypes.data % 64 == 0


@pytest.mark.parametrize(
    "others",
    [
        [np.ones((2, 4), np.float32), np.ones((2, 4), np.float32)],
        [np.ones((3, 4), np.float64), np.ones((3, 4), np.float64)],
        [jnp.ones((3, 4))],
        [np.ma.masked_array(np.ones((3, 4), np.float32))],
    ],
    ids=["another shape", "another dtype", "jax", "with a mask"],
)
def test_batches_of_other_kinds_are_put_side_by_side(others):
    room = Room(4)
    first = room.own(np.zeros((3, 4), np.float32))
    batches = list(map(np.asarray, map(room.own, others)))
    np.testing.assert_array_equal(room.stacked(batches)[: len(batches)], np.stack(list(map(np.asarray, others))))
    assert not any(np.shares_memory(batch, other) for batch, other in zip(batches, others, strict=True))
    assert first.sum() == 0


def test_a_full_room_takes_no_more():
    room = Room(1)
    first, second = room.own(np.zeros(3)), room.own(np.ones(3))
    assert (first.tolist(), second.tolist()) == ([0, 0, 0], [1, 1, 1])


def test_prefetched_items_of_other_kinds_stay_the_same():
    items = [3, "text", None, (1.5, [np.arange(2)]), {"a": jnp.ones(2)}]
    got = list(fn.data.prefetch(items))
    assert [type(item) for item in got] == [type(item) for item in items]
    assert got[:3] == items[:3]
    assert isinstance(got[4]["a"], jax.Array)
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    (kept,) = fn.data.prefetch([masked])
    assert kept.mask.tolist() == [False, True]


def joined():
    return tuple(np.concatenate(leaves) for leaves in zip(*BATCHES, strict=True))


def sources_of(path):
    """(x, target) in memory that jax shares: aligned arrays, and a memory map, which begins with a page."""
    x, target = joined()
    whole = np.memmap(path, np.float32, "w+", shape=x.shape)
    whole[...] = x
    return {"aligned": (aligned(x), aligned(target)), "memory map": (whole, aligned(target))}


@pytest.mark.parametrize("name", ["aligned", "memory map"])
def test_arrays_may_be_written_to_between_reports(tmp_path, name):
    quiet, written = sources_of(tmp_path / "quiet")[name], sources_of(tmp_path / "written")[name]
    options = {"epochs": 4, "batch_size": 32, "metrics": {"accuracy": fn.metrics.accuracy()}}
    want = list(fn.training.fit(MODEL, LOSS, OPTIMIZER, quiet, validation=quiet, **options))
    reports = fn.training.fit(MODEL, LOSS, OPTIMIZER, written, validation=written, **options)
    for array in written:
        array *= 0
    for got, report in zip(reports, want, strict=True):
        assert {key: float(value) for key, value in got.metrics.items()} == {
            key: float(value) for key, value in report.metrics.items()
        }


def test_a_state_may_be_written_to():
    data = joined()
    state = fn.training.create_state(MODEL, OPTIMIZER, 0, data[0])
    kernel = aligned(np.asarray(state.optimizer.params["kernel"]))
    optimizer = state.optimizer._replace(params={**state.optimizer.params, "kernel": kernel})
    want = list(fn.training.fit(MODEL, LOSS, OPTIMIZER, data, epochs=2, state=state))
    reports = fn.training.fit(MODEL, LOSS, OPTIMIZER, data, epochs=2, state=state._replace(optimizer=optimizer))
    kernel *= 0
    for got, report in zip(reports, want, strict=True):
        assert float(got.metrics["loss"]) == float(report.metrics["loss"])


def test_a_machine_keeps_its_data():
    machine, v = fn.pretraining.rbm(5), (RANDOM.random((64, 8)) < 0.5).astype(np.float32)
    want = list(fn.pretraining.train(machine, OPTIMIZER, v, epochs=2, batch_size=16))
    shared = aligned(v)
    reports = fn.pretraining.train(machine, OPTIMIZER, shared, epochs=2, batch_size=16)
    shared *= 0
    for got, report in zip(reports, want, strict=True):
        assert float(got.metrics["loss"]) == float(report.metrics["loss"])


class Counting:
    """An iterable that keeps its position in one dictionary, and gives out the dictionary itself."""

    def __init__(self):
        self.state = {"next": 0}

    def __iter__(self):
        while self.state["next"] < len(BATCHES):
            self.state["next"] += 1
            yield BATCHES[self.state["next"] - 1]
        self.state["next"] = 0

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


@pytest.mark.parametrize("source", [Counting, lambda: fn.data.prefetch(Counting())], ids=["plain", "prefetched"])
def test_a_position_is_that_of_its_report(source):
    """Although the iterable changes the dictionary that it gave out, and the one that it was given."""
    reports = list(fn.training.fit(MODEL, LOSS, OPTIMIZER, source(), epochs=1, report_steps=3))
    assert [report.cursor["position"] for report in reports[:2]] == [{"next": 3}, {"next": 6}]
    again = fn.training.fit(
        MODEL, LOSS, OPTIMIZER, source(), epochs=1, report_steps=3, state=reports[0].state, cursor=reports[0].cursor
    )
    *_, last = again
    assert reports[0].cursor["position"] == {"next": 3}
    np.testing.assert_array_equal(last.state.optimizer.params["kernel"], reports[-1].state.optimizer.params["kernel"])
