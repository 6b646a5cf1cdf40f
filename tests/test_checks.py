"""The checks of numbers and choices, and the words of errors: what passes, as what type, and what each error says."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import checks, layers
from funcnet.checks import (
    as_shaped,
    check_arrays,
    check_choice,
    check_count,
    check_floating,
    check_integers,
    check_jax_holds,
    check_key,
    check_kind,
    check_like,
    check_mask,
    check_multiple,
    check_one_array,
    check_same_shape,
    check_shape,
    check_values,
    check_weights,
    check_where,
    describe,
    first_wrong,
    fraction,
    is_array,
    is_concrete,
    is_count,
    is_floating,
    is_number,
    is_one_array,
    listed,
    nonnegative,
    number,
    over_leading_axes,
    positive,
    unit_interval,
)  # fmt: skip
from funcnet.errors import ConfigError, DataError, DtypeError, LabelError, ShapeError, StructureError
from funcnet.made import leading

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
    with pytest.raises(ConfigError, match=r"^f\(3\): expected width to be ") as caught, leading("f(3)"):
        check("width", *arguments)
    return str(caught.value).removeprefix("f(3): expected width to be ")


def test_every_check_is_tested():
    tested = {*BOUNDS, as_shaped, check_arrays, check_choice, check_count, check_floating, check_integers,
              check_jax_holds, check_key, check_kind, check_like, check_mask, check_multiple, check_one_array,
              check_same_shape, check_shape, check_values, check_weights, check_where, describe, first_wrong, is_array,
              is_concrete, is_count, is_floating, is_number, is_one_array, listed, over_leading_axes}  # fmt: skip
    assert tested == {getattr(checks, name) for name in checks.__all__}


@pytest.mark.parametrize("check", BOUNDS)
def test_numbers(check):
    taken, words = BOUNDS[check]
    for value in (-1, -0.5, 0, 0.5, 1, 2):
        for kind in (float, np.float32, np.float64, Fraction, *([int, np.int8] if value == int(value) else [])):
            if value in taken:
                got = check("width", kind(value))
                assert (type(got), got) == (float, value)
            else:
                assert refusal(check, kind(value)) == f"{words}, got {kind(value)!r}."
    for value in NO_NUMBERS:
        assert refusal(check, value) == f"{words}, got {describe(value)}."


@pytest.mark.parametrize("least, words", [(0, "an integer >= 0"), (1, "a positive integer"), (2, "an integer >= 2")])
def test_counts(least, words):
    for value in (least, least + 1, np.int32(least), np.uint8(least + 1)):
        got = check_count("width", value, least)
        assert (type(got), got) == (int, value)
    for value in (least - 1, np.int64(least - 1), float(least), np.float32(least), "1", None, True, jnp.array(least)):
        assert not is_count(value, least)
        assert refusal(check_count, value, least) == f"{words}, got {describe(value)}."


def test_keys():
    for key in (jax.random.key(0), jax.random.key(0, impl="rbg"), jax.random.key_data(jax.random.key(0))):
        check_key(key)
    for value in (None, 0, "seed", jnp.ones(2), jax.random.split(jax.random.key(0)), jnp.zeros(3, jnp.uint32)):
        with pytest.raises(DtypeError, match=r"^expected key to be a PRNG key, got .*; make one with"):
            check_key(value)


def test_predicates():
    assert [is_number(value) for value in (0, -1.5, np.float16(2), np.int8(-3))] == [True] * 4
    assert not any(map(is_number, NO_NUMBERS))
    assert is_count(1)
    assert not is_count(0)


def test_choices():
    check_choice("width", "slim", ("slim", "wide"))
    check_choice("width", "wide", {"slim": 1, "wide": 2, "full": 3})
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


# What counts, and by how much.


def test_leading_axes():
    assert as_shaped([1.0, 2.0]).shape == (2,)
    x = jnp.ones((2, 3))
    assert as_shaped(x) is x
    assert over_leading_axes(x, 4).shape == (2, 3, 1, 1)


@pytest.mark.parametrize("x", [3, [1.0, 2.0], (1, 2.0), [], np.ones(2), jnp.ones((2, 3)), [np.float32(1.0)]])
def test_arrays_and_numbers_are_one_array(x):
    assert is_one_array(x)
    check_one_array("target", x, "take one")


@pytest.mark.parametrize("x", [{}, {"a": 1}, {"a": np.ones(2)}, (np.ones(2), jnp.ones(3)), [np.ones((2, 3))]])
def test_trees_are_not_one_array(x):
    with pytest.raises(
        StructureError, match=r"^expected target to be one array, got the tree PyTreeDef.*; take one\.$"
    ):
        check_one_array("target", x, "take one")


def test_none_is_not_one_array():
    with pytest.raises(StructureError, match=r"^expected target to be an array, got None; give one\.$"):
        check_one_array("target", None, "take one")


def test_masks():
    for where in (None, np.ones(2, bool), jnp.ones((2, 3), bool), [True, False]):
        check_where(where, (2, 3))
    with pytest.raises(DtypeError, match="^expected where of dtype bool, got int64; compare it, as in where != 0"):
        check_where(np.ones(2, int), (2, 3))
    with pytest.raises(ShapeError, match=r"^expected where of shape \(2,\) or \(2, 3\), got \(3,\); mark examples"):
        check_where(np.ones(3, bool), (2, 3))


def test_weights():
    for weights in (None, np.ones(2, np.float32), jnp.ones((2, 3)), [1, 0]):
        check_weights(weights, (2, 3))
    check_weights(np.array([1.0, np.nan]), (2,), np.array([True, False]))  # what where excludes may be anything
    for wrong in (-1.0, np.inf, np.nan):
        expected = rf"^expected weights to be finite numbers >= 0, got {wrong} at row 1; use where to exclude"
        with pytest.raises(DataError, match=expected):
            check_weights(np.array([1.0, wrong]), (2,))
    with pytest.raises(DtypeError, match="^expected weights of numbers, got dtype bool; pass booleans as where="):
        check_weights(np.ones(2, bool), (2,))
    with pytest.raises(ShapeError, match=r"^expected weights of shape \(2,\), got \(3,\); weigh examples"):
        check_weights(np.ones(3), (2,))


def test_values():
    def check(values, where=None):
        check_values(LabelError, "label of 0 or more", values, where, lambda v: v >= 0, "count from 0")

    check(np.array([0, 1]))
    check(np.array([0, -1]), np.array([True, False]))
    jax.jit(check)(np.array([-1]))  # a tracer has no values yet
    with pytest.raises(LabelError, match=r"^expected label of 0 or more, got -1 at \[1, 0\]; count from 0\.$"):
        check(np.array([[0, 1], [-1, 0]]))


def test_kinds():
    check_kind("train", True, bool, "a bool")
    check_kind("loss", len, Callable, "a function")
    check_kind("flat", None, bool | None, "True, False or None")
    with pytest.raises(ConfigError, match=r"^expected train to be a bool, got 1\.$"):
        check_kind("train", 1, bool, "a bool")
    with pytest.raises(StructureError, match=r"^expected loss to be a function, got 'mse'; take losses\.$"):
        check_kind("loss", "mse", Callable, "a function", "take losses", StructureError)


def test_what_is_an_array():
    for x in (np.ones(2), jnp.ones(2), jax.ShapeDtypeStruct((2,), jnp.float32)):
        assert is_array(x)
        assert is_floating(x)
        check_floating("x", x)
        check_arrays("x", {"a": [x]})
    assert not any(map(is_array, ([1.0], 1.0, None)))
    assert not any(map(is_floating, ([1.0], np.ones(2, int), np.ones(2, bool), np.ones(2, complex))))
    with pytest.raises(
        DtypeError, match="^expected x to be an array or jax.ShapeDtypeStruct, got a list .*; the example"
    ):
        check_arrays("x", [jnp.ones(2), 1.0])
    with pytest.raises(
        DtypeError, match=r"^expected x of a floating dtype, got an array of dtype int64 .*; take 0\.5\.$"
    ):
        check_floating("x", np.ones(2, int), "take 0.5")
    with pytest.raises(DtypeError, match=r"^expected x of a floating dtype, got 1\.0; convert it with x\.astype"):
        check_floating("x", 1.0)


def test_integers():
    check_integers("labels", np.ones(2, np.uint8))
    for x in (np.ones(2), np.ones(2, bool)):
        with pytest.raises(
            LabelError, match=f"^expected labels to be integers, got dtype {x.dtype}; convert them with"
        ):
            check_integers("labels", x)
    with pytest.raises(DtypeError, match="^expected labels to be integers, got dtype float64"):
        check_integers("labels", np.ones(2), DtypeError)


def test_booleans():
    check_mask("where", np.ones(2, bool))
    with pytest.raises(DtypeError, match="^expected where/a of dtype bool, got int64; compare it, as in where != 0"):
        check_mask("where/a", np.ones(2, int))


@pytest.mark.parametrize(
    "shape, fitting, wrong",
    [
        ((4, 3), ["(batch, features)", "(4, 3)", "(batch, 3)", "(batch, …, 3)", "(…, 3)", "(4, …)", "(…)", "(…, 4, 3)"],
         ["(batch,)", "()", "(4, 4)", "(batch, 4)", "(batch, …, 4)", "(3, …)", "(a, b, …, c)", "(a, b, c)"]),
        ((2,), ["(n,)", "(2,)", "(…, n)", "(n, …)", "(…)"], ["()", "(3,)", "(n, m)", "(n, …, m)"]),
        ((), ["()", "(…)"], ["(n,)", "(…, n)"]),
    ],
)  # fmt: skip
def test_shapes_as_they_are_written(shape, fitting, wrong):
    for wanted in fitting:
        check_shape("x", np.ones(shape), wanted)
        jax.eval_shape(lambda x, wanted=wanted: check_shape("x", x, wanted), jax.ShapeDtypeStruct(shape, jnp.float32))
    for wanted in wrong:
        message = re.escape(f"expected x of shape {wanted}, got {shape}; reshape it.")
        with pytest.raises(ShapeError, match=f"^{message}$"):
            check_shape("x", np.ones(shape), wanted, "reshape it")


def test_multiples():
    check_multiple("rows", 6, 3, "the devices", "take fewer")
    with pytest.raises(ShapeError, match=r"^expected rows to be a multiple of 4, the devices, got 6; take fewer\.$"):
        check_multiple("rows", 6, 4, "the devices", "take fewer")
    with pytest.raises(ConfigError, match="^expected rows to be a multiple of 4"):
        check_multiple("rows", 6, 4, "the devices", "take fewer", ConfigError)


def test_alike():
    y = jax.ShapeDtypeStruct((4, 3), jnp.float32)
    check_like("dy", jnp.ones((4, 3)), y, "as y has", "reshape it")
    with pytest.raises(ShapeError, match=r"^expected dy of shape \(4, 3\) as y has, got \(3,\); reshape it\.$"):
        check_like("dy", jnp.ones(3), y, "as y has", "reshape it")
    with pytest.raises(
        ShapeError, match=r"^expected dy of shape \(4, 3\) as y has, got a list \[1\.0\]; reshape it\.$"
    ):
        check_like("dy", [1.0], y, "as y has", "reshape it")
    with pytest.raises(
        DtypeError, match="^expected dy of dtype float32 as y has, got float16; convert it with .astype"
    ):
        check_like("dy", jnp.ones((4, 3), jnp.float16), y, "as y has", "reshape it")


def test_one_shape():
    check_same_shape(jnp.ones((4, 1)), jnp.ones((4, 1)))
    with pytest.raises(ShapeError, match=r"^expected target of the shape of prediction, \(4, 1\), got \(4,\); reshape"):
        check_same_shape(jnp.ones((4, 1)), jnp.ones(4))


def test_lists_are_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(i) for i in range(8)]) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert listed([str(i) for i in range(9)]) == "0, 1, 2, 3, 4, 5, 6, 7, …"


def test_the_first_wrong_value():
    values = np.array([[1, 2], [3, -4], [-5, 6]])
    assert first_wrong(values, None, lambda v: v > 0) == "-4 at [1, 1]"
    assert first_wrong(values, np.array([True, False, True]), lambda v: v > 0) == "-5 at [2, 0]"
    assert first_wrong(values, None, lambda v: v.sum(-1) > 0) == "[ 3 -4] at row 1"
    assert first_wrong(values, None, lambda v: v < 10) is None
    assert first_wrong(jax.ShapeDtypeStruct((3, 2), jnp.float32), None, lambda v: v > 0) is None


def test_dtypes_that_jax_holds():
    for fine in (True, np.int64, np.uint8, np.float16, np.float64, np.complex64, jnp.bfloat16, jnp.int4):
        check_jax_holds("x", np.ones(2, bool if fine is True else fine))
    for other in (None, [1.0], "a", jnp.ones(2), jax.ShapeDtypeStruct((2,), jnp.float32)):
        check_jax_holds("x", other)
    for odd, name in ((">f4", "float32"), (">i2", "int16"), (np.longdouble, "float32"), (np.clongdouble, "complex64")):
        with pytest.raises(
            DtypeError, match=rf"^expected x of a dtype that jax has, got .*; convert it .*'{name}'\)\.$"
        ):
            check_jax_holds("x", np.ones(2, odd))
    for odd in ("U1", object, "M8[s]", [("a", "f4")]):
        with pytest.raises(DtypeError, match=r"^expected x of a dtype that jax has, got .* of NumPy; give numbers\.$"):
            check_jax_holds("x", np.zeros(2, odd))


@pytest.mark.parametrize("value, dtype", [(2**40, np.int64), (-(2**31) - 1, np.int64), (2**32, np.uint64)])
def test_integers_that_would_lose_their_first_bits(value, dtype):
    with pytest.raises(DtypeError, match=rf"^expected x of integers that u?int32 holds, got {value}; .*enable_x64"):
        check_jax_holds("x", np.array([0, value, 1], dtype))
    with pytest.raises(DtypeError, match=r"embedding\(4, 2\): expected x of integers that int32 holds"):
        layers.embedding(4, 2).apply({"embedding": jnp.ones((4, 2))}, (), np.array([[2**40]]))
    for fine in (np.array([2**31 - 1, -(2**31)]), np.array([2**32 - 1], np.uint64), np.zeros(0, np.int64)):
        check_jax_holds("x", fine)


def test_large_integers_are_held_in_64_bits(x64):
    check_jax_holds("x", np.array([2**40]))


def test_values_that_can_be_read():
    def of_traced(x):
        seen.append(is_concrete(x))
        return x

    seen = []
    jax.jit(of_traced)(jnp.ones(2))
    assert seen == [False]
    assert not is_concrete(jax.ShapeDtypeStruct((2,), jnp.float32))
    assert is_concrete(jnp.ones(2))
    assert is_concrete(np.ones(2))
