"""A model whose last layer does not give what its loss takes."""

import re

import pytest

from funcnet import gradients, losses
from funcnet.errors import OutputWarning
from funcnet.layers import (
    conv,
    dense,
    dropout,
    flatten,
    layer,
    log_softmax,
    relu,
    residual,
    serial,
    sigmoid,
    softmax,
    tanh,
)

ENGINES = [gradients.autodiff, gradients.backprop]
LOGITS = [losses.softmax_cross_entropy, losses.multiclass_hinge, losses.binary_cross_entropy_with_logits]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "last, loss, message",
    [
        *[(softmax(), loss, r"model that gives logits, got .* softmax\(\), which gives class p") for loss in LOGITS],
        (sigmoid(), losses.binary_cross_entropy_with_logits, r"got .* sigmoid\(\), which gives probabilities"),
        (softmax(axis=1), losses.partial(losses.softmax_cross_entropy, label_smoothing=0.1), r"leave that layer out"),
        (relu(), losses.softmax_cross_entropy, r"relu\(\), which gives no negative numbers"),
        (tanh(), losses.binary_cross_entropy, r"tanh\(\), which gives numbers within ±1; end with sigmoid\(\)"),
        (dense(3), losses.binary_cross_entropy, r"dense\(3\), which gives logits; end with sigmoid\(\)"),
        (softmax(), losses.negative_log_likelihood, r"which gives class probabilities; end with log_softmax\(\)"),
        (sigmoid(), losses.cross_entropy, r"class probabilities, got .* gives probabilities; end with softmax\(\), or"),
        (serial(conv(2, 3), dropout(0.1), flatten()), losses.negative_log_likelihood, r"conv\(2, 3\), which gives"),
    ],
)  # fmt: skip
def test_what_does_not_fit(engine, last, loss, message):
    with pytest.warns(OutputWarning, match=rf"^{re.escape(str(loss))}: expected a .*{message}") as said:
        engine(serial(dense(3), last), loss)
    assert len(said) == 1
    assert said[0].filename == __file__


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "model, loss",
    [
        (dense(3), losses.softmax_cross_entropy),
        (serial(dense(3), log_softmax()), losses.softmax_cross_entropy),  # a softmax leaves them as they are
        (serial(dense(3), log_softmax(), dropout(0.1)), losses.negative_log_likelihood),
        (serial(dense(3), serial(sigmoid()), flatten()), losses.binary_cross_entropy),
        (serial(dense(3), softmax()), losses.mean_squared_error),
        (serial(dense(3), softmax()), losses.cross_entropy),
        (serial(dense(2), softmax()), losses.binary_cross_entropy),  # class probabilities are probabilities
        (serial(softmax(), residual(relu())), losses.softmax_cross_entropy),  # what x + relu(…) gives is not known
        (serial(softmax(), serial()), losses.negative_log_likelihood),
    ],
)
def test_what_fits_or_is_not_known(engine, model, loss):
    engine(model, loss)


def test_own_losses_and_layers_are_not_judged():
    own = layer(dense(3).forward, dense(3).backward, init=dense(3).init)
    gradients.autodiff(own, losses.negative_log_likelihood)
    gradients.autodiff(softmax(), lambda prediction, target: prediction.sum())


def test_an_own_loss_may_say_what_it_takes():
    @losses.loss(takes="probabilities")
    def brier(prediction, target, *, reduction="mean", where=None):
        p, t, over = losses.prepare(brier, prediction, target, reduction, where)
        return over.reduce((p - t) ** 2)

    with pytest.warns(OutputWarning, match=r"^brier: expected a model that gives probabilities"):
        gradients.autodiff(dense(1), brier)
