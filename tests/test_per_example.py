"""Per-example gradients and their norms, against a loop over the examples by autodiff."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import CASES as LAYER_CASES
from numerics import norm_relative, quick_jit, worst_leaf

from funcnet import gradients, layers, losses
from funcnet.catalogue import scale
from funcnet.errors import ConfigError, DtypeError, LabelError, ShapeError, StructureError
from funcnet.made import constructor
from funcnet.types import Layer, Rules

BLOCK = layers.serial(layers.dense(3), layers.prelu())
MODEL = layers.serial(
    layers.dense(3),
    layers.dropout(0.4),
    layers.parallel(layers.dense(2), BLOCK, combine="concatenate"),
    layers.dense(3),
)
LABELS = np.array([0, 2, 1, 1])
NUMBERS = np.linspace(-1, 1, 12).reshape(4, 3)


class Case(NamedTuple):
    model: Layer
    loss: Any = losses.mean_squared_error
    target: Any = NUMBERS
    axes: tuple[int, ...] = ()  #: of x, between batch and features
    where: Any = None


CASES = {
    "dense": Case(layers.dense(3)),
    "dense_no_bias": Case(layers.dense(3, use_bias=False)),
    "dense_few_rows": Case(layers.dense(3), target=np.ones((4, 2, 3)) / 2, axes=(2,)),
    "dense_many_rows": Case(layers.dense(3), target=np.ones((4, 3, 2, 3)) / 2, axes=(3, 2)),
    "prelu": Case(layers.prelu(), target=NUMBERS[:, :2]),
    "prelu_time_axis": Case(layers.prelu(), target=np.ones((4, 3, 2)), axes=(3,)),
    "layer_norm_time_axis": Case(layers.layer_norm(), target=np.ones((4, 3, 2)), axes=(3,)),
    "rms_norm": Case(layers.rms_norm(), target=NUMBERS[:, :2]),
    "group_norm": Case(layers.group_norm(1), target=np.ones((4, 3, 2)), axes=(3,)),
    "instance_norm": Case(layers.instance_norm(use_bias=False), target=np.ones((4, 3, 2)), axes=(3,)),
    "attention": Case(layers.attention(1, rotary=10.0), target=np.ones((4, 3, 2)), axes=(3,)),
    "unembedding": Case(layers.unembedding(3), target=np.ones((4, 2, 3)) / 2, axes=(2,)),
    "position_embedding": Case(layers.position_embedding(4), target=np.ones((4, 3, 2)), axes=(3,)),
    "serial": Case(BLOCK, losses.softmax_cross_entropy, LABELS),
    "residual": Case(layers.residual(BLOCK, layers.dense(3)), losses.half_squared_error),
    "parallel": Case(layers.parallel(BLOCK, layers.dense(3)), losses.log_cosh),
    "recompute": Case(layers.recompute(BLOCK), losses.root_mean_squared_error),
    "repeat": Case(layers.repeat(layers.serial(layers.dense(2), layers.tanh()), 4), target=NUMBERS[:, :2]),
    "repeat_twice": Case(layers.repeat(layers.repeat(layers.serial(layers.dense(2)), 2), 3), target=NUMBERS[:, :2]),
    "repeat_recompute": Case(layers.repeat(layers.recompute(layers.dense(2)), 2), target=NUMBERS[:, :2]),
    "rnn": Case(layers.rnn(3), target=np.ones((4, 2, 3)) / 2, axes=(2,)),
    "lstm": Case(layers.lstm(3, reverse=True), target=np.ones((4, 2, 3)) / 2, axes=(2,)),
    "gru": Case(layers.gru(3), target=np.ones((4, 2, 3)) / 2, axes=(2,)),
    "scan": Case(layers.scan(layers.gru_cell(3)), target=np.ones((4, 2, 3)) / 2, axes=(2,)),
    "bidirectional": Case(
        layers.serial(layers.bidirectional(layers.lstm(2)), layers.last(), layers.dense(3)), axes=(2,)
    ),
    "dropout": Case(MODEL, losses.softmax_cross_entropy, LABELS),
    "masked": Case(BLOCK, losses.multiclass_hinge, LABELS, where=LABELS != 2),
    "masked_values": Case(layers.dense(3), where=NUMBERS > -0.5),
    "as_custom_vjp": Case(gradients.as_custom_vjp(BLOCK), losses.huber),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
N = 4


def prepared(case):
    """`(params, state, batch, key)`, the parameters without zeros."""
    x = jax.random.normal(jax.random.key(0), (N, *case.axes, 2), jnp.float64)
    params, state = quick_jit(case.model.init)(jax.random.key(1), x)
    params = jax.tree.map(lambda p: p + jnp.linspace(0.1, 0.2, p.size).reshape(p.shape), params)
    batch = (x, case.target) if case.where is None else (x, case.target, case.where)
    return params, state, batch, jax.random.key(2)


def looped(case, params, state, batch, key):
    """The loss of each example and its gradient, one after the other, by autodiff; the model runs on all of them."""
    x, *rest = batch

    @quick_jit
    def one(i):
        def objective(params):
            y, _ = case.model.apply(params, state, x, key=key, train=True)
            y, target, *where = (jax.lax.dynamic_slice_in_dim(a, i, 1) for a in (y, *map(jnp.asarray, rest)))
            return case.loss(y, target, **({"where": where[0]} if where else {}))

        return jax.value_and_grad(objective)(params)

    return jax.tree.map(lambda *rows: np.stack(rows), *[one(i) for i in range(N)])


@every_case
def test_rows_and_norms_equal_a_loop_over_the_examples(x64, case):
    args = prepared(case)
    values, grads = looped(case, *args)
    engines = [engine(case.model, case.loss) for engine in (gradients.per_example, gradients.per_example_norms)]
    result, norms = quick_jit(lambda *args: [engine(*args) for engine in engines])(*args)
    assert worst_leaf((result.loss, result.grads), (values, grads)) <= 1e-13
    squares = sum(np.sum(np.square(leaf), tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(grads))
    assert norm_relative(norms, np.sqrt(squares)) <= 1e-13


@pytest.mark.parametrize("name", ["dense_many_rows", "parallel", "repeat_twice", "dropout"])
def test_the_mean_of_the_gradients_is_the_gradient_of_the_mean(x64, name):
    case = CASES[name]
    args = prepared(case)
    each = quick_jit(gradients.per_example(case.model, case.loss))(*args)
    whole = quick_jit(gradients.backprop(case.model, case.loss))(*args)
    mean = jax.tree.map(lambda g: g.mean(0), each.grads)
    assert worst_leaf((each.loss.mean(), mean, *each[2:4]), (whole.loss, whole.grads, *whole[2:4])) <= 1e-13


@pytest.mark.parametrize("name", ["dense_few_rows", "repeat", "masked_values"])
def test_rows_equal_batches_of_one(x64, name):
    case = CASES[name]
    params, state, batch, key = prepared(case)
    each = quick_jit(gradients.per_example(case.model, case.loss))(params, state, batch, key)
    engine = quick_jit(gradients.autodiff(case.model, case.loss))
    for i in range(N):
        one = engine(params, state, tuple(part[i : i + 1] for part in batch), key)
        assert worst_leaf(jax.tree.map(lambda g, i=i: g[i], (each.loss, each.grads)), (one.loss, one.grads)) <= 1e-13


def test_an_unmarked_example_has_no_gradient(x64):
    case = CASES["serial"]._replace(where=LABELS != 2)
    each = quick_jit(gradients.per_example(case.model, case.loss))(*prepared(case))
    for leaf in [each.loss, *jax.tree.leaves(each.grads)]:
        assert np.all(np.asarray(leaf)[1] == 0)
        assert np.any(np.asarray(leaf)[0] != 0)
    assert quick_jit(gradients.per_example_norms(case.model, case.loss))(*prepared(case))[1] == 0


def test_every_layer_of_the_library_with_parameters_has_a_rule():
    """But for a `scan` of a cell that has none, as that of a container."""
    library = {getattr(layers, name) for name in layers.__all__}
    for name, case in LAYER_CASES.items():
        if case.layer.inside is None and case.layer.made.constructor in library:
            params, _ = jax.eval_shape(case.layer.init, jax.random.key(0), case.example(3, 2, jnp.float32))
            made = case.layer.made
            bare = made.constructor is layers.scan and made.arguments["cell"].rules.per_example is None
            has_rule = case.layer.rules.per_example is not None
            assert has_rule == (bool(jax.tree.leaves(params)) and not bare), name


def ones_for(model: Layer, width: int = 2) -> tuple[Any, Any, Any]:
    x = jnp.ones((3, width))
    params, state = model.init(jax.random.key(0), x)
    return params, state, (x, jnp.ones_like(model.apply(params, state, x)[0]))


@pytest.mark.parametrize("engine", [gradients.per_example, gradients.per_example_norms])
def test_a_layer_without_a_rule_is_named(engine: Callable[..., Any]):
    model = layers.serial(layers.tanh(), layers.repeat(layers.serial(layers.tanh(), scale()), 2))
    with pytest.raises(
        ConfigError,
        match=r"^serial\[1\] repeat serial\[1\] scale\(\): expected a layer with a rule for per-example gradients, got "
        r"none; write layer\(…, rules=Rules\(per_example=rule\)\) with rule\(params, residuals, dy\) -> dparams, rows",
    ):
        engine(model, losses.mean_squared_error)(*ones_for(model))


@pytest.mark.parametrize("options", [{}, {"use_scale": False, "use_bias": False}], ids=["scaled", "bare"])
@pytest.mark.parametrize("engine", [gradients.per_example, gradients.per_example_norms])
def test_a_layer_that_mixes_the_examples_is_named(engine: Callable[..., Any], options: dict[str, bool]):
    """With or without parameters of its own: below it no gradient is that of one example."""
    model = layers.serial(layers.dense(2), layers.repeat(layers.batch_norm(**options), 2))
    with pytest.raises(
        ConfigError,
        match=r"^serial\[1\] repeat batch_norm\(.*\): expected a layer that gives each example a gradient "
        r"of its own, got one whose examples share their statistics .*; use group_norm or layer_norm\.",
    ):
        engine(model, losses.mean_squared_error)(*ones_for(model))


def test_a_rule_without_parameters_may_have_nothing_to_say():
    plain = layers.tanh()
    made = plain._replace(rules=Rules(per_example=lambda params, residuals, dy: ()))
    model, same = (layers.serial(layers.dense(2), last) for last in (made, plain))
    args = ones_for(model)
    for engine in (gradients.per_example, gradients.per_example_norms):
        results = [jax.tree.leaves(engine(one, losses.mean_squared_error)(*args)) for one in (model, same)]
        assert worst_leaf(*results) == 0


def ruled(rule):
    """`scale()` with a rule of its own."""
    plain = scale()

    def forward(params, state, x, *, key=None, train=False):
        return params["scale"] * x, state, x

    def backward(params, x, dy):
        return {"scale": (dy * x).sum(0)}, params["scale"] * dy

    return layers.layer(forward, backward, init=plain.init, rules=Rules(per_example=rule))


def test_own_layers_take_a_rule():
    model = layers.serial(layers.dense(2), ruled(lambda params, x, dy: {"scale": x * dy}))
    params, state, batch = ones_for(model)
    each = gradients.per_example(model, losses.half_squared_error)(params, state, batch)
    whole = gradients.backprop(model, losses.half_squared_error)(params, state, batch)
    assert worst_leaf(jax.tree.map(lambda g: g.mean(0), each.grads), whole.grads) <= 1e-6


@pytest.mark.parametrize(
    "rule, message",
    [
        (lambda params, x, dy: {"scale": (x * dy).sum(0)}, r"scale has shape \(2,\), expected \(3, 2\)"),
        (lambda params, x, dy: {"other": x * dy}, "scale is missing; other is unexpected"),
    ],
    ids=["summed", "leaf"],
)
@pytest.mark.parametrize("engine", [gradients.per_example, gradients.per_example_norms])
def test_a_wrong_rule_is_named(engine, rule, message):
    model = ruled(rule)
    with pytest.raises(
        StructureError,
        match=rf"^ruled: the per-example gradients do not fit params with a leading batch axis: {message}",
    ):
        engine(model, losses.mean_squared_error)(*ones_for(model))


def test_layers_below_integers_have_zeros():
    cut = layers.layer(
        lambda params, state, x, *, key=None, train=False: ((x > 0).astype(x.dtype), (), None),
        lambda params, residuals, dy: ((), None),
    )
    model = layers.serial(layers.dense(2), cut, layers.dense(1))
    args = ones_for(model)
    below, _, above = quick_jit(gradients.per_example(model, losses.half_squared_error))(*args).grads
    assert jax.tree.map(jnp.shape, below) == {"kernel": (3, 2, 2), "bias": (3, 2)}
    assert not jnp.any(below["kernel"])
    norms = quick_jit(gradients.per_example_norms(model, losses.half_squared_error))(*args)
    np.testing.assert_allclose(norms**2, (above["kernel"] ** 2).sum((1, 2)) + above["bias"][:, 0] ** 2, rtol=1e-6)


@pytest.mark.parametrize("engine", [gradients.per_example, gradients.per_example_norms])
def test_bad_arguments_are_named(engine):
    with pytest.raises(
        ConfigError,
        match=rf"^{engine.__name__}\(dense\(2\), <lambda>\): expected the loss <lambda> to have a hand-derived "
        r"gradient, got none; make it with losses.loss and its hand_gradient, or use gradients.autodiff\.$",
    ):
        engine(layers.dense(2), lambda prediction, target: 0.0)
    params, state, (x, _) = ones_for(layers.dense(2))
    run = engine(layers.dense(2), losses.softmax_cross_entropy)
    with pytest.raises(LabelError, match=r"^softmax_cross_entropy: expected label in 0..1, got 2 at row 1"):
        run(params, state, (x, np.array([0, 2, 1])))
    with pytest.raises(DtypeError, match=r"expected batch to be \(x, target\), .* weights\), got an array"):
        run(params, state, x)


def test_own_losses_need_no_check(x64):
    def cubic(prediction, target):
        return jnp.mean(jnp.abs(prediction - target) ** 3)

    def slope(prediction, target):
        return 3 * jnp.abs(prediction - target) * (prediction - target) / prediction.size

    cubic.gradient = slope  # pyright: ignore[reportFunctionMemberAccess]
    case = CASES["dense"]._replace(loss=cubic)
    args = prepared(case)
    each = gradients.per_example(case.model, cubic)(*args)
    assert worst_leaf((each.loss, each.grads), looped(case, *args)) <= 1e-13


def test_half_precision_norms_do_not_overflow():
    model = layers.dense(1, use_bias=False)
    params, state = model.init(jax.random.key(0), jnp.ones((1, 1), jnp.float16))
    batch = (jnp.full((1, 1), 200, jnp.float16), jnp.full((1, 1), -200, jnp.float16))
    params = jax.tree.map(jnp.zeros_like, params)
    norms = gradients.per_example_norms(model, losses.half_squared_error)(params, state, batch)
    np.testing.assert_array_equal(norms, [40000.0])
    assert norms.dtype == jnp.float32


@pytest.mark.parametrize("features", [3, 2], ids=["gram", "kernel"])
def test_a_norm_of_zero_is_no_nan(features):
    """The rows of an example may cancel: then rounding must not leave a negative square."""
    a, b = jax.random.normal(jax.random.key(0), (2, 50, 3))
    x = a[..., None] * jnp.linspace(0.1, 1, 3)
    dy = jnp.cross(a, b)[..., None] * jnp.linspace(0.3, 1, features)  # Σ_n x_n ⊗ dy_n = 0, as a · (a × b) = 0
    layer, params = layers.dense(features, use_bias=False), {"kernel": jnp.ones((3, features))}
    _, _, residuals = layer.forward(params, (), x)
    assert layer.rules.per_example_square is not None
    norms = jnp.sqrt(layer.rules.per_example_square(params, residuals, dy))
    np.testing.assert_allclose(norms, 0, atol=5e-3)


@constructor
def over_time(inner: Layer) -> Layer:
    """A user's own container, which folds the second axis into the batch."""

    def fold(x):
        return x.reshape(-1, *x.shape[2:])

    def walk(run, x):
        y = run(0, layers.merged(fold, x))
        return layers.merged(lambda y: y.reshape(-1, 2, *y.shape[1:]), y), None

    return layers.container(inner, walk, lambda run, kept, dy: run(0, fold(dy)).reshape(*dy.shape[:2], -1))


@constructor
def time_first(inner: Layer) -> Layer:
    """A user's own container, whose layer gets the second axis first."""

    def swapped(x):
        return jnp.swapaxes(x, 0, 1)

    def walk(run, x):
        return layers.merged(swapped, run(0, layers.merged(swapped, x))), None

    return layers.container(inner, walk, lambda run, kept, dy: swapped(run(0, swapped(dy))))


def refused(engine, model, x, target, error, match):
    params, state = model.init(jax.random.key(0), x)
    with pytest.raises(error, match=match):
        engine(model, losses.mean_squared_error)(params, state, (x, target))


@pytest.mark.parametrize("engine", [gradients.per_example, gradients.per_example_norms])
@pytest.mark.parametrize(
    ("container", "batch", "rows"),
    [(over_time, 4, (4, 8)), (time_first, 4, (4, 2)), (time_first, 2, (4, 2))],
    ids=["folded", "swapped", "swapped_as_long"],
)
def test_rows_that_are_not_the_examples_are_refused(engine, container, batch, rows):
    """Where the axis in their place is as long as the batch, a trace of twice the batch tells them apart."""
    model = layers.serial(container(layers.dense(3)), layers.flatten(), layers.dense(1))
    match = "expected {0} rows for the gradients of 0.* in a batch of {0}, got {1}; a container".format(*rows)
    refused(engine, model, jnp.ones((batch, 2, 5)), jnp.ones((batch, 1)), ShapeError, match)


def test_rows_of_x_target_and_prediction_are_the_examples():
    """The nodes of a graph are no examples, and a prediction with other rows has other losses."""

    @constructor
    def folded():
        return layers.parameterless(
            lambda x, *, key, train: (x.reshape(-1, 2), None), lambda kept, dy: dy.reshape(-1, 6)
        )

    @constructor
    def nodes():
        return layers.parameterless(
            lambda x, *, key, train: (x["nodes"], None), lambda kept, dy: {"nodes": dy, "edges": None}, trees=True
        )

    graph = {"nodes": jnp.ones((4, 2)), "edges": jnp.zeros((6, 2), int)}
    match = "expected the same number of rows in every array of a batch, got {}; the rows of x, target and prediction"
    for model, x, target, got in (
        (layers.serial(folded(), layers.dense(1)), jnp.ones((4, 6)), jnp.ones((12, 1)), "4 at 0/0 and 12 at 0/1"),
        (layers.serial(nodes(), layers.dense(1)), graph, jnp.ones((4, 1)), "6 at 0/0/edges and 4 at 0/0/nodes"),
    ):
        refused(gradients.per_example, model, x, target, ShapeError, match.format(got))


def test_a_model_of_one_batch_size_is_refused():
    @constructor
    def weighed():
        weights = jnp.arange(4.0)[:, None]
        return layers.parameterless(lambda x, *, key, train: (x * weights, None), lambda kept, dy: dy * weights)

    model, x = layers.serial(layers.dense(1), weighed()), jnp.ones((4, 2))
    match = "expected a model for batches of any size, got an error for 8 rows: .*; use jax.vmap over the examples"
    refused(gradients.per_example, model, x, jnp.ones((4, 1)), ConfigError, match)
