"""A data-parallel step through one flat buffer, compared with automatic sharding and with plain `jit` on one device. It
runs on two CPU devices of one process, and on two processes of one device each.

    python -m benchmarks.parallel [--rounds 15]

Steps run in compiled loops, like those of `fit`, so that the clock measures the devices and not Python. All columns run
interleaved.
"""

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tyro

STEPS = 200
NETWORKS = {"64-64-10": (64, 10), "64-256-128-10": (256, 128, 10)}
BATCH = 128


def columns(features: tuple[int, ...]) -> dict[str, tuple[Callable[..., Any], Any, Any]]:
    """Name -> compiled loop, first state, batch."""
    import funcnet as fn  # after the number of devices is set

    model, optimizer = fn.models.mlp(features), fn.optimizers.adam(1e-3)
    random = np.random.default_rng(0)
    batch = random.normal(size=(BATCH, 64)).astype(np.float32), random.integers(0, 10, BATCH).astype(np.int32)
    gradient = fn.gradients.backprop(model, fn.losses.softmax_cross_entropy)
    all_devices = fn.parallel.mesh()
    layouts = {
        "flat": fn.parallel.layout(all_devices),
        "automatic": fn.parallel.layout(all_devices, flat=False),
    }
    if jax.process_count() == 1:
        layouts |= {"one device, jit": None}
        layouts |= {"one device, layout": fn.parallel.layout(fn.parallel.mesh(devices=jax.devices()[:1]))}

    def column(layout):
        state = fn.training.create_state(model, optimizer, 0, batch[0])
        if layout is None:
            return _loop(fn.training.train_step(gradient, optimizer)), state, jax.device_put(batch)
        step = fn.training.train_step(layout.gradient(gradient), optimizer)
        return _loop(step, layout.place_state), layout.place_state(state), layout.place_data(batch)

    return {name: column(layout) for name, layout in layouts.items()}


def _loop(step, place=None):
    @jax.jit
    def loop(state, batch):
        def body(i, carry):
            state, _ = carry
            state, metrics = step(state, batch)
            return (state if place is None else place(state)), metrics["loss"]

        return jax.lax.fori_loop(0, STEPS, body, (state, step(state, batch)[1]["loss"]))

    return loop


def measure(features: tuple[int, ...], rounds: int) -> dict[str, float]:
    """Name -> median seconds per step."""
    ready = columns(features)
    losses = {name: float(loop(state, batch)[1]) for name, (loop, state, batch) in ready.items()}
    np.testing.assert_allclose(list(losses.values()), losses["flat"], atol=1e-5)
    seconds = {name: [] for name in ready}
    for _ in range(rounds):
        for name, (loop, state, batch) in ready.items():
            start = time.perf_counter()
            jax.block_until_ready(loop(state, batch))
            seconds[name].append((time.perf_counter() - start) / STEPS)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def report(rounds: int) -> None:
    place = f"{jax.process_count()} processes" if jax.process_count() > 1 else "2 devices of one process"
    for name, features in NETWORKS.items():
        medians = measure(features, rounds)
        if jax.process_index():
            continue
        print(f"{name}, batch {BATCH}, {place}")
        for column, seconds in medians.items():
            print(f"  {column:24}{seconds * 1e6:9.1f} µs per step")
        if "one device, jit" in medians:
            print(f"  cost on one device {medians['one device, layout'] / medians['one device, jit'] - 1:+.1%}")
        print(f"  flat against automatic {medians['automatic'] / medians['flat']:.2f}×", flush=True)


def main(rounds: int = 15, coordinator: str | None = None, process: int | None = None) -> None:
    from funcnet import parallel

    if coordinator is not None:
        parallel.start(coordinator, 2, process)
        report(rounds)
        return
    jax.config.update("jax_num_cpu_devices", 2)
    report(rounds)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    call = [sys.executable, "-m", "benchmarks.parallel", "--rounds", str(rounds), "--coordinator", address]
    children = [subprocess.Popen([*call, "--process", str(i)]) for i in range(2)]
    sys.exit(max(child.wait() for child in children))


if __name__ == "__main__":
    tyro.cli(main)
