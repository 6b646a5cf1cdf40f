"""Attention: values by loops in NumPy, blocks and the plain form, what is padded, one position at a time, memory."""

import importlib
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit, worst_leaf

from funcnet import layers
from funcnet.errors import ConfigError, MissingKeyError, ShapeError, StructureError
from funcnet.layers import attention, dense, layer_norm, residual, serial
from funcnet.types import Padded

PRODUCTS = importlib.import_module("funcnet.layers.attention.products")  # `layers.attention` is the function
KEY = jax.random.key(0)
LENGTHS = np.array([7, 3, 1, 0])
THERE = np.arange(7) < LENGTHS[:, None]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def drawn(layer, x, seed=5):
    """Parameters without zeros, and the state."""
    params, state = jax.eval_shape(lambda: layer.init(KEY, x))
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) / 2, leaf.dtype), params), state


def passes(layer, params, x, dy, key=None, state=()):
    """`y, (dparams, dx)` by hand."""

    @quick_jit
    def run(params, x, dy):
        y, _, residuals = layer.forward(params, state, x, key=key, train=key is not None)
        return y, layer.backward(params, residuals, dy)

    return run(params, x, dy)


# Values


def by_loops(params, x, context, options, there):
    """Query by query and key by key, with Python's own numbers."""
    heads, kv, d = options["heads"], options.get("kv_heads", options["heads"]), options["head_features"]
    out = np.zeros((*x.shape[:2], heads, d))

    def projected(name, array, n):
        y = array @ params[f"{name}_kernel"]
        y = y + params[f"{name}_bias"] if f"{name}_bias" in params else y
        return y.reshape(*array.shape[:2], n, d)

    def turned(vector, position):
        base = options.get("rotary")
        if base is None:
            return vector
        halves = vector[: d // 2] + 1j * vector[d // 2 :]
        halves = halves * np.exp(1j * position * base ** (-2 * np.arange(d // 2) / d))
        return np.concatenate([halves.real, halves.imag])

    q = projected("query", x, heads)
    k, v = projected("key", context, kv), projected("value", context, kv)
    for b, i, h in np.ndindex(*x.shape[:2], heads):
        scores = {}
        for j in range(context.shape[1]):
            far = i - j
            hidden = (options.get("causal") and far < 0) or (options.get("window") and abs(far) >= options["window"])
            if there[b, j] and not hidden:
                scores[j] = turned(q[b, i, h], i) @ turned(k[b, j, h * kv // heads], j) / math.sqrt(d)
        total = sum(map(math.exp, scores.values()))
        for j, score in scores.items():
            out[b, i, h] += math.exp(score) / total * v[b, j, h * kv // heads]
    y = out.reshape(*x.shape[:2], heads * d) @ params["out_kernel"]
    return y + params["out_bias"] if "out_bias" in params else y


OPTIONS = {
    "plain": {"heads": 2, "head_features": 2},
    "causal": {"heads": 2, "head_features": 3, "causal": True, "use_bias": False},
    "window": {"heads": 4, "kv_heads": 2, "head_features": 1, "window": 3},
    "rotary": {"heads": 2, "kv_heads": 1, "head_features": 4, "causal": True, "window": 4, "rotary": 50.0},
}


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", OPTIONS)
def test_values_by_loops(x64, name, padded):
    """Each query over the keys that it sees; the example of length 0 sees none, and its weighted means are zeros."""
    options = OPTIONS[name]
    layer, x = attention(**options), numbers(4, 7, 3)
    params = jax.tree.map(np.asarray, drawn(layer, jnp.asarray(x))[0])
    there = THERE if padded else np.ones((4, 7), bool)
    y = layer.apply(params, (), Padded(x, THERE) if padded else x)[0]
    values, want = y.values if padded else y, by_loops(params, x, x, options, there)
    np.testing.assert_allclose(values[there], want[there], rtol=1e-12, atol=1e-13)
    if padded:
        np.testing.assert_array_equal(values[3], np.broadcast_to(params.get("out_bias", 0), (7, 3)))


def test_another_sequence_by_loops(x64):
    x, context = numbers(4, 5, 3), numbers(4, 7, 2, seed=1)
    options = {"heads": 2, "head_features": 2}
    layer = attention(**options)
    params, _ = drawn(layer, (jnp.asarray(x), jnp.asarray(context)))
    y, _ = layer.apply(params, (), (x, Padded(context, THERE)))
    want = by_loops(jax.tree.map(np.asarray, params), x, context, options, THERE)
    np.testing.assert_allclose(y, want, rtol=1e-12, atol=1e-13)


def test_widths_by_default():
    params, _ = attention(4, kv_heads=2).init(KEY, jnp.ones((1, 2, 12)))
    assert {name: leaf.shape for name, leaf in params.items()} == {
        "query_kernel": (12, 12), "key_kernel": (12, 6), "value_kernel": (12, 6), "out_kernel": (12, 12),
        "query_bias": (12,), "value_bias": (6,), "out_bias": (12,),
    }  # fmt: skip
    assert "key_bias" in attention(4, rotary=10.0, head_features=2).init(KEY, jnp.ones((1, 2, 12)))[0]


def test_rotary_scores_depend_on_the_distance_alone(x64):
    """What comes later by three positions gives the same, without a mask that ends."""
    layer = attention(1, head_features=4, rotary=100.0, window=1000)
    x = jnp.asarray(numbers(1, 5, 4))
    params, _ = drawn(layer, x)
    where = np.arange(8) >= 3
    later, _ = layer.apply(params, (), Padded(jnp.pad(x, ((0, 0), (3, 0), (0, 0))), where[None]))
    np.testing.assert_allclose(later.values[:, 3:], layer.apply(params, (), x)[0], rtol=1e-13)


# Blocks


IN_BLOCKS = {
    "all": ({"heads": 2}, None, 10, 10),
    "causal window": ({"heads": 2, "kv_heads": 1, "causal": True, "window": 3}, None, 10, 10),
    "causal padded": ({"heads": 2, "causal": True, "window": 5}, "holes", 9, 9),
    "another sequence": ({"heads": 2, "kv_heads": 1}, "context", 5, 9),
}


@pytest.mark.parametrize("name", IN_BLOCKS)
def test_blocks_equal_the_plain_form(x64, name, monkeypatch):
    """Values and both gradients, by hand and by autodiff, with ends of blocks at odd places."""
    options, kind, queries, keys = IN_BLOCKS[name]
    layer = attention(**options, head_features=2)
    x = jnp.asarray(numbers(3, queries, 4))
    holes = np.random.default_rng(3).random((3, keys)) < 0.6
    holes[0] = False
    if kind == "context":
        x = (x, Padded(jnp.asarray(numbers(3, keys, 3, seed=1)), holes))
    elif kind == "holes":
        x = Padded(x, holes)
    params, _ = drawn(layer, x)
    dy = numbers(3, queries, 4, seed=2)
    dy = np.where(holes[..., None], dy, 0) if kind == "holes" else dy

    def values(y):
        return jnp.where(holes[..., None], y.values, 0) if kind == "holes" else y

    def run():
        y, by_hand = passes(layer, params, x, dy)
        objective = quick_jit(jax.grad(lambda params: jnp.vdot(values(layer.apply(params, (), x)[0]), dy)))
        return values(y), by_hand, objective(params)

    plain = run()
    monkeypatch.setattr(PRODUCTS, "_BLOCK", 4)
    monkeypatch.setattr(PRODUCTS, "_MOST_PAIRS", 0)
    blocks = run()
    assert worst_leaf(blocks, plain) <= 1e-13
    assert worst_leaf(blocks[1][0], blocks[2]) <= 1e-13


def test_dropout_in_blocks_is_drawn_again_alike(x64, monkeypatch):
    monkeypatch.setattr(PRODUCTS, "_BLOCK", 4)
    monkeypatch.setattr(PRODUCTS, "_MOST_PAIRS", 0)
    layer, x, dy = attention(2, dropout=0.4, causal=True), jnp.asarray(numbers(2, 9, 4)), numbers(2, 9, 4, seed=1)
    params, _ = drawn(layer, x)
    y, by_hand = passes(layer, params, x, dy, KEY)

    def objective(params, x):
        return jnp.vdot(layer.apply(params, (), x, key=KEY, train=True)[0], dy)

    assert worst_leaf(by_hand, quick_jit(jax.grad(objective, (0, 1)))(params, x)) <= 1e-13
    assert np.abs(y - layer.apply(params, (), x)[0]).max() > 0.01


def test_dropped_weights_have_the_same_mean():
    """Of all values one, the mean over heads, queries and examples is one."""
    layer, x = attention(8, dropout=0.3, use_bias=False), jnp.ones((64, 8, 8))
    params = {"query_kernel": jnp.zeros((8, 8)), "key_kernel": jnp.zeros((8, 8)), "value_kernel": jnp.eye(8)}
    y, _ = layer.apply(params | {"out_kernel": jnp.eye(8)}, (), x, key=KEY, train=True)
    assert float(y.mean()) == pytest.approx(1, abs=0.02)
    kept = np.asarray(y, float) * 8 * 0.7  # how many of the eight weights
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-5)


def test_which_blocks_are_computed():
    """Under the diagonal, and near it with a window: 36 of 64 blocks, then 15 and 21."""

    def pairs(window, there=None):
        looks = PRODUCTS.Looks(True, window, 0.0)
        return PRODUCTS._cut(2048, 2048, PRODUCTS.Sight(None, None, there), looks).pairs

    assert len(pairs(None)) == 36
    assert (len(pairs(257)), len(pairs(258))) == (
        15,
        21,
    )  # the first query sees back to the last key of a block, or not
    assert len(pairs(257, there=np.ones(1, bool))) == 36  # padding may bring far keys near
    assert PRODUCTS._divided(2049) == (9, 228)  # filled up by three


def test_memory_of_long_sequences():
    """4096 tokens forward and backward: at most 1/8 of autodiff through a plain softmax, by the program's own count."""
    x = jax.ShapeDtypeStruct((1, 4096, 32), jnp.float32)
    layer = attention(1, causal=True)
    params, _ = jax.eval_shape(lambda: layer.init(KEY, x))

    def by_hand(params, x):
        y, _, residuals = layer.forward(params, (), x)
        return layer.backward(params, residuals, y)

    def plain(params, x):
        q, k, v = (x @ params[f"{name}_kernel"] for name in ("query", "key", "value"))
        scores = jnp.einsum("bqd,bnd->bqn", q, k) / math.sqrt(32)
        seen = jnp.tril(jnp.ones((4096, 4096), bool))
        y = jnp.einsum("bqn,bnd->bqd", jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)), v) @ params["out_kernel"]
        return (y * y).sum() / 2

    def memory(function):
        return jax.jit(function).lower(params, x).compile().memory_analysis().temp_size_in_bytes

    assert memory(by_hand) <= memory(jax.grad(plain, (0, 1))) / 8


# Padding


@pytest.mark.parametrize("form", ["plain", "blocks"])
def test_what_is_padded_changes_nothing(x64, form, monkeypatch):
    """Lengths 7, 3, 1 and 0, in queries and keys: no value that counts, no gradient, and dx is zero there."""
    if form == "blocks":
        monkeypatch.setattr(PRODUCTS, "_BLOCK", 3)
        monkeypatch.setattr(PRODUCTS, "_MOST_PAIRS", 0)
    layer = serial(dense(4), residual(serial(layer_norm(), attention(2, causal=True, rotary=10.0))), dense(2))
    x, there = numbers(4, 7, 3), THERE[..., None]
    params, state = drawn(layer, Padded(jnp.asarray(x), jnp.asarray(THERE)))

    @quick_jit
    def run(x):
        y, _, residuals = layer.forward(params, state, Padded(x, THERE))
        return jnp.where(there, y.values, 0), layer.backward(params, residuals, jnp.where(there, jnp.cos(y.values), 0))

    y, (dparams, dx) = run(x)
    assert worst_leaf(run(np.where(there, x, 50 * numbers(4, 7, 3, seed=9))), (y, (dparams, dx))) == 0
    assert not np.any(np.where(there, 0, dx))
    short, (_, dshort) = passes(layer, params, x[1:2, :3], np.cos(y[1:2, :3]), state=state)
    np.testing.assert_allclose(y[1:2, :3], short, rtol=1e-12)
    np.testing.assert_allclose(dx[1:2, :3], dshort, rtol=1e-10, atol=1e-13)


def test_what_is_padded_in_another_sequence_changes_nothing(x64):
    layer, x, context = attention(2), numbers(4, 2, 4), numbers(4, 7, 3, seed=1)
    params, _ = drawn(layer, (jnp.asarray(x), jnp.asarray(context)))
    dy, rubbish = numbers(4, 2, 4, seed=2), np.where(THERE[..., None], context, 99.0)
    got, want = (passes(layer, params, (x, Padded(c, THERE)), dy) for c in (rubbish, context))
    assert worst_leaf(got, want) == 0
    assert not np.any(np.where(THERE[..., None], 0, want[1][1][1]))
    np.testing.assert_array_equal(want[0][3], np.broadcast_to(params["out_bias"], (2, 4)))


def test_no_time_at_all():
    y, (_, dx) = passes(
        attention(2), drawn(attention(2), jnp.ones((3, 1, 4)))[0], jnp.ones((3, 0, 4)), jnp.ones((3, 0, 4))
    )
    assert y.shape == dx.shape == (3, 0, 4)


# One position at a time


STEPPED = {
    "causal": attention(2, causal=True),
    "grouped rotary": attention(4, kv_heads=2, head_features=2, causal=True, rotary=20.0),
    "window": attention(2, causal=True, window=3, rotary=20.0),
    "window longer than all": attention(2, causal=True, window=9),
    "model": layers.repeat(layers.recompute(residual(serial(layer_norm(), attention(2, causal=True)))), 2),
}


@pytest.mark.parametrize("name", STEPPED)
def test_one_position_at_a_time(x64, name):
    layer, x = STEPPED[name], jnp.asarray(numbers(2, 7, 4))
    params, state = drawn(layer, x)
    cell = layer.rules.cell
    start = cell.rules.start(params, state, x[:, 0], 7)
    shapes = jax.tree.map(jnp.shape, cell.init(KEY, (start, x[:, 0]))[0])
    assert shapes == jax.tree.map(jnp.shape, params)

    @quick_jit
    def stepped(params, x):
        def step(carry, x_t):
            (carry, y_t), _ = cell.apply(params, state, (carry, x_t))
            return carry, y_t

        return jnp.swapaxes(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1], 0, 1)

    assert worst_leaf(stepped(params, x), layer.apply(params, state, x)[0]) <= 1e-12


def test_a_window_needs_no_larger_cache():
    carry = attention(2, causal=True, window=3, head_features=5).rules.cell.rules.start((), (), jnp.ones((2, 4)), 100)
    assert carry["key"].shape == carry["value"].shape == (2, 2, 3, 5)


def test_behind_the_room_of_the_cache_is_nan():
    layer, x = attention(1, causal=True), jnp.ones((1, 4))
    params, _ = layer.init(KEY, x[:, None])
    carry = layer.rules.cell.rules.start(params, (), x, 2)
    for t in range(3):
        (carry, y), _ = layer.rules.cell.apply(params, (), (carry, x))
        assert np.all(np.isnan(y)) == (t == 2)


def test_a_cell_that_only_steps_says_so():
    layer, x = attention(1, causal=True), jnp.ones((1, 4))
    params, _ = layer.init(KEY, x[:, None])
    cell = layer.rules.cell
    _, _, residuals = cell.forward(params, (), (cell.rules.start(params, (), x, 2), x))
    with pytest.raises(
        StructureError, match=r"^attention\(1, causal=True\): expected a cell with a backward, got that"
    ):
        cell.backward(params, residuals, None)
    assert attention(1).rules.cell is None
    assert serial(dense(4), attention(1)).rules.cell is None


# Precision and misuse


@pytest.mark.parametrize("dtype, bound", [(jnp.bfloat16, 0.03), (jnp.float16, 0.004)], ids=["bfloat16", "float16"])
def test_half_precision(dtype, bound, x64):
    """Sums are in float32: 300 equal keys give their value, and y and gradients are near those of float64."""
    layer = attention(2, causal=True, rotary=100.0)
    x = jnp.asarray(numbers(2, 6, 8), dtype)
    params, _ = drawn(layer, x)
    dy = jnp.asarray(numbers(2, 6, 8, seed=1), dtype)
    half = passes(layer, params, x, dy)
    wide = passes(layer, *jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, x, dy)))
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(dtype)}
    assert worst_leaf(half, wide) <= bound
    many = jnp.ones((1, 300, 8), dtype)
    y, _ = layer.apply(params, (), many)
    np.testing.assert_allclose(np.asarray(y[:, -1], float), np.asarray(y[:, 0], float), rtol=0.02, atol=0.02)


X = jnp.ones((2, 3, 8))


@pytest.mark.parametrize(
    "code, error, message",
    [
        (lambda: attention(0), ConfigError, "attention(0): expected heads to be a positive integer, got 0."),
        (lambda: attention(4, kv_heads=3), ConfigError,
         "attention(4, kv_heads=3): expected heads to be a multiple of 3, the number of kv_heads, got 4; choose"),
        (lambda: attention(2, window=0), ConfigError, "expected window to be a positive integer, got 0"),
        (lambda: attention(2, causal=1), ConfigError, "expected causal to be True or False, got 1"),
        (lambda: attention(2, rotary=-1.0), ConfigError, "expected rotary to be a finite number > 0, got -1.0"),
        (lambda: attention(2, dropout=1.0), ConfigError, "expected dropout to be a finite number in [0, 1), got 1.0"),
        (lambda: attention(3).init(KEY, X), ShapeError,
         "attention(3): expected the width of x to be a multiple of 3, the number of heads, got 8; set head_features"),
        (lambda: attention(2, rotary=9.0, head_features=3).init(KEY, X), ShapeError,
         "expected the features of a head to be a multiple of 2, as rotary turns pairs of them, got 3"),
        (lambda: attention(2).init(KEY, X[0]), ShapeError,
         "attention(2): expected x of shape (batch, time, features), got (3, 8); add the batch axis"),
        (lambda: attention(2, causal=True).init(KEY, (X, X)), StructureError,
         "attention(2, causal=True): expected x to be one sequence, got a tuple of 2; positions of two"),
        (lambda: attention(2).init(KEY, (X, X, X)), StructureError, "to be a sequence or a pair, got a tuple of 3; a"),
        (lambda: attention(2).init(KEY, [X, X]), StructureError, "expected x to be one array, got a list"),
        (lambda: attention(2).init(KEY, (X, X[:1])), ShapeError,
         "expected a context with the rows and the dtype of x, got (1, 3, 8) float32 for x of (2, 3, 8) float32"),
        (lambda: attention(2, dropout=0.5).apply(attention(2).init(KEY, X)[0], (), X, train=True), MissingKeyError,
         "attention(2, dropout=0.5): train=True draws random numbers, got key=None"),
        (lambda: attention(2).apply(attention(2).init(KEY, X)[0], (), X[..., :4]), ShapeError,
         "attention(2): expected params['query_kernel'] of shape (4, 4) for x of shape (2, 3, 4), got (8, 8)"),
    ],
)  # fmt: skip
def test_misuse_is_named(code, error, message):
    with pytest.raises(error, match=re.escape(message)):
        code()
