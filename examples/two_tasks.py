"""One trunk, two heads, two losses: which digit an image shows, and how much ink its upper half has.

Only every third image has a label, and `where` tells the loss of the digits which ones. Look at the names of the heads:
they run through the whole program, from the model to the metrics.
"""

import numpy as np

import funcnet as fn
from funcnet.layers import dense, parallel, relu, serial

model = serial(
    trunk=serial(dense(64), relu()),
    heads=parallel(digit=dense(10), ink=serial(dense(16), relu(), dense(1))),
)
loss = fn.losses.weighted_sum(
    digit=(1.0, fn.losses.softmax_cross_entropy),
    ink=(1.0, fn.losses.mean_squared_error),
)
metrics = {"digit": {"accuracy": fn.metrics.accuracy()}, "ink": {"r2": fn.metrics.r_squared()}}


def tasks(x, labels):
    return x, {"digit": labels, "ink": 4 * x[:, :32].mean(1, keepdims=True)}


train, held_out = (tasks(*part) for part in fn.data.split(*fn.data.digits()))
known = np.arange(len(train[0])) % 3 == 0
train[1]["digit"][~known] = -1  # no label; nothing reads this number

if __name__ == "__main__":
    for last in fn.training.fit(
        model, loss, fn.optimizers.adam(2e-3), (*train, {"digit": known}), engine="backprop", epochs=30, batch_size=64,
        validation=held_out, metrics=metrics,
    ):  # fmt: skip
        if last.epoch % 10 == 0:
            print(f"epoch {last.epoch}  digits {last.metrics['loss/digit']:.4f}  ink {last.metrics['loss/ink']:.5f}")
    print(f"held-out ink: R² {last.metrics['validation_ink/r2']:.3f}")
    print(f"held-out digits, {known.sum()} labels: accuracy {last.metrics['validation_digit/accuracy']:.2%}")
