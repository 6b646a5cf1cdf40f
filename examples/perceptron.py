"""Rosenblatt's perceptron: it learns AND and OR, which a line separates. It never learns XOR, which no line separates.

Its rule W ← W + xᵀ(t − y) is gradient descent by `backprop`. `python examples/perceptron.py lines.png` draws it too.
"""

import sys

import numpy as np

import funcnet as fn
from funcnet.plotting.figures import BLUE, CYCLE, VERMILION, new_figure

EPOCHS = 12
x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
truths = {"AND": x.all(1), "OR": x.any(1), "XOR": x.sum(1) == 1}
model, optimizer = fn.models.perceptron(), fn.optimizers.sgd(1.0)
rule = fn.losses.partial(fn.losses.half_squared_error, reduction="sum")


def learn(target):
    """The line w₁ x₁ + w₂ x₂ + b = 0 after each example, (steps, 3), and the mistakes by epoch, (EPOCHS,)."""
    rows, lines, mistakes = (x, target[:, None].astype(np.float32)), [], []
    for report in fn.training.fit(
        model, rule, optimizer, rows, engine="backprop", epochs=EPOCHS, batch_size=1, shuffle=False, report_steps=1
    ):
        dense, _ = report.state.optimizer.params
        lines.append([*dense["kernel"][:, 0].tolist(), *dense["bias"].tolist()])
        mistakes.append(2 * float(report.metrics["loss"]))  # a mistake costs ½, before its correction
    return np.array(lines), np.array(mistakes, int).reshape(EPOCHS, 4).sum(1)


learned = {name: learn(target) for name, target in truths.items()}
for name, (lines, mistakes) in learned.items():
    w1, w2, b = lines[-1]
    right = int(((x @ lines[-1, :2] + b >= 0) == truths[name]).sum())
    print(f"{name:3}  {right} of 4 right with H({w1:+g} x₁ {w2:+g} x₂ {b:+g}), mistakes by epoch", *mistakes)
print(f"XOR: mistakes in its best epoch {learned['XOR'][1].min()}")

if sys.argv[1:]:
    figure = new_figure("perceptron", 7, 5.4)
    *panels, course = figure.subplots(2, 2).flat
    course.set_prop_cycle(color=CYCLE)
    for axes, (name, (lines, mistakes)) in zip(panels, learned.items(), strict=True):
        for w1, w2, b in np.unique(lines, axis=0):  # the point of the line nearest to 0, and its direction
            foot, way = -b * np.array([w1, w2]) / (w1**2 + w2**2 or 1), np.array([-w2, w1])
            last = mistakes[-1] == 0 and (lines[-1] == [w1, w2, b]).all()
            axes.plot(
                *(foot + np.outer([-9, 9], way)).T, color="black" if last else "#B0B0B0", lw=3 if last else 1, aa=False
            )
        for value, colour, marker in ((0, BLUE, "o"), (1, VERMILION, "s")):
            axes.plot(*x[truths[name] == value].T, marker, color=colour, markersize=10, label=f"target {value}")
        course.plot(range(1, EPOCHS + 1), mistakes, "o-", markersize=5, label=name)
        verdict = "mistakes in every epoch" if mistakes.all() else f"right after {int((mistakes > 0).sum())} epochs"
        axes.set(xlim=(-0.8, 1.8), ylim=(-0.8, 1.8), xlabel="$x_1$", ylabel="$x_2$", title=f"{name}: {verdict}")
        axes.set(xticks=(0, 1), yticks=(0, 1))
    panels[2].legend(loc="lower right", fontsize="small")
    course.set(
        xlabel="epoch",
        ylabel="mistakes",
        ylim=(-0.3, 5.4),
        xticks=range(0, EPOCHS + 1, 3),
        yticks=range(5),
        title="mistakes of 4 by epoch",
    )
    course.legend(loc="upper right", ncols=3)
    figure.savefig(sys.argv[1], dpi=95)
