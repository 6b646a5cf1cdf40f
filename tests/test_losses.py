"""Laws that every loss obeys, over its rows in the catalogue: in float64 unless a test is about another dtype."""

from functools import partial
from pathlib import Path

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import COUNTS, FORMULAS, SHARES, counts_of, expected, reductions_of
from numerics import norm_relative, quick_jit, richardson, usual_jit, worst_element

from funcnet import Padded, losses
from funcnet.catalogue import LOSSES

every_case = pytest.mark.parametrize("case", LOSSES.values(), ids=LOSSES)


def report(case, counts, p, reductions=None):
    """(loss, hand-derived gradient, autodiff gradient) for each reduction, by default for all that it has."""

    def measured(options):
        loss = case.loss(p, case.target, **options)
        hand = case.loss.gradient(p, case.target, **options)
        return loss, hand, jax.grad(lambda p: case.loss(p, case.target, **options).sum())(p)

    return {one: measured(case.options | counts | {"reduction": one}) for one in reductions or reductions_of(case)}


@pytest.fixture(scope="module")
def reports():
    """The reports of a case with each mask and weights, in float64: one compiled program, run once."""
    made = {}

    def get(case):
        if id(case) not in made:
            program = quick_jit(lambda p: {kind: report(case, counts_of(case, kind), p) for kind in COUNTS})
            made[id(case)] = program(jnp.asarray(case.prediction))
        return made[id(case)]

    return get


def test_every_loss_has_a_formula():
    assert set(FORMULAS) == {case.loss for case in LOSSES.values()}
    means = [case for case in LOSSES.values() if case.loss.counted is not None]
    assert set(SHARES) == {case.loss for case in means if "class_weights" in case.options}


def test_nothing_is_differentiated_by_jax():
    for path in Path(losses.__file__).parent.glob("*.py"):
        source = path.read_text()
        assert not [word for word in ("jax.grad", "value_and_grad", "vjp", "jvp", "linearize") if word in source], path


@every_case
def test_values(case, reports, x64):
    for kind, by_reduction in reports(case).items():
        want = expected(case, **counts_of(case, kind))
        for reduction, (loss, _, _) in by_reduction.items():
            np.testing.assert_allclose(loss, want[reduction], rtol=1e-13, atol=1e-15, err_msg=f"{kind} {reduction}")


@every_case
def test_hand_gradient_is_that_of_autodiff(case, reports, x64):
    for kind, by_reduction in reports(case).items():
        for reduction, (_, hand, auto) in by_reduction.items():
            assert hand.dtype == auto.dtype == jnp.float64
            assert norm_relative(hand, auto) <= 1e-13, (kind, reduction)
            assert worst_element(hand, auto, floor=1e-8) <= 1e-10, (kind, reduction)


@every_case
def test_gradients_are_those_of_finite_differences(case, reports, x64):
    # One sum of all forms, each with its own factor, so that one program differentiates all of them.
    forms = [(kind, reduction) for kind in COUNTS for reduction in reductions_of(case)]
    factors = dict(zip(forms, np.linspace(1, 2, len(forms)), strict=True))

    def total(p):
        options = [case.options | counts_of(case, kind) | {"reduction": r} for kind, r in forms]
        return sum(w * case.loss(p, case.target, **o).sum() for w, o in zip(factors.values(), options, strict=True))

    numeric = richardson(total, jnp.asarray(case.prediction))
    hand, auto = (sum(w * reports(case)[kind][r][i] for (kind, r), w in factors.items()) for i in (1, 2))
    assert norm_relative(hand, numeric) <= 1e-9
    assert worst_element(hand, numeric) <= 1e-6
    assert worst_element(auto, numeric) <= 1e-6


@every_case
def test_jit_is_eager(case, reports, x64):
    p = jnp.asarray(case.prediction)
    for reduction, (loss, hand, _) in reports(case)["rows and value weights"].items():
        options = case.options | counts_of(case, "rows and value weights") | {"reduction": reduction}
        assert norm_relative(case.loss(p, case.target, **options), loss) <= 1e-12
        assert norm_relative(case.loss.gradient(p, case.target, **options), hand) <= 1e-12


@every_case
def test_vmap_is_a_loop_and_tracers_are_arrays(case, reports, x64):
    """With target and mask traced, so that no value can be looked at."""

    def both(p, t, where):
        options = case.options | {"where": where}
        return case.loss(p, t, **options), case.loss.gradient(p, t, **options)

    p, t = jnp.asarray(case.prediction), jnp.asarray(case.target)
    wheres = jnp.stack([jnp.asarray(counts_of(case, "rows")["where"]), jnp.ones(len(p), bool)])
    loss, hand = quick_jit(jax.vmap(both, (None, None, 0)))(p, t, wheres)
    for row, kind in enumerate(("rows", "everything")):
        want_loss, want_hand, _ = reports(case)[kind]["mean"]
        assert norm_relative(loss[row], want_loss) <= 1e-13
        assert norm_relative(hand[row], want_hand) <= 1e-13


@every_case
def test_float32_is_float64_to_its_precision(case, reports):
    with jax.enable_x64(True):
        want_loss, want_hand, _ = reports(case)["rows"]["mean"]
    options = case.options | counts_of(case, "rows")
    both = usual_jit(lambda p: [f(p, case.target, **options) for f in (case.loss, case.loss.gradient)])
    loss, hand = both(jnp.asarray(case.prediction))
    assert loss.dtype == hand.dtype == jnp.float32
    assert norm_relative(loss, want_loss) <= 1e-6
    assert norm_relative(hand, want_hand) <= 1e-6


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@every_case
def test_half_precision_is_kept(case, dtype):
    target = case.target.astype(dtype) if case.target.dtype == np.float64 else case.target
    p = jnp.asarray(case.prediction).astype(dtype)
    options = case.options | counts_of(case, "rows and value weights") | {"reduction": reductions_of(case)[-1]}
    loss, hand = case.loss(p, target, **options), case.loss.gradient(p, target, **options)
    assert loss.dtype == hand.dtype == dtype
    # The same in float32 of the rounded arguments: the mathematics itself adds one rounding at the end.
    wide = [x.astype(jnp.float32) if x.dtype == dtype else x for x in (p, target)]
    assert norm_relative(loss, case.loss(*wide, **options)) <= float(jnp.finfo(dtype).eps)
    assert norm_relative(hand, case.loss.gradient(*wide, **options)) <= float(jnp.finfo(dtype).eps)


@every_case
def test_masked_rows_do_not_count(case, reports, x64):
    """NaN predictions and impossible targets outside the mask reach neither the loss nor the gradients."""
    where = counts_of(case, "rows")["where"]
    spoilt, target = case.prediction.copy(), case.target.copy()
    spoilt[~where] = np.nan
    target[~where] = np.nan if target.dtype.kind == "f" else 99
    spoilt_case = case._replace(target=target)
    program = quick_jit(lambda p, where: report(spoilt_case, {"where": where}, p, ["mean"])["mean"])
    loss, hand, auto = program(spoilt, where)
    for number, want in zip((loss, hand, auto), reports(case)["rows"]["mean"], strict=True):
        np.testing.assert_allclose(number, want, rtol=1e-14, atol=1e-16)
    assert not np.any(hand[~where])
    assert not np.any(auto[~where])
    # Where nothing is marked, loss and gradients are 0.
    assert not any(np.any(number) for number in program(np.full_like(spoilt, np.nan), np.zeros_like(where)))


@every_case
def test_nan_predictions_show_in_the_loss(case, x64):
    p = jnp.asarray(case.prediction).at[0].set(jnp.nan)
    assert np.isnan(case.loss(p, case.target, **case.options))


@every_case
def test_check_reads_shapes_only(case, x64):
    case.loss.check(jax.ShapeDtypeStruct(case.prediction.shape, jnp.float64), case.target, **case.options)
    jax.eval_shape(lambda p, t: case.loss.check(p, t, **case.options), case.prediction, case.target)


@every_case
def test_partial_binds_loss_gradient_count_and_check(case, x64):
    bound = losses.partial(case.loss, **case.options)
    p, t = jnp.asarray(case.prediction), case.target
    np.testing.assert_array_equal(bound(p, t), case.loss(p, t, **case.options))
    np.testing.assert_array_equal(bound.gradient(p, t), case.loss.gradient(p, t, **case.options))
    if case.loss.counted is not None:
        np.testing.assert_array_equal(bound.counted(p, t), case.loss.counted(p, t, **case.options))
    bound.check(p, t)
    assert bound == losses.partial(case.loss, **case.options)
    assert hash(bound) == hash(losses.partial(case.loss, **case.options))
    assert str(bound) == str(bound.made)
    assert bound.made.constructor is losses.partial


@every_case
def test_a_loss_is_a_value(case):
    assert isinstance(case.loss, losses.Loss)
    assert case.loss.__module__.startswith("funcnet.losses.")
    assert str(case.loss) == case.loss.__name__ == case.loss.value.__wrapped__.__name__
    assert case.loss.made.constructor is None
    assert "Gradient. " in case.loss.__doc__


every_mean = pytest.mark.parametrize(
    "case", [case for case in LOSSES.values() if case.loss.counted], ids=[n for n in LOSSES if LOSSES[n].loss.counted]
)


def test_what_is_not_a_mean_of_values_has_no_count():
    without = {case.loss for case in LOSSES.values() if not case.loss.counted}
    assert without == {losses.dice, losses.root_mean_squared_error}


@every_mean
def test_counted_is_what_the_mean_divides_by(case, x64):
    """From the shape of the prediction alone."""
    shape = jax.ShapeDtypeStruct(case.prediction.shape, jnp.float64)
    for kind in COUNTS:
        given = counts_of(case, kind)
        counted = case.loss.counted(shape, case.target, **given, **case.options)
        assert (counted.shape, counted.dtype) == ((), jnp.float64)
        np.testing.assert_allclose(counted, expected(case, **given)["counted"], rtol=1e-14)
        assert case.loss.counted(shape, case.target, reduction="sum", **given, **case.options) == 1


@every_mean
def test_shares_of_parts_add_up_to_the_whole(case, reports, x64):
    """Rows 0–1 and the others; the totals are traced."""
    bound, cut = losses.partial(case.loss, **case.options), 2

    @quick_jit
    def in_parts(p):
        def one(given):
            part = losses.share(bound, bound.counted(p, case.target, **given))
            rows = slice(0, cut), slice(cut, None)
            options = [{name: x[r] for name, x in given.items()} for r in rows]
            parts = [(p[r], case.target[r]) for r in rows]
            values = sum(part(*q, **o) for q, o in zip(parts, options, strict=True))
            return values, jnp.concatenate([part.gradient(*q, **o) for q, o in zip(parts, options, strict=True)])

        return {kind: one(counts_of(case, kind)) for kind in COUNTS}

    for kind, (value, gradient) in in_parts(jnp.asarray(case.prediction)).items():
        want_value, want_gradient, _ = reports(case)[kind]["mean"]
        assert norm_relative(value, want_value) <= 1e-12, kind
        assert norm_relative(gradient, want_gradient) <= 1e-12, kind


@every_case
def test_weights_of_0_and_1_are_a_mask_and_equal_ones_are_none(case, reports, x64):
    where = counts_of(case, "values")["where"]

    @quick_jit
    def program(p):
        return [report(case, {"weights": w}, p)["mean"] for w in (where.astype(float), np.full(where.shape, 2.5))]

    for got, kind in zip(program(jnp.asarray(case.prediction)), ("values", "everything"), strict=True):
        for number, want in zip(got, reports(case)[kind]["mean"], strict=True):
            np.testing.assert_allclose(number, want, rtol=1e-13, atol=1e-16, err_msg=kind)


PADDED = {name: case for name, case in LOSSES.items() if len(case.prediction.shape[: case.loss.axes]) >= 2}


@pytest.mark.parametrize("case", PADDED.values(), ids=PADDED)
def test_padding_does_not_count(case, x64):
    """It equals a mask over positions, whatever stands there, in both engines."""
    shape = case.prediction.shape[:2]
    there, where = np.arange(np.prod(shape)).reshape(shape) % 4 != 3, np.arange(shape[0]) != 1
    given = {"weights": counts_of(case, "value weights")["weights"]} | case.options

    @partial(jax.jit, static_argnums=2)
    def both(p, t, padded):
        def loss(p):
            return case.loss(Padded(p, there) if padded else p, t, where=where if padded else whole, **given)

        whole = there & where[:, None]
        prediction = Padded(p, there) if padded else p
        hand = case.loss.gradient(prediction, Padded(t, there), where=where if padded else whole, **given)
        return loss(p), hand, jax.grad(loss)(p)

    want = both(case.prediction, case.target, False)
    assert not np.any(want[1][~there])
    for rubbish in (7.5, np.nan):
        p, t = case.prediction.copy(), case.target.copy()
        p[~there] = rubbish
        t[~there] = rubbish if t.dtype.kind == "f" else 1
        for number, wanted in zip(both(p, t, True), want, strict=True):
            np.testing.assert_array_equal(number, wanted)
    if case.loss.counted is not None:
        counted = case.loss.counted(Padded(case.prediction, there), case.target, where=where, **given)
        whole = case.loss.counted(case.prediction, case.target, where=there & where[:, None], **given)
        assert counted == whole


# Integers make ties and kinks, 0 and 1 are the ends of probabilities, ±10⁴ are extreme.
EDGES = (0.0, -0.0, 0.5, 1.0, -1.0, 2.0, 1e4, -1e4)
ELEMENTWISE = [
    loss
    for loss in (getattr(losses, name) for name in losses.__all__)
    if isinstance(loss, losses.Loss) and loss.axes is None
]


@quick_jit
def elementwise_reports(p, t, where):
    def both(loss, p, t):
        return loss.gradient(p, t, where=where), jax.grad(lambda p: loss(p, t, where=where))(p)

    def chance(x):
        return jnp.clip(x, 0, 1)

    probability = losses.binary_cross_entropy
    return [both(loss, chance(p) if loss is probability else p, chance(t)) for loss in ELEMENTWISE]


@quick_jit
def class_reports(p, labels, where):
    forms = [
        (losses.softmax_cross_entropy, {}), (losses.softmax_cross_entropy, {"label_smoothing": 0.1}),
        (losses.negative_log_likelihood, {}), (losses.multiclass_hinge, {}),
        (losses.multiclass_hinge, {"variant": "crammer_singer"}), (losses.cross_entropy, {}), (losses.dice, {}),
    ]  # fmt: skip

    def both(loss, p, options):
        loss = losses.partial(loss, **options)
        return loss.gradient(p, labels, where=where), jax.grad(lambda p: loss(p, labels, where=where))(p)

    chances = ("probabilities", "class probabilities")
    return [both(loss, jnp.clip(p, 0, 1) if loss.takes in chances else p, o) for loss, o in forms]


def arrays(shape):
    return hnp.arrays(np.float64, shape, elements=st.sampled_from(EDGES) | st.floats(-1e4, 1e4))


@settings(max_examples=60)
@given(data=st.data(), shape=st.sampled_from([(3,), (2, 3)]))
def test_engines_agree_on_any_numbers(data, shape):
    p, t, where = (data.draw(arrays(shape)), data.draw(arrays(shape)), data.draw(hnp.arrays(bool, shape[:1])))
    with jax.enable_x64(True):
        for loss, (hand, auto) in zip(ELEMENTWISE, elementwise_reports(p, t, where), strict=True):
            assert np.isfinite(hand).all(), loss.__name__
            np.testing.assert_allclose(hand, auto, rtol=1e-12, atol=1e-13, err_msg=loss.__name__)


@settings(max_examples=60)
@given(data=st.data(), shape=st.sampled_from([(1, 4), (3, 3)]))
def test_engines_agree_on_any_scores(data, shape):
    p, where = data.draw(arrays(shape)), data.draw(hnp.arrays(bool, shape[:1]))
    labels = data.draw(hnp.arrays(np.int32, shape[:1], elements=st.integers(0, shape[-1] - 1)))
    with jax.enable_x64(True):
        for hand, auto in class_reports(p, labels, where):
            assert np.isfinite(hand).all()
            np.testing.assert_allclose(hand, auto, rtol=1e-12, atol=1e-13)
