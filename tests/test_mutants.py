"""Mutants: every mistake that changes a gradient is made, told from equivalent ones, and caught."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import CASES

from funcnet import layers, losses
from funcnet.catalogue import CATALOGUE, LOSSES, PENALTIES, TREES
from funcnet.checking import check_gradients, mutants, mutation_score
from funcnet.checking.mistakes import in_the_formula, wrong_formula
from funcnet.errors import ConfigError


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


# One of each kind; CI runs `funcnet check --mutants`, which has every layer and 20 seeds.
@pytest.mark.parametrize(
    "name",
    ["identity", "attention_causal", "dense", "dropout", "prelu", "gelu", "binary_step", "log_softmax_axis_1",
     "residual_random", "repeat"],
)  # fmt: skip
def test_every_mutant_of_a_layer_is_caught(name):
    case = CASES[name]
    score = mutation_score(case.layer, case.example(3, 3), modes=("training",), seeds=2)
    assert score.ok, score
    assert score.made >= 7 or name in ("binary_step", "identity"), score


@pytest.mark.parametrize("name", TREES)
def test_every_mutant_of_trees_is_caught(name):
    case = TREES[name]
    score = mutation_score(case.layer, case.example(3, 2), modes=("training",), seeds=2)
    assert score.ok, score
    assert score.made >= (20 if name != "embedding" else 12), score  # which has one leaf, and no dx


def test_the_mistakes_of_trees():
    """In each floating leaf; integers have no gradient, and arrays of no numbers, which keep shapes, no mistake."""
    case = TREES["each_named"]
    made = mutants(case.layer, case.example(3, 2))
    assert {mutant.mistake.split(": ")[0] for mutant in made if ": " in mutant.mistake} == {
        "params/image/1/bias", "params/image/1/kernel", "params/words/0/table", "x/image",
    }  # fmt: skip
    assert [mutant.mistake for mutant in made if mutant.mistake.startswith("residual ")] == [
        "residual 0 zeroed", "residual 2 zeroed",  # the input of dense and the output of tanh, not the integers
    ]  # fmt: skip
    assert all(str(mutant.target) == str(case.layer) for mutant in made)
    assert len({mutant.target for mutant in made}) == len(made)


def test_no_mistake_is_made_where_there_are_no_numbers():
    """What `layer` puts around a backward is not a formula, and the shapes that it keeps are not residuals."""
    mistakes = [mutant.mistake for mutant in mutants(layers.identity(), shape(3, 4))]
    assert [mistake for mistake in mistakes if ": " not in mistake] == [
        "dy ignored", "dy shuffled", "dy of the first example left out", "gradient shared by ties",
    ]  # fmt: skip


def test_every_mutant_of_a_weighted_sum_is_caught():
    loss = losses.weighted_sum(digit=(1.0, losses.softmax_cross_entropy), ink=(0.5, losses.mean_squared_error))
    prediction = {"digit": shape(4, 3), "ink": shape(4, 2), "code": shape(4, 1)}
    target = {"digit": np.array([0, 2, 1, 1]), "ink": shape(4, 2)}
    score = mutation_score(loss, prediction, target, seeds=2)
    assert score.ok, score
    assert score.made >= 20
    made = mutants(loss, prediction, target)
    assert {mutant.mistake.split(": ")[0] for mutant in made if ": " in mutant.mistake} == {"digit", "ink"}
    assert all(dataclasses.replace(mutant.target, gradient=loss.gradient) == loss for mutant in made)


def test_a_loss_of_ones_own_is_wrapped_and_not_changed():
    class Squares:
        def __call__(self, prediction, target):
            return jnp.sum((prediction - target) ** 2)

        def gradient(self, prediction, target):
            return 2 * (prediction - target)

    own = Squares()
    score = mutation_score(own, shape(4, 3), np.ones((4, 3)), seeds=1)
    assert score.ok, score
    assert vars(own) == {}


@pytest.mark.parametrize("name", {case.loss.__name__: name for name, case in LOSSES.items()}.values())
def test_every_mutant_of_a_loss_is_caught(name):
    entry = CATALOGUE[name]
    score = mutation_score(entry.target, entry.x, entry.y, seeds=1)
    assert score.ok, score
    assert score.made >= 8


@pytest.mark.parametrize("name", PENALTIES)
def test_every_mutant_of_a_penalty_is_caught(name):
    entry = PENALTIES[name]
    drawn = jax.tree.map(lambda leaf: shape(*leaf.shape), entry.x)
    score = mutation_score(entry.target, drawn, seeds=2)
    assert score.ok, score
    assert score.made >= 10


@pytest.mark.parametrize("mutant", mutants(layers.dense(3), shape(3, 3))[::4], ids=lambda mutant: mutant.mistake)
def test_the_check_itself_catches_what_the_score_says(mutant):
    report = check_gradients(mutant.target, shape(3, 3), modes=("training",))
    wrong = {row.engines for row in report.rows if row.verdict == "wrong"}
    if mutant.mistake == "gradient shared by ties":  # seen only at inputs with ties, where autodiff is the reference
        assert wrong == {("backprop", "autodiff")}
    else:
        assert wrong == {("backprop", "autodiff"), ("backprop", "numeric")}


def test_the_mistakes_of_a_dense_layer():
    mistakes = [mutant.mistake for mutant in mutants(layers.dense(4), shape(4, 4))]
    arrays = {"params/bias", "params/kernel", "x"}
    for word in ("zeroed", "one element zeroed", "scaled by 1.001", "sign flipped", "batch mean for the sum",
                 "reversed", "averaged over the last axis", "noise of 1e-3"):  # fmt: skip
        assert {mistake.split(": ")[0] for mistake in mistakes if mistake.endswith(f": {word}")} == arrays, word
    assert {"params/kernel: transposed", "x: transposed"} <= set(mistakes)
    assert {"residuals shuffled", "residuals stale", "residual 0 zeroed"} <= set(mistakes)
    assert "gradient shared by ties" in mistakes
    assert {"dy ignored", "dy shuffled", "dy of the first example left out"} <= set(mistakes)
    assert "sum 0 over axis 1 for 0" in mistakes  # of the bias, where batch and features are both 4
    assert len(mistakes) == len(set(mistakes))


def test_mistakes_that_do_not_fit_are_not_made():
    mistakes = [mutant.mistake for mutant in mutants(layers.dense(2), shape(3, 4))]
    assert not [mistake for mistake in mistakes if "transposed" in mistake or "over axis" in mistake]
    assert "mask inverted" not in mistakes
    assert "mask inverted" in [mutant.mistake for mutant in mutants(layers.dropout(0.5), shape(3, 4))]
    in_evaluation = mutants(layers.dropout(0.5), shape(3, 4), mode="evaluation")
    assert not [mutant for mutant in in_evaluation if "residual" in mutant.mistake]


def test_equivalent_mutants_are_told_apart():
    """The gradient of a step is zero: only what ignores its factor 0 changes it. A mean over one row is the sum."""
    score = mutation_score(layers.binary_step(), shape(3, 4), modes=("training",), seeds=2)
    assert "training x: sign flipped" in score.equivalent
    assert (score.made, score.missed) == (0, ())
    one_row = mutation_score(layers.dense(2), shape(1, 4), modes=("training",), seeds=2)
    assert "training dy shuffled" not in one_row.equivalent  # not made of one row
    symmetric = mutation_score(losses.l2_penalty, np.eye(3), seeds=1)
    assert "prediction: transposed" in symmetric.equivalent
    assert "equivalent" in str(symmetric)


def test_a_pooling_that_hands_its_gradient_to_all_ties_is_caught_at_inputs_with_ties():
    """Normal numbers have no ties, so the mistake changes nothing there."""
    pooling, images = layers.max_pool(2), shape(2, 4, 4, 1)
    normal, tied = (mutation_score(pooling, images, modes=("training",), seeds=seeds) for seeds in (4, 5))
    assert "training gradient shared by ties" in normal.equivalent
    assert "training gradient shared by ties" not in tied.equivalent
    assert (normal.ok, tied.ok) == (True, True)
    assert tied.caught == normal.caught + 1


def test_a_mistake_below_rounding_is_equivalent():
    """The gradient of a bias before a batch norm is 0 but for rounding, and so are its multiples."""
    score = mutation_score(layers.serial(layers.dense(3), layers.batch_norm()), shape(6, 4), modes=("training",))
    assert score.ok, score
    assert "training params/0/bias: zeroed" in score.equivalent
    assert "training params/0/bias: scaled by 1.001" in score.equivalent


def test_a_blind_judge_misses_and_says_what():
    score = mutation_score(layers.dense(2), shape(3, 4), modes=("training",), seeds=1, tolerance=0.1)
    assert not score.ok
    assert "training params/kernel: scaled by 1.001" in score.missed
    assert "missed: training params/bias: scaled by 1.001" in str(score)
    assert score.made == score.caught + len(score.missed)


# Mistakes in the formula.


def formula(x, y):
    return 2 * x - jnp.sin(y), (x * y).sum(0)


def test_every_term_is_left_out_in_turn():
    x, y = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[0.5, 0.25], [2.0, 1.0]])
    found = {m.name: wrong_formula(formula, [m], [True])(x, y) for m in in_the_formula(formula, x, y)}
    assert set(found) == {
        "first term of sum 0 left out", "second term of sum 0 left out", "sum 1 over axis 1 for 0",
    }  # fmt: skip
    np.testing.assert_allclose(found["first term of sum 0 left out"][0], -np.sin(y), rtol=1e-6)
    np.testing.assert_allclose(found["second term of sum 0 left out"][0], 2 * x, rtol=1e-6)
    np.testing.assert_allclose(found["sum 1 over axis 1 for 0"][1], [1.0, 10.0], rtol=1e-6)
    for name, (first, second) in found.items():  # the rest of the formula is as it was
        right = formula(x, y)
        untouched = (second, right[1]) if "sum 0" in name else (first, right[0])
        np.testing.assert_allclose(*untouched, rtol=1e-6)


def test_formulas_are_read_within_compiled_functions_and_loops_stay():
    inner = jax.jit(lambda x: x + jnp.cos(x))

    def outer(x):
        return jax.lax.fori_loop(0, 3, lambda i, x: x + 1, inner(x))

    x = jnp.ones(2)
    names = [m.name for m in in_the_formula(outer, x)]
    assert names == ["first term of sum 0 left out", "second term of sum 0 left out"]
    np.testing.assert_allclose(wrong_formula(outer, in_the_formula(outer, x)[1:], [True])(x), 4.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: mutation_score(layers.relu(), shape(2, 2), seeds=0),
            "^mutation_score: expected seeds to be a positive",
        ),
        (
            lambda: mutants(layers.relu(), shape(2, 2), mode="test"),
            '^mutants: expected modes among "evaluation" and "training"',
        ),
        (
            lambda: mutants(jnp.sin, shape(2, 2)),
            "^mutants: .*a loss with a hand-derived gradient, or a function and gradient=",
        ),
    ],
)
def test_misuse_is_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
