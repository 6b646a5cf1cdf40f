"""What the compiler for TPUs makes of the hand-derived step, beside that of autodiff.

    JAX_PLATFORMS=cpu python -m benchmarks.chips [--write docs/benchmarks.md]

Needs libtpu: pip install 'funcnet[tpu]'. Nothing runs, so the numbers are exact and the same on every machine: bytes
read and written, memory of arguments, results and what lies in between, and the cycles that the compiler expects. Loops
count as often as they run. `--write` replaces the table between the markers in that file.
"""

import argparse
import importlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

import funcnet as fn
from benchmarks.libraries.with_funcnet import LOSS, OPTIMIZERS, build
from benchmarks.network import Embedding, output_shape
from benchmarks.report import table
from benchmarks.workload import Training
from funcnet.catalogue import LARGE_MODELS, LAYERS, LOSSES, MODELS, TREES
from funcnet.checking.subjects import parted
from funcnet.gradients.cotangents import as_cotangent, as_gradient
from funcnet.parallel.programs import costs_of

WORKLOADS = ("mlp_64", "mlp_256", "mlp_512", "lenet", "resnet_20", "gpt", "lstm")
DTYPES = (jnp.float32, jnp.bfloat16)
MARKERS = "<!-- chips: by benchmarks/chips.py -->", "<!-- end of chips -->"
BATCH, WIDTH = 64, 32  #: of the rows of the catalogue


class Step(NamedTuple):
    """What a compiled step needs."""

    bytes: float  #: read and written
    memory: int  #: of arguments, results, and what lies in between
    cycles: int

    def over(self, other: "Step") -> tuple[float, float, float]:
        """Each as a multiple of the other's; 1 for cycles that the compiler does not say."""
        return tuple((a or 1) / (b or 1) for a, b in zip(self, other, strict=True))


def compiled(function: Callable[..., Any], *args: Any) -> Step:
    """The step of a function and shapes on one chip of a v5e."""
    mesh = fn.parallel.mesh(devices=fn.parallel.topology("v5e:2x2")[:1])
    lies = NamedSharding(mesh, PartitionSpec())
    placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lies), args)
    program = jax.jit(function).lower(*placed).compile()
    costs, memory = costs_of(program, 1), program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return Step(costs.bytes, held, costs.cycles)


def of_layer(name: str, dtype: Any) -> tuple[Step, Step]:
    """A layer of the catalogue, forward and backward for a sum of squares: by hand and by autodiff."""
    row = (LAYERS | TREES | MODELS | LARGE_MODELS)[name]
    key, x = jax.eval_shape(jax.random.key, 0), row.example(BATCH, WIDTH, dtype)
    params, state = jax.eval_shape(row.layer.init, key, x)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), params)

    def by_hand(params, state, x, key):
        y, after, residuals = row.layer.forward(params, state, x, key=key, train=True)
        return after, row.layer.backward(params, residuals, parted(y)[0])

    def by_autodiff(params, state, x, key):
        y, vjp, after = jax.vjp(
            lambda params, x: row.layer.apply(params, state, x, key=key, train=True), params, x, has_aux=True
        )
        return after, as_gradient(vjp(as_cotangent(y, parted(y)[0])))

    by_hand, by_autodiff = (compiled(step, params, state, x, key) for step in (by_hand, by_autodiff))
    return by_hand, by_autodiff


def of_loss(name: str, dtype: Any) -> tuple[Step, Step]:
    """A loss of the catalogue and its gradient, for 64 times its rows."""
    row = LOSSES[name]
    loss = fn.losses.partial(row.loss, **row.options) if row.options else row.loss
    prediction, target = (_larger(array, dtype) for array in (row.prediction, row.target))

    def by_hand(prediction, target):
        return loss(prediction, target), loss.gradient(prediction, target)

    return compiled(by_hand, prediction, target), compiled(jax.value_and_grad(loss), prediction, target)


def _larger(array, dtype):
    """The shape of an array with 64 times its rows."""
    kept = dtype if jnp.issubdtype(array.dtype, jnp.floating) else array.dtype
    return jax.ShapeDtypeStruct((64 * array.shape[0], *array.shape[1:]), kept)


def of_workload(name: str, dtype: Any) -> tuple[Step, Step]:
    """The training step of a workload."""
    workload: Training = importlib.import_module(f"benchmarks.workloads.{name}").WORKLOAD
    model, optimizer, words = build(workload.network), OPTIMIZERS[workload.optimizer], workload.network[0]
    x = jax.ShapeDtypeStruct((workload.batch, *workload.shape), jnp.int32 if isinstance(words, Embedding) else dtype)
    *places, _ = output_shape(workload.network, workload.shape)
    target = jax.ShapeDtypeStruct((workload.batch, *places), jnp.int32)

    def start(key):
        params, state = model.init(key, x)
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        return fn.TrainState(optimizer.init(params), state, key)

    state = jax.eval_shape(start, jax.random.key(0))
    engines = (fn.gradients.backprop, fn.gradients.autodiff)
    by_hand, by_autodiff = (
        compiled(fn.training.train_step(engine(model, LOSS), optimizer), state, (x, target)) for engine in engines
    )
    return by_hand, by_autodiff


def mean(ratios: list[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def rows_of(kinds: dict[str, tuple[Callable[..., Any], tuple[str, ...]]]) -> list[list[str]]:
    """The lines of the table, with geometric means where there are many."""
    lines = []
    for title, (of, names) in kinds.items():
        for dtype in DTYPES:
            found = [of(name, dtype) for name in names]
            ratios = zip(*(by_hand.over(by_autodiff) for by_hand, by_autodiff in found), strict=True)
            lines.append([title, jnp.dtype(dtype).name, *(f"{mean(list(column)):.2f}" for column in ratios)])
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    layers = tuple(LAYERS | TREES)
    models = tuple(MODELS | LARGE_MODELS)
    kinds = {
        f"{len(layers)} layers": (of_layer, layers), f"{len(models)} models": (of_layer, models),
        f"{len(LOSSES)} losses": (of_loss, tuple(LOSSES)),
        **{importlib.import_module(f"benchmarks.workloads.{name}").WORKLOAD.title: (of_workload, (name,))
           for name in WORKLOADS},
    }  # fmt: skip
    text = table(["step", "dtype", "bytes", "memory", "cycles"], rows_of(kinds))
    if options.write:
        begin, end = MARKERS
        page = options.write.read_text()
        pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
        options.write.write_text(pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", page))
    print(text)


if __name__ == "__main__":
    main()
