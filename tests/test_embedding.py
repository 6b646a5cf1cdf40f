"""Words, positions and shared leaves: values by NumPy, what is padded or impossible, one position at a time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit, worst_leaf

import funcnet as fn
from funcnet import gradients, losses
from funcnet.checking import check_gradients
from funcnet.errors import ConfigError, DataError, DtypeError, ShapeError, StructureError
from funcnet.layers import (
    dense,
    dropout,
    embedding,
    position_embedding,
    repeat,
    residual,
    serial,
    sinusoidal_positions,
    tanh,
    tied,
    unembedding,
)  # fmt: skip
from funcnet.types import Padded

KEY = jax.random.key(0)
WORDS = np.array([[1, 0, 1, 3], [3, 3, 3, 2]])
THERE = np.array([[True, True, True, False], [True, False, False, False], [False] * 4])


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# Words


def test_rows_of_the_table_and_sums_of_the_gradient(x64):
    """Every word of a batch adds to its row, as a loop does it."""
    table, dy = numbers(5, 3), numbers(2, 4, 3, seed=1)
    y, _, rows = embedding(5, 3).forward({"embedding": table}, (), WORDS)
    np.testing.assert_array_equal(y, table[WORDS])
    want = np.zeros((5, 3))
    for word, g in zip(WORDS.ravel(), dy.reshape(-1, 3), strict=True):
        want[word] += g
    dparams, dx = embedding(5, 3).backward({"embedding": table}, rows, dy)
    np.testing.assert_allclose(dparams["embedding"], want, rtol=1e-14)
    assert dx is None
    assert not np.any(dparams["embedding"][4])


def test_a_word_that_is_impossible_is_named_or_nan(x64):
    """As labels are in losses: an error where the value can be read, else NaN, and no gradient."""
    layer, params = embedding(4, 2), {"embedding": jnp.ones((4, 2))}
    for wrong, place in ((np.array([[0, 4]]), "4 at [0, 1]"), (np.array([[-1], [0]]), "-1 at [0, 0]")):
        with pytest.raises(DataError, match=re.escape(f"embedding(4, 2): expected x in 0..3, got {place}; number")):
            layer.apply(params, (), wrong)

    @quick_jit
    def run(words):
        y, _, residuals = layer.forward(params, (), words)
        return y, layer.backward(params, residuals, jnp.ones_like(y))[0]["embedding"]

    y, dtable = run(jnp.array([[0, 4, -1]]))
    np.testing.assert_array_equal(np.isnan(y[..., 0]), [[False, True, True]])
    np.testing.assert_array_equal(dtable[:, 0], [1, 0, 0, 0])


def test_words_of_a_narrow_dtype_reach_what_it_holds():
    y, _ = embedding(300, 1).apply({"embedding": jnp.arange(300.0)[:, None]}, (), np.array([[255, 0]], np.uint8))
    np.testing.assert_array_equal(y.ravel(), [255, 0])


def test_the_table_sets_the_dtype():
    """`dtype` makes it; a cast of the parameters is another one, as in mixed precision."""
    params, _ = embedding(4, 2, dtype=jnp.bfloat16).init(KEY, WORDS)
    assert params["embedding"].dtype == jnp.bfloat16
    assert embedding(4, 2).init(KEY, WORDS)[0]["embedding"].dtype == jnp.float32
    assert embedding(4, 2).apply(params, (), WORDS)[0].dtype == jnp.bfloat16


def test_a_sum_of_many_halves_does_not_stop_to_grow():
    words = jnp.zeros((1, 1000), int)
    params = {"embedding": jnp.ones((2, 1), jnp.bfloat16)}
    _, _, residuals = embedding(2, 1).forward(params, (), words)
    dparams, _ = embedding(2, 1).backward(params, residuals, jnp.ones((1, 1000, 1), jnp.bfloat16))
    assert dparams["embedding"][0, 0] == 1000  # added in bfloat16 it stays at 256


def test_start_of_an_embedding():
    """Vectors of length one, on average of squares."""
    table = embedding(400, 100).init(KEY, WORDS)[0]["embedding"]
    assert jnp.mean(jnp.sum(table**2, 1)) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    "layer",
    [embedding(5, 3), serial(embedding(5, 3), position_embedding(6), dense(2)), sinusoidal_positions()],
    ids=str,
)
def test_what_is_padded_changes_nothing(x64, layer):
    """Impossible words may stand there too."""
    words = np.array([[1, 0, 1, 0], [3, 0, 0, 0], [0] * 4])
    rubbish = np.where(THERE, words, [[-7], [99], [5]])
    if layer == sinusoidal_positions():
        words = numbers(3, 4, 2)
        rubbish = np.where(THERE[..., None], words, 1e3)
    params, state = layer.init(KEY, Padded(jax.ShapeDtypeStruct(words.shape, words.dtype), jnp.asarray(THERE)))

    def run(x):
        y, _, residuals = layer.forward(params, state, Padded(x, THERE))
        there = THERE[..., None]
        return jnp.where(there, y.values, 0), layer.backward(params, residuals, jnp.where(there, jnp.cos(y.values), 0))

    got, want = run(rubbish), run(words)
    assert worst_leaf(got, want) == 0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(got))


@pytest.mark.parametrize(
    "code, error, message",
    [
        (lambda: embedding(0, 3), ConfigError, "embedding(0, 3): expected vocabulary to be a positive integer, got 0"),
        (lambda: unembedding(1.5), ConfigError, "unembedding(1.5): expected vocabulary to be a positive integer"),
        (lambda: position_embedding(-1), ConfigError, "position_embedding(-1): expected length to be a positive"),
        (lambda: sinusoidal_positions(0), ConfigError, "sinusoidal_positions(base=0): expected base to be a"),
        (lambda: embedding(4, 3).init(KEY, jnp.ones((2, 3))), DtypeError,
         "embedding(4, 3): expected x to be integers, got dtype float32"),
        (lambda: embedding(4, 3).init(KEY, jnp.zeros((), int)), ShapeError, "expected x of shape (batch, …), got ()"),
        (lambda: embedding(4, 3).apply({"embedding": jnp.ones((5, 3))}, (), WORDS), ShapeError,
         "embedding(4, 3): expected params['embedding'] of shape (4, 3), got (5, 3); take them from init"),
        (lambda: embedding(4, 3).apply({"table": jnp.ones((4, 3))}, (), WORDS), StructureError,
         "embedding(4, 3): expected params with the leaves ['embedding'], got the leaves ['table']"),
        (lambda: position_embedding(3).init(KEY, jnp.ones((2, 4, 5))), ShapeError,
         "position_embedding(3): expected at most 3 positions, got 4; make it longer, or cut the sequences"),
        (lambda: position_embedding(3).init(KEY, jnp.ones((2, 4))), ShapeError,
         "position_embedding(3): expected x of shape (batch, time, features), got (2, 4)"),
        (lambda: position_embedding(3).apply({"embedding": jnp.ones((3, 4))}, (), jnp.ones((2, 2, 5))), ShapeError,
         "expected params['embedding'] of shape (3, 5) for x of shape (2, 2, 5), got (3, 4); feed the width"),
        (lambda: position_embedding(4).rules.cell.rules.start({}, (), jnp.ones((2, 3)), 5), ShapeError,
         "position_embedding(4): expected at most 4 positions, got 5"),
        (lambda: sinusoidal_positions().apply((), (), Padded(jnp.ones((2, 3, 4)), jnp.ones((2,), bool))), ShapeError,
         "sinusoidal_positions(): expected x.where of shape (batch, time), got (2,)"),
    ],
)  # fmt: skip
def test_misuse_is_named(code, error, message):
    with pytest.raises(error, match=re.escape(message)):
        code()


# Positions


def test_waves(x64):
    """Position t, feature 2i: sin(t / 10000^(2i/5)); 2i + 1: its cosine; an odd width ends with a sine."""
    y, _ = sinusoidal_positions().apply((), (), jnp.zeros((1, 7, 5)))
    want = [[(np.cos if f % 2 else np.sin)(t / 10000 ** (2 * (f // 2) / 5)) for f in range(5)] for t in range(7)]
    np.testing.assert_allclose(y[0], want, rtol=1e-14, atol=1e-15)


def test_padding_in_front_moves_no_position():
    layer = position_embedding(4)
    params = {"embedding": jnp.arange(4.0)[:, None]}
    where = np.array([[False, False, True, True], [True, False, True, False]])
    y, _ = layer.apply(params, (), Padded(jnp.zeros((2, 4, 1)), where))
    np.testing.assert_array_equal(np.where(where, y.values[..., 0], 0), [[0, 0, 0, 1], [0, 0, 1, 0]])


@pytest.mark.parametrize("layer", [position_embedding(5), sinusoidal_positions(100.0)], ids=str)
def test_one_position_at_a_time(x64, layer):
    x, dy = jnp.asarray(numbers(2, 5, 3)), jnp.asarray(numbers(2, 5, 3, seed=1))
    params, state = layer.init(KEY, x)
    y, _, residuals = layer.forward(params, state, x)
    dparams, _ = layer.backward(params, residuals, dy)
    cell = layer.rules.cell
    carry, total = cell.rules.start(params, state, x[:, 0], 5), None
    assert jax.tree.map(jnp.shape, cell.init(KEY, (carry, x[:, 0]))) == jax.tree.map(jnp.shape, (params, state))
    for t in range(5):
        (carry, y_t), _, kept = cell.forward(params, state, (carry, x[:, t]))
        np.testing.assert_array_equal(y_t, y[:, t])
        own, (dcarry, dx_t) = cell.backward(params, kept, (None, dy[:, t]))
        np.testing.assert_array_equal(dx_t, dy[:, t])
        assert dcarry is None
        total = own if total is None else jax.tree.map(jnp.add, total, own)
    assert worst_leaf(total, dparams) <= 1e-14
    if params:
        assert np.all(np.isnan(cell.apply(params, state, (carry, x[:, 0]))[0][1]))


# Shared leaves


def language_model(middle):
    return serial(embedding(6, 3), middle, unembedding(6))


BLOCK = residual(serial(dense(3), tanh()))
SHARED = {
    "words": (language_model(BLOCK), {"2/embedding": "0/embedding"}),
    "deep": (
        serial(a=language_model(repeat(BLOCK, 2)), b=serial(dense(4), unembedding(4), unembedding(4))),
        {"a/2/embedding": "a/0/embedding", "b/2/embedding": "b/1/embedding"},
    ),
    "three": (serial(*[dense(3, use_bias=False)] * 3, unembedding(3)), {f"{i}/kernel": "1/kernel" for i in (0, 2)}),
    "stacked": (serial(repeat(BLOCK, 2), repeat(BLOCK, 2)), {"1/0/0/kernel": "0/0/0/kernel"}),
}


def with_all(params, paths):
    """The parameters of the model itself, the shared ones in each of their places, as separate leaves."""
    leaves = dict(fn.trees.flatten_with_paths(params))

    def filled(path, leaf):
        return leaves[paths[fn.trees.path_string(path)]] if leaf is None else leaf

    return jax.tree_util.tree_map_with_path(filled, params, is_leaf=lambda leaf: leaf is None)


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_leaf_gets_the_sum(x64, name):
    """Of the gradients that it has in its places in the model that shares nothing; in both engines."""
    plain, paths = SHARED[name]
    model = tied(plain, paths)
    x = WORDS if name in ("words", "deep") else numbers(4, 3)
    params, state = model.init(KEY, jnp.asarray(x))
    y = plain.apply(with_all(params, paths), state, x)[0]
    np.testing.assert_array_equal(model.apply(params, state, x)[0], y)
    batch = (x, numbers(*y.shape, seed=3))
    loss = losses.mean_squared_error
    of_all = dict(fn.trees.flatten_with_paths(
        quick_jit(gradients.autodiff(plain, loss))(with_all(params, paths), state, batch).grads
    ))  # fmt: skip
    for path, source in paths.items():
        of_all[source] = of_all[source] + of_all.pop(path)
    for engine in (gradients.autodiff, gradients.backprop):
        grads = quick_jit(engine(model, loss))(params, state, batch).grads
        assert jax.tree.structure(grads) == jax.tree.structure(params)
        assert worst_leaf(dict(fn.trees.flatten_with_paths(grads)), of_all) <= 1e-13


def test_shared_leaves_one_position_at_a_time(x64):
    model = tied(serial(embedding(6, 3), position_embedding(4), unembedding(6)), {"2/embedding": "0/embedding"})
    params, state = model.init(KEY, WORDS)
    y, _, residuals = model.forward(params, state, WORDS)
    dparams, _ = model.backward(params, residuals, jnp.cos(y))
    cell = model.rules.cell
    carry, total = cell.rules.start(params, state, jnp.asarray(WORDS[:, 0]), 4), None
    assert jax.tree.structure(cell.init(KEY, (carry, WORDS[:, 0]))[0]) == jax.tree.structure(params)
    for t in range(4):
        (carry, y_t), _, kept = cell.forward(params, state, (carry, WORDS[:, t]))
        np.testing.assert_allclose(y_t, y[:, t], rtol=1e-14)
        own, _ = cell.backward(params, kept, (((), None, ()), jnp.cos(y_t)))
        total = own if total is None else jax.tree.map(jnp.add, total, own)
    assert worst_leaf(total, dparams) <= 1e-13


def test_a_tied_model_can_be_opened_and_checked():
    model = tied(language_model(BLOCK), {"2/embedding": "0/embedding"})
    held = fn.layers.map_layers(lambda place, layer: layer, model)
    assert held == model
    assert next(iter(fn.layers.plain_layers(model)))[0] == "tied serial[0]"
    shape = jax.ShapeDtypeStruct((2, 3), jnp.int32)
    assert "unembedding(6)" in str(fn.summaries.summary(model, shape))

    def doubled(layer):
        def backward(params, residuals, dy):
            dparams, dx = layer.backward(params, residuals, dy)
            return jax.tree.map(lambda g: 2 * g, dparams), dx

        return layer._replace(backward=backward)

    report = check_gradients(tied(language_model(doubled(dense(3))), {"2/embedding": "0/embedding"}), shape)
    assert not report.ok
    assert report.located == ("tied serial[1] dense(3)",)
    with pytest.raises(
        ConfigError,
        match=r"^per_example_norms\(.*: expected a model without tied leaves, got tied\(.*Use jax\.vmap over",
    ):
        gradients.per_example_norms(serial(model, dropout(0.1)), losses.mean_squared_error)


@pytest.mark.parametrize(
    "paths, error, message",
    [
        ({}, ConfigError, "expected paths from a leaf to another one, got {}; give each the leaf that stays"),
        ("0/embedding", ConfigError, "expected paths to be a dictionary, got '0/embedding'; write for example"),
        ({"2/embedding": 0}, ConfigError, "expected paths from a leaf to another one, got {'2/embedding': 0}"),
        ({"2/embedding": "0/embedding", "0/embedding": "1/0/0/kernel"}, ConfigError, "got '0/embedding' on both sides"),
        ({"2/embedding": "0/table"}, StructureError, "expected a leaf at '0/table', got none; the leaves are 0/emb"),
        ({"2/embedding": "1/0/0/kernel"}, ShapeError,
         "got float32[6, 3] at '2/embedding' and float32[3, 3] at '1/0/0/kernel'"),
    ],
)  # fmt: skip
def test_misuse_of_tied_is_named(paths, error, message):
    with pytest.raises(error, match=re.escape(message)):
        tied(language_model(BLOCK), paths).init(KEY, WORDS)


def test_params_of_the_model_itself_are_refused():
    model = language_model(BLOCK)
    params, state = model.init(KEY, WORDS)
    with pytest.raises(StructureError, match=r"^tied\(.*params with a leaf at '0/embedding' and None at '2/embedding'"):
        tied(model, {"2/embedding": "0/embedding"}).apply(params, state, WORDS)


def test_rows_per_example_of_words(x64):
    """A word that stands twice in one example and once in another."""
    layer, dy = embedding(4, 3), jnp.asarray(numbers(2, 4, 3))
    params, _ = layer.init(KEY, WORDS)
    _, _, residuals = layer.forward(params, (), WORDS)
    rows = layer.rules.per_example(params, residuals, dy)["embedding"]
    for i in range(2):
        _, _, own = layer.forward(params, (), WORDS[i : i + 1])
        np.testing.assert_allclose(rows[i], layer.backward(params, own, dy[i : i + 1])[0]["embedding"], rtol=1e-14)
    squares = layer.rules.per_example_square(params, residuals, dy)
    np.testing.assert_allclose(squares, np.sum(np.square(rows), (1, 2)), rtol=1e-14)
