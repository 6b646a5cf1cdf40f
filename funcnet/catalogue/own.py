"""Layers and containers of a user's own, as in the guides.

With them the catalogue checks the functions that make layers. Other tests use them too.
"""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet import gradients, initializers, layers
from funcnet.made import constructor
from funcnet.trees import total
from funcnet.types import Layer, Rules

__all__ = ["counter", "embedding", "highway", "scale", "square", "wave"]


@constructor
def scale() -> Layer:
    """A user's own layer, y = a ⊙ x. With g = ∂L/∂y: da = Σ_batch g ⊙ x and dx = a ⊙ g. Kept: x."""

    def forward(params, state, x, *, key=None, train=False):
        return params["scale"] * x, state, x

    def backward(params, x, dy):
        return {"scale": (dy * x).sum(0)}, params["scale"] * dy

    return layers.layer(forward, backward, leaves=lambda x: {"scale": (initializers.ones, x.shape[-1:])})


@constructor
def highway(f: Layer, s: Layer) -> Layer:
    """A user's own container, y = t ⊙ f(x) + (1 − t) ⊙ x with t = s(x).

    With g = ∂L/∂y: df = t ⊙ g, dt = (f(x) − x) ⊙ g, and x gets (1 − t) ⊙ g directly. Kept: x, f(x), t.
    """

    def walk(run, x):
        y, t = run(0, x), run(1, x)
        return layers.merged(lambda x, y, t: t * y + (1 - t) * x, x, y, t), (x, y, t)

    def back(run, kept, dy):
        x, y, t = kept
        return total([run(0, t * dy), run(1, (y - x) * dy), (1 - t) * dy])

    return layers.container((f, s), walk, back)


@constructor
def embedding(rows: int, features: int) -> Layer:
    """A user's own layer on integers, y = W[x], the rows of a table: ∂L/∂W[i] = Σ g where x = i. Kept: x."""

    def forward(params, state, x, *, key=None, train=False):
        return params["table"][x], state, x

    def backward(params, x, dy):
        return {"table": jnp.zeros_like(params["table"]).at[x].add(dy)}, None

    def init(key, x):
        return {"table": initializers.normal(1.0)(key, (rows, features), jnp.result_type(float))}, ()

    return layers.layer(forward, backward, init=init)


@constructor
def square() -> Layer:
    """A user's own layer, y = x², with ∂L/∂x = 2 x ⊙ g. Kept: x."""
    return layers.parameterless(lambda x, *, key, train: (x * x, x), lambda x, dy: 2 * x * dy)


@constructor
def counter() -> Layer:
    """A user's own layer with a state, y = x + n, where n counts its runs in training. ∂L/∂x = g."""

    def init(key, x):
        return (), jnp.zeros((), x.dtype)

    def forward(params, state, x, *, key=None, train=False):
        return x + state, state + 1 if train else state, None

    return layers.layer(forward, lambda params, residuals, dy: ((), dy), init=init, rules=Rules(positionwise=0))


@constructor
def wave() -> Layer:
    """A user's own layer, y = sin(a x), in training with noise, whose backward is left to autodiff."""

    def apply(params, state, x, *, key: Any = None, train=False):
        noise = jax.random.normal(key, x.shape, jnp.float32).astype(x.dtype) if train else 0
        return jnp.sin(params["scale"] * x) + noise * x, state

    return gradients.automatic(lambda key, x: ({"scale": jnp.ones((), x.dtype)}, ()), apply)
