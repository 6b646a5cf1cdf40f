"""Meshes, rules and what a layout knows beforehand; its laws on eight devices run in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from funcnet import gradients, layers, losses, models, optimizers, parallel, training
from funcnet.errors import ConfigError, ShapeError
from funcnet.losses import prepare
from funcnet.trees import flatten_with_paths

ROOT = Path(__file__).parent.parent
P = PartitionSpec


def test_the_laws_hold_on_eight_devices():
    """In a process of its own, because the number of devices is fixed once JAX has started."""
    devices = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/eight_devices.py"]
    # The options of this run may choose tests, this one too.
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"} | devices
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


def mesh_of(**axes):
    """A mesh without devices, which is enough for rules."""
    return AbstractMesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def shapes_of(model, shape):
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))[0]


# Meshes


def test_a_mesh_of_one_device():
    mesh = parallel.mesh(model=1)
    assert dict(mesh.shape) == {"data": 1, "model": 1}
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)


@pytest.mark.parametrize(
    "axes, message",
    [
        ({"data": 0}, r"^mesh\(data=0\): expected data to be a positive integer, or -1, got 0\.$"),
        ({"model": 2.0}, r"^mesh\(data=-1, model=2.0\): expected model to be a positive integer, or -1, got 2.0\.$"),
        ({"model": -1}, "expected one axis of -1 at most, got data and model; give one a size.$"),
        ({"data": 2}, "expected sizes whose product is the 1 devices, got 2; give one axis the size -1, which takes"),
        ({"model": 2}, "expected sizes whose product divides the 1 devices, got 2; change one.$"),
    ],
)
def test_sizes_that_make_no_mesh(axes, message):
    with pytest.raises(ConfigError, match=message):
        parallel.mesh(**axes)


# Rules

PARAMS = shapes_of(models.mlp((32, 16, 10)), (1, 64))


def specs_of(rules, params=PARAMS, **axes):
    return dict(flatten_with_paths(parallel.specs(params, mesh_of(**(axes or {"data": 8})), rules)))


def test_the_first_rule_that_matches_decides():
    rules = [(r"0/kernel", P(None, "data")), (r"\d/kernel", parallel.replicate()), (".*", parallel.fsdp(min_bytes=100))]
    assert specs_of(rules) == {
        "0/bias": P("data"), "0/kernel": P(None, "data"), "2/bias": P(), "2/kernel": P(), "4/bias": P(), "4/kernel": P()
    }  # fmt: skip


def test_fsdp_splits_the_largest_free_dimension_of_large_leaves():
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
    assert specs_of([(".*", parallel.fsdp(min_bytes=512))], tree) == {
        "divides": P(None, "data"), "image": P(None, None, None, "data"), "largest": P("data"), "scalar": P(),
        "small": P(),
    }  # fmt: skip


def test_fsdp_splits_what_is_split_already_along_another_dimension_if_one_divides():
    tree = {name: jax.ShapeDtypeStruct(SHAPES[name], jnp.float32) for name in ("largest", "divides", "small")}
    rules = [("small", P()), ("largest", parallel.fsdp(min_bytes=0, spec=P("model")))]
    rules.append(("divides", parallel.fsdp(min_bytes=0, spec=P(None, "model"))))
    found = specs_of(rules, tree, data=8, model=2)
    assert found == {"divides": P(None, ("model", "data")), "largest": P("model", "data"), "small": P()}


SHAPES = {"largest": (64, 32), "divides": (100, 16), "small": (8, 8), "scalar": (), "image": (3, 3, 8, 16)}


@pytest.mark.parametrize(
    "rules, message",
    [
        ([(".*kernel", P())], 'expected a rule for 0/bias, an array of dtype float32 and shape .* with \\(".*", repl'),
        ([("kernel", P()), (".*", P())], "expected 'kernel' to match a leaf, got none of 0/bias, 0/kernel, .* whole"),
        (
            [(".*", P("data"))],
            r'expected dimension 0 of 4/bias, \(10,\), to be a multiple of 8, the devices along "data", got 10; give '
            r'it a rule above, \("4/bias", replicate\(\)\)',
        ),
        ([(".*", parallel.fsdp(min_bytes=0))], r'expected 4/bias of shape \(10,\) to have a dimension that the 8'),
        ([(".*", P(None, "data"))], r"expected 0/bias of shape \(32,\) to be split along its 1 dimensions at most"),
        ([(".*", P("rows"))], '^rules: 0/bias: expected an axis of the mesh, which has "data", got "rows".$'),
        ([(".*", parallel.fsdp("rows"))], '^fsdp: expected an axis of the mesh, which has "data", got "rows".$'),
        ([(".*", "data")], r"expected the partition of '.\*' to be replicate\(\), fsdp\(…\) or a Partit.*, got 'data'"),
        ([("(", P())], r"^rules: expected '\(' to be a regular expression, got an error: "),
        ([".*"], r"^rules: expected pairs such as "),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit(rules, message):
    with pytest.raises(ConfigError, match=message):
        specs_of(rules)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"axis": None}, "^fsdp: expected axis to be the name"),
        ({"min_bytes": -1}, "^fsdp: expected min_bytes to be an"),
    ],
)
def test_options_of_fsdp(options, message):
    with pytest.raises(ConfigError, match=message):
        parallel.fsdp(**options)


# The models of the library

IMAGES = (8, 16, 16, 3)
MODELS = {
    "gpt": (models.gpt(64, 16, blocks=2, features=32, heads=4), (8, 16), jnp.int32),
    "lenet": (models.lenet(), IMAGES),
    "linear": (models.linear(8), (8, 8)),
    "mlp": (models.mlp((16, 16, 10)), (8, 8)),
    "mobilenet": (models.mobilenet(), IMAGES),
    "perceptron": (models.perceptron(8), (8, 8)),
    "recurrent_classifier": (models.recurrent_classifier(8, features=(16, 16)), (8, 5, 8)),
    "resnet": (models.resnet(depth=8), IMAGES),
    "sigmoid_network": (models.sigmoid_network((8, 4)), (8, 8)),
    "softmax_regression": (models.softmax_regression(8), IMAGES),
    "vgg": (models.vgg(), IMAGES),
}


def test_every_model_has_a_row():
    assert set(MODELS) == set(models.__all__)


def held(params, specs, mesh):
    """Bytes of a device's part."""
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return parallel.show(params, shardings).device_bytes


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_split(name):
    """Over two devices the kernels are halved, all but what does not divide; fully sharded besides, in eighths."""
    model, shape, dtype = (*MODELS[name], jnp.float32)[:3]
    x, fsdp = jax.ShapeDtypeStruct(shape, dtype), parallel.fsdp(min_bytes=2048)
    params, mesh = jax.eval_shape(model.init, jax.random.key(0), x)[0], mesh_of(data=4, model=2)
    total = sum(leaf.size * 4 for leaf in jax.tree.leaves(params))
    halves = parallel.specs(params, mesh, parallel.tensor_parallel(model, x, mesh))
    assert held(params, halves, mesh) <= 0.55 * total
    eighths = parallel.specs(params, mesh, parallel.tensor_parallel(model, x, mesh, otherwise=fsdp))
    small = sum(leaf.size * 4 for leaf in jax.tree.leaves(params) if leaf.size * 4 < 2048)
    assert held(params, eighths, mesh) <= 0.13 * total + small


def test_kernels_take_turns():
    model = layers.serial(
        layers.conv(8, 3), layers.batch_norm(), layers.depthwise_conv(3), layers.conv(6, 1), layers.batch_norm(),
        layers.conv(5, 1), layers.flatten(), layers.dense(3),
    )  # fmt: skip
    x = jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32)
    mesh = mesh_of(data=1, model=2)
    specs = dict(parallel.tensor_parallel(model, x, mesh))
    assert specs == {
        "0/bias": P("model"), "0/kernel": P(None, None, None, "model"),  # by outputs
        "1/bias": P("model"), "1/scale": P("model"), "2/bias": P("model"), "2/kernel": P(None, None, None, "model"),
        "3/bias": P(), "3/kernel": P(None, None, "model", None),  # by inputs
        "4/bias": P(), "4/scale": P(),
        "5/bias": P(), "5/kernel": P(), "7/bias": P(), "7/kernel": P(),  # 5 and 3 do not divide
    }  # fmt: skip
    with pytest.raises(ConfigError, match='^tensor_parallel: expected an axis of the mesh, which has "data", got "mod'):
        parallel.tensor_parallel(model, x, mesh_of(data=2))


def test_attention_is_split_by_heads_and_tables_by_rows():
    model = layers.serial(
        layers.embedding(7, 4), layers.position_embedding(6), layers.attention(2, use_bias=True), layers.dense(2)
    )
    x, mesh = jax.ShapeDtypeStruct((1, 6), jnp.int32), mesh_of(data=1, model=2)
    assert dict(parallel.tensor_parallel(model, x, mesh)) == {
        "0/embedding": P(), "1/embedding": P("model", None),  # seven rows do not divide
        "2/query_kernel": P(None, "model"), "2/key_kernel": P(None, "model"), "2/value_kernel": P(None, "model"),
        "2/query_bias": P("model"), "2/value_bias": P("model"), "2/out_kernel": P("model", None), "2/out_bias": P(),
        "3/kernel": P(None, "model"), "3/bias": P("model"),
    }  # fmt: skip


# Whether a gradient is the mean of its parts'

ROWS = {"(batch, 3)": jnp.zeros((8, 3)), "labels": jnp.zeros(8, jnp.int32), "words": jnp.ones((8, 1), jnp.int32)}
LOSSES = {
    "binary_cross_entropy": "(batch, 3)", "binary_cross_entropy_with_logits": "(batch, 3)", "cross_entropy": "labels",
    "ctc": "words", "dice": "labels", "half_squared_error": "(batch, 3)", "huber": "(batch, 3)",
    "linear_cross_entropy": "labels",
    "log_cosh": "(batch, 3)", "mean_absolute_error": "(batch, 3)", "mean_squared_error": "(batch, 3)",
    "multiclass_hinge": "labels",
    "negative_log_likelihood": "labels", "root_mean_squared_error": "(batch, 3)", "smooth_l1": "(batch, 3)",
    "softmax_cross_entropy": "labels",
}  # fmt: skip


def is_mean(model, loss, target="(batch, 3)", *, masked=False, key=None, **options):
    batch = (jnp.zeros((8, 4)), ROWS[target], *([jnp.ones(8, bool)] if masked else []))
    params, state = model.init(jax.random.key(0), batch[0])
    return parallel.mean_over_rows(gradients.autodiff(model, loss, **options), params, state, batch, key)


def test_every_loss_has_a_row():
    assert set(LOSSES) == {name for name in losses.__all__ if isinstance(getattr(losses, name), losses.Loss)}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_are_means_over_rows(name):
    outputs = {
        "binary_cross_entropy": layers.sigmoid(), "cross_entropy": layers.softmax(), "dice": layers.softmax(),
        "negative_log_likelihood": layers.log_softmax(), "ctc": layers.reshape((1, 3)),
    }  # fmt: skip
    model = layers.serial(layers.dense(3), outputs.get(name, layers.identity()))
    if name == "linear_cross_entropy":
        model = layers.deferred(layers.dense(3, use_bias=False))
    loss = getattr(losses, name)
    if loss is losses.ctc:  # random labels are 0 and 1
        loss = losses.partial(losses.ctc, blank=2)
    assert is_mean(model, loss, LOSSES[name], masked=True) == (loss.counted is not None)


def hardest(prediction, target):
    """Of the hardest half of the rows only."""
    return jnp.mean(jnp.sort(jnp.sum(jnp.square(prediction - target), -1))[len(target) // 2 :])


def summed(prediction, target):
    return jnp.sum(jnp.square(prediction - target))


def later_rows_weigh_more(prediction, target):
    return jnp.mean(jnp.arange(len(target), dtype=target.dtype)[:, None] * jnp.square(prediction - target))


def balanced(prediction, target):
    """Weighted by classes, and divided by the weights."""
    weights = jnp.where(target == 0, 1.0, 3.0)
    values = losses.softmax_cross_entropy(prediction, target, reduction="none")
    return jnp.sum(weights * values) / jnp.sum(weights)


@losses.loss()
def cubic(prediction, target, *, reduction="mean", where=None):
    p, t, over = prepare(cubic, prediction, target, reduction, where)
    return over.reduce(jnp.abs(p - t) ** 3)


@pytest.mark.parametrize(
    "loss, target, expected",
    [
        (cubic, "(batch, 3)", True),
        (lambda p, t: jnp.mean(jnp.square(p - t)), "(batch, 3)", True),
        (hardest, "(batch, 3)", False),
        (summed, "(batch, 3)", False),
        (later_rows_weigh_more, "(batch, 3)", False),
        (balanced, "labels", False),
        (lambda p, t: jnp.mean(jnp.square(p - t[0])), "(batch, 3)", False),
        (lambda p, t: jnp.mean(jnp.square(p[:8] - jnp.zeros((8, 3)))), "(batch, 3)", False),  # runs for 8 rows only
    ],
)
def test_losses_of_ones_own(loss, target, expected):
    assert is_mean(models.linear(3), loss, target) == expected


CENTRED = layers.elementwise(lambda x: x - jnp.mean(x, 0), derivative=lambda x, y: jnp.ones_like(x))
UNUSED_KEYS = layers.repeat(layers.serial(layers.dense(4), layers.recompute(layers.tanh())), 2)


@pytest.mark.parametrize(
    "model, expected",
    [
        (layers.serial(UNUSED_KEYS, layers.dense(3)), True),
        (layers.serial(layers.dense(4), layers.layer_norm(), layers.dense(3)), True),
        (layers.serial(layers.dropout(1e-6), layers.dense(3)), False),
        (layers.serial(layers.batch_norm(), layers.dense(3)), False),
        (layers.serial(CENTRED, layers.dense(3)), False),
    ],
)
def test_models_whose_rows_keep_to_themselves(model, expected):
    key, penalty = jax.random.key(0), losses.l2_penalty
    assert is_mean(model, losses.mean_squared_error, key=key, penalty=penalty) == expected


def test_half_precision_is_judged_in_float32():
    model, x = models.mlp((8, 3)), jnp.zeros((8, 4), jnp.bfloat16)
    params, _ = model.init(jax.random.key(0), x)
    gradient = gradients.backprop(model, losses.mean_squared_error)
    assert parallel.mean_over_rows(gradient, params, ((), (), ()), (x, jnp.zeros((8, 3), jnp.bfloat16)))


def test_it_can_be_asked_within_a_trace():
    model, found = models.linear(3), []
    gradient = gradients.autodiff(model, losses.mean_squared_error)

    @jax.jit
    def body(i, carry):
        params, batch, key = carry
        found.append(parallel.mean_over_rows(gradient, params, (), batch, key))
        return carry

    batch = (jnp.zeros((8, 4)), jnp.zeros((8, 3)))
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        jax.jit(lambda *carry: jax.lax.fori_loop(0, 2, body, carry))(model.init(key, batch[0])[0], batch, key)
    assert found == [True, True]


# Layouts


def test_on_one_device_a_layout_changes_nothing():
    gradient = gradients.autodiff(models.linear(3), losses.mean_squared_error)
    assert parallel.layout(parallel.mesh()).gradient(gradient) is gradient


def test_a_step_donates_no_array_of_the_callers():
    model, optimizer, x = models.linear(3), optimizers.sgd(0.1), np.ones((4, 2), np.float32)
    layout = parallel.layout(parallel.mesh())
    state = training.create_state(model, optimizer, 0, x)
    gradient = layout.gradient(gradients.backprop(model, losses.mean_squared_error))
    step = parallel.compile_step(training.train_step(gradient, optimizer), layout)
    moved, _ = step(layout.place_state(state), (x, np.zeros((4, 3), np.float32)))
    assert int(moved.optimizer.step) == 1
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_equal_layouts_are_one():
    rules = [(".*", parallel.fsdp())]
    assert parallel.layout(parallel.mesh(), rules) is parallel.layout(parallel.mesh(), list(rules))


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((None,), {}, r"^layout: expected mesh to be one of parallel.mesh\(…\), got None\.$"),
        ((), {"data": "rows"}, '^layout: expected an axis of the mesh, which has "data", got "rows".$'),
        ((), {"flat": "yes"}, "^layout: expected flat to be True, False or None, got 'yes'.$"),
        (([(".*", None)],), {}, r"^rules: expected the partition of '\.\*' to be replicate"),
    ],
)
def test_what_makes_no_layout(arguments, options, message):
    mesh = () if arguments == (None,) else (parallel.mesh(),)
    with pytest.raises(ConfigError, match=message):
        parallel.layout(*mesh, *arguments, **options)


def test_batches_without_rows():
    with pytest.raises(ShapeError, match="^global_batch: expected arrays with rows, got a scalar.$"):
        parallel.global_batch(np.float32(1), parallel.mesh())
    with pytest.raises(
        ShapeError, match='expected rows to be a multiple of the 1 devices along "data", got 0; nearest: 1'
    ):
        parallel.global_batch(np.zeros((0, 3)), parallel.mesh())
