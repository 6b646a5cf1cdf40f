"""Times and sizes of whole processes: import, the main job, compilation, memory."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp

import funcnet as fn
from benchmarks.worker import Worker
from benchmarks.workload import Training

IMPORTS = {"jax": "jax", "funcnet": "funcnet, jax", "flax": "flax.nnx", "equinox": "equinox", "torch": "torch"}
DEPTHS = (4, 16, 64)
WIDTH = 64
#: For each library, the fastest way of stepping that its documentation shows.
MEMORY = {
    "funcnet": ("fit, backprop", "fit, autodiff"),
    "stax": ("jit, donated",),
    "flax": ("jax.jit, donated",),
    "equinox": ("jax.jit, donated",),
    "torch": ("eager",),
}


def import_seconds(rounds: int) -> dict[str, float]:
    """Name -> median seconds of a process that imports it, minus those of one that imports nothing."""
    commands = {"": "pass"} | {
        name: f"import {what}" for name, what in IMPORTS.items() if importlib.util.find_spec(name) is not None
    }
    seconds = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds[name].append(_process(command))
    medians = {name: sorted(taken)[len(taken) // 2] for name, taken in seconds.items()}
    return {name: median - medians[""] for name, median in medians.items() if name}


def _process(command):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", command], check=True)
    return time.perf_counter() - start


def main_job() -> tuple[float, str]:
    """Seconds of `funcnet train` from the start of its process to its end, and its accuracy on held-out rows."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "funcnet.cli", "train"]
        done = subprocess.run(
            command, check=True, cwd=folder, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}
        )
        seconds = time.perf_counter() - start
    (accuracy,) = re.findall(r"held out.*?([\d.]+%)", done.stdout)
    return seconds, accuracy


def compile_seconds(depths: Sequence[int] = DEPTHS) -> dict[tuple[str, str], dict[int, float]]:
    """(container, engine) -> blocks -> seconds to trace and compile a training step of that many blocks."""
    block = fn.layers.serial(fn.layers.dense(WIDTH), fn.layers.tanh())
    containers = {
        "repeat": lambda depth: fn.layers.repeat(block, depth),
        "serial": lambda depth: fn.layers.serial(*[block] * depth),
    }
    return {
        (name, engine): {depth: _compilation(container(depth), engine) for depth in depths}
        for name, container in containers.items()
        for engine in ("backprop", "autodiff")
    }


def _compilation(model, engine):
    optimizer = fn.optimizers.adam(1e-3)
    x = jnp.zeros((32, WIDTH))
    state = fn.training.create_state(model, optimizer, 0, x)
    step = fn.training.train_step(getattr(fn.gradients, engine)(model, fn.losses.mean_squared_error), optimizer)
    start = time.perf_counter()
    jax.jit(step).lower(state, (x, x)).compile()
    return time.perf_counter() - start


def peak_memory(workload: Training, libraries: Sequence[str]) -> dict[tuple[str, str], float]:
    """(library, column) -> MB at the peak of a process that does only this, including its imports."""

    def peak(way):
        library, column = way
        worker = Worker(library)
        megabytes = worker.peak_memory(workload, column)
        worker.stop()
        return megabytes

    ways = [(library, column) for library in libraries for column in MEMORY[library]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(ways, pool.map(peak, ways), strict=True))
