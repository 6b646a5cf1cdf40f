"""Seconds to the first step of training, against depth, beside the other libraries on JAX.

    python -m benchmarks.compiling [MODEL…]

Each number is that of a new process without compiled programs, from the plain description of a network to the end of
its first step: building, tracing, compiling and one run. What the process imports is not in it. A process that needs
more than 16 GiB of memory is ended.
"""

import os
import resource
import sys

from benchmarks import network as n
from benchmarks import report
from benchmarks.worker import Worker, installed
from benchmarks.workload import Training
from benchmarks.workloads.resnet_20 import block

DEPTHS = (2, 16, 64)
MEMORY = 16 * 2**30
WAYS = {
    "funcnet": ("fit, backprop", "step, backprop", "step, autodiff"),
    "stax": ("jit, donated",),
    "flax": ("jax.jit, donated",),
    "equinox": ("jax.jit, donated",),
}

_IMAGES = (16, 16, 16)
_TRANSFORMER = (
    n.Residual((n.LayerNorm(), n.Attention(4))),
    n.Residual((n.LayerNorm(), n.Dense(256), n.Gelu(), n.Dense(64))),
)
#: Of each model: what is repeated, what stands before and after it, and the shape of an example.
MODELS = {
    "dense layers": ((n.Dense(64), n.Relu()), (), (n.Dense(10),), (64,)),
    "convolutions": ((n.Conv(16, 3), n.Relu()), (), (n.MeanOverPlaces(), n.Dense(10)), _IMAGES),
    "residual blocks": (block(16, 1), (), (n.MeanOverPlaces(), n.Dense(10)), _IMAGES),
    "transformer blocks": (_TRANSFORMER, (n.Embedding(96, 64), n.Positions(32)), (n.LayerNorm(), n.Dense(96)), (32,)),
    "LSTM layers": ((n.Lstm(32),), (), (n.Last(), n.Dense(10)), (16, 32)),
}


def model(name: str, depth: int) -> Training:
    """One step of a model of so many repeated parts."""
    part, before, after, shape = MODELS[name]
    return Training(f"{depth} {name}", (*before, *depth * part, *after), shape, batch=8, optimizer="adam", steps=1)


def first_step(library: str, way: str, workload: Training) -> str:
    """How long it takes in a new process."""
    worker = Worker(library)
    try:
        return f"{worker.first_step(workload, way):.1f} s"
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return "ended"
    finally:
        worker.stop()


def main(names: list[str]) -> None:
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # the new processes inherit it
    here = [name for name in installed() if name in WAYS]
    for name in names:
        rows = [
            [library, way, *(first_step(library, way, model(name, depth)) for depth in DEPTHS)]
            for library in here
            for way in WAYS[library]
        ]
        print(f"{report.table([name, 'way', *map(str, DEPTHS)], rows)}\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
