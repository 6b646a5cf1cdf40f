"""Programs for a TPU, compiled where its compiler is installed: pip install 'funcnet[tpu]'. None runs."""

import importlib
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from layer_cases import CASES, draw_shapes
from test_platforms import both_engines, loss_and_gradients

from benchmarks import chips as chips_of
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


# The hand-derived step beside that of autodiff. Where it needs more, the reason is one of these.

TINY = "a fusion takes 1850 cycles at least, and the program by hand has one more; at 4096 × 256 it is within 3 %"
WORKLOAD = "at these sizes alone; as a workload of docs/benchmarks.md it needs less"
PRECISE = "half precision is summed in float32, where autodiff rounds each sum"
WEIGHTS = "the weights of attention are an array of their own, which autodiff's program computes within its products"
RESULT = "one tile of 512 bytes more among the results"
WIDE = "in half precision an array in float32 lies in memory, which autodiff keeps on the chip; not mended yet"
OPEN = "not mended yet"
#: The most that a row needs today, in that of autodiff, and the reason.
MORE = {
    "position_embedding": (1.17, TINY),
    "residual_shortcut": (1.06, TINY),
    "gated": (1.25, TINY),
    "scan": (1.04, TINY),
    "scan_random": (1.25, OPEN),
    "gru_reverse": (1.03, TINY),
    "last": (1.24, TINY),
    "last_padded": (1.07, OPEN),
    "lenet": (1.12, WORKLOAD),
    "vgg_plain": (1.06, OPEN),
    "embedding": (1.2, PRECISE),
    "embedding_padded": (1.38, PRECISE),
    "attention": (1.44, WEIGHTS),
    "attention_causal": (1.23, WEIGHTS),
    "attention_grouped": (2.0, WEIGHTS),
    "transformer_block": (1.07, WEIGHTS),
    "transformer_block_post": (1.05, WEIGHTS),
    "attention_cross": (1.04, WEIGHTS),
    "attention_padded": (1.15, WEIGHTS),
    "gpt": (1.06, WEIGHTS),
    "container": (1.05, OPEN),
    "group_norm": (1.04, OPEN),
    "instance_norm": (1.05, OPEN),
    "repeat": (1.11, OPEN),
    "repeat_state": (1.1, OPEN),
    "repeat_tree": (1.05, OPEN),
    "scan_state": (1.13, OPEN),
    "residual_padded": (1.06, RESULT),
    "multiclass_hinge_sequences": (1.05, OPEN),
    "multiclass_hinge_crammer_singer": (11.5, WIDE),
    "ctc_last_blank": (29.0, WIDE),
}


def most(name):
    return MORE[name][0] if name in MORE else 1.02


@pytest.mark.parametrize("dtype", chips_of.DTYPES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ROWS)
def test_the_step_by_hand_needs_no_more(name, dtype):
    """Bytes, memory and cycles."""
    by_hand, by_autodiff = chips_of.of_layer(name, dtype)
    assert max(by_hand.over(by_autodiff)) <= most(name)


@pytest.mark.parametrize("dtype", chips_of.DTYPES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_by_hand_needs_no_more(name, dtype):
    by_hand, by_autodiff = chips_of.of_loss(name, dtype)
    assert max(by_hand.over(by_autodiff)) <= most(name)


@pytest.mark.parametrize("dtype", chips_of.DTYPES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["mlp_256", "lenet", "lstm", "gpt"])
def test_the_table_of_the_page_is_true(name, dtype):
    """Those that compile in seconds."""
    title = importlib.import_module(f"benchmarks.workloads.{name}").WORKLOAD.title
    page = (Path(__file__).parent.parent / "docs" / "benchmarks.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {title} | {jnp.dtype(dtype).name} |"))
    by_hand, by_autodiff = chips_of.of_workload(name, dtype)
    said = [float(word) for word in line.split("|")[3:6]]
    assert said == pytest.approx(by_hand.over(by_autodiff), abs=0.011)
