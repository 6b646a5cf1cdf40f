"""Two networks against each other on eight Gaussians in a ring: a generator of points, and a discriminator that tells
them from true ones (Goodfellow and others, "Generative Adversarial Nets", 2014).

Look at `adversarial`, an engine of your own, which `fit` takes in place of "backprop". Each network follows the
gradient of its own aim. At the end the points reach all eight Gaussians.
"""

import jax
import jax.numpy as jnp

import funcnet as fn
from funcnet.layers import dense, leaky_relu, relu, serial

SIZE = 2  # noise numbers per point: enough for a ring; with more of them the points miss some of the eight
generator = serial(dense(64), relu(), dense(64), relu(), dense(2))
discriminator = serial(dense(64), leaky_relu(0.2), dense(64), leaky_relu(0.2), dense(1))
model, loss = serial(generator=generator, discriminator=discriminator), fn.losses.binary_cross_entropy_with_logits
angles = jnp.linspace(0, 2 * jnp.pi, 8, endpoint=False)
centres = 2 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)


def adversarial(model, loss, *, penalty=None, engine=fn.gradients.backprop):
    """The discriminator learns 1 for true points and 0 for generated ones. The generator learns to get a 1."""
    through, judge = engine(model, loss), engine(discriminator, loss)

    def gradient(params, state, batch, key=None):
        noise, true = batch
        yes = jnp.ones((len(true), 1))
        fooled = through(params, state, (noise, yes))
        points, _ = generator.apply(params["generator"], state["generator"], noise)
        both = jnp.concatenate([true, points]), jnp.concatenate([yes, 0 * yes])
        told = judge(params["discriminator"], state["discriminator"], both)
        return fn.Gradient(fooled.loss, fooled.grads | {"discriminator": told.grads}, state, points)

    return gradient


def with_noise(key, true, target):
    """Fresh noise for each batch: it goes into the model, and the true points are the target."""
    return jax.random.normal(key, (len(true), SIZE)), true


if __name__ == "__main__":
    data = jnp.repeat(centres, 512, 0) + 0.05 * jax.random.normal(jax.random.key(0), (4096, 2)), None
    optimizer = fn.optimizers.adam(1e-3, b1=0.5)
    *_, last = fn.training.fit(
        model, loss, optimizer, data, engine=adversarial, epochs=150, batch_size=256, augment=with_noise
    )
    params, state = last.state.optimizer.params["generator"], last.state.model["generator"]
    points, _ = generator.apply(params, state, jax.random.normal(jax.random.key(1), (2000, SIZE)))
    hit = (jnp.linalg.norm(points[:, None] - centres, axis=-1) < 0.25).mean(0)
    print(f"{hit.sum():.1%} of the points are near a centre; centres with 2% of them or more: {(hit > 0.02).sum()}")
