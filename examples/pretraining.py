"""A deep belief network learns from digits without labels. After that a few labels help more than from a random start.

It compares sigmoid networks with one and with three hidden layers, for five draws of the labelled digits. The better of
two rates counts for each start. `python examples/pretraining.py filters.png` draws it too.
"""

import sys

import jax
import numpy as np

import funcnet as fn
from funcnet.plotting.figures import BLUE, VERMILION, new_figure

LABELS, DRAWS = (30, 100, 300), 5
loss, metrics = fn.losses.softmax_cross_entropy, {"accuracy": fn.metrics.accuracy()}
rates, contrastive = [fn.optimizers.adam(rate) for rate in (3e-3, 1e-2)], fn.optimizers.sgd(0.1, momentum=0.5)
tuning = {"engine": "backprop", "epochs": 100, "report_steps": 100}
shares = 1000 / 1797, 297 / 1797, 500 / 1797
(digits, labels), held_out, test = fn.data.split(*fn.data.digits(), fractions=shares, stratified=True)
machines = [fn.pretraining.rbm(128)] * 3
trained = fn.pretraining.greedy(machines, contrastive, digits, epochs=40, batch_size=20)


def accuracies(model, optimizer, below, n):
    """(DRAWS, 2): for each draw of n labels, on the held-out digits, which choose the rate, and on the test digits."""
    results = []
    for draw in range(DRAWS):
        few, _ = fn.data.split(digits, labels, fractions=(n / 1000, 1 - n / 1000), seed=draw, stratified=True)
        state = fn.training.create_state(model, optimizer, draw, digits)
        state = state._replace(optimizer=optimizer.init(fn.pretraining.stack(model, state.optimizer.params, below)))
        *_, last = fn.training.fit(model, loss, optimizer, few, state=state, **tuning)
        found = last.state.optimizer.params, last.state.model
        judged = [fn.training.evaluate(model, loss, *found, rows, metrics=metrics) for rows in (held_out, test)]
        results.append([float(one["accuracy"]) for one in judged])
    return 100 * np.array(results)


print("hidden layers  labels   random start    pre-trained           gain")
curves = {}
for depth in (1, 3):
    model = fn.models.mlp(
        (*[128] * depth, 10), activation=fn.layers.sigmoid, kernel_init=fn.initializers.xavier_normal()
    )
    for n in LABELS:
        chosen = []
        for below in ((), trained[:depth]):
            tried = [accuracies(model, optimizer, below, n) for optimizer in rates]
            chosen.append(max(tried, key=lambda found: found[:, 0].mean())[:, 1])
        curves[depth, n] = np.array(chosen)
        words = [f"{a.mean():5.1f} ± {a.std(ddof=1):3.1f} %" for a in (*chosen, chosen[1] - chosen[0])]
        print(f"{depth:13}  {n:6}  {'  '.join(words)}")
random, pretrained = curves[3, LABELS[0]]
print(f"three hidden layers, {LABELS[0]} labels: pre-training gains {(pretrained - random).mean():.1f} points")

if sys.argv[1:]:
    dreams = np.asarray(fn.pretraining.dream(machines, trained, jax.random.key(0), 30))
    weights = np.asarray(trained[0]["kernel"]).T
    weights = weights[np.argsort(-np.linalg.norm(weights, axis=1))[:30]]
    figure = new_figure("pretraining", 8, 3.4)
    *mosaics, course = figure.subplots(1, 3, width_ratios=(1, 1, 1.5))
    for axes, images, title, colours in zip(
        mosaics, (weights, dreams), ("30 of 128 filters", "30 dreams"), ("RdBu_r", "gray"), strict=True
    ):
        tiles = np.pad(images.reshape(6, 5, 8, 8), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        limits = {"vmin": -abs(images).max(), "vmax": abs(images).max()} if colours != "gray" else {}
        axes.imshow(tiles.transpose(0, 2, 1, 3).reshape(54, 45), colours, **limits)
        axes.set_title(title)
        axes.axis("off")
    for (depth, style), (which, word, colour) in (
        (a, b) for a in ((1, "--"), (3, "-")) for b in ((0, "random start", BLUE), (1, "pre-trained", VERMILION))
    ):
        found = np.array([curves[depth, n][which] for n in LABELS])
        place, label = np.array(LABELS) * (0.97 + 0.06 * which), f"{word}, {depth} hidden"
        course.errorbar(place, found.mean(1), found.std(1, ddof=1), fmt="o" + style, color=colour, label=label)
    course.set(xscale="log", xlabel="labelled digits", ylabel="test accuracy (%)", title="mean ± deviation of 5 draws")
    course.set_xticks(LABELS, map(str, LABELS))
    course.minorticks_off()
    course.legend(loc="lower right", fontsize="small")
    figure.savefig(sys.argv[1], dpi=95)
