"""A network learns to tell three spirals apart. The pictures show how its boundary winds between them.

`python examples/decision_boundary.py boundary.gif boundary.png` draws it, as it trains and at the end.
"""

import sys

import numpy as np

import funcnet as fn


def spirals(n=120, noise=0.04):
    """Three classes of n points each, (3 n, 2)."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), n)
    radius = np.tile(np.linspace(0.05, 1, n), 3)
    angle = 2 * np.pi * labels / 3 + 5 * radius
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1) + rng.normal(scale=noise, size=(3 * n, 2))
    return x.astype(np.float32), labels


x, labels = spirals()
model = fn.models.mlp((32, 32, 3), activation=fn.layers.tanh)
loss, optimizer = fn.losses.softmax_cross_entropy, fn.optimizers.adam(0.005)
metrics = {"accuracy": fn.metrics.accuracy()}
reports = list(
    fn.training.fit(model, loss, optimizer, (x, labels), engine="backprop", epochs=80, batch_size=60, metrics=metrics)
)
for report in reports[7::8]:
    print(f"epoch {report.epoch:2}  loss {report.metrics['loss']:.3f}  accuracy {report.metrics['accuracy']:.1%}")

names = ["a", "b", "c"]
if len(sys.argv) > 1:
    fn.plotting.decision_boundary_gif(model, reports[::4] + reports[-1:], x, labels, sys.argv[1], class_names=names)
if len(sys.argv) > 2:
    params, state = reports[-1].state.optimizer.params, reports[-1].state.model
    fn.plotting.decision_boundary(model, params, state, x, labels, sys.argv[2], class_names=names)
