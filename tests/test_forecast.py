"""What a step will cost, from its compiled program: exact bytes, operations in loops, and what devices exchange."""

import sys

import jax
import jax.numpy as jnp
import pytest

from funcnet import layers, losses, models, optimizers, parallel
from funcnet.errors import ConfigError, MissingExtraError, OutOfMemoryError, ShapeError
from funcnet.parallel import forecasts
from funcnet.parallel.chips import CHIPS
from funcnet.parallel.programs import Collective, costs_of
from funcnet.trees import total_bytes


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


BATCH = shape(32, 64), shape(32, dtype=jnp.int32)
V5E = CHIPS["TPU v5 lite"]


def of_one_device(model, batch, engine="backprop", optimizer=optimizers.sgd(0.1)):
    mesh = parallel.mesh(devices=jax.devices()[:1])
    return parallel.forecast(model, losses.softmax_cross_entropy, optimizer, batch, engine=engine, devices=mesh)


@pytest.mark.parametrize("engine", ["backprop", "autodiff"])
def test_one_device_has_the_whole_state_and_batch(engine):
    model = models.mlp((128, 16))
    found = of_one_device(model, BATCH, engine, optimizers.adam(0.1))
    params, _ = jax.eval_shape(model.init, jax.random.key(0), BATCH[0])
    arrays = 3 * total_bytes(params) + total_bytes(BATCH)
    assert arrays + 12 <= found.argument_bytes <= arrays + 16  # with the number of steps and the key
    assert (found.devices, found.chip, found.fits, found.seconds, found.times) == (1, None, None, None, {})
    products = 2 * 32 * (2 * 64 * 128 + 3 * 128 * 16)  # the input of the first layer has no gradient to compute
    assert products <= found.flops <= 1.2 * products


def test_a_loop_counts_as_often_as_it_runs():
    """The parameters of the blocks lie one upon the other, and one product of three of each block runs forward."""

    def scanned(x, kernels):
        return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)[0]

    def unrolled(x, kernels):
        for kernel in kernels:
            x = jnp.tanh(x @ kernel)
        return x

    args = shape(64, 256), shape(12, 256, 256)
    loop, row = (costs_of(jax.jit(f).lower(*args).compile(), 1) for f in (scanned, unrolled))
    assert row.flops == 12 * 2 * 64 * 256 * 256
    assert loop.flops == pytest.approx(row.flops, rel=1e-6)
    assert loop.bytes == pytest.approx(row.bytes, rel=0.05)


def test_blocks_in_a_loop_cost_as_much_as_blocks_in_a_row():
    block = layers.serial(layers.dense(64), layers.tanh())
    loop, row = (
        of_one_device(layers.serial(blocks, layers.dense(8)), BATCH)
        for blocks in (layers.repeat(block, 6), layers.serial(*[block] * 6))
    )
    assert loop.flops == pytest.approx(row.flops, rel=0.1)
    assert loop.argument_bytes == row.argument_bytes


# Lines of programs for a TPU, shortened.
PROGRAM = """
HloModule jit_run

%all-reduce-scatter (input: f32[1024,4096]) -> f32[256,4096] {
  %input = f32[1024,4096]{1,0:T(8,128)} parameter(0)
  %all-reduce.10 = f32[1024,4096]{1,0:T(8,128)} all-reduce(%input), channel_id=11, replica_groups={{0,1,2,3}}
  ROOT %slice = f32[256,4096]{1,0:T(8,128)} dynamic-slice(%all-reduce.10, %i), dynamic_slice_sizes={256,4096}
}

%started (param_0: bf16[1024,16]) -> (bf16[1024,16], bf16[4096,16]) {
  %param_0 = bf16[1024,16]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[4096,16]{0,1} all-gather(%param_0), channel_id=6, replica_groups=mesh['a'=4,'b'=2] {'a'}
}

%ended (param_0.1: bf16[1024,16]) -> bf16[4096,16] {
  %param_0.1 = bf16[1024,16]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[4096,16]{0,1} all-gather(%param_0.1), channel_id=6, replica_groups=mesh['a'=4,'b'=2] {'a'}
}

%body (carry: (s32[], f32[8])) -> (s32[], f32[8]) {
  %carry = (s32[]{:T(128)}, /*index=1*/f32[8]{0:T(128)S(1)}) parameter(0)
  %x = f32[8]{0:T(128)S(1)} get-tuple-element(%carry), index=1
  %all-reduce.20 = f32[8]{0:T(128)S(1)} all-reduce(%x), channel_id=3, replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %pair = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) tuple(%i, %all-reduce.20)
}

%condition (carry.1: (s32[], f32[8])) -> pred[] {
  %most = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[]{:T(512)} compare(%at, %most), direction=LT
}

ENTRY %main (a: f32[1024,4096], b: bf16[1024,16], c: f32[10]) -> f32[256,4096] {
  %a = f32[1024,4096]{1,0:T(8,128)} parameter(0)
  %b = bf16[1024,16]{1,0:T(8,128)(2,1)} parameter(1)
  %c = f32[10]{0:T(128)} parameter(2)
  %fusion = f32[256,4096]{1,0:T(8,128)S(1)} fusion(%a), kind=kCustom, calls=%all-reduce-scatter
  %begun = (bf16[1024,16]{1,0}, bf16[4096,16]{0,1}) fusion(%b), kind=kCustom, calls=%started
  %done = bf16[4096,16]{0,1:T(8,128)(2,1)} fusion(%begun), kind=kCustom, calls=%ended
  %both = (f32[10]{0:T(128)}, f32[10]{0:T(128)}) all-reduce(%c, %c), channel_id=1, replica_groups={}, to_apply=%add
  ROOT %loop = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) while(%start), condition=%condition, body=%body
}
"""


class Compiled:
    """A program of another platform."""

    def as_text(self):
        return PROGRAM

    def cost_analysis(self):
        return {"flops": 1.0, "bytes accessed": 2.0}


def test_what_devices_exchange():
    """A reduce-scatter in a fusion, a gather in two parts, a sum of two arrays by all, and one in a loop of five."""
    assert costs_of(Compiled(), 8).collectives == (
        Collective("all-gather", 1, 3 * 2 * 1024 * 16),
        Collective("all-reduce", 6, 2 * 7 / 8 * 80 + 5 * 2 * 3 / 4 * 32),
        Collective("reduce-scatter", 1, 3 / 4 * 4 * 1024 * 4096),
    )


FORECAST = parallel.Forecast(
    4, "TPU v5 lite", V5E, 2**33, 2**32, 2**20, 394e12, 819e9, (Collective("all-reduce", 2, 600e9),)
)


def test_times_are_rooflines():
    assert FORECAST.times == {"operations": 2.0, "memory": 1.0, "links": 3.0}
    assert FORECAST.seconds == 3.0
    assert FORECAST.memory == 2**33 + 2**32 + 2**20
    assert FORECAST.fits
    assert not FORECAST._replace(temporary_bytes=2**33).fits


def test_a_forecast_is_a_table():
    assert str(FORECAST).splitlines() == [
        "4 × v5e (TPU v5 lite)                               each",
        "--------------------------------------------------------",
        "state and batch, bytes                     8,589,934,592",
        "in between, bytes                          4,294,967,296",
        "of 16 GiB of memory                               75.01%",
        "operations                           394,000,000,000,000",
        "bytes read and written                   819,000,000,000",
        "all-reduce, 2 in a step: bytes sent      600,000,000,000",
        "time at least, by operations              2,000,000.0 µs",
        "time at least, by memory                  1,000,000.0 µs",
        "time at least, by links                   3,000,000.0 µs",
    ]


def test_a_step_that_does_not_fit_is_an_error(monkeypatch):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (64.59G) "
                "exceeds available HBM (15.75G)."
            )

    with pytest.raises(OutOfMemoryError, match=r"into the 15\.75GiB of a device, got one of 64\.59GiB; take"):
        forecasts._compiled(Lowered())


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"engine": "backdrop"}, ConfigError, '^forecast: expected engine to be "autodiff" or "backprop", got'),
        ({"devices": 4}, ConfigError, "^forecast: expected devices to be the name of a topology, or a mesh"),
    ],
)
def test_what_is_no_forecast(options, error, message):
    with pytest.raises(error, match=message):
        parallel.forecast(models.mlp((4,)), losses.softmax_cross_entropy, optimizers.sgd(0.1), BATCH, **options)


def test_rows_must_be_equal():
    batch = shape(8, 4), shape(7, dtype=jnp.int32)
    with pytest.raises(ShapeError, match="^forecast: expected the same number of rows in every array of a batch"):
        of_one_device(models.mlp((4,)), batch)


def test_a_topology_needs_its_compiler(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(MissingExtraError, match=r"^topology: .*pip install 'funcnet\[tpu\]'"):
        parallel.topology("v5e:2x2")
