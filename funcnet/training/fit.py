"""`fit`: training as an iterator of reports."""

import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from numbers import Real
from typing import Any

import jax

from funcnet.checks import check_count, check_kind, describe
from funcnet.data.checks import check_batches, check_devices, checked_data, is_arraylike, unpacked
from funcnet.data.owned import own_arrays
from funcnet.data.passes import check_source
from funcnet.errors import ConfigError, DataError, FuncnetError
from funcnet.made import leading
from funcnet.optimizers.checks import check_optimizer
from funcnet.training.divergence import GuardAlarm, check_finite
from funcnet.training.evaluation import (
    check_takes,
    check_target,
    evaluator,
    measures,
    new_tally,
    predicted,
    resized,
    rows_of,
    tally_result,
)  # fmt: skip
from funcnet.training.feeds import ArrayFeed, IteratorFeed
from funcnet.training.interruption import Watchdog
from funcnet.training.loop import ENGINES, ONE_DEVICE, Pace, compiled_chunk, copy, factors_under
from funcnet.training.programs import reused
from funcnet.training.reports import Position, Reports
from funcnet.training.starting import as_augmented, check_accumulate, check_graphs, first_state, target_check
from funcnet.training.step import as_key, check_state
from funcnet.types import Array, GradientFn, Key, Layer, Layout, LossFn, Optimizer, Report, TrainState

__all__ = ["fit"]


def fit(
    model: Layer,
    loss: LossFn,
    optimizer: Optimizer,
    data: tuple[Any, ...] | Iterable[Any] | Callable[[], Iterable[Any]],
    *,
    engine: str | Callable[..., GradientFn] = "autodiff",
    epochs: int,
    batch_size: int | None = None,
    accumulate: int = 1,
    key: Any = 0,
    state: TrainState | None = None,
    cursor: Any = None,
    validation: tuple[Any, ...] | None = None,
    metrics: Mapping[str, Any] | None = None,
    penalty: Any = None,
    augment: Callable[[Key, Any, Any], tuple[Any, Any]] | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    report_steps: int | None = None,
    copy_state: bool = True,
    layout: Layout | None = None,
    stop: Callable[[int], bool] | None = None,
    watchdog: float | None = None,
) -> Generator[Report, Any, None]:
    """Train a model. This returns a generator of one `Report` per epoch, or per `report_steps` steps.

    Arguments are checked at the call. The training runs while the reports are read. It takes no callbacks. Early
    stopping, checkpoints, progress bars and logs are ordinary functions that wrap this iterator. Steps run in compiled
    chunks over data on the device, with at most two chunks in flight. Metrics are arrays that may not be computed yet.
    `float(report.metrics["loss"])` waits for the number.

    Args:
        model: a layer.
        loss: `(prediction, target) -> scalar`; one of `funcnet.losses` or your own.
        optimizer: one of `funcnet.optimizers`.
        data: a tuple of arrays `(x, target)`, `(x, target, where)` or `(x, target, where, weights)`. Any other iterable
            is a source of batches, which are such tuples (or lists). So is a function without arguments that gives an
            iterable, such as a generator function. Each pass over it is an epoch. x and target are arrays, or anything
            that NumPy can read as one, or trees of them, rows first. Without a target write `(x, None)`, and the loss
            is called as `loss(prediction, None)`. `where` says which values count in the loss, and `weights` says by
            how much they count. Both have the shape of the loss's values or a leading part of it, such as (rows,) or
            (rows, time). For a `losses.weighted_sum` they may be dictionaries with one entry for each part. At the
            places that `where` excludes, the target may be anything. NaN in x is always refused, because 0 · NaN is NaN
            in the backward pass. All batches of an iterable have the shapes of the first one, but for one other number
            of rows, such as that of the last batch, which is a program of its own. x of a batch may have leaves of
            other lengths than the rows, as graphs have. The rows are then those of the target or of `where`. NumPy
            arrays are copied once, and each batch of an iterable as it is read. So both may be written to meanwhile.
            Data larger than memory need an iterable.
        engine: `"autodiff"` or `"backprop"`, whose results agree up to rounding; or a function `(model, loss, *,
            penalty=None) -> gradient` of your own, with `gradient(params, state, batch, key) -> Gradient`. With an
            engine of your own, `fit` does not apply the model or the loss itself. It checks no target, the loss may be
            `None`, metrics read `Gradient.prediction`, and `state` must be given if `model.init` cannot take x. The
            engine's batch is `(x, target)`, with `where` and `weights` if the data have them. It also has a `where` if
            the last batch is incomplete.
        epochs: passes over the data, including those already done in `state`.
        batch_size: rows per update; `None` for all rows, that is, gradient descent on the full batch. For arrays only.
        accumulate: how many equal parts a batch is computed in, one after the other, to save memory. It must divide the
            rows of the batch. The result is that of the whole batch, as `gradients.accumulated` says.
        key: a PRNG key or an integer seed, for the first parameters, the order of the data, augmentation and dropout.
            The order is a pure function of (key, epoch).
        state: a `TrainState` of this model and optimizer from which to continue, exactly as if the run had never
            stopped; or one of `create_state`.
        cursor: `report.cursor`, the position at which an iterable of batches continues. The iterable needs `get_state`
            and `set_state`, which `data.Batches` and grain's iterators have. Arrays need no cursor, because their
            position follows from the step.
        validation: arrays as in `data`. Loss and metrics are computed on them for each report, as `validation_…`. A
            model that samples in evaluation too gets the same key each time.
        metrics: name -> `Metric`, computed during training on the predictions of the steps since the last report.
            Metrics of one part of the prediction are in a dictionary: `{"digit": {"accuracy": accuracy()}}` gives
            `"digit/accuracy"`, of `prediction["digit"]`, `target["digit"]` and its `where` and `weights`.
        penalty: `params -> scalar` added to the loss, such as `losses.l2_penalty`.
        augment: `(key, x, target) -> (x, target)`, such as functions of `funcnet.data`. Each training batch goes
            through it inside the compiled step. It may change shapes and structure, for example to the one-hot rows
            that `data.mixup` makes, and the model is made for its result. It must keep the rows, and it does not change
            `where` and `weights`. The metrics compare with the targets of the data, and validation is not augmented.
        shuffle: whether each epoch has an order of its own.
        drop_last: leave out an incomplete last batch. Otherwise the batch is filled up with rows from the start of the
            epoch's order. These are masked in the loss and the metrics, so the loss needs a `where` argument.
        report_steps: steps between reports; `None` for an epoch.
        copy_state: whether a yielded state stays valid forever, at the price of one copy per report. With `False` it is
            valid until the next report is asked for.
        layout: of `parallel.layout`, for a run on several devices. The numbers are those of one device, up to rounding.
        stop: `step -> bool`, called after each chunk of steps. If it returns `True`, the run ends with one last report,
            whose metrics are those of the steps since the previous report. It is `partial` if no report was due there.
            `stop_on_signals` makes such a function.
        watchdog: seconds without progress, including compilation, after which the process ends and prints the stacks of
            its threads to stderr. The time between a report and the next call does not count.

    `metrics["loss"]` of a report is the mean over everything that counted since the previous report, whatever the batch
    size. A loss that is not a mean of values, such as the root of a mean, is averaged over the batches, weighted by
    their rows. For a `losses.weighted_sum` there is also the mean of each part, such as `"loss/digit"`, without its
    weight.

    Raises:
        ConfigError, DataError, LabelError, ShapeError, DtypeError, StructureError: at the call.
        OutOfMemoryError: before the first step, if the compiled program needs more memory than the device has.
        DivergenceError: the loss of a report is not finite, which is raised when the next report is asked for; or
            `optimizers.guarded` skipped too many steps in a row.

    Warns:
        TrainingWarning: the generator was given up before the first report was asked for.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> x = jnp.linspace(-1, 1, 20)[:, None]
    >>> reports = fn.training.fit(
    ...     fn.layers.dense(1), fn.losses.mean_squared_error, fn.optimizers.sgd(0.3), (x, 3 * x + 1),
    ...     engine="backprop", epochs=50, batch_size=5, key=0)
    >>> *_, last = reports
    >>> last.epoch, last.step, round(float(last.state.optimizer.params["kernel"][0, 0]), 2)
    (50, 200, 3.0)
    """
    with leading("fit"):
        gradient_of = _engine(engine)
        check_optimizer(optimizer)
        if gradient_of in ENGINES.values() and not callable(getattr(model, "init", None)):
            raise ConfigError(f"expected model to be a layer, such as layers.dense(3), got {describe(model)}.")
        kinds = {"stop": (stop, "step -> bool"), "penalty": (penalty, "params -> scalar")}
        for what, (function, wanted) in kinds.items():
            if function is not None:
                check_kind(what, function, Callable, f"a function {wanted}")
        epochs, accumulate = check_count("epochs", epochs), check_count("accumulate", accumulate)
        for what, count in {"batch_size": batch_size, "report_steps": report_steps}.items():
            if count is not None:
                check_count(what, count)
        layout, key = ONE_DEVICE if layout is None else layout, as_key(key)
        check_kind("layout", layout, Layout, "one of parallel.layout")
        own = None if gradient_of in ENGINES.values() else gradient_of

        def check_rows(rows: int) -> None:
            layout.check_rows("fit", "batch_size", rows)
            check_accumulate(accumulate, rows)

        feed: Any = None
        if isinstance(data, tuple):
            if cursor is not None:
                raise ConfigError("expected no cursor with arrays, whose order follows from the step in state.")
            feed = ArrayFeed(
                checked_data(unpacked("data", data)), batch_size, epochs, key=key, shuffle=shuffle, drop_last=drop_last,
                report_steps=report_steps, layout=layout,
            )  # fmt: skip
        else:
            _check_batches(data, batch_size)
            feed = IteratorFeed(
                data, lambda batch: checked_data(batch, graphs=True), check_rows, epochs, report_steps=report_steps,
                cursor=cursor,
            )  # fmt: skip
            check_graphs(feed.data, layout, accumulate)
        check_rows(feed.batch_size)
        named = measures(metrics, feed.data)
        if own is None:
            check_takes(loss, feed.data, feed.masked)

        example = feed.example if augment is None else as_augmented(augment, key, feed.example)
        if state is None:
            started: Any = first_state(model, optimizer, key, example, layout, own)
        else:
            check_state(state, model if own is None else None, optimizer, example[0])
            started = own_arrays(state)
        feed.check_unfinished(int(started.optimizer.step))
        started = copy(layout.place_state(started))  # the loop donates its state, and the caller's arrays must survive

        params, model_state = jax.eval_shape(lambda state: (state.optimizer.params, state.model), started)

        check = None
        if own is None:
            check = target_check(loss, predicted(model, params, model_state, example[0], key), feed.example, example)
            check(feed.data)
        held_out, tested = None, None
        if validation is not None:
            if own is not None and not (callable(getattr(model, "apply", None)) and callable(loss)):
                got = f"{describe(model)} and {describe(loss)}; evaluate the reports in a loop of your own"
                raise ConfigError(f"expected a model with apply and an ordinary loss for validation, got {got}.")
            held_out = checked_data(unpacked("validation", validation))
            check_takes(loss, held_out)
            measures(metrics, held_out)
            # With the rows of a training batch, whose shapes jax has traced already.
            rows, batch_rows = rows_of(held_out), rows_of(example)
            try:
                prediction = predicted(model, params, model_state, resized(held_out[0], rows, batch_rows), key)
            except FuncnetError:
                check_batches(*held_out[:2])
                raise
            check_target(loss, resized(prediction, batch_rows, rows), *held_out[1:])
            tested = evaluator(model, loss, named, layout.place_data)
            held_out = layout.place_data(own_arrays(held_out))
        if layout is ONE_DEVICE:
            check_devices(feed.data, state=started, validation=held_out)

        def evaluate(state: TrainState) -> dict[str, Array]:
            if tested is None:
                return {}
            result = tested(state.optimizer.params, state.model, held_out, 1024, state.key)
            return {f"validation_{name}": value for name, value in result.items()}

        program = reused(
            compiled_chunk, model, loss, optimizer, gradient_of, penalty, named, augment, layout, accumulate
        )  # fmt: skip
        factors = factors_under(gradient_of, loss)
        tally = layout.place_data(new_tally(named, factors))
        program.trace(started, tally, feed.kind())  # so that what the parts of a step raise stands at the call
        ending = Watchdog(watchdog)

    def results(tally: Any) -> dict[str, Array]:
        return tally_result(tally, named, factors)

    position = Position(int(started.optimizer.step), feed.steps, len(jax.tree.leaves(started.optimizer.params)))
    reports = _reports(program.run, feed, check, started, tally, results, evaluate, copy_state, stop, ending, position)
    return Reports(reports, "fit", epochs, position)


def _reports(run, feed, check, state, blank, results_of, evaluate, copy_state, stop, watchdog, position):
    """The generator behind `fit`."""
    pace, alarm = Pace(feed.most_steps), GuardAlarm(state.optimizer, feed.rows_of)
    step = position.step
    tally = copy(blank)  # for the loop to donate
    report, counted = None, 0
    finalizing = sys.is_finalizing  # bound here, as the names of this module may be gone when the interpreter ends
    try:
        watchdog.progress()
        for chunk in feed.chunks(step, pace, check):
            with leading("fit"):
                state, tally, token = run(state, tally, chunk)
            for ended in pace.started(token, chunk.steps):
                alarm(*ended)
            watchdog.progress()
            step += chunk.steps
            position.step = step
            stopping = stop is not None and stop(step)
            if jax.process_count() > 1:
                stopping = pace.agree(stopping)
            if chunk.reports or stopping:
                if alarm.armed:  # so that no report has a state that its guard has given up
                    for ended in pace.finish():
                        alarm(*ended)
                check_finite(report, counted)
                results, counted = results_of(tally) | evaluate(state), tally["loss"].counted
                tally = copy(blank)
                shown = copy(state) if copy_state else state
                report = Report(chunk.epoch, step, results, shown, chunk.cursor, partial=not chunk.reports)
                watchdog.pause()
                yield report
                watchdog.progress()
                pace.resumed()
            if stopping:
                break
        for ended in pace.finish():
            alarm(*ended)
        check_finite(report, counted)
    finally:
        if not finalizing():
            watchdog.pause()
            pace.finish()


def _engine(engine: Any) -> Any:
    if isinstance(engine, str) and engine in ENGINES:
        return ENGINES[engine]
    if isinstance(engine, str) or not callable(engine):
        wanted = '"autodiff", "backprop" or a function (model, loss, *, penalty=None) -> gradient'
        raise ConfigError(f"expected engine to be {wanted}, got {describe(engine)}.")
    return engine


def _check_batches(data: Any, batch_size: int | None) -> None:
    wanted = "data to be (x, target) or an iterable of batches"
    if is_arraylike(data) or isinstance(data, Mapping):
        fix = "put it into a tuple, and without a target write (x, None)"
        raise DataError(f"expected {wanted}, got {describe(data)}; {fix}.")
    check_source(wanted, data)
    if isinstance(data, list) and data:
        _check_list(data)
    if batch_size is not None:
        raise ConfigError(f"expected batch_size to be None with an iterable of batches, got {batch_size}.")


def _check_list(data: list[Any]) -> None:
    """A list holds batches. It is neither the pair (x, target) nor single examples."""
    first, wanted = data[0], "a tuple of arrays, (x, target), or batches of rows"
    if not isinstance(first, tuple | list) or len(first) not in (2, 3, 4):
        fix = "write (x, target) in round brackets"
        raise DataError(f"expected data to be {wanted}, got a list that begins with {describe(first)}; {fix}.")
    if any(isinstance(entry, Real) or getattr(entry, "ndim", None) == 0 for entry in first):
        fix = "make arrays of them: x = np.stack([x for x, target in data])"
        raise DataError(f"expected data to be {wanted}, got a list of single examples; {fix}.")
