"""The search for a learning rate: known bounds, what it suggests, what it refuses, its picture."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet import data, layers, losses, models, optimizers, schedules, training
from funcnet.errors import ConfigError, DataError, StructureError
from funcnet.plotting import rate_search
from funcnet.training import find_learning_rate

LOSS = losses.softmax_cross_entropy
MODEL = models.mlp((16, 10))
X = jnp.full((8, 1), 2.0)
LINE = layers.dense(1, use_bias=False), losses.mean_squared_error


def search(optimizer=optimizers.sgd(0.1), model=LINE[0], loss=LINE[1], rows=(X, 0 * X), **options):
    return find_learning_rate(model, loss, optimizer, rows, **options)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_loss_of_a_parabola_rises_from_two_over_its_curvature_on(scale):
    """L = (w x)², so λ = 2 x²: a step multiplies w by 1 − ηλ, whose size passes 1 at η = 2/λ."""
    found = search(rows=(scale * X, 0 * X), steps=200)
    curvature = 2 * (2 * scale) ** 2
    grid = found.rates[1] / found.rates[0]
    assert 2 / curvature / grid <= found.limit <= 2 / curvature * grid
    assert found.rate < 2 / curvature / 4
    # Every step by the formula, in float64.
    factors = np.cumprod([1.0, *(1 - found.rates[:-1] * curvature)])
    np.testing.assert_allclose(found.losses, found.losses[0] * factors**2, rtol=1e-2)
    assert found.losses[-1] > found.losses[0]
    assert len(found.losses) < 200, "it stops where the loss diverges"
    np.testing.assert_allclose(found.rates, found.factors * 0.1)
    np.testing.assert_allclose(found.rates, 1e-6 * 1e7 ** (np.arange(len(found.rates)) / 199))


def test_the_rate_that_is_suggested_for_the_digits_trains_and_the_key_decides():
    train, held_out = data.split(*data.digits())
    options = {"batch_size": 128, "engine": "backprop"}
    found, again, other = (
        find_learning_rate(MODEL, LOSS, optimizers.adam(1e-3), train, key=key, **options) for key in (0, 0, 1)
    )
    np.testing.assert_array_equal(found.losses, again.losses)
    assert not np.array_equal(found.losses[:20], other.losses[:20])
    assert 3e-3 < found.rate < 0.1
    assert found.rate <= found.limit / 4
    *_, last = training.fit(MODEL, LOSS, optimizers.adam(found.rate), train, epochs=10, **options)
    params, state = last.state.optimizer.params, last.state.model
    metrics = {"accuracy": fn.metrics.accuracy()}
    assert training.evaluate(MODEL, LOSS, params, state, held_out, metrics=metrics)["accuracy"] > 0.94


def test_from_a_state_in_wrappers():
    optimizer = optimizers.partitioned([(".*", optimizers.clipped(optimizers.sgd(0.1), norm=100.0))])
    begun = training.create_state(LINE[0], optimizer, 3, X)
    *_, report = training.fit(*LINE, optimizers.sgd(0.0), (X, 0 * X), epochs=1, key=3)
    found = search(optimizer, state=begun, low=1e-3)
    assert found.losses[0] == pytest.approx(float(report.metrics["loss"]))  # that of the state's own parameters
    assert found.losses[1] == pytest.approx(found.losses[0] * (1 - 1e-3 * 8) ** 2, rel=1e-5)
    assert float(begun.optimizer.inner[0].scale) == 1
    assert jnp.isfinite(begun.optimizer.params["kernel"]).all(), "the caller's arrays survive"


def test_batches_and_a_loss_that_falls_to_the_end():
    found = search(rows=[(X, 0 * X)], high=1e-2, steps=20)
    assert found.limit is None
    assert found.rate == found.steepest <= 1e-2
    assert found.sentence.endswith("and still falls at the end.")
    assert repr(found).endswith("limit=None)")


def test_words():
    found = search()
    assert repr(found) == f"RateSearch(rate={found.rate:.2g}, steepest={found.steepest:.2g}, limit={found.limit:.2g})"
    assert f"a learning rate of {found.rate:.2g}:" in found.sentence


class Plain(NamedTuple):
    step: jax.Array
    params: object


@fn.constructor
def plain(learning_rate):
    return fn.Optimizer(lambda params: Plain(jnp.zeros((), jnp.int32), params), lambda state, grads: state)


DECAY = schedules.cosine_decay(0.1, 9)
SEVERAL = optimizers.partitioned([("a", optimizers.sgd(0.1)), (".*", optimizers.sgd(0.2))])
NAMELESS = fn.Optimizer(*optimizers.sgd(0.1)[:2])


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"optimizer": optimizers.clipped(optimizers.sgd(DECAY), norm=1.0)}, ConfigError,
         r"whose rate is a number, got cosine_decay\(0\.1, 9\); search with a number, and make the schedule from"),
        ({"optimizer": SEVERAL}, ConfigError, r"with one learning_rate > 0, got 0\.1, 0\.2 in partitioned\("),
        ({"optimizer": optimizers.sgd(0.0)}, ConfigError, r"with one learning_rate > 0, got 0\.0 in sgd\(0\.0\)"),
        ({"optimizer": NAMELESS}, ConfigError, "with one learning_rate > 0, got none in .*; its constructor, under"),
        ({"optimizer": optimizers.sgd}, ConfigError, "expected optimizer to be an optimizer"),
        ({"optimizer": plain(0.1)}, StructureError, "expected the state of an optimizer with the field scale"),
        ({"low": 0.0}, ConfigError, "expected low to be a finite number > 0, got 0.0"),
        ({"low": 1.0, "high": 1.0}, ConfigError, "expected high above low, 1, got 1"),
        ({"steps": 3}, ConfigError, "expected steps to be an integer >= 10, got 3"),
        ({"low": 1.0}, ConfigError, "a loss that falls at some rate, got losses from .* at rates from 1 to"),
        ({"rows": [1.0]}, DataError, "fit: expected data to be a tuple of arrays"),
        ({"state": 3}, StructureError, "fit: expected state to be a TrainState, got 3"),
    ],
)  # fmt: skip
def test_refusals(options, error, message):
    with pytest.raises(error, match=f"^find_learning_rate: .*{message}"):
        search(**options)


def test_the_picture(tmp_path):
    found = search()
    figure = rate_search(found, tmp_path / "rates.png")
    (axes,) = figure.axes
    losses, smoothed, rate, limit = axes.lines
    np.testing.assert_array_equal(losses.get_ydata(), found.losses)
    np.testing.assert_array_equal(smoothed.get_ydata(), found.smoothed)
    assert (rate.get_xdata()[0], limit.get_xdata()[0]) == (found.rate, found.limit)
    assert (tmp_path / "rates.png").stat().st_size > 10_000
    with pytest.raises(DataError, match="rate_search: expected a search for a learning rate, got 3; give the result"):
        rate_search(3)
