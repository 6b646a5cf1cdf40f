"""The gradient checker: no false alarm on what is right, every planted mistake found and placed, errors named."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import ALL_CASES, scale

from funcnet import layers, losses, models
from funcnet.checking import check_gradients
from funcnet.checking.numeric import differences, sample, sampler
from funcnet.checking.subjects import Point
from funcnet.errors import ConfigError, GradientError, StructureError

BOTH = ("backprop", "autodiff")
NUMERIC = ("backprop", "numeric")


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def mistaken(inner, change):
    """A layer whose backward goes through `change(dparams, dx)`."""

    def backward(params, residuals, dy):
        return change(*inner.backward(params, residuals, dy))

    return layers.layer(inner.init, inner.forward, backward, name=f"wrong {inner}")


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
    wrong = losses.loss()(lambda prediction, target, *, reduction="mean", where=None: loss(prediction, target))
    vars(wrong)["gradient"] = lambda prediction, target: 1.001 * loss.gradient(prediction, target)
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
    return layers.parameterless(
        lambda x, *, key, train: (in_training if train else in_evaluation)(x), backward, name="two()"
    )


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
        (ALL_CASES["repeat"].layer, {"both"}),
        (layers.dropout(0.4), {"evaluation", "training"}),
        (layers.residual(layers.dropout(0.4)), {"evaluation", "training"}),
        (ALL_CASES["serial_state"].layer, {"evaluation", "training"}),
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

    return layers.layer(init, forward, backward, name=inner.name)


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
    assert report.located == ("serial[2] wrong tanh()", "serial[0] wrong dense(3)")


@pytest.mark.parametrize(
    "around, place",
    [
        (lambda inner: layers.serial(layers.dense(3), layers.residual(inner)), "serial[1] residual[0]"),
        (lambda inner: layers.parallel(layers.dense(3), inner), "parallel[1]"),
        (lambda inner: layers.parallel(layers.dense(3), inner, combine="concatenate"), "parallel[1]"),
        (lambda inner: layers.serial(layers.dense(3), layers.repeat(inner, 3)), "serial[1] repeat"),
        (layers.recompute, "recompute"),
    ],
)
def test_a_wrong_formula_is_placed_within_containers(around, place):
    inner = mistaken(layers.dense(3), lambda p, dx: (p, 1.001 * dx))
    report = check_gradients(around(inner), shape(3, 4), engines=BOTH)
    assert report.located == (f"{place} wrong dense(3)",)


def embedding():
    """Rows of a table: its input has no gradient."""

    def forward(params, state, x, *, key=None, train=False):
        return params["table"][x], state, x

    def backward(params, x, dy):
        return {"table": jnp.zeros_like(params["table"]).at[x].add(dy)}, None

    return layers.layer(lambda key, x: ({"table": jax.random.normal(key, (5, 3))}, ()), forward, backward)


def test_a_wrong_formula_is_placed_above_an_integer_input():
    wrong = mistaken(layers.tanh(), lambda p, dx: (p, jnp.nan * dx))
    model = layers.serial(layers.identity(), embedding(), wrong)
    report = check_gradients(model, np.array([0, 3, 3]), engines=BOTH, modes=("training",))
    assert report.located == ("serial[2] wrong tanh()",)
    assert check_gradients(layers.serial(layers.identity(), embedding()), np.array([0, 3, 3])).ok


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

    return differences(*sampler(scalar)(Point(x, (), None), np.arange(x.size)))


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
    case = ALL_CASES[name]
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
    with pytest.raises(
        StructureError, match=r"wrong dense\(3\).backward: gradients do not fit .*params/bias is missing"
    ):
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
        ((layers.relu(), shape(2, 2)), {"dtypes": ("float32",)}, "expected dtypes among .*, float64 with them, got"),
        ((layers.relu(), shape(2, 2)), {"dtypes": ("float64", "int8")}, "expected dtypes among .*, got .*int8"),
        ((layers.relu(), shape(2, 2)), {"modes": ("test",)}, 'expected modes among "evaluation" and "training"'),
        ((layers.relu(), shape(2, 2)), {"modes": ()}, r'expected modes among "evaluation" and "training", got \(\)'),
        ((layers.relu(), shape(2, 2)), {"seeds": 0}, "expected seeds to be a positive integer, got 0"),
        ((layers.relu(), shape(2, 2)), {"tolerance": -1.0}, "expected tolerance to be"),
        ((jnp.sin, shape(2, 2)), {}, "a loss with a hand-derived gradient, or a function and gradient="),
        (
            (layers.identity(), jax.ShapeDtypeStruct((2, 2), jnp.int32)),
            {},
            "expected an array for an input of integers",
        ),
    ],
)
def test_misuse_is_named(arguments, options, message):
    with pytest.raises(ConfigError, match=message):
        check_gradients(*arguments, **options)
