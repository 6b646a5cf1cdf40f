"""The main job's accuracy over seeds and splits, and how far apart the two engines' losses are over a whole run.

    python benchmarks/digits_engines.py

Every seed has its own split, parameters, order and dropout. The accuracy is that of the last epoch on the held-out
fifth, which nothing was chosen by. The losses are compared step by step.
"""

import jax
import numpy as np

import funcnet as fn
from funcnet.cli import jobs, options

SEEDS = range(5)


def run(seed, engine, dtype=np.float32, report_steps=None):
    """`(losses, held-out accuracy)` of the main job."""
    chosen = options.Train(seed=seed, engine=engine)
    x, target = jobs.load_data(chosen.data)
    rows, held_out = fn.data.split(x.astype(dtype), target, fractions=(0.8, 0.2), seed=seed)
    steps = chosen.epochs * fn.data.steps_per_epoch(len(rows[0]), chosen.batch_size)
    reports = fn.training.fit(
        jobs.build_model(chosen, x.shape[1:], 10), jobs.LOSS, jobs.build_optimizer(chosen, steps), rows, engine=engine,
        epochs=chosen.epochs, batch_size=chosen.batch_size, key=seed, report_steps=report_steps, copy_state=False,
    )  # fmt: skip
    reports = list(reports)
    state = reports[-1].state
    result = fn.training.evaluate(
        jobs.build_model(chosen, x.shape[1:], 10), jobs.LOSS, state.optimizer.params, state.model, held_out,
        metrics={"accuracy": fn.metrics.accuracy()},
    )  # fmt: skip
    return np.array([float(report.metrics["loss"]) for report in reports]), float(result["accuracy"])


def main():
    accuracies = [run(seed, "backprop")[1] for seed in SEEDS]
    print(
        f"held-out accuracy, seeds {list(SEEDS)}: mean {np.mean(accuracies):.2%}, each "
        + ", ".join(f"{accuracy:.2%}" for accuracy in accuracies)
    )
    for dtype, wide in ((np.float32, False), (np.float64, True)):
        with jax.enable_x64(wide):
            (autodiff, _), (backprop, _) = (run(0, engine, dtype, 1) for engine in ("autodiff", "backprop"))
        print(
            f"{np.dtype(dtype)}: largest difference of the losses over {len(autodiff)} steps "
            f"{np.abs(autodiff - backprop).max():.1e}"
        )


if __name__ == "__main__":
    main()
