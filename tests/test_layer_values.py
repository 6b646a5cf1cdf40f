"""Values of layers against hand-computed or independent NumPy numbers: a gradient check cannot see a wrong forward."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import ARRAYS, draw
from numerics import quick_jit

from funcnet import initializers, layers
from funcnet.errors import ConfigError, ShapeError, StructureError
from funcnet.types import Padded, Rules

x_grid = np.array([-1e4, -20.0, -3.0, -1.0, -1e-3, -0.0, 0.0, 1e-3, 0.5, 1.0, 3.0, 20.0, 1e4])
erf = np.vectorize(math.erf)
sqrt_2_over_pi = math.sqrt(2 / math.pi)


def sigma(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


# name: (layer, its value and its derivative in NumPy)
ACTIVATIONS = {
    "identity": (layers.identity(), lambda x: x, np.ones_like),
    "binary_step": (layers.binary_step(), lambda x: 1.0 * (x >= 0), np.zeros_like),
    "binary_step_identity": (layers.binary_step(ste="identity"), lambda x: 1.0 * (x >= 0), np.ones_like),
    "binary_step_clip": (layers.binary_step(ste="clip"), lambda x: 1.0 * (x >= 0), lambda x: 1.0 * (abs(x) <= 1)),
    "sigmoid": (layers.sigmoid(), sigma, lambda x: sigma(x) * sigma(-x)),
    "tanh": (layers.tanh(), np.tanh, lambda x: 1 / np.cosh(np.clip(x, -300, 300)) ** 2),
    "relu": (layers.relu(), lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0)),
    "leaky_relu": (layers.leaky_relu(), lambda x: np.maximum(x, 0.01 * x), lambda x: np.where(x >= 0, 1, 0.01)),
    "rrelu": (layers.rrelu(), lambda x: np.maximum(x, 11 / 48 * x), lambda x: np.where(x >= 0, 1, 11 / 48)),
    "elu": (
        layers.elu(),
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda x: np.exp(np.minimum(x, 0)),
    ),
    "silu": (layers.silu(), lambda x: x * sigma(x), lambda x: sigma(x) + x * sigma(x) * sigma(-x)),
    "softplus": (layers.softplus(), lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0), sigma),
    "softplus_3": (
        layers.softplus(3.0),
        lambda x: np.log1p(np.exp(-3 * np.abs(x))) / 3 + np.maximum(x, 0),
        lambda x: sigma(3 * x),
    ),
    "log_sigmoid": (
        layers.log_sigmoid(),
        lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))),
        lambda x: sigma(-x),
    ),
    "gelu": (
        layers.gelu(),
        lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
        lambda x: (1 + erf(x / math.sqrt(2))) / 2 + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    ),
    "gelu_tanh": (
        layers.gelu(approximate=True),
        lambda x: x * (1 + np.tanh(sqrt_2_over_pi * (x + 0.044715 * x**3))) / 2,
        lambda x: (
            (1 + np.tanh(sqrt_2_over_pi * (x + 0.044715 * x**3))) / 2
            + x / 2 / np.cosh(np.clip(sqrt_2_over_pi * (x + 0.044715 * x**3), -300, 300)) ** 2
            * sqrt_2_over_pi * (1 + 3 * 0.044715 * x * x)
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_against_numpy_everywhere(x64, name):
    """Kinks at ±0, deep tails and ±1e4 included: value, hand-derived and automatic derivative, all finite."""
    layer, value, derivative = ACTIVATIONS[name]
    x = jnp.asarray(x_grid)
    y, _, residuals = layer.forward((), (), x)
    _, dx = layer.backward((), residuals, jnp.ones_like(x))
    automatic = jax.grad(lambda x: layer.apply((), (), x)[0].sum())(x)
    np.testing.assert_allclose(y, value(x_grid), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(dx, derivative(x_grid), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(automatic, derivative(x_grid), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", *(n for n in ACTIVATIONS if not n.startswith("binary"))])
def test_nan_in_is_nan_out(name):
    layer = ACTIVATIONS[name][0] if name in ACTIVATIONS else getattr(layers, name)()
    y, _ = layer.apply((), (), jnp.array([[1.0, jnp.nan]]))
    assert jnp.isnan(y[0, 1])


@pytest.mark.parametrize("name", [name for name in ARRAYS if not name.startswith("automatic")])
def test_gradients_are_finite_on_extreme_and_tied_input(name):
    case = ARRAYS[name]
    params, state, x, key = draw(case, dtype=jnp.float32)

    @quick_jit
    def run(x):
        y, _, residuals = case.layer.forward(params, state, x, key=key, train=True)
        return y, case.layer.backward(params, residuals, jnp.ones_like(y))

    for value in (-1e4, 0.0, 1e4):
        for leaf in jax.tree.leaves(run(jnp.full_like(x, value))):
            assert jnp.all(jnp.isfinite(leaf)), value


def test_dense_by_hand():
    params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), "bias": jnp.array([0.5, -0.5])}
    x, dy = jnp.array([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0]]), jnp.array([[1.0, 2.0], [-1.0, 1.0]])
    y, _, residuals = layers.dense(2).forward(params, (), x)
    dparams, dx = layers.dense(2).backward(params, residuals, dy)
    np.testing.assert_array_equal(y, [[-3.5, -4.5], [5.5, 7.5]])
    np.testing.assert_array_equal(dparams["kernel"], [[-1, 4], [-1, 1], [-1, -2]])
    np.testing.assert_array_equal(dparams["bias"], [0, 3])
    np.testing.assert_array_equal(dx, [[5, 11, 17], [1, 1, 1]])


@pytest.mark.parametrize(
    "make, first, shape",
    [
        (partial(layers.dense, 4), "kernel", (2, 1)),
        (partial(layers.conv, 4, 1), "kernel", (2, 3, 3, 1)),
        (layers.batch_norm, "scale", (2, 4)),
    ],
)
def test_no_two_parameters_are_drawn_alike(make, first, shape):
    """As they would be from one key, by two initializers of one kind."""
    normal = initializers.normal()
    layer = make(bias_init=normal, **{f"{first}_init": normal})
    params, _ = layer.init(jax.random.key(0), jnp.ones(shape))
    assert params[first].size == params["bias"].size
    assert not np.any(params[first].ravel() == params["bias"])


def test_prelu_by_hand():
    params = {"negative_slope": jnp.float32(0.25)}
    x = jnp.array([[-2.0, 0.0, 3.0]])
    y, _, residuals = layers.prelu().forward(params, (), x)
    dparams, dx = layers.prelu().backward(params, residuals, jnp.array([[10.0, 20.0, 30.0]]))
    np.testing.assert_array_equal(y, [[-0.5, 0, 3]])
    np.testing.assert_array_equal(dx, [[2.5, 20, 30]])
    assert dparams["negative_slope"] == -20


def test_softmax_by_hand():
    x = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))
    y, _, residuals = layers.softmax().forward((), (), x)
    np.testing.assert_allclose(y, [[0.125, 0.25, 0.625]], rtol=1e-6)
    _, dx = layers.softmax().backward((), residuals, jnp.array([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(dx, [[0.125 * 0.875, -0.125 * 0.25, -0.125 * 0.625]], rtol=1e-6)


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_softmax_is_the_same_after_a_shift(shift):
    x = jnp.array([[0.0, 1.0, 2.0]])
    for layer in (layers.softmax(), layers.log_softmax()):
        np.testing.assert_allclose(layer.apply((), (), x + shift)[0], layer.apply((), (), x)[0], rtol=1e-3)


def test_softmax_of_two_distant_numbers():
    x = jnp.array([[0.0, 200.0]])
    np.testing.assert_array_equal(layers.log_softmax().apply((), (), x)[0], [[-200, 0]])
    np.testing.assert_allclose(layers.softmax().apply((), (), x)[0], [[0, 1]], atol=1e-30)


def test_dropout_keeps_the_mean_and_drops_the_rate():
    x = jnp.ones((1000, 100))
    y, _ = layers.dropout(0.3).apply((), (), x, key=jax.random.key(0), train=True)
    dropped = float(jnp.mean(y == 0))
    assert abs(dropped - 0.3) < 5 * math.sqrt(0.3 * 0.7 / x.size)
    np.testing.assert_allclose(y[y != 0], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(layers.dropout(0.3).apply((), (), x)[0], x)


def test_dropout_draws_one_mask_with_and_without_64_bit_numbers():
    x = np.ones((4, 50), np.float32)
    y = layers.dropout(0.5).apply((), (), x, key=jax.random.key(3), train=True)[0]
    with jax.enable_x64(True):
        wide = layers.dropout(0.5).apply((), (), x.astype(np.float64), key=jax.random.key(3), train=True)[0]
        np.testing.assert_array_equal(np.asarray(y), np.asarray(wide))


def test_rrelu_slopes():
    x = -jnp.ones((1000, 10))
    y, _ = layers.rrelu().apply((), (), x, key=jax.random.key(0), train=True)
    assert 1 / 8 <= float(-y.max()) < 0.13
    assert 0.33 < float(-y.min()) <= 1 / 3 + 1e-6
    assert abs(float(-y.mean()) - 11 / 48) < 0.003
    np.testing.assert_allclose(layers.rrelu().apply((), (), x)[0], -11 / 48, rtol=1e-6)


def test_reshape_layers_by_hand():
    x = jnp.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(layers.flatten().apply((), (), x)[0], np.arange(12).reshape(2, 6))
    np.testing.assert_array_equal(layers.reshape((2, -1)).apply((), (), x)[0], np.arange(12).reshape(2, 2, 3))
    y, _, residuals = layers.reshape((6,)).forward((), (), x)
    np.testing.assert_array_equal(layers.reshape((6,)).backward((), residuals, y)[1], x)


@pytest.mark.parametrize("layer", [layers.identity(), layers.flatten(), layers.reshape((2, 3)), layers.serial()])
def test_integers_pass_and_have_no_gradient(layer):
    x = jnp.arange(12).reshape(2, 6)
    y, _, residuals = layer.forward(*((), ()), x)
    assert y.dtype == x.dtype
    assert layer.backward((), residuals, None)[1] is None


def test_identity_hands_on_any_tree():
    """Integers have no gradient; where no loss reads an output there is one of zeros."""
    sequences = Padded(jnp.ones((2, 3)), jnp.ones((2, 3), bool))
    x = {"image": jnp.ones((2, 4)), "text": (jnp.arange(2), sequences)}
    y, _, residuals = layers.identity().forward((), (), x)
    jax.tree.map(np.testing.assert_array_equal, y, x)
    _, dx = layers.identity().backward((), residuals, {"image": None, "text": (None, jnp.full((2, 3), 5.0))})
    np.testing.assert_array_equal(dx["image"], np.zeros((2, 4)))
    assert dx["text"][0] is None
    np.testing.assert_array_equal(dx["text"][1], np.full((2, 3), 5))


POSITIONWISE = [
    *(layer for layer, _, _ in ACTIVATIONS.values()),
    layers.prelu(),
    layers.dropout(0.3),
    layers.softmax(),
    layers.log_softmax(),
    layers.local_response_norm(3, alpha=1.0),
]


@pytest.mark.parametrize("layer", POSITIONWISE, ids=str)
def test_padding_passes_through_layers_that_take_each_position_by_itself(layer, x64):
    """What is padded changes no number that counts and gets no gradient; the cell is the layer at one position."""
    key, where = jax.random.key(0), jnp.array([[True, True, True], [True, False, False], [False] * 3])
    there = where[..., None]
    x = jax.random.normal(key, (3, 3, 4))
    dy = jnp.where(there, jnp.cos(x), 0)
    params, state = layer.init(key, Padded(x, where))

    def run(x):
        y, _, residuals = layer.forward(params, state, x, key=key, train=True)
        return y, layer.backward(params, residuals, dy)

    y, (dparams, dx) = run(x)
    padded, gradients = run(Padded(jnp.where(there, x, 100 * x), where))
    np.testing.assert_array_equal(padded.where, where)
    np.testing.assert_array_equal(jnp.where(there, padded.values, 0), jnp.where(there, y, 0))
    jax.tree.map(np.testing.assert_array_equal, gradients, (dparams, jnp.where(there, dx, 0)))

    cell = layer.rules.cell
    first, state = cell.init(key, (cell.rules.start(params, state, x[:, 0], 3), x[:, 0]))
    jax.tree.map(np.testing.assert_array_equal, first, params)
    y, _, residuals = layer.forward(params, state, x)
    for t in range(3):
        (_, y_t), _, kept = cell.forward(params, state, ((), x[:, t]))
        np.testing.assert_array_equal(y_t, y[:, t])
        _, (_, dx_t) = cell.backward(params, kept, ((), dy[:, t]))
        np.testing.assert_array_equal(dx_t, layer.backward(params, residuals, dy)[1][:, t])


@pytest.mark.parametrize(
    "layer",
    [layers.flatten(), layers.reshape((12,)), layers.softmax(1), layers.dropout(0.1, broadcast_dims=(1,))],
    ids=str,
)
def test_padding_is_refused_by_layers_that_look_at_several_positions(layer):
    assert layer.rules.positionwise is None
    assert layer.rules.cell is None
    with pytest.raises(StructureError, match=f"^{re.escape(str(layer))}: expected x without padding, got a Padded"):
        layer.apply((), (), Padded(jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool)))


def test_padding_marks_each_row():
    """A mask for other rows would be broadcast, or left for someone else to find."""
    match = r"^tanh\(\): expected x\.where over leading axes of x\.values, got values of shape \(2, 3, 4\) and where of"
    for rows in (1, 3):
        with pytest.raises(ShapeError, match=match):
            layers.tanh().apply((), (), Padded(jnp.ones((2, 3, 4)), jnp.ones((rows, 3), bool)))


def test_softmax_reads_the_axes_behind_time():
    """Over the axis −2 of (batch, time, heads, features) each time has its own sum; without heads times would mix."""
    layer, where = layers.softmax(-2), jnp.ones((2, 3), bool)
    y, _ = layer.apply((), (), Padded(jnp.ones((2, 3, 5, 4)), where))
    np.testing.assert_allclose(y.values, 0.2, rtol=1e-6)
    with pytest.raises(ShapeError, match=r"^softmax\(axis=-2\): expected x\.values with 2 or more axes beyond"):
        layer.apply((), (), Padded(jnp.ones((2, 3, 4)), where))


def test_lists_are_tuples():
    assert layers.reshape([2, 3]) == layers.reshape((2, 3))
    assert layers.dropout(0.1, broadcast_dims=[1, 2]) == layers.dropout(0.1, broadcast_dims=(1, 2))
    assert repr(layers.pad([1, [2, 0]])) == "pad((1, (2, 0)))"


def test_serial_stops_below_a_layer_without_input_gradient():
    """Below integers nothing learns: a zero gradient, of the parameters' structure."""

    def lookup_backward(params, residuals, dy):
        return {"table": jnp.zeros(3).at[residuals].add(dy)}, None

    lookup = layers.layer(
        lambda params, state, x, *, key=None, train=False: (params["table"][x], state, x),
        lookup_backward,
        leaves={"table": (initializers.ones, (3,), jnp.float32)},
    )
    unused = layers.layer(
        lambda params, state, x, *, key=None, train=False: (x, state, None),
        lambda params, residuals, dy: (params, dy),
        init=lambda key, x: ({"a": jnp.ones(2)}, ()),
    )
    model = layers.serial(unused, lookup)
    params, state = model.init(jax.random.key(0), jnp.array([0, 2, 2]))
    _, _, residuals = model.forward(params, state, jnp.array([0, 2, 2]))
    dparams, dx = model.backward(params, residuals, jnp.ones(3))
    assert dx is None
    np.testing.assert_array_equal(dparams[0]["a"], [0, 0])
    np.testing.assert_array_equal(dparams[1]["table"], [1, 0, 2])


def doubled_by_layer():
    return layers.layer(
        lambda params, state, x, *, key=None, train=False: (2 * x, state, None),
        lambda params, residuals, dy: (params, 2 * dy),
        apply=lambda params, state, x, *, key=None, train=False: (x + x, state),
        rules=Rules(positionwise=0),
    )


def doubled_by_parameterless():
    return layers.parameterless(
        lambda x, *, key, train: (2 * x, None),
        lambda residuals, dy: 2 * dy,
        apply=lambda x, *, key, train: x + x,
        rules=Rules(positionwise=0),
    )


def doubled_elementwise():
    return layers.elementwise(lambda x: 2 * x, lambda x, y: 2 + 0 * x, apply=lambda x: x + x)


@pytest.mark.parametrize("make", [doubled_by_layer, doubled_by_parameterless, doubled_elementwise])
@pytest.mark.parametrize("padded", [False, True], ids=["array", "padded"])
def test_apply_may_have_a_form_of_its_own(make, padded):
    layer, x = make(), jnp.ones((2, 3))
    x = Padded(x, jnp.array([[True, True, False], [True, False, False]])) if padded else x
    programs = [str(jax.make_jaxpr(lambda x, run=run: run((), (), x)[0])(x)) for run in (layer.apply, layer.forward)]
    assert [" add " in program for program in programs] == [True, False]
    assert [" mul " in program for program in programs] == [False, True]
    (applied, _), (forwarded, *_) = layer.apply((), (), x), layer.forward((), (), x)
    assert jax.tree.structure(applied) == jax.tree.structure(forwarded) == jax.tree.structure(x)
    np.testing.assert_array_equal(jax.tree.leaves(applied)[0], jax.tree.leaves(forwarded)[0])
    with pytest.raises(StructureError, match=r"expected x to be one array, got a dict"):
        layer.apply((), (), {"x": x})


def test_combinators_are_what_they_say(x64):
    """serial, residual, parallel and repeat against the same layers applied one by one."""
    block = layers.serial(layers.dense(3), layers.tanh())
    x = jax.random.normal(jax.random.key(0), (4, 3))
    first, state = block.init(jax.random.key(1), x)
    second, _ = block.init(jax.random.key(2), x)

    def run(params, x):
        return block.apply(params, state, x)[0]

    def check(layer, params, state, want):
        np.testing.assert_allclose(layer.apply(params, state, x)[0], want, rtol=1e-14)

    check(layers.serial(block, block), (first, second), (state, state), run(second, run(first, x)))
    check(layers.residual(block), (first,), (state,), x + run(first, x))
    check(layers.residual(block, block), (first, second), (state, state), run(first, x) + run(second, x))
    check(layers.parallel(block, block), (first, second), (state, state), run(first, x) + run(second, x))
    both = np.concatenate([run(first, x), run(second, x)], axis=-1)
    check(layers.parallel(block, block, combine="concatenate"), (first, second), (state, state), both)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), first, second)
    check(layers.repeat(block, 2), stacked, state, run(second, run(first, x)))
    check(layers.recompute(block), first, state, run(first, x))


def test_repeat_draws_each_copy_like_the_layer_itself(compiled_as_usual):
    # Under jit, because other tests had the operations by themselves compiled, in their way.
    x, init = jnp.ones((1, 3)), jax.jit(layers.dense(3).init)
    params, _ = jax.jit(layers.repeat(layers.dense(3), 3).init)(jax.random.key(5), x)
    for i, key in enumerate(jax.random.split(jax.random.key(5), 3)):
        alone, _ = init(key, x)
        np.testing.assert_array_equal(params["kernel"][i], alone["kernel"])


def test_repeat_compiles_in_a_time_independent_of_depth():
    """The program of 64 copies is as long as that of 4."""

    def program(n):
        layer = layers.repeat(layers.serial(layers.dense(3), layers.tanh()), n)
        params, state = layer.init(jax.random.key(0), jnp.ones((1, 3)))

        def both(params, x):
            y, _, residuals = layer.forward(params, state, x)
            return layer.backward(params, residuals, y)

        return jax.jit(both).lower(params, jnp.ones((1, 3))).as_text().count("\n")

    assert program(64) == program(4)


def test_recompute_keeps_its_input_only():
    inner = layers.serial(*[layers.serial(layers.dense(50), layers.tanh())] * 4)
    x = jnp.ones((8, 50))
    params, state = inner.init(jax.random.key(0), x)
    kept = layers.recompute(inner).forward(params, state, x)[2]
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) == x.size


def test_layers_print_as_the_call_that_made_them():
    model = layers.serial(layers.dense(3, use_bias=False), layers.elu(2.0), layers.repeat(layers.dropout(0.1), 2))
    assert repr(model) == "serial(dense(3, use_bias=False), elu(alpha=2.0), repeat(dropout(0.1), 2))"
    assert model.inside
    assert list(map(str, model.inside.layers)) == [
        "dense(3, use_bias=False)", "elu(alpha=2.0)", "repeat(dropout(0.1), 2)",
    ]  # fmt: skip
    assert layers.relu().inside is None


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.dense(0), r"dense\(0\): expected features to be a positive integer, got 0"),
        (lambda: layers.dense(2.0), r"dense\(2.0\): expected features to be a positive integer, got 2.0"),
        (lambda: layers.dropout(1.0), r"dropout\(1.0\): expected rate to be a finite number in \[0, 1\), got 1.0"),
        (lambda: layers.dropout(-0.1), r"in \[0, 1\), got -0.1"),
        (lambda: layers.rrelu(0.5, 0.1), r"rrelu\(lower=0.5, upper=0.1\): expected lower <= upper"),
        (lambda: layers.rrelu(None), r"rrelu\(lower=None\): expected lower to be a finite number, got None"),
        (lambda: layers.rrelu(0.1, "a"), "expected upper to be a finite number, got 'a'"),
        (lambda: layers.leaky_relu(math.nan), r"leaky_relu\(negative_slope=nan\): expected negative_slope .* got nan"),
        (lambda: layers.prelu(math.inf), r"prelu\(negative_slope=inf\): expected negative_slope .* got inf"),
        (lambda: layers.elu(True), r"elu\(alpha=True\): expected alpha to be a finite number, got True"),
        (lambda: layers.softplus(0.0), "expected beta to be a finite number > 0, got 0.0"),
        (lambda: layers.binary_step(ste="soft"), 'expected ste to be "zero", "identity" or "clip", got \'soft\''),
        (lambda: layers.reshape(6), r"reshape\(6\): expected shape to be a tuple of positive integers, .* got 6"),
        (lambda: layers.softmax("last"), r"^softmax\(axis='last'\): expected axis to be an integer, got 'last'"),
        (lambda: layers.log_softmax(True), r"^log_softmax\(axis=True\): expected axis to be an integer, got True"),
        (lambda: layers.reshape((2, -1, -1)), "at most one of them -1"),
        (lambda: layers.reshape((0, 3)), "tuple of positive integers"),
        (
            lambda: layers.serial(layers.dense(3), layers.relu),
            r"^serial\(dense\(3\), relu\): expected argument 1 to be a Layer.*relu\(\)",
        ),
        (lambda: layers.serial([layers.relu()]), r"unpack it: \*layers"),
        (lambda: layers.residual(3), r"residual\(3\): expected argument 0 to be a Layer, got 3"),
        (lambda: layers.parallel(), "expected at least one layer, got none"),
        (lambda: layers.parallel(layers.relu(), combine="mean"), 'combine to be "sum" or "concatenate", got \'mean\''),
        (lambda: layers.repeat(layers.relu(), 0), "expected n to be a positive integer, got 0"),
        (lambda: layers.elementwise(jnp.sin, jnp.cos, keep="z"), 'expected keep to be "x", "y" or "xy", got \'z\''),
    ],
)
def test_impossible_hyper_parameters_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


WIDTH = (
    r"dense\({}\): expected params\['kernel'\] of shape \({}, {}\) for x of shape \({}, {}\), got \({}, {}\); feed the "
    r"width that init saw, or init again"
)


def initialised(layer, shape):
    return layer, *layer.init(jax.random.key(0), jnp.ones(shape))


@pytest.mark.parametrize(
    "made, shape, message",
    [
        (initialised(layers.dense(16), (2, 3)), (4, 5), WIDTH.format(16, 5, 16, 4, 5, 3, 16)),
        (initialised(layers.dense(16), (2, 3)), (3,), r"expected x of shape \(batch, …, features\), got \(3,\)"),
        (
            initialised(layers.serial(layers.tanh(), layers.serial(layers.dense(3))), (2, 3)), (2, 4),
            r"^serial\[1\] serial\[0\] " + WIDTH.format(3, 4, 3, 2, 4, 3, 3),
        ),
        (initialised(layers.reshape((2, 3)), (2, 6)), (2, 7), r"with 6 elements per example, got \(2, 7\); choose"),
        (initialised(layers.reshape((2, -1)), (2, 6)), (2, 7), "2 elements per example or a multiple"),
        (initialised(layers.softmax(3), (1, 1, 1, 1)), (2, 7), r"softmax\(axis=3\): expected x with an axis 3"),
    ],
)  # fmt: skip
def test_wrong_shapes_are_named(made, shape, message):
    layer, params, state = made
    with pytest.raises(ShapeError, match=message):
        layer.apply(params, state, jnp.ones(shape))


@pytest.mark.parametrize(
    "layer, message",
    [
        (layers.residual(layers.dense(4)), r"residual\(dense\(4\)\): expected outputs of one shape and dtype"),
        (layers.parallel(layers.dense(4), layers.dense(3)), r"got \(2, 4\) float32, \(2, 3\) float32"),
        (layers.parallel(layers.dense(4), layers.flatten(), combine="concatenate", axis=2), "an axis 2"),
        (layers.repeat(layers.dense(4), 2), r"expected dense\(4\) to keep shape and dtype"),
        (layers.serial(layers.tanh(), layers.residual(layers.dense(9))), r"^serial\[1\] residual\(dense\(9\)\): exp"),
    ],
)
def test_layers_that_do_not_fit_are_named_by_init(layer, message):
    with pytest.raises(ShapeError, match=message):
        layer.init(jax.random.key(0), jnp.ones((2, 3)))


def test_mismatched_params_are_named():
    model = layers.serial(layers.dense(4), layers.relu(), layers.dense(2))
    x = jnp.ones((2, 3))
    params, state = model.init(jax.random.key(0), x)
    with pytest.raises(StructureError, match="expected params to be a tuple with one entry per layer, 3 in all, got 2"):
        model.apply(params[:2], state, x)
    with pytest.raises(StructureError, match=r"dense\(4\): expected params with the leaves \['bias', 'kernel'\], got"):
        model.apply(({"kernel": params[0]["kernel"]}, *params[1:]), state, x)
    with pytest.raises(ShapeError, match=r"serial\[2\] dense\(2\): expected params\['kernel'\] of shape \(4, 2\)"):
        model.apply((params[0], (), {"kernel": jnp.ones((4, 5)), "bias": jnp.ones(2)}), state, x)
    with pytest.raises(StructureError, match="expected leaves of params and state with a first axis of length 3, got"):
        layers.repeat(layers.dense(3), 3).apply(params[0], (), x)


def test_foreign_errors_say_where_they_were_raised():
    def broken(x, *, key, train):
        raise RuntimeError("broken")

    model = layers.serial(layers.relu(), layers.parameterless(broken, broken))
    with pytest.raises(RuntimeError, match="broken") as caught:
        model.apply(((), ()), ((), ()), jnp.ones(2))
    assert caught.value.__notes__ == ["funcnet: raised in serial[1]"]


@pytest.mark.parametrize(
    ("layer", "y", "slopes"),
    [
        (layers.gelu(), [np.inf, 0], [1, 0]),
        (layers.gelu(approximate=True), [np.inf, 0], [1, 0]),
        (layers.silu(), [np.inf, 0], [1, 0]),
        (layers.softplus(3.0), [np.inf, 0], [1, 0]),
        (layers.binary_step("zero"), [1, 0], [0, 0]),
        (layers.binary_step("identity"), [1, 0], [0, 0]),
        (layers.binary_step("clip"), [1, 0], [0, 0]),
    ],
    ids=str,
)
def test_the_limits_at_infinity(layer, y, slopes):
    """Of a formula in which ∞ · 0 or ∞ − ∞ would be NaN."""
    x = jnp.array([jnp.inf, -jnp.inf])
    got, _, residuals = layer.forward((), (), x)
    np.testing.assert_array_equal(got, y)
    _, vjp = jax.vjp(lambda x: layer.apply((), (), x)[0], x)
    for dx in (layer.backward((), residuals, jnp.ones(2))[1], *vjp(jnp.ones(2))):
        np.testing.assert_array_equal(dx, slopes)


@pytest.mark.parametrize(
    "layer",
    [layers.layer_norm(), layers.rms_norm(), layers.group_norm(1), layers.batch_norm(),
     layers.local_response_norm(3)],
    ids=str,
)  # fmt: skip
def test_numbers_too_large_to_square_are_not_zeros(layer):
    x = jnp.array([[1e30, 2e30, -3e30], [2e30, 1e30, 1e30]])
    params, state = layer.init(jax.random.key(0), x)
    assert np.isnan(layer.apply(params, state, x, train=True)[0]).all()


def test_softmax_of_many_classes_in_float16():
    y, _ = layers.softmax().apply((), (), jnp.zeros((1, 70_000), jnp.float16))
    np.testing.assert_allclose(y.astype(np.float32).sum(), 1, rtol=0.01)


def test_a_log_softmax_adds_up_in_float32():
    layer, dy = layers.log_softmax(), jnp.full((1, 4), 30_000, jnp.float16)
    _, _, residuals = layer.forward((), (), jnp.zeros((1, 4), jnp.float16))
    np.testing.assert_allclose(layer.backward((), residuals, dy)[1].astype(np.float32), 0, atol=0.01)
