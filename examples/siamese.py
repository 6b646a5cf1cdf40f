"""Digits compared without labels: two shifted views of an image learn to find each other among all views of the batch
(Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", 2020).

Look at `siamese`, which runs one network on both views, and at `nt_xent`, a loss of pairs with its gradient derived by
hand. At the end each shifted digit gets the label of the nearest training digit, by pixels and by what was learned.
"""

import jax
import jax.numpy as jnp

import funcnet as fn
from funcnet.layers import container, dense, merged, relu, serial


@fn.constructor
def siamese(inner):
    """`inner` with one set of parameters on both entries of a pair; y has the shape (batch, 2, features)."""

    def walk(run, x):
        y = run(0, merged(lambda a, b: jnp.concatenate([a, b]), *x))
        return merged(lambda y: jnp.stack(jnp.split(y, 2), 1), y), None

    def back(run, kept, dy):
        return tuple(jnp.split(run(0, jnp.concatenate([dy[:, 0], dy[:, 1]])), 2))

    return container(inner, walk, back)


def check_pairs(prediction, target, where):
    if prediction.ndim != 3 or prediction.shape[1] != 2:
        raise fn.errors.ShapeError(f"expected prediction of shape (batch, 2, features), got {prediction.shape}.")


def compared(pairs, temperature):
    """The directions u = v / |v| of all views v, the lengths, the logits u_i·u_j / τ for j ≠ i, and the partners."""
    views = pairs.reshape(-1, pairs.shape[-1])
    lengths = jnp.linalg.norm(views, axis=1, keepdims=True)
    u = views / lengths
    logits = jnp.where(jnp.eye(len(u), dtype=bool), -1e9, u @ u.T / temperature)
    return u, lengths, logits, jnp.arange(len(u)) ^ 1


@fn.losses.loss(check=check_pairs, mean=False)
def nt_xent(prediction, target, *, temperature=0.5):
    """The cross-entropy of all partners. With D its gradient: du = (D + Dᵀ) u / τ and dv = (du − u (u·du)) / |v|."""
    _, _, logits, partners = compared(prediction, temperature)
    return fn.losses.softmax_cross_entropy(logits, partners)


@nt_xent.hand_gradient
def _(prediction, target, *, temperature=0.5):
    u, lengths, logits, partners = compared(prediction, temperature)
    slopes = fn.losses.softmax_cross_entropy.gradient(logits, partners)
    du = (slopes + slopes.T) @ u / temperature
    return ((du - u * (u * du).sum(1, keepdims=True)) / lengths).reshape(prediction.shape)


def shifted(key, x):
    return fn.data.random_shift(key, x.reshape(-1, 8, 8, 1), 1.0).reshape(x.shape)


def two_views(key, x, target):
    noise, *keys = jax.random.split(key, 3)
    noise = 0.1 * jax.random.normal(noise, (2, *x.shape))
    return tuple(shifted(key, x) + one for key, one in zip(keys, noise, strict=True)), target


encoder = serial(dense(256), relu(), dense(64))
model, optimizer = siamese(serial(encoder=encoder, head=serial(relu(), dense(32)))), fn.optimizers.adam(2e-3)
options = {"engine": "backprop", "epochs": 50, "batch_size": 128, "drop_last": True, "augment": two_views}

if __name__ == "__main__":
    (x, labels), (held_out, truth) = fn.data.split(*fn.data.digits())
    *_, last = fn.training.fit(model, nt_xent, optimizer, (x, None), **options)
    params, state = last.state.optimizer.params["encoder"], last.state.model["encoder"]
    for name, code in (("pixels", lambda x: x), ("what was learned", lambda x: encoder.apply(params, state, x)[0])):
        known, asked = code(x), code(shifted(jax.random.key(1), held_out))
        nearest = (asked @ known.T / jnp.linalg.norm(known, axis=1)).argmax(1)
        print(f"{(labels[nearest] == truth).mean():.1%} of shifted digits are named right by {name}")
