"""The checks of numbers and choices, and the words of errors: what passes, as what type, and what each error says."""

import math
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import checks, initializers, layers, schedules
from funcnet.checks import (
    check_choice,
    check_count,
    check_key,
    describe,
    fraction,
    is_count,
    is_number,
    nonnegative,
    number,
    positive,
    spell,
    unit_interval,
)  # fmt: skip
from funcnet.errors import ConfigError, DtypeError

NO_NUMBERS = ["1", None, True, math.nan, math.inf, -math.inf, 1j, Decimal(1), [1.0], np.ones(1), np.float32(np.nan)]

# What each takes of −1, −0.5, 0, 0.5, 1 and 2, and the words for it.
BOUNDS = {
    number: ([-1, -0.5, 0, 0.5, 1, 2], "a finite number"),
    nonnegative: ([0, 0.5, 1, 2], "a finite number >= 0"),
    positive: ([0.5, 1, 2], "a finite number > 0"),
    fraction: ([0, 0.5], "a finite number in [0, 1)"),
    unit_interval: ([0, 0.5, 1], "a finite number in [0, 1]"),
}


def refusal(check, *arguments):
    with pytest.raises(ConfigError, match=r"^f\(3\): expected width to be ") as caught:
        check("f(3)", "width", *arguments)
    return str(caught.value).removeprefix("f(3): expected width to be ")


def test_every_check_is_tested():
    tested = {*BOUNDS, check_choice, check_count, check_key, describe, is_count, is_number, spell}
    assert tested == {getattr(checks, name) for name in checks.__all__}


@pytest.mark.parametrize("check", BOUNDS)
def test_numbers(check):
    taken, words = BOUNDS[check]
    for value in (-1, -0.5, 0, 0.5, 1, 2):
        for kind in (float, np.float32, np.float64, Fraction, *([int, np.int8] if value == int(value) else [])):
            if value in taken:
                got = check("f(3)", "width", kind(value))
                assert (type(got), got) == (float, value)
            else:
                assert refusal(check, kind(value)) == f"{words}, got {kind(value)!r}."
    for value in NO_NUMBERS:
        assert refusal(check, value) == f"{words}, got {describe(value)}."


@pytest.mark.parametrize("least, words", [(0, "an integer >= 0"), (1, "a positive integer"), (2, "an integer >= 2")])
def test_counts(least, words):
    for value in (least, least + 1, np.int32(least), np.uint8(least + 1)):
        got = check_count("f(3)", "width", value, least)
        assert (type(got), got) == (int, value)
    for value in (least - 1, np.int64(least - 1), float(least), np.float32(least), "1", None, True, jnp.array(least)):
        assert not is_count(value, least)
        assert refusal(check_count, value, least) == f"{words}, got {describe(value)}."


def test_keys():
    for key in (jax.random.key(0), jax.random.key(0, impl="rbg"), jax.random.key_data(jax.random.key(0))):
        check_key("f(3)", key)
    for value in (None, 0, "seed", jnp.ones(2), jax.random.split(jax.random.key(0)), jnp.zeros(3, jnp.uint32)):
        with pytest.raises(DtypeError, match=r"^f\(3\): expected key to be a PRNG key, got .*; make one with"):
            check_key("f(3)", value)


def test_predicates():
    assert [is_number(value) for value in (0, -1.5, np.float16(2), np.int8(-3))] == [True] * 4
    assert not any(map(is_number, NO_NUMBERS))
    assert is_count(1)
    assert not is_count(0)


def test_choices():
    check_choice("f(3)", "width", "slim", ("slim", "wide"))
    check_choice("f(3)", "width", "wide", {"slim": 1, "wide": 2, "full": 3})
    assert refusal(check_choice, 5, ("slim", "wide", "full")) == '"slim", "wide" or "full", got 5.'
    assert refusal(check_choice, ["slim"], ("slim", "wide")) == '"slim" or "wide", got a list [\'slim\'].'
    assert refusal(check_choice, None, {"slim": 1, "wide": 2}) == '"slim" or "wide", got None.'


@pytest.mark.parametrize(
    "value, words",
    [
        (None, "None"),
        (np.float32(0.5), "np.float32(0.5)"),
        ("x" * 50, repr("x" * 50)),
        (np.ones((2, 3), np.int8), "an array of dtype int8 and shape (2, 3)"),
        (jax.ShapeDtypeStruct((4,), jnp.bfloat16), "an array of dtype bfloat16 and shape (4,)"),
        (jax.random.key(0), "an array of dtype key<fry> and shape ()"),
        ((1, 2), "a tuple (1, 2)"),
        (list(range(50)), "a list"),
        ({"kernel": np.ones(100)}, "a dict"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_describe(value, words):
    assert describe(value) == words


def test_describe_sees_tracers():
    seen = []
    jax.jit(lambda x: seen.append(describe(x)))(1.0)
    assert seen == ["an array of dtype float32 and shape ()"]


def test_spell():
    def make(width, *, rate=0.5, start=initializers.zeros): ...

    assert spell(make, 3, rate=0.5, start=initializers.zeros) == "make(3)"
    assert spell(make, 3, rate=1, start=initializers.constant(2.0)) == "make(3, rate=1, start=constant(2.0))"
    assert spell(make, ..., rate="high") == "make(…, rate='high')"
    assert spell(make, [schedules.constant(0.1), 2], rate=(3,)) == "make([constant(0.1), 2], rate=(3,))"
    assert spell(make, layers.serial(layers.relu()), rate=()) == "make(serial(relu()), rate=())"
    assert spell(make, np.ones(2), rate=np.ones(2)) == "make(array([1., 1.]), rate=array([1., 1.]))"
