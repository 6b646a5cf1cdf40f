"""Double Q-learning balances poles on carts. Surprising steps are drawn from the memory more often, and weigh less
(van Hasselt, Guez, Silver, 2016; Schaul, Quan, Antonoglou, Silver, 2016).

Look at `learned`: `where` marks the action that was taken, `weights` holds one number per row, and `huber` is the loss
of the library. The target network is the average that `averaged` keeps. The poles stand longer and longer.
"""

import jax
import jax.numpy as jnp

import funcnet as fn
from funcnet.layers import dense, relu, serial

CARTS, BATCH, MEMORY, LONGEST, DISCOUNT = 16, 128, 8192, 500, 0.99
model = serial(dense(64), relu(), dense(64), relu(), dense(2))
optimizer = fn.optimizers.averaged(fn.optimizers.clipped(fn.optimizers.adam(1e-3), norm=10.0), 0.995)
gradient = fn.gradients.backprop(model, fn.losses.huber)
start = fn.training.create_state(model, optimizer, 0, jax.ShapeDtypeStruct((1, 4), jnp.float32))


def fresh(key):
    return jax.random.uniform(key, (CARTS, 4), minval=-0.05, maxval=0.05)


def pushed(s, action):
    """Carts (place, speed, angle, turning) 0.02 s later, and which have failed (Barto, Sutton, Anderson, 1983)."""
    _, speed, angle, turning = s.T
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    push = (jnp.where(action == 1, 10.0, -10.0) + 0.05 * turning**2 * sin) / 1.1
    turn = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    s = s + 0.02 * jnp.stack([speed, push - 0.05 * turn * cos / 1.1, turning, turn], 1)
    return s, (jnp.abs(s[:, 0]) > 2.4) | (jnp.abs(s[:, 2]) > 0.2095)


def values(params, s):
    return model.apply(params, start.model, s)[0]


def learned(state, batch, weights):
    """The state after an update, and how wrong the value of each action was."""
    best = values(state.params, batch["later"]).argmax(1)  # one network chooses, and the other says what that is worth
    worth = jnp.take_along_axis(values(state.average, batch["later"]), best[:, None], 1)
    target = (1 + DISCOUNT * jnp.where(batch["failed"][:, None], 0, worth)).repeat(2, 1)
    taken = jax.nn.one_hot(batch["action"], 2, dtype=bool)
    found = gradient(state.params, start.model, (batch["s"], target, taken, weights))
    return optimizer.update(state, found.grads), jnp.where(taken, jnp.abs(found.prediction - target), 0).sum(1)


def step(carry, key):
    state, memory, priority, s, age = carry
    rarely, anyhow, anew, draw = jax.random.split(key, 4)
    explores = jax.random.uniform(rarely, CARTS) < jnp.maximum(0.05, 1 - state.step / 1000)
    action = jnp.where(explores, jax.random.randint(anyhow, CARTS, 0, 2), values(state.params, s).argmax(1))
    later, failed = pushed(s, action)
    rows = (state.step * CARTS + jnp.arange(CARTS)) % MEMORY
    seen = {"s": s, "action": action, "later": later, "failed": failed}
    memory = jax.tree.map(lambda all, new: all.at[rows].set(new), memory, seen)
    priority = priority.at[rows].set(priority.max())
    drawn = jax.random.choice(draw, MEMORY, (BATCH,), p=priority / priority.sum())
    weights = jnp.sqrt(priority[drawn].min() / priority[drawn])
    state, error = learned(state, jax.tree.map(lambda all: all[drawn], memory), weights)
    over = failed | (age + 1 >= LONGEST)
    carry = state, memory, priority.at[drawn].set((error + 1e-3) ** 0.6), jnp.where(over[:, None], fresh(anew), later)
    return (*carry, jnp.where(over, 0, age + 1)), (jnp.where(over, age + 1, 0).sum(), over.sum())


if __name__ == "__main__":
    s, age = fresh(jax.random.key(0)), jnp.zeros(CARTS, int)
    seen = {"s": s, "action": age, "later": s, "failed": age > 0}
    memory = jax.tree.map(lambda leaf: jnp.zeros((MEMORY, *leaf.shape[1:]), leaf.dtype), seen)
    carry = start.optimizer, memory, jnp.zeros(MEMORY).at[0].set(1.0), s, age
    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))
    for keys in jax.random.split(jax.random.key(1), (3, 1000)):
        carry, (steps, episodes) = run(carry, keys)
        print(f"{carry[0].step} updates: the poles stand {steps.sum() / jnp.maximum(episodes.sum(), 1):.0f} steps")
