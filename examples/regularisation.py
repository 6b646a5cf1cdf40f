"""Over-fitting on 200 digits, and what helps: batch normalisation, weight decay, dropout, augmentation, early stopping.

Each alone and all together, for five draws of the digits. `python examples/regularisation.py curves.png` draws it too.
"""

import sys

import numpy as np

import funcnet as fn
from funcnet.plotting.figures import BLUE, VERMILION, new_figure, saved

DRAWS, EPOCHS, BATCH_SIZE, RATE, WIDTHS = 5, 60, 40, 3e-3, (256, 256, 10)
loss, metrics = fn.losses.softmax_cross_entropy, {"accuracy": fn.metrics.accuracy()}


def normalized_relu():
    return fn.layers.serial(fn.layers.batch_norm(), fn.layers.relu())


def shifted(key, x, labels):
    return fn.data.random_shift(key, x.reshape(-1, 8, 8, 1), most=0.6).reshape(x.shape), labels


plain, adam = fn.models.mlp(WIDTHS), fn.optimizers.adam(RATE)  # 85,000 parameters
adamw = fn.optimizers.adamw(RATE, weight_decay=1.0, mask=lambda path: path.endswith("kernel"))
remedies = {  # model, optimizer, augmentation, and the patience of early stopping in reports
    "none": (plain, adam, None, None),
    "batch norm": (fn.models.mlp(WIDTHS, activation=normalized_relu), adam, None, None),
    "weight decay": (plain, adamw, None, None),
    "dropout": (fn.models.mlp(WIDTHS, dropout=0.5), adam, None, None),
    "augmentation": (plain, adam, shifted, None),
    "early stopping": (plain, adam, None, 4),
    "all five": (fn.models.mlp(WIDTHS, activation=normalized_relu, dropout=0.5), adamw, shifted, 4),
}


def run(draw, model, optimizer, augment, patience):
    """Epochs, training and held-out losses, (3, reports), and test loss and accuracy of the last report."""
    shares = (200 / 1797, 400 / 1797, 1197 / 1797)  # early stopping sees the held-out digits; nothing sees the test
    train, held_out, test = fn.data.split(*fn.data.digits(), fractions=shares, seed=draw, stratified=True)
    reports = fn.training.fit(
        model, loss, optimizer, train, engine="backprop", epochs=EPOCHS, batch_size=BATCH_SIZE, key=draw,
        augment=augment, validation=held_out, report_steps=20,
    )  # fmt: skip
    reports = list(fn.training.early_stopping(reports, patience=patience) if patience else reports)
    trained = [(report.state.optimizer.params, report.state.model) for report in reports]
    fitted = [fn.training.evaluate(model, loss, *values, train)["loss"] for values in trained]
    curve = [report.epoch for report in reports], fitted, [report.metrics["validation_loss"] for report in reports]
    result = fn.training.evaluate(model, loss, *trained[-1], test, metrics=metrics)
    return np.array(curve, float), (float(result["loss"]), float(result["accuracy"]))


curves, results = {}, {}
for name, choices in remedies.items():
    curves[name], tested = zip(*(run(draw, *choices) for draw in range(DRAWS)), strict=True)
    results[name] = losses, accuracy = np.array(tested).T
    lower = (losses < results["none"][0]).sum()
    print(f"{name:14}  test loss {losses.mean():.3f} ± {losses.std(ddof=1):.3f}, lower in {lower} of {DRAWS}", end="  ")
    print(f"accuracy {accuracy.mean():.1%} ± {accuracy.std(ddof=1):.1%}")

if sys.argv[1:]:
    figure = new_figure("regularisation", 9, 4.4)
    colours = {"training loss": BLUE, "held-out loss": VERMILION}
    *panels, summary = figure.subplots(2, 4).flat
    for axes, (name, drawn) in zip(panels, curves.items(), strict=True):
        for epochs, *both in drawn:
            order = np.argsort(epochs)  # early stopping yields the best report again at the end: the dot
            for values, colour in zip(both, colours.values(), strict=True):
                axes.plot(epochs[order], values[order], color=colour, linewidth=0.8)
                axes.plot(epochs[-1], values[-1], "o", color=colour, markersize=3)
        axes.set(xlim=(0, EPOCHS + 2), ylim=(0, 0.6), title=name, xlabel="epoch")
    for height, (word, colour) in zip((0.05, 0.4), colours.items(), strict=True):
        panels[0].text(20, height, word, color=colour)
    for place, (name, (losses, _)) in enumerate(results.items()):
        summary.plot(losses, [-place] * DRAWS, "o", color=colours["held-out loss"], markersize=3)
        summary.plot(losses.mean(), -place, "|", color="black", markersize=12)
        summary.text(0, -place, name, va="center", fontsize="small")
    summary.set(xlim=(0, None), yticks=[], title="test loss, and its mean")
    saved(figure, sys.argv[1])
