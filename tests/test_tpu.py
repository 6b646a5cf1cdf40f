"""Programs for a TPU, compiled where its compiler is installed: pip install 'funcnet[tpu]'. None runs."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from layer_cases import CASES, draw_shapes
from test_platforms import both_engines, loss_and_gradients

from funcnet import gradients, losses, models, optimizers, parallel, training
from funcnet.catalogue import LARGE_MODELS, LOSSES
from funcnet.training import feeds
from funcnet.training.evaluation import new_tally
from funcnet.training.loop import compiled_chunk
from funcnet.trees import total_bytes

pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, the compiler for TPUs"),
]

ROWS = CASES | LARGE_MODELS


@pytest.fixture(scope="module")
def chips():
    return parallel.topology("v5e:2x2")


@pytest.fixture(scope="module")
def compiled(chips):
    """A function under `jit`, compiled for one chip and arrays of these shapes."""
    lies = NamedSharding(parallel.mesh(devices=chips[:1]), PartitionSpec())

    def program(function, *args):
        placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lies), args)
        return jax.jit(function).lower(*placed).compile()

    return program


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ROWS)
def test_every_layer_compiles(compiled, name, dtype):
    assert compiled(both_engines(ROWS[name].layer), *draw_shapes(ROWS[name], dtype)).cost_analysis()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_compiles(compiled, name):
    row = LOSSES[name]
    assert compiled(loss_and_gradients(row), np.float32(row.prediction), np.asarray(row.target)).cost_analysis()


BATCH = jax.ShapeDtypeStruct((256, 784), jnp.float32), jax.ShapeDtypeStruct((256,), jnp.int32)


@pytest.mark.parametrize("engine", ["backprop", "autodiff"])
def test_a_step_over_four_chips_has_one_sum_of_all_gradients(engine):
    """Without the flat buffer, which is for CPUs."""
    model = models.mlp((512, 512, 16))
    found = parallel.forecast(model, losses.softmax_cross_entropy, optimizers.adam(1e-3), BATCH, engine=engine)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), BATCH[0])
    (collective,) = found.collectives
    assert collective == ("all-reduce", 1, 2 * 3 / 4 * (total_bytes(params) + 4))  # and the loss
    assert (found.devices, found.chip.name, found.fits) == (4, "v5e", True)
    assert found.seconds == max(found.times.values())


def test_split_parameters_take_less_memory_and_more_links():
    model, optimizer = models.mlp((512, 512, 16)), optimizers.adam(1e-3)
    whole, split = (
        parallel.forecast(model, losses.softmax_cross_entropy, optimizer, BATCH, engine="backprop", rules=rules)
        for rules in (None, [(".*", parallel.fsdp(min_bytes=2**12))])
    )
    assert split.argument_bytes < 0.3 * whole.argument_bytes
    assert {one.kind for one in split.collectives} >= {"all-gather", "all-reduce"}


def test_the_loop_of_fit_makes_no_copy_of_images(chips, monkeypatch):
    """It took 1230 MB beside the 614 MB of these: a TPU would keep them in another order to gather rows."""
    mesh = parallel.mesh(devices=chips[:1])
    lies, laid = NamedSharding(mesh, PartitionSpec()), parallel.layout(mesh)

    def place(tree):
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lies), tree)

    monkeypatch.setattr(feeds, "own_arrays", lambda data: data)
    images = np.broadcast_to(np.float32(0), (50_000, 32, 32, 3))
    feed = feeds.ArrayFeed(
        (images, np.zeros(50_000, np.int32)), 128, 1, key=jax.random.key(0), shuffle=True, drop_last=True,
        report_steps=None, layout=laid._replace(place_data=place),
    )  # fmt: skip
    model, loss, optimizer = models.lenet(10), losses.softmax_cross_entropy, optimizers.sgd(0.01)
    state = jax.eval_shape(lambda key: training.create_state(model, optimizer, key, feed.example[0]), jax.random.key(0))
    program = compiled_chunk(model, loss, optimizer, gradients.backprop, None, (), None, laid, 1)
    traced = program.trace(place(state), place(new_tally((), {})), feed.kind())
    memory = traced.lower().compile().memory_analysis()
    assert memory.argument_size_in_bytes > images.nbytes
    assert memory.temp_size_in_bytes < 0.6 * images.nbytes
