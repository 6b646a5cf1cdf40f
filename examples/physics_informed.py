"""A network solves −u″ = π² sin πx on [−1, 1] with u(±1) = 0. Its loss is the error in the equation inside and in the
value at the edge (Raissi, Perdikaris, Karniadakis, "Physics-informed neural networks", 2019).

Look at `physics`, a layer around the network. It computes −u″ by jax's forward mode. Its backward comes from autodiff,
because a third derivative by hand is long. Both kinds of points go through `fit` by name, each with its own target.
"""

import jax
import jax.numpy as jnp
import numpy as np

import funcnet as fn
from funcnet.layers import dense, serial, tanh

net = serial(dense(32), tanh(), dense(32), tanh(), dense(1))


def physics(params, state, x, *, key=None, train=False):
    def u(x):
        return net.apply(params, state, x)[0]

    def slope(x):
        return jax.jvp(u, (x,), (jnp.ones_like(x),))[1]

    _, curvature = jax.jvp(slope, (x["inside"],), (jnp.ones_like(x["inside"]),))
    return {"inside": -curvature, "edge": u(x["edge"])}, state


model = fn.gradients.automatic(lambda key, x: net.init(key, x["inside"]), physics)
squared = fn.losses.mean_squared_error
loss = fn.losses.weighted_sum(inside=(1.0, squared), edge=(10.0, squared))

if __name__ == "__main__":
    x = {"inside": np.random.default_rng(0).uniform(-1, 1, (512, 1)), "edge": np.resize([[-1.0], [1.0]], (512, 1))}
    target = {"inside": np.pi**2 * np.sin(np.pi * x["inside"]), "edge": 0 * x["edge"]}
    *_, last = fn.training.fit(
        model, loss, fn.optimizers.adam(fn.schedules.cosine_decay(3e-3, 2000)), (x, target), epochs=500, batch_size=128
    )
    grid = jnp.linspace(-1, 1, 201)[:, None]
    u, _ = net.apply(last.state.optimizer.params, last.state.model, grid)
    print(f"u is right to {-jnp.log10(jnp.abs(u - jnp.sin(np.pi * grid)).max()):.1f} decimals everywhere")
