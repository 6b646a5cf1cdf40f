"""Sequences of several lengths: handwritten digits read column by column, without the empty columns at either side.

Look at `Padded`, which holds sequences of several lengths in one batch, and at the model: two recurrences that read
each digit in both directions. The gradient is that of the hand-derived backpropagation through time.
"""

import jax
import numpy as np

import funcnet as fn


def columns(images):
    """The columns of each image from the first to the last with ink, padded to eight of them."""
    images = images.reshape(-1, 8, 8)
    ink = images.max(1) > 0
    first, lengths = ink.argmax(1), 8 - ink.argmax(1) - ink[:, ::-1].argmax(1)
    where = np.arange(8) < lengths[:, None]
    values = np.zeros((len(images), 8, 8), np.float32)
    for row, start, length, image in zip(values, first, lengths, images, strict=True):
        row[:length] = image.T[start : start + length]
    return fn.Padded(values, where)


EPOCHS, BATCH_SIZE = 20, 32

train, held_out = ((columns(np.asarray(images)), labels) for images, labels in fn.data.split(*fn.data.digits()))
steps = EPOCHS * fn.data.steps_per_epoch(len(train[1]), BATCH_SIZE)
model = fn.models.recurrent_classifier(10, features=(48,), recurrence=fn.layers.gru, bidirectional=True)
loss, optimizer = fn.losses.softmax_cross_entropy, fn.optimizers.adam(fn.schedules.cosine_decay(0.01, steps))

reports = fn.training.fit(model, loss, optimizer, train, engine="backprop", epochs=EPOCHS, batch_size=BATCH_SIZE)
for last in reports:
    print(f"epoch {last.epoch}  loss {last.metrics['loss']:.4f}")

sequences, labels = held_out
logits, _ = jax.jit(model.apply)(last.state.optimizer.params, last.state.model, sequences)
right, lengths = np.asarray(logits.argmax(1) == labels), sequences.where.sum(1)
for length in np.unique(lengths):
    print(f"{length} columns: {right[lengths == length].mean():.1%} of {(lengths == length).sum()} digits")
print(f"digits of {lengths.min()} to {lengths.max()} columns, held out: accuracy {right.mean():.2%}")
