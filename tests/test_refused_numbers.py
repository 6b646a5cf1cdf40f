"""What would train in silence to nothing is said: by the loss itself, in `fit`, in `evaluate`, by the checker and its
command."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import layers, losses, metrics, optimizers, training
from funcnet.checking import check_gradients
from funcnet.cli import main
from funcnet.errors import DataError, DivergenceError, LabelError, LabelWarning, OutputWarning, ShapeError

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
HALVES = np.full((8, 2), 0.5, np.float32)
SIGNS = np.where(np.arange(8)[:, None] % 2 == [0, 1], 1.0, -1.0).astype(np.float32)
SGD = optimizers.sgd(0.1)


def trained(model, loss, target, **options):
    return list(training.fit(model, loss, SGD, (X, target), epochs=1, batch_size=4, **options))


def evaluated(model, loss, target, **options):
    params, state = model.init(jax.random.key(0), X)
    return training.evaluate(model, loss, params, state, (X, target), batch_size=4, **options)


def ways(loss, outputs, target):
    """Each way in which a person uses a loss, name -> function."""
    model, prediction = layers.dense(outputs), np.zeros((8, outputs), np.float32)
    return {
        "by itself": lambda: loss(prediction, target),
        "its gradient": lambda: loss.gradient(prediction, target),
        "fit": lambda: trained(model, loss, target),
        "evaluate": lambda: evaluated(model, loss, target),
        "the checker": lambda: check_gradients(loss, prediction, target),
    }


@pytest.mark.parametrize("way", ways(losses.softmax_cross_entropy, 1, None))
def test_one_output_for_classes_is_refused(way):
    message = (
        r"expected prediction of two or more classes, got shape \(., 1\); one output is for binary_cross_entropy_wi"
    )
    with pytest.raises(ShapeError, match=message):
        ways(losses.softmax_cross_entropy, 1, np.zeros(8, int))[way]()


@pytest.mark.parametrize("way", ways(losses.softmax_cross_entropy, 2, None))
def test_a_negative_target_is_refused(way):
    with pytest.raises(LabelError, match=r"expected target .*, got -1\.0"):
        ways(losses.softmax_cross_entropy, 2, SIGNS)[way]()


@pytest.mark.parametrize("way", ways(losses.softmax_cross_entropy, 2, None))
def test_a_target_that_does_not_sum_to_1_is_warned_of(way):
    with pytest.warns(LabelWarning, match=r"expected each row of target to sum to 1, .*; divide each"):
        ways(losses.softmax_cross_entropy, 2, np.ones((8, 2), np.float32))[way]()


def test_rows_that_validate_are_refused_and_warned_of_too():
    model, loss = layers.dense(2), losses.softmax_cross_entropy
    with pytest.raises(LabelError, match=r"expected target .*, got -1\.0"):
        trained(model, loss, HALVES, validation=(X, SIGNS))
    with pytest.warns(LabelWarning, match="expected each row of target to sum to 1"):
        trained(model, loss, HALVES, validation=(X, np.ones((8, 2), np.float32)))


OUTSIDE = np.full((8, 1), 1.5, np.float32)
ONES = np.ones((8, 1), np.float32)


@pytest.mark.parametrize(
    "call",
    [losses.binary_cross_entropy, losses.binary_cross_entropy.gradient, lambda p, t: check_gradients(
        losses.binary_cross_entropy, p, t
    )],
    ids=["by itself", "its gradient", "the checker"],
)  # fmt: skip
def test_predictions_that_are_no_probabilities_are_refused(call):
    with pytest.raises(DataError, match=r"binary_cross_entropy: expected prediction .* 1\.5"):
        call(OUTSIDE, ONES)


def beyond():
    """Outputs around 2, by a layer that does not say what it gives."""
    return layers.serial(layers.dense(1), layers.elementwise(lambda x: x + 2.0, lambda x, y: jnp.ones_like(x)))


def test_outputs_that_are_no_probabilities_end_a_fit_and_are_warned_of_by_evaluate():
    """Within a compiled step the numbers are not seen. The loss is then NaN."""
    with pytest.raises(DivergenceError, match="fit: the loss is nan at step 2 .*, or a loss on logits"):
        trained(beyond(), losses.binary_cross_entropy, ONES)
    with pytest.warns(OutputWarning, match=r"expected a loss that is a number, got nan; .* numbers in \[0, 1\] only"):
        evaluated(beyond(), losses.binary_cross_entropy, ONES)


def test_metrics_of_predictions_that_are_nan_are_nan():
    unknown = layers.elementwise(lambda x: x * jnp.nan, lambda x, y: x, keep="x")
    model, found = layers.serial(layers.dense(2), unknown), {"accuracy": metrics.accuracy()}
    with pytest.warns(OutputWarning, match="expected a loss that is a number, got nan"):
        found = evaluated(model, losses.softmax_cross_entropy, np.zeros(8, int), metrics=found)
    assert np.isnan(found["accuracy"])


TARGETS = """
import numpy as np
import funcnet as fn

def one_output():
    return fn.losses.softmax_cross_entropy, np.zeros((4, 1)), np.zeros(4, int)

def negative():
    return fn.losses.softmax_cross_entropy, np.zeros((4, 2)), np.array([[-1.0, 1.0]] * 4)

def outside():
    return fn.losses.binary_cross_entropy, np.full((4, 1), 1.5), np.ones((4, 1))
"""


@pytest.mark.parametrize(
    "name, code, message",
    [
        ("one_output", 2, "one output is for binary_cross_entropy_with_logits"),
        ("negative", 4, "softmax_cross_entropy: expected target "),
        ("outside", 4, "binary_cross_entropy: expected prediction "),
    ],
)
def test_the_command_refuses_them_by_name(name, code, message, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(TARGETS)
    assert main(["check", f"{tmp_path / 'mine.py'}:{name}"]) == code
    assert message in capsys.readouterr().err
