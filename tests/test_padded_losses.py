"""Cross-entropy of padded sequences in losses, metrics and training, with every reduction, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import norm_relative, quick_jit

from funcnet import Padded, gradients, layers, losses, metrics, optimizers, training

RANDOM = np.random.default_rng(0)
LENGTHS = np.array([4, 2, 0, 3])  # all, some, none
THERE = np.arange(4) < LENGTHS[:, None]
LOGITS, LABELS = RANDOM.normal(size=(4, 4, 5)), RANDOM.integers(0, 5, (4, 4))
ROWS, TOKENS = np.array([True, True, True, False]), RANDOM.random((4, 4)) < 0.7
WEIGHTS = {"rows": np.array([1.0, 2.0, 3.0, 0.5]), "tokens": RANDOM.random((4, 4)) + 0.5}
COUNTS = {
    "everything": {},
    "rows": {"where": ROWS},
    "tokens": {"where": TOKENS},
    "weights of rows": {"where": ROWS, "weights": WEIGHTS["rows"]},
    "weights of tokens": {"where": TOKENS, "weights": WEIGHTS["tokens"]},
}
CLASS_WEIGHTS = (0.5, 1.0, 2.0, 1.5, 0.0)


def counts(given):
    """By how much each token counts."""
    c = THERE.astype(float)
    for x in given.values():
        c = c * (x if x.ndim == 2 else x[:, None])
    return c


def expected(given, class_weights=None):
    """Each reduction and its gradient, token by token."""
    shares = counts(given) * (1 if class_weights is None else np.take(class_weights, LABELS))
    values, slopes = np.zeros((4, 4)), np.zeros((4, 4, 5))
    for i, t in np.ndindex(4, 4):
        p = np.exp(LOGITS[i, t]) / np.exp(LOGITS[i, t]).sum()
        c = shares[i, t]
        values[i, t], slopes[i, t] = -c * np.log(p[LABELS[i, t]]), c * (p - np.eye(5)[LABELS[i, t]])
    return {
        "none": (values, slopes), "sum": (values.sum(), slopes),
        "mean": (values.sum() / shares.sum(), slopes / shares.sum()),
    }  # fmt: skip


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
@pytest.mark.parametrize("rubbish", [0.0, np.nan])
def test_softmax_cross_entropy(x64, rubbish, class_weights):
    loss = losses.partial(losses.softmax_cross_entropy, class_weights=class_weights)
    logits = np.where(THERE[..., None], LOGITS, rubbish)
    target = Padded(np.where(THERE, LABELS, 77), THERE)

    def one(z, target, given, reduction):
        given = given | {"reduction": reduction}
        auto = jax.grad(lambda z: loss(Padded(z, THERE), target, **given).sum())(z)
        return loss(Padded(z, THERE), target, **given), loss.gradient(Padded(z, THERE), target, **given), auto

    @quick_jit
    def program(z, padded, labels):
        return {
            kind: [
                {reduction: one(z, target, given, reduction) for reduction in ("none", "sum", "mean")}
                for target in (padded, labels)
            ]
            for kind, given in COUNTS.items()
        }

    for kind, both in program(logits, target, target.values).items():
        for found in both:
            for reduction, (want, slopes) in expected(COUNTS[kind], class_weights).items():
                value, hand, auto = found[reduction]
                np.testing.assert_allclose(value, want, rtol=1e-13, atol=1e-15, err_msg=f"{kind} {reduction}")
                assert norm_relative(hand, slopes) <= 1e-13
                assert norm_relative(auto, slopes) <= 1e-13
                assert not np.any(hand[~THERE])


METRICS = {
    "accuracy": (metrics.accuracy(), lambda hit, nll, c: (c * hit).sum() / c.sum()),
    "loss": (metrics.mean_loss(losses.softmax_cross_entropy), lambda hit, nll, c: (c * nll).sum() / c.sum()),
    "perplexity": (
        metrics.perplexity(losses.softmax_cross_entropy), lambda hit, nll, c: np.exp((c * nll).sum() / c.sum()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("name", METRICS)
def test_metrics(x64, name, kind):
    metric, want = METRICS[name]
    logits = np.where(THERE[..., None], LOGITS, np.nan)
    nll = -np.log(np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True))
    given = COUNTS[kind]
    nll = np.take_along_axis(nll, LABELS[..., None], -1)[..., 0]
    by, state = counts(given), metric.init()
    for rows in (slice(0, 2), slice(2, 4)):  # the second batch has a row without a token
        prediction, target = Padded(logits[rows], THERE[rows]), Padded(LABELS[rows], THERE[rows])
        state = metric.update(state, prediction, target, *(given[k][rows] if k in given else None for k in KINDS))
    np.testing.assert_allclose(metric.compute(state), want(LOGITS.argmax(-1) == LABELS, nll, by), rtol=1e-13)


KINDS = ("where", "weights")


def test_nothing_there_is_a_loss_of_zero():
    nothing = Padded(np.full((2, 3, 5), np.nan, np.float32), np.zeros((2, 3), bool))
    assert losses.softmax_cross_entropy(nothing, np.zeros((2, 3), int)) == 0
    assert not losses.softmax_cross_entropy.gradient(nothing, np.zeros((2, 3), int)).any()
    metric = metrics.accuracy()
    assert np.isnan(metric.compute(metric.update(metric.init(), nothing, np.zeros((2, 3), int))))


@pytest.mark.parametrize("engine", ["autodiff", "backprop"])
def test_training_on_padded_tokens(engine):
    """The loss that is reported is that of the tokens which are there, also by parts and in the last, smaller batch."""
    x = Padded(RANDOM.normal(size=(6, 4, 3)).astype(np.float32), np.arange(4) < np.array([4, 2, 0, 3, 1, 4])[:, None])
    target = Padded((x.values[..., 0] > 0).astype(int), x.where)
    model, loss = layers.dense(2), losses.softmax_cross_entropy
    data = (x, target)
    *_, report = training.fit(
        model, loss, optimizers.sgd(0.0), data, engine=engine, epochs=1, batch_size=4, key=0,
        metrics={"perplexity": metrics.perplexity(loss), "accuracy": metrics.accuracy()},
    )  # fmt: skip
    params, state = report.state.optimizer.params, report.state.model
    logits, _ = model.apply(params, state, x)
    want = loss(logits.values, target.values, where=x.where)
    np.testing.assert_allclose(report.metrics["loss"], want, rtol=1e-6)
    np.testing.assert_allclose(report.metrics["perplexity"], np.exp(want), rtol=1e-6)
    hits = (logits.values.argmax(-1) == target.values)[x.where]
    np.testing.assert_allclose(report.metrics["accuracy"], hits.mean(), rtol=1e-6)
    found = training.evaluate(model, loss, params, state, data, batch_size=4)
    np.testing.assert_allclose(found["loss"], want, rtol=1e-6)
    gradient = getattr(gradients, engine)(model, loss)
    whole, parts = gradient(params, state, data), gradients.accumulated(gradient, 3)(params, state, data)
    assert norm_relative(parts.grads["kernel"], whole.grads["kernel"]) <= 1e-6
    assert float(parts.counted) == x.where.sum()


def test_a_weighted_sum_of_padded_outputs(x64):
    """Each part has a mask of its own."""
    both = losses.weighted_sum(tag=(1.0, losses.softmax_cross_entropy), tone=(0.5, losses.mean_squared_error))
    prediction = {"tag": Padded(jnp.asarray(LOGITS), THERE), "tone": Padded(jnp.asarray(LOGITS[..., 0]), TOKENS)}
    target = {"tag": Padded(LABELS, THERE), "tone": 0 * LOGITS[..., 0]}
    want, slopes = expected({})["mean"]
    squares = (LOGITS[..., 0] ** 2)[TOKENS].mean()
    np.testing.assert_allclose(both(prediction, target), want + 0.5 * squares, rtol=1e-13)
    got = both.gradient(prediction, target)
    counted = both.counted(prediction, target)
    assert norm_relative(got["tag"], slopes) <= 1e-13
    assert norm_relative(got["tone"], np.where(TOKENS, LOGITS[..., 0], 0) / TOKENS.sum()) <= 1e-13
    assert (int(counted["tag"]), int(counted["tone"])) == (THERE.sum(), TOKENS.sum())
