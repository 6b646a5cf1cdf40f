"""Time a step of the digits run: `fit` against the same step dispatched from Python under `jax.jit`.

    python benchmarks/digits_steps.py

Both train the same network on the same batches with the same optimizer, in one process, interleaved, warm, and waited
for. Printed are medians over the rounds with their quartiles, and the ratio of the medians.
"""

import itertools
import platform
import time

import jax
import numpy as np

import funcnet as fn

BATCH, EPOCHS, ROUNDS = 32, 20, 15
LOSS = fn.losses.softmax_cross_entropy

NETWORKS = {
    "64-64-10, adam": (fn.models.mlp((64, 10)), fn.optimizers.adam(1e-3)),
    "64-128-10, adam": (fn.models.mlp((128, 10)), fn.optimizers.adam(1e-3)),
    "64-256-128-10, dropout, adamw": (fn.models.mlp((256, 128, 10), dropout=0.3), fn.optimizers.adamw(1e-3)),
}


def fit_seconds(model, optimizer, rows, engine, state):
    """Seconds a step of `fit`, with a report and a copy of the state an epoch."""
    reports = fn.training.fit(
        model, LOSS, optimizer, rows, engine=engine, epochs=EPOCHS, batch_size=BATCH, key=0, state=state
    )
    next(reports)  # the first epoch checks the data and, in the first round, compiles
    started = time.perf_counter()
    for report in reports:
        last = report
    jax.block_until_ready(last.state)
    return (time.perf_counter() - started) / (last.step - last.step // EPOCHS)


def python_seconds(step, batches, state):
    """Seconds a step dispatched from Python, its batches already on the device; at most 16 in flight."""
    state, _ = step(state, batches[0])
    jax.block_until_ready(state)
    started = time.perf_counter()
    n = 0
    for n, batch in enumerate(itertools.islice(itertools.cycle(batches), 300), 1):
        state, metrics = step(state, batch)
        if n % 16 == 0:
            jax.block_until_ready(metrics)
    jax.block_until_ready(state)
    return (time.perf_counter() - started) / n


def main():
    x, target = fn.data.digits()
    x, target = x[:1440], target[:1440]  # whole batches
    batches = [jax.device_put((x[i : i + BATCH], target[i : i + BATCH])) for i in range(0, len(x), BATCH)]
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {platform.machine()}, batch {BATCH}, {ROUNDS} rounds")
    for name, (model, optimizer) in NETWORKS.items():
        state = fn.training.create_state(model, optimizer, 0, x[:BATCH])
        times = {}
        steps = {
            engine: jax.jit(fn.training.train_step(getattr(fn.gradients, engine)(model, LOSS), optimizer))
            for engine in ("autodiff", "backprop")
        }
        for _ in range(ROUNDS):
            for engine, step in steps.items():
                seconds = python_seconds(step, batches, state)
                times.setdefault(("step from Python", engine), []).append(seconds)
                seconds = fit_seconds(model, optimizer, (x, target), engine, state)
                times.setdefault(("fit", engine), []).append(seconds)
        print(f"\n{name}")
        medians = {}
        for (how, engine), values in times.items():
            low, medians[how, engine], high = 1e6 * np.quantile(values, (0.25, 0.5, 0.75))
            print(f"  {how:17} {engine:9} {medians[how, engine]:8.1f} µs  ({low:.1f} to {high:.1f})")
        for engine in steps:
            print(f"  fit is {medians['step from Python', engine] / medians['fit', engine]:.1f}× faster ({engine})")


if __name__ == "__main__":
    main()
