"""Learning to learn: where should training start, so that one step on ten points of a new sine wave is enough?
(Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", 2017.)

Look at `meta`, an engine of your own. Backprop and `update` are pure functions, so the training of each task can be
differentiated too. A row of the batch is a task: ten points that are shown, and ten that are asked for.
"""

import jax
import jax.numpy as jnp
import numpy as np

import funcnet as fn
from funcnet.layers import dense, relu, serial

net = serial(dense(40), relu(), dense(40), relu(), dense(1))
loss, descent = fn.losses.mean_squared_error, fn.optimizers.sgd(0.01)


def meta(model, loss, *, penalty=None, steps=1, engine=fn.gradients.backprop):
    """The loss on the points asked for, after steps on the points shown, differentiated through these steps."""
    of_a_task = engine(model, loss)

    def after_steps(params, state, x, target):
        training = descent.init(params)
        for _ in range(steps):
            found = of_a_task(training.params, state, (x["shown"], target["shown"]))
            training = descent.update(training, found.grads)
        prediction, _ = model.apply(training.params, state, x["asked"])
        return loss(prediction, target["asked"])

    def gradient(params, state, batch, key=None):
        def mean(params):
            return jax.vmap(after_steps, (None, None, 0, 0))(params, state, *batch).mean()

        value, grads = jax.value_and_grad(mean)(params)
        return fn.Gradient(value, grads, state, None)

    return gradient


def waves(seed, n, points=10):
    """Tasks, y = a sin(x + φ): x and y of the points that are shown and of those that are asked for."""
    random = np.random.default_rng(seed)
    a, phase = random.uniform(0.1, 5, (n, 1, 1)), random.uniform(0, np.pi, (n, 1, 1))
    x = {name: random.uniform(-5, 5, (n, points, 1)) for name in ("shown", "asked")}
    return jax.tree.map(np.float32, (x, {name: a * np.sin(x[name] + phase) for name in x}))


if __name__ == "__main__":
    optimizer = fn.optimizers.adam(1e-3)
    start = fn.training.create_state(net, optimizer, 0, jax.ShapeDtypeStruct((10, 1), jnp.float32))
    *_, last = fn.training.fit(net, loss, optimizer, waves(0, 1600), engine=meta, epochs=30, batch_size=32, state=start)
    judge = jax.jit(meta(net, loss))
    random, learned = (judge(one.optimizer.params, one.model, waves(1, 500)).loss for one in (start, last.state))
    print(f"squared error after one step: {random:.2f} from a random start, {learned:.2f} from the learned one")
    print(f"it is {random / learned:.1f} times smaller")
