"""A small network learns from a large one: from the probabilities of its teacher, besides the labels
(Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015).

The teacher has seen all labels. The student gets 100 of them. Look at `taught`: its second head divides the output by
the temperature T, so that the losses of the library are enough.
"""

import jax
import jax.numpy as jnp
import numpy as np

import funcnet as fn
from funcnet.layers import identity, parallel, serial

T, ALPHA, LABELS = 4.0, 0.9, 100
cross_entropy, metrics = fn.losses.softmax_cross_entropy, {"accuracy": fn.metrics.accuracy()}
teacher, student = fn.models.mlp((256, 256, 10)), fn.models.mlp((16, 10))
cooled = fn.layers.elementwise(lambda z: z / T, lambda z, y: jnp.full_like(z, 1 / T))
taught = serial(student=student, heads=parallel(label=identity(), chances=cooled))
both = fn.losses.weighted_sum(label=(1 - ALPHA, cross_entropy), chances=(ALPHA * T**2, cross_entropy))


def trained(model, loss, data):
    *_, last = fn.training.fit(model, loss, fn.optimizers.adam(3e-3), data, engine="backprop", epochs=40, batch_size=64)
    return last.state.optimizer.params, last.state.model


if __name__ == "__main__":
    (x, labels), held_out = fn.data.split(*fn.data.digits())
    known = np.arange(len(x)) < LABELS

    def accuracy(model, params, state):
        return fn.training.evaluate(model, cross_entropy, params, state, held_out, metrics=metrics)["accuracy"]

    expert = trained(teacher, cross_entropy, (x, labels))
    chances = jax.nn.softmax(teacher.apply(*expert, x)[0] / T)
    params, state = trained(taught, both, (x, {"label": labels, "chances": chances}, {"label": known}))
    alone = trained(student, cross_entropy, (x, labels, known))
    print(f"held-out digits: teacher {accuracy(teacher, *expert):.1%}, student alone {accuracy(student, *alone):.1%}")
    print(f"student taught {accuracy(student, params['student'], state['student']):.1%}")
