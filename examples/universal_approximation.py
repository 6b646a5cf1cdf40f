"""One wide hidden layer fits a curve with a kink: the more units, the smaller the error.

`python examples/universal_approximation.py curves.png` draws it too.
"""

import sys

import numpy as np

import funcnet as fn
from funcnet.plotting.figures import BLUE, GREY, VERMILION, new_figure

WIDTHS, STARTS, STEPS = (2, 4, 8, 16, 32, 64), 3, 1500
loss, optimizer = fn.losses.mean_squared_error, fn.optimizers.adam(fn.schedules.cosine_decay(2e-2, STEPS))


def curve(x):
    return np.sin(5 * x) + 0.5 * np.sin(13 * x) + np.abs(x - 0.25)


def rows(n):
    """(x, 1) for n numbers x from −1 to 1: the weight of the 1 is a unit's bias."""
    x = np.linspace(-1, 1, n, dtype=np.float32)
    return np.stack([x, np.ones_like(x)], 1)


def network(width):
    """y = Σ_i c_i tanh(w_i x + b_i) + c. With large weights at the start the units bend at different places."""
    hidden = fn.layers.dense(width, use_bias=False, kernel_init=fn.initializers.uniform(-8.0, 8.0))
    return fn.layers.serial(hidden, fn.layers.tanh(), fn.layers.dense(1))


known, between = rows(256), rows(1001)
fitted, errors = {}, {}
for width in WIDTHS:
    model, attempts = network(width), []
    for start in range(STARTS):
        data = known, curve(known[:, :1])
        reports = fn.training.fit(
            model, loss, optimizer, data, engine="backprop", epochs=STEPS, report_steps=STEPS, key=start
        )
        *_, last = reports
        y, _ = model.apply(last.state.optimizer.params, last.state.model, between)
        attempts.append((float(np.sqrt(np.mean((y[:, 0] - curve(between[:, 0])) ** 2))), np.asarray(y[:, 0])))
    errors[width] = sorted(error for error, _ in attempts)
    fitted[width] = min(attempts, key=lambda attempt: attempt[0])[1]
    print(
        f"width {width:2}: {3 * width + 1:3} parameters, root mean square error", *(f"{e:.4f}" for e in errors[width])
    )
best = np.array([errors[width][0] for width in WIDTHS])
print(f"from width {WIDTHS[0]} to {WIDTHS[-1]} the error falls by a factor of {best[0] / best[-1]:.0f}")

if sys.argv[1:]:
    figure = new_figure("universal_approximation", 7.6, 3.4)
    shape, course = figure.subplots(1, 2)
    x = between[:, 0]
    shape.plot(x, curve(x), color="#C8C8C8", linewidth=4, label="the curve")
    for width, colour in ((2, "#E69F00"), (8, BLUE), (32, VERMILION)):
        shape.plot(x, fitted[width], color=colour, linewidth=1.3, label=f"width {width}")
    shape.set(xlabel="x", ylabel="y", title="the best of three fits", xticks=(-1, -0.5, 0, 0.5, 1), ylim=(-1.6, 3.6))
    shape.legend(loc="upper left", fontsize="small", ncols=2)
    for place in range(STARTS):
        points = [errors[width][place] for width in WIDTHS]
        course.loglog(WIDTHS, points, "o", color=BLUE if place == 0 else "none", markeredgecolor=BLUE, markersize=5)
    course.loglog(WIDTHS, best, color=BLUE, label="best of three starts")
    course.loglog(WIDTHS, best[0] * np.sqrt(WIDTHS[0] / np.array(WIDTHS)), "--", color=GREY, label="∝ 1/√width")
    course.set(xlabel="width", ylabel="root mean square error", title="error by width")
    course.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    course.minorticks_off()
    course.legend(loc="lower left", fontsize="small")
    figure.savefig(sys.argv[1], dpi=100)
