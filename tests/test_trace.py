"""Looking inside a model: the statistics of each layer."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit

from funcnet import data, gradients, initializers, layers, losses, models
from funcnet.catalogue import embedding
from funcnet.checking import trace_backward
from funcnet.errors import DtypeError, MissingKeyError
from funcnet.made import constructor
from funcnet.types import Padded


def numbers(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def started(model, x):
    """The parameters and state of a model, off their zeros."""
    params, state = quick_jit(model.init)(jax.random.key(1), x)
    return jax.tree.map(lambda leaf: leaf + 0.1, params), state


def assert_equal(part, arrays, rtol):
    """Each field against NumPy's numbers for the arrays."""
    arrays = [np.asarray(a, np.float64) for a in arrays]
    columns = [(a == 0).reshape(-1, a.shape[-1]).all(0) for a in arrays]
    np.testing.assert_allclose(part.norm, [np.linalg.norm(a) for a in arrays], rtol)
    np.testing.assert_allclose(part.rms, [np.sqrt(np.mean(a**2)) for a in arrays], rtol)
    np.testing.assert_allclose(part.zeros, [np.mean(a == 0) for a in arrays], rtol)
    np.testing.assert_allclose(part.dead, [np.mean(dead) for dead in columns], rtol)
    np.testing.assert_array_equal(part.nonfinite, [-1] * len(arrays))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_numbers_by_hand(dtype):
    """x W₁ → ReLU → W₂ with the mean of squares, written out."""
    x, target = np.array([[1, 2], [3, -1]], dtype), np.array([[1], [0]], dtype)
    w1, w2 = np.array([[1, -1, 2], [1, -2, -1]], dtype), np.array([[1], [2], [-1]], dtype)
    z = x @ w1  # [[3, −5, 0], [2, −1, 7]]
    a = np.maximum(z, 0)  # its second unit is dead
    y = a @ w2
    dy = y - target  # of the mean of two squares
    da = dy @ w2.T
    dz = da * (z > 0)
    model = layers.serial(layers.dense(3, use_bias=False), layers.relu(), layers.dense(1, use_bias=False))
    with jax.enable_x64(dtype is np.float64):
        params = ({"kernel": jnp.array(w1)}, (), {"kernel": jnp.array(w2)})
        trace = quick_jit(trace_backward(model, losses.mean_squared_error))(params, ((), (), ()), (x, target))
    rtol = 1e-6 if dtype is np.float32 else 1e-14
    assert trace.places == ("serial[0] dense(3, use_bias=False)", "serial[1] relu()",
                            "serial[2] dense(1, use_bias=False)")  # fmt: skip
    assert trace.y.rms.dtype == dtype
    assert (float(trace.y.zeros[1]), float(trace.y.dead[1])) == pytest.approx((3 / 6, 1 / 3))
    assert_equal(trace.y, [z, a, y], rtol)
    assert_equal(trace.dy, [dz, da, dy], rtol)
    assert_equal(jax.tree.map(lambda field: field[np.array([0, 2])], trace.dparams), [x.T @ dz, a.T @ dy], rtol)
    assert np.isnan(trace.dparams.norm[1])
    assert trace.dparams.nonfinite[1] == -1


@constructor
def passing(function):
    """A layer that no gradient goes through."""
    return layers.parameterless(lambda x, *, key, train: (function(x), None), lambda residuals, dy: None)


def shown(y, dtype):
    """The statistics of one array, the output of the first layer of a model."""
    model = layers.serial(layers.identity(), passing(lambda x: x.astype(jnp.float32)))
    trace = trace_backward(model, lambda prediction, target: prediction.sum())
    part = trace(((), ()), ((), ()), (jnp.array(y, dtype), 0)).y
    return {name: float(field[0]) for name, field in part._asdict().items()}


@pytest.mark.parametrize(
    "y, dtype, expected",
    [
        ([[3e-30, 4e-30]], jnp.float32, {"norm": 5e-30, "rms": 5e-30 / 2**0.5, "zeros": 0}),  # squares are 0
        ([[3e30, 4e30]], jnp.float32, {"norm": 5e30}),  # and infinite
        ([[300.0, 400.0]], jnp.float16, {"norm": 500}),
        ([[3, 0], [4, 0]], jnp.int32, {"norm": 5, "rms": 2.5, "zeros": 0.5, "dead": 0.5}),
        ([[0.0, 0.0]], jnp.float32, {"norm": 0, "rms": 0, "zeros": 1, "dead": 1, "nonfinite": -1}),
        ([[1, np.inf], [np.inf, 0]], jnp.float32, {"norm": np.inf, "zeros": 0.25, "dead": 0, "nonfinite": 1}),
        ([[1, 0], [np.nan, np.inf]], jnp.float32, {"norm": np.nan, "zeros": 0.25, "dead": 0, "nonfinite": 2}),
        ([[[0, 1], [0, 0]], [[0, 0], [0, 1]]], jnp.float32, {"zeros": 0.75, "dead": 0.5}),  # units are the last axis
        (np.zeros((0, 3)), jnp.float32, {"norm": np.nan, "nonfinite": -1}),
    ],
)
def test_statistics(y, dtype, expected):
    got = shown(y, dtype)
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-6, nan_ok=True)


# In containers.

loss = losses.mean_squared_error
block = layers.serial(layers.dense(3), layers.tanh())


def stacked(entries):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *entries)


def traced(model, params, state, seed=0, width=3):
    batch = (numbers(seed, 4, width), numbers(seed + 1, 4, width))
    return quick_jit(trace_backward(model, loss))(params, state, batch)


def assert_same_trace(a, b):
    for got, want in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_repetitions_are_entries():
    plain = layers.serial(*[block] * 4)
    params, state = started(plain, numbers(0, 4, 3))
    pairs = [stacked(params[:2]), stacked(params[2:])]
    for model, stack, numbering in [
        (layers.repeat(block, 4), stacked(params), [f"repeat[{i}]" for i in range(4)]),
        (
            layers.repeat(layers.repeat(block, 2), 2),
            stacked(pairs),
            [f"repeat[{i}] repeat[{j}]" for i in range(2) for j in range(2)],
        ),
    ]:
        trace = traced(model, stack, ((), ()))
        inner = ["serial[0] dense(3)", "serial[1] tanh()"]
        assert trace.places == tuple(f"{place} {layer}" for place in numbering for layer in inner)
        assert_same_trace(trace, traced(plain, params, state))


def test_recompute_shows_the_same():
    params, state = started(block, numbers(0, 4, 3))
    trace = traced(layers.recompute(block), params, state)
    assert trace.places == ("recompute serial[0] dense(3)", "recompute serial[1] tanh()")
    assert_same_trace(trace, traced(block, params, state))


def test_branches_by_hand():
    """y = x W + b + x, concatenated with x V + c."""
    model = layers.parallel(layers.residual(layers.dense(3)), layers.dense(2), combine="concatenate")
    x, target = numbers(0, 4, 3), numbers(1, 4, 5)
    params, state = started(model, x)
    trace = quick_jit(trace_backward(model, losses.half_squared_error))(params, state, (x, target))
    assert trace.places == ("parallel[0] residual[0] dense(3)", "parallel[1] dense(2)")
    (inner,), beside = params
    f, g = x @ inner["kernel"] + inner["bias"], x @ beside["kernel"] + beside["bias"]
    dy = (np.concatenate([f + x, g], -1) - target) / 4
    assert_equal(trace.y, [f, g], 1e-5)
    assert_equal(trace.dy, [dy[:, :3], dy[:, 3:]], 1e-5)


def test_gradients_are_those_of_the_engine():
    model = models.mlp((5, 3), activation=layers.tanh, dropout=0.5)
    x, key = numbers(0, 8, 4), jax.random.key(3)
    params, state = started(model, x)
    batch = (x, numbers(1, 8, 3), np.arange(8) < 5)
    trace = quick_jit(trace_backward(model, loss))(params, state, batch, key)
    engine = quick_jit(gradients.autodiff(model, loss))(params, state, batch, key)
    sizes = [np.linalg.norm(np.concatenate([np.ravel(leaf) for leaf in g.values()])) for g in engine.grads if g]
    np.testing.assert_allclose(trace.dparams.norm[~np.isnan(trace.dparams.norm)], sizes, rtol=1e-5)


def test_a_loss_without_a_gradient_of_its_own():
    params, state = started(block, numbers(0, 4, 3))
    batch = (numbers(0, 4, 3), numbers(1, 4, 3))
    own = trace_backward(block, lambda p, t: jnp.mean((p - t) ** 2))
    assert_same_trace(quick_jit(own)(params, state, batch), traced(block, params, state))


def later(x):
    return x + 1


def test_where_no_gradient_arrives():
    model = layers.serial(passing(later), embedding(5, 3), layers.dense(2))
    x = np.array([1, 2, 3])
    params, state = model.init(jax.random.key(0), x)
    trace = quick_jit(trace_backward(model, loss))(params, state, (x, np.zeros((3, 2), np.float32)))
    assert trace.places == ("serial[0] passing(later)", "serial[1] embedding(5, 3)", "serial[2] dense(2)")
    assert np.isnan(trace.dy.norm).tolist() == [True, False, False]
    assert trace.y.norm[0] == pytest.approx((4 + 9 + 16) ** 0.5)
    assert str(trace).splitlines()[2].split() == ["serial[0]", "passing(later)", "3.11e+00", "0.0%", "0.0%"]


# Names and trees.


def test_the_order_is_that_of_the_call_and_not_that_of_the_names():
    """Repetitions come one after the other, each with its layers in their order."""
    inner = layers.serial(z=layers.dense(3), a=layers.tanh())
    model = layers.serial(stem=layers.tanh(), body=layers.repeat(inner, 2), end=layers.dense(3))
    params, state = started(model, numbers(0, 4, 3))
    trace = traced(model, params, state)
    assert trace.places == (
        "serial[stem] tanh()", "serial[body] repeat[0] serial[z] dense(3)", "serial[body] repeat[0] serial[a] tanh()",
        "serial[body] repeat[1] serial[z] dense(3)", "serial[body] repeat[1] serial[a] tanh()", "serial[end] dense(3)",
    )  # fmt: skip
    plain = layers.serial(layers.tanh(), *[layers.dense(3), layers.tanh()] * 2, layers.dense(3))
    stack = [jax.tree.map(lambda leaf, i=i: leaf[i], params["body"]["z"]) for i in range(2)]
    assert_same_trace(trace, traced(plain, ((), stack[0], (), stack[1], (), params["end"]), ((),) * 6))


def test_a_container_of_ones_own_that_is_called_repeat():
    """It is not taken for the library's."""

    @constructor
    def repeat(inner):
        return layers.container(inner, lambda run, x: (run(0, x), None), lambda run, kept, dy: run(0, dy))

    params, state = started(repeat(block), numbers(0, 4, 3))
    trace = traced(repeat(block), params, state)
    assert trace.places == ("repeat serial[0] dense(3)", "repeat serial[1] tanh()")
    assert_same_trace(trace, traced(block, params, state))


def test_trees():
    """Two inputs, one of integers, and a head that no loss reads."""
    towers = layers.each(words=embedding(5, 3), row=layers.dense(3))
    heads = layers.each(row=layers.parallel(seen=layers.dense(2), unseen=layers.dense(4)), words=layers.tanh())
    model = layers.serial(towers, heads)
    x = {"row": numbers(0, 4, 2), "words": np.array([0, 1, 1, 4])}
    params, state = started(model, x)

    def loss(prediction, target, weights=None):
        return jnp.sum(weights * jnp.sum((prediction["row"]["seen"] - target["row"]) ** 2, 1))

    target, weights = {"row": numbers(1, 4, 2)}, np.array([1, 0, 2, 1], np.float32)
    trace = quick_jit(trace_backward(model, loss))(params, state, (x, target, None, weights))
    assert trace.places == (
        "serial[0] each[words] embedding(5, 3)", "serial[0] each[row] dense(3)",
        "serial[1] each[row] parallel[seen] dense(2)", "serial[1] each[row] parallel[unseen] dense(4)",
        "serial[1] each[words] tanh()",
    )  # fmt: skip
    hidden = x["row"] @ params[0]["row"]["kernel"] + params[0]["row"]["bias"]
    seen = params[1]["row"]["seen"]
    dy = 2 * weights[:, None] * (hidden @ seen["kernel"] + seen["bias"] - target["row"])
    np.testing.assert_allclose(trace.dy.norm[2], np.linalg.norm(dy), rtol=1e-5)
    np.testing.assert_allclose(trace.dy.norm[1], np.linalg.norm(dy @ seen["kernel"].T), rtol=1e-5)
    # Where nothing arrives: none in the words, and zeros in the head, as its gradient has it.
    assert np.nan_to_num(trace.dy.norm[np.array([0, 3, 4])]).tolist() == [0, 0, 0]


def test_of_what_is_padded_the_rest_counts():
    x = Padded(jnp.array([[[3.0], [99.0]], [[0.0], [4.0]]]), jnp.array([[True, False], [True, True]]))
    trace = trace_backward(layers.serial(layers.identity(), layers.tanh()), loss)(
        ((), ()), ((), ()), (x, jnp.zeros((2, 2, 1)))
    )
    assert float(trace.y.rms[0]) == pytest.approx((25 / 3) ** 0.5)
    assert float(trace.y.zeros[0]) == pytest.approx(1 / 3)


# As data.


def test_jit_equals_eager_and_does_not_trace_anew():
    count = []

    def counted(prediction, target):
        count.append(1)
        return jnp.mean((prediction - target) ** 2)

    params, state = started(block, numbers(0, 4, 3))
    trace = trace_backward(block, counted)
    batches = [(numbers(i, 4, 3), numbers(i + 9, 4, 3)) for i in range(3)]
    eager = trace(params, state, batches[2])
    count.clear()
    compiled = jax.jit(trace)
    made = [compiled(params, state, batch) for batch in batches]
    assert len(count) == 2  # the loss and its jax.grad, once
    assert made[2].places == eager.places
    assert_same_trace(made[2], eager)


def test_traces_are_stacked_by_scan():
    params, state = started(block, numbers(0, 4, 3))
    batches = numbers(0, 5, 4, 3), numbers(1, 5, 4, 3)
    trace = trace_backward(block, loss)
    _, many = jax.lax.scan(lambda carry, batch: (carry, trace(params, state, batch)), None, batches)
    assert many.dy.rms.shape == (5, 2)
    assert str(many).startswith("Trace(places=('serial[0] dense(3)', 'serial[1] tanh()')")
    assert_same_trace(jax.tree.map(lambda a: a[3], many), trace(params, state, (batches[0][3], batches[1][3])))


def test_the_table():
    model = layers.serial(layers.dense(2, use_bias=False), layers.relu())
    params = ({"kernel": jnp.array([[1.0, -1.0]])}, ())
    batch = (jnp.array([[3.0], [4.0]]), jnp.array([[3.0, 0.0], [jnp.nan, 0.0]]))
    lines = str(quick_jit(trace_backward(model, loss))(params, ((), ()), batch)).splitlines()
    cells = [re.split("  +", line) for line in lines]
    assert cells[0] == ["layer", "y rms", "zeros", "dead", "dy rms", "zeros", "dead", "dparams rms", "non-finite"]
    assert set(lines[1]) == {"-"}
    assert cells[2:] == [
        ["serial[0] dense(2, use_bias=False)", "3.54e+00", "0.0%", "0.0%", "nan", "75.0%", "50.0%",
         "nan", "dy[2], dparams[0]"],
        ["serial[1] relu()", "2.50e+00", "50.0%", "50.0%", "nan", "75.0%", "50.0%", "dy[2]"],
    ]  # fmt: skip
    assert lines[2].index("3.54e+00") == lines[0].index("y rms")


def test_what_engines_refuse():
    model = layers.serial(layers.dense(3), layers.dropout(0.5))
    params, state = started(model, numbers(0, 4, 3))
    batch = (numbers(0, 4, 3), numbers(1, 4, 3))
    with pytest.raises(DtypeError, match=r"^trace_backward: expected batch to be \(x, target\), .*, got a list"):
        trace_backward(model, loss)(params, state, list(batch))
    with pytest.raises(MissingKeyError, match=r"serial\[1\] dropout\(0.5\): train=True draws random numbers"):
        trace_backward(model, loss)(params, state, batch)


def test_gradients_vanish_through_sigmoids_and_not_through_relus():
    """Twenty layers of each, on digits. A sigmoid's slope is at most ¼; He's variance makes up for ReLU's half."""
    (images, labels), _ = data.split(*data.digits())
    falls = {}
    for activation, kernel_init in (
        (layers.sigmoid, initializers.xavier_normal()),
        (layers.relu, initializers.he_normal()),
    ):
        hidden = layers.serial(layers.dense(64, kernel_init=kernel_init), activation())
        model = layers.serial(layers.repeat(hidden, 19), layers.dense(10, kernel_init=kernel_init))
        trace = trace_backward(model, losses.softmax_cross_entropy)

        @quick_jit
        def drawn(key, model=model, trace=trace):
            return trace(*model.init(key, images), (images[:256], labels[:256])).dy.rms

        rms = np.stack([drawn(jax.random.key(seed)) for seed in range(5)])
        assert rms.shape == (5, 39)
        falls[activation] = rms[:, -1] / rms[:, 0]
    assert (falls[layers.sigmoid] >= 1e6).all()
    assert (np.abs(np.log10(falls[layers.relu])) <= 1).all()
