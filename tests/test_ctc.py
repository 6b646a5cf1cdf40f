"""The loss of unaligned sequences with padding, and what it does where there is no alignment."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import ctc as by_all_alignments
from numerics import norm_relative, quick_jit, richardson, worst_element

from funcnet import Padded, gradients, layers, losses, optimizers, training
from funcnet.errors import ConfigError, DtypeError, LabelError, ShapeError

RANDOM = np.random.default_rng(0)

# Six rows of up to 5 positions and 3 labels, with every kind of length: all, some, one and none.
Z = RANDOM.normal(size=(6, 5, 4))
LABELS = np.array([[1, 2, 2], [3, 1, 0], [2, 2, 2], [0, 3, 3], [1, 1, 1], [0, 2, 1]])
TIMES, LENGTHS = np.array([5, 3, 5, 1, 0, 4]), np.array([3, 2, 3, 0, 0, 2])
HEARD, WRITTEN = (np.arange(n) < k[:, None] for n, k in ((5, TIMES), (3, LENGTHS)))
# The last row has gaps: the positions 0, 2, 3, 4 and the labels 2 and 1.
HEARD[5], WRITTEN[5] = [1, 0, 1, 1, 1], [0, 1, 1]


def sequences(z, labels=LABELS):
    return Padded(z, HEARD), Padded(labels, WRITTEN)


@quick_jit
def report(z, labels, weights):
    prediction, target = sequences(z, labels)

    def loss(z):
        return losses.ctc(Padded(z, HEARD), target, weights=weights)

    values = losses.ctc(prediction, target, reduction="none")
    return values, losses.ctc.gradient(prediction, target, weights=weights), jax.grad(loss)(z)


WEIGHTS = np.linspace(1, 2, 6)


@pytest.fixture(scope="module")
def expected():
    with jax.enable_x64(True):
        return report(Z, LABELS, WEIGHTS)


def test_values_are_sums_over_all_alignments(expected, x64):
    rows = zip(Z, HEARD, LABELS, WRITTEN, strict=True)
    want = [by_all_alignments(z[None, heard], labels[None, there])[0] for z, heard, labels, there in rows]
    np.testing.assert_allclose(expected[0], want, rtol=1e-13, atol=1e-15)
    assert want[4] == 0  # of no labels, without a position


def test_gradients_of_padded_sequences(expected, x64):
    _, hand, auto = expected
    assert norm_relative(hand, auto) <= 1e-13
    numeric = richardson(lambda z: losses.ctc(*sequences(z), weights=WEIGHTS), jnp.asarray(Z))
    assert worst_element(hand, numeric) <= 1e-6
    assert not np.any(hand[~HEARD])
    # Softmax and shares both sum to 1.
    np.testing.assert_allclose(hand.sum(-1), 0, atol=1e-15)


@pytest.mark.parametrize("rubbish", [7.5, np.nan, np.inf])
def test_padding_does_not_count(expected, rubbish, x64):
    z, labels = np.where(HEARD[..., None], Z, rubbish), np.where(WRITTEN, LABELS, 99)
    for number, want in zip(report(z, labels, WEIGHTS), expected, strict=True):
        np.testing.assert_array_equal(number, want)
    wider = [np.pad(x, [(0, 0), (1, 2)] + [(0, 0)] * (x.ndim - 2)) for x in (Z, HEARD, LABELS, WRITTEN)]
    got = losses.ctc(Padded(*wider[:2]), Padded(*wider[2:]), reduction="none")
    np.testing.assert_allclose(got, expected[0], rtol=1e-13)


def test_vmap_is_a_loop(expected, x64):
    def one(z, heard, labels, written):
        rows = Padded(z[None], heard[None]), Padded(labels[None], written[None])
        return losses.ctc(*rows), losses.ctc.gradient(*rows)[0]

    values, hand = quick_jit(jax.vmap(one))(Z, HEARD, LABELS, WRITTEN)
    np.testing.assert_allclose(values, expected[0], rtol=1e-13)
    want = expected[1] * (WEIGHTS.sum() / WEIGHTS)[:, None, None]
    assert norm_relative(hand, want) <= 1e-13


def test_half_precision_is_computed_in_float32():
    prediction, target = sequences(jnp.asarray(Z, jnp.bfloat16))
    wide = Padded(prediction.values.astype(jnp.float32), HEARD)
    for function in (losses.ctc, losses.ctc.gradient):
        got = function(prediction, target)
        assert got.dtype == jnp.bfloat16
        assert norm_relative(got, function(wide, target)) <= 2**-8


def test_long_sequences_neither_overflow_nor_underflow():
    """1000 positions of 30 classes: probabilities near 1e-1400."""
    z = np.random.default_rng(1).normal(size=(1, 1000, 30))
    labels = np.random.default_rng(2).integers(1, 30, (1, 200))
    with jax.enable_x64(True):
        want = losses.ctc(z, labels), losses.ctc.gradient(z, labels)
    got = losses.ctc(z.astype(np.float32), labels), losses.ctc.gradient(z.astype(np.float32), labels)
    assert norm_relative(got[0], want[0]) <= 1e-6
    assert norm_relative(got[1], want[1]) <= 5e-5
    assert float(got[0]) > 700


# Where there is no alignment.


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_too_few_positions_under_jit(zero_infinity, x64):
    """Rows 0 and 2 need three positions: "1 1" and "1 2 3"."""
    z, words = Z[:4, :2], Padded(np.array([[1, 1, 0], [1, 2, 0], [1, 2, 3], [1, 0, 0]]), np.ones((4, 3), bool))
    words = Padded(words.values, np.arange(3) < np.array([2, 2, 3, 1])[:, None])

    @quick_jit
    def both(z, words):
        def loss(z, reduction="sum"):
            return losses.ctc(z, words, reduction=reduction, zero_infinity=zero_infinity)

        hand = losses.ctc.gradient(z, words, reduction="sum", zero_infinity=zero_infinity)
        return loss(z, "none"), hand, jax.grad(loss)(z)

    values, hand, auto = both(z, words)
    assert np.array_equal(values[jnp.array([0, 2])], [0.0, 0.0] if zero_infinity else [np.inf, np.inf])
    assert np.isfinite(values[jnp.array([1, 3])]).all()
    np.testing.assert_allclose(hand, auto, rtol=1e-12, atol=1e-14)
    hopeless = hand[jnp.array([0, 2])]
    assert not hopeless.any() if zero_infinity else np.isnan(hopeless).all()
    assert np.isfinite(hand[jnp.array([1, 3])]).all()


def test_a_mask_excuses_rows_without_alignment(x64):
    z, words, where = jnp.asarray(Z[:2, :2]), jnp.array([[1, 1], [1, 2]]), jnp.array([False, True])
    value, auto = quick_jit(jax.value_and_grad(_masked))(z, words, where)
    np.testing.assert_allclose(value, by_all_alignments(Z[1:2, :2], np.array([[1, 2]]))[0], rtol=1e-13)
    np.testing.assert_allclose(auto, losses.ctc.gradient(z, words, where=where), rtol=1e-12, atol=1e-15)
    assert not auto[0].any()


def _masked(z, words, where):
    return losses.ctc(z, words, where=where)


@pytest.mark.parametrize("labels", [[1, 4], [1, -1], [0, 1]])
def test_labels_that_jit_hides_give_nan(labels):
    """Of no class, or the blank."""

    @jax.jit
    def both(labels):
        loss = losses.ctc(Z[:1], labels, reduction="none"), losses.ctc.gradient(Z[:1], labels)
        return *loss, jax.grad(lambda z: losses.ctc(z, labels))(jnp.asarray(Z[:1]))

    assert all(np.isnan(x).all() for x in both(np.array([labels])))


def test_an_impossible_class_has_no_share(x64):
    z = jnp.asarray(Z[:1]).at[..., 3].set(-np.inf)
    value, gradient = losses.ctc(z, LABELS[:1]), losses.ctc.gradient(z, LABELS[:1])
    want = losses.ctc(z[..., :3], LABELS[:1]), losses.ctc.gradient(z[..., :3], LABELS[:1])
    np.testing.assert_allclose(value, want[0], rtol=1e-13)
    np.testing.assert_allclose(gradient, jnp.pad(want[1], ((0, 0), (0, 0), (0, 1))), rtol=1e-12, atol=1e-15)


REFUSED = [
    ((Z[0], LABELS), {}, ShapeError, "ctc: expected prediction of shape (batch, time, classes), got (5, 4); put the"),
    ((Z, LABELS[:, 0]), {}, ShapeError, "ctc: expected target of shape (6, length), got (6,); give one sequence of la"),
    ((Z, LABELS[:5]), {}, ShapeError, "ctc: expected target of shape (6, length), got (5, 3)"),
    ((Z.astype(int), LABELS), {}, DtypeError, "ctc: expected prediction of a floating dtype"),
    ((Z, Z[..., 0]), {}, LabelError, "ctc: expected target to be integers, got dtype float64; convert them with .ast"),
    ((Padded(Z, HEARD[:, :3]), LABELS), {}, ShapeError, "ctc: expected the mask of prediction of shape (6, 5), got ("),
    ((Z, Padded(LABELS, HEARD)), {}, ShapeError, "ctc: expected the mask of target of shape (6, 3), got (6, 5); mark"),
    ((Z, Padded(LABELS, WRITTEN * 1)), {}, DtypeError, "ctc: expected where of dtype bool, got int64; compare it"),
    ((Z, LABELS + 2), {}, LabelError, "ctc: expected label in 0..3, got 4 at [0, 1]; number the classes from 0, and p"),
    ((Z, LABELS), {}, LabelError, "ctc: expected labels other than the blank, 0, got 0 at [1, 2]; pad with a Padded"),
    ((Z, np.maximum(LABELS, 1)), {"blank": 3}, LabelError, "expected labels other than the blank, 3, got 3 at [1, 0]"),
    (
        (Padded(Z, HEARD), np.array([[1, 2]] * 6)), {}, LabelError,
        "ctc: expected a position of prediction for each label, and one more between two equal labels, got [1 2] at "
        "row 3; give longer inputs, pool less over time, or set zero_infinity=True.",
    ),
    ((Z[:1, :4], np.array([[2, 2, 2]])), {}, LabelError, "one more between two equal labels, got [2 2 2] at row 0"),
    ((Z, LABELS), {"blank": 4}, ConfigError, "ctc: expected blank to be at most 3, got 4."),
    ((Z, LABELS), {"blank": -1}, ConfigError, "ctc: expected blank to be an integer >= 0, got -1."),
    ((Z, LABELS), {"zero_infinity": 1}, ConfigError, "ctc: expected zero_infinity to be True or False, got 1."),
    ((Z, np.ones((6, 1), int)), {"where": HEARD}, ShapeError, "ctc: expected where of shape (6,), got (6, 5)"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "options", "error", "message"), REFUSED)
def test_refused(arguments, options, error, message):
    for function in (losses.ctc, losses.ctc.gradient):
        with pytest.raises(error, match=re.escape(message)):
            function(*arguments, **options)


def test_check_knows_the_options():
    """`fit` checks all targets before the first step, where they can be read."""
    shape, short = jax.ShapeDtypeStruct((1, 2, 4), jnp.float32), np.array([[3, 3]])
    with pytest.raises(LabelError, match=re.escape("ctc: expected a position of prediction for each label, and one")):
        losses.ctc.check(shape, short)
    losses.partial(losses.ctc, zero_infinity=True).check(shape, short)
    with pytest.raises(LabelError, match="ctc: expected labels other than the blank, 3, got 3"):
        losses.partial(losses.ctc, blank=3, zero_infinity=True, reduction="sum").check(shape, short)


def test_the_mean_divides_by_sequences(x64):
    """Not by labels, as torch's does."""
    prediction, target = sequences(Z)
    values = losses.ctc(prediction, target, reduction="none")
    assert norm_relative(losses.ctc(prediction, target), values.mean()) <= 1e-14
    assert losses.ctc.counted(prediction, target) == 6
    assert losses.ctc.counted(prediction, target, where=np.arange(6) > 1, weights=WEIGHTS) == WEIGHTS[2:].sum()


@pytest.mark.parametrize("engine", ["autodiff", "backprop"])
def test_a_model_of_padded_sequences_learns_to_read(engine):
    """Two classes of inputs say "1 2" and "2"; both engines find it, and the batch in parts is the whole."""
    x = np.zeros((8, 5, 3), np.float32)
    x[::2, 0, 0] = x[::2, 2, 1] = x[1::2, 1, 1] = 1
    inputs = Padded(x, np.arange(5) < np.array([5, 3] * 4)[:, None])
    words = Padded(np.array([[1, 2], [2, 0]] * 4), np.array([[True, True], [True, False]] * 4))
    model = layers.dense(4)
    params, state = model.init(jax.random.key(0), inputs)
    gradient = getattr(gradients, engine)(model, losses.ctc)
    whole = gradient(params, state, (inputs, words))
    parts = gradients.accumulated(gradient, 2)(params, state, (inputs, words))
    assert norm_relative(parts.grads["kernel"], whole.grads["kernel"]) <= 1e-6
    optimizer, data = optimizers.adam(0.3), (inputs, words)
    *_, report = training.fit(model, losses.ctc, optimizer, data, engine=engine, epochs=40, batch_size=4, key=0)
    assert report.metrics["loss"] < 0.05
