"""A network that has learned to tell digits gets a new question: how many holes does the digit have, 0, 1 or 2? It sees
30 examples.

Look at `held` and `frozen`. With `held` the trunk runs as in evaluation, so its batch normalisation stays. `frozen`
keeps its parameters too, while a new head is trained. The same network from a random start learns less from so little.
"""

import numpy as np

import funcnet as fn
from funcnet.layers import batch_norm, conv, dense, dropout, flatten, held, max_pool, relu, serial

HOLES = np.array([1, 0, 0, 0, 1, 0, 1, 0, 2, 1])  # of the digits 0 to 9; some people write a 4 without a hole
loss, adam = fn.losses.softmax_cross_entropy, fn.optimizers.adam(2e-3)
trunk = serial(conv(16, 3), batch_norm(), relu(), max_pool(2), flatten(), dropout(0.2), dense(64), batch_norm(), relu())
digits, holes = serial(trunk=trunk, head=dense(10)), serial(trunk=trunk, head=dense(3))
tuned = serial(trunk=held(trunk), head=dense(3))
head_alone = fn.optimizers.frozen(adam, lambda path: path.startswith("trunk/"))


def trained(model, optimizer, data, epochs, state=None):
    options = {"engine": "backprop", "epochs": epochs, "batch_size": 30, "state": state}
    *_, last = fn.training.fit(model, loss, optimizer, data, **options)
    return last.state


def accuracy(model, state, data):
    metrics = {"accuracy": fn.metrics.accuracy()}
    return fn.training.evaluate(model, loss, state.optimizer.params, state.model, data, metrics=metrics)["accuracy"]


if __name__ == "__main__":
    x, y = fn.data.digits()
    first, (x, y) = fn.data.split(x.reshape(-1, 8, 8, 1), y, fractions=(0.6, 0.4))
    few, held_out = (x[:30], HOLES[y[:30]]), (x[30:], HOLES[y[30:]])

    before = trained(digits, adam, first, epochs=8)
    print(f"digits: accuracy {accuracy(digits, before, (x, y)):.1%}")

    drawn = fn.training.create_state(tuned, head_alone, 0, x)
    params = drawn.optimizer.params | {"trunk": before.optimizer.params["trunk"]}
    state = drawn.model | {"trunk": before.model["trunk"]}
    start = fn.training.create_state(tuned, head_alone, 0, x, params=params, model_state=state)
    after, alone = trained(tuned, head_alone, few, 100, start), trained(holes, adam, few, 100)
    print(f"holes, from a random start: accuracy {accuracy(holes, alone, held_out):.1%}")
    print(f"holes, with the trunk of the digits: accuracy {accuracy(tuned, after, held_out):.1%}")
