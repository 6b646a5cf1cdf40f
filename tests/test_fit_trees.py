"""`fit` and `evaluate` with batches that are trees, masks, weights, several losses, and engines of one's own."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import worst_leaf

import funcnet as fn
from funcnet import data, gradients, layers, losses, metrics, optimizers, training
from funcnet.errors import (
    ConfigError,
    DataError,
    DtypeError,
    FuncnetError,
    LabelError,
    MissingKeyError,
    ShapeError,
    StructureError,
)  # fmt: skip
from funcnet.types import Gradient, Padded, TrainState

ENGINES = ("autodiff", "backprop")
RANDOM = np.random.default_rng(0)
N = 23
A, B = (RANDOM.standard_normal((N, width), np.float32) for width in (3, 2))
CODES = RANDOM.integers(0, 5, (N,)).astype(np.int32)
LABELS = (CODES % 3).astype(np.int32)
TIMES = RANDOM.standard_normal((N, 4, 3), np.float32)
THERE = np.arange(4) < RANDOM.integers(1, 5, N)[:, None]
STATES = np.where(THERE, RANDOM.integers(0, 2, (N, 4)), -1).astype(np.int32)  # −1 where nothing is
KNOWN = RANDOM.uniform(size=N) < 0.6
INK = np.where(KNOWN[:, None], B, np.nan).astype(np.float32)  # NaN where it is not known
WEIGHTS = RANDOM.uniform(0.1, 2, N).astype(np.float32)
SGD = optimizers.sgd(0.1, momentum=0.9)
STILL = optimizers.sgd(1e-300)  # the reports of an epoch are those of one set of parameters


def lookup(rows, features):
    """Integers to vectors. dtable[i] = Σ of the gradients at the places that looked up i."""

    def forward(params, state, x, *, key=None, train=False):
        return params["table"][x], state, x

    def backward(params, x, dy):
        return {"table": jnp.zeros_like(params["table"]).at[x].add(dy)}, None

    leaves = {"table": (fn.initializers.normal(1.0), (rows, features), jnp.float32)}
    return layers.layer(forward, backward, leaves=leaves)


def added():
    """The sum of two entries, each of which gets the whole gradient."""

    def forward(x, *, key, train):
        return x["image"] + x["code"], None

    return layers.parameterless(forward, lambda kept, dy: {"image": dy, "code": dy}, trees=True)


@losses.hand_derived
def energy(prediction, target, *, where=None):
    """½ Σ_rows |p|² over the rows that count, by their number, of a prediction alone; ∂/∂p = p / rows."""
    del target
    counts = jnp.ones(len(prediction)) if where is None else where.astype(jnp.float32)
    return 0.5 * jnp.sum(counts[:, None] * prediction**2) / jnp.maximum(counts.sum(), 1)


@energy.hand_gradient
def _(prediction, target, *, where=None):
    del target
    counts = jnp.ones(len(prediction)) if where is None else where.astype(jnp.float32)
    return counts[:, None] * prediction / jnp.maximum(counts.sum(), 1)


class Case(NamedTuple):
    model: fn.Layer
    loss: Any
    data: tuple[Any, ...]
    metrics: Any = None


HEADS = layers.serial(
    layers.dense(4), layers.tanh(), layers.dropout(0.1), layers.parallel(digit=layers.dense(3), ink=layers.dense(2))
)
BOTH = losses.weighted_sum(digit=(1.0, losses.softmax_cross_entropy), ink=(0.5, losses.mean_squared_error))
CASES = {
    "two inputs": Case(
        layers.serial(
            layers.each(image=layers.dense(4), code=lookup(5, 4)), added(), layers.dropout(0.2), layers.dense(3)
        ),
        losses.softmax_cross_entropy,
        ({"image": A, "code": CODES}, LABELS),
        {"accuracy": metrics.accuracy()},
    ),
    "two outputs": Case(
        HEADS, BOTH,
        (A, {"digit": LABELS, "ink": INK}, {"ink": KNOWN}, {"digit": WEIGHTS}),
        {"digit": {"accuracy": metrics.accuracy()}},
    ),
    "masked": Case(
        layers.serial(layers.dense(4), layers.tanh(), layers.dropout(0.1), layers.dense(2)),
        losses.softmax_cross_entropy, (TIMES, STATES, THERE, WEIGHTS), {"accuracy": metrics.accuracy()},
    ),
    "padded": Case(
        layers.serial(layers.dense(4), layers.tanh(), layers.dropout(0.1), layers.dense(2)),
        losses.softmax_cross_entropy, (Padded(TIMES, THERE), STATES), {"accuracy": metrics.accuracy()},
    ),
    "no target": Case(layers.dense(2), energy, (A, None)),
}  # fmt: skip
by_case = pytest.mark.parametrize("name", CASES)
by_engine = pytest.mark.parametrize("engine", ENGINES)


def fit(case, rows=None, *, model=None, loss=None, optimizer=SGD, **options):
    defaults = {"epochs": 3, "batch_size": 5, "key": 0, "metrics": case.metrics}
    loss = case.loss if loss is None else loss
    return training.fit(model or case.model, loss, optimizer, rows or case.data, **(defaults | options))


def last_of(reports):
    *_, last = reports
    return last


def same_bits(a, b):
    a, b = (jax.tree.leaves(jax.tree.map(np.asarray, (s.optimizer, s.model))) for s in (a, b))
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def same_numbers(a, b):
    return set(a) == set(b) and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


# Trees through arrays, iterators, resume.


@by_case
@by_engine
def test_trees_train_and_resume_bit_for_bit(name, engine):
    """With an incomplete last batch, from every third step on."""
    case = CASES[name]
    whole = list(fit(case, engine=engine, epochs=6, report_steps=1, validation=case.data))
    values = [float(r.metrics["loss"]) for r in whole]
    assert np.mean(values[-5:]) < np.mean(values[:5])
    for report in whole[:-1:7]:
        end = last_of(fit(case, engine=engine, epochs=6, report_steps=1, state=report.state, validation=case.data))
        assert same_bits(end.state, whole[-1].state)
        assert same_numbers(end.metrics, whole[-1].metrics)


@by_case
def test_engines_agree_on_trees(name):
    runs = [list(fit(CASES[name], engine=engine, report_steps=1)) for engine in ENGINES]
    for a, b in zip(*runs, strict=True):
        for key, value in a.metrics.items():
            np.testing.assert_allclose(b.metrics[key], value, rtol=1e-4, atol=1e-6, err_msg=key)


def batches(case, **options):
    """What the case holds, in batches; those of parts have no incomplete one."""
    x, target, where, weights = (*case.data, None, None)[:4]
    drop = {"drop_last": isinstance(where, dict)}
    return data.Batches(x, target, 5, where=where, weights=weights, **(drop | options))


@by_case
@by_engine
def test_trees_in_batches_are_those_of_arrays_and_resume_bit_for_bit(name, engine):
    case = CASES[name]
    whole = list(fit(case, batches(case, seed=7), engine=engine, batch_size=None, report_steps=1))
    for report in whole[:-1:4]:
        end = last_of(
            fit(
                case, batches(case, seed=7), engine=engine, batch_size=None, report_steps=1, state=report.state,
                cursor=report.cursor,
            )
        )  # fmt: skip
        assert same_bits(end.state, whole[-1].state)
    in_order = last_of(fit(case, batches(case, shuffle=False), engine=engine, batch_size=None))
    arrays = last_of(fit(case, engine=engine, shuffle=False, drop_last=name == "two outputs"))
    assert worst_leaf(in_order.state.optimizer.params, arrays.state.optimizer.params) <= 1e-5
    np.testing.assert_allclose(in_order.metrics["loss"], arrays.metrics["loss"], rtol=1e-5)


def test_batches_may_be_lists_of_trees():
    """As torch's default collate gives them; two inputs in a tuple stay two."""
    case = CASES["two inputs"]
    model = layers.serial(layers.each(layers.dense(4), lookup(5, 4)), pair_added(), layers.dense(3))
    cut = [slice(i, i + 5) for i in range(0, 20, 5)]
    lists = [[(A[rows], CODES[rows]), LABELS[rows].tolist()] for rows in cut]
    tuples = [((A[rows], CODES[rows]), LABELS[rows]) for rows in cut]
    a, b = (last_of(fit(case, rows, model=model, batch_size=None)) for rows in (lists, tuples))
    assert same_bits(a.state, b.state)


def pair_added():
    return layers.parameterless(lambda x, *, key, train: (x[0] + x[1], None), lambda kept, dy: (dy, dy), trees=True)


# Batches of graphs: x with leaves of other lengths than the rows.


def graphs(edges=7):
    """Nodes, and edges (from, to) of another number; the target is one for each node."""
    random = np.random.default_rng(1)
    for i in range(10):
        x = {"nodes": random.standard_normal((6, 3), np.float32), "edges": random.integers(0, 6, (edges, 2), np.int32)}
        yield x, (np.arange(6) % 2).astype(np.int32), np.arange(6) < 5 - i % 2


def neighbours():
    """Each node with the sum over the edges to it; the gradient flows back along them."""

    def moved(values, edges, back):
        start, end = (edges[:, 1], edges[:, 0]) if back else (edges[:, 0], edges[:, 1])
        return jnp.zeros_like(values).at[end].add(values[start])

    def forward(x, *, key, train):
        return x["nodes"] + moved(x["nodes"], x["edges"], False), x["edges"]

    def backward(edges, dy):
        return {"nodes": dy + moved(dy, edges, True), "edges": None}

    return layers.parameterless(forward, backward, trees=True)


GRAPH = layers.serial(neighbours(), layers.dense(4), layers.tanh(), layers.dense(2))


def graph_fit(rows, **options):
    return training.fit(GRAPH, losses.softmax_cross_entropy, SGD, rows, epochs=1, **options)


@by_engine
def test_graphs_train_as_steps_from_python(engine):
    report = last_of(graph_fit(list(graphs()), engine=engine))
    step = training.train_step(getattr(gradients, engine)(GRAPH, losses.softmax_cross_entropy), SGD)
    state = training.create_state(GRAPH, SGD, 0, next(graphs())[0])
    for batch in graphs():
        state, _ = step(state, jax.tree.map(jnp.asarray, batch))
    assert worst_leaf(report.state.optimizer.params, state.optimizer.params) <= 1e-5


def test_graphs_without_a_target_have_the_rows_of_where():
    rows = [(x, None, where) for x, _, where in graphs()]
    assert np.isfinite(last_of(training.fit(GRAPH, energy, SGD, rows, epochs=1)).metrics["loss"])
    with pytest.raises(
        DataError, match="^fit: batch 0 of pass 1: expected x/edges and x/nodes of one length, got 7 and 6 rows; if"
    ):
        training.fit(GRAPH, energy, SGD, [(x, None) for x, _, _ in graphs()], epochs=1)


def test_where_graphs_do_not_go():
    several = fn.parallel.layout(fn.parallel.mesh())._replace(check_rows=refuse)
    with pytest.raises(
        ShapeError, match="^fit: expected the same number of rows in every .* got 7 in x/edges and 6 rows; batches of"
    ):
        graph_fit(list(graphs()), layout=several)
    with pytest.raises(ConfigError, match="^fit: expected no accumulate= .* got 7 in x/edges and 6 rows; take smaller"):
        graph_fit(list(graphs()), accumulate=2)
    x, target, where = next(graphs())
    with pytest.raises(DataError, match="^fit: expected x/edges and x/nodes of one length, got 7 and 6 rows"):
        graph_fit((x, target, where))
    with pytest.raises(DataError, match="^fit: batch 0 of pass 1: expected target and where of one length, got 6"):
        graph_fit([(x, target, where[:5])])


def refuse(call, what, count):
    if count % 8:
        raise ShapeError(f"{call}: {what} {count}")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, t, w: ({**x, "edges": x["edges"][:5]}, t, w), r"int32\[7, 2\] in x/edges, got int32\[5, 2\]; fill"),
        (lambda x, t, w: ({"nodes": x["nodes"]}, t, w), r"int32\[7, 2\] in x/edges, got nothing"),
        (lambda x, t, w: (x, t.astype(np.int16), w), r"int32\[6\] in target, got int16\[6\]"),
        (lambda x, t, w: (x, t), r"bool\[6\] in where, got nothing"),
        (lambda x, t, w: (x, t, w, np.ones(6)), r"nothing in weights, got float32\[6\]"),
        (
            lambda x, t, w: ({"nodes": x["nodes"], "edges": [x["edges"]]}, t, w),
            r"int32\[7, 2\] in x/edges, got nothing",
        ),
    ],
)
def test_batches_are_like_the_first_one(change, message):
    first, second, *_ = graphs()
    start = "^fit: batch 1 of pass 1: expected all batches of the shapes and dtypes of the first one"
    with pytest.raises(DataError, match=f"{start}, {message}"):
        list(graph_fit([first, change(*second)]))


# Means: whatever the batch size, against NumPy.


def numpy_entropies(logits, labels):
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, np.maximum(labels, 0)[..., None], -1)[..., 0]


def expected(name, apply):
    """The means of a case, from the predictions of a model."""
    if name == "two outputs":
        out = {key: np.float64(value) for key, value in apply(A).items()}
        entropies = numpy_entropies(out["digit"], LABELS)
        digit = np.sum(WEIGHTS * entropies) / np.sum(WEIGHTS)
        ink = np.mean((out["ink"] - B)[KNOWN] ** 2)
        hit = np.sum(WEIGHTS * (out["digit"].argmax(-1) == LABELS)) / np.sum(WEIGHTS)
        return {"loss": digit + 0.5 * ink, "loss/digit": digit, "loss/ink": ink, "digit/accuracy": hit}
    counts = THERE * (WEIGHTS[:, None] if name == "masked" else 1.0)
    out = apply(TIMES) if name == "masked" else apply(Padded(TIMES, THERE)).values
    out = np.float64(out)
    return {
        "loss": np.sum(counts * numpy_entropies(out, STATES)) / np.sum(counts),
        "accuracy": np.sum(counts * (out.argmax(-1) == STATES)) / np.sum(counts),
    }


def without_dropout(model):
    return layers.map_layers(lambda place, layer: layers.held(layer), model)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 23])
@pytest.mark.parametrize("name", ["two outputs", "masked", "padded"])
@by_engine
def test_means_do_not_depend_on_the_batch_size(name, batch_size, engine):
    case = CASES[name]
    model = without_dropout(case.model)
    report = next(fit(case, model=model, optimizer=STILL, batch_size=batch_size, engine=engine, validation=case.data))
    params, state = report.state.optimizer.params, report.state.model
    want = expected(name, lambda x: jax.tree.map(np.asarray, model.apply(params, state, x)[0]))
    assert set(report.metrics) == {*want, *(f"validation_{key}" for key in want)}
    result = training.evaluate(model, case.loss, params, state, case.data, batch_size=batch_size, metrics=case.metrics)
    assert set(result) == set(want)
    for key, value in want.items():
        for got in (report.metrics[key], report.metrics[f"validation_{key}"], result[key]):
            np.testing.assert_allclose(got, value, rtol=2e-6, err_msg=key)


def test_a_penalty_is_in_the_loss_and_in_no_part():
    case = CASES["two outputs"]
    model = without_dropout(case.model)
    l2 = losses.partial(losses.l2_penalty, strength=0.1)
    plain, decayed = (next(fit(case, model=model, optimizer=STILL, penalty=penalty)) for penalty in (None, l2))
    size = l2(decayed.state.optimizer.params)
    np.testing.assert_allclose(decayed.metrics["loss"], plain.metrics["loss"] + size, rtol=1e-6)
    np.testing.assert_allclose(decayed.metrics["loss/ink"], plain.metrics["loss/ink"], rtol=1e-6)


def test_a_part_in_which_nothing_counts_adds_nothing():
    case = CASES["two outputs"]
    x, target, _, _ = case.data
    none = (x, {**target, "ink": np.full_like(INK, np.nan)}, {"ink": np.zeros(N, bool)})
    report = next(fit(case, none, optimizer=STILL))
    assert np.isnan(report.metrics["loss/ink"])
    np.testing.assert_allclose(report.metrics["loss"], report.metrics["loss/digit"], rtol=1e-6)


def test_sums_within_sums_are_named_by_both():
    inner = losses.weighted_sum(a=(2.0, losses.mean_squared_error), b=(1.0, losses.huber))
    loss = losses.weighted_sum(ink=(0.5, inner), digit=(1.0, losses.softmax_cross_entropy))
    model = layers.serial(
        layers.dense(4),
        layers.parallel(ink=layers.parallel(a=layers.dense(2), b=layers.dense(2)), digit=layers.dense(3)),
    )
    rows = (A, {"ink": {"a": B, "b": B}, "digit": LABELS}, {"ink": {"a": KNOWN}})
    report = next(training.fit(model, loss, STILL, rows, epochs=1, batch_size=5, metrics={
        "ink": {"a": {"seen": metrics.mean_loss(losses.mean_squared_error)}}}))  # fmt: skip
    out = jax.tree.map(np.asarray, model.apply(report.state.optimizer.params, report.state.model, A)[0])
    a = np.mean((out["ink"]["a"] - B)[KNOWN] ** 2)
    np.testing.assert_allclose(report.metrics["loss/ink/a"], a, rtol=1e-5)
    np.testing.assert_allclose(report.metrics["ink/a/seen"], a, rtol=1e-5)
    whole = 0.5 * (2.0 * a + report.metrics["loss/ink/b"]) + report.metrics["loss/digit"]
    np.testing.assert_allclose(report.metrics["loss"], whole, rtol=1e-6)


def test_a_loss_that_is_not_a_mean_is_averaged_by_rows():
    model = layers.dense(2)
    report = next(training.fit(model, losses.root_mean_squared_error, STILL, (A, B), epochs=1, batch_size=10,
                               shuffle=False))  # fmt: skip
    y = np.asarray(model.apply(report.state.optimizer.params, (), A)[0])
    parts = [np.sqrt(np.mean((y - B)[rows] ** 2)) for rows in (slice(10), slice(10, 20), slice(20, 23))]
    np.testing.assert_allclose(report.metrics["loss"], np.average(parts, weights=[10, 10, 3]), rtol=1e-6)


@pytest.mark.parametrize("name", ["two outputs", "masked"])
def test_what_where_excludes_is_in_no_sum(name):
    """Rubbish there changes no bit of the run."""
    case = CASES[name]
    x, target, *rest = case.data
    if name == "masked":
        other = np.where(THERE, STATES, 777).astype(np.int32)
    else:
        other = {**target, "ink": np.where(KNOWN[:, None], INK, 1e30).astype(np.float32)}
    runs = [last_of(fit(case, (x, one, *rest), validation=(x, one, *rest))) for one in (target, other)]
    assert same_bits(runs[0].state, runs[1].state)
    assert same_numbers(runs[0].metrics, runs[1].metrics)


def test_weights_train_as_rows_that_come_more_than_once():
    model, times = layers.dense(2), np.arange(N) % 3
    weighted, repeated = (
        last_of(training.fit(model, losses.mean_squared_error, SGD, rows, epochs=20))
        for rows in ((A, B, None, times), (np.repeat(A, times, 0), np.repeat(B, times, 0)))
    )
    assert worst_leaf(weighted.state.optimizer.params, repeated.state.optimizer.params) <= 1e-5
    np.testing.assert_allclose(weighted.metrics["loss"], repeated.metrics["loss"], rtol=1e-5)


# Batches computed in parts.


@pytest.mark.parametrize("name", ["two outputs", "masked", "padded"])
@by_engine
def test_accumulating_changes_nothing(name, engine):
    """With an incomplete last batch, whose parts count differently much, and with masks and weights."""
    case = CASES[name]
    model = without_dropout(case.model)
    whole, parts = (list(fit(case, model=model, engine=engine, batch_size=6, accumulate=k)) for k in (1, 3))
    assert [(r.epoch, r.step) for r in parts] == [(1, 4), (2, 8), (3, 12)]
    assert int(parts[-1].state.optimizer.step) == 12
    for a, b in zip(whole, parts, strict=True):
        assert worst_leaf(b.state.optimizer.params, a.state.optimizer.params) <= 1e-5
        for key, value in a.metrics.items():
            np.testing.assert_allclose(b.metrics[key], value, rtol=1e-5, err_msg=key)


def test_accumulating_resumes_bit_for_bit():
    options = {"batch_size": 6, "accumulate": 2, "report_steps": 1}
    whole = list(fit(CASES["masked"], **options))
    end = last_of(fit(CASES["masked"], **options, state=whole[4].state))
    assert same_bits(end.state, whole[-1].state)


def test_accumulating_is_refused_where_parts_do_not_add_up():
    normed = layers.serial(layers.dense(4), layers.batch_norm(), layers.dense(2))
    with pytest.raises(ConfigError, match=r"^fit\(accumulate=5\): expected layers that .* serial\[1\] batch_norm"):
        training.fit(normed, losses.mean_squared_error, SGD, (A, B), epochs=1, batch_size=5, accumulate=5)
    with pytest.raises(ConfigError, match=r"^fit\(accumulate=5\): expected a gradient of autodiff or backprop"):
        training.fit(layers.dense(2), losses.mean_squared_error, SGD, (A, B), epochs=1, batch_size=5, accumulate=5,
                     engine=by_hand)  # fmt: skip
    with pytest.raises(ConfigError, match=r"^fit: expected accumulate to divide the 23 rows of a batch, got 2; take 1"):
        training.fit(layers.dense(2), losses.mean_squared_error, SGD, (A, B), epochs=1, accumulate=2)


# Augmentation that changes shapes and structure.


@by_engine
def test_augmentation_may_change_everything(engine):
    """One array in, labels out; the model sees two views and one-hot rows. Its parameters are made for these."""

    def augment(key, x, target):
        noisy = x + 0.1 * jax.random.normal(key, x.shape, x.dtype)
        return {"image": jnp.concatenate([x, noisy], 1), "code": target}, jax.nn.one_hot(target, 3)

    case = CASES["two inputs"]
    reports = list(fit(case, (A, LABELS), augment=augment, engine=engine, epochs=6, report_steps=1))
    assert reports[0].state.optimizer.params[0]["image"]["kernel"].shape == (6, 4)
    end = last_of(
        fit(case, (A, LABELS), augment=augment, engine=engine, epochs=6, state=reports[8].state, report_steps=1)
    )
    assert same_bits(end.state, reports[-1].state)
    with pytest.raises(LabelError, match=r"expected label in 0\.\.2, got 3 at row 0"):
        fit(case, (A, LABELS * 0 + 3), augment=augment)


def test_augmentation_may_make_the_target():
    """A denoising autoencoder: data without a target, masks and weights that pass on."""
    rows = (A, None, KNOWN, WEIGHTS)
    report = last_of(
        training.fit(
            layers.dense(3), losses.mean_squared_error, optimizers.sgd(0.1), rows, epochs=30, batch_size=5,
            augment=lambda key, x, target: (x + 0.01 * jax.random.normal(key, x.shape, x.dtype), x),
        )
    )  # fmt: skip
    assert report.metrics["loss"] < 0.1
    with pytest.raises(ShapeError, match=r"mean_squared_error: expected where of shape \(5,\).*, got \(5, 2\)"):
        training.fit(layers.serial(layers.dense(1), layers.reshape(())), losses.mean_squared_error, SGD,
                     (A, None, np.ones((N, 2), bool)), epochs=1, batch_size=5,
                     augment=lambda key, x, target: (x, x[:, 0]))  # fmt: skip


# Engines of one's own.


def by_hand(model, loss, *, penalty=None):
    """Backpropagation, written once more."""

    def gradient(params, state, batch, key=None, /):
        x, target, *where = batch
        options = {"where": where[0]} if where else {}
        prediction, state, kept = model.forward(params, state, x, key=key, train=True)
        grads, _ = model.backward(params, kept, loss.gradient(prediction, target, **options))
        return Gradient(
            loss(prediction, target, **options), grads, state, prediction, loss.counted(prediction, target, **options)
        )

    return gradient


def test_an_engine_of_ones_own_is_taken_wherever_the_two_are():
    case = CASES["two inputs"]
    own, named, given = (
        list(fit(case, engine=engine, report_steps=2, validation=case.data))
        for engine in (by_hand, "backprop", gradients.backprop)
    )
    for a, b in zip(own, named, strict=True):
        assert same_bits(a.state, b.state)
        assert same_numbers(a.metrics, b.metrics)
    assert same_bits(given[-1].state, named[-1].state)
    end = last_of(fit(case, engine=by_hand, state=own[2].state))
    assert same_bits(end.state, own[-1].state)


def alone(models, loss, *, penalty=None):
    """Two models, no loss and no target: the second follows the first, whose parameters stay."""
    first, second = models["first"], models["second"]

    def gradient(params, state, batch, key=None, /):
        x = batch[0] + 0.0 * jax.random.normal(key, batch[0].shape)

        def objective(params):
            teacher, _ = first.apply(jax.lax.stop_gradient(params["first"]), (), x)
            student, _ = second.apply(params["second"], (), x)
            return jnp.mean((teacher - student) ** 2)

        value, grads = jax.value_and_grad(objective)(params)
        return Gradient(value, grads, state, None)

    return gradient


PAIR = {"first": layers.dense(2), "second": layers.dense(2)}


def pair_state(optimizer=SGD):
    params = {name: PAIR[name].init(jax.random.key(i), A)[0] for i, name in enumerate(PAIR)}
    return training.create_state(PAIR, optimizer, 3, A, params=params)


def test_an_engine_may_have_models_of_its_own_and_no_loss():
    start = pair_state()
    reports = list(training.fit(PAIR, None, SGD, (A, None), engine=alone, epochs=40, batch_size=5, state=start))
    assert float(reports[-1].metrics["loss"]) < 1e-2 < float(reports[0].metrics["loss"])
    np.testing.assert_array_equal(
        reports[-1].state.optimizer.params["first"]["kernel"], start.optimizer.params["first"]["kernel"]
    )
    middle = training.fit(PAIR, None, SGD, (A, None), engine=alone, epochs=40, batch_size=5, state=reports[9].state)
    assert same_bits(last_of(middle).state, reports[-1].state)


def first_columns(model, loss, *, penalty=None):
    """An engine that runs the model on a part of x."""

    def gradient(params, state, batch, key=None, /):
        x, *rest = batch
        return gradients.autodiff(model, loss, penalty=penalty)(params, state, (x[:, :2], *rest), key)

    return gradient


def test_an_engine_may_run_the_model_on_what_it_makes_of_the_batch():
    """The state then has the shapes that the model was made for, and not those that its `init` makes of the rows."""
    model, start = layers.dense(2), training.create_state(layers.dense(2), SGD, 0, A[:, :2])
    run = training.fit(model, losses.mean_squared_error, SGD, (A, B), engine=first_columns, batch_size=4, epochs=1,
                       state=start, shuffle=False)  # fmt: skip
    plain = training.fit(model, losses.mean_squared_error, SGD, (A[:, :2], B), batch_size=4, epochs=1, state=start,
                         shuffle=False)  # fmt: skip
    assert same_numbers(last_of(run).metrics, last_of(plain).metrics)
    other = training.create_state(model, optimizers.adam(0.1), 0, A[:, :2])
    with pytest.raises(StructureError, match="^fit: expected state to be of the optimizer sgd"):
        next(training.fit(model, losses.mean_squared_error, SGD, (A, B), engine=first_columns, epochs=1, state=other))


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"state": None}, ConfigError, "^fit: expected a model whose init takes x, got a dict .*engine alone give"),
        ({"metrics": {"accuracy": metrics.accuracy()}}, ConfigError,
         "^fit: expected no metrics with the engine alone, whose Gradient has no prediction; give it one"),
        ({"validation": (A, B)}, ConfigError, "^fit: expected a model with apply and an ordinary loss for val"),
        ({"engine": lambda model, loss, *, penalty=None: lambda *a: (0.0, {})}, StructureError,
         "^fit: expected the engine <lambda> to return a function that gives a Gradient.*, got a tuple"),
    ],
)  # fmt: skip
def test_what_an_engine_of_ones_own_cannot_do_is_named(options, error, message):
    defaults = {"engine": alone, "epochs": 1, "batch_size": 5, "state": pair_state()}
    with pytest.raises(error, match=message):
        list(training.fit(PAIR, None, SGD, (A, None), **(defaults | options)))


# The state before the first step, and one to go on from.


def test_a_state_from_what_one_has():
    model = layers.serial(layers.dense(4), layers.batch_norm(), layers.dense(2))
    drawn = training.create_state(model, SGD, 5, A)
    params, state = model.init(jax.random.key(9), A)
    given = training.create_state(model, SGD, 5, A, params=params)
    assert worst_leaf(given.optimizer.params, params) == 0
    assert worst_leaf(given.model, drawn.model) == 0
    moved = jax.tree.map(lambda leaf: leaf + 1, state)
    both = training.create_state(model, SGD, 5, A, params=params, model_state=moved)
    assert both.model is moved
    np.testing.assert_array_equal(jax.random.key_data(both.key), jax.random.key_data(drawn.key))
    end = last_of(training.fit(model, losses.mean_squared_error, SGD, (A, B), epochs=1, state=both))
    assert int(end.state.optimizer.step) == 1
    assert training.create_state(PAIR, SGD, 0, None, params={"first": params}).model == ()


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"params": {"kernel": np.ones((3, 3), np.float32), "bias": np.ones(2, np.float32)}}, StructureError,
         r"^create_state: expected params with the leaves of model.init, got others: kernel has shape \(3, 3\), "
         r"expected \(3, 2\); take them"),
        ({"params": {"kernel": np.ones((3, 2), np.float16)}}, StructureError,
         "bias is missing; kernel has dtype float16, expected float32"),
        ({"params": layers.dense(2).init(jax.random.key(0), A)[0], "model_state": {"mean": A}}, StructureError,
         "^create_state: expected model_state .*: mean is unexpected"),
        ({"model_state": {"mean": A}}, StructureError, "^create_state: expected model_state .*: mean is unexpected"),
        ({"x": (5, 3)}, DtypeError, r"^create_state: expected x to be an array or .*, got a tuple \(5, 3\); the ex"),
        ({"key": "a"}, DtypeError, "^create_state: expected key to be a PRNG key, got 'a'"),
        ({"x": CODES}, DtypeError, r"^dense\(2\): expected x of a floating dtype"),
    ],
)  # fmt: skip
def test_what_create_state_cannot_take_is_named(options, error, message):
    with pytest.raises(error, match=message):
        training.create_state(**({"model": layers.dense(2), "optimizer": SGD, "key": 0, "x": A} | options))


def state_of(model, optimizer):
    return training.create_state(model, optimizer, 0, A)


@pytest.mark.parametrize(
    "state, message",
    [
        (state_of(layers.dense(2), optimizers.adam(0.1)),
         r"^fit: expected state to be of the optimizer sgd\(0.1, momentum=0.9\), got the AdamState of another: veloc"
         "ity.* is missing.*; take the state of a run with both"),
        (state_of(layers.dense(2), optimizers.guarded(SGD)), "got the GuardedState of another"),
        (state_of(layers.dense(3), SGD),
         r"^fit: expected state to be of this model for this x, got other params: bias has shape \(3,\), "
         r"expected \(2,\); kernel has shape \(3, 3\), expected \(3, 2\); take"),
        (state_of(layers.serial(layers.dense(2)), SGD), "other params: bias is missing; kernel is missing; 0/bias"),
        (TrainState(SGD.init(layers.dense(2).init(jax.random.key(0), A)[0]), {"mean": A}, jax.random.key(0)),
         "^fit: expected state to be of this model for this x, got other state .*: mean is unexpected"),
        (fn.Report(1, 1, {}, state_of(layers.dense(2), SGD)), "expected state to be a TrainState, got a Report; t"),
        ({"params": 1}, "^fit: expected state to be a TrainState, got a dict .*; take report.state, or create_state"),
        (TrainState((), (), jax.random.key(0)), "expected state to be of this model for this x, got other params"),
    ],
)  # fmt: skip
def test_a_state_of_something_else_is_one_named_error(state, message):
    with pytest.raises(StructureError, match=message):
        training.fit(layers.dense(2), losses.mean_squared_error, SGD, (A, B), epochs=1, state=state)


# Evaluation.


def sampler():
    """y = x + noise, in evaluation too."""

    def forward(x, *, key, train):
        if key is None:
            raise MissingKeyError("expected a key; this layer samples.")
        return x + jax.random.normal(key, x.shape), None

    return layers.parameterless(forward, lambda kept, dy: dy)


def test_models_that_sample_are_evaluated_with_a_key():
    model, params, state = sampler(), (), ()
    result = training.evaluate(model, losses.mean_squared_error, params, state, (A, A), batch_size=10, key=4)
    noise = [jax.random.normal(jax.random.fold_in(jax.random.key(4), i), (10, 3)) for i in range(3)]
    noise[2] = noise[2][-3:]  # the last batch goes back over seven rows that counted before
    np.testing.assert_allclose(result["loss"], np.mean(np.concatenate(noise) ** 2), rtol=1e-6)
    with pytest.raises(MissingKeyError, match="expected a key; this layer samples"):
        training.evaluate(model, losses.mean_squared_error, params, state, (A, A))
    noisy = layers.serial(layers.dense(3), sampler())
    reports = list(training.fit(noisy, losses.mean_squared_error, STILL, (A, A), epochs=2, validation=(A, A)))
    assert reports[0].metrics["validation_loss"] == reports[1].metrics["validation_loss"]


def count(prediction, target):
    return jnp.mean((prediction - target) ** 2)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"data": (A,)}, DataError, r"^evaluate: expected data to be \(x, target\), .*, got a tuple of 1; without a"),
        ({"data": A}, DataError, "^evaluate: expected data to be .*, got an array of dtype float32"),
        ({"data": (A, B[1:])}, DataError, "^evaluate: expected x and target of one length, got 23 and 22 rows"),
        ({"data": (A, B, KNOWN), "loss": count}, ConfigError, r"^evaluate: expected count to take where= \(the data"),
        ({"data": (A, B, None, WEIGHTS), "loss": energy}, ConfigError, r"^evaluate: expected energy to take weights="),
        ({"data": (A, B, THERE)}, ShapeError, r"mean_squared_error: expected where of shape \(23,\)"),
        ({"data": [(A, B)] * 2}, DataError, "^evaluate: .* two tuples of 2 that look like batches; join batches, x"),
        ({"batch_size": 0}, ConfigError, "^evaluate: expected batch_size to be a positive integer, got 0"),
        ({"key": "a"}, DtypeError, "^evaluate: expected key to be a PRNG key, got 'a'"),
        ({"metrics": {"loss": metrics.accuracy()}}, ConfigError, "^evaluate: expected names of metrics that do not"),
        ({"metrics": {"ink": {"error": metrics.accuracy()}}, "data": (A, B, {"ink": KNOWN}),
          "loss": losses.weighted_sum(code=(1.0, losses.mean_squared_error))}, ConfigError, "expected where for the"),
        ({"metrics": {"error": metrics.accuracy()}, "data": (A, B, {"a": KNOWN})}, ConfigError,
         "^evaluate: expected the metric 'error' to be of one part, because where has one entry for each of"),
        ({"metrics": {"rows": metrics.Metric(lambda: 0, lambda s, p, t, where=None: s, lambda s: s)},
          "data": (A, B, None, WEIGHTS)}, ConfigError, "^evaluate: expected the metric 'rows' to take weights="),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_named(changes, error, message):
    model = layers.dense(2)
    params, state = model.init(jax.random.key(0), A)
    arguments = {"loss": losses.mean_squared_error, "data": (A, B)} | changes
    with pytest.raises(error, match=message):
        training.evaluate(model, arguments.pop("loss"), params, state, arguments.pop("data"), **arguments)


def test_a_metric_of_a_part_that_there_is_not():
    with pytest.raises(
        ShapeError, match="^fit: expected prediction with an entry 'age' for the metric 'age/accuracy', got"
    ):
        list(fit(CASES["two outputs"], metrics={"age": {"accuracy": metrics.accuracy()}}))


def test_a_plain_loss_is_taken_where_nothing_is_masked():
    model = layers.dense(2)
    report = next(training.fit(model, count, STILL, (A, B), epochs=1, validation=(A, B)))
    y = np.asarray(model.apply(report.state.optimizer.params, (), A)[0])
    np.testing.assert_allclose(report.metrics["loss"], np.mean((y - B) ** 2), rtol=1e-6)
    with pytest.raises(ConfigError, match=r"^fit: expected count to take where= \(the last batch is incomplete\)"):
        training.fit(model, count, STILL, (A, B), epochs=1, batch_size=5)
    with pytest.raises(ConfigError, match=r"^fit: expected count to take weights= \(the data have weights\)"):
        training.fit(model, count, STILL, (A, B, None, WEIGHTS), epochs=1)


@pytest.mark.parametrize(
    "rows, error, message",
    [
        ((A, LABELS, THERE), ShapeError, r"softmax_cross_entropy: expected where of shape \(23,\), got \(23, 4\)"),
        ((A, np.where(KNOWN, LABELS, 9), ~KNOWN), LabelError, r"expected label in 0\.\.2, got 9 at row"),
        ((np.where(KNOWN[:, None], A, np.nan), LABELS, KNOWN), DataError, r"^fit: x\[\d+, 0\] is nan"),
    ],
)
def test_what_counts_is_checked(rows, error, message):
    with pytest.raises(error, match=message):
        training.fit(layers.dense(3), losses.softmax_cross_entropy, SGD, rows, epochs=1)
    assert issubclass(error, FuncnetError)
