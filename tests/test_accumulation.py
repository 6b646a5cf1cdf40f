"""`gradients.accumulated`: a batch in parts gives what the whole batch gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit, worst_leaf

from funcnet import gradients, layers, losses
from funcnet.errors import ConfigError, ShapeError
from funcnet.made import constructor
from funcnet.types import Padded

ENGINES = [gradients.autodiff, gradients.backprop]
RANDOM = np.random.default_rng(0)
X, LABELS = RANDOM.normal(size=(12, 3)), np.arange(12) % 3
TARGET = RANDOM.normal(size=(12, 2))
WHERE = np.array([True, True, True, True, True, False, True, False, False, False, False, False])  # 4, 2 and none of 4
WEIGHTS = np.linspace(0, 3, 12)


def mlp(*last):
    return layers.serial(layers.dense(4), layers.tanh(), *last)


def sequences():
    where = np.arange(5) < (np.arange(12) % 6)[:, None]
    return Padded(RANDOM.normal(size=(12, 5, 3)), where), RANDOM.normal(size=(12, 5, 2))


CLASSES = losses.partial(losses.softmax_cross_entropy, class_weights=(1.0, 3.0, 0.2), label_smoothing=0.1)
HEADS = layers.parallel(a=layers.dense(3), b=layers.dense(2))
CASES = {
    "plain": (mlp(layers.dense(3)), losses.softmax_cross_entropy, (X, LABELS)),
    "masked": (mlp(layers.dense(3)), losses.softmax_cross_entropy, (X, LABELS, WHERE)),
    "weighted": (mlp(layers.dense(2)), losses.huber, (X, TARGET, None, WEIGHTS)),
    "both": (mlp(layers.dense(2)), losses.half_squared_error, (X, TARGET, WHERE, WEIGHTS)),
    "nothing counts": (mlp(layers.dense(2)), losses.mean_squared_error, (X, TARGET, np.zeros(12, bool))),
    "class weights": (mlp(layers.dense(3)), CLASSES, (X, LABELS, WHERE)),
    "values": (mlp(layers.dense(2)), losses.mean_squared_error, (X, TARGET, np.abs(TARGET) < 1)),
    "sequences": (mlp(layers.dense(2)), losses.mean_squared_error, sequences()),
    "heads": (
        mlp(HEADS), losses.weighted_sum(a=(1.0, CLASSES), b=(0.5, losses.mean_squared_error)),
        (X, {"a": LABELS, "b": TARGET}, {"a": WHERE}, {"b": WEIGHTS}),
    ),
    "held statistics": (
        layers.serial(layers.held(layers.batch_norm()), layers.dense(2)), losses.mean_squared_error, (X, TARGET, WHERE)
    ),
}  # fmt: skip


@pytest.mark.parametrize("model, loss, batch", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("engine", ENGINES)
def test_parts_add_up_to_the_whole(x64, engine, model, loss, batch):
    batch = jax.tree.map(jnp.asarray, batch)
    params, state = model.init(jax.random.key(0), batch[0])
    penalty = losses.partial(losses.l2_penalty, strength=0.1)  # which counts once
    gradient = engine(model, loss, penalty=penalty)
    whole = quick_jit(gradient)(params, state, batch)
    for k in (1, 3):
        parts = quick_jit(gradients.accumulated(gradient, k))(params, state, batch)
        assert worst_leaf((parts.loss, parts.grads, parts.counted), (whole.loss, whole.grads, whole.counted)) <= 1e-12
        assert worst_leaf(parts.prediction, whole.prediction) <= 1e-12


def test_parts_within_parts(x64):
    model, loss, batch = CASES["both"]
    batch = jax.tree.map(jnp.asarray, batch)
    params, state = model.init(jax.random.key(0), batch[0])
    gradient = gradients.backprop(model, loss)
    nested = gradients.accumulated(gradients.accumulated(gradient, 2), 3)
    assert worst_leaf(nested(params, state, batch)[:2], gradient(params, state, batch)[:2]) <= 1e-12


def counter():
    """Adds how many rows it saw before."""

    def forward(params, state, x, *, key=None, train=False):
        return x + state, state + len(x) if train else state, None

    return layers.layer(
        forward, lambda params, residuals, dy: ((), dy), init=lambda key, x: ((), jnp.zeros((), x.dtype))
    )


def test_each_part_draws_its_own_and_hands_its_state_on():
    x = jnp.ones((6, 2))
    model = layers.serial(counter(), layers.dropout(0.5))
    params, state = model.init(jax.random.key(0), x)
    gradient = gradients.accumulated(gradients.autodiff(model, losses.mean_squared_error), 3)
    computed = gradient(params, state, (x, x), jax.random.key(1))
    assert computed.state[0] == 6
    for i in range(3):
        key = jax.random.fold_in(jax.random.key(1), i)
        y, _ = model.apply(params, (jnp.float32(2 * i), ()), x[:2], key=key, train=True)
        np.testing.assert_array_equal(computed.prediction[2 * i : 2 * i + 2], y)


def test_half_precision_is_summed_in_float32():
    """In bfloat16 a sum of 256 equal parts would stop growing at 256 of them."""
    model = layers.dense(1, use_bias=False)
    params, x = {"kernel": jnp.zeros((1, 1), jnp.bfloat16)}, jnp.ones((1024, 1), jnp.bfloat16)
    gradient = gradients.accumulated(gradients.backprop(model, losses.half_squared_error), 1024)
    computed = gradient(params, (), (x, -x))
    assert computed.grads["kernel"].dtype == computed.loss.dtype == jnp.bfloat16
    np.testing.assert_array_equal(computed.grads["kernel"].astype(jnp.float32), 1)


@losses.loss(mean=False)
def spread(prediction, target, *, reduction="mean", where=None):
    return jnp.std(prediction - target)


def own(params, state, batch, key=None, /):
    raise NotImplementedError


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: gradients.accumulated(gradients.autodiff(mlp(), losses.huber), 0),
            "k to be a positive integer, got 0",
        ),
        (
            lambda: gradients.accumulated(own, 2),
            r"expected a gradient of autodiff or backprop, got own; split the batch",
        ),
        (
            lambda: gradients.accumulated(
                gradients.autodiff(mlp(layers.repeat(layers.batch_norm(), 2)), losses.huber), 2
            ),
            r"expected layers that take each row by itself, got serial\[2\] repeat batch_norm\(\), which computes",
        ),
        (
            lambda: gradients.accumulated(gradients.backprop(mlp(), losses.root_mean_squared_error), 2),
            "expected a loss that is a mean of values, got root_mean_squared_error; the mean of its parts is not",
        ),
        (lambda: gradients.accumulated(gradients.autodiff(mlp(), spread), 2), "a mean of values, got spread"),
        (
            lambda: gradients.accumulated(gradients.autodiff(mlp(), lambda prediction, target: 0.0), 2),
            "expected a loss that is a mean of values, got <lambda>",
        ),
    ],
)
def test_what_does_not_add_up_is_refused_by_name(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_rows_that_k_does_not_divide_are_refused():
    gradient = gradients.accumulated(gradients.autodiff(layers.relu(), losses.huber), 5)
    with pytest.raises(
        ShapeError,
        match="expected the rows of the batch to be a multiple of 5, the number of parts, got 12; choose another",
    ):
        gradient((), (), (jnp.ones((12, 2)), jnp.ones((12, 2))))


def test_a_graph_is_not_cut():
    """Half of its edges would name nodes of the other half, which JAX clamps or drops in silence."""

    @constructor
    def neighbours():
        def forward(x, *, key, train):
            nodes, edges = x
            return nodes.at[edges[:, 1]].add(nodes[edges[:, 0]]), None

        return layers.parameterless(forward, lambda kept, dy: (dy, None), trees=True)

    gradient = gradients.accumulated(gradients.autodiff(neighbours(), losses.huber), 2)
    graph = jnp.ones((4, 2)), jnp.array([[0, 3], [3, 0], [1, 2], [2, 1], [0, 1], [1, 0]])
    with pytest.raises(ShapeError, match="same number of rows .* got 4 at 0/0 and 6 at 0/1; batches of graphs cannot"):
        gradient((), (), (graph, jnp.ones((4, 2))))


def test_the_last_layer_is_warned_of_once():
    """Each part is computed by a gradient made anew, which is not to warn again: here a warning is an error."""
    model = layers.serial(layers.dense(3), layers.softmax())
    with pytest.warns(match="expected a model that gives logits"):
        gradient = gradients.autodiff(model, losses.softmax_cross_entropy)
    params, state = model.init(jax.random.key(0), jnp.ones((4, 3)))
    gradients.accumulated(gradient, 2)(params, state, (jnp.ones((4, 3)), jnp.zeros(4, int)))
