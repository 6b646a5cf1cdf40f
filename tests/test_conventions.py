"""Rows of docs/conventions.md that no other test holds: kinks, defaults, forms of optimizers, numerical traps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import gradients, initializers, layers, losses, models, optimizers, training

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    "layer, slope",
    [
        (layers.relu(), 0),
        (layers.leaky_relu(), 1),
        (layers.leaky_relu(0.3), 1),
        (layers.prelu(), 1),
        (layers.rrelu(), 1),
        (layers.elu(), 1),
        (layers.elu(2.0), 2),
        (layers.binary_step(), 0),
        (layers.binary_step(ste="identity"), 1),
        (layers.binary_step(ste="clip"), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
def test_slope_at_zero(layer, slope, train, x64):
    x = jnp.array([[0.0, -0.0]])
    params, state = layer.init(KEY, x)
    _, _, residuals = layer.forward(params, state, x, key=KEY, train=train)
    by_hand = layer.backward(params, residuals, jnp.ones_like(x))[1]
    by_autodiff = jax.grad(lambda x: layer.apply(params, state, x, key=KEY, train=train)[0].sum())(x)
    np.testing.assert_array_equal(by_hand, [[slope, slope]])
    np.testing.assert_array_equal(by_autodiff, [[slope, slope]])


def test_kinks_and_ties_in_each_example_and_in_saliency():
    """As in a batch: relu has the slope 0 at 0, and the first of equal numbers has all of a pool's gradient."""
    images, target = jnp.array([[0.0, -1, 2, 2], [3, 3, 0, 3]]).reshape(2, 1, 4, 1), jnp.array([[1.5], [5.5]])
    reached = np.array([[0.0, 0, 1, 0], [1, 0, 0, 1]], np.float32)
    model = layers.serial(
        layers.conv(1, 1, use_bias=False), layers.relu(), layers.max_pool((1, 2)), layers.flatten(),
        layers.dense(1, use_bias=False),
    )  # fmt: skip
    params, state = model.init(KEY, images)
    params = jax.tree.map(jnp.ones_like, params)

    def score(image):
        return model.apply(params, state, image[None])[0][0, 0]

    def loss(params, image, target):  # whose derivative by the score is 1
        return losses.mean_squared_error(model.apply(params, state, image[None])[0], target[None])

    maps = [gradients.saliency(model, params, state, images), jnp.abs(jax.vmap(jax.grad(score))(images)).max(-1)]
    for found in maps:
        np.testing.assert_array_equal(found.reshape(2, 4), reached)
    rows = gradients.per_example(model, losses.mean_squared_error)(params, state, (images, target)).grads
    for found in (rows, jax.vmap(jax.grad(loss), (None, 0, 0))(params, images, target)):
        np.testing.assert_array_equal(found[0]["kernel"].ravel(), (reached * images.reshape(2, 4)).sum(1))


@pytest.mark.parametrize("x, slope", [(-1.0, 1), (1.0, 1), (-1.0001, 0), (1.0001, 0)])
def test_clipped_straight_through_includes_its_bounds(x, slope):
    layer, x = layers.binary_step(ste="clip"), jnp.array([x])
    residuals = layer.forward((), (), x)[2]
    assert layer.backward((), residuals, jnp.ones(1))[1] == slope
    assert jax.grad(lambda x: layer.apply((), (), x)[0][0])(x) == slope


@pytest.mark.parametrize(
    "loss, options, slope", [(losses.huber, {"delta": 0.5}, 0.5), (losses.smooth_l1, {"beta": 0.5}, 1)]
)
def test_slope_where_the_square_ends(loss, options, slope, x64):
    p, t = jnp.array([0.5, -0.5]), jnp.zeros(2)
    np.testing.assert_array_equal(loss.gradient(p, t, reduction="sum", **options), [slope, -slope])
    np.testing.assert_array_equal(jax.grad(lambda p: loss(p, t, reduction="sum", **options))(p), [slope, -slope])


def test_gelu_is_exact_by_default(x64):
    at_one = [float(layer.apply((), (), jnp.ones(1))[0][0]) for layer in (layers.gelu(), layers.gelu(approximate=True))]
    assert at_one == pytest.approx([0.84134, 0.84119], abs=5e-6)


def test_softplus_is_not_cut_off(x64):
    """Above 20 it is not a straight line yet: log(1 + e²¹) − 21 = 7.6e-10."""
    y, _ = layers.softplus().apply((), (), jnp.array([21.0]))
    assert float(y[0]) - 21 == pytest.approx(7.58e-10, rel=1e-2)
    assert layers.softplus(2.0).apply((), (), jnp.zeros(1))[0] == pytest.approx(np.log(2) / 2)


@pytest.mark.parametrize("strides", [2, 1], ids=["touching", "overlapping"])
def test_ties_of_max_pools_go_to_the_first(strides):
    x = jnp.full((1, 2, 3, 1), 7.0)
    for layer in (layers.max_pool(2, strides=strides), layers.global_max_pool()):
        y, _, residuals = layer.forward((), (), x)
        by_hand = layer.backward((), residuals, jnp.ones_like(y))[1]
        by_autodiff = jax.grad(lambda x, layer=layer: layer.apply((), (), x)[0].sum())(x)
        first = [[1, y.size - 1, 0], [0, 0, 0]]  # of each window
        np.testing.assert_array_equal(by_hand.reshape(2, 3), first)
        np.testing.assert_array_equal(by_autodiff.reshape(2, 3), first)


@pytest.mark.parametrize("make", [layers.max_pool, layers.avg_pool])
def test_pools_touch_by_default(make):
    y, _ = make((3, 2)).apply((), (), jnp.ones((1, 9, 8, 1)))
    assert y.shape == (1, 3, 4, 1)


@pytest.mark.parametrize("options, mean", [({}, 4 / 9), ({"count_include_pad": False}, 1)])
def test_an_average_counts_the_padding(options, mean):
    """The window at the corner has four pixels and five numbers of padding."""
    y, _ = layers.avg_pool(3, padding=1, **options).apply((), (), jnp.ones((1, 4, 4, 1)))
    assert float(y[0, 0, 0, 0]) == pytest.approx(mean)


@pytest.mark.parametrize("padding, largest", [("SAME", [2, 4, 6, 7]), (1, [1, 3, 5, 7])])
def test_same_has_the_odd_zero_at_the_end(padding, largest):
    """Of 0 … 7 in windows of 3, two apart: from 0 on, or from −1."""
    y, _ = layers.max_pool((3,), strides=2, padding=padding).apply((), (), jnp.arange(8.0).reshape(1, 8, 1))
    assert y.ravel().tolist() == largest


def test_start_of_prelu():
    assert layers.prelu().init(KEY, jnp.ones((1, 2)))[0]["negative_slope"] == 0.25


def test_dense_starts_with_lecun_normal_and_zeros():
    params, _ = layers.dense(300).init(KEY, jnp.ones((1, 400)))
    np.testing.assert_array_equal(params["kernel"], initializers.lecun_normal()(KEY, (400, 300), jnp.float32))
    np.testing.assert_array_equal(params["bias"], np.zeros(300))


def test_a_layer_is_drawn_alike_by_init_and_under_jit():
    """Bitwise under `jit`, which `create_state` uses; eager numbers may differ in the last digit."""
    model, x = models.mlp((16, 4)), jnp.ones((1, 8))
    state = training.create_state(model, optimizers.sgd(0.1), 0, x)
    jitted, _ = jax.jit(lambda key: model.init(key, x))(jax.random.split(jax.random.key(0))[0])
    eager, _ = model.init(jax.random.split(jax.random.key(0))[0], x)
    for drawn, same, near in zip(*map(jax.tree.leaves, (state.optimizer.params, jitted, eager)), strict=True):
        np.testing.assert_array_equal(drawn, same)
        np.testing.assert_allclose(drawn, near, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        optimizers.sgd,
        lambda rate: optimizers.sgd(rate, momentum=0.9),
        optimizers.adagrad,
        optimizers.rmsprop,
        optimizers.adam,
        optimizers.adamw,
    ],
    ids=["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"],
)
def test_the_first_update_asks_the_schedule_for_step_zero(make):
    optimizer = make(lambda step: jnp.where(step == 0, 0.5, 0.0))
    start = optimizer.init(jnp.ones(()))
    first = optimizer.update(start, jnp.ones(()))
    second = optimizer.update(first, jnp.ones(()))
    assert first.params < 1
    assert second.params == first.params


def test_the_rate_stands_outside_the_velocity():
    """Rates 0.1 and 0.01, g = 0.5, μ = 0.9: v = 0.5 and 0.95. With the rate inside v the second is 0.95 − 0.05."""
    optimizer = optimizers.sgd(lambda step: jnp.where(step == 0, 0.1, 0.01), momentum=0.9)
    first = optimizer.update(optimizer.init(jnp.ones(())), jnp.array(0.5))
    second = optimizer.update(first, jnp.array(0.5))
    np.testing.assert_allclose([first.params, second.params], [0.95, 0.95 - 0.01 * 0.95], rtol=1e-6)


def test_adam_adds_epsilon_after_the_bias_correction():
    """m̂ = √ν̂ = 0.5 and ε = 0.5: a step of one half. Before the correction it would be one of 0.03."""
    optimizer = optimizers.adam(1.0, epsilon=0.5)
    state = optimizer.update(optimizer.init(jnp.ones(())), jnp.array(0.5))
    np.testing.assert_allclose(state.params, 0.5, rtol=1e-6)


def step_from(optimizer):
    return lambda gradient: optimizer.update(optimizer.init(jnp.ones(())), gradient).params


@pytest.mark.parametrize("make", [optimizers.adagrad, optimizers.rmsprop, optimizers.adam, optimizers.adamw])
def test_an_update_is_differentiable_at_a_zero_gradient(make):
    """The step −η g / (c |g| + ε) has the slope −η/ε there. It matters to those who differentiate through training."""
    step = step_from(make(0.1, epsilon=1e-3))
    assert jax.grad(step)(jnp.zeros(())) == pytest.approx(-0.1 / 1e-3, rel=1e-5)
    assert np.isfinite(jax.grad(step)(jnp.ones(())))


def test_epsilon_inside_the_root_gives_it_one():
    """−η / √ε with g = 0."""
    step = step_from(optimizers.rmsprop(0.1, epsilon=1e-4, eps_in_sqrt=True))
    assert jax.grad(step)(jnp.zeros(())) == pytest.approx(-0.1 / 1e-2)


def test_a_gradient_of_infinite_norm_is_not_hidden():
    optimizer = optimizers.clipped(optimizers.sgd(0.1), norm=1.0)
    state = optimizer.update(optimizer.init(jnp.ones(2)), jnp.array([np.inf, 1.0]))
    assert np.isnan(state.params[0])


@pytest.mark.parametrize("target", [np.array([0]), np.array([[1.0, 0.0]], np.float32)], ids=["label", "one-hot"])
def test_an_impossible_class_of_weight_zero_adds_zero(target):
    log_p, loss = jnp.array([[0.0, -jnp.inf]]), losses.negative_log_likelihood
    assert loss(log_p, target) == 0
    for gradient in (loss.gradient(log_p, target), jax.grad(lambda p: loss(p, target))(log_p)):
        np.testing.assert_array_equal(gradient, [[-1, 0]])


def test_a_clipped_step_is_differentiable_at_a_zero_gradient():
    """Meta-learning differentiates through updates; √ in the norm would give NaN."""
    optimizer = optimizers.clipped(optimizers.sgd(0.1), norm=1.0)
    state = optimizer.init({"w": jnp.array([1.0, 2.0])})
    after = jax.jacobian(lambda g: optimizer.update(state, {"w": g}).params["w"])(jnp.zeros(2))
    np.testing.assert_allclose(after, -0.1 * np.eye(2), rtol=1e-6)
