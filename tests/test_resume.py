"""Runs that stop, and go on as if they had not: any step, arrays and iterators, signals, skipped steps, alarms."""

import json
import os
import re
import signal
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.errors import ConfigError, DataError, DivergenceError, OutOfMemoryError
from funcnet.layers import batch_norm, dense, dropout, relu, serial
from funcnet.losses import mean_squared_error
from funcnet.optimizers import adam, clipped, guarded, sgd
from funcnet.training import fit, interruption, stop_on_signals
from funcnet.training import memory as memory_of_training
from funcnet.training.interruption import STOPPING

X = np.random.default_rng(0).standard_normal((50, 4), np.float32)
Y = X[:, :2] ** 2
MODEL = serial(dense(5), batch_norm(), relu(), dropout(0.2), dense(2))
OPTIMIZER = adam(1e-2)
EPOCHS = 15  # of 7 steps, the last one with 2 of 8 rows: 105 steps


def run(data=(X, Y), **options):
    defaults = {"engine": "backprop", "epochs": EPOCHS, "batch_size": 8, "report_steps": 1}
    return fit(MODEL, mean_squared_error, options.pop("optimizer", OPTIMIZER), data, **defaults | options)


def same_bits(a, b):
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        if np.asarray(left).tobytes() != np.asarray(right).tobytes():
            return False
    return True


@pytest.fixture(scope="module")
def uninterrupted():
    return list(run())


def test_every_step_is_a_point_to_go_on_from(uninterrupted, tmp_path):
    """104 of them, through the disk: within epochs and at their ends, from the first step on."""
    *reports, last = fn.checkpoints.saving(iter(uninterrupted), tmp_path, keep=200)
    like = jax.eval_shape(lambda: last.state)
    for report in reports:
        restored, _ = fn.checkpoints.restore(tmp_path, like, step=report.step)
        assert same_bits(restored.state, report.state)
        *_, end = run(state=restored.state, report_steps=1000)
        assert (end.step, end.epoch) == (last.step, last.epoch)
        assert same_bits(end.state, last.state)


def test_reports_after_a_resume_are_those_of_the_whole_run(uninterrupted):
    again = list(run(state=uninterrupted[40].state))
    assert [r.metrics for r in again] == [r.metrics for r in uninterrupted[41:]]


# Iterators


class Generator:
    """An iterator with a state of its own, as grain's are; each `iter` of its maker starts a pass."""

    def __init__(self, passes=1):
        self.at = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == 11:
            raise StopIteration
        self.at += 1
        rows = np.random.default_rng(self.at).integers(0, 50, 8)
        return X[rows], Y[rows]

    def get_state(self):
        return {"at": self.at}

    def set_state(self, state):
        self.at = state["at"]


class Maker:
    def __iter__(self):
        return Generator()


def batches():
    return fn.data.Batches(X, Y, 8, seed=3)


SOURCES = {
    "Batches": batches,
    "iterators": Maker,
    "prefetched Batches": lambda: fn.data.prefetch(batches()),
    "prefetched iterators": lambda: fn.data.prefetch(Maker(), size=3),
}


@pytest.mark.parametrize("source", SOURCES)
def test_iterators_go_on_where_they_stood(source):
    options = {"batch_size": None, "epochs": 3}
    whole = list(run(SOURCES[source](), **options))
    assert [r.step for r in whole] == list(range(1, 34 if "iterators" in source else 22))
    for report in whole[:-1:2] + whole[6:11]:
        cursor = json.loads(json.dumps(report.cursor))  # as a checkpoint would hold it
        *_, end = run(SOURCES[source](), **options, state=report.state, cursor=cursor)
        assert end.step == whole[-1].step
        assert same_bits(end.state, whole[-1].state)


@pytest.mark.parametrize("report_steps", [None, 5, 8])
def test_the_cursor_is_that_of_the_report(report_steps):
    """Though batches are read ahead, and trained on in groups."""
    for report in run(Maker(), batch_size=None, epochs=2, report_steps=report_steps):
        epoch, at = divmod(report.step, 11)
        assert report.cursor == {"epoch": epoch, "position": {"at": at or 11}}


def test_prefetched_batches_are_the_same_in_order():
    plain = [x for x, *_ in batches()]
    for got, want in zip(fn.data.prefetch(batches(), size=2), plain, strict=True):
        np.testing.assert_array_equal(got[0], want)


def test_an_iterable_without_a_state():
    data = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 48, 8)]
    *_, last = run(data, batch_size=None, epochs=1)
    assert last.cursor is None
    with pytest.raises(
        ConfigError, match="fit: expected batches with get_state and set_state, to restore a position, got none"
    ):
        run(data, batch_size=None, state=last.state, cursor={"epoch": 0, "position": 3})


@pytest.mark.parametrize(
    "cursor, message",
    [
        (7, "expected cursor to be that of a report, got 7"),
        ({"epoch": 1}, "expected cursor to be that of a report, got a dict"),
        ({"epoch": -1, "position": None}, "expected cursor epoch to be"),
        ({"epoch": EPOCHS, "position": None}, f"expected epochs above {EPOCHS}, the number that cursor has done"),
    ],
)
def test_a_wrong_cursor(cursor, message):
    with pytest.raises(ConfigError, match=f"fit: {message}"):
        run(batches(), batch_size=None, cursor=cursor)


def test_arrays_take_no_cursor():
    with pytest.raises(ConfigError, match="fit: expected no cursor with arrays"):
        run(cursor={"epoch": 1, "position": None})


def test_data_larger_than_memory(tmp_path):
    """A file with holes, of more bytes than any machine's memory, of which batches touch a few pages."""
    path = tmp_path / "x.bin"
    with open(path, "wb") as file:
        file.truncate(2**42)
    x = np.memmap(path, np.float32, mode="r", shape=(2**36, 16))
    target = np.broadcast_to(np.float32(1), (2**36, 1))
    numbers = (np.arange(4) * 2**33 + i for i in range(3))
    data = [(x[rows], target[rows]) for rows in numbers]
    *_, last = fit(dense(1), mean_squared_error, sgd(0.5), data, epochs=1)
    assert float(last.metrics["loss"]) == pytest.approx((1 + 0 + 0) / 3)  # the bias learns it in a step


# Prefetching


def test_a_failing_source_fails_where_its_batch_is_due():
    def source():
        yield 1
        raise DataError("the third shelf is empty")

    got = iter(fn.data.prefetch(source()))
    assert next(got) == 1
    with pytest.raises(DataError, match="the third shelf is empty"):
        next(got)


def test_prefetching_reads_so_far_ahead_and_ends_with_its_reader():
    read = []

    def source():
        for i in range(100):
            read.append(i)
            yield i

    got = iter(fn.data.prefetch(source(), size=4))
    assert [next(got), next(got)] == [0, 1]
    got.close()
    assert 2 <= len(read) <= 2 + 4 + 1
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    "arguments, message", [(([1], 0), "prefetch: expected size to be"), ((3, 2), "prefetch: expected batches to be")]
)
def test_wrong_prefetching(arguments, message):
    with pytest.raises((ConfigError, DataError), match=message):
        fn.data.prefetch(*arguments)


# Stopping


@pytest.mark.parametrize("at", [1, 6, 7, 40])
def test_a_stop_ends_with_a_report_of_that_step(uninterrupted, at):
    first = list(run(report_steps=1000, stop=lambda step: step >= at))
    assert len(first) == 1
    assert at <= first[0].step < len(uninterrupted)
    assert same_bits(first[0].state, uninterrupted[first[0].step - 1].state)
    *_, end = run(state=first[0].state)
    assert same_bits(end.state, uninterrupted[-1].state)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_and_the_handlers_come_back(number):
    before = [signal.getsignal(one) for one in STOPPING]
    with stop_on_signals() as stop:
        for report in run(stop=stop):
            if report.step == 2:
                os.kill(os.getpid(), number)
    assert 2 < report.step < 20
    assert stop.signal == number
    assert [signal.getsignal(one) for one in STOPPING] == before


def test_a_second_signal_acts_at_once():
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)  # to this thread; one for the process may reach another one, and come late
        assert stop(0)
        with pytest.raises(KeyboardInterrupt, match="^$"):
            signal.raise_signal(signal.SIGINT)


def test_a_closed_terminal_may_say_so_twice_and_under_nohup_not_at_all():
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert stop.signal == signal.SIGHUP
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop(0)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_are_left_alone():
    results = []

    def inside():
        with stop_on_signals() as stop:
            results.append(stop(0))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert results == [False]


def test_a_hanging_step_ends_the_process_with_its_stack():
    program = """if True:
        import time, jax, jax.numpy as jnp, funcnet as fn
        def hang(key, x, target):
            jax.debug.callback(lambda: time.sleep(60))
            return x, target
        data = jnp.ones((4, 1)), jnp.ones((4, 1))
        list(fn.training.fit(fn.layers.dense(1), fn.losses.mean_squared_error, fn.optimizers.sgd(0.1), data,
                             epochs=3, augment=hang, watchdog=4.0))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "Timeout (0:00:04)!" in done.stderr
    assert re.search(r'File ".*fit.py", line \d+ in _reports', done.stderr)


def test_a_watchdog_sleeps_between_reports_and_ends_with_the_run():
    for report in run(epochs=1, watchdog=5.0):
        assert report.step
    with pytest.raises(ConfigError, match="fit: expected watchdog to be a"):
        run(watchdog=0)


def test_watchdogs_of_several_runs_leave_each_other_alone(monkeypatch):
    """The one timer of the process is set to the earliest end of all, and off when all sleep."""
    timers, clock = [], iter(range(100, 200))
    monkeypatch.setattr(interruption.time, "monotonic", lambda: next(clock))  # a second for each call
    monkeypatch.setattr(interruption.faulthandler, "dump_traceback_later", lambda left, **_: timers.append(left))
    monkeypatch.setattr(interruption.faulthandler, "cancel_dump_traceback_later", lambda: timers.append(None))
    short, long, none = (interruption.Watchdog(seconds) for seconds in (5.0, 60.0, None))
    for call in (long.progress, short.progress, long.progress, none.pause, short.pause, short.pause, long.pause):
        call()
    assert timers == [60, 5, 4, 59, 58, None]
    short.progress()
    for _ in range(9):
        next(clock)
    long.progress()
    assert timers[6:] == [5, 1e-3]  # the first has had its time
    short.pause()
    long.pause()


def test_a_hang_beside_a_run_that_sleeps_ends_the_process():
    program = """if True:
        import time
        from funcnet.training.interruption import Watchdog
        hanging, other = Watchdog(1.0), Watchdog(30.0)
        hanging.progress()
        other.progress()
        other.pause()
        time.sleep(20)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert (done.returncode, "Timeout (0:00:0" in done.stderr) == (1, True)


# Steps that are not finite


def with_nan(*rows):
    x = X.copy()
    x[list(rows)] = np.nan
    return jnp.asarray(x), Y  # from the device, where no host looks at them


@pytest.fixture
def unchecked(monkeypatch):
    """Data that turn bad after they were looked at."""
    module = sys.modules["funcnet.training.fit"]
    monkeypatch.setattr(module, "checked_data", lambda data, **_: tuple(map(np.asarray, data)))


@pytest.mark.parametrize("engine", ["autodiff", "backprop"])
def test_a_bad_step_leaves_everything_but_its_count(unchecked, engine):
    """Parameters, slots and running statistics are bit for bit those before, and the loss is that of the others."""
    options = {"shuffle": False, "epochs": 1, "engine": engine, "optimizer": guarded(adam(1e-2))}
    reports = list(run(with_nan(20), **options))  # in the third batch
    before, after = reports[1].state, reports[2].state
    assert [int(r.state.optimizer.skipped) for r in reports] == [0, 0, 1, 1, 1, 1, 1]
    assert int(after.optimizer.step) == 3
    assert same_bits(before.optimizer.inner, after.optimizer.inner)
    assert same_bits(before.model, after.model)
    assert after.optimizer.bad_path == "0/bias"
    (whole,) = run(with_nan(20), **options | {"report_steps": None})
    others = [float(r.metrics["loss"]) for i, r in enumerate(reports) if i != 2]
    weights = [8, 8, 8, 8, 8, 2]
    assert float(whole.metrics["loss"]) == pytest.approx(np.average(others, weights=weights), rel=1e-6)


def test_too_many_in_a_row_end_the_run_and_say_where(unchecked):
    reports = run(with_nan(20, 27, 33), shuffle=False, optimizer=guarded(adam(1e-2)), report_steps=1)
    seen = []
    with pytest.raises(
        DivergenceError,
        match=r"fit: [345] gradients in a row were not finite and were skipped, from step 2 on, whose batch has the "
        r"rows 16, 17, 18, 19, 20, 21, 22, 23; the first bad leaf is 0/bias\. The parameters are those from before "
        r"that step\.",
    ):
        seen += reports
    assert same_bits(seen[1].state.optimizer.inner, seen[-1].state.optimizer.inner)


def test_a_guard_that_never_trips_changes_no_bit():
    inner = clipped(adam(1e-2), norm=1.0)
    plain, guarded_run = (list(run(optimizer=optimizer, epochs=2)) for optimizer in (inner, guarded(inner)))
    assert same_bits(plain[-1].state.optimizer.params, guarded_run[-1].state.optimizer.params)
    assert [r.metrics for r in plain] == [r.metrics for r in guarded_run]


def test_no_report_shows_a_state_that_its_guard_gave_up(unchecked):
    """It could not be gone on from: a checkpoint of it would be worth nothing."""
    seen = []
    with pytest.raises(DivergenceError, match="from step 2 on"):
        seen += run(with_nan(20, 27, 33), shuffle=False, optimizer=guarded(adam(1e-2)), report_steps=None)
    assert seen == []


@pytest.mark.parametrize("retries, epochs", [(1, None), (2, 30)])
def test_a_training_that_diverges_goes_back_and_takes_smaller_steps(retries, epochs):
    starts = []

    def start(best, diverged):
        starts.append((best and best.step, diverged))
        optimizer = sgd(1e3 * 0.01**diverged)  # 1e3 and 10 diverge
        state = None if best is None else best.state
        return fit(dense(2), mean_squared_error, optimizer, (X, Y), epochs=30, batch_size=25, state=state)

    reports = fn.training.retrying(start, retries=retries)
    if epochs is None:
        with pytest.raises(DivergenceError, match="the loss is"):
            list(reports)
        assert starts == [(None, 0), (None, 1)]
        return
    *_, last = reports
    assert (last.epoch, float(last.metrics["loss"]) < 10) == (epochs, True)
    assert starts == [(None, 0), (None, 1), (None, 2)]


def test_a_training_goes_back_to_where_its_loss_was_smallest():
    """Of losses 3, 1, 5, 9 the second was measured on the way from the first report's state."""
    starts = []

    def start(best, diverged):
        starts.append(best and best.step)
        for step, loss in enumerate([3.0, 1.0, 5.0, 9.0][: 4 - 2 * diverged], 1):
            yield fn.Report(step, step, {"loss": loss}, None)
        if not diverged:
            raise DivergenceError("the loss is nan")

    assert [report.step for report in fn.training.retrying(start)] == [1, 2, 3, 4, 1, 2]
    assert starts == [None, 1]


def test_retries_are_counted():
    with pytest.raises(ConfigError, match="retrying: expected retries to be"):
        fn.training.retrying(lambda best, diverged: iter(()), retries=-1)


# Memory


def test_a_step_that_will_not_fit_is_named_before_it_runs(monkeypatch):
    monkeypatch.setattr(memory_of_training, "free_bytes", lambda device: 1000)
    model = dense(17)  # a program that no other test has compiled
    with pytest.raises(
        OutOfMemoryError,
        match=r"fit: a step needs .* GiB of memory .* besides the .* of state and data, and .* has 0\.0 GiB free; take "
        "a batch_size below 50, accumulate= to compute each batch in parts, or layers.recompute",
    ):
        list(fit(model, mean_squared_error, sgd(0.1), (X, np.ones((50, 17), np.float32)), epochs=1))


def test_free_memory_of_this_machine():
    free = memory_of_training.free_bytes(jax.devices()[0])
    assert free is None or 2**20 < free < 2**50
