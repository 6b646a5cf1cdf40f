"""Padding, upsampling, gates, dropout of whole channels: values, and what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import worst_leaf

from funcnet import gradients, layers, losses
from funcnet.errors import ConfigError, DtypeError, ShapeError


def backward(layer, x, dy):
    """dx by hand."""
    return layer.backward((), layer.forward((), (), x)[2], dy)[1]


# Padding and upsampling


@pytest.mark.parametrize(
    "padding, pairs",
    [(1, [(1, 1), (1, 1)]), ((0, 2), [(0, 0), (2, 2)]), ([(1, 0), 3], [(1, 0), (3, 3)]), (((2, 1),), [(2, 1), (2, 1)])],
)
def test_pad_against_numpy(padding, pairs):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype(np.float32)
    layer = layers.pad(padding, value=0.5)
    y, _ = layer.apply((), (), x)
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), *pairs, (0, 0)), constant_values=0.5))
    np.testing.assert_array_equal(backward(layer, x, y), x)


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("size, factor", [((3,), 4), ((2, 3), (3, 2)), ((1, 3, 2), (2, 1, 3))], ids=["1d", "2d", "3d"])
def test_upsample_against_jax_resize(x64, method, size, factor):
    x = jax.random.normal(jax.random.key(0), (2, *size, 2))
    layer = layers.upsample(factor, method=method)
    y, _ = layer.apply((), (), x)
    resized, vjp = jax.vjp(lambda x: jax.image.resize(x, y.shape, {"bilinear": "linear"}.get(method, method)), x)
    dy = jax.random.normal(jax.random.key(1), y.shape)
    assert worst_leaf((y, backward(layer, x, dy)), (resized, vjp(dy)[0])) <= 1e-15


def test_upsample_by_hand():
    x = jnp.array([1.0, 5.0]).reshape(1, 2, 1)
    dy = jnp.arange(1.0, 9).reshape(1, 8, 1)
    nearest, bilinear = layers.upsample(4), layers.upsample(4, method="bilinear")
    np.testing.assert_array_equal(nearest.apply((), (), x)[0].ravel(), [1, 1, 1, 1, 5, 5, 5, 5])
    np.testing.assert_array_equal(backward(nearest, x, dy).ravel(), [10, 26])
    np.testing.assert_array_equal(bilinear.apply((), (), x)[0].ravel(), [1, 1, 1.5, 2.5, 3.5, 4.5, 5, 5])
    # The left pixel's weights: 1, 1, 7/8, 5/8, 3/8, 1/8, 0, 0.
    np.testing.assert_array_equal(backward(bilinear, x, dy).ravel(), [10.75, 25.25])


# Gates


@pytest.mark.parametrize("features", [4, 1])
def test_gates_of_pixels(x64, features):
    """A gate for each number, and one for each pixel: autodiff of the formula, written here once more."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    layer = layers.gated(layers.serial(layers.dense(features), layers.sigmoid()))
    params, state = layer.init(jax.random.key(1), x)

    def formula(params, x):
        return x / (1 + jnp.exp(-(x @ params[0]["kernel"] + params[0]["bias"])))

    y, _, residuals = layer.forward(params, state, x)
    want, vjp = jax.vjp(formula, params, x)
    dy = jnp.cos(y)
    assert worst_leaf((y, layer.backward(params, residuals, dy)), (want, vjp(dy))) <= 1e-14


def test_squeeze_excitation_by_hand():
    """Mean 3 of the only channel that is on: hidden 3 a, gates σ(3 a b)."""
    layer = layers.squeeze_excitation(2)
    x = jnp.array([[1.0, 0.0], [5.0, 0.0]]).reshape(1, 2, 1, 2)
    params, state = layer.init(jax.random.key(0), x)
    assert [p["kernel"].shape for p in params if p] == [(2, 1), (1, 2)]
    params[1]["kernel"], params[3]["kernel"] = jnp.array([[0.5], [9.0]]), jnp.array([[2.0, -2.0]])
    y, _ = layer.apply(params, state, x)
    np.testing.assert_allclose(y[0, :, 0, 0], np.array([1, 5]) / (1 + np.exp(-3)), rtol=1e-6)
    np.testing.assert_array_equal(y[0, :, 0, 1], 0)


def test_gates_have_per_example_gradients(x64):
    model = layers.serial(layers.squeeze_excitation(3, 2), layers.global_max_pool())
    x, target = jax.random.normal(jax.random.key(0), (3, 2, 2, 3)), np.ones((3, 3))
    params, state = model.init(jax.random.key(1), x)
    engines = gradients.per_example, gradients.autodiff
    compiled = (jax.jit(engine(model, losses.half_squared_error)) for engine in engines)
    each, whole = (gradient(params, state, (x, target)).grads for gradient in compiled)
    assert worst_leaf(jax.tree.map(lambda g: g.mean(0), each), whole) <= 1e-13


def test_places_within_gates():
    places = []
    layers.map_layers(lambda place, layer: places.append(place) or layer, layers.serial(layers.squeeze_excitation(8)))
    assert places == [f"serial[0] gated serial[{i}]" for i in range(5)]


# Dropout along axes


@pytest.mark.parametrize("dims", [(1, 2), (-1,), (0, 1, 2, 3)], ids=["channels", "pixels", "all"])
def test_dropout_drops_together(dims):
    x = jnp.ones((20, 5, 6, 30))
    layer, key = layers.dropout(0.3, broadcast_dims=dims), jax.random.key(1)
    y, _, residuals = layer.forward((), (), x, key=key, train=True)
    together = y.any(dims, keepdims=True)
    np.testing.assert_allclose(y, np.where(np.broadcast_to(together, x.shape), 1 / 0.7, 0), rtol=1e-6)
    if together.size > 1:
        assert abs(float(together.mean()) - 0.7) < 5 * np.sqrt(0.21 / together.size)
    np.testing.assert_array_equal(layer.backward((), residuals, x)[1], y)
    np.testing.assert_array_equal(layer.apply((), (), x)[0], x)


def test_dropout_of_single_numbers_draws_as_ever():
    x, key = jnp.ones((3, 4)), jax.random.key(7)
    y, _ = layers.dropout(0.4).apply((), (), x, key=key, train=True)
    np.testing.assert_array_equal(y != 0, jax.random.uniform(key, (3, 4)) >= 0.4)


# Errors


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.pad(-1), "pad(-1): expected padding to be an integer >= 0, or a tuple of one to three"),
        (lambda: layers.pad("SAME"), "one to three integers or pairs (before, after); got 'SAME'."),
        (lambda: layers.pad(((1, 2, 3),)), "got a tuple ((1, 2, 3),)."),
        (lambda: layers.pad(()), "pad(()): expected padding"),
        (lambda: layers.pad(1, value=np.inf), "pad(1, value=inf): expected value to be a finite number, got inf."),
        (lambda: layers.upsample(0), "upsample(0): expected each of factor to be a positive integer, got 0."),
        (lambda: layers.upsample((2,) * 4), "expected factor to be an integer or a tuple of one to three"),
        (lambda: layers.upsample(2, method="cubic"), 'expected method to be "nearest" or "bilinear", got \'cubic\'.'),
        (lambda: layers.gated(layers.sigmoid), "gated(sigmoid): expected argument 0 to be a Layer"),
        (lambda: layers.squeeze_excitation(0), "squeeze_excitation(0): expected channels to be a positive integer"),
        (lambda: layers.squeeze_excitation(8, 0), "squeeze_excitation(8, reduction=0): expected reduction to be a"),
        (
            lambda: layers.dropout(0.1, broadcast_dims=1),
            "dropout(0.1, broadcast_dims=1): expected broadcast_dims to be a tuple of axes, such as (1, 2), got 1.",
        ),
        (lambda: layers.dropout(0.1, broadcast_dims=(True,)), "expected broadcast_dims to be a tuple of axes"),
    ],
)  # fmt: skip
def test_impossible_hyper_parameters_are_named(make, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    "layer, message",
    [
        (layers.pad((1, 1)), "pad((1, 1)): expected x of shape (batch, height, width, channels), got (2, 3, 4)"),
        (layers.upsample((2, 2)), "upsample((2, 2)): expected x of shape (batch, height, width, channels), got (2, 3"),
        (layers.dropout(0.1, broadcast_dims=(3,)), "expected x with an axis 3, got shape (2, 3, 4)"),
        (
            layers.gated(layers.dense(3)),
            "gated(dense(3)): expected gates of the shape and dtype of x, (2, 3, 4) float32, where axes after "
            "the batch axis may be 1 or missing, got (2, 3, 3) float32",
        ),
        (layers.gated(layers.reshape((3, 4, 1))), "got (2, 3, 4, 1) float32"),
        (layers.squeeze_excitation(3), "axes after the batch axis may be 1 or missing, got (2, 3) float32"),
    ],
    ids=str,
)
def test_images_that_do_not_fit_are_named(layer, message):
    x = jnp.ones((2, 3, 4))
    with pytest.raises(ShapeError, match=re.escape(message)):
        layer.apply(*layer.init(jax.random.key(0), x), x)


@pytest.mark.parametrize("layer", [layers.pad(1), layers.upsample(2)], ids=str)
def test_rows_are_not_images(layer):
    with pytest.raises(ShapeError, match=r"with one to three spatial axes, none of them empty, got \(2, 3\)"):
        layer.apply((), (), jnp.ones((2, 3)))


def test_errors_within_gates_lead_with_the_gate():
    with pytest.raises(DtypeError, match=r"^gated serial\[0\] dropout\(0.5\): expected x of a floating dtype"):
        layers.gated(layers.serial(layers.dropout(0.5))).init(jax.random.key(0), jnp.ones((2, 3), jnp.int32))
