"""The usual jobs of a network: the last layer and the loss that each one needs, and the result on digits.

`python examples/jobs.py` prints a table: two classes, ten classes, a number, and linear models for the same.
"""

import numpy as np

import funcnet as fn

(x, digit), (held_out_x, held_out_digit) = fn.data.split(*fn.data.digits())


def ink(x):
    """A number to predict from the left half of an image: how much ink its right half has, in standard deviations."""
    whole = x.reshape(-1, 8, 8)[:, :, 4:].sum((1, 2))
    return ((whole - whole.mean()) / whole.std())[:, None].astype(np.float32)


def left(x):
    return x.reshape(-1, 8, 8)[:, :, :4].reshape(-1, 32)


def is_large(digit):
    """Two classes: 5 and above, or not."""
    return (digit >= 5).astype(np.float32)[:, None]


LARGE = (x, is_large(digit)), (held_out_x, is_large(held_out_digit))
TEN = (x, digit), (held_out_x, held_out_digit)
INK = (left(x), ink(x)), (left(held_out_x), ink(held_out_x))

layers, losses, metrics = fn.layers, fn.losses, fn.metrics
hidden = (layers.dense(64, kernel_init=fn.initializers.he_normal()), layers.relu())
svm_penalty = fn.losses.partial(fn.losses.l2_penalty, strength=1e-3)

JOBS = [  # job, model, loss, penalty, data, metric
    ("two classes", layers.serial(*hidden, layers.dense(1)), losses.binary_cross_entropy_with_logits, None, LARGE,
     metrics.binary_accuracy(threshold=0.0)),
    ("the same, as probability", layers.serial(*hidden, layers.dense(1), layers.sigmoid()), losses.binary_cross_entropy,
     None, LARGE, metrics.binary_accuracy()),
    ("ten classes", layers.serial(*hidden, layers.dense(10)), losses.softmax_cross_entropy, None, TEN,
     metrics.accuracy()),
    ("the same, as log-probabilities", layers.serial(*hidden, layers.dense(10), layers.log_softmax()),
     losses.negative_log_likelihood, None, TEN, metrics.accuracy()),
    ("a number", layers.serial(*hidden, layers.dense(1)), losses.mean_squared_error, None, INK, metrics.r_squared()),
    ("logistic regression", layers.dense(1), losses.binary_cross_entropy_with_logits, None, LARGE,
     metrics.binary_accuracy(threshold=0.0)),
    ("softmax regression", layers.dense(10), losses.softmax_cross_entropy, None, TEN, metrics.accuracy()),
    ("support vector machine", layers.dense(10), losses.multiclass_hinge, svm_penalty, TEN, metrics.accuracy()),
    ("linear regression", layers.dense(1), losses.mean_squared_error, None, INK, metrics.r_squared()),
]  # fmt: skip

print(f"{'job':32}{'last layer':16}{'loss':34}held out")
for job, model, loss, penalty, (train, held_out), metric in JOBS:
    optimizer = fn.optimizers.adam(fn.schedules.cosine_decay(1e-2, 20 * fn.data.steps_per_epoch(len(x), 32)))
    reports = fn.training.fit(
        model, loss, optimizer, train, engine="backprop", epochs=20, batch_size=32, penalty=penalty,
        report_steps=10_000,
    )  # fmt: skip
    *_, last = reports
    params, state = last.state.optimizer.params, last.state.model
    score = fn.training.evaluate(model, loss, params, state, held_out, metrics={"score": metric})["score"]
    word = "R²" if train is INK[0] else "accuracy"
    last_layer = model.inside.layers[-1] if model.inside else model
    print(f"{job:32}{last_layer!r:16}{loss.__name__:34}{word} {score:.3f}")
