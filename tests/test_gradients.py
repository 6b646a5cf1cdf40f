"""The two engines: one signature, one result; the seeds' derivation; own layers without a derivation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import richardson, worst_element, worst_leaf

from funcnet import gradients, layers, losses, models
from funcnet.errors import ConfigError, DtypeError

CLASSIFIER = layers.serial(
    layers.dense(6),
    layers.gelu(),
    layers.residual(layers.serial(layers.dense(6), layers.dropout(0.3))),
    layers.dense(4),
)
LABELS = np.array([0, 3, 1, 2, 2])
POSITIVE = np.array([[0.0, 1.0, 0.5, 0.2]] * 5)
MASK = np.array([True, False, True, True, False])
DECAY = losses.partial(losses.l2_penalty, strength=0.01, select=lambda path: path.endswith("kernel"))

# (model, loss, target, mask, penalty)
CASES = {
    "labels": (CLASSIFIER, losses.softmax_cross_entropy, LABELS, None, None),
    "labels_masked": (CLASSIFIER, losses.softmax_cross_entropy, LABELS, MASK, None),
    "labels_decay": (CLASSIFIER, losses.softmax_cross_entropy, LABELS, None, DECAY),
    "hinge": (models.linear(4), losses.multiclass_hinge, LABELS, MASK, losses.l1_penalty),
    "regression": (models.mlp((5, 4), activation=layers.tanh), losses.mean_squared_error, POSITIVE, MASK, DECAY),
    "sigmoid_half": (models.sigmoid_network((3, 4)), losses.half_squared_error, POSITIVE, None, None),
    "binary": (models.linear(4), losses.binary_cross_entropy_with_logits, POSITIVE, None, None),
    "probabilities": (models.sigmoid_network((4,)), losses.binary_cross_entropy, POSITIVE, MASK, None),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def prepared(case):
    model, _, target, mask, _ = case
    x = jax.random.normal(jax.random.key(0), (5, 3), jnp.float64)
    params, state = model.init(jax.random.key(1), x)
    return params, state, (x, target) if mask is None else (x, target, mask)


@every_case
def test_engines_agree(x64, case):
    model, loss, _, _, penalty = case
    params, state, batch = prepared(case)
    key = jax.random.key(2)
    by_hand = jax.jit(gradients.backprop(model, loss, penalty=penalty))(params, state, batch, key)
    by_autodiff = jax.jit(gradients.autodiff(model, loss, penalty=penalty))(params, state, batch, key)
    assert worst_leaf(by_hand, by_autodiff) <= 1e-13
    assert by_hand.prediction.shape == (5, 4)


@every_case
def test_engines_agree_with_finite_differences(x64, case):
    model, loss, _, _, penalty = case
    params, state, batch = prepared(case)
    key = jax.random.key(2)
    gradient = gradients.autodiff(model, loss, penalty=penalty)
    numeric = richardson(lambda params: gradient(params, state, batch, key).loss, params)
    by_hand = gradients.backprop(model, loss, penalty=penalty)(params, state, batch, key).grads
    assert worst_element(by_hand, numeric) <= 1e-6


def test_the_seeds_three_layers_by_hand(x64):
    """Note 000: sigmoid twice, L = ½ Σ (ŷ − y)², every gradient by the notes' formulas; rows instead of columns."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(1, 3)), random.uniform(size=(1, 2))
    w1, b1, w2, b2 = (random.normal(size=shape) for shape in ((3, 4), (4,), (4, 2), (2,)))

    def sigma(z):
        return 1 / (1 + np.exp(-z))

    a1 = sigma(x @ w1 + b1)
    a2 = sigma(a1 @ w2 + b2)
    dz2 = (a2 - y) * a2 * (1 - a2)
    dz1 = dz2 @ w2.T * a1 * (1 - a1)
    want = ({"kernel": x.T @ dz1, "bias": dz1[0]}, (), {"kernel": a1.T @ dz2, "bias": dz2[0]}, ())

    params = jax.tree.map(jnp.asarray, ({"kernel": w1, "bias": b1}, (), {"kernel": w2, "bias": b2}, ()))
    model = models.sigmoid_network((4, 2))
    for engine in (gradients.autodiff, gradients.backprop):
        computed = engine(model, losses.half_squared_error)(params, ((), (), (), ()), (x, y))
        np.testing.assert_allclose(computed.loss, ((a2 - y) ** 2).sum() / 2, rtol=1e-14)
        assert worst_leaf(computed.grads, want) <= 1e-14


def test_gradient_descent_on_the_batch_equals_accumulated_halves(x64):
    """The mean over ten rows is the mean of the means over two fives."""
    _, _, (x, target) = prepared(CASES["labels"])
    model = models.linear(4)
    params, state = model.init(jax.random.key(3), x)
    gradient = gradients.backprop(model, losses.softmax_cross_entropy)
    whole = gradient(params, state, (jnp.concatenate([x, 2 * x]), np.concatenate([target, target]))).grads
    halves = [gradient(params, state, (part, target)).grads for part in (x, 2 * x)]
    assert worst_leaf(jax.tree.map(lambda a, b: (a + b) / 2, *halves), whole) <= 1e-14


def test_state_and_randomness_flow_through():
    model = layers.serial(layers.dropout(0.5), layers.dense(2))
    x = jnp.ones((4, 3))
    params, state = model.init(jax.random.key(0), x)
    gradient = gradients.backprop(model, losses.mean_squared_error)
    a, b, c = (gradient(params, state, (x, jnp.zeros((4, 2))), jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(a.prediction, b.prediction)
    assert not jnp.array_equal(a.prediction, c.prediction)


def test_own_losses_work_without_a_gradient_under_autodiff_only():
    def fourth_power(prediction, target):
        return jnp.mean((prediction - target) ** 4)

    model = models.linear(1)
    batch = (jnp.ones((2, 3)), jnp.ones((2, 1)))
    params, state = model.init(jax.random.key(0), batch[0])
    assert jnp.isfinite(gradients.autodiff(model, fourth_power)(params, state, batch).loss)
    with pytest.raises(ConfigError, match="expected the loss fourth_power to have a hand-derived gradient, got none"):
        gradients.backprop(model, fourth_power)
    with pytest.raises(ConfigError, match="expected the penalty <lambda> to have a hand-derived gradient"):
        gradients.backprop(model, losses.mean_squared_error, penalty=lambda params: 0.0)


@pytest.mark.parametrize("batch", [jnp.ones((2, 3)), (jnp.ones((2, 3)),), [jnp.ones((2, 3)), jnp.ones((2, 1))]])
@pytest.mark.parametrize("engine", [gradients.autodiff, gradients.backprop])
def test_a_batch_is_a_tuple(engine, batch):
    gradient = engine(models.linear(1), losses.mean_squared_error)
    with pytest.raises(
        DtypeError,
        match=r"expected batch to be \(x, target\), \(x, target, where\) or \(x, target, where, weights\), got a",
    ):
        gradient({}, (), batch)


def test_automatic_layers_take_integers():
    def apply(params, state, x, *, key=None, train=False):
        return params["table"][x], state

    lookup = gradients.automatic(lambda key, x: ({"table": jnp.arange(6.0).reshape(3, 2)}, ()), apply)
    x = jnp.array([0, 2, 2])
    params, state = lookup.init(jax.random.key(0), x)
    y, _, residuals = lookup.forward(params, state, x)
    dparams, dx = lookup.backward(params, residuals, jnp.ones_like(y))
    assert dx is None
    np.testing.assert_array_equal(dparams["table"], [[1, 1], [0, 0], [2, 2]])
    assert str(lookup) == "apply"
