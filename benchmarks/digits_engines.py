"""The main job's accuracy over seeds and splits with both engines, and how far apart their losses are over a whole run.

    python benchmarks/digits_engines.py

Every seed has its own split, parameters, order and dropout. The accuracy is that of the last epoch on the held-out
fifth. The losses are compared step by step, for the dense network. In the convolutional one rounding sometimes decides
which of two nearly equal pixels a pooling takes. After that the two runs differ.
"""

import time

import jax
import numpy as np

import funcnet as fn
from funcnet.cli import networks, options

SEEDS = range(10)


def run(seed, engine, model="cnn", dtype=np.float32, report_steps=None):
    """`(losses, held-out accuracy)` of the main job."""
    chosen = options.settled(options.Train(seed=seed, engine=engine, model=model), 1438)
    x, target = fn.data.digits()
    rows, held_out = fn.data.split(x.astype(dtype), target, fractions=(0.8, 0.2), seed=seed, stratified=True)
    network, loss = networks.build_model(chosen, fn.data.prepare(x, target)), fn.losses.softmax_cross_entropy
    steps = chosen.epochs * fn.data.steps_per_epoch(len(rows[0]), chosen.batch_size)
    reports = fn.training.fit(
        network, loss, networks.build_optimizer(chosen, steps), rows, engine=engine, epochs=chosen.epochs,
        batch_size=chosen.batch_size, key=seed, report_steps=report_steps, copy_state=False,
    )  # fmt: skip
    reports = list(reports)
    state = reports[-1].state
    result = fn.training.evaluate(
        network, loss, state.optimizer.params, state.model, held_out, metrics={"accuracy": fn.metrics.accuracy()}
    )
    return np.array([float(report.metrics["loss"]) for report in reports]), float(result["accuracy"])


def main():
    for engine in ("backprop", "autodiff"):
        accuracies, seconds = [], []
        for seed in SEEDS:
            start = time.perf_counter()
            accuracies.append(run(seed, engine)[1])
            seconds.append(time.perf_counter() - start)
        halves = " and ".join(f"{np.mean(half):.2%}" for half in np.split(np.array(accuracies), 2))
        print(
            f"{engine}: held-out accuracy, seeds {list(SEEDS)}: means of five {halves}, each "
            + ", ".join(f"{accuracy:.2%}" for accuracy in accuracies)
            + f"; {min(seconds):.1f} to {max(seconds):.1f} s per run"
        )
    for dtype, wide in ((np.float32, False), (np.float64, True)):
        with jax.enable_x64(wide):
            (autodiff, _), (backprop, _) = (run(0, engine, "mlp", dtype, 1) for engine in ("autodiff", "backprop"))
        print(
            f"mlp, {np.dtype(dtype)}: largest difference of the losses over {len(autodiff)} steps "
            f"{np.abs(autodiff - backprop).max():.1e}"
        )


if __name__ == "__main__":
    main()
