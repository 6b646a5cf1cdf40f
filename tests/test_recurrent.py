"""Recurrences: values by loops of NumPy, cells against layers, padding, and what makes one vector of a sequence."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit, worst_leaf

import funcnet as fn
from funcnet import layers, trees
from funcnet.checking import check_gradients
from funcnet.errors import ConfigError, DtypeError, ShapeError, StructureError
from funcnet.layers.recurrent import recurrence
from funcnet.types import Padded, Rules

LENGTHS = [5, 3, 0, 1]
WHERE = jnp.arange(5) < jnp.array(LENGTHS)[:, None]
#: Positions that are missing at the beginning and in between.
GAPS = jnp.array([[False, True, True, False, True], [True] * 5, [False] * 5, [False, False, True, False, False]])


def numbers(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def made(layer, x, seed=3):
    """Params without zeros, and the state."""
    params, state = quick_jit(layer.init)(jax.random.key(0), x)
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.3 * random.normal(size=leaf.shape), params), state


def values(tree):
    return trees.map_leaves(lambda leaf: leaf.values if trees.is_padded(leaf) else leaf, tree)


@partial(jax.jit, static_argnames="layer")
def passes(layer, params, state, x, dy):
    """The values of y, and the gradients by hand."""
    y, _, residuals = layer.forward(params, state, x, train=True)
    return values(y), layer.backward(params, residuals, dy)


def both_passes(layer, params, state, x, where=None):
    """As `passes`, with some dy that is zero where there is nothing."""
    y = jax.eval_shape(lambda *a: values(layer.apply(*a)[0]), params, state, x)
    counts = y.ndim > 2 and where is not None
    dy = numbers(7, *y.shape)
    dy = jnp.where(where[..., None], dy, 0) if counts else dy
    return passes(layer, params, state, x, dy)


# Values


def sigma(z):
    return 1 / (1 + np.exp(-z))


def step_rnn(p, x, h, activation=np.tanh):
    return (activation(x @ p["kernel"] + h[0] @ p["recurrent_kernel"] + p["bias"]),)


def step_lstm(p, x, state):
    h, c = state
    i, f, g, o = np.split(x @ p["kernel"] + h @ p["recurrent_kernel"] + p["bias"], 4)
    c = sigma(f) * c + sigma(i) * np.tanh(g)
    return sigma(o) * np.tanh(c), c


def step_gru(p, x, state):
    (h,) = state
    r, u, n = np.split(x @ p["kernel"] + p["bias"], 3)
    hr, hu, hn = np.split(h @ p["recurrent_kernel"], 3)
    n = np.tanh(n + sigma(r + hr) * (hn + p["recurrent_bias"]))
    u = sigma(u + hu)
    return ((1 - u) * n + u * h,)


RECURRENCES = {
    "rnn": (layers.rnn, step_rnn, 1),
    "rnn_relu": (
        partial(layers.rnn, activation="relu"),
        partial(step_rnn, activation=lambda z: np.maximum(z, 0)),
        1,
    ),
    "lstm": (layers.lstm, step_lstm, 2),
    "gru": (layers.gru, step_gru, 1),
}


@pytest.mark.parametrize("name", RECURRENCES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("where", [WHERE, GAPS], ids=["lengths", "gaps"])
def test_recurrences_against_a_loop(x64, name, reverse, where):
    """Each sequence by itself, over the positions that it has."""
    make, step, states = RECURRENCES[name]
    x, layer = numbers(0, 4, 5, 2), make(3, reverse=reverse)
    params, state = made(layer, x)
    y, _ = layer.apply(params, state, Padded(x, where))
    expected, own = np.zeros((4, 5, 3)), jax.tree.map(np.asarray, params)
    for row in range(4):
        carried = (np.zeros(3),) * states
        for t in reversed(range(5)) if reverse else range(5):
            if where[row, t]:
                carried = step(own, np.asarray(x[row, t]), carried)
                expected[row, t] = carried[0]
    np.testing.assert_allclose(y.values, expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(y.where, where)


@pytest.mark.parametrize("name", RECURRENCES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("where", [None, GAPS], ids=["all", "gaps"])
def test_products_within_the_loop(x64, name, reverse, where, monkeypatch):
    """As a CPU makes them where there are many examples."""
    x, layer = numbers(0, 4, 5, 2), RECURRENCES[name][0](3, reverse=reverse)
    x = x if where is None else Padded(x, where)
    params, state = made(layer, x)
    dy = numbers(7, 4, 5, 3)
    dy = dy if where is None else jnp.where(where[..., None], dy, 0)

    def by_hand(params, x):
        return passes.__wrapped__(layer, params, state, x, dy)

    def by_autodiff(params, x):
        y, vjp = jax.vjp(lambda params, x: values(layer.apply(params, state, x)[0]), params, x)
        return y, vjp(dy)

    at_once = quick_jit(by_hand)(params, x)
    monkeypatch.setattr(recurrence, "MANY", 1)
    for one in (by_hand, by_autodiff):
        program = quick_jit(lambda *args, one=one: one(*args))
        assert "cpu_only" in program.lower(params, x).as_text(debug_info=True)
        assert worst_leaf(jax.tree.leaves(values(program(params, x))), jax.tree.leaves(values(at_once))) <= 1e-13


def test_the_first_params():
    params, _ = layers.lstm(8).init(jax.random.key(0), jnp.ones((2, 3, 50)))
    np.testing.assert_array_equal(params["bias"], [0] * 8 + [1] * 8 + [0] * 16)
    parts = np.split(params["recurrent_kernel"], 4, 1)
    for part in parts:  # each gate by itself
        np.testing.assert_allclose(part @ part.T, np.eye(8), atol=1e-5)
    assert np.abs(parts[0] - parts[1]).max() > 0.1
    assert 0.1 < np.std(params["kernel"]) < 0.18  # 1/√50 = 0.14
    ones = layers.lstm(8, forget_bias=0, bias_init=fn.initializers.ones)
    other, _ = ones.init(jax.random.key(0), jnp.ones((2, 50, 3)))
    np.testing.assert_array_equal(other["bias"], np.ones(32))
    assert jax.tree.map(jnp.shape, layers.gru(2).init(jax.random.key(0), jnp.ones((1, 1, 3)))[0]) == {
        "kernel": (3, 6), "recurrent_kernel": (2, 6), "bias": (6,), "recurrent_bias": (2,),
    }  # fmt: skip


def test_half_precision_carries_wide_numbers():
    """In bfloat16 a c that grows by 1/100 of itself would stop growing at once."""
    layer = layers.lstm(1)
    params = {"kernel": jnp.zeros((1, 4)), "recurrent_kernel": jnp.zeros((1, 4)), "bias": jnp.array([0, 20, 0.05, 0])}
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    wide, _ = layer.apply(params, (), jnp.zeros((1, 200, 1)))
    y, _ = layer.apply(narrow, (), jnp.zeros((1, 200, 1), jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y[0, -1].astype(float), wide[0, -1], rtol=0.01)


# Cells

CELLS = {
    "rnn": layers.rnn(3, activation="relu"),
    "lstm": layers.lstm(3),
    "gru": layers.gru(3),
    "stack": layers.serial(layers.dense(3), layers.tanh(), layers.repeat(layers.lstm(3), 2), layers.gru(2)),
    "residual": layers.residual(layers.recompute(layers.serial(layers.rnn(3), layers.dense(2)))),
    "over_time": layers.serial(layers.over_time(layers.serial(layers.dense(4), layers.tanh())), layers.gru(2)),
}


@pytest.mark.parametrize("where", [None, WHERE, GAPS], ids=["all", "lengths", "gaps"])
@pytest.mark.parametrize("layer", CELLS.values(), ids=CELLS.keys())
def test_the_scan_of_a_cell_is_the_layer(x64, layer, where):
    x = numbers(0, 4, 5, 2)
    given = x if where is None else Padded(x, where)
    params, state = made(layer, given)
    scan = layers.scan(layer.rules.cell)
    shapes = jax.eval_shape(scan.init, jax.random.key(0), given)
    assert shapes == trees.shapes((params, state))
    y, gradients = both_passes(layer, params, state, given, where)
    scanned = both_passes(scan, params, state, given, where)
    if where is not None:  # a layer such as dense leaves any numbers where there is nothing
        y = jnp.where(where[..., None], y, 0)
    assert worst_leaf(scanned, (y, gradients)) <= 1e-12


@pytest.mark.parametrize(
    "make, cell", [(layers.rnn, layers.rnn_cell), (layers.lstm, layers.lstm_cell), (layers.gru, layers.gru_cell)]
)
def test_backwards_in_time(x64, make, cell):
    """As forwards over the reversed sequence, and as the scan of the cell; and it has no cell to step with."""
    x, layer = Padded(numbers(0, 4, 5, 2), GAPS), make(3, reverse=True)
    params, state = made(layer, x)
    result = both_passes(layer, params, state, x, GAPS)
    assert worst_leaf(both_passes(layers.scan(cell(3), reverse=True), params, state, x, GAPS), result) <= 1e-12
    flipped = Padded(jnp.flip(x.values, 1), jnp.flip(GAPS, 1))
    y, _ = make(3).apply(params, state, flipped)
    np.testing.assert_allclose(jnp.flip(y.values, 1), result[0], rtol=1e-13)
    assert layer.rules.cell is None
    assert layers.scan(cell(3), reverse=True).rules.cell is None
    assert make(3).rules.cell is not None


@pytest.mark.parametrize("where", [None, GAPS], ids=["all", "gaps"])
def test_a_sequence_in_two_parts(x64, where):
    """The carry goes from the first part to the second, and its gradient back."""
    whole, part = layers.lstm(3), layers.scan(layers.lstm_cell(3), carry=True)
    x = numbers(0, 4, 5, 2)

    def cut(a, b):
        return x[:, a:b] if where is None else Padded(x[:, a:b], where[:, a:b])

    params, state = made(whole, x)
    y, (dparams, dx) = both_passes(whole, params, state, cut(0, 5), where)
    zero = (jnp.zeros((4, 3)),) * 2
    (carry, y1), _, kept1 = part.forward(params, state, (zero, cut(0, 2)))
    (_, y2), _, kept2 = part.forward(params, state, (carry, cut(2, 5)))
    assert worst_leaf(jnp.concatenate([values(y1), values(y2)], 1), y) <= 1e-14
    dy = numbers(7, 4, 5, 3)
    dy = dy if where is None else jnp.where(where[..., None], dy, 0)
    dparams2, (dcarry, dx2) = part.backward(params, kept2, ((None, None), dy[:, 2:]))
    dparams1, (dzero, dx1) = part.backward(params, kept1, (dcarry, dy[:, :2]))
    assert worst_leaf(jnp.concatenate([dx1, dx2], 1), dx) <= 1e-13
    assert worst_leaf(jax.tree.map(jnp.add, dparams1, dparams2), dparams) <= 1e-13
    assert trees.global_norm(dzero) > 0


def test_each_position_has_a_key_of_its_own():
    layer = layers.scan(layers.dropout(0.5).rules.cell)
    y, _ = layer.apply((), (), jnp.ones((2, 40, 10)), key=jax.random.key(0), train=True)
    assert not np.array_equal(y[:, 0], y[:, 1])
    assert 0.4 < np.mean(y == 0) < 0.6
    np.testing.assert_array_equal(layer.apply((), (), jnp.ones((2, 3, 4)))[0], 1)


@fn.constructor
def averaging():
    """A cell with a tree of a carry, also a count that no gradient reaches: y_t = (x_1 + … + x_t) / t."""

    def forward(params, state, x, *, key=None, train=False):
        (total, count), x = x
        total, count = total + x, count + 1
        t = count.astype(x.dtype)
        return ((total, count), total / t), state, t

    def backward(params, t, dy):
        dtotal = dy[0][0] + dy[1] / t
        return (), ((dtotal, None), dtotal)

    def start(params, state, x, length):
        return jnp.zeros(x.shape, x.dtype), jnp.zeros((), jnp.int32)

    return layers.layer(forward, backward, rules=Rules(start=start))


def test_a_carry_may_hold_integers(x64):
    x, layer = numbers(0, 2, 4, 3), layers.scan(averaging())
    y, _, residuals = layer.forward((), (), x)
    np.testing.assert_allclose(y, np.cumsum(np.asarray(x), 1) / np.arange(1, 5)[:, None], rtol=1e-14)
    dy = numbers(1, 2, 4, 3)
    _, dx = layer.backward((), residuals, dy)
    later = np.flip(np.cumsum(np.flip(np.asarray(dy) / np.arange(1, 5)[:, None], 1), 1), 1)
    np.testing.assert_allclose(dx, later, rtol=1e-13)


# Padding

TAKE_PADDING = {
    **CELLS,
    "reverse": layers.lstm(2, reverse=True),
    "bidirectional": layers.bidirectional(layers.serial(layers.gru(2), layers.dense(2))),
    "sum": layers.bidirectional(layers.lstm(2), combine="sum"),
    "scan": layers.scan(layers.lstm_cell(3), reverse=True),
    "last": layers.serial(layers.rnn(3), layers.last(), layers.dense(2)),
    "mean_over": layers.serial(layers.dense(3), layers.mean_over()),
    "max_over": layers.serial(layers.dense(3), layers.max_over()),
    "directly": layers.parallel(layers.last(), layers.mean_over(), layers.max_over(), combine="concatenate"),
}


@pytest.mark.parametrize("where", [WHERE, GAPS], ids=["lengths", "gaps"])
@pytest.mark.parametrize("layer", TAKE_PADDING.values(), ids=TAKE_PADDING.keys())
def test_what_stands_at_padded_positions_moves_nothing(x64, layer, where):
    x, there = numbers(0, 4, 5, 2), where[..., None]
    params, state = made(layer, Padded(x, where))

    def run(x):
        y, gradients = both_passes(layer, params, state, Padded(x, where), where)
        return (jnp.where(there, y, 0) if y.ndim > 2 else y), gradients

    y, (dparams, dx) = run(x)
    assert np.all(np.isfinite(y))
    assert trees.global_norm(jnp.where(there, 0, dx)) == 0
    assert trees.global_norm(jnp.where(there, dx, 0)) > 0
    for rubbish in (100 * numbers(1, 4, 5, 2), jnp.full((4, 5, 2), 1e300)):
        assert worst_leaf(run(jnp.where(there, x, rubbish)), (y, (dparams, dx))) == 0


@pytest.mark.parametrize("layer", TAKE_PADDING.values(), ids=TAKE_PADDING.keys())
def test_a_padded_sequence_is_the_sequence_alone(x64, layer):
    """In value, and its part in the gradients; a whole mask is none."""
    x = numbers(0, 4, 5, 2)
    params, state = made(layer, x)
    y, (_, dx) = both_passes(layer, params, state, Padded(x, WHERE), WHERE)
    dy = numbers(7, *y.shape)
    for row, length in ((0, 5), (1, 3), (3, 1)):
        cut = (slice(row, row + 1), slice(length))
        own_y, (_, own_dx) = passes(layer, params, state, x[cut], dy[cut] if y.ndim > 2 else dy[cut[0]])
        np.testing.assert_allclose(y[cut] if y.ndim > 2 else y[cut[0]], own_y, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(dx[cut], own_dx, rtol=1e-11, atol=1e-13)
    whole = both_passes(layer, params, state, Padded(x, jnp.ones((4, 5), bool)))
    assert worst_leaf(whole, both_passes(layer, params, state, x)) <= 1e-14


@pytest.mark.parametrize(
    "layer", [layers.lstm(2), layers.scan(layers.gru_cell(2)), layers.serial(layers.mean_over())], ids=str
)
@pytest.mark.parametrize("examples", [3, recurrence.MANY])
def test_no_time(layer, examples):
    params, state = layer.init(jax.random.key(0), jnp.ones((examples, 4, 2)))
    y, _, residuals = layer.forward(params, state, jnp.ones((examples, 0, 2)))
    assert y.shape in ((examples, 0, 2), (examples, 2))
    dparams, dx = layer.backward(params, residuals, y)
    assert trees.global_norm((y, dparams)) == 0
    assert dx.shape == (examples, 0, 2)


# One vector of each sequence


def test_readouts_by_hand():
    x = jnp.array([[[1.0, 8.0], [5.0, 2.0], [3.0, 9.0]], [[-4.0, -1.0], [7.0, 7.0], [7.0, 7.0]], [[7.0, 7.0]] * 3])
    where = jnp.array([[True, True, True], [True, False, False], [False] * 3])
    dy = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    for layer, padded, plain, dx in (
        (layers.last(), [[3, 9], [-4, -1], [0, 0]], [[3, 9], [7, 7], [7, 7]],
         [[[0, 0], [0, 0], [1, 2]], [[3, 4], [0, 0], [0, 0]]]),
        (layers.mean_over(), [[3, 19 / 3], [-4, -1], [0, 0]], [[3, 19 / 3], [10 / 3, 13 / 3], [7, 7]],
         [[[1 / 3, 2 / 3]] * 3, [[3, 4], [0, 0], [0, 0]]]),
        (layers.max_over(), [[5, 9], [-4, -1], [0, 0]], [[5, 9], [7, 7], [7, 7]],
         [[[0, 0], [1, 0], [0, 2]], [[3, 4], [0, 0], [0, 0]]]),
    ):  # fmt: skip
        y, _, residuals = layer.forward((), (), Padded(x, where))
        np.testing.assert_allclose(y, padded, rtol=1e-6)
        np.testing.assert_allclose(layer.apply((), (), x)[0], plain, rtol=1e-6)
        np.testing.assert_allclose(layer.backward((), residuals, dy)[1], [*dx, np.zeros((3, 2))], rtol=1e-6)


def test_the_first_of_equal_maxima_takes_the_gradient():
    x = Padded(jnp.array([[9.0, 2.0, 2.0], [9.0, -jnp.inf, -jnp.inf]]), jnp.array([[False, True, True]] * 2))
    y, _, residuals = layers.max_over().forward((), (), x)
    np.testing.assert_array_equal(y, [2, -np.inf])
    np.testing.assert_array_equal(layers.max_over().backward((), residuals, jnp.ones(2))[1], [[0, 1, 0], [0, 1, 0]])


# Both directions, and each position


def test_two_directions_by_hand(x64):
    x = numbers(0, 2, 4, 3)
    layer = layers.bidirectional(layers.gru(2))
    params, state = made(layer, x)
    y, _ = layer.apply(params, state, x)
    ahead, _ = layers.gru(2).apply(params["forward"], (), x)
    behind, _ = layers.gru(2, reverse=True).apply(params["backward"], (), x)
    np.testing.assert_allclose(y, jnp.concatenate([ahead, behind], -1), rtol=1e-13)
    y, _ = layers.bidirectional(layers.gru(2), combine="sum").apply(params, state, x)
    np.testing.assert_allclose(y, ahead + behind, rtol=1e-13)
    assert layer.rules.cell is None


def test_the_layer_that_is_wrong_is_named_in_both_directions():
    right = layers.lstm(2)

    def backward(params, residuals, dy):
        dparams, dx = right.backward(params, residuals, dy)
        return dparams, 1.01 * dx

    model = layers.serial(layers.bidirectional(right._replace(backward=backward)), layers.last(), layers.dense(2))
    report = check_gradients(model, jax.ShapeDtypeStruct((3, 4, 2), jnp.float32), modes=("training",))
    assert not report.ok
    assert "bidirectional[forward]" in str(report)


def test_a_layer_at_each_position(x64):
    """Images in time, of a layer that does not take an axis of time."""
    inner = layers.serial(layers.conv(2, 3), layers.global_avg_pool())
    x, layer = numbers(0, 2, 3, 4, 4, 1), layers.over_time(inner)
    params, state = made(layer, x)
    y, _ = layer.apply(params, state, x)
    for t in range(3):
        np.testing.assert_allclose(y[:, t], inner.apply(params, state, x[:, t])[0], rtol=1e-13)
    where = jnp.array([[True, False, True], [False] * 3])
    padded, _, residuals = layer.forward(params, state, Padded(x, where))
    np.testing.assert_allclose(padded.values, jnp.where(where[..., None], y, 0), rtol=1e-13)
    _, dx = layer.backward(params, residuals, jnp.ones_like(y))
    np.testing.assert_array_equal(np.any(dx != 0, (2, 3, 4)), where)


# Training


def test_lengths_are_learned_by_both_engines():
    """Which of two features comes last, in sequences of several lengths."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 9, 64)
    x = np.eye(2, dtype=np.float32)[random.integers(0, 2, (64, 8))]
    where = np.arange(8) < lengths[:, None]
    target = x[np.arange(64), lengths - 1].argmax(1)
    model = layers.serial(layers.gru(8), layers.last(), layers.dense(2))
    found = []
    for engine in (fn.gradients.backprop, fn.gradients.autodiff):
        *_, report = fn.training.fit(
            model, fn.losses.softmax_cross_entropy, fn.optimizers.adam(0.03), (Padded(x, where), target), epochs=30,
            batch_size=32, engine=engine,
        )  # fmt: skip
        found.append(report.metrics["loss"])
    assert found[0] < 0.1
    np.testing.assert_allclose(*found, rtol=1e-3)


READER = fn.models.recurrent_classifier(3, features=(4,), bidirectional=True)
ROWS = Padded(np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32), np.asarray(WHERE)), np.arange(4) % 3


def test_a_run_on_sequences_is_resumed_exactly(tmp_path):
    def run(**options):
        loss, optimizer = fn.losses.softmax_cross_entropy, fn.optimizers.adam(0.03)
        return fn.training.fit(READER, loss, optimizer, ROWS, epochs=3, batch_size=3, engine="backprop", **options)

    first, *_, whole = run()
    fn.checkpoints.save(tmp_path, first)
    restored, _ = fn.checkpoints.restore(tmp_path, first.state)
    *_, resumed = run(state=restored.state)
    assert worst_leaf(resumed.state.optimizer, whole.state.optimizer) == 0


def test_tools_look_into_both_directions():
    params, state = READER.init(jax.random.key(0), ROWS[0])
    assert "0/backward    lstm(4)" in str(fn.summaries.summary(READER, ROWS[0]))
    trace = fn.checking.trace_backward(READER, fn.losses.softmax_cross_entropy)(params, state, ROWS)
    assert trace.places[:2] == ("serial[0] bidirectional[forward] lstm(4)", "serial[0] bidirectional[backward] lstm(4)")
    params[0]["backward"]["bias"] = jnp.full(16, jnp.nan)
    found = fn.checking.find_nonfinite(READER, fn.losses.softmax_cross_entropy, params, state, ROWS)
    assert str(found).startswith("serial[0] bidirectional[backward] lstm(4): params/bias is nan at [0]")


# Errors


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: layers.lstm(0), ConfigError, "lstm(0): expected features to be a positive integer, got 0."),
        (lambda: layers.lstm(2, forget_bias="1"), ConfigError,
         "lstm(2, forget_bias='1'): expected forget_bias to be a finite number, got '1'."),
        (lambda: layers.rnn(2, activation="sigmoid"), ConfigError,
         "rnn(2, activation='sigmoid'): expected activation to be \"tanh\" or \"relu\", got 'sigmoid'."),
        (lambda: layers.gru(2).init(jax.random.key(0), jnp.ones((4, 3))), ShapeError,
         "gru(2): expected x of shape (batch, time, features), got (4, 3); add the batch axis with x[None]."),
        (lambda: layers.gru(2).init(jax.random.key(0), Padded(jnp.ones((4, 3, 2, 1)), jnp.ones((4, 3), bool))),
         ShapeError, "gru(2): expected x of shape (batch, time, features), got (4, 3, 2, 1);"),
        (lambda: layers.last().apply((), (), Padded(jnp.ones((4, 3, 2)), jnp.ones((4, 3, 2), bool))), ShapeError,
         "last(): expected x of shape (batch, time, …), got (4, 3, 2) with where of shape (4, 3, 2);"),
        (lambda: layers.mean_over().apply((), (), jnp.ones(3)), ShapeError,
         "mean_over(): expected x of shape (batch, time, …), got (3,); add the batch axis with x[None]."),
        (lambda: layers.max_over().apply((), (), (jnp.ones((3, 2)),)), StructureError,
         "max_over(): expected x to be one array, got a tuple (float32[3, 2],); give each entry its layer"),
        (lambda: layers.last().apply((), (), jnp.ones((3, 2), int)), DtypeError, "last(): expected x of a floating"),
        (lambda: layers.bidirectional(layers.lstm), ConfigError,
         "bidirectional(lstm): expected argument 0 to be a Layer, got a function <function lstm at"),
        (lambda: layers.bidirectional(layers.lstm(2), combine="mean"), ConfigError,
         "bidirectional(lstm(2), combine='mean'): expected combine to be \"concatenate\" or \"sum\", got 'mean'."),
        (lambda: layers.scan(layers.dense(3)), ConfigError,
         "scan(dense(3)): expected a cell, which has rules.start, got dense(3); give it Rules(start=…), or take"),
        (lambda: layers.scan(layers.rnn_cell(2)).init(jax.random.key(0), (jnp.ones((4, 3, 2)), jnp.ones((4, 2, 2)))),
         ShapeError, "scan(rnn_cell(2)): expected arrays of shape (batch, time, …), got a tuple (float32[4, 3, 2], fl"),
        (lambda: layers.scan(layers.rnn_cell(2), carry=True).init(jax.random.key(0), jnp.ones((4, 3, 2))),
         StructureError, "scan(rnn_cell(2), carry=True): expected x to be the pair (carry, xs), got float32[4, 3, 2]"),
        (lambda: layers.rnn_cell(2).init(jax.random.key(0), jnp.ones((4, 3))), StructureError,
         "rnn_cell(2): expected x to be the pair (carry, x_t), got float32[4, 3]; layers.scan runs a cell"),
        (lambda: layers.rnn_cell(2).init(jax.random.key(0), (None, jnp.ones((4, 3, 2)))), ShapeError,
         "rnn_cell(2): expected x of shape (batch, features), got (4, 3, 2); a cell takes one position."),
    ],
)  # fmt: skip
def test_misuse_is_named(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()


def test_a_carry_that_does_not_fit_is_named():
    cell = layers.lstm_cell(2)
    params, state = cell.init(jax.random.key(0), (None, jnp.ones((4, 3))))
    message = r"^lstm_cell\(2\): expected a carry of a tuple \(float32\[4, 2\], float32\[4, 2\]\), got float32\[4, 2\];"
    with pytest.raises(StructureError, match=message):
        cell.apply(params, state, (jnp.ones((4, 2)), jnp.ones((4, 3))))

    @fn.constructor
    def growing():
        def forward(params, state, x, *, key=None, train=False):
            return (jnp.concatenate([x[0], x[0]], -1), x[1]), state, None

        return layers.layer(forward, forward, rules=Rules(start=lambda params, state, x, length: jnp.zeros(x.shape)))

    with pytest.raises(
        StructureError, match=r"^scan.*: expected growing\(\) to keep .* got float32\[4, 2\] -> float32\[4"
    ):
        layers.scan(growing()).apply((), (), jnp.ones((4, 3, 2)))
