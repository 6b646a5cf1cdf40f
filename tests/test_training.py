"""Training: the step, `fit` and its contracts, evaluation, early stopping."""

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import norm_relative, worst_leaf

from funcnet import data, gradients, layers, losses, metrics, models, optimizers, training
from funcnet.errors import (
    ConfigError,
    DataError,
    DivergenceError,
    DtypeError,
    LabelError,
    ShapeError,
    TrainingWarning,
)  # fmt: skip
from funcnet.training import loop
from funcnet.types import Report, TrainState

MODEL = models.mlp((8, 3), dropout=0.2)
LOSS = losses.softmax_cross_entropy
OPTIMIZER = optimizers.adam(1e-2)


def blobs(n=50, dtype=np.float32):
    """Three clouds of points in the plane."""
    random = np.random.default_rng(0)
    target = np.arange(n) % 3
    centres = np.array([[0, 0], [2, 0], [0, 2]])
    return (centres[target] + 0.4 * random.normal(size=(n, 2))).astype(dtype), target


def fit(model=MODEL, loss=LOSS, optimizer=OPTIMIZER, rows=None, **options):
    defaults = {"epochs": 3, "batch_size": 10, "key": 0}
    return training.fit(model, loss, optimizer, blobs() if rows is None else rows, **(defaults | options))


def last_of(reports):
    *_, last = reports
    return last


def losses_of(reports):
    return np.array([float(report.metrics["loss"]) for report in reports])


# The step.


def test_train_step_is_gradient_then_update(x64):
    x, target = blobs(10, np.float64)
    gradient = gradients.backprop(MODEL, LOSS)
    state = training.create_state(MODEL, OPTIMIZER, 0, x)
    after, measured = jax.jit(training.train_step(gradient, OPTIMIZER))(state, (x, target))
    key = jax.random.fold_in(state.key, 0)
    computed = gradient(state.optimizer.params, state.model, (x, target), key)
    want = OPTIMIZER.update(state.optimizer, computed.grads)
    assert worst_leaf(after.optimizer, want) <= 1e-14
    np.testing.assert_allclose(measured["loss"], computed.loss, rtol=1e-14)
    np.testing.assert_array_equal(jax.random.key_data(after.key), jax.random.key_data(state.key))


def test_fit_is_the_step_in_a_loop(x64):
    """The compiled loop against the step from Python, batch by batch, in the order of `data`."""
    x, target = blobs(50, np.float64)
    reports = list(fit(rows=(x, target), report_steps=1, engine="backprop", key=7))
    step = jax.jit(training.train_step(gradients.backprop(MODEL, LOSS), OPTIMIZER))
    state = training.create_state(MODEL, OPTIMIZER, 7, x[:10])
    seed = tuple(int(word) for word in jax.random.key_data(jax.random.key(7)))
    for i, report in enumerate(reports):
        rows, where = data.batch_rows(seed, i, 50, 10)
        assert where.all()
        state, measured = step(state, (x[rows], target[rows]))
        np.testing.assert_allclose(report.metrics["loss"], measured["loss"], rtol=1e-12)
    assert worst_leaf(reports[-1].state.optimizer, state.optimizer) <= 1e-12
    assert len(reports) == 15


# Engines.


@pytest.mark.parametrize("wide, bound", [(False, 1e-5), (True, 1e-12)], ids=["float32", "float64"])
def test_engines_give_the_same_losses_over_a_whole_run(wide, bound):
    with jax.enable_x64(wide):
        rows = blobs(55, np.float64 if wide else np.float32)
        runs = [losses_of(fit(rows=rows, engine=e, epochs=20, report_steps=1)) for e in ("autodiff", "backprop")]
    assert len(runs[0]) == 120
    np.testing.assert_allclose(*runs, rtol=bound, atol=bound)
    assert runs[0][-10:].mean() < runs[0][:10].mean() / 2


def test_penalty_is_trained_on_and_reported():
    plain, decayed = (
        last_of(fit(penalty=penalty, epochs=30)) for penalty in (None, losses.partial(losses.l2_penalty, strength=0.05))
    )
    size = [float(losses.l2_penalty(report.state.optimizer.params)) for report in (plain, decayed)]
    assert size[1] < size[0] / 2
    assert float(decayed.metrics["loss"]) > 0.05 * size[1]


# Reports.


def test_one_report_an_epoch():
    reports = list(fit(epochs=4))
    assert [(r.epoch, r.step) for r in reports] == [(1, 5), (2, 10), (3, 15), (4, 20)]
    assert int(reports[-1].state.optimizer.step) == 20


def test_reports_every_so_many_steps_and_at_the_end():
    assert [(r.epoch, r.step) for r in fit(epochs=3, report_steps=4)] == [(1, 4), (2, 8), (3, 12), (3, 15)]


@pytest.mark.parametrize("report_steps", [1, 7, 100])
def test_the_length_of_a_chunk_changes_nothing(report_steps):
    """Bitwise: a chunk of any length runs one and the same compiled step."""
    whole = last_of(fit(epochs=6))
    other = last_of(fit(epochs=6, report_steps=report_steps))
    chex.assert_trees_all_equal(whole.state.optimizer, other.state.optimizer)


def test_two_runs_are_bitwise_equal_and_seeds_differ():
    a, b, c = (last_of(fit(key=key)).state.optimizer.params for key in (1, 1, 2))
    chex.assert_trees_all_equal(a, b)
    assert not jnp.array_equal(a[0]["kernel"], c[0]["kernel"])


def test_a_key_and_its_seed_are_the_same():
    chex.assert_trees_all_equal(
        last_of(fit(key=5)).state.optimizer, last_of(fit(key=jax.random.key(5))).state.optimizer
    )


def test_yielded_states_stay_valid():
    first, *_ = reports = list(fit())
    params = [np.asarray(r.state.optimizer.params[0]["kernel"]) for r in reports]
    assert not np.array_equal(params[0], params[-1])
    assert jnp.isfinite(first.state.optimizer.params[0]["kernel"]).all()


def test_without_copies_a_state_lives_until_the_next_report():
    reports = fit(copy_state=False)
    first = next(reports)
    kept = np.array(first.state.optimizer.params[0]["kernel"])
    assert np.isfinite(kept).all()
    *_, last = reports
    chex.assert_trees_all_equal(last.state.optimizer, last_of(fit()).state.optimizer)
    with pytest.raises(RuntimeError, match="deleted"):
        np.array(first.state.optimizer.params[0]["kernel"])


def test_resuming_is_exact():
    whole = list(fit(epochs=5))
    middle = whole[1].state
    resumed = list(fit(epochs=5, state=middle))
    assert [(r.epoch, r.step) for r in resumed] == [(3, 15), (4, 20), (5, 25)]
    chex.assert_trees_all_equal(resumed[-1].state.optimizer, whole[-1].state.optimizer)
    assert jnp.isfinite(middle.optimizer.params[0]["kernel"]).all()  # the caller's state was not donated


def test_resuming_in_the_middle_of_an_epoch_is_exact():
    whole = list(fit(rows=blobs(47), epochs=4, report_steps=3))
    resumed = list(fit(rows=blobs(47), epochs=4, report_steps=3, state=whole[1].state))
    chex.assert_trees_all_equal(resumed[-1].state.optimizer, whole[-1].state.optimizer)


def test_a_finished_state_is_named():
    with pytest.raises(ConfigError, match="expected epochs above 3, the number that state has done, got 3"):
        fit(state=last_of(fit()).state)


@pytest.mark.parametrize("key", [np.int64(4), 4, jax.random.key(4), jax.random.PRNGKey(4)])
def test_a_key_may_be_a_seed_or_a_key(key):
    with jax.legacy_prng_key("allow"):
        last = last_of(fit(models.linear(3), key=key))
    assert jnp.isfinite(last.metrics["loss"])


def test_a_wrong_key_is_named():
    with pytest.raises(DtypeError, match=r"^fit: expected key to be a PRNG key, got 'seed'; make one with \S+\.$"):
        fit(key="seed")


# Batches.


def count_rows():
    """A metric that adds up the rows it is shown."""
    return metrics.Metric(
        lambda: jnp.zeros((), jnp.int32),
        lambda state, prediction, target, where=None: state + (
            len(target) if where is None else jnp.sum(where, dtype=jnp.int32)
        ),
        lambda state: state,
    )  # fmt: skip


@pytest.mark.parametrize(
    "n, batch_size, drop_last, steps, rows",
    [
        (50, 10, False, 5, 50),
        (47, 10, False, 5, 47),
        (47, 10, True, 4, 40),
        (47, None, False, 1, 47),
        (7, 7, True, 1, 7),
    ],
)
def test_each_row_counts_once_an_epoch(n, batch_size, drop_last, steps, rows):
    reports = list(
        fit(rows=blobs(n), batch_size=batch_size, drop_last=drop_last, epochs=2, metrics={"rows": count_rows()})
    )
    assert [(r.step, int(r.metrics["rows"])) for r in reports] == [(steps, rows), (2 * steps, rows)]


def test_an_incomplete_batch_is_weighted_by_its_rows(x64):
    """With a rate of almost nothing the mean loss of an epoch is that of the data set, to the last row."""
    rows = blobs(47, np.float64)
    model = models.linear(3)
    report = next(fit(model, optimizer=optimizers.sgd(1e-300), rows=rows))
    params, state = report.state.optimizer.params, report.state.model
    whole = LOSS(model.apply(params, state, rows[0])[0], rows[1])
    np.testing.assert_allclose(report.metrics["loss"], whole, rtol=1e-13)


def test_the_incomplete_batch_trains_as_a_smaller_batch(x64):
    x, target = blobs(7, np.float64)
    model, optimizer = models.linear(3), optimizers.sgd(0.1)
    padded = last_of(fit(model, optimizer=optimizer, rows=(x, target), batch_size=5, epochs=1, shuffle=False))
    state = training.create_state(model, optimizer, 0, x)
    step = training.train_step(gradients.autodiff(model, LOSS), optimizer)
    for part in (slice(0, 5), slice(5, 7)):
        state, _ = step(state, (x[part], target[part]))
    assert worst_leaf(padded.state.optimizer.params, state.optimizer.params) <= 1e-13


def test_full_batch_gradient_descent_falls_steadily():
    values = losses_of(fit(models.linear(3), optimizer=optimizers.sgd(0.5), batch_size=None, epochs=40))
    assert (np.diff(values) < 0).all()


def test_batches_from_an_iterable():
    """A list of batches trains as the arrays they came from."""
    x, target = blobs(50)
    batches = [(x[i : i + 10], target[i : i + 10]) for i in range(0, 50, 10)]
    from_arrays = list(fit(shuffle=False))
    from_batches = list(fit(rows=batches, batch_size=None))
    assert [(r.epoch, r.step) for r in from_batches] == [(1, 5), (2, 10), (3, 15)]
    assert worst_leaf(from_batches[-1].state.optimizer, from_arrays[-1].state.optimizer) <= 1e-6


def test_batches_with_a_mask_from_an_iterable():
    x, target = blobs(47)
    source = data.Batches(x, target, 10, seed=3)
    reports = list(fit(rows=source, batch_size=None, epochs=2, metrics={"rows": count_rows()}))
    assert [int(r.metrics["rows"]) for r in reports] == [47, 47]


def test_an_endless_iterator_reports_by_steps():
    def endless():
        while True:
            yield blobs(10)

    reports = fit(rows=endless(), batch_size=None, epochs=1, report_steps=20)
    assert [next(reports).step for _ in range(3)] == [20, 40, 60]
    reports.close()


# Augmentation.


def jittered(key, x, target):
    return x + 0.1 * jax.random.normal(key, x.shape, x.dtype), target


def mixed(key, x, target):
    return data.mixup(key, x, jax.nn.one_hot(target, 3, dtype=x.dtype))


def test_augmentation_is_within_the_step(x64):
    """Against the step from Python; the model, which has dropout, gets the other half of the key."""
    x, target = blobs(10, np.float64)
    reports = list(fit(rows=(x, target), augment=jittered, shuffle=False, key=7))
    state = training.create_state(MODEL, OPTIMIZER, 7, x)
    gradient = jax.jit(gradients.autodiff(MODEL, LOSS))
    for i, report in enumerate(reports):
        augment_key, key = jax.random.split(jax.random.fold_in(state.key, i))
        computed = gradient(state.optimizer.params, state.model, jittered(augment_key, x, target), key)
        state = TrainState(OPTIMIZER.update(state.optimizer, computed.grads), computed.state, state.key)
        np.testing.assert_allclose(report.metrics["loss"], computed.loss, rtol=1e-12)
    assert worst_leaf(reports[-1].state.optimizer, state.optimizer) <= 1e-12


def test_augmentation_changes_the_run_and_its_key_decides():
    plain, one, again, other = (
        last_of(fit(augment=augment, key=key)).state.optimizer.params[0]["kernel"]
        for augment, key in [(None, 1), (jittered, 1), (jittered, 1), (jittered, 2)]
    )
    assert jnp.array_equal(one, again)
    assert not jnp.array_equal(one, plain)
    assert not jnp.array_equal(one, other)


def test_engines_agree_on_mixed_labels(x64):
    """Labels become one-hot rows and these mixtures, in an incomplete batch too."""
    rows = blobs(47, np.float64)
    runs = [losses_of(fit(rows=rows, engine=e, augment=mixed, report_steps=1)) for e in ("autodiff", "backprop")]
    np.testing.assert_allclose(*runs, rtol=1e-12)


def test_resuming_an_augmented_run_is_exact():
    options = {"rows": blobs(47), "epochs": 4, "report_steps": 3, "augment": jittered}
    whole = list(fit(**options))
    resumed = list(fit(**options, state=whole[1].state))
    chex.assert_trees_all_equal(resumed[-1].state.optimizer, whole[-1].state.optimizer)


@pytest.mark.parametrize("batches", [False, True], ids=["arrays", "iterable"])
def test_augmented_rows_count_once(x64, batches):
    """Features and labels both changed: the loss is that of the new ones, without the rows that fill the last batch;
    metrics compare with the labels of the data, and validation is as it was."""
    model, (x, target) = models.linear(3), blobs(47, np.float64)
    report = next(
        fit(
            model, optimizer=optimizers.sgd(1e-300), rows=data.Batches(x, target, 10) if batches else (x, target),
            batch_size=None if batches else 10, augment=lambda key, x, target: (x + 1, (target + 1) % 3),
            metrics={"accuracy": metrics.accuracy(), "rows": count_rows()}, validation=(x, target),
        )
    )  # fmt: skip
    params, state = report.state.optimizer.params, report.state.model
    seen, _ = model.apply(params, state, x + 1)
    np.testing.assert_allclose(report.metrics["loss"], LOSS(seen, (target + 1) % 3), rtol=1e-13)
    np.testing.assert_allclose(report.metrics["accuracy"], (seen.argmax(1) == target).mean())
    assert report.metrics["rows"] == 47
    np.testing.assert_allclose(
        report.metrics["validation_loss"], LOSS(model.apply(params, state, x)[0], target), rtol=1e-13
    )


@pytest.mark.parametrize(
    "augment, error, message",
    [
        (3, ConfigError, r"expected augment to be a function \(key, x, target\) -> \(x, target\), got 3"),
        (lambda key, x, target: x, ConfigError, r"to return the pair \(x, target\), got an array of dtype"),
        (lambda key, x, target: (x, target, 1), ConfigError, r"to return the pair \(x, target\), got a tuple of 3"),
        (
            lambda key, x, target: (x, (target, 1)),
            ShapeError,
            r"of the 10 rows of the batch, got target/1 of shape \(\)",
        ),
        (lambda key, x, target: ({"a": x[1:]}, target), ShapeError, r"10 rows of the batch, got x/a of shape \(9, 2\)"),
        (lambda key, x, target: (x, target[1:]), ShapeError, r"10 rows of the batch, got target of shape \(9,\)"),
        (lambda key, x, target: (x, x), LabelError, "softmax_cross_entropy: expected a target of 3 classes, .* got 2"),
        (lambda key, x, target: (data.random_flip(key, x), target), ShapeError, "random_flip: expected images"),
    ],
)
def test_wrong_augmentation_is_named(augment, error, message):
    with pytest.raises(error, match=message):
        fit(augment=augment)


# Compilation.


def test_the_step_is_traced_once_for_a_whole_run_and_the_next():
    traced = []

    def spy(x, *, key, train):
        traced.append((x.shape, train))
        return x, None

    optimizer = optimizers.sgd(0.1, momentum=0.9)
    for engine in ("autodiff", "backprop"):
        model = layers.serial(layers.dense(3), layers.parameterless(spy, lambda residuals, dy: dy))
        list(fit(model, optimizer=optimizer, rows=blobs(50), engine=engine, epochs=4, batch_size=7))
        # Twice for shapes alone, by init and for the loss to look at the targets, and once by the loop.
        assert sorted(traced) == [((7, 3), False)] * 2 + [((7, 3), True)]
        traced.clear()
        list(fit(model, optimizer=optimizer, rows=blobs(50), engine=engine, epochs=2, batch_size=7, key=3))
        assert ((7, 3), True) not in traced
        traced.clear()


def test_a_jitted_step_is_traced_once():
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(training.train_step(gradients.autodiff(MODEL, LOSS), OPTIMIZER), 1))
    state = training.create_state(MODEL, OPTIMIZER, 0, blobs()[0])
    for seed in range(3):
        x, target = blobs(10)
        state, _ = step(state, (x + seed, target))
    assert int(state.optimizer.step) == 3


def test_steps_that_a_loop_would_slow_down_run_one_by_one(x64, monkeypatch):
    """Those with autodiff's convolutions, on a CPU; the results are the loop's."""
    model = layers.serial(layers.reshape((2, 1)), layers.conv(4, (2,)), layers.flatten(), layers.dense(3))
    reorders, found = loop.reorders, []

    def watched(program):
        found.append(reorders(program))
        return found[-1]

    def params(engine):
        loop.compiled_chunk.cache_clear()
        return last_of(fit(model, rows=blobs(50, np.float64), engine=engine, epochs=2)).state.optimizer.params

    monkeypatch.setattr(loop, "reorders", watched)
    by_hand, by_autodiff = params("backprop"), params("autodiff")
    assert found == [False, True]
    monkeypatch.setattr(loop, "reorders", lambda program: False)
    assert worst_leaf(params("autodiff"), by_autodiff) <= 1e-13
    assert worst_leaf(by_hand, by_autodiff) <= 1e-13


# Validation, metrics, evaluation.


def test_validation_is_evaluated_at_each_report(x64):
    rows, held_out = blobs(50, np.float64), blobs(31, np.float64)
    chosen = {"accuracy": metrics.accuracy()}
    report = last_of(fit(rows=rows, validation=held_out, metrics=chosen))
    params, state = report.state.optimizer.params, report.state.model
    logits, _ = MODEL.apply(params, state, held_out[0])
    np.testing.assert_allclose(report.metrics["validation_loss"], LOSS(logits, held_out[1]), rtol=1e-12)
    np.testing.assert_allclose(report.metrics["validation_accuracy"], (logits.argmax(1) == held_out[1]).mean())
    assert set(report.metrics) == {"loss", "accuracy", "validation_loss", "validation_accuracy"}


@pytest.mark.parametrize("batch_size", [1, 7, 31, 1000])
def test_evaluation_counts_the_incomplete_batch_by_its_rows(x64, batch_size):
    x, target = blobs(31, np.float64)
    params, state = MODEL.init(jax.random.key(0), x)
    logits, _ = MODEL.apply(params, state, x)
    result = training.evaluate(
        MODEL, LOSS, params, state, (x, target), batch_size=batch_size,
        metrics={"accuracy": metrics.accuracy(), "confusion": metrics.confusion_matrix(3)},
    )  # fmt: skip
    assert norm_relative(result["loss"], LOSS(logits, target)) <= 1e-14
    np.testing.assert_allclose(result["accuracy"], (logits.argmax(1) == target).mean())
    assert int(result["confusion"].sum()) == 31


# Early stopping.


def reports_of(*values, name="validation_loss"):
    return iter([Report(i, i, {name: v}, i) for i, v in enumerate(values)])


@pytest.mark.parametrize(
    "values, options, want",
    [
        ((3.0, 2.0, 1.0), {"patience": 1}, [0, 1, 2]),  # improves to the end
        ((3.0, 1.0, 2.0, 2.0, 0.0), {"patience": 2}, [0, 1, 2, 3, 1]),  # stops, and gives back the best
        ((3.0, 1.0, 2.0), {"patience": 9}, [0, 1, 2, 1]),  # ends by itself: the best all the same
        ((1.0, 0.99, 0.98), {"patience": 2, "min_delta": 0.05}, [0, 1, 2, 0]),  # too small to count
        ((0.1, 0.9, 0.5), {"patience": 1, "mode": "max"}, [0, 1, 2, 1]),
        ((float("nan"), 1.0, 2.0), {"patience": 2}, [0, 1, 2, 1]),  # not a number is no improvement
        ((float("nan"),) * 3, {"patience": 2}, [0, 1, 2, 0]),
        ((), {"patience": 2}, []),
    ],
)
def test_early_stopping(values, options, want):
    assert [r.epoch for r in training.early_stopping(reports_of(*values), **options)] == want


def test_early_stopping_does_not_judge_a_stop_within_an_epoch():
    """The least value of all is passed on, and neither is the best nor makes the others wait."""
    first, second, stop, third, last = reports_of(2.0, 3.0, 0.5, 3.0, 1.0)
    reports = iter([first, second, stop._replace(partial=True), third, last])
    assert [r.epoch for r in training.early_stopping(reports, patience=3)] == [0, 1, 2, 3, 4]
    reports = iter([first, second, stop._replace(partial=True)])
    assert [r.epoch for r in training.early_stopping(reports, patience=1)] == [0, 1, 0]
    reports = iter([first, stop._replace(partial=True)])
    assert [r.epoch for r in training.early_stopping(reports, patience=1)] == [0, 2, 0]


@pytest.mark.parametrize("at, partial", [(1, True), (4, False)])
def test_a_report_of_a_stop_within_an_epoch_says_so(at, partial):
    *before, last = fit(epochs=9, report_steps=4, stop=lambda step: step >= at)
    assert (last.step, last.partial) == (at, partial)
    assert not any(report.partial for report in before)


def test_early_stopping_closes_the_run_it_stops():
    closed = []

    def reports():
        try:
            while True:
                yield Report(0, 0, {"validation_loss": 1.0}, None)
        finally:
            closed.append(True)

    assert len(list(training.early_stopping(reports(), patience=3))) == 5
    assert closed == [True]


def test_early_stopping_restores_the_best_parameters():
    *_, best = training.early_stopping(fit(optimizer=optimizers.sgd(2.0), validation=blobs(20), epochs=40), patience=3)
    params, state = best.state.optimizer.params, best.state.model
    again = training.evaluate(MODEL, LOSS, params, state, blobs(20))
    np.testing.assert_allclose(again["loss"], best.metrics["validation_loss"], rtol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"patience": 0}, "expected patience to be a positive integer, got 0"),
        ({"patience": 1, "min_delta": -1.0}, "min_delta to be a finite number >= 0, got -1.0"),
        ({"patience": 1, "mode": "low"}, 'mode to be "min" or "max", got \'low\''),
        ({"patience": 1, "monitor": "accuracy"}, r"monitor to be one of \['validation_loss'\], got 'accuracy'"),
    ],
)
def test_early_stopping_names_impossible_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        list(training.early_stopping(reports_of(1.0), **options))


# Bad input: named before the first step, when `fit` is called.


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"optimizer": optimizers.sgd}, ConfigError,
         r"^fit: expected optimizer to be an optimizer, such as .*; call its constructor"),
        ({"engine": "manual"}, ConfigError, r'engine to be "autodiff", "backprop" or a function .*, got \'manual\'\.'),
        ({"engine": 3}, ConfigError, r'^fit: expected engine to be "autodiff", "backprop" or a function .*, got 3\.'),
        ({"epochs": 0}, ConfigError, "expected epochs to be a positive integer, got 0"),
        ({"epochs": None}, ConfigError, "expected epochs to be a positive integer, got None"),
        ({"epochs": 1.5}, ConfigError, "expected epochs to be a positive integer, got 1.5"),
        ({"batch_size": 0}, ConfigError, "expected batch_size to be a positive integer, got 0"),
        ({"report_steps": -1}, ConfigError, "expected report_steps to be a positive integer, got -1"),
        ({"batch_size": 51}, DataError, "^fit: expected batch_size to be at most 50, the number of rows, got 51"),
        ({"rows": (np.zeros((0, 2), np.float32), np.zeros(0, int))}, DataError, "with at least one row"),
        ({"rows": (blobs()[0], blobs()[1][:-1])}, DataError, "^fit: expected x and target of one length"),
        ({"rows": (blobs()[0], blobs()[1] - 1)}, LabelError, r"expected label in 0\.\.2, got -1 at row 0"),
        ({"rows": (blobs()[0], blobs()[1] + 1)}, LabelError, r"expected label in 0\.\.2, got 3 at row 2"),
        ({"rows": (blobs()[0], blobs()[1].astype(np.float32))}, LabelError,
         "expected target to be integers, got dtype float32"),
        ({"rows": (blobs()[0], np.eye(4)[blobs()[1]])}, LabelError, "a target of 3 classes, as prediction has, got 4"),
        ({"rows": (np.where(np.arange(100).reshape(50, 2) == 31, np.nan, blobs()[0]), blobs()[1])}, DataError,
         r"x\[15, 1\] is nan"),
        ({"rows": ((255 * np.abs(blobs()[0])).astype(np.uint8), blobs()[1])}, DtypeError,
         r"dense\(8, .*\): expected x of a floating dtype, got an array of dtype uint8 .*scale images to"),
        ({"rows": (blobs()[1], blobs()[0])}, DataError, r"^fit: expected \(x, target\), .* int32.*look swapped"),
        ({"rows": (*blobs(), blobs()[1])}, DtypeError, "^fit: expected where of dtype bool, got int64; compare it"),
        ({"rows": (*blobs(), None, blobs()[1] - 1)}, DataError,
         "^fit: expected weights to be finite numbers >= 0, got -1 at row 0"),
        ({"rows": (*blobs(), None, None, None)}, DataError, r"^fit: expected data to be .*got a tuple of 5"),
        ({"rows": (blobs()[0],)}, DataError, r"^fit: expected data to be .*, got a tuple of 1; .* write \(x, None\)"),
        ({"rows": blobs()[0]}, DataError, r"^fit: expected data to be .*, got an array .* write \(x, None\)"),
        ({"rows": {"x": blobs()[0]}}, DataError, r"^fit: expected data to be .*, got a dict; .* write \(x, None\)"),
        ({"rows": ((), blobs()[1])}, DataError, r"^fit: expected x with at least one row and no empty axis"),
        ({"rows": (None, blobs()[1])}, DataError, "^fit: expected x with at least one array, got None"),
        ({"rows": 3, "batch_size": None}, DataError, "an iterable of batches, got 3"),
        ({"rows": [], "batch_size": None}, DataError, "an iterable without any"),
        ({"rows": list(blobs())}, DataError, r"begins with an array .*; write \(x, target\) in round brackets\.$"),
        ({"rows": [1, 2, 3]}, DataError, "got a list that begins with 1; write"),
        ({"rows": list(zip(*blobs(), strict=True))}, DataError, "got a list of single examples; .* np.stack"),
        ({"rows": (blobs(10), blobs(10))}, DataError, "two tuples of 2 that look like batches; join batches"),
        ({"rows": (blobs(10),) * 3}, DataError, r"data to be \(x, target\), .* got a tuple of 3; join batches, x"),
        ({"validation": [blobs(10)] * 5}, DataError, r"validation to be \(x, target\), .* got a list of 5; join"),
        ({"validation": [blobs(10)] * 2}, DataError, "two tuples of 2 that look like batches; join batches, x"),
        ({"validation": iter([blobs(10)])}, DataError, r"validation to be .* got a list_iterator .*; join batches"),
        ({"model": jax.nn.relu}, ConfigError, r"^fit: expected model to be a layer, such as .*, got a custom_jvp\."),
        ({"stop": 3}, ConfigError, "^fit: expected stop to be a function step -> bool, got 3"),
        ({"penalty": 0.1}, ConfigError, "^fit: expected penalty to be a function params -> scalar, got 0.1"),
        ({"layout": 3}, ConfigError, "^fit: expected layout to be one of parallel.layout, got 3"),
        ({"metrics": {"r": metrics.r_squared()}}, ShapeError, r"r_squared\(\): expected target of the shape"),
        ({"validation": blobs()[:1]}, DataError, r"^fit: expected validation to be \(x, target\), .*got a tuple of 1"),
        ({"accumulate": 0}, ConfigError, "^fit: expected accumulate to be a positive integer, got 0"),
        ({"accumulate": 4}, ConfigError, "^fit: expected accumulate to divide the 10 rows of a batch, got 4; take 2"),
        ({"accumulate": 2, "loss": lambda p, t: p.sum()}, ConfigError,
         r"^fit\(accumulate=2\): expected a loss that is a mean of values, got <lambda>"),
        ({"loss": None}, ConfigError, "^fit: expected loss to be a loss, such as losses.mean_squared_error, got None"),
        ({"metrics": {"loss": metrics.accuracy()}}, ConfigError, "do not begin with loss or validation_.*got 'loss'"),
        ({"metrics": {"validation_a": metrics.accuracy()}}, ConfigError, "expected names of metrics .*'validation_a'"),
        ({"metrics": {"loss": {"a": metrics.accuracy()}}}, ConfigError, "^fit: expected names of metrics .*'loss/a'"),
        ({"metrics": {"a": metrics.accuracy}}, ConfigError, "^fit: expected the metric 'a' to be a Metric"),
        ({"metrics": metrics.accuracy()}, ConfigError, "^fit: expected metrics to be a dictionary"),
        ({"rows": [blobs(10)]}, ConfigError, "expected batch_size to be None with an iterable of batches, got 10"),
        ({"validation": (blobs()[0], blobs()[1] + 1)}, LabelError, r"expected label in 0\.\.2, got 3 at row 2"),
        ({"loss": lambda p, t: jnp.mean(p), "batch_size": 7}, ConfigError, "to take where="),
    ],
)  # fmt: skip
def test_fit_names_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        fit(**options)


def test_a_run_that_nobody_reads_warns_once_and_names_its_line():
    def unread():
        training.fit(MODEL, LOSS, OPTIMIZER, blobs(), epochs=1)

    def unread_within():
        training.early_stopping(training.fit(MODEL, LOSS, OPTIMIZER, blobs(), epochs=1), patience=1)

    for call in (unread, unread_within):
        with pytest.warns(TrainingWarning, match="^fit: expected its reports to be read, got nobody") as warned:
            call()
        places = [(Path(warning.filename).name, warning.lineno) for warning in warned]
        assert places == [("test_training.py", call.__code__.co_firstlineno + 1)]


def test_a_run_is_a_generator():
    """Warnings are errors here: none of these may warn, and what a started run does at its end stays as it was."""
    reports = fit()
    assert isinstance(reports, Generator)
    assert iter(reports) is reports
    reports.close()
    assert list(reports) == []
    with pytest.raises(KeyError, match="mine"):
        fit().throw(KeyError("mine"))
    reports = fit(epochs=9)
    assert next(reports).epoch == 1
    assert reports.send(None).epoch == 2
    with pytest.raises(KeyError, match="mine"):
        reports.throw(KeyError("mine"))
    assert list(reports) == []


def test_unknown_options_are_named():
    with pytest.raises(TypeError, match="unexpected keyword argument 'batchsize'"):
        fit(batchsize=3)


def test_batches_must_be_alike():
    with pytest.raises(DataError, match="expected all batches of the shapes and dtypes of the first one"):
        list(fit(rows=[blobs(10), (blobs(10)[0].astype(np.float16), blobs(10)[1])], batch_size=None))
    with pytest.raises(LabelError, match=r"expected label in 0\.\.2, got 3"):
        list(fit(rows=[blobs(9), (blobs(9)[0], blobs(9)[1] + 1)], batch_size=None))
    with pytest.raises(DataError, match="expected 2 passes over the batches, but they ended before pass 2"):
        list(fit(rows=iter([blobs(10)]), batch_size=None, epochs=2))


def test_a_loss_without_where_trains_on_whole_batches():
    assert np.isfinite(losses_of(fit(loss=lambda p, t: jnp.mean(p**2), drop_last=True))).all()


def test_divergence_is_named():
    with pytest.raises(DivergenceError, match=r"the loss is (inf|nan) at step \d+ \(epoch \d+\); try a smaller"):
        list(fit(models.linear(1), losses.mean_squared_error, optimizers.sgd(1e4), epochs=40,
                 rows=(blobs()[0], blobs()[0][:, :1])))  # fmt: skip


def test_a_run_that_is_left_is_silent_at_the_end():
    program = """
import funcnet as fn
reports = fn.training.fit(
    fn.models.mlp((8, 10)), fn.losses.softmax_cross_entropy, fn.optimizers.sgd(0.1), fn.data.digits(), epochs=9,
    batch_size=100)
next(reports)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
