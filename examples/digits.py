"""Handwritten digits, from the data to the accuracy on held-out digits: `python examples/digits.py`."""

import funcnet as fn

EPOCHS, BATCH_SIZE = 30, 32

train, held_out = fn.data.split(*fn.data.digits())
steps = EPOCHS * fn.data.steps_per_epoch(len(train[0]), BATCH_SIZE)
model, loss = fn.models.mlp((256, 128, 10), dropout=0.3), fn.losses.softmax_cross_entropy
optimizer = fn.optimizers.adamw(fn.schedules.cosine_decay(3e-3, steps), weight_decay=0.05)

reports = fn.training.fit(model, loss, optimizer, train, engine="backprop", epochs=EPOCHS, batch_size=BATCH_SIZE)
for last in reports:
    print(f"epoch {last.epoch}  loss {last.metrics['loss']:.4f}")

params, state = last.state.optimizer.params, last.state.model
results = fn.training.evaluate(model, loss, params, state, held_out, metrics={"accuracy": fn.metrics.accuracy()})
print(f"held-out accuracy {results['accuracy']:.2%}")
