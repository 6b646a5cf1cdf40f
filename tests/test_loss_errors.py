"""What losses refuse, how a loss is made, and the penalties on parameters."""

import copy
import dataclasses
import inspect
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import richardson, worst_leaf

from funcnet import Padded, losses
from funcnet.errors import ConfigError, DataError, DtypeError, LabelError, ShapeError, StructureError

column, flat, table = jnp.ones((4, 1)), jnp.ones(4), jnp.ones((4, 10))
labels = np.array([0, 9, 3, 1])

REFUSED = [
    # Shapes are never broadcast.
    (losses.mean_squared_error, (column, flat), {}, ShapeError,
     "mean_squared_error: expected target of the shape of prediction, (4, 1), got (4,); reshape one of them."),
    (losses.huber, (flat, 1.0), {}, ShapeError, "huber: expected target of the shape of prediction, (4,), got ()"),
    (losses.binary_cross_entropy, (column, flat), {}, ShapeError, "prediction, (4, 1), got (4,)"),
    (losses.softmax_cross_entropy, (table, labels[:3]), {}, ShapeError,
     "expected target of integer labels of shape (4,), got (3,); prediction has shape (4, 10); reshape the labels"),
    (losses.softmax_cross_entropy, (jnp.ones(()), 0), {}, ShapeError,
     "expected prediction of shape (…, classes), got ()"),
    (losses.multiclass_hinge, (table, table), {}, ShapeError, "labels of shape (4,), got (4, 10); prediction has"),
    # Trees.
    (losses.mean_squared_error, (flat, None), {}, StructureError,
     "mean_squared_error: expected target to be an array, got None; give one."),
    (losses.softmax_cross_entropy, (table, None), {}, StructureError, "expected target to be an array, got None"),
    (losses.multiclass_hinge, (table, {"digit": labels}), {}, StructureError,
     "expected target to be one array, got the tree PyTreeDef({'digit': *}); losses.weighted_sum has a loss for each"),
    (losses.huber, ({"digit": flat}, flat), {}, StructureError,
     "huber: expected prediction to be one array, got the tree PyTreeDef({'digit': *}); losses.weighted_sum has"),
    (losses.huber, ((flat, table), flat), {}, StructureError, "one array, got the tree PyTreeDef((*, *))"),
    # Dtypes.
    (losses.mean_squared_error, (labels, flat), {}, DtypeError,
     "mean_squared_error: expected prediction of a floating dtype, got an array of dtype int64 and shape (4,); the "
     "order is loss(prediction, target)."),
    (losses.softmax_cross_entropy, (labels, table), {}, DtypeError, "the order is loss(prediction, target)"),
    (losses.mean_squared_error, (flat, flat.astype(jnp.float16)), {}, DtypeError,
     "mean_squared_error: expected target of the dtype of prediction, float32, got float16; convert"),
    (losses.softmax_cross_entropy, (table, table.astype(jnp.bfloat16)), {}, DtypeError, "prediction, float32, got bf"),
    (losses.mean_squared_error, (flat, np.array(list("abcd"))), {}, DtypeError,
     "expected target of a floating dtype, got an array of dtype <U1"),
    (losses.mean_squared_error, (flat, flat.astype(complex)), {}, DtypeError,
     "expected target of a floating dtype, got an array of dtype complex64"),
    (losses.softmax_cross_entropy, (column, labels * 0), {}, ShapeError,
     "softmax_cross_entropy: expected prediction of two or more classes, got shape (4, 1); one output is for binary_"),
    (losses.multiclass_hinge, (column, labels * 0), {}, ShapeError, "two or more classes, got shape (4, 1)"),
    (losses.softmax_cross_entropy, (jnp.ones((2, 2)), np.array([[0.5, 0.5], [1.5, -0.5]], np.float32)), {}, LabelError,
     "softmax_cross_entropy: expected target >= 0 in every class, got -0.5 at [1, 1]; give each class its probab"),
    # Labels.
    (losses.softmax_cross_entropy, (table, np.array([0, 1, 2, 12])), {}, LabelError,
     "softmax_cross_entropy: expected label in 0..9, got 12 at row 3; number the classes from 0."),
    (losses.softmax_cross_entropy, (table, jnp.array([0, -1, 2, 12])), {}, LabelError, "in 0..9, got -1 at row 1"),
    (losses.negative_log_likelihood, (table, np.array([0, 2**40, 0, 0])), {}, LabelError, f"got {2**40} at row 1"),
    (losses.cross_entropy, (flat[:, None], np.zeros(4, int)), {}, ShapeError,
     "cross_entropy: expected prediction of two or more classes, got shape (4, 1)"),
    (losses.multiclass_hinge, (table, np.array([0, 1, 2, 10], np.uint8)), {}, LabelError, "0..9, got 10 at row 3"),
    (losses.softmax_cross_entropy, (jnp.ones((2, 3, 4)), np.array([[0, 0, 0], [0, 7, 0]])), {}, LabelError,
     "expected label in 0..3, got 7 at [1, 1]"),
    (losses.softmax_cross_entropy, (jnp.ones(3), 3), {}, LabelError, "expected label in 0..2, got 3;"),
    (losses.softmax_cross_entropy, (table, flat), {}, LabelError,
     "expected target to be integers, got dtype float32"),
    (losses.softmax_cross_entropy, (table, labels > 2), {}, LabelError,
     "expected target to be integers, got dtype bool"),
    (losses.softmax_cross_entropy, (table, np.eye(9)[[0, 1, 2, 3]]), {}, LabelError,
     "softmax_cross_entropy: expected a target of 10 classes, as prediction has, got 9"),
    (losses.softmax_cross_entropy, (table, np.array([[3], [1], [2], [0]])), {}, LabelError,
     "softmax_cross_entropy: expected labels of shape (4,), got (4, 1); take target[..., 0]."),
    (losses.binary_cross_entropy, (flat, np.array([0, 1, 2, 1])), {}, LabelError,
     "binary_cross_entropy: expected target in 0..1, got 2 at row 2; the classes are 0 and 1, not −1 and 1."),
    (losses.binary_cross_entropy_with_logits, (column, -column), {}, LabelError,
     "expected target in 0..1, got -1.0 at [0, 0]"),
    (losses.binary_cross_entropy, (flat, flat * np.nan), {}, LabelError, "in 0..1, got nan at row 0"),
    # Masks.
    (losses.mean_squared_error, (table, table), {"where": np.ones(3, bool)}, ShapeError,
     "mean_squared_error: expected where of shape (4,) or (4, 10), got (3,); mark examples, or single values."),
    (losses.softmax_cross_entropy, (table, labels), {"where": np.ones((4, 10), bool)}, ShapeError, "shape (4,)"),
    (losses.half_squared_error, (table, table), {"where": np.ones((4, 10), bool)}, ShapeError, "shape (4,)"),
    (losses.mean_squared_error, (flat, flat), {"where": labels}, DtypeError, "expected where of dtype bool, got int64"),
    (losses.softmax_cross_entropy, (Padded(table, np.ones((4, 3), bool)), labels), {}, ShapeError,
     "softmax_cross_entropy: expected prediction without padding for values of shape (4,), got a Padded of "
     "positions (4, 3); take a loss with a value per position, or reduce over time before it."),
    (losses.mean_squared_error, (Padded(table, np.ones((4, 3), bool)), table), {}, ShapeError,
     "mean_squared_error: expected where of shape (4,) or (4, 10), got (4, 3)"),
    # Weights.
    (losses.mean_squared_error, (table, table), {"weights": np.ones(3)}, ShapeError,
     "mean_squared_error: expected weights of shape (4,) or (4, 10), got (3,); weigh examples, or single values."),
    (losses.softmax_cross_entropy, (table, labels), {"weights": np.ones((4, 10))}, ShapeError, "weights of shape (4,)"),
    (losses.huber, (flat, flat), {"weights": labels > 2}, DtypeError,
     "huber: expected weights of numbers, got dtype bool; pass booleans as where=."),
    (losses.huber, (flat, flat), {"weights": flat.astype(complex)}, DtypeError, "numbers, got dtype complex64"),
    (losses.huber, (flat, flat), {"weights": np.array([1.0, 2.0, -0.5, 1.0])}, DataError,
     "huber: expected weights to be finite numbers >= 0, got -0.5 at row 2; use where to exclude values."),
    (losses.huber, (flat, flat), {"weights": np.array([1, np.inf, 1, 1])}, DataError, ">= 0, got inf at row 1"),
    (losses.huber, (flat, flat), {"weights": np.array([1, np.nan, 1, 1]), "where": np.ones(4, bool)}, DataError,
     "expected weights to be finite numbers >= 0, got nan at row 1"),
    # Class weights.
    (losses.softmax_cross_entropy, (table, labels), {"class_weights": np.ones(9)}, ShapeError,
     "softmax_cross_entropy: expected class_weights of shape (10,), got (9,); give one number for each class."),
    (losses.multiclass_hinge, (table, labels), {"class_weights": 2.0}, ShapeError, "of shape (10,), got ()"),
    (losses.binary_cross_entropy, (flat, flat), {"class_weights": (1.0, 2.0, 3.0)}, ShapeError, "shape (2,), got (3,)"),
    (losses.negative_log_likelihood, (table, labels), {"class_weights": [1.0] * 9 + [-1.0]}, DataError,
     "expected class_weights to be finite numbers >= 0, got -1.0 at row 9; use 0 to exclude values."),
    (losses.softmax_cross_entropy, (table, labels), {"class_weights": list("abcdefghij")}, DtypeError,
     "expected class_weights of numbers, got dtype <U1; convert it with .astype."),
    # Options.
    (losses.mean_squared_error, (flat, flat), {"reduction": "average"}, ConfigError,
     'mean_squared_error: expected reduction to be "mean", "sum" or "none", got \'average\'.'),
    (losses.root_mean_squared_error, (flat, flat), {"reduction": "sum"}, ConfigError,
     'root_mean_squared_error: expected reduction to be "mean", got \'sum\'; the mean is under the root'),
    (losses.dice, (flat[:, None], flat[:, None]), {"reduction": "none"}, ConfigError,
     'dice: expected reduction to be "mean", got \'none\'; the areas are those of the whole batch.'),
    (losses.dice, (flat[:, None], flat[:, None]), {"smoothing": 0}, ConfigError, "dice: expected smoothing "),
    (losses.dice, (flat[:, None], flat[:, None]), {"per_class": 1}, ConfigError, "expected per_class to be True or F"),
    (losses.dice, (table * 0, labels), {"class_weights": [1, 2]}, ShapeError,
     "dice: expected class_weights of shape (10,), got (2,); give one number for each class."),
    (losses.dice, (flat[:, None], flat), {}, ShapeError, "dice: expected target of the shape of prediction, (4, 1), "),
    (losses.dice, (flat[0], flat), {}, ShapeError, "dice: expected prediction of shape (…, classes), got ()"),
    (losses.dice, (flat[:, None], 2 * flat[:, None]), {}, LabelError, "dice: expected target in 0..1, got 2.0 at"),
    (losses.dice, (table * 0, np.array([0, 10, 0, 0])), {}, LabelError, "expected label in 0..9, got 10 at row 1"),
    (losses.huber, (flat, flat), {"delta": 0}, ConfigError, "huber: expected delta to be a finite number > 0, got 0."),
    (losses.huber, (flat, flat), {"delta": "1"}, ConfigError, "delta to be a finite number > 0, got '1'"),
    (losses.smooth_l1, (flat, flat), {"beta": -1.0}, ConfigError, "smooth_l1: expected beta to be a finite number > 0"),
    (losses.smooth_l1, (flat, flat), {"beta": float("nan")}, ConfigError, "beta to be a finite number > 0, got nan"),
    (losses.softmax_cross_entropy, (table, labels), {"label_smoothing": 1.5}, ConfigError,
     "softmax_cross_entropy: expected label_smoothing to be a finite number in [0, 1], got 1.5."),
    (losses.binary_cross_entropy_with_logits, (flat, flat), {"label_smoothing": True}, ConfigError, "[0, 1], got True"),
    (losses.binary_cross_entropy_with_logits, (flat, flat), {"pos_weight": 0.0}, ConfigError, "pos_weight to be"),
    (losses.multiclass_hinge, (table, labels), {"margin": -1.0}, ConfigError, "margin to be a finite number >= 0"),
    (losses.multiclass_hinge, (table, labels), {"variant": "hinge"}, ConfigError,
     'multiclass_hinge: expected variant to be "weston_watkins" or "crammer_singer", got \'hinge\'.'),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "arguments", "options", "error", "message"), REFUSED)
def test_refused(loss, arguments, options, error, message):
    for function in (loss, loss.gradient):
        with pytest.raises(error, match=re.escape(message)):
            function(*arguments, **options)


@pytest.mark.parametrize(("loss", "arguments", "error"), [(row[0], row[1], row[3]) for row in REFUSED if not row[2]])
def test_check_refuses_the_same_before_there_is_a_prediction(loss, arguments, error):
    prediction, target = arguments
    with pytest.raises(error, match=f"^{loss.__name__}: "):
        loss.check(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), prediction), target)


def test_a_mask_excuses_labels_in_check():
    losses.softmax_cross_entropy.check(table, np.array([0, 1, -100, 3]), where=np.array([True, True, False, True]))
    with pytest.raises(LabelError, match="expected label in 0..9, got -100 at row 2"):
        losses.softmax_cross_entropy.check(table, np.array([0, 1, -100, 3]), where=np.ones(4, bool))


def test_a_mask_excuses_weights():
    where, weights = np.array([True, False, True, True]), np.array([1.0, np.nan, 1.0, 2.0])
    assert losses.mean_squared_error(flat, 0 * flat, where=where, weights=weights) == 1
    assert losses.mean_squared_error.counted(flat, flat, where=where, weights=weights) == 4
    np.testing.assert_array_equal(
        losses.mean_squared_error.gradient(flat, 0 * flat, where=where, weights=weights), [0.5, 0, 0.5, 1]
    )
    # A mask over single values and weights over rows: a row is excused if none of its values count.
    weights = np.array([1.0, np.nan])
    values = np.array([[True, False], [False, False]])
    assert losses.mean_squared_error.counted(table[:2, :2], table[:2, :2], where=values, weights=weights) == 1


def test_lists_and_numbers_are_arrays():
    assert losses.mean_squared_error([1.0, 2.0], [0, 4], weights=[3, 1]) == 7 / 4
    assert losses.mean_squared_error([1.0, 2.0], [0, 4], where=[True, False]) == 1
    assert losses.huber(2.0, 0.0) == 1.5
    assert losses.softmax_cross_entropy([[0.0, 0.0]], [1]) == np.float32(np.log(2))


def test_numpy_float64_follows_the_prediction_without_x64():
    assert losses.mean_squared_error(flat, np.zeros(4)) == 1
    with jax.enable_x64(True), pytest.raises(DtypeError, match="the dtype of prediction, float32, got float64"):
        losses.mean_squared_error(flat, np.zeros(4))


def fourth_power():
    """A user's own loss, one value for each row."""

    @losses.loss(axes=-1)
    def fourth(prediction, target, *, scale=1.0, reduction="mean", where=None, weights=None):
        p, t, over = losses.prepare(fourth, prediction, target, reduction, where, weights)
        return over.reduce(scale * ((p - t) ** 4).sum(-1))

    return fourth


def test_an_own_loss():
    fourth = fourth_power()

    @fourth.hand_gradient
    def _(prediction, target, *, scale=1.0, reduction="mean", where=None, weights=None):
        p, t, over = losses.prepare(fourth, prediction, target, reduction, where, weights)
        return over.spread(4 * scale * (p - t) ** 3)

    p, t, where = jnp.array([[1.0, 2.0], [3.0, 0.0], [np.nan, 0.0]]), np.zeros((3, 2)), np.array([True, True, False])
    assert fourth(p, t, scale=0.5, where=where) == (17 + 81) / 4
    want = jax.grad(lambda p: fourth(p, t, scale=0.5, where=where))(p)
    np.testing.assert_allclose(fourth.gradient(p, t, scale=0.5, where=where), want, rtol=1e-6)
    with pytest.raises(ShapeError, match=r"fourth: expected target of the shape of prediction"):
        fourth.check(p, t[:2])


def test_an_own_check():
    def positive(prediction, target, where):
        losses.check_equal_shapes(prediction, target, where)
        raise LabelError("no")

    @losses.loss(check=positive)
    def poisson(prediction, target, *, reduction="mean", where=None, weights=None):
        return losses.prepare(poisson, prediction, target, reduction, where, weights)[0]

    with pytest.raises(LabelError, match="poisson: no"):
        poisson(flat, flat)
    assert losses.partial(poisson).gradient is None


@pytest.mark.parametrize("check", [None, lambda prediction, target, where: None], ids=["none", "own"])
@pytest.mark.parametrize("target", [None, {"a": flat, "b": table}], ids=["none", "tree"])
def test_a_loss_may_look_at_no_target(check, target):
    @losses.loss(check=check)
    def size(prediction, target, *, reduction="mean", where=None, weights=None):
        p, _, over = losses.prepare(size, prediction, None, reduction, where, weights)
        return over.reduce(p**2)

    size.check(flat, target)
    assert size(flat, target) == (flat**2).mean()
    with pytest.raises(DtypeError, match="^size: expected prediction of a floating dtype"):
        size.check(labels, target)


def test_a_gradient_of_other_arguments_is_refused():
    fourth = fourth_power()
    with pytest.raises(ConfigError, match=r"fourth.hand_gradient: expected a gradient with .*scale=1.0"):

        @fourth.hand_gradient
        def _(prediction, target, *, scale=2.0, reduction="mean", where=None, weights=None):
            return prediction


def test_a_second_gradient_is_refused():
    fourth = fourth_power()

    def gradient(prediction, target, *, scale=1.0, reduction="mean", where=None, weights=None):
        return prediction

    assert fourth.hand_gradient(gradient) is gradient
    with pytest.raises(ConfigError, match=r"fourth.hand_gradient: expected one gradient, got a second"):
        fourth.hand_gradient(gradient)


def test_a_loss_that_is_not_a_mean_has_no_count():
    def own(prediction, target, *, reduction="mean", where=None, weights=None):
        return jnp.sum(prediction)

    def without_weights(prediction, target, *, reduction="mean", where=None):
        return jnp.sum(prediction)

    assert losses.loss()(own).counted(flat, flat) == 4
    assert losses.loss(mean=False)(own).counted is None
    assert losses.loss()(without_weights).counted is None
    assert losses.partial(losses.root_mean_squared_error).counted is None


def test_losses_are_equal_if_their_functions_are():
    fourth = fourth_power()
    assert fourth == fourth != fourth_power()  # each has a call of its own
    assert losses.partial(losses.huber, delta=2.0) == losses.partial(losses.huber, delta=2.0)
    assert losses.partial(losses.huber, delta=2.0) != losses.partial(losses.huber, delta=2)  # they make other programs
    wrong = dataclasses.replace(losses.huber, gradient=lambda prediction, target: prediction)
    assert wrong != losses.huber
    assert str(wrong) == "huber"


def test_values_of_another_shape_than_declared_are_refused():
    @losses.loss()
    def row_sums(prediction, target, *, reduction="mean", where=None, weights=None):
        p, _, over = losses.prepare(row_sums, prediction, target, reduction, where, weights)
        return over.reduce(p.sum(-1))

    with pytest.raises(ShapeError, match=r"row_sums: expected values of shape \(4, 10\), got \(4,\); say which axes"):
        row_sums(table, table)


def test_partial():
    soft = losses.partial(losses.huber, delta=0.5)
    assert soft(jnp.array([2.0]), jnp.array([0.0])) == 0.875
    assert losses.partial(soft, reduction="none")(jnp.array([2.0]), jnp.array([0.0])).shape == (1,)
    assert losses.partial(soft, reduction="none").gradient(jnp.array([2.0]), jnp.array([0.0])) == 0.5
    assert str(soft) == "partial(huber, delta=0.5)"
    assert str(losses.partial(soft, reduction="sum")) == "partial(partial(huber, delta=0.5), reduction='sum')"
    assert list(inspect.signature(soft).parameters)[2] == "delta"
    with pytest.raises(ConfigError, match=r"partial\(huber, dleta=0.5\): expected options .*'delta'.*got \['dleta'\]"):
        losses.partial(losses.huber, dleta=0.5)
    with pytest.raises(ConfigError, match=r"got \['target'\]"):
        losses.partial(losses.huber, target=flat)


def test_errors_of_partial_begin_with_the_loss():
    soft = losses.partial(losses.huber, delta=-1.0)
    for function in (soft, soft.gradient):
        with pytest.raises(ConfigError, match=r"^huber: expected delta to be a finite number > 0, got -1.0"):
            function(flat, flat)
    for function in (soft.check, soft.counted):
        with pytest.raises(ShapeError, match=r"^huber: expected target of the shape"):
            function(flat, column)


def test_partial_of_a_plain_function():
    def scaled(prediction, target, scale=1.0):
        return scale * jnp.sum(prediction - target)

    twice = losses.partial(scaled, scale=2.0)
    assert twice(flat, 0 * flat) == 8
    assert twice == losses.partial(scaled, scale=2.0)
    assert str(twice) == "partial(scaled, scale=2.0)"


def test_losses_pickle_by_name():
    for value in (losses.huber, losses.l2_penalty):
        assert pickle.loads(pickle.dumps(value)) is value
        assert copy.deepcopy(value) is value


# Penalties.

PARAMS = ({"kernel": np.array([[1.0, -2.0], [0.5, -0.25]]), "bias": np.array([3.0])}, (), {"scale": np.array(-4.0)})


def kernels(path):
    return path.endswith("kernel")


@pytest.mark.parametrize(
    ("penalty", "options", "want"),
    [
        (losses.l1_penalty, {}, 3.75 + 3 + 4),
        (losses.l1_penalty, {"strength": 0.1}, 1.075),
        (losses.l1_penalty, {"select": kernels}, 3.75),
        (losses.l2_penalty, {}, 5.3125 + 9 + 16),
        (losses.l2_penalty, {"strength": 2}, 60.625),
        (losses.l2_penalty, {"strength": 0.5, "select": lambda path: path in ("0/bias", "2/scale")}, 12.5),
        (losses.l2_penalty, {"strength": 0.0}, 0.0),
    ],
)
def test_penalties_by_hand(penalty, options, want, x64):
    params = jax.tree.map(jnp.asarray, PARAMS)
    np.testing.assert_allclose(penalty(params, **options), want, rtol=1e-15)
    hand, auto = penalty.gradient(params, **options), jax.grad(lambda p: penalty(p, **options))(params)
    assert worst_leaf(hand, auto) <= 1e-15
    bound = losses.partial(penalty, **options)
    assert bound(params) == penalty(params, **options)
    jax.tree.map(np.testing.assert_array_equal, bound.gradient(params), hand)


@pytest.mark.parametrize("penalty", [losses.l1_penalty, losses.l2_penalty])
def test_penalty_gradients_are_those_of_finite_differences(penalty, x64):
    params = jax.tree.map(jnp.asarray, PARAMS)
    numeric = richardson(lambda p: penalty(p, 0.5, select=kernels), params)
    assert worst_leaf(penalty.gradient(params, 0.5, select=kernels), numeric) <= 1e-9


@pytest.mark.parametrize("penalty", [losses.l1_penalty, losses.l2_penalty])
def test_penalties_at_zero(penalty):
    params = {"kernel": jnp.array([0.0, -0.0])}
    for gradient in (penalty.gradient(params), jax.grad(penalty)(params)):
        np.testing.assert_array_equal(gradient["kernel"], [0, 0])


@pytest.mark.parametrize("penalty", [losses.l1_penalty, losses.l2_penalty])
def test_penalties_keep_dtypes_and_pass_integers_by(penalty):
    params = {"kernel": jnp.full(70_000, 0.5, jnp.float16), "steps": jnp.array(7)}
    assert penalty(params, 0.5).dtype == jnp.float16
    assert penalty(params, 0.5) == penalty({"kernel": jnp.full(70_000, 0.5)}, 0.5).astype(jnp.float16)
    slopes = penalty.gradient(params, 0.5)
    assert slopes["kernel"].dtype == jnp.float16
    np.testing.assert_array_equal(slopes["steps"], jnp.array(0))
    assert penalty({"a": jnp.ones(1, jnp.bfloat16), "b": jnp.ones(1)}).dtype == jnp.float32
    assert penalty(()) == 0


@pytest.mark.parametrize("penalty", [losses.l1_penalty, losses.l2_penalty])
def test_penalties_refuse(penalty):
    for function in (penalty, penalty.gradient):
        with pytest.raises(ConfigError, match=f"{penalty.__name__}: expected strength .* >= 0, got -1"):
            function(PARAMS, -1)
        with pytest.raises(ConfigError, match="select to take a floating-point leaf, got none of 0/bias, 0/kernel"):
            function(PARAMS, select=lambda path: path == "kernel")


def test_every_penalty_is_tested():
    public = {getattr(losses, name) for name in losses.__all__ if name.endswith("_penalty")}
    assert public == {losses.l1_penalty, losses.l2_penalty}


@pytest.mark.parametrize("p", [1.5, -1.0])
def test_a_prediction_that_is_no_probability_is_refused(p):
    loss, message = losses.binary_cross_entropy, "binary_cross_entropy: expected prediction in 0..1, got "
    for call in (loss, loss.gradient, loss.check):
        with pytest.raises(DataError, match=rf"^{message}{p} at row 1; end with a sigmoid, or take logits\.$"):
            call(jnp.array([0.5, p]), jnp.ones(2))
    loss, message = losses.cross_entropy, "cross_entropy: expected prediction in 0..1, got "
    for call in (loss, loss.gradient, loss.check):
        with pytest.raises(DataError, match=rf"^{message}{p} at \[1, 0\]; end with a softmax, or take logits\.$"):
            call(jnp.array([[0.5, 0.5], [p, 0.0], [p, p]]), np.zeros(3, int))
    assert loss(jnp.array([[0.5, 0.5], [p, 0.0]]), np.zeros(2, int), where=np.array([True, False])) == jnp.log(2.0)
    for target, fix in (
        (np.zeros(2, int), "end with a softmax"),
        (np.zeros((2, 2)), "end with a sigmoid, or take logits"),
    ):
        with pytest.raises(DataError, match=rf"^dice: expected prediction in 0..1, got {p} at \[1, 0\]; {fix}\.$"):
            losses.dice(jnp.array([[0.5, 0.5], [p, 0.0]]), target)
