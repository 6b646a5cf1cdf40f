"""Laws of layouts on eight devices, which `test_parallel.py` runs in a process of its own.

By hand: XLA_FLAGS=--xla_force_host_platform_device_count=8 pytest tests/eight_devices.py
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from funcnet import gradients, layers, losses, metrics, models, optimizers, parallel, training, trees
from funcnet.errors import ConfigError, DataError, ShapeError
from funcnet.parallel.step import program_of
from funcnet.trees import flatten_with_paths, total_bytes
from funcnet.types import Padded

ENGINES = {"autodiff": gradients.autodiff, "backprop": gradients.backprop}
FSDP = [(".*kernel", parallel.fsdp(min_bytes=0)), (".*", parallel.replicate())]


def mesh_of(n, **axes):
    return parallel.mesh(devices=jax.devices()[:n], **axes)


def digits(rows=16, features=8, classes=8, dtype=np.float32):
    random = np.random.default_rng(0)
    return random.normal(size=(rows, features)).astype(dtype), random.integers(0, classes, rows).astype(np.int32)


@functools.cache  # one model, one compiled start
def mlp(dropout=0.0):
    return models.mlp((16, 8), activation=layers.tanh, dropout=dropout)


def flat(n):
    return parallel.layout(mesh_of(n), flat=True)


def automatic(n):
    return parallel.layout(mesh_of(n), flat=False)


def fsdp(n):
    return parallel.layout(mesh_of(n), FSDP)


def tensor_parallel(n):
    mesh = mesh_of(n, data=1, model=n)
    return parallel.layout(mesh, parallel.tensor_parallel(mlp(), digits()[0], mesh))


def data_and_model(n):
    mesh = mesh_of(n, model=2)
    otherwise = parallel.fsdp(min_bytes=256)
    return parallel.layout(mesh, parallel.tensor_parallel(mlp(), digits()[0], mesh, otherwise=otherwise))


LAYOUTS = [flat, automatic, fsdp, tensor_parallel, data_and_model]


def initial(model, x):
    shape = jax.ShapeDtypeStruct(x.shape, jnp.asarray(x).dtype)
    return lambda key: training.create_state(model, optimizers.adam(1e-2), key, shape)


def losses_of(model, layout, engine, batch, steps, **options):
    """The losses of some steps, which run in one compiled loop over data that the layout has placed."""
    gradient = ENGINES[engine](model, losses.softmax_cross_entropy, **options)
    if layout is None:

        def place(state):
            return state

    else:
        place, batch, gradient = layout.place_state, layout.place_data(batch), layout.gradient(gradient)
    state = place(initial(model, batch[0])(jax.random.key(0)))
    step = training.train_step(gradient, optimizers.adam(1e-2))

    @jax.jit
    def loop(state, batch):
        order = jnp.roll(jnp.arange(len(batch[0])), 1)

        def body(i, carry):
            state, rows, found = carry
            state, metrics = step(state, tuple(array[rows] for array in batch))
            return place(state), rows[order], found.at[i].set(metrics["loss"])

        start = (state, order, jnp.zeros(steps, batch[0].dtype))
        return jax.lax.fori_loop(0, steps, body, start)[::2]

    state, found = loop(state, batch)
    return state, np.asarray(found)


def worst(found, expected):
    return max(map(_distance, jax.tree.leaves(found), jax.tree.leaves(expected)))


def _distance(a, b):
    return float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)), initial=0))


@pytest.fixture(scope="module")
def one_device():
    """The losses of a hundred steps on one device."""
    return losses_of(mlp(), None, "backprop", digits(), 100)[1]


DEVICES = {flat: (1, 2, 4, 8), automatic: (8,), fsdp: (2, 4, 8), tensor_parallel: (2, 8), data_and_model: (4, 8)}


@pytest.mark.parametrize("layout, n", [(layout, n) for layout in LAYOUTS for n in DEVICES[layout]])
def test_a_hundred_steps_are_those_of_one_device(layout, n, one_device):
    engine = "autodiff" if n == 4 else "backprop"
    _, found = losses_of(mlp(), layout(n), engine, digits(), 100)
    assert found[-1] < 0.2 * found[0]
    np.testing.assert_allclose(found, one_device, rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_float64_they_are_so_to_the_last_digits(layout, engine, x64):
    found = gradient_of(mlp(), layout(4), engine, digits(dtype=np.float64), penalty=PENALTY)
    assert worst(found, alone_in_float64(engine)) <= 1e-14


PENALTY = losses.partial(losses.l2_penalty, strength=0.1)


@functools.cache
def alone_in_float64(engine):
    return gradient_of(mlp(), None, engine, digits(dtype=np.float64), penalty=PENALTY)


def gradient_of(model, layout, engine, batch, loss=losses.softmax_cross_entropy, **options):
    """Loss, gradient, new state and prediction of one batch, within `jit`."""
    params, state = model.init(jax.random.key(1), batch[0])
    gradient = ENGINES[engine](model, loss, **options)
    gradient = gradient if layout is None else layout.gradient(gradient)
    return jax.jit(gradient)(params, state, batch, jax.random.key(2))


@pytest.mark.parametrize("engine", ENGINES)
def test_masked_rows_and_penalties_count_as_on_one_device(engine, x64):
    x, y = digits(dtype=np.float64)
    params, state = mlp().init(jax.random.key(1), x)
    gradient = ENGINES[engine](mlp(), losses.softmax_cross_entropy, penalty=PENALTY)
    alone, *spread = (jax.jit(one) for one in (gradient, flat(8).gradient(gradient), automatic(8).gradient(gradient)))
    rows = np.arange(16)
    for where in (rows % 3 == 0, rows < 3, rows < 0):  # scattered, none on most devices, none at all
        for one in spread:
            assert worst(one(params, state, (x, y, where)), alone(params, state, (x, y, where))) <= 1e-14


@pytest.mark.parametrize("engine", ENGINES)
def test_trees_of_inputs_and_heads_count_as_on_one_device(x64, engine):
    """Two inputs, two heads in a weighted sum, one masked, one weighted; classes with weights of their own."""
    random = np.random.default_rng(0)
    x = {"image": jnp.asarray(random.normal(size=(16, 4, 2))), "row": jnp.asarray(random.normal(size=(16, 3)))}
    target = {"digit": np.arange(16) % 3, "ink": jnp.asarray(random.normal(size=(16, 1)))}
    towers = layers.each(image=layers.serial(layers.flatten(), layers.dense(5)), row=layers.dense(5))
    join = layers.serial(towers, added(), layers.tanh())
    model = layers.serial(trunk=join, heads=layers.parallel(digit=layers.dense(3), ink=layers.dense(1)))
    digit = losses.partial(losses.softmax_cross_entropy, class_weights=(1.0, 2.0, 0.5))
    loss = losses.weighted_sum(digit=(1.0, digit), ink=(0.5, losses.huber))
    where, weights = {"digit": np.arange(16) % 5 < 2}, {"ink": jnp.arange(16.0)}
    batch = (x, target, where, weights)
    params, state = model.init(jax.random.key(0), x)
    gradient = ENGINES[engine](model, loss, penalty=losses.partial(losses.l2_penalty, strength=0.1))
    alone = jax.jit(gradient)(params, state, batch)
    for layout in (flat(8), automatic(8), parallel.layout(mesh_of(8), flat=True)):
        spread = jax.jit(layout.gradient(gradient))(params, state, layout.place_batch(batch))
        assert worst((spread.loss, spread.grads), (alone.loss, alone.grads)) <= 1e-12
    accumulated = jax.jit(flat(4).gradient(gradients.accumulated(gradient, 2)))(params, state, batch)
    assert worst((accumulated.loss, accumulated.grads), (alone.loss, alone.grads)) <= 1e-12


@pytest.mark.parametrize("engine", ENGINES)
def test_fit_of_trees_and_padding_is_that_of_one_device(x64, engine):
    """Through `fit`: an incomplete last batch, parts of a loss of which one is masked, and sequences with padding."""
    random = np.random.default_rng(0)
    x = {"image": random.normal(size=(20, 4)), "row": random.normal(size=(20, 3))}
    target = {"digit": np.arange(20) % 3, "ink": random.normal(size=(20, 1))}
    towers = layers.each(image=layers.dense(5), row=layers.dense(5))
    heads = layers.serial(towers, added(), layers.parallel(digit=layers.dense(3), ink=layers.dense(1)))
    both = losses.weighted_sum(digit=(1.0, losses.softmax_cross_entropy), ink=(0.5, losses.huber))
    words = Padded(random.normal(size=(20, 6, 3)), np.arange(6) < (np.arange(20) % 7)[:, None])
    tagger = layers.serial(layers.dense(4), layers.tanh(), layers.dense(3))
    thin = layers.serial(layers.dense(4), layers.tanh(), layers.deferred(layers.dense(3, use_bias=False)))
    unaligned = Padded(random.integers(1, 3, (20, 2)), np.arange(2) < (np.arange(20) % 7 // 2)[:, None])
    reader = layers.serial(layers.bidirectional(layers.lstm(4)), layers.last(), layers.dense(3))
    for model, loss, rows in (
        (reader, losses.softmax_cross_entropy, (words, random.integers(0, 3, 20))),
        (heads, both, (x, target, {"ink": np.arange(20) % 2 == 0})),
        (tagger, losses.softmax_cross_entropy, (words, random.integers(0, 3, (20, 6)))),
        (tagger, losses.ctc, (words, unaligned)),
        (thin, losses.linear_cross_entropy, (words, random.integers(0, 3, (20, 6)))),
    ):
        found = []
        for layout in (None, flat(8), automatic(4)):
            reports = training.fit(
                model, loss, optimizers.adam(1e-2), rows, engine=engine, epochs=3, batch_size=8, layout=layout
            )
            *_, last = reports
            found.append((last.metrics, last.state.optimizer.params))
        assert all(worst(one, found[0]) <= 1e-10 for one in found[1:])


def added():
    """The sum of the entries of a dictionary."""

    def forward(x, *, key, train):
        return sum(x.values()), {name: trees.keep_shape(one) for name, one in x.items()}

    return layers.parameterless(forward, lambda names, dy: dict.fromkeys(names, dy), trees=True)


def test_graphs_of_any_size_are_refused_on_several_devices():
    batch = ({"nodes": jnp.ones((24, 3)), "edges": jnp.ones((40, 2))}, jnp.ones((16, 1)))
    with pytest.raises(
        ShapeError, match=r"layout: expected the same number of rows in every array .* 40 at 0/edges and 24 at 0/nodes"
    ):
        flat(8).place_batch(batch)


def test_the_flat_way_sums_one_buffer_and_leaves_predictions_where_they_are():
    batch, model = digits(), mlp()
    params, state = model.init(jax.random.key(0), batch[0])
    for layout, sums in ((automatic(4), 0), (parallel.layout(mesh_of(4)), 1)):
        gradient = layout.gradient(gradients.backprop(model, losses.softmax_cross_entropy))
        program = str(jax.make_jaxpr(gradient)(params, state, batch, jax.random.key(0)))
        assert program.count("psum") == sums
    assert jax.jit(gradient)(params, state, batch).prediction.sharding.spec == PartitionSpec("data")


# Where rows meet: the automatic way, found by itself

MEETING = {
    "batch_norm": (
        layers.serial(layers.dense(8, use_bias=False), layers.batch_norm(), layers.relu(), layers.dense(8)),
        {},
    ),
    "dropout": (mlp(dropout=0.5), {}),
    "root": (models.linear(8), {"loss": losses.root_mean_squared_error}),
}


@pytest.mark.parametrize("name", MEETING)
def test_rows_that_meet_meet_all_over_the_mesh(name, x64):
    model, options = MEETING[name]
    x, y = digits(dtype=np.float64)
    batch = (x, np.eye(8)[y]) if options else (x, y)
    expected = gradient_of(model, None, "autodiff", batch, **options)
    found = gradient_of(model, parallel.layout(mesh_of(8)), "autodiff", batch, **options)
    assert worst(found, expected) <= 1e-13


@pytest.mark.parametrize("name, layout", [("batch_norm", fsdp(8)), ("dropout", parallel.layout(mesh_of(2)))])
def test_training_with_them_is_that_of_one_device(name, layout, x64):
    model, batch = MEETING[name][0], digits(dtype=np.float64)
    state, expected = losses_of(model, None, "backprop", batch, 20)
    found_state, found = losses_of(model, layout, "backprop", batch, 20)
    assert worst((found, found_state.model), (expected, state.model)) <= 1e-12


# Within fit


def test_fit_is_that_of_one_device():
    """Losses, metrics and validation, with batch norm, dropout, augmentation, a guard and an incomplete last batch.

    The dense layer has no bias: batch norm takes it away, its gradient is rounding, of which Adam makes whole steps.
    """
    first = layers.dense(16, use_bias=False)
    model = layers.serial(first, layers.batch_norm(), layers.relu(), layers.dropout(0.2), layers.dense(8))
    x, target = digits(rows=60)

    def reports(layout):
        return list(
            training.fit(
                model, losses.softmax_cross_entropy, optimizers.guarded(optimizers.adam(1e-2)), (x, target),
                engine="backprop", epochs=10, batch_size=16, report_steps=7, validation=(x[:9], target[:9]),
                metrics={"accuracy": metrics.accuracy()}, layout=layout,
                augment=lambda key, x, target: (x + 0.1 * jax.random.normal(key, x.shape), target),
            )
        )  # fmt: skip

    alone, together = reports(None), reports(fsdp(4))
    assert [report.step for report in together] == [7, 14, 21, 28, 35, 40]
    for a, b in zip(alone, together, strict=True):
        for name in a.metrics:
            np.testing.assert_allclose(a.metrics[name], b.metrics[name], atol=1e-6, err_msg=name)
    kernel = together[-1].state.optimizer.params[0]["kernel"]
    assert kernel.sharding.spec == PartitionSpec(None, "data")


def test_fit_checks_the_batch_size():
    options = {"epochs": 1, "batch_size": 12, "layout": automatic(8)}
    with pytest.raises(ShapeError, match=r"fit: expected batch_size to be a multiple of the 8 .*, got 12; nearest: 8"):
        training.fit(mlp(), losses.softmax_cross_entropy, optimizers.sgd(0.1), digits(), **options)


# Convolutions: the rules for all models are in test_parallel.py


CONVOLUTIONS = {
    "lenet": models.lenet(4, features=(4, 8), hidden=(8,)),
    "mobilenet": models.mobilenet(4, features=4, blocks=((8, 2),)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_run_split_over_data_and_model(name, x64):
    model, x = CONVOLUTIONS[name], np.random.default_rng(0).normal(size=(4, 12, 12, 1))
    batch, mesh = (x, np.arange(4) % 4), mesh_of(4, model=2)
    rules = parallel.tensor_parallel(model, x, mesh, otherwise=parallel.fsdp(min_bytes=512))
    expected = gradient_of(model, None, "backprop", batch)
    assert worst(gradient_of(model, parallel.layout(mesh, rules), "backprop", batch), expected) <= 1e-12


SEQUENCES = {
    "gpt": (models.gpt(8, 6, blocks=1, features=8, heads=2), np.arange(24).reshape(4, 6) % 8, (4, 6)),
    "lstm": (layers.serial(layers.lstm(8), layers.last(), layers.dense(8)), np.ones((4, 6, 4)), (4,)),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_run_split_over_data_and_model(name, x64):
    model, x, places = SEQUENCES[name]
    batch, mesh = (x, np.arange(np.prod(places)).reshape(places) % 8), mesh_of(4, model=2)
    rules = parallel.tensor_parallel(model, x, mesh, otherwise=parallel.fsdp(min_bytes=256))
    expected = gradient_of(model, None, "backprop", batch)
    for engine in ENGINES:
        assert worst(gradient_of(model, parallel.layout(mesh, rules), engine, batch), expected) <= 1e-12
    assert worst(gradient_of(model, fsdp(4), "backprop", batch), expected) <= 1e-12


# Where arrays lie


def held(tree, device):
    return sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
        if shard.device == device
    )


def test_fully_sharded_devices_hold_their_part_of_parameters_and_slots():
    make, key = initial(models.mlp((256, 256, 10)), np.zeros((1, 64), np.float32)), jax.random.key(0)
    rules = [(".*", parallel.fsdp(min_bytes=2048))]
    for n in (2, 4, 8):
        shapes = jax.eval_shape(make, key).optimizer
        planned = parallel.show(shapes, parallel.shardings(shapes, mesh_of(n), rules))
        assert planned.bytes == total_bytes(shapes)
        assert planned.device_bytes <= (1 / n + 0.05) * planned.bytes
    state = parallel.init_state(make, key, mesh_of(n), rules).optimizer
    assert parallel.show(state) == planned
    assert {held(state, device) for device in jax.devices()} == {planned.device_bytes}


@pytest.mark.usefixtures("compiled_as_usual")
def test_the_first_state_has_the_bits_of_one_device():
    jax.clear_caches()  # of programs that other tests have compiled otherwise
    make = initial(models.mlp((16, 8)), digits()[0])
    images = initial(layers.conv(16, (3, 1)), np.zeros((1, 4, 4, 5), np.float32))
    for model, layout in ((make, data_and_model(8)), (images, fsdp(8))):
        expected = model(jax.random.key(3))
        state = layout.init_state(model, jax.random.key(3))
        for (path, a), (_, b) in zip(flatten_with_paths(state), flatten_with_paths(expected), strict=True):
            assert (a == b).all(), path


def test_a_training_leaves_the_state_where_the_rules_have_it():
    mesh, rules, model = mesh_of(4), [(".*", parallel.fsdp(min_bytes=2**16))], models.mlp((256, 10))
    options = {"epochs": 1, "batch_size": 16, "layout": parallel.layout(mesh, rules)}
    *_, last = training.fit(model, losses.softmax_cross_entropy, optimizers.adam(0.1), digits(64, 64), **options)
    planned = flatten_with_paths(parallel.shardings(last.state, mesh, rules))
    assert {path: leaf.sharding for path, leaf in flatten_with_paths(last.state)} == dict(planned)


def test_slots_lie_as_their_parameters():
    optimizer = optimizers.frozen(optimizers.clipped(optimizers.adam(0.1), norm=1.0), lambda path: path == "0/kernel")
    x = digits()[0]
    state = fsdp(8).init_state(lambda key: training.create_state(mlp(), optimizer, key, x), jax.random.key(0))
    lies = {path: leaf.sharding.spec for path, leaf in flatten_with_paths(state)}
    for slot in ("params", "mu", "nu"):
        assert lies[f"optimizer/inner/{slot}/2/kernel"] == PartitionSpec("data")
        assert lies[f"optimizer/inner/{slot}/2/bias"] == PartitionSpec()
    assert lies["optimizer/fixed/0/kernel"] == PartitionSpec(None, "data")
    assert lies["optimizer/inner/step"] == lies["key"] == PartitionSpec()


def test_a_state_moves_from_one_layout_to_another():
    state = initial(mlp(), digits()[0])(jax.random.key(0))
    for layout in [layout(8) for layout in LAYOUTS]:
        moved = layout.place_state(state)
        assert worst(moved.optimizer, state.optimizer) == 0
        assert not moved.optimizer.params[0]["kernel"].is_deleted()
        again = layout.place_state(moved)
        assert again.optimizer.params[0]["kernel"] is moved.optimizer.params[0]["kernel"]


# A loop of one's own


@pytest.mark.parametrize("layout", [flat, fsdp])
def test_a_compiled_step_keeps_its_state_in_place_and_never_waits_too_late(layout):
    layout, (x, y), traces = layout(8), digits(), []
    gradient = layout.gradient(gradients.backprop(mlp(), losses.softmax_cross_entropy))

    def counted(*args):
        traces.append(1)
        return gradient(*args)

    step = parallel.compile_step(training.train_step(counted, optimizers.adam(1e-2)), layout)
    first = state = layout.place_state(initial(mlp(), x)(jax.random.key(0)))
    lies = [leaf.sharding for leaf in jax.tree.leaves(state)]
    batch = parallel.global_batch((x, y), mesh_of(8))
    for _ in range(600):  # a loop that never waits hangs before
        state, metrics = step(state, batch)
    assert [leaf.sharding for leaf in jax.tree.leaves(state)] == lies
    assert float(metrics["loss"]) < 0.1
    assert first.optimizer.params[0]["kernel"].is_deleted()
    assert len(traces) == 1


def test_a_global_batch_lies_by_rows():
    x, y = parallel.global_batch(digits(), mesh_of(8, model=2))
    assert x.sharding.spec == y.sharding.spec == PartitionSpec("data")
    assert x.addressable_shards[0].data.shape == (4, 8)
    np.testing.assert_array_equal(x, digits()[0])


# Pictures


def test_show():
    mesh = mesh_of(8, model=2)
    specs = {
        "columns": PartitionSpec(None, "model"),
        "grid": PartitionSpec("data", "model"),
        "rows": PartitionSpec(("data", "model")),
        "whole": PartitionSpec(),
    }
    shapes = dict.fromkeys(specs, jax.ShapeDtypeStruct((8, 16), np.float32))
    shardings = {name: jax.sharding.NamedSharding(mesh, spec) for name, spec in specs.items()}
    assert str(parallel.show(shapes, shardings)) == SHOWN
    assert parallel.show(jnp.zeros(3)).places[0].spec == "one device"


SHOWN = """\
leaf     shape    dtype    spec                  shard    bytes  bytes per device
---------------------------------------------------------------------------------
columns  (8, 16)  float32  P(None, 'model')      (8, 8)     512               256
grid     (8, 16)  float32  P('data', 'model')    (2, 8)     512                64
rows     (8, 16)  float32  P(('data', 'model'))  (1, 16)    512                64
whole    (8, 16)  float32  P()                   (8, 16)    512               512
---------------------------------------------------------------------------------
total                                                     2,048               896

P(None, 'model') on a mesh of data 4 × model 2: columns
+---------+---------+
| 0 2 4 6 | 1 3 5 7 |
+---------+---------+

P('data', 'model') on a mesh of data 4 × model 2: grid
+---+---+
| 0 | 1 |
+---+---+
| 2 | 3 |
+---+---+
| 4 | 5 |
+---+---+
| 6 | 7 |
+---+---+

P(('data', 'model')) on a mesh of data 4 × model 2: rows
+---+
| 0 |
+---+
| 1 |
+---+
| 2 |
+---+
| 3 |
+---+
| 4 |
+---+
| 5 |
+---+
| 6 |
+---+
| 7 |
+---+

P() on a mesh of data 4 × model 2: whole
+-----------------+
| 0 1 2 3 4 5 6 7 |
+-----------------+"""


# Errors


def test_meshes_that_do_not_use_up_the_devices():
    with pytest.raises(
        ConfigError,
        match=r"^mesh\(data=-1, model=3\): expected sizes whose product divides the 8 devices, got 3; change",
    ):
        parallel.mesh(model=3)
    with pytest.raises(ConfigError, match=r"is the 8 devices, got 2; .* devices=jax.devices\(\)\[:2\]\.$"):
        parallel.mesh(data=2)


def test_batches_that_cannot_be_dealt_out():
    x, y = digits(12)
    with pytest.raises(
        ShapeError, match='global_batch: expected rows to be a multiple of the 8 devices along "data", '
    ):
        parallel.global_batch((x, y), mesh_of(8))
    with pytest.raises(ShapeError, match="got 12; nearest: 8 or 16.$"):
        flat(8).place_batch((x, y))
    with pytest.raises(ShapeError, match="got 12; nearest: 8 or 16"):
        gradient_of(mlp(), fsdp(8), "backprop", (x, y))
    with pytest.raises(ShapeError, match="^fit: expected batch_size to be .* got 3; nearest: 8.$"):
        flat(8).check_rows("fit", "batch_size", 3)
    with pytest.raises(
        ShapeError, match="expected the same number of rows in every array of a batch, got 8 at 0 and 16 at 1"
    ):
        parallel.global_batch((x[:8], digits()[1]), mesh_of(8))


def test_the_flat_way_refuses_parameters_that_are_split():
    layout = parallel.layout(mesh_of(8), FSDP, flat=True)
    with pytest.raises(ConfigError, match=r"^layout\(flat=True\): expected rules that split no parameter"):
        gradient_of(mlp(), layout, "backprop", digits())


def test_arrays_on_several_devices_without_a_layout_are_named():
    x, target = (jax.device_put(np.ones((4, 1), np.float32), device) for device in jax.devices()[:2])
    model, loss, optimizer = layers.dense(1), losses.mean_squared_error, optimizers.sgd(0.1)
    named = r"expected all arrays on the same device, got x on .*id=0.* and target on .*id=1.*jax.device_put"
    with pytest.raises(DataError, match=f"fit: {named}"):
        training.fit(model, loss, optimizer, (x, target), epochs=1)
    state = training.create_state(model, optimizer, 0, x)
    with pytest.raises(DataError, match=f"evaluate: {named}"):
        training.evaluate(model, loss, state.optimizer.params, (), (x, target))
    with pytest.raises(DataError, match="got target on .*id=0.* and state on .*id=1"):
        training.fit(model, loss, optimizer, (x, x), epochs=1, state=jax.device_put(state, jax.devices()[1]))
    (report,) = training.fit(model, loss, optimizer, (np.asarray(x), target), epochs=1)
    assert np.isfinite(report.metrics["loss"])


@pytest.mark.parametrize(
    "layout, options", [(flat, {"flat": True}), (automatic, {"flat": False}), (fsdp, {"rules": FSDP})]
)
def test_a_forecast_has_the_bytes_of_what_runs(layout, options):
    """By the program itself, and by the arrays that lie on one device."""
    model, optimizer, batch, laid = mlp(), optimizers.adam(1e-2), digits(), layout(8)
    found = parallel.forecast(
        model, losses.softmax_cross_entropy, optimizer, batch, engine="backprop", devices=mesh_of(8), **options
    )
    state, batch = initial(model, batch[0])(jax.random.key(0)), laid.place_batch(batch)
    state = laid.place_state(state)
    gradient = laid.gradient(gradients.backprop(model, losses.softmax_cross_entropy))
    program = program_of(training.train_step(gradient, optimizer), laid).lower(state, batch).compile()
    memory = program.memory_analysis()
    assert (found.argument_bytes, found.temporary_bytes) == (memory.argument_size_in_bytes, memory.temp_size_in_bytes)
    here = jax.devices()[0]
    arrays = [leaf for leaf in jax.tree.leaves((state, batch)) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    lies = [shard.data.nbytes for leaf in arrays for shard in leaf.addressable_shards if shard.device == here]
    assert abs(found.argument_bytes - sum(lies)) <= 64  # the key, and places that begin at multiples of 8
    if layout is flat:
        (collective,) = found.collectives
        summed = total_bytes(state.optimizer.params) + 4  # and the loss
        assert collective == ("all-reduce", 1, 2 * 7 / 8 * summed)
    if layout is fsdp:  # each kernel is gathered once, and used by both passes
        kernels = [leaf for path, leaf in flatten_with_paths(state.optimizer.params) if path.endswith("kernel")]
        assert [one.bytes for one in found.collectives if one.kind == "all-gather"] == [7 / 8 * total_bytes(kernels)]


def test_a_forecast_says_how_rows_must_be_divided():
    with pytest.raises(ShapeError, match="^forecast: expected rows to be a multiple of the 8 devices along"):
        parallel.forecast(
            mlp(), losses.softmax_cross_entropy, optimizers.sgd(0.1), digits(6), devices=mesh_of(8), engine="backprop"
        )
