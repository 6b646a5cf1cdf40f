"""A network with one hidden layer learns a sine from noisy points. The R² on new points shows how well it does."""

import jax
import jax.numpy as jnp

import funcnet as fn

NOISE = 0.1


def points(key, n):
    """x in (−π, π) and sin x with normal noise, both (n, 1)."""
    x_key, noise_key = jax.random.split(key)
    x = jax.random.uniform(x_key, (n, 1), minval=-jnp.pi, maxval=jnp.pi)
    return x, jnp.sin(x) + NOISE * jax.random.normal(noise_key, (n, 1))


train, held_out = points(jax.random.key(0), 200), points(jax.random.key(1), 100)
model = fn.models.mlp((32, 1), activation=fn.layers.tanh, kernel_init=fn.initializers.xavier_normal())
loss, optimizer = fn.losses.mean_squared_error, fn.optimizers.adam(fn.schedules.cosine_decay(1e-2, 2000))

for report in fn.training.fit(
    model, loss, optimizer, train, engine="backprop", epochs=200, batch_size=20,
    validation=held_out, metrics={"r2": fn.metrics.r_squared()},
):  # fmt: skip
    if report.epoch % 40 == 0:
        values = report.metrics
        print(f"epoch {report.epoch}  loss {values['loss']:.4f}  held-out R² {values['validation_r2']:.4f}")

# The variance of sin is ½ and the noise cannot be learned: R² ends at about 1 − 0.1² / (½ + 0.1²).
print(f"R² {report.metrics['validation_r2']:.3f}, at best {1 - NOISE**2 / (0.5 + NOISE**2):.3f}")
