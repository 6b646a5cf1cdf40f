"""Normalisation layers: values by hand and against NumPy, running statistics, precision, errors."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import worst_leaf

from funcnet import gradients, initializers, layers, losses, optimizers, summaries, training
from funcnet.errors import ConfigError, DtypeError, ShapeError, StructureError

KEY = jax.random.key(0)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# Batch norm: values and state

X, DY = jnp.array([[1.0], [5.0]]), jnp.array([[1.0], [2.0]])  # mean 3, variance 4; with ε = 5 the root is 3
THREE_AND_ONE = {"scale": jnp.array([3.0]), "bias": jnp.array([1.0])}


@pytest.mark.parametrize("unbiased, var", [(False, 1.3), (True, 1.7)])
def test_batch_norm_in_training_by_hand(unbiased, var):
    """x̂ = ∓2/3, the state from 0 and 1 a tenth of the way to 3 and 4 (or 4 · 2/1), db = 3, ds = 2/3, dx = ∓5/18."""
    layer = layers.batch_norm(epsilon=5, unbiased_running_var=unbiased)
    params, state = layer.init(KEY, X)
    assert (params["scale"], params["bias"], state["mean"], state["var"]) == (1, 0, 0, 1)
    y, state, residuals = layer.forward(THREE_AND_ONE, state, X, train=True)
    dparams, dx = layer.backward(THREE_AND_ONE, residuals, DY)
    np.testing.assert_allclose(y, [[-1], [3]], rtol=1e-6)
    np.testing.assert_allclose([state["mean"], state["var"]], [[0.3], [var]], rtol=1e-6)
    np.testing.assert_allclose([dparams["bias"], dparams["scale"]], [[3], [2 / 3]], rtol=1e-6)
    np.testing.assert_allclose(dx, [[-5 / 18], [5 / 18]], rtol=1e-6)


def test_batch_norm_at_evaluation_by_hand():
    """With running mean 1 and variance 4: y = 3 (x − 1) / 3 + 1 = x, dx = g, ds = Σ g (x − 1) / 3 = 8/3."""
    layer, state = layers.batch_norm(epsilon=5), {"mean": jnp.ones(1), "var": jnp.full(1, 4.0)}
    y, same, residuals = layer.forward(THREE_AND_ONE, state, X)
    dparams, dx = layer.backward(THREE_AND_ONE, residuals, DY)
    assert same is state
    np.testing.assert_allclose(y, X, rtol=1e-6)
    np.testing.assert_allclose(dx, DY, rtol=1e-6)
    np.testing.assert_allclose([dparams["bias"], dparams["scale"]], [[3], [8 / 3]], rtol=1e-6)
    one, _ = layer.apply(THREE_AND_ONE, state, X[:1])
    np.testing.assert_allclose(one, [[1]], rtol=1e-6)  # a batch of one, which its own statistics would make 1 + 0


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3), (2, 3, 2, 3), (2, 2, 3, 2, 3)], ids=str)
def test_batch_norm_against_numpy(shape, x64):
    """Three steps: the statistics of a channel are those of all its numbers, whatever the axes between."""
    layer, axes = layers.batch_norm(momentum=0.8, epsilon=0.01), tuple(range(len(shape) - 1))
    params = {"scale": jnp.array([0.5, -2.0, 3.0]), "bias": jnp.array([1.0, 2.0, 3.0])}
    state, mean, var = layer.init(KEY, jnp.ones(shape))[1], np.zeros(3), np.ones(3)
    for seed in range(3):
        x = numbers(*shape, seed=seed) * [1, 10, 0.1] + [0, 5, -7]
        y, state = layer.apply(params, state, jnp.asarray(x), train=True)
        m, v = x.mean(axes), x.var(axes)
        mean, var = 0.8 * mean + 0.2 * m, 0.8 * var + 0.2 * v
        np.testing.assert_allclose(
            y, params["scale"] * (x - m) / np.sqrt(v + 0.01) + params["bias"], rtol=1e-12, atol=1e-12
        )
        np.testing.assert_allclose([state["mean"], state["var"]], [mean, var], rtol=1e-13)
    y, _ = layer.apply(params, state, jnp.asarray(x))
    np.testing.assert_allclose(y, params["scale"] * (x - mean) / np.sqrt(var + 0.01) + params["bias"], rtol=1e-12)


def test_the_gradient_at_evaluation_is_that_of_autodiff(x64):
    """With running statistics that are not the start's, which the laws draw."""
    layer, x, dy = layers.batch_norm(), jnp.asarray(numbers(4, 2, 3)), jnp.asarray(numbers(4, 2, 3, seed=1))
    params = {"scale": jnp.array([0.5, -2.0, 3.0]), "bias": jnp.ones(3)}
    state = {"mean": jnp.array([1.0, -2.0, 0.5]), "var": jnp.array([0.1, 3.0, 2.0])}
    residuals = layer.forward(params, state, x)[2]
    by_autodiff = jax.vjp(lambda params, x: layer.apply(params, state, x)[0], params, x)[1](dy)
    assert worst_leaf(layer.backward(params, residuals, dy), by_autodiff) <= 1e-14
    rows = layer.rules.per_example(params, residuals, dy)
    assert worst_leaf(jax.tree.map(lambda row: row.sum(0), rows), by_autodiff[0]) <= 1e-14
    assert rows["scale"].shape == (4, 3)


def test_what_is_kept():
    """x and two numbers a channel; the mode is in the structure, so that a compiled backward knows it."""
    layer, x = layers.batch_norm(), jax.ShapeDtypeStruct((8, 5, 3), jnp.float32)
    assert summaries.residual_bytes(layer, x) == summaries.residual_bytes(layer, x, train=False) == 4 * (8 * 5 * 3 + 6)
    structures = [
        jax.tree.structure(layer.forward(*layer.init(KEY, x), jnp.ones(x.shape), train=train)[2])
        for train in (True, False)
    ]
    assert structures[0] != structures[1]


def test_statistics_start_in_a_dtype_that_there_is():
    """NumPy's examples are float64, which JAX does not have by default; a warning would be an error here."""
    _, state = layers.batch_norm().init(KEY, np.ones((2, 3)))
    assert {leaf.dtype for leaf in state.values()} == {jnp.dtype(jnp.float32)}


# Batch norm in models


def test_containers_keep_the_running_statistics_apart(x64):
    """A stack by `repeat`, with residual and recompute within, is that of the same blocks one after the other."""
    block = layers.residual(layers.recompute(layers.serial(layers.dense(3), layers.batch_norm())))
    stack, row = layers.repeat(block, 3), layers.serial(block, block, block)
    batch = jnp.asarray(numbers(5, 3)), jnp.asarray(numbers(5, 3, seed=1))
    params, state = stack.init(KEY, batch[0])
    in_a_row = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(3))
    states = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(3))
    wanted = jax.jit(gradients.autodiff(row, losses.mean_squared_error))(in_a_row, states, batch)
    for engine in (gradients.backprop, gradients.autodiff):
        got = jax.jit(engine(stack, losses.mean_squared_error))(params, state, batch)
        assert jax.tree.structure(got.state) == jax.tree.structure(state)
        for i in range(3):
            of_one = jax.tree.map(lambda leaf, i=i: leaf[i], (got.grads, got.state))
            # The bias before a norm has a gradient of rounding noise alone.
            of_one[0][0][0].pop("bias"), wanted.grads[i][0][0].pop("bias", None)
            assert worst_leaf(of_one, (wanted.grads[i], wanted.state[i])) <= 1e-12
    means = got.state[0][1]["mean"]
    assert not np.allclose(means[0], means[1])
    y, same = stack.apply(params, got.state, batch[0])
    assert worst_leaf(same, got.state) == 0
    assert worst_leaf(y, row.apply(in_a_row, wanted.state, batch[0])[0]) <= 1e-12


@pytest.mark.parametrize("engine", ["autodiff", "backprop"])
def test_training_learns_the_statistics_of_the_data(engine):
    """The last of the batches is incomplete: it is filled with rows of the data, which count for the statistics too."""
    x = np.float32([5, -3] + [2, 0.1] * numbers(50, 2))
    y = np.float32(x[:, :1] * x[:, 1:])
    model = layers.serial(layers.batch_norm(use_scale=False, use_bias=False), layers.dense(1))
    loss = losses.mean_squared_error
    *_, last = training.fit(model, loss, optimizers.sgd(0.1), (x, y), epochs=30, batch_size=16, engine=engine)
    np.testing.assert_allclose(last.state.model[0]["mean"], x.mean(0), rtol=0.1)
    np.testing.assert_allclose(last.state.model[0]["var"], x.var(0), rtol=0.2)
    # y is nearly linear in x, so that a linear model on the right statistics is nearly right, row by row too.
    trained = last.state.optimizer.params, last.state.model
    whole, one_by_one = (
        training.evaluate(model, loss, *trained, (x[:20], y[:20]), batch_size=size)["loss"] for size in (20, 1)
    )
    assert whole < 0.1 * y.var()
    np.testing.assert_allclose(one_by_one, whole, rtol=1e-5)


# The other norms

OTHERS = {
    "layer_norm": (layers.layer_norm(), (4, 5, 6), (-1,), None),
    "layer_norm_of_features": (layers.layer_norm(epsilon=0.1), (4, 6), (-1,), None),
    "group_norm": (layers.group_norm(2), (3, 4, 5, 6), (1, 2, 4), 2),
    "group_norm_of_all": (layers.group_norm(1), (3, 4, 6), (1, 3), 1),
    "group_norm_of_features": (layers.group_norm(3), (3, 6), (2,), 3),
    "instance_norm": (layers.instance_norm(), (3, 4, 5, 6), (1, 2), None),
    "instance_norm_1d": (layers.instance_norm(epsilon=0.1), (3, 4, 6), (1,), None),
    "instance_norm_3d": (layers.instance_norm(), (2, 2, 3, 2, 6), (1, 2, 3), None),
}


@pytest.mark.parametrize("layer, shape, axes, groups", OTHERS.values(), ids=OTHERS)
def test_norms_within_an_example_against_numpy(layer, shape, axes, groups, x64):
    params = {"scale": jnp.linspace(-2, 3, 6), "bias": jnp.linspace(1, 2, 6)}
    x = 3 * numbers(*shape) + np.arange(6)
    grouped = x if groups is None else x.reshape(*shape[:-1], groups, 6 // groups)
    mean, var = grouped.mean(axes, keepdims=True), grouped.var(axes, keepdims=True)
    normalized = ((grouped - mean) / np.sqrt(var + layer.made.arguments["epsilon"])).reshape(shape)
    for train in (True, False):
        y, state = layer.apply(params, (), jnp.asarray(x), train=train)
        np.testing.assert_allclose(y, params["scale"] * normalized + params["bias"], rtol=1e-12)
        assert state == ()


def test_rms_norm_against_numpy(x64):
    scale, x = jnp.linspace(-2, 3, 6), 3 * numbers(4, 5, 6) + np.arange(6)
    y, _ = layers.rms_norm(epsilon=0.1).apply({"scale": scale}, (), jnp.asarray(x))
    np.testing.assert_allclose(y, scale * x / np.sqrt((x * x).mean(-1, keepdims=True) + 0.1), rtol=1e-13)


def test_layer_norm_by_hand():
    """As the batch norm above, but with scales 3 and 6: d = 3, 12, mean(d) = 7.5 and mean(d x̂) = 3, so
    dx = (3 − 7.5 + 2, 12 − 7.5 − 2) / 3 = ∓5/6."""
    layer, params = layers.layer_norm(epsilon=5), {"scale": jnp.array([3.0, 6.0]), "bias": jnp.zeros(2)}
    y, _, residuals = layer.forward(params, (), X.T)
    dparams, dx = layer.backward(params, residuals, DY.T)
    np.testing.assert_allclose(y, [[-2, 4]], rtol=1e-6)
    np.testing.assert_allclose(dparams["scale"], [-2 / 3, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(dparams["bias"], [1, 2], rtol=1e-6)
    np.testing.assert_allclose(dx, [[-5 / 6, 5 / 6]], rtol=1e-6)


EVERY = {
    "batch_norm": layers.batch_norm, "layer_norm": layers.layer_norm, "rms_norm": layers.rms_norm,
    "group_norm": lambda **options: layers.group_norm(2, **options), "instance_norm": layers.instance_norm,
}  # fmt: skip
every_norm = pytest.mark.parametrize("name", EVERY)


@every_norm
def test_epsilon_is_a_hundred_thousandth(name, x64):
    """Of deviations ±√ε, ε is half of what stands under the root."""
    layer = EVERY[name]()
    x = jnp.array([[1.0], [-1.0]]) * np.sqrt(1e-5) * jnp.array([1.0, -1, -1, 1])
    x = jnp.stack([x, -x])
    y, _ = layer.apply(*layer.init(KEY, x), x, train=True)
    np.testing.assert_allclose(y, x / np.sqrt(2e-5), rtol=1e-12)


@every_norm
def test_scale_and_bias_may_be_left_out(name):
    x = jnp.ones((2, 3, 4))
    off = {"use_scale": False} if name == "rms_norm" else {"use_scale": False, "use_bias": False}
    bare, plain = EVERY[name](**off), EVERY[name]()
    params, state = bare.init(KEY, x)
    assert params == ()
    x = jnp.asarray(numbers(2, 3, 4), jnp.float32)
    y, _, residuals = bare.forward(params, state, x, train=True)
    assert bare.backward(params, residuals, y)[0] == ()
    np.testing.assert_array_equal(y, plain.apply(*plain.init(KEY, x), x, train=True)[0])
    with pytest.raises(StructureError, match=f"^{re.escape(str(bare))}: " + r"expected params to be \(\)"):
        bare.apply({"scale": jnp.ones(4)}, state, x)


def test_initializers():
    half = initializers.constant(0.5)
    for make in EVERY.values():
        options = {"scale_init": half} if make is layers.rms_norm else {"scale_init": half, "bias_init": half}
        params, _ = make(**options).init(KEY, jnp.ones((2, 3, 4)))
        assert {leaf: (value.shape, set(value.tolist())) for leaf, value in params.items()} == {
            option.removesuffix("_init"): ((4,), {0.5}) for option in options
        }


# Precision


AXES = {"batch_norm": (0, 1), "layer_norm": (2,), "group_norm": (1, 3), "instance_norm": (1,)}


@pytest.mark.parametrize("name", AXES)
def test_numbers_far_from_zero_in_float32(name):
    """Of mean 10⁴ and deviation 1, where float32 holds a mean to 5e-4: E[x²] − E[x]² would be off by about 10."""
    layer, x = EVERY[name](), (1e4 + numbers(64, 7, 8)).astype(np.float32)
    params, state = layer.init(KEY, x)
    y, state = jax.jit(layer.apply, static_argnames="train")(params, state, x, train=True)
    exact = np.float64(x).reshape(64, 7, 2, 4) if name == "group_norm" else np.float64(x)
    mean, var = exact.mean(AXES[name], keepdims=True), exact.var(AXES[name], keepdims=True)
    np.testing.assert_allclose(y, ((exact - mean) / np.sqrt(var + 1e-5)).reshape(x.shape), atol=5e-3)
    if name == "batch_norm":
        np.testing.assert_allclose(10 * (state["var"] - 0.9), var.ravel(), rtol=1e-5)


@every_norm
@pytest.mark.parametrize("spread", [0.0, 1e-9])
@pytest.mark.parametrize("level", [0.0, 1.0, 1e4])
def test_nearly_constant_numbers(name, level, spread, x64):
    """Nothing is infinite at variance 0, and both gradients are the same there."""
    layer = EVERY[name]()
    x, dy = jnp.asarray(level + spread * numbers(3, 4, 4)), jnp.asarray(numbers(3, 4, 4, seed=1))
    params, state = layer.init(KEY, x)

    @jax.jit
    def both(params, x):
        y, new_state, residuals = layer.forward(params, state, x, train=True)
        by_autodiff = jax.vjp(lambda params, x: layer.apply(params, state, x, train=True)[0], params, x)[1](dy)
        return y, new_state, layer.backward(params, residuals, dy), by_autodiff

    y, new_state, by_hand, by_autodiff = both(params, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, new_state, by_hand)))
    for hand, automatic in zip(jax.tree.leaves(by_hand), jax.tree.leaves(by_autodiff), strict=True):
        np.testing.assert_allclose(hand, automatic, rtol=1e-13, atol=1e-13 * max(np.abs(automatic).max(), 1e-9))


@every_norm
def test_sixteen_bits_have_statistics_of_thirty_two(name):
    """Over 2000 numbers a sum in float16 would be off in the third digit, and 300² infinite."""
    layer = EVERY[name]()
    x, dy = (jnp.asarray(10 * numbers(50, 10, 4, seed=seed), jnp.float16) for seed in (0, 1))
    x = x + jnp.where(x > 0, 300, jnp.float16(-300))

    def run(x, dy):
        params, state = layer.init(KEY, x)
        y, new_state, residuals = layer.forward(params, state, x, train=True)
        return y, new_state, layer.backward(params, residuals, dy)

    y, state, (dparams, dx) = jax.jit(run)(x, dy)
    wide_y, wide_state, (wide_dparams, wide_dx) = jax.jit(run)(x.astype(jnp.float32), dy.astype(jnp.float32))
    assert worst_leaf(state, wide_state) == 0
    assert worst_leaf((y, dparams, dx), (wide_y, wide_dparams, wide_dx)) <= 5e-4
    assert {leaf.dtype for leaf in jax.tree.leaves((y, dparams, dx))} == {jnp.dtype(jnp.float16)}


# Local response normalisation


@pytest.mark.parametrize("size", [1, 2, 5])
def test_local_response_norm_against_a_loop(x64, size):
    x = np.random.default_rng(0).normal(size=(2, 3, 6))
    y, _ = layers.local_response_norm(size, alpha=0.3, beta=0.6, k=1.5).apply((), (), x)
    for c in range(6):
        around = x[..., max(c - size // 2, 0) : c + (size - 1) // 2 + 1]
        want = x[..., c] / (1.5 + 0.3 / size * np.sum(around**2, -1)) ** 0.6
        np.testing.assert_allclose(y[..., c], want, rtol=1e-14)


# Errors


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: layers.batch_norm(momentum=1),
            r"^batch_norm\(momentum=1\): expected momentum .* in \[0, 1\), got 1\.",
        ),
        (lambda: layers.batch_norm(epsilon=0), r"^batch_norm\(epsilon=0\): expected epsilon .* > 0, got 0\.$"),
        (
            lambda: layers.layer_norm(epsilon=-1.0),
            r"^layer_norm\(epsilon=-1.0\): expected epsilon .* > 0, got -1\.0",
        ),
        (lambda: layers.rms_norm(epsilon="x"), r"^rms_norm\(epsilon='x'\): expected epsilon .* > 0, got 'x'\.$"),
        (lambda: layers.group_norm(0), r"^group_norm\(groups=0\): expected groups to be a positive integer, got 0\.$"),
        (lambda: layers.instance_norm(epsilon=0), r"^instance_norm\(epsilon=0\): expected epsilon .* > 0, got 0\.$"),
        (
            lambda: layers.local_response_norm(0),
            r"^local_response_norm\(size=0\): expected size to be a positive integer",
        ),
        (lambda: layers.local_response_norm(alpha=-1), r"expected alpha to be a finite number >= 0, got -1\."),
        (lambda: layers.local_response_norm(beta=-1), r"expected beta to be a finite number >= 0, got -1\."),
        (lambda: layers.local_response_norm(k=0), r"expected k to be a finite number > 0, got 0\."),
    ],
)
def test_hyper_parameters_are_checked(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "layer, shape, message",
    [
        (
            layers.batch_norm(), (1, 3),
            r"^batch_norm\(\): expected two numbers or more per channel in training, got x of shape \(1, 3\); "
            r"the variance of one number is 0; use larger batches, train=False, or layer_norm\.$",
        ),
        (
            layers.layer_norm(), (4, 1),
            r"^layer_norm\(\): expected two numbers or more for each mean, got x of shape \(4, 1\); the variance of "
            r"one number is 0; use larger images or more channels, or leave the norm out\.$",
        ),
        (layers.instance_norm(), (4, 3), r"^instance_norm\(\): expected two numbers or more for each mean, got"),
        (layers.group_norm(3), (4, 1, 3), r"^group_norm\(groups=3\): expected two numbers or more for each mean, got"),
        (
            layers.group_norm(), (4, 2, 48),
            r"^group_norm\(\): expected the channels of x to be a multiple of 32, the number of groups, got 48; "
            r"choose groups that divide them\.$",
        ),
        (
            layers.batch_norm(), (4,),
            r"^batch_norm\(\): expected x of shape \(batch, …, channels\), got \(4,\); add the batch axis",
        ),
        (layers.rms_norm(), (4,), r"^rms_norm\(\): expected x of shape \(batch, …, channels\), got \(4,\)"),
        (
            layers.local_response_norm(), (3,),
            r"expected x of shape \(batch, …, channels\), got \(3,\); add the batch axis",
        ),
    ],
)  # fmt: skip
def test_shapes_are_checked(layer, shape, message):
    x = jnp.ones(shape)
    with pytest.raises(ShapeError, match=message):
        layer.apply(*layer.init(KEY, x), x, train=True)


@every_norm
def test_other_channels_are_named(name):
    layer = EVERY[name]()
    params, state = layer.init(KEY, jnp.ones((2, 3, 4)))
    with pytest.raises(
        ShapeError,
        match=rf"^{name}\((groups=2)?\): expected params\['scale'\] of shape \(6,\) for x of shape \(2, 3, 6\), got "
        r"\(4,\); feed the width that init saw, or init again\.$",
    ):
        layer.apply(params, state, jnp.ones((2, 3, 6)))
    with pytest.raises(DtypeError, match=rf"^{name}\((groups=2)?\): expected x of dtype float32, the dtype of params"):
        layer.apply(params, state, jnp.ones((2, 3, 4), jnp.bfloat16))


@pytest.mark.parametrize("state, got", [((), r"a tuple \(\)"), ({"mean": jnp.ones(3)}, r"the leaves \['mean'\]")])
def test_another_state_is_named(state, got):
    layer, x = layers.batch_norm(), jnp.ones((2, 3))
    params, _ = layer.init(KEY, x)
    with pytest.raises(
        StructureError,
        match=rf"^batch_norm\(\): expected state with the leaves \['mean', 'var'\], got {got}; the order is",
    ):
        layer.apply(params, state, x)


def test_a_state_of_other_channels_is_named():
    """Without a scale and a bias the state alone knows."""
    layer = layers.batch_norm(use_scale=False, use_bias=False)
    params, state = layer.init(KEY, jnp.ones((2, 3)))
    with pytest.raises(
        ShapeError,
        match=r"expected state\['mean'\] of shape \(4,\) for x of shape \(2, 4\), got \(3,\); feed the width",
    ):
        layer.apply(params, state, jnp.ones((2, 4)))
