"""The gradient checker: no false alarm on what is right, every planted mistake found and placed, errors named."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import CASES

from funcnet import gradients, layers, losses, models
from funcnet.catalogue import TREES, embedding, highway, scale
from funcnet.checking import check_gradients, gradient_test
from funcnet.checking.numeric import derivatives, sample, sampler
from funcnet.checking.subjects import Point, parted, subjects_of
from funcnet.errors import ConfigError, GradientError, StructureError
from funcnet.made import constructor
from funcnet.types import Padded

BOTH = ("backprop", "autodiff")
NUMERIC = ("backprop", "numeric")


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def mistaken(inner, change):
    """A layer whose backward goes through `change(dparams, dx)`."""

    def backward(params, residuals, dy):
        return change(*inner.backward(params, residuals, dy))

    return inner._replace(backward=backward)


def times(factor):
    return lambda tree: jax.tree.map(lambda leaf: factor * leaf, tree)


# Mistakes of the kinds that checkers in use are known to miss, and some that they find.
MISTAKES = {
    "bias gradient scaled by 1.01": lambda p, dx: (p | {"bias": 1.01 * p["bias"]}, dx),
    "kernel gradient scaled by 1.001": lambda p, dx: (p | {"kernel": 1.001 * p["kernel"]}, dx),
    "one element zeroed": lambda p, dx: (p | {"kernel": p["kernel"].at[0, 0].set(0)}, dx),
    "bias gradient zeroed": lambda p, dx: (p | {"bias": 0 * p["bias"]}, dx),
    "input gradient zeroed": lambda p, dx: (p, 0 * dx),
    "sign of the input gradient": lambda p, dx: (p, -dx),
    "mean for the sum": lambda p, dx: (times(1 / 3)(p), dx),
    "input gradient of another example": lambda p, dx: (p, jnp.roll(dx, 1, 0)),
}


@pytest.mark.parametrize("engines", [BOTH, ("backprop", "numeric")], ids=str)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_caught(mistake, engines):
    wrong = mistaken(layers.dense(3), MISTAKES[mistake])
    report = check_gradients(wrong, shape(3, 4), engines=engines, modes=("training",))
    assert not report.ok
    assert {row.engines[0] for row in report.rows if not row.ok} == {"backprop"}


@pytest.mark.parametrize(
    "loss, target",
    [
        (losses.mean_squared_error, np.ones((4, 3))),
        (losses.mean_absolute_error, np.zeros((4, 3))),
        (losses.softmax_cross_entropy, np.array([0, 2, 1, 1])),
        (losses.multiclass_hinge, np.array([0, 2, 1, 1])),
        (losses.partial(losses.huber, delta=0.3), np.zeros((4, 3))),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_losses(loss, target):
    report = check_gradients(loss, shape(4, 3), target, seeds=2)
    assert report.ok, report
    wrong = dataclasses.replace(loss, gradient=lambda *args: 1.001 * loss.gradient(*args))
    assert not check_gradients(wrong, shape(4, 3), target).ok


def test_functions():
    def energy(tree):
        return jnp.sum(jnp.sin(tree["a"]) * tree["b"])

    def gradient(tree):
        return {"a": jnp.cos(tree["a"]) * tree["b"], "b": jnp.sin(tree["a"])}

    point = {"a": shape(3), "b": np.ones(3)}
    assert check_gradients(energy, point, gradient=gradient).ok
    report = check_gradients(energy, point, gradient=lambda tree: gradient(tree) | {"b": jnp.cos(tree["a"])})
    assert {row.leaf for row in report.rows if not row.ok} == {"b"}


# Modes.


def by_mode(in_evaluation, in_training, backward=lambda slope, dy: dy * slope):
    """A layer y = f(x) with an f for each mode, which returns y and its slope."""

    @constructor
    def two():
        return layers.parameterless(lambda x, *, key, train: (in_training if train else in_evaluation)(x), backward)

    return two()


def scaled(factor):
    factor = np.asarray(factor)
    return lambda x: (factor * x, factor + 0 * x)


def within(function):
    return lambda x: jax.jit(lambda x: function(x))(x)


def straight_through(x):
    """Another value of the same derivative."""
    return x + jax.lax.stop_gradient(x), jnp.ones_like(x)


@pytest.mark.parametrize(
    "layer, modes",
    [
        (layers.dense(2), {"both"}),
        (CASES["repeat"].layer, {"both"}),
        (layers.dropout(0.4), {"evaluation", "training"}),
        (layers.residual(layers.dropout(0.4)), {"evaluation", "training"}),
        (CASES["serial_state"].layer, {"evaluation", "training"}),
        (by_mode(scaled([1.0, 2, 3]), scaled([1.0, 2, 3])), {"both"}),
        (by_mode(scaled([1.0, 2, 3]), scaled([1.0, 2, 4])), {"evaluation", "training"}),
        (by_mode(within(scaled([1.0, 2, 3])), within(scaled([1.0, 2, 3]))), {"both"}),
        (by_mode(within(scaled([1.0, 2, 3])), within(scaled([1.0, 2, 4]))), {"evaluation", "training"}),
        (by_mode(scaled(1.0), straight_through), {"evaluation", "training"}),
    ],
    ids=["dense", "repeat", "dropout", "inside", "state", "array", "other array", "jit", "other in jit", "values"],
)
def test_modes_are_checked_by_themselves_where_they_differ(layer, modes):
    report = check_gradients(layer, shape(2, 3), engines=BOTH)
    assert report.ok, report
    assert {row.mode for row in report.rows} == modes


def test_modes_that_are_asked_for_are_checked():
    report = check_gradients(layers.tanh(), shape(2, 3), engines=BOTH, modes=("training", "evaluation"))
    assert [row.mode for row in report.rows] == ["training", "evaluation"]
    assert {row.mode for row in check_gradients(losses.l2_penalty, shape(3)).rows} == {""}


@pytest.mark.parametrize("wrong", ["evaluation", "training"])
def test_a_mistake_in_one_mode_is_found(wrong):
    right, mistake = scaled(2.0), lambda x: (2.0 * x, 1.001 * scaled(2.0)(x)[1])
    functions = (mistake, right) if wrong == "evaluation" else (right, mistake)
    report = check_gradients(layers.serial(layers.tanh(), by_mode(*functions)), shape(2, 3), engines=BOTH)
    assert {row.mode for row in report.rows if not row.ok} == {wrong}
    assert report.located == ("serial[1] two()",)


# Where it is.


def breakable(inner):
    """`inner`, whose dx is wrong by 1.001 where its state, a number, is 1."""

    def init(key, x):
        return inner.init(key, x)[0], jnp.zeros(())

    def forward(params, state, x, *, key=None, train=False):
        y, _, residuals = inner.forward(params, (), x, key=key, train=train)
        return y, state, (residuals, state)

    def backward(params, kept, dy):
        dparams, dx = inner.backward(params, kept[0], dy)
        return dparams, dx * (1 + 1e-3 * kept[1])

    return inner._replace(init=init, apply=lambda *a, **k: forward(*a, **k)[:2], forward=forward, backward=backward)


plain = [layer for width in (6, 5, 7, 5, 6, 4) for layer in (layers.dense(width), layers.tanh())]
twelve = layers.serial(*map(breakable, plain))


@pytest.mark.parametrize("wrong_at", range(12))
def test_a_wrong_formula_is_placed(wrong_at):
    state = tuple(np.eye(12)[wrong_at])
    params, _ = twelve.init(jax.random.key(0), shape(3, 4))
    report = check_gradients(twelve, shape(3, 4), params=params, state=state, engines=BOTH, modes=("training",))
    assert report.located == (f"serial[{wrong_at}] {plain[wrong_at]}",)
    assert f"wrong formula: serial[{wrong_at}] {plain[wrong_at]}" in str(report)


def test_nothing_is_placed_where_all_is_right():
    report = check_gradients(twelve, shape(3, 4), engines=BOTH, modes=("training",))
    assert (report.ok, report.located) == (True, ())


def test_the_last_of_several_comes_first():
    model = layers.serial(mistaken(layers.dense(3), MISTAKES["sign of the input gradient"]), layers.tanh(),
                          mistaken(layers.tanh(), lambda p, dx: (p, 2 * dx)))  # fmt: skip
    report = check_gradients(model, shape(3, 4), engines=BOTH)
    assert report.located == ("serial[2] tanh()", "serial[0] dense(3)")


@pytest.mark.parametrize(
    "around, place",
    [
        (lambda inner: layers.serial(layers.dense(3), layers.residual(inner)), "serial[1] residual[0]"),
        (lambda inner: layers.parallel(layers.dense(3), inner), "parallel[1]"),
        (lambda inner: layers.parallel(layers.dense(3), inner, combine="concatenate"), "parallel[1]"),
        (lambda inner: layers.serial(layers.dense(3), layers.repeat(inner, 3)), "serial[1] repeat"),
        (layers.recompute, "recompute"),
        (layers.held, "held"),
        (lambda inner: layers.serial(trunk=layers.dense(3), head=inner), "serial[head]"),
        (lambda inner: layers.serial(layers.dense(3), highway(inner, layers.sigmoid())), "serial[1] highway[0]"),
        (lambda inner: gated_twice(inner), "gated_twice[0]"),
    ],
)
def test_a_wrong_formula_is_placed_within_containers(around, place):
    inner = mistaken(layers.dense(3), lambda p, dx: (p, 1.001 * dx))
    report = check_gradients(around(inner), shape(3, 4), engines=BOTH)
    assert report.located == (f"{place} dense(3)",)


@constructor
def gated_twice(inner):
    """A container of one's own that runs layers which are not arguments of its constructor."""

    def walk(run, x):
        return run(1, run(0, x)), None

    def back(run, kept, dy):
        return run(0, run(1, dy))

    return layers.container((inner, layers.gated(layers.sigmoid())), walk, back)


def test_the_order_is_that_of_the_call_and_not_that_of_the_names():
    wrong = mistaken(layers.tanh(), lambda p, dx: (p, 2 * dx))
    model = layers.serial(
        stem=wrong, block=layers.repeat(layers.parallel(z=wrong, a=wrong, combine="sum"), 2), end=wrong
    )
    report = check_gradients(model, shape(3, 4), engines=BOTH)
    assert report.located == (
        "serial[end] tanh()", "serial[block] repeat parallel[a] tanh()", "serial[block] repeat parallel[z] tanh()",
        "serial[stem] tanh()",
    )  # fmt: skip


def test_a_wrong_formula_is_placed_above_an_integer_input():
    wrong = mistaken(layers.tanh(), lambda p, dx: (p, jnp.nan * dx))
    model = layers.serial(layers.identity(), embedding(5, 3), wrong)
    report = check_gradients(model, np.array([0, 3, 3]), engines=BOTH, modes=("training",))
    assert report.located == ("serial[2] tanh()",)
    assert check_gradients(layers.serial(layers.identity(), embedding(5, 3)), np.array([0, 3, 3])).ok


# Trees.

TOKENS = shape(3, 2, dtype=jnp.int32)


def test_each_floating_leaf_of_inputs_and_outputs_has_a_row():
    """Two inputs, one of integers, and two outputs, one of integers."""

    @constructor
    def with_length():
        def forward(x, *, key, train):
            return {"length": jnp.full(x.shape[:1], x.shape[1], jnp.int32), "values": x * x}, x

        return layers.parameterless(forward, lambda x, dy: 2 * x * dy["values"])

    towers = layers.each(words=layers.serial(embedding(3, 2), layers.flatten()), image=layers.tanh())
    heads = layers.each(words=layers.dense(2), image=with_length())
    report = check_gradients(layers.serial(towers=towers, heads=heads), {"image": shape(3, 2), "words": TOKENS})
    assert report.ok, report
    assert [row.leaf for row in report.rows if row.engines == BOTH] == [
        "params/heads/words/bias", "params/heads/words/kernel", "params/towers/words/0/table", "x/image",
    ]  # fmt: skip
    assert {row.checked for row in report.rows if row.leaf == "x/image"} == {6}


FLOATING = [name for name, case in TREES.items() if jax.tree.leaves(parted(case.example())[0])]


@pytest.mark.parametrize("name", FLOATING)
def test_a_mistake_in_a_tree_is_caught_by_both(name):
    case = TREES[name]
    wrong = mistaken(case.layer, lambda p, dx: (p, jax.tree.map(lambda g: 1.001 * g, dx)))
    report = check_gradients(wrong, case.example(3, 2), modes=("training",))
    for engines in (BOTH, NUMERIC):
        rows = [row for row in report.rows if row.engines == engines]
        leaves = [row.leaf for row in rows if not row.ok]
        assert leaves == [row.leaf for row in rows if row.leaf.startswith("x")]
        assert leaves


def test_padded_sequences_are_drawn_with_several_lengths(x64):
    x = Padded(shape(20, 4, 3), shape(20, 4, dtype=bool))
    (subject,) = subjects_of(layers.dense(2), x, modes=["training"])
    point = subject.draw(0, x, None, None, None)
    where = np.asarray(point.constants["x"].where)
    assert set(where.sum(1)) == {1, 2, 3, 4}
    np.testing.assert_array_equal(where, np.arange(4) < where.sum(1)[:, None])
    report = check_gradients(layers.serial(layers.dense(2), layers.tanh()), x)
    assert report.ok, report
    assert [row.leaf for row in report.rows if row.engines == BOTH] == ["params/0/bias", "params/0/kernel", "x"]


def test_integers_are_drawn(x64):
    x = shape(40, dtype=jnp.int32)
    (subject,) = subjects_of(embedding(2, 3), x, modes=["training"])
    drawn = np.asarray(subject.draw(0, x, None, None, None).constants["x"])
    assert set(drawn) == {0, 1}
    assert check_gradients(embedding(2, 3), x).ok


BOTH_LOSSES = losses.weighted_sum(digit=(1.0, losses.softmax_cross_entropy), ink=(0.5, losses.mean_squared_error))
HEADS = {"digit": shape(4, 3), "ink": shape(4, 2), "code": shape(4, 1)}


def test_losses_of_trees():
    goals = {"digit": shape(4, dtype=jnp.int32), "ink": shape(4, 2)}
    report = check_gradients(BOTH_LOSSES, HEADS, goals)
    assert report.ok, report
    leaves = ["prediction/code", "prediction/digit", "prediction/ink"]
    assert [row.leaf for row in report.rows if row.engines == BOTH] == leaves
    wrong = dataclasses.replace(
        BOTH_LOSSES, gradient=lambda *args: BOTH_LOSSES.gradient(*args) | {"code": jnp.ones((4, 1))}
    )
    assert {row.leaf for row in check_gradients(wrong, HEADS, goals).rows if not row.ok} == {"prediction/code"}


def test_a_loss_without_a_target():
    @losses.loss(check=lambda prediction, target, where: None)
    def size(prediction, target, *, reduction="mean", where=None, weights=None):
        p, _, over = losses.prepare(
            size, prediction, target, reduction, where, weights, convert=lambda target, prediction: prediction
        )
        return over.reduce(p**2)

    @size.hand_gradient
    def _(prediction, target, *, reduction="mean", where=None, weights=None):
        p, _, over = losses.prepare(
            size, prediction, target, reduction, where, weights, convert=lambda target, prediction: prediction
        )
        return over.spread(2 * p)

    report = check_gradients(size, shape(4, 3))
    assert report.ok, report
    assert {row.leaf for row in report.rows} == {"prediction"}


def test_a_test_of_a_tree():
    case = TREES["each_named"]
    gradient_test(case.layer, case.example(3, 2))()
    wrong = mistaken(case.layer, lambda p, dx: (p, dx | {"image": 2 * dx["image"]}))
    with pytest.raises(GradientError, match="(?s)WRONG.*x/image"):
        gradient_test(wrong, case.example(3, 2))()


def test_autodiffs_backward_of_trees_is_right():
    both = gradients.automatic_function(lambda x: {"sum": x["a"] + x["b"].astype(x["a"].dtype), "same": x["b"]})
    assert check_gradients(both, {"a": shape(3, 2), "b": shape(3, 2, dtype=jnp.int32)}).ok


# The report.


def test_a_report_names_the_worst_element():
    wrong = mistaken(layers.dense(3), lambda p, dx: (p | {"kernel": p["kernel"].at[2, 1].add(0.5)}, dx))
    report = check_gradients(wrong, shape(3, 4), engines=BOTH, modes=("training",))
    row = report.worst
    assert (row.leaf, row.worst, row.size, row.checked) == ("params/kernel", (2, 1), 12, 12)
    assert row.values is not None
    np.testing.assert_allclose(row.values[0] - row.values[1], 0.5, rtol=1e-12)
    assert row.ulps > 1e10
    text = str(report)
    assert "WRONG" in text
    assert "params/kernel" in text
    assert "[2, 1]" in text
    with pytest.raises(GradientError, match="(?s)the hand-derived gradient is wrong.*WRONG.*params/kernel"):
        report.raise_if_failed()
    assert json.loads(json.dumps(report.to_dict()))["ok"] is False
    assert report._repr_html_().count("<tr") == 4


def test_a_good_report_is_quiet():
    report = check_gradients(scale(), shape(3, 4))
    report.raise_if_failed()
    assert report.ok
    assert report.located == ()
    assert "all agree" in str(report)
    assert report.worst.error < 1e-6


def test_kinks_are_reported_and_not_blamed():
    report = check_gradients(layers.relu(), np.array([[0.0, 1.0, -1.0, 0.0]]), engines=("backprop", "numeric"))
    assert report.ok
    assert [row.kinks for row in report.rows] == [2]


def test_the_configuration_of_the_caller_stays():
    check_gradients(layers.tanh(), shape(2, 2), engines=BOTH)
    assert jnp.ones(1).dtype == jnp.float32


def test_a_jump_of_the_second_derivative_nearby_is_no_mistake():
    elu = layers.elu()
    for distance in 1e-3 * np.arange(0.05, 1.2, 0.05):
        report = check_gradients(elu, np.array([[distance, -distance]]), engines=NUMERIC, modes=("training",))
        assert report.ok, report


# Sampling.


def test_large_models_are_sampled_and_the_sample_is_named():
    model = models.mlp((60, 50, 3), activation=layers.tanh)
    report = check_gradients(model, shape(4, 30), most=200, modes=("training",))
    assert report.ok, report
    assert "of 5183 elements, sampled from each leaf, and along 8 random directions" in report.sampling
    assert any(row.leaf == "random directions" for row in report.rows)
    wrong = layers.serial(mistaken(layers.dense(60), MISTAKES["bias gradient scaled by 1.01"]), layers.tanh())
    assert not check_gradients(wrong, shape(4, 30), most=200, engines=("backprop", "numeric")).ok


def test_a_sample_has_a_share_of_each_leaf():
    chosen = sample([1000, 10, 3], 100, seed=1)
    counts = np.histogram(chosen, [0, 1000, 1010, 1013])[0]
    assert counts[1:].tolist() == [8, 3]
    assert counts[0] == 98
    assert len(set(chosen.tolist())) == len(chosen)
    np.testing.assert_array_equal(sample([3, 2], 5, seed=0), np.arange(5))


def sampled(function, x):
    """Numeric derivatives of the sum of `function(x)` along each element of x."""

    def scalar(point, variables):
        terms = function(variables)
        return terms.sum(), jnp.abs(terms).sum()

    return derivatives(sampler(scalar), Point(x, (), None), np.arange(x.size))


def test_differences_are_accurate_and_know_their_error(x64):
    x = jnp.array([0.3, -1.0, 2.0])
    found = sampled(lambda x: jnp.exp(x) * jnp.sin(3 * x) + jnp.abs(x), x)  # |x| hides from complex steps
    want = np.exp(x) * (np.sin(3 * x) + 3 * np.cos(3 * x)) + np.sign(x)
    np.testing.assert_allclose(found.value, want, rtol=1e-10)
    assert (np.abs(found.value - want) <= found.error).all()
    assert not found.kink.any()
    assert not found.exact.any()


def test_a_kink_that_rounding_hides_from_the_small_steps_is_still_one(x64):
    # Terms of 1e6 beside a kink of height 0.006: its two sides are apart by less than small steps resolve.
    near = sampled(
        lambda x: jnp.stack([0.003 * jnp.abs(x).sum(), 1e6 * jnp.ones(()), -1e6 * jnp.ones(())]), jnp.zeros(1)
    )
    assert near.kink.all()
    # Where nothing hides it, a kink further off than the small steps reach leaves them their word.
    beside = sampled(lambda x: 3 * jnp.abs(x - 1e-4), jnp.zeros(1))
    assert not beside.kink.any()
    np.testing.assert_allclose(beside.value, -3, rtol=1e-8)


def test_complex_steps_are_exact_where_they_apply(x64):
    x = jnp.array([0.3, -1.0, 2.0])
    found = sampled(lambda x: jnp.exp(x) * jnp.sin(3 * x) + jnp.where(x > 0, x, 0.1 * x), x)
    want = np.exp(x) * (np.sin(3 * x) + 3 * np.cos(3 * x)) + np.where(x > 0, 1, 0.1)
    np.testing.assert_allclose(found.value, want, rtol=1e-14)
    assert found.exact.all()
    # A function that drops the imaginary part, one that refuses complex numbers, and a kink.
    assert not sampled(lambda x: x.real * x, x).exact.any()
    assert not sampled(lambda x: jax.nn.relu(jax.lax.erf(x)), x).exact.any()
    kink = sampled(lambda x: jnp.where(x > 0, x, 0 * x), jnp.zeros(1))
    assert (kink.kink.all(), kink.exact.any()) == (True, False)


def test_complex_steps_sharpen_the_check():
    def energy(x):
        return jnp.sum(jnp.sin(x))

    report = check_gradients(energy, shape(5), gradient=lambda x: (1 + 1e-9) * jnp.cos(x), engines=NUMERIC)
    assert not report.ok
    assert "numeric derivatives at all 5 elements, 5 of them by complex step" in report.sampling
    assert check_gradients(energy, shape(5), gradient=jnp.cos, engines=NUMERIC).worst.error < 1e-14


# Short dtypes.


@pytest.mark.parametrize("name", ["dense", "dropout", "gelu", "softmax", "repeat_state", "mlp_dropout"])
def test_no_false_alarm_in_short_dtypes(name):
    dtypes = ("float64", "float32", "bfloat16")
    case = CASES[name]
    report = check_gradients(case.layer, shape(*case.shape(3, 2)), engines=BOTH, modes=("training",), dtypes=dtypes)
    assert report.ok, report
    assert {row.dtype for row in report.rows} == set(dtypes)


def test_a_backward_that_loses_digits_is_caught():
    def forward(x, *, key, train):
        return jnp.log1p(x), x

    right = layers.parameterless(forward, lambda x, dy: dy / (1 + x))
    wrong = layers.parameterless(
        forward, lambda x, dy: (dy.astype(jnp.bfloat16) / (1 + x).astype(jnp.bfloat16)).astype(x.dtype)
    )
    for inner, ok in ((right, True), (wrong, False)):
        report = check_gradients(inner, shape(40, 3), engines=BOTH, dtypes=("float64", "float32"), tolerance=1e-2)
        assert [row.ok for row in report.rows if row.dtype == "float32"] == [ok]


def test_a_gradient_of_another_structure_is_named():
    without_bias = mistaken(layers.dense(3), lambda p, dx: ({"kernel": p["kernel"]}, dx))
    with pytest.raises(StructureError, match=r"^dense\(3\).backward: gradients do not fit .*params/bias is missing"):
        check_gradients(without_bias, shape(2, 4))
    transposed = mistaken(layers.dense(3), lambda p, dx: (p | {"kernel": p["kernel"].T}, dx))
    with pytest.raises(StructureError, match=r"params/kernel has shape \(3, 4\), expected \(4, 3\)"):
        check_gradients(transposed, shape(2, 4))


# Misuse.


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((layers.relu(), shape(2, 2)), {"engines": ("backprop",)}, "expected engines to be at least two of"),
        ((layers.relu(), shape(2, 2)), {"engines": ("backprop", "manual")}, "expected engines to be at least two of"),
        ((layers.relu(), shape(2, 2)), {"dtypes": ("float32",)}, "expected dtypes among .*, including float64, got"),
        ((layers.relu(), shape(2, 2)), {"dtypes": ("float64", "int8")}, "expected dtypes among .*, got .*int8"),
        ((layers.relu(), shape(2, 2)), {"modes": ("test",)}, 'expected modes among "evaluation" and "training"'),
        ((layers.relu(), shape(2, 2)), {"modes": ()}, r'expected modes among "evaluation" and "training", got \(\)'),
        ((layers.relu(), shape(2, 2)), {"seeds": 0}, "expected seeds to be a positive integer, got 0"),
        ((layers.relu(), shape(2, 2)), {"tolerance": -1.0}, "expected tolerance to be"),
        (
            (layers.identity(), shape(2, 2, dtype=jnp.int32)),
            {},
            r"expected parameters or inputs of a floating dtype, got none in identity\(\)",
        ),
        ((jnp.sin, shape(2, 2)), {}, "a loss with a hand-derived gradient, or a function and gradient="),
    ],
)
def test_misuse_is_named(arguments, options, message):
    with pytest.raises(ConfigError, match=f"^check_gradients: .*{message}"):
        check_gradients(*arguments, **options)
