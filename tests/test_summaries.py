"""Summaries: every number here is counted by hand. float32 takes 4 bytes, a mask 1 a number, a PRNG key 8."""

import jax
import jax.numpy as jnp
import pytest

import funcnet as fn
from funcnet.errors import ShapeError
from funcnet.layers import dense, dropout, flatten, parallel, recompute, relu, repeat, residual, serial, tanh
from funcnet.summaries import Row, Summary, residual_bytes, summary
from funcnet.trees import total_bytes, total_size

X = jax.ShapeDtypeStruct((32, 8, 8), jnp.float32)
MODEL = serial(flatten(), serial(dense(16), relu()), dropout(0.5), dense(10))

ROWS = (
    # path, name, output, dtype, parameters, bytes, residual bytes
    Row("0", "flatten()", (32, 64), "float32", 0, 0, 0),
    Row("1/0", "dense(16)", (32, 16), "float32", 64 * 16 + 16, 4 * 1040, 32 * 64 * 4),  # keeps x
    Row("1/1", "relu()", (32, 16), "float32", 0, 0, 32 * 16 * 4),  # keeps y
    Row("2", "dropout(0.5)", (32, 16), "float32", 0, 0, 32 * 16 * 1),  # keeps its mask
    Row("3", "dense(10)", (32, 10), "float32", 16 * 10 + 10, 4 * 170, 32 * 16 * 4),
)


def test_one_row_a_layer():
    assert summary(MODEL, X).rows == ROWS


def test_totals():
    totals = summary(MODEL, X)
    assert totals.parameters == 1040 + 170
    assert totals.parameter_bytes == 4 * 1210
    assert totals.residual_bytes == 8192 + 2048 + 512 + 2048


def test_the_table():
    assert str(summary(MODEL, X)).splitlines() == [
        "path  layer         output    dtype    parameters  bytes  residual bytes",
        "------------------------------------------------------------------------",
        "0     flatten()     (32, 64)  float32           0      0               0",
        "1/0   dense(16)     (32, 16)  float32       1,040  4,160           8,192",
        "1/1   relu()        (32, 16)  float32           0      0           2,048",
        "2     dropout(0.5)  (32, 16)  float32           0      0             512",
        "3     dense(10)     (32, 10)  float32         170    680           2,048",
        "------------------------------------------------------------------------",
        "      total                                 1,210  4,840          12,800",
    ]


X16 = jax.ShapeDtypeStruct((32, 16), jnp.float32)


@pytest.mark.parametrize(
    "layer, parameters, kept",
    [
        (residual(serial(dense(16), tanh())), 272, 2048 + 2048),
        (parallel(dense(5), dense(6), combine="concatenate"), 85 + 102, 2048 + 2048),
        (repeat(serial(dense(16), tanh()), 3), 3 * 272, 3 * (2048 + 2048)),
        (recompute(serial(dense(16), tanh())), 272, 2048 + 8),  # x and the key
        (serial(), 0, 0),
        (dense(16), 272, 2048),
    ],
    ids=str,
)
def test_any_other_container_and_a_lone_layer_are_one_row(layer, parameters, kept):
    (row,) = summary(layer, X16).rows
    assert (row.path, row.name, row.parameters, row.residual_bytes) == ("", str(layer), parameters, kept)
    assert residual_bytes(layer, X16) == kept


def test_residual_bytes_by_mode():
    assert residual_bytes(MODEL, X) == 12_800
    assert residual_bytes(MODEL, X, train=False) == 12_800 - 512  # no mask
    assert residual_bytes(MODEL, jax.ShapeDtypeStruct((64, 8, 8), jnp.float32)) == 2 * 12_800


def test_residual_bytes_are_those_of_the_arrays():
    x = jnp.ones(X.shape)
    params, state = MODEL.init(jax.random.key(0), x)
    _, _, residuals = MODEL.forward(params, state, x, key=jax.random.key(1), train=True)
    assert residual_bytes(MODEL, x) == total_bytes(residuals)
    assert summary(MODEL, x).parameters == total_size(params)


def test_nothing_is_computed():
    """A terabyte of parameters has a summary."""
    wide = summary(serial(dense(500_000), dense(500_000)), jax.ShapeDtypeStruct((1, 3), jnp.float32))
    assert wide.parameter_bytes == 4 * (500_000 * 3 + 500_000 + 500_000**2 + 500_000)


def test_half_precision_and_raw_keys():
    x = jax.ShapeDtypeStruct((32, 16), jnp.bfloat16)
    (row,) = summary(dense(16), x, jax.random.PRNGKey(0)).rows
    assert (row.dtype, row.parameter_bytes, row.residual_bytes) == ("bfloat16", 2 * 272, 2 * 512)


def test_an_output_that_is_a_tree():
    def init(key, x):
        return (), ()

    def forward(params, state, x, *, key=None, train=False):
        return {"even": x, "whole": x.astype(jnp.int32)}, state, None

    split = fn.layers.layer(init, forward, lambda params, residuals, dy: ((), dy["even"]), name="split()")
    (row,) = summary(split, X16).rows
    assert row.shape == {"even": (32, 16), "whole": (32, 16)}
    assert row.dtype == "float32, int32"


def test_long_names_are_cut_in_the_table_only():
    deep = residual(serial(*[dense(16)] * 9))
    made = summary(deep, X16)
    assert made.rows[0].name == str(deep)
    assert "residual(serial(dense(16), dense(16), d…  (32, 16)" in str(made)


def test_an_empty_summary():
    assert Summary(()).parameters == 0
    assert str(Summary(())).splitlines()[-1].split() == ["total", "0", "0", "0"]


def test_a_model_that_does_not_fit_says_where():
    with pytest.raises(
        ShapeError, match=r"serial\[0\] dense\(3\): expected x of shape \(batch, features\), got \(4,\)"
    ):
        summary(serial(dense(3)), jax.ShapeDtypeStruct((4,), jnp.float32))
