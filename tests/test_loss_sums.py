"""Weighted sums of losses: by hand, against autodiff, in parts; what they refuse."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit, richardson, worst_leaf

from funcnet import Padded, losses, metrics
from funcnet.errors import ConfigError, LabelError, ShapeError, StructureError

rng = np.random.default_rng(0)
LOGITS, LABELS = rng.normal(size=(6, 3)), np.array([0, 2, 1, 1, 0, 2])
INK, WANTED = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
CODE = rng.normal(size=(6, 4))
PREDICTION, TARGET = {"digit": LOGITS, "ink": INK, "code": CODE}, {"digit": LABELS, "ink": WANTED}
WHERE, WEIGHTS = np.array([True, False, True, True, True, False]), np.array([1.0, 2.0, 0.5, 3.0, 1.0, 1.0])

digit_loss = losses.partial(losses.softmax_cross_entropy, class_weights=(1.0, 2.0, 0.5))
both = losses.weighted_sum(digit=(2.0, digit_loss), ink=(0.5, losses.mean_squared_error))
nested = losses.weighted_sum(
    digit=(1.5, losses.softmax_cross_entropy),
    rest=(3.0, losses.weighted_sum(ink=(1.0, losses.huber), code=(0.1, losses.half_squared_error))),
)


def kl(prediction, target):
    """A function of one's own: the mean square of a code, which has no target."""
    assert target is None
    return jnp.mean(prediction**2)


GIVEN = {
    "everything": {},
    "where": {"where": WHERE},
    "weights": {"weights": WEIGHTS},
    "both": {"where": WHERE, "weights": WEIGHTS},
    "one each": {"where": {"digit": WHERE}, "weights": {"ink": WEIGHTS}},
}


def of(name, given):
    """What a part is given."""
    parts = {key: x.get(name) if isinstance(x, dict) else x for key, x in given.items()}
    return {key: x for key, x in parts.items() if x is not None}


def by_hand(given, reduction="mean"):
    digit = digit_loss(LOGITS, LABELS, reduction=reduction, **of("digit", given))
    ink = losses.mean_squared_error(INK, WANTED, reduction=reduction, **of("ink", given))
    return 2.0 * digit + 0.5 * ink


def test_a_sum_prints_as_its_call_and_equals_it():
    again = losses.weighted_sum(
        digit=(2.0, losses.partial(losses.softmax_cross_entropy, class_weights=[1.0, 2.0, 0.5])),
        ink=(0.5, losses.mean_squared_error),
    )
    assert again == both
    assert hash(again) == hash(both)
    assert str(both) == (
        "weighted_sum(digit=(2.0, partial(softmax_cross_entropy, class_weights=(1.0, 2.0, 0.5))), "
        "ink=(0.5, mean_squared_error))"
    )
    assert both.made.constructor is losses.weighted_sum
    assert both.parts == {"digit": (2.0, digit_loss), "ink": (0.5, losses.mean_squared_error)}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_values_and_gradients(given, x64):
    for reduction in ("mean", "sum"):
        options = given | {"reduction": reduction}
        np.testing.assert_allclose(both(PREDICTION, TARGET, **options), by_hand(given, reduction), rtol=1e-15)

        def total(p, options=options):
            return both(p, TARGET, **options)

        hand = both.gradient(PREDICTION, TARGET, **options)
        assert hand.pop("code") is None
        auto = quick_jit(jax.grad(total))(PREDICTION)
        assert not np.any(auto.pop("code"))
        assert worst_leaf(hand, auto) <= 1e-13
    numeric = richardson(total, jax.tree.map(jnp.asarray, PREDICTION))
    numeric.pop("code")
    assert worst_leaf(hand, numeric) <= 1e-6


def test_counts_and_terms(x64):
    counted = both.counted(PREDICTION, TARGET, **GIVEN["one each"])
    assert counted == {"digit": 1 + 2 + 2 + 1, "ink": 2 * WEIGHTS.sum()}  # classes 0, 1, 1 and 0 are marked
    assert both.counted(PREDICTION, TARGET, reduction="sum") == {"digit": 1, "ink": 1}
    terms = both.terms(PREDICTION, TARGET, **GIVEN["one each"])
    assert terms["digit"] == (digit_loss(LOGITS, LABELS, where=WHERE), counted["digit"])
    assert terms["ink"] == (losses.mean_squared_error(INK, WANTED, weights=WEIGHTS), counted["ink"])
    assert losses.huber.terms(INK, WANTED) == {}


def test_a_sum_within_a_sum(x64):
    prediction = {"digit": LOGITS, "rest": {"ink": INK, "code": CODE, "more": CODE}}
    target = {"digit": LABELS, "rest": {"ink": WANTED, "code": CODE + 1}}
    want = 1.5 * losses.softmax_cross_entropy(LOGITS, LABELS) + 3 * losses.huber(INK, WANTED) + 3 * 0.1 * 2
    np.testing.assert_allclose(nested(prediction, target), want, rtol=1e-15)
    hand, auto = nested.gradient(prediction, target), jax.grad(nested)(prediction, target)
    assert hand["rest"].pop("more") is None
    auto["rest"].pop("more")
    assert worst_leaf(hand, auto) <= 1e-13
    where = {"rest": {"ink": WHERE}}
    counted = nested.counted(prediction, target, where=where)
    assert counted == {"digit": 6, "rest": {"ink": 8, "code": 6}}
    terms = nested.terms(prediction, target, where=where)
    assert {name: count for name, (_, count) in terms.items()} == {"digit": 6, "rest/ink": 8, "rest/code": 6}
    part = losses.share(nested, counted)
    np.testing.assert_allclose(
        part(prediction, target, where=where), nested(prediction, target, where=where), rtol=1e-14
    )


def test_several_losses_of_one_array(x64):
    """The whole prediction and target for each; their gradients are added."""
    loss = losses.weighted_sum(square=(1.0, losses.mean_squared_error), size=(0.1, losses.mean_absolute_error))
    want = losses.mean_squared_error(INK, WANTED) + 0.1 * losses.mean_absolute_error(INK, WANTED)
    np.testing.assert_allclose(loss(INK, WANTED), want, rtol=1e-15)
    assert worst_leaf(loss.gradient(INK, WANTED), jax.grad(loss)(INK, WANTED)) <= 1e-13


def test_padding_and_precision():
    there = np.arange(6) != 2
    rubbish = np.where(there[:, None], INK, np.nan)
    prediction = {"digit": jnp.asarray(LOGITS, jnp.bfloat16), "ink": Padded(jnp.asarray(rubbish), there)}
    target = {"digit": LABELS, "ink": WANTED}
    want = both({"digit": prediction["digit"], "ink": INK.astype(np.float32)}, target, where={"ink": there})
    assert both(prediction, target) == want
    gradient = both.gradient(prediction, target)
    assert (gradient["digit"].dtype, gradient["ink"].dtype) == (jnp.bfloat16, jnp.float32)
    assert not np.any(gradient["ink"][2])


def test_a_factor_beyond_half_precision():
    """1e5 is infinite in float16, and 1e5 · 1e-3 is not."""
    loss = losses.weighted_sum(size=(1e5, losses.mean_absolute_error))
    p, t = jnp.array([1e-3, 0], jnp.float16), jnp.zeros(2, jnp.float16)
    half = float(p[0])
    np.testing.assert_allclose(loss(p, t), 1e5 * half / 2, rtol=1e-3)
    square = losses.weighted_sum(square=(1e5, losses.mean_squared_error))
    np.testing.assert_allclose(square.gradient(p, t), [1e5 * half, 0], rtol=1e-3)


def test_functions_of_ones_own_are_parts(x64):
    loss = losses.weighted_sum(digit=(1.0, losses.softmax_cross_entropy), code=(0.2, kl))
    want = losses.softmax_cross_entropy(LOGITS, LABELS) + 0.2 * np.mean(CODE**2)
    np.testing.assert_allclose(loss(PREDICTION, {"digit": LABELS}), want, rtol=1e-15)
    assert (loss.gradient, loss.counted) == (None, None)
    assert loss.terms(PREDICTION, {"digit": LABELS})["code"] == (kl(CODE, None), None)
    loss.check(PREDICTION, {"digit": LABELS}, where={"digit": WHERE})
    only = losses.weighted_sum(code=(2.0, kl))
    assert only(CODE, None) == only({"code": CODE}, None) == 2 * kl(CODE, None)


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_shares_of_parts_add_up_to_the_whole(given, x64):
    """Even where one part of the batch has nothing that counts in a term."""

    @quick_jit
    def in_parts(prediction):
        part = losses.share(both, both.counted(prediction, TARGET, **given))
        value, slopes = 0.0, []
        for rows in (slice(0, 1), slice(1, 2), slice(2, 6)):
            p, t, options = jax.tree.map(lambda x, rows=rows: x[rows], (prediction, TARGET, given))
            value += part(p, t, **options)
            slopes.append({name: x for name, x in part.gradient(p, t, **options).items() if x is not None})
        return value, jax.tree.map(lambda *parts: jnp.concatenate(parts), *slopes)

    value, slopes = in_parts(PREDICTION)
    np.testing.assert_allclose(value, both(PREDICTION, TARGET, **given), rtol=1e-13)
    want = both.gradient(PREDICTION, TARGET, **given)
    want.pop("code")
    assert worst_leaf(slopes, want) <= 1e-12


def test_shares_of_a_sum_add_up_too(x64):
    """reduction="sum" is divided by nothing."""
    total = losses.partial(both, reduction="sum")
    part = losses.share(total, total.counted(PREDICTION, TARGET))
    halves = [jax.tree.map(lambda x, r=r: x[r], (PREDICTION, TARGET)) for r in (slice(0, 3), slice(3, 6))]
    np.testing.assert_allclose(sum(part(*half) for half in halves), by_hand({}, "sum"), rtol=1e-14)


def test_share_where_nothing_counts():
    part = losses.share(losses.huber, 0.0)
    nothing = np.zeros(6, bool)
    assert part(INK, WANTED, where=nothing) == 0
    assert not np.any(part.gradient(INK, WANTED, where=nothing))


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_the_mean_does_not_depend_on_batches(given, x64):
    """`metrics.mean_loss` over batches of 1, 1 and 4 rows."""
    metric = metrics.mean_loss(both)
    state = metric.init()
    for rows in (slice(0, 1), slice(1, 2), slice(2, 6)):
        p, t, options = jax.tree.map(lambda x, rows=rows: x[rows], (PREDICTION, TARGET, given))
        state = jax.jit(metric.update)(state, p, t, **options)
    np.testing.assert_allclose(metric.compute(state), by_hand(given), rtol=1e-14)
    ink = metrics.mean_loss(losses.mean_squared_error)
    want = losses.mean_squared_error(INK, WANTED, **of("ink", given))
    np.testing.assert_allclose(ink.compute(state["ink"]), want, rtol=1e-14)


# What is refused.

CALL = re.escape(str(both))


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"weighted_sum\(\): expected at least one part, got none", lambda: losses.weighted_sum()),
        (r"weighted_sum\(a b=.*: expected names of letters, digits and _, got 'a b'",
         lambda: losses.weighted_sum(**{"a b": (1.0, losses.huber)})),
        (r"weighted_sum\(a=huber\): expected a to be a pair \(factor, loss\), got",
         lambda: losses.weighted_sum(a=losses.huber)),
        (r"weighted_sum\(a=\(-1, huber\)\): expected the factor of a to be a finite number >= 0, got -1",
         lambda: losses.weighted_sum(a=(-1, losses.huber))),
        (r"weighted_sum\(a=\(nan, huber\)\): expected the factor of a",
         lambda: losses.weighted_sum(a=(np.nan, losses.huber))),
        (rf'^{CALL}: expected reduction to be "mean" or "sum", got \'none\'',
         lambda: both(PREDICTION, TARGET, reduction="none")),
        (rf"^{CALL}: expected where for the parts \['digit', 'ink'\], got \['inc'\]",
         lambda: both(PREDICTION, TARGET, where={"inc": WHERE})),
        (r"^weighted_sum\(.*\): expected the loss of code to take where=, got kl\(prediction, target\); add it to the "
         r"arguments, or give where as a dict without code",
         lambda: losses.weighted_sum(code=(1.0, kl))(CODE, None, where=WHERE)),
        (r"partial\(weighted_sum.*: expected options that fit every batch, got \['where'\]; give them in the call",
         lambda: losses.partial(both, where=WHERE)),
        (r"^root_mean_squared_error: expected a loss that is a mean of values, got one without counted",
         lambda: losses.share(losses.root_mean_squared_error, 1.0)),
        (r"^kl: expected a loss that is a mean of values", lambda: losses.share(kl, 1.0)),
        (r"^kl: expected a loss that is a mean of values",
         lambda: losses.share(losses.weighted_sum(code=(1.0, kl)), {"code": 1.0})),
    ],
)  # fmt: skip
def test_refused(message, call):
    with pytest.raises(ConfigError, match=message):
        call()


def test_an_entry_for_each_part():
    for function in (both, both.gradient, both.check, both.counted):
        with pytest.raises(StructureError, match=rf"^{CALL}: expected prediction with an entry 'ink', got \['digit'\]"):
            function({"digit": LOGITS}, TARGET)


def test_errors_name_the_part():
    wrong = TARGET | {"digit": np.array([0, 1, 3, 0, 0, 0])}
    expected = r"^weighted_sum\[digit\] softmax_cross_entropy: expected label in 0\.\.2, got 3 at row 2"
    for function in (both, both.gradient, both.check, both.counted):
        with pytest.raises(LabelError, match=expected):
            function(PREDICTION, wrong)
    part = losses.share(both, {"digit": 1.0, "ink": 1.0})
    for function in (part, part.gradient, part.check):
        with pytest.raises(LabelError, match=expected):
            function(PREDICTION, wrong)
    with pytest.raises(
        ShapeError, match=r"^weighted_sum\[rest\] weighted_sum\[ink\] huber: expected target of the shape"
    ):
        nested({"digit": LOGITS, "rest": {"ink": INK, "code": CODE}}, {"digit": LABELS, "rest": {"ink": 1, "code": 1}})
