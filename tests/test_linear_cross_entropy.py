"""The cross-entropy of an output layer in blocks, against the plain one, with padding, masks and both engines."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import norm_relative, quick_jit, richardson, usual_jit, worst_element, worst_leaf

from funcnet import Padded, Whole, gradients, initializers, layers, losses, metrics, optimizers, training
from funcnet.errors import ConfigError, DtypeError, LabelError, ShapeError, StructureError

RANDOM = np.random.default_rng(0)
X, KERNEL, LABELS = RANDOM.normal(size=(5, 3, 4)), RANDOM.normal(size=(4, 7)), RANDOM.integers(0, 7, (5, 3))
THERE, ROWS = RANDOM.random((5, 3)) < 0.7, np.array([True, True, False, True, True])
COUNTS = {
    "everything": {},
    "rows": {"where": ROWS},
    "positions": {"where": THERE},
    "weights": {"where": ROWS, "weights": RANDOM.random((5, 3)) + 0.5},
}


@pytest.mark.parametrize("block", [None, 1, 4, 15])
def test_it_is_the_plain_one(x64, block):
    """15 rows in blocks of all, 1, 4 (the last one has 3) and 15."""

    def both(x, kernel, options):
        def plain(x, kernel):
            return losses.softmax_cross_entropy(x @ kernel, LABELS, **options)

        def linear(x, kernel):
            return losses.linear_cross_entropy((x, Whole(kernel)), LABELS, block=block, **options)

        hand = losses.linear_cross_entropy.gradient((x, Whole(kernel)), LABELS, block=block, **options)
        wanted, auto = (jax.grad(lambda *a, f=f: f(*a).sum(), (0, 1))(x, kernel) for f in (plain, linear))
        return (linear(x, kernel), hand, auto), (plain(x, kernel), wanted, wanted)

    def program(x, kernel):
        return {
            (kind, one): both(x, kernel, given | {"reduction": one})
            for kind, given in COUNTS.items()
            for one in ("mean", "sum", "none")
        }

    for case, (got, want) in quick_jit(program)(X, KERNEL).items():
        assert worst_leaf(got, want) <= 1e-13, case


def test_gradients_are_those_of_finite_differences(x64):
    def loss(pair):
        return losses.linear_cross_entropy((pair[0], Whole(pair[1])), LABELS, block=4, where=THERE)

    numeric = richardson(loss, (jnp.asarray(X), jnp.asarray(KERNEL)))
    hand = losses.linear_cross_entropy.gradient((X, Whole(KERNEL)), LABELS, block=4, where=THERE)
    assert worst_element(hand, numeric) <= 1e-6


@pytest.mark.parametrize("rubbish", [7.5, np.nan])
def test_padding_does_not_count(x64, rubbish):
    x, labels = np.where(THERE[..., None], X, rubbish), np.where(THERE, LABELS, 99)
    want = quick_jit(_both)(X, KERNEL, LABELS, THERE)
    got = quick_jit(lambda x, k, t: _both(Padded(x, THERE), k, Padded(t, THERE), ROWS | True))(x, KERNEL, labels)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14, atol=1e-16)
    assert not np.any(got[1][0][~THERE])
    assert int(losses.linear_cross_entropy.counted((Padded(X, THERE), Whole(KERNEL)), LABELS)) == THERE.sum()


def _both(x, kernel, labels, where):
    arguments = ((x, Whole(kernel)), labels)
    return tuple(
        f(*arguments, where=where) for f in (losses.linear_cross_entropy, losses.linear_cross_entropy.gradient)
    )


def test_labels_that_jit_hides_give_nan():
    run = jax.jit(lambda labels: losses.linear_cross_entropy((X, Whole(KERNEL)), labels, reduction="none"))
    labels = LABELS.copy()
    labels[1, 2], labels[3, 0] = 7, -1
    got = run(labels)
    np.testing.assert_array_equal(np.argwhere(np.isnan(got)), [[1, 2], [3, 0]])
    slopes = jax.jit(lambda labels: losses.linear_cross_entropy.gradient((X, Whole(KERNEL)), labels))(labels)
    assert np.isnan(slopes[0][1, 2]).all()
    assert np.isnan(slopes[1]).any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_summed_in_float32(dtype):
    x, kernel = jnp.asarray(X, dtype), jnp.asarray(KERNEL, dtype)
    wide = [one.astype(jnp.float32) for one in (x, kernel)]
    for function in (losses.linear_cross_entropy, losses.linear_cross_entropy.gradient):
        got, want = (function((one[0], Whole(one[1])), LABELS) for one in ((x, kernel), wide))
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(got))
        assert worst_leaf(got, want) <= 3 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("engine", ["autodiff", "backprop"])
def test_a_model_that_hands_its_kernel_on(x64, engine):
    """Its params and gradients are those of the plain model, also in parts; accuracy is that of the logits."""
    x = Padded(X, THERE)
    output = layers.dense(7, use_bias=False)
    plain, thin = (layers.serial(layers.dense(6), layers.tanh(), last) for last in (output, layers.deferred(output)))
    params, state = plain.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, thin.init(jax.random.key(0), x)[0], params)
    gradient = getattr(gradients, engine)
    want = gradient(plain, losses.softmax_cross_entropy)(params, state, (x, LABELS))
    for made in (gradient(thin, losses.linear_cross_entropy), gradients.accumulated(_linear(gradient, thin), 5)):
        got = made(params, state, (x, LABELS))
        assert norm_relative(got.loss, want.loss) <= 1e-13
        assert worst_leaf(got.grads, want.grads) <= 1e-13
        assert isinstance(got.prediction[1], Whole)
        np.testing.assert_array_equal(got.prediction[1].array, params[2]["kernel"])
        np.testing.assert_allclose(got.prediction[0].values, jax.tree.leaves(thin.apply(params, state, x)[0])[0])


@pytest.mark.parametrize("engine", ["autodiff", "backprop"])
def test_a_table_of_words_is_a_transposed_kernel(x64, engine):
    """A leaf `embedding` (classes, features), as of an output layer that shares the table of an embedding."""
    params, state = {"embedding": jnp.asarray(KERNEL.T)}, ()
    gradient = getattr(gradients, engine)(layers.deferred(by_table()), losses.linear_cross_entropy)
    want = jax.grad(lambda p: losses.softmax_cross_entropy(X @ p["embedding"].T, LABELS))(params)
    assert worst_leaf(gradient(params, state, (X, LABELS)).grads, want) <= 1e-13


def by_table():
    def forward(params, state, x, *, key=None, train=False):
        return x @ params["embedding"].T, state, x

    def backward(params, x, dy):
        return {"embedding": jnp.einsum("btk,btd->kd", dy, x)}, dy @ params["embedding"]

    return layers.layer(forward, backward, leaves={"embedding": (initializers.ones, (7, 4))})


def _linear(gradient, model):
    return gradient(model, losses.linear_cross_entropy)


@pytest.mark.parametrize(
    "metric",
    [metrics.accuracy(), metrics.top_k_accuracy(3), metrics.confusion_matrix(7)],
    ids=str,
)
def test_metrics_of_features_and_kernel(metric):
    pair, scores = (Padded(X, THERE), Whole(KERNEL)), Padded(X @ KERNEL, THERE)
    got, want = (metric.compute(metric.update(metric.init(), one, LABELS)) for one in (pair, scores))
    np.testing.assert_array_equal(got, want)
    spoilt = (np.where(np.arange(5)[:, None, None] == 1, np.nan, X), Whole(KERNEL))
    assert np.isnan(metric.compute(metric.update(metric.init(), spoilt, LABELS))).all()
    assert np.isfinite(metric.compute(metric.update(metric.init(), spoilt, LABELS, np.arange(5) != 1))).all()


def test_training_and_evaluation(x64):
    """`fit` and `evaluate` with both models give the same numbers, also where the last batch is smaller."""
    output = layers.dense(7, use_bias=False)
    data, shown = (X[:, 0], LABELS[:, 0]), {"accuracy": metrics.accuracy()}
    found = []
    for last, loss in ((output, losses.softmax_cross_entropy), (layers.deferred(output), losses.linear_cross_entropy)):
        model = layers.serial(layers.dense(6), layers.tanh(), last)
        *_, report = training.fit(
            model, loss, optimizers.adam(0.1), data, engine="backprop", epochs=3, batch_size=2, key=0, metrics=shown,
            validation=data,
        )  # fmt: skip
        params, state = report.state.optimizer.params, report.state.model
        tested = training.evaluate(model, loss, params, state, data, batch_size=2, metrics=shown)
        found.append((report.metrics | tested, params))
    assert worst_leaf(*found) <= 1e-10


def test_memory_is_a_quarter():
    """Of autodiff through the plain logits, for 512 tokens and 50 257 classes: the compiler's own analysis."""
    x, kernel = jax.ShapeDtypeStruct((512, 32), jnp.float32), jax.ShapeDtypeStruct((32, 50257), jnp.float32)
    labels = jax.ShapeDtypeStruct((512,), jnp.int32)

    def plain(x, kernel, labels):
        return losses.softmax_cross_entropy(x @ kernel, labels)

    def linear(x, kernel, labels):
        return losses.linear_cross_entropy((x, Whole(kernel)), labels)

    def by_hand(x, kernel, labels):
        pair = x, Whole(kernel)
        return linear(x, kernel, labels), losses.linear_cross_entropy.gradient(pair, labels)

    plainly, auto, hand = (
        usual_jit(one).lower(x, kernel, labels).compile().memory_analysis().temp_size_in_bytes
        for one in (jax.value_and_grad(plain, (0, 1)), jax.value_and_grad(linear, (0, 1)), by_hand)
    )
    assert max(auto, hand) <= plainly / 4


REFUSED = [
    (X @ KERNEL, LABELS, {}, StructureError, "linear_cross_entropy: expected prediction to be (features, Whole(kern"),
    ((X, KERNEL), LABELS, {}, StructureError, "expected prediction to be (features, Whole(kernel)), got a tuple;"),
    ((X, Whole(KERNEL.T)), LABELS, {}, ShapeError, "expected a kernel of shape (4, classes) beside the features, got"),
    ((X, Whole(KERNEL.astype(np.float32))), LABELS, {}, DtypeError,
     "expected a kernel of dtype float64, as the features, got float32; convert it with .astype."),
    ((X, Whole(KERNEL)), LABELS[0], {}, ShapeError, "expected target of integer labels of shape (5, 3), got (3,); pr"),
    ((X, Whole(KERNEL)), LABELS + 1, {}, LabelError, "linear_cross_entropy: expected label in 0..6, got 7 at ["),
    ((X, Whole(KERNEL)), LABELS, {"block": 0}, ConfigError, "expected block to be a positive integer, got 0."),
]  # fmt: skip


@pytest.mark.parametrize(("prediction", "target", "options", "error", "message"), REFUSED)
def test_refused(prediction, target, options, error, message):
    for function in (losses.linear_cross_entropy, losses.linear_cross_entropy.gradient):
        with pytest.raises(error, match=re.escape(message)):
            function(prediction, target, **options)


def test_deferred_refuses():
    x = jnp.ones((2, 3))
    with pytest.raises(ConfigError, match=re.escape("expected inner to be an output layer with one leaf, such as")):
        layers.deferred("dense")
    with pytest.raises(StructureError, match=re.escape("got params ['bias', 'kernel']; give it no bias.")):
        layers.deferred(layers.dense(3)).init(jax.random.key(0), x)
    layer = layers.deferred(layers.dense(3, use_bias=False))
    params, state = layer.init(jax.random.key(0), x)
    with pytest.raises(ShapeError, match=re.escape("deferred(dense(3, use_bias=False)): expected x of shape (batch,")):
        layer.apply(params, state, x[:, :2])
    with pytest.raises(DtypeError, match="expected x of a floating dtype"):
        layer.apply(params, state, x.astype(int))


def test_per_example_gradients_are_refused():
    layer = layers.deferred(layers.dense(3, use_bias=False))
    params, state = layer.init(jax.random.key(0), jnp.ones((2, 3)))
    with pytest.raises(ConfigError, match="expected a prediction with a row for each example, got an array"):
        gradients.per_example(layer, losses.linear_cross_entropy)(params, state, (jnp.ones((2, 3)), jnp.zeros(2, int)))
