"""`fit`: training as an iterator of reports."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import check_choice, check_count, describe
from funcnet.data import check_data
from funcnet.errors import ConfigError, DataError, DtypeError, FuncnetError, ShapeError
from funcnet.metrics import Metric
from funcnet.training.divergence import GuardAlarm, check_finite
from funcnet.training.evaluation import check_target, new_tally, run_evaluation, tally_result
from funcnet.training.feeds import ArrayFeed, IteratorFeed
from funcnet.training.interruption import Watchdog
from funcnet.training.loop import ENGINES, ONE_DEVICE, Pace, compiled_chunk, copy
from funcnet.training.step import as_key, create_state
from funcnet.types import Array, Key, Layer, Layout, LossFn, Optimizer, Report, TrainState

__all__ = ["fit"]


def fit(
    model: Layer,
    loss: LossFn,
    optimizer: Optimizer,
    data: tuple[Any, Any] | Iterable[Any],
    *,
    engine: str = "autodiff",
    epochs: int,
    batch_size: int | None = None,
    key: Any = 0,
    state: TrainState | None = None,
    cursor: Any = None,
    validation: tuple[Any, Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    penalty: Any = None,
    augment: Callable[[Key, Any, Any], tuple[Any, Any]] | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    report_steps: int | None = None,
    copy_state: bool = True,
    layout: Layout | None = None,
    stop: Callable[[int], bool] | None = None,
    watchdog: float | None = None,
) -> Iterator[Report]:
    """Train a model; a generator of one `Report` an epoch, or every `report_steps` steps.

    Early stopping, checkpoints, progress bars and logs are ordinary functions that wrap this iterator; there are no
    callbacks. Steps run in compiled chunks over data on the device, two chunks in flight at most. Metrics are arrays
    that may still be on their way: `float(report.metrics["loss"])` waits for them.

    Args:
        model: a layer.
        loss: `(prediction, target) -> scalar`; one of `funcnet.losses` or your own.
        optimizer: one of `funcnet.optimizers`.
        data: arrays `(x, target)`, rows first; or an iterable of batches `(x, target)` or `(x, target, where)`, all
            of one shape, of which each pass is an epoch.
        engine: `"autodiff"` or `"backprop"`, whose results agree to rounding.
        epochs: passes over the data, those already done in `state` included.
        batch_size: rows a step; `None` for all rows, that is, gradient descent on the full batch. For arrays only.
        key: a PRNG key or an integer seed: the parameters' start, the order of the data, augmentation, dropout. The
            order is a pure function of (key, epoch).
        state: a `TrainState` to go on from, exactly as if the run had never stopped.
        cursor: `report.cursor`, where an iterable of batches goes on; it needs `get_state` and `set_state`, as
            `data.Batches` and grain's iterators have them. Arrays need none: the step says where they go on.
        validation: (x, target) on which loss and metrics are computed for each report, as `validation_…`.
        metrics: name -> `Metric`, computed while training on the predictions of the steps since the last report.
        penalty: `params -> scalar` added to the loss, `losses.l2_penalty` say.
        augment: `(key, x, target) -> (x, target)`, through which each batch of the training goes within the compiled
            step: functions of `funcnet.data` say. x keeps its shape and dtype; targets may become others that the loss
            takes, one-hot rows for `data.mixup` say. The metrics compare with the targets of the data, and validation
            is not augmented.
        shuffle: whether each epoch has an order of its own.
        drop_last: leave out an incomplete last batch. Otherwise it is filled up with rows from the start of the
            epoch's order, which are masked in the loss and the metrics (so the loss needs a `where` argument).
        report_steps: steps between reports; `None` for an epoch.
        copy_state: whether a yielded state stays valid for ever, at the price of one copy a report. With `False` it
            is valid until the next report is asked for.
        layout: of `parallel.layout`: how the run lies on several devices. The numbers are those of one device, up to
            rounding.
        stop: `step -> bool`, asked after each chunk of steps; once it says yes, one last report ends the run, its
            metrics those of the steps since the report before. `stop_on_signals` makes one.
        watchdog: seconds without progress, compilation included, after which the process ends with the stacks of its
            threads on stderr. Between a report and the next call it does not count.

    Raises:
        ConfigError, DataError, LabelError, ShapeError, DtypeError: before the first step.
        OutOfMemoryError: before the first step, if the compiled program needs more memory than the device has.
        DivergenceError: the loss of a report is not finite, raised when the next report is asked for; or
            `optimizers.guarded` skipped too many steps in a row.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> x = jnp.linspace(-1, 1, 20)[:, None]
    >>> reports = fn.training.fit(
    ...     fn.layers.dense(1), fn.losses.mean_squared_error, fn.optimizers.sgd(0.3), (x, 3 * x + 1),
    ...     engine="backprop", epochs=50, batch_size=5, key=0)
    >>> *_, last = reports
    >>> last.epoch, last.step, round(float(last.state.optimizer.params["kernel"][0, 0]), 2)
    (50, 200, 3.0)
    """
    check_choice("fit", "engine", engine, ENGINES)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"fit: expected an optimizer, such as optimizers.adam(1e-3), got {describe(optimizer)}; call its "
            "constructor."
        )
    epochs = check_count("fit", "epochs", epochs)
    for what, count in {"batch_size": batch_size, "report_steps": report_steps}.items():
        if count is not None:
            check_count("fit", what, count)
    named_metrics = tuple((metrics or {}).items())
    layout = layout or ONE_DEVICE
    key = as_key("fit", key)

    def checked(pair: Any) -> tuple[Any, Any]:
        if len(pair) != 2:
            raise DataError(f"fit: expected data to be (x, target), got a tuple of {len(pair)}.")
        return check_data(*pair, integers=_takes(model, pair[0]), name="fit")

    if isinstance(data, tuple):
        if cursor is not None:
            raise ConfigError("fit: expected no cursor with arrays, whose order follows from the step in state.")
        rows = checked(data)
        feed: Any = ArrayFeed(
            rows, batch_size, epochs, key=key, shuffle=shuffle, drop_last=drop_last, report_steps=report_steps,
            layout=layout,
        )  # fmt: skip
    elif batch_size is None:
        feed = IteratorFeed(data, checked, epochs, report_steps=report_steps, cursor=cursor)
    else:
        raise ConfigError(f"fit: expected batch_size to be None with an iterable of batches, got {batch_size}.")
    _check_mask_support(loss, feed.masked)
    layout.check_rows("fit", "batch_size", feed.batch_size)

    started: Any = state
    if state is None:
        example = jax.ShapeDtypeStruct((feed.batch_size, *feed.x.shape[1:]), feed.x.dtype)
        started = layout.init_state(lambda key: create_state(model, optimizer, key, example), key)
    feed.check_unfinished(int(started.optimizer.step))
    started = copy(layout.place_state(started))  # the loop donates its state, and the caller's arrays must survive

    params, model_state = jax.eval_shape(lambda state: (state.optimizer.params, state.model), started)

    def check(x: Any, target: Any) -> None:
        check_target(model, loss, params, model_state, x, target)

    check(feed.x, feed.target)
    if augment is not None:
        _check_augment(augment, key, feed)
    held_out = None
    if validation is not None:
        held_out = checked(validation)
        check(*held_out)
        held_out = layout.place_data(held_out)

    def evaluate(state: TrainState) -> dict[str, Array]:
        if held_out is None:
            return {}
        result = run_evaluation(model, loss, state.optimizer.params, state.model, held_out, 1024, named_metrics)
        return {f"validation_{name}": value for name, value in result.items()}

    run = compiled_chunk(model, loss, optimizer, engine, penalty, named_metrics, augment, layout)

    def tally() -> Any:
        return layout.place_data(new_tally(named_metrics))

    return _reports(run, feed, check, started, named_metrics, tally, evaluate, copy_state, stop, Watchdog(watchdog))


def _reports(run, feed, check, state, metrics, new_tally, evaluate, copy_state, stop, watchdog):
    """The generator behind `fit`."""
    pace, alarm = Pace(feed.most_steps), GuardAlarm(state.optimizer, feed.rows_of)
    step = int(state.optimizer.step)
    tally = new_tally()
    report, rows = None, 0
    finalizing = sys.is_finalizing  # bound here: where the interpreter ends, the names of this module end before
    try:
        watchdog.progress()
        for chunk in feed.chunks(step, pace, check):
            state, tally, token = run(state, tally, chunk.x, chunk.target, chunk.rows, chunk.where, chunk.steps)
            for ended in pace.started(token, chunk.steps):
                alarm(*ended)
            watchdog.progress()
            step += chunk.steps
            stopping = stop is not None and stop(step)
            if jax.process_count() > 1:
                stopping = pace.agree(stopping)
            if chunk.reports or stopping:
                if alarm.armed:  # no report of a state that its guard has given up
                    for ended in pace.finish():
                        alarm(*ended)
                check_finite(report, rows)
                results, rows = tally_result(tally, metrics) | evaluate(state), tally["rows"]
                tally = new_tally()
                report = Report(chunk.epoch, step, results, copy(state) if copy_state else state, chunk.cursor)
                watchdog.pause()
                yield report
                watchdog.progress()
                pace.resumed()
            if stopping:
                break
        for ended in pace.finish():
            alarm(*ended)
        check_finite(report, rows)
    finally:
        if not finalizing():
            watchdog.pause()
            pace.finish()


def _takes(model, x):
    """Whether the model takes such an input: some take integers, most refuse them."""
    try:
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)))
    except (FuncnetError, TypeError, ValueError):
        return False
    return True


def _check_augment(augment, key, feed):
    """An augmented batch must fit where the batch itself would."""
    if not callable(augment):
        raise ConfigError(
            f"fit: expected augment to be a function (key, x, target) -> (x, target), got {describe(augment)}."
        )
    batch = x, _ = feed.x[: feed.batch_size], feed.target[: feed.batch_size]
    result = jax.eval_shape(augment, key, *batch)
    if jax.tree.structure(result) != jax.tree.structure(batch):
        raise ConfigError(f"fit: expected augment to return the two arrays (x, target), got {describe(result)}.")
    got_x, got_target = result
    if got_x.shape != x.shape:
        raise ShapeError(f"fit: expected augment to keep the shape of x, {x.shape}, got {got_x.shape}.")
    if got_x.dtype != x.dtype:
        raise DtypeError(f"fit: expected augment to keep the dtype of x, {x.dtype}, got {got_x.dtype}; cast it.")
    if got_target.shape[:1] != x.shape[:1]:
        raise ShapeError(
            f"fit: expected augment to return a target for each of the {len(x)} rows of x, got shape "
            f"{got_target.shape}."
        )


def _check_mask_support(loss, masked):
    parameters = inspect.signature(loss).parameters.values()
    if masked and not any(p.name == "where" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise ConfigError(
            f"fit: expected {getattr(loss, '__name__', loss)} to take where= (the last batch is incomplete), and it "
            "does not; choose a batch_size that divides the rows, or drop_last=True."
        )
