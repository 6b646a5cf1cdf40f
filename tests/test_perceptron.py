"""The perceptron: its rule is gradient descent, converges on what a line separates, and never learns XOR."""

import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import gradients, losses, models, optimizers, training
from funcnet.errors import ConfigError

RULE = losses.partial(losses.half_squared_error, reduction="sum")


@pytest.mark.parametrize("engine", [gradients.backprop, gradients.autodiff])
def test_the_perceptron_rule_is_gradient_descent(x64, engine):
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(7, 3)), rng.integers(0, 2, (7, 2))
    kernel, bias = rng.normal(size=(3, 2)), rng.normal(size=2)
    params = ({"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}, ())
    optimizer = optimizers.sgd(0.5)
    y = (x @ kernel + bias >= 0).astype(float)
    assert 0 < (target != y).sum() < y.size
    computed = engine(models.perceptron(2), RULE)(params, ((), ()), (jnp.asarray(x), jnp.asarray(target)))
    np.testing.assert_array_equal(computed.prediction, y)
    np.testing.assert_allclose(computed.grads[0]["kernel"], -x.T @ (target - y), rtol=1e-15)
    np.testing.assert_array_equal(computed.grads[0]["bias"], -(target - y).sum(0))
    updated = optimizer.update(optimizer.init(params), computed.grads).params[0]
    np.testing.assert_allclose(updated["kernel"], kernel + 0.5 * x.T @ (target - y), rtol=1e-15)


def mistakes_by_epoch(x, target, rate, epochs):
    """A mistake costs ½ before its correction; `metrics["loss"]` is the mean over the epoch."""
    reports = training.fit(
        models.perceptron(), RULE, optimizers.sgd(rate), (x, target), engine="backprop", epochs=epochs, batch_size=1
    )
    return [round(2 * len(x) * float(report.metrics["loss"])) for report in reports]


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_the_perceptron_converges_within_the_bound(rate):
    """Novikoff: at most (R/γ)² mistakes, whatever the rate."""
    rng = np.random.default_rng(1)
    line = np.array([0.6, -0.7, 0.2])
    rows = np.concatenate([rng.uniform(-1, 1, (300, 2)), np.ones((300, 1))], 1)
    margins = rows @ line / np.linalg.norm(line)
    rows, margins = rows[abs(margins) > 0.1], margins[abs(margins) > 0.1]
    bound = (np.linalg.norm(rows, axis=1).max() / abs(margins).min()) ** 2
    mistakes = mistakes_by_epoch(rows[:, :2].astype(np.float32), (margins > 0)[:, None], rate, 20)
    assert mistakes[-1] == 0
    assert 2 <= sum(mistakes) <= bound


def test_the_perceptron_never_learns_xor():
    x, xor = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([[0], [1], [1], [0]])
    assert min(mistakes_by_epoch(x, xor, 1.0, 50)) > 0
    either = x.any(1, keepdims=True)
    assert mistakes_by_epoch(x, either, 1.0, 50)[-1] == 0


def test_impossible_units():
    with pytest.raises(
        ConfigError, match=r"perceptron\(features=0\): expected features to be a positive integer, got 0"
    ):
        models.perceptron(0)
