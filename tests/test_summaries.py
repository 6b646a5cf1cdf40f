"""Summaries: every number here is counted by hand. float32 takes 4 bytes, a mask 1 a number, a PRNG key 8."""

import jax
import jax.numpy as jnp
import pytest

import funcnet as fn
from funcnet.catalogue import embedding, highway
from funcnet.errors import ConfigError, ShapeError
from funcnet.layers import (
    dense,
    dropout,
    each,
    flatten,
    gated,
    held,
    layer_norm,
    parallel,
    recompute,
    relu,
    repeat,
    residual,
    serial,
    tanh,
)
from funcnet.made import constructor
from funcnet.summaries import Row, Summary, residual_bytes, summary
from funcnet.trees import flatten_with_paths, total_bytes, total_size
from funcnet.types import Padded

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


@pytest.mark.parametrize(
    "width, head, gone",
    [
        (40, "path layer parameters", "dtype, bytes, residual bytes, output"),
        (60, "path layer output parameters", "dtype, bytes, residual bytes"),
        (80, "path layer output parameters bytes residual bytes", "dtype"),
        (100, "path layer output dtype parameters bytes residual bytes", ""),
    ],
)
def test_a_table_fits_the_terminal(width, head, gone):
    """Names are cut off, and then columns are left out, all of which are named."""
    layers = (fn.layers.conv(32, 3, use_bias=False), fn.layers.batch_norm(), relu(), flatten(), dense(10))
    table = summary(serial(*layers), jax.ShapeDtypeStruct((32, 8, 8, 1), jnp.float32))
    lines = table.text(width).splitlines()
    assert max(map(len, lines)) <= width
    assert " ".join(lines[0].split()) == head
    note = f"note: {gone}: left out to keep within {width} characters." if gone else ""
    assert " ".join(" ".join(lines[9:]).split()) == note
    assert lines[8].split() == ["total", *("20,842", "83,368", "794,880")[: 3 if "bytes" in head else 1]]
    assert table.text(200) == str(table)


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
def test_a_container_that_is_not_opened_and_a_lone_layer_are_one_row(layer, parameters, kept):
    (row,) = summary(layer, X16, depth=0).rows
    assert (row.path, row.name, row.parameters, row.residual_bytes) == ("", str(layer), parameters, kept)
    assert residual_bytes(layer, X16) == kept


DEEP = serial(
    trunk=repeat(residual(serial(dense(16), tanh())), 3),
    body=highway(recompute(serial(dense(16), tanh())), serial(dense(16), dropout(0.5))),
    head=parallel(ink=gated(dense(1)), digit=held(dense(10))),
)


def test_every_container_is_opened_in_the_order_of_the_call():
    """What a container holds itself stands in its row: recompute its input and the key, highway x, f(x) and s(x)."""
    block = 4 * 32 * 16
    digits = {"ink": (32, 16), "digit": (32, 10)}
    assert summary(DEEP, X16).rows == (
        Row("trunk", "repeat(…, 3)", (32, 16), "float32", 0, 0, 0, 0),
        Row("trunk", "residual(…)", (32, 16), "float32", 0, 0, 0, 1),
        Row("trunk/0/0", "dense(16)", (32, 16), "float32", 3 * 272, 4 * 3 * 272, 3 * block, 2),
        Row("trunk/0/1", "tanh()", (32, 16), "float32", 0, 0, 3 * block, 2),
        Row("body", "highway(…, …)", (32, 16), "float32", 0, 0, 3 * block, 0),
        Row("body/0", "recompute(…)", (32, 16), "float32", 0, 0, block + 8, 1),
        Row("body/0/0", "dense(16)", (32, 16), "float32", 272, 4 * 272, 0, 2),
        Row("body/0/1", "tanh()", (32, 16), "float32", 0, 0, 0, 2),
        Row("body/1/0", "dense(16)", (32, 16), "float32", 272, 4 * 272, block, 1),
        Row("body/1/1", "dropout(0.5)", (32, 16), "float32", 0, 0, 32 * 16, 1),
        Row("head", "parallel(ink=…, digit=…)", digits, "float32", 0, 0, 0, 0),
        Row("head/ink", "gated(…)", (32, 16), "float32", 0, 0, block + 4 * 32, 1),  # x and the gates
        Row("head/ink", "dense(1)", (32, 1), "float32", 17, 4 * 17, block, 2),
        Row("head/digit", "held(…)", (32, 10), "float32", 0, 0, 0, 1),
        Row("head/digit", "dense(10)", (32, 10), "float32", 170, 4 * 170, block, 2),
    )


def test_a_deep_table_shows_what_is_in_what():
    lines = str(summary(DEEP, X16)).splitlines()
    assert [line[:38] for line in lines[2:6]] == [
        "trunk       repeat(…, 3)              ",
        "trunk         residual(…)             ",
        "trunk/0/0       dense(16)             ",
        "trunk/0/1       tanh()                ",
    ]
    assert "head        parallel(ink=…, digit=…)  {'ink': (32, 16), 'digit': (32, 10)}" in str(summary(DEEP, X16))


@pytest.mark.parametrize(
    "depth, names",
    [
        (0, [str(DEEP)]),
        (1, [str(DEEP.inside.layers[i]) for i in range(3)]),
        (2, ["repeat(…, 3)", "residual(serial(dense(16), tanh()))", "highway(…, …)",
             "recompute(serial(dense(16), tanh()))", "serial(dense(16), dropout(0.5))", "parallel(ink=…, digit=…)",
             "gated(dense(1))", "held(dense(10))"]),
    ],
)  # fmt: skip
def test_containers_are_opened_to_a_depth(depth, names):
    assert [row.name for row in summary(DEEP, X16, depth=depth).rows] == names


def test_another_depth_is_named():
    with pytest.raises(ConfigError, match=r"^summary: expected depth to be an integer >= 0, got -1"):
        summary(DEEP, X16, depth=-1)


@constructor
def own_block(width):
    """A container that makes its layers itself."""

    def walk(run, x):
        return run(1, run(0, x)), None

    def back(run, kept, dy):
        return run(0, run(1, dy))

    return fn.layers.container((serial(dense(width), tanh()), layer_norm()), walk, back)


def two_of(inner):
    """A layer whose backward is autodiff's, which says what it runs."""

    def init(key, x):
        params, state = zip(*(inner.init(key, x) for _ in range(2)), strict=True)
        return params, state

    def apply(params, state, x, *, key=None, train=False):
        for p, s in zip(params, state, strict=True):
            x, _ = inner.apply(p, s, x)
        return x, state

    return fn.gradients.automatic(init, apply, inside=(inner, inner))


@fn.constructor
def around(inner):
    """A layer that runs one inside: params and state are those of the inner layer."""

    def apply(params, state, x, *, key=None, train=False):
        return inner.apply(params, state, x, key=key, train=train)

    return fn.gradients.automatic(inner.init, apply, inside=(inner,))


@pytest.mark.parametrize("depth", [None, 0, 1, 2])
@pytest.mark.parametrize(
    "model, x",
    [
        (DEEP, X16),
        (MODEL, X),
        (repeat(repeat(recompute(residual(dense(16))), 2), 3), X16),
        (serial(own_block(16), dropout(0.1)), X16),
        (serial(two_of(dense(16)), tanh()), X16),
        (serial(around(dense(16)), tanh()), X16),
        (each(row=serial(tanh(), dense(2)), words=embedding(9, 4)),
         {"words": jax.ShapeDtypeStruct((32, 5), jnp.int32), "row": X16}),
        (serial(dense(4), residual(tanh())),
         Padded(jax.ShapeDtypeStruct((8, 5, 3), jnp.float32), jax.ShapeDtypeStruct((8, 5), bool))),
        (fn.models.resnet(10, depth=8, features=4), jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)),
    ],
    ids=["deep", "model", "repeats", "own", "automatic", "around", "each", "padded", "resnet"],
)  # fmt: skip
def test_the_totals_are_those_of_the_model(model, x, depth):
    found = summary(model, x, depth=depth)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    assert (found.parameters, found.parameter_bytes) == (total_size(params), total_bytes(params))
    assert found.residual_bytes == residual_bytes(model, x)
    paths = {path.rpartition("/")[0] for path, _ in flatten_with_paths(params)}
    assert {row.path for row in found.rows if row.parameters} >= (paths if depth is None else set())


def test_containers_that_make_their_layers_are_opened_too():
    assert [(row.path, row.name) for row in summary(own_block(16), X16).rows] == [
        ("", "own_block(16)"), ("0/0", "dense(16)"), ("0/1", "tanh()"), ("1", "layer_norm()"),
    ]  # fmt: skip


def test_what_a_layer_only_says_that_it_runs_has_no_output():
    around, first, second = summary(two_of(dense(16)), X16).rows
    assert (around.shape, around.parameters) == ((32, 16), 0)
    assert (first.path, first.shape, first.parameters, second.path) == ("0", None, 272, "1")


def test_what_is_called_serial_is_not_taken_for_it():
    @constructor
    def serial(inner):
        return fn.layers.container(inner, lambda run, x: (run(0, x), None), lambda run, kept, dy: run(0, dy))

    assert [row.name for row in summary(serial(dense(2)), X16).rows] == ["serial(…)", "dense(2)"]


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
    def forward(params, state, x, *, key=None, train=False):
        return {"whole": x.astype(jnp.int32), "even": x}, state, None

    split = fn.layers.layer(forward, lambda params, residuals, dy: ((), dy["even"]))
    (row,) = summary(split, X16).rows
    assert row.shape == {"whole": (32, 16), "even": (32, 16)}
    assert list(row.shape) == ["whole", "even"]  # as the layer gives it
    assert row.dtype == "int32, float32"


def test_long_names_are_cut_in_the_table_only():
    deep = residual(serial(*[dense(16)] * 9))
    made = summary(deep, X16, depth=0)
    assert made.rows[0].name == str(deep)
    assert "residual(serial(dense(16), dense(16), d…  (32, 16)" in str(made)


def test_an_empty_summary():
    assert Summary(()).parameters == 0
    assert str(Summary(())).splitlines()[-1].split() == ["total", "0", "0", "0"]


def test_a_model_that_does_not_fit_says_where():
    with pytest.raises(
        ShapeError,
        match=r"serial\[0\] dense\(3\): expected x of shape \(batch, …, features\), got \(4,\); add the batch",
    ):
        summary(serial(dense(3)), jax.ShapeDtypeStruct((4,), jnp.float32))


def test_a_bias_before_a_batch_norm_is_noted():
    block = fn.layers.serial(fn.layers.conv(3, 3), fn.layers.batch_norm(), fn.layers.relu())
    model = fn.layers.serial(
        block, fn.layers.flatten(), fn.layers.dense(2, use_bias=False), fn.layers.batch_norm(), fn.layers.dense(1)
    )
    found = summary(model, jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.float32))
    assert found.notes == (
        "the bias of 0/0 conv(3, 3) changes nothing, as batch_norm() subtracts it; take use_bias=False.",
    )
    assert str(found).splitlines()[-1] == f"note: {found.notes[0]}"
