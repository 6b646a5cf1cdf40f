"""Time a step of the digits run: `fit`, and the same step dispatched from Python under `jax.jit` in four ways.

    python benchmarks/digits_steps.py

Both train the same network on the same batches with the same optimizer, in one process. They are interleaved and warmed
up, and the clock waits for their results. The output is the median over the rounds with its quartiles, and the ratio of
the medians.
"""

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
    """Seconds per step of `fit`, with one report and one copy of the state per epoch."""
    reports = fn.training.fit(
        model, LOSS, optimizer, rows, engine=engine, epochs=EPOCHS, batch_size=BATCH, key=0, state=state
    )
    next(reports)  # the first epoch checks the data and, in the first round, compiles
    started = time.perf_counter()
    for report in reports:
        last = report
    jax.block_until_ready(last.state)
    return (time.perf_counter() - started) / (last.step - last.step // EPOCHS)


def from_device(step, state, x, target, order):
    """The data lies on the device, and each step indexes its rows there."""
    x, target = jax.device_put((x, target))
    for rows in order:
        state, _ = step(state, (x[rows], target[rows]))
    return state


def from_numpy(step, state, x, target, order):
    """Each step indexes NumPy arrays; the loss is not read."""
    for rows in order:
        state, _ = step(state, (x[rows], target[rows]))
    return state


def from_numpy_reading_the_loss(step, state, x, target, order):
    """As above, and the loss is read at each step, for a log or a progress bar."""
    for rows in order:
        state, metrics = step(state, (x[rows], target[rows]))
        float(metrics["loss"])
    return state


def prepared(step, state, x, target, order):
    """The batches of the epoch were put on the device before the clock started: only the dispatch is left."""
    for batch in order:
        state, _ = step(state, batch)
    return state


WAYS = {
    "x[rows] on the device": from_device,
    "x[rows] of NumPy arrays": from_numpy,
    "the same, reading the loss": from_numpy_reading_the_loss,
    "batches on the device": prepared,
}


def python_seconds(way, step, state, x, target, order):
    """Seconds per step dispatched from Python, over one epoch."""
    if way is prepared:
        order = [jax.device_put((x[rows], target[rows])) for rows in order]
    jax.block_until_ready(way(step, state, x, target, order[:2]))
    started = time.perf_counter()
    jax.block_until_ready(way(step, state, x, target, order))
    return (time.perf_counter() - started) / len(order)


def main():
    x, target = fn.data.digits()
    x, target = x[:1440], target[:1440]  # whole batches
    order = np.random.default_rng(0).permutation(1440).reshape(-1, BATCH)
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {platform.machine()}, batch {BATCH}, {ROUNDS} rounds"
    )
    for name, (model, optimizer) in NETWORKS.items():
        state = fn.training.create_state(model, optimizer, 0, x[:BATCH])
        for engine in ("autodiff", "backprop"):
            step = jax.jit(fn.training.train_step(getattr(fn.gradients, engine)(model, LOSS), optimizer))
            times = {}
            for _ in range(ROUNDS):
                seconds = fit_seconds(model, optimizer, (x, target), engine, state)
                times.setdefault("fit", []).append(seconds)
                for how, way in WAYS.items():
                    seconds = python_seconds(way, step, state, x, target, order)
                    times.setdefault(how, []).append(seconds)
            print(f"\n{name}, {engine}")
            for how, values in times.items():
                low, median, high = 1e6 * np.quantile(values, (0.25, 0.5, 0.75))
                ratio = median / (1e6 * np.median(times["fit"]))
                print(f"  {how:27} {median:8.1f} µs  ({low:.1f} to {high:.1f})  {ratio:5.1f} × fit")


if __name__ == "__main__":
    main()
