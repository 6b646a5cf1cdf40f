"""The table of layers under test: every public constructor has a row, in every form that differs.

A row gives the layer and the shape of its input for a batch size and a width. `kink` marks layers that have one at 0
(finite differences stay away from it), `random` those that need a key in training, `counts` those whose state training
changes. The others compute the same in both modes, which a law holds, so the further laws look at them in one.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp

from funcnet import gradients, initializers, layers, models
from funcnet.types import Layer

tanh_block = layers.serial(layers.dense(3), layers.tanh())


class Case(NamedTuple):
    layer: Layer
    shape: Callable[[int, int], tuple[int, ...]] = lambda batch, width: (batch, width)
    kink: bool = False
    random: bool = False
    counts: bool = False


def scale():
    """A user's own layer, as in the documentation of `layers.layer`."""

    def init(key, x):
        return {"scale": jnp.ones(x.shape[-1:], x.dtype)}, ()

    def forward(params, state, x, *, key=None, train=False):
        return params["scale"] * x, state, x

    def backward(params, x, dy):
        return {"scale": (dy * x).sum(0)}, params["scale"] * dy

    return layers.layer(init, forward, backward, name="scale()")


def counter():
    """A user's own layer with a state: it adds how often it ran in training."""

    def init(key, x):
        return (), jnp.zeros((), x.dtype)

    def forward(params, state, x, *, key=None, train=False):
        return x + state, state + 1 if train else state, None

    return layers.layer(init, forward, lambda params, residuals, dy: ((), dy), name="counter()")


def wave_apply(params, state, x, *, key=None, train=False):
    noise = jax.random.normal(key, x.shape, jnp.float32).astype(x.dtype) if train else 0
    return jnp.sin(params["scale"] * x) + noise * x, state


def wave_init(key, x):
    return {"scale": jnp.ones((), x.dtype)}, ()


def fixed(batch, width):
    return (batch, 3)


CASES = {
    # what moves numbers about
    "identity": Case(layers.identity()),
    "flatten": Case(layers.flatten(), lambda batch, width: (batch, width, 2)),
    "flatten_flat": Case(layers.flatten()),
    "reshape": Case(layers.reshape((2, -1)), lambda batch, width: (batch, width, 2)),
    "reshape_exact": Case(layers.reshape((3, 1)), fixed),
    # dense
    "dense": Case(layers.dense(4)),
    "dense_no_bias": Case(layers.dense(2, use_bias=False, kernel_init=initializers.orthogonal())),
    "dense_time_axis": Case(layers.dense(3), lambda batch, width: (batch, 2, width)),
    # dropout
    "dropout": Case(layers.dropout(0.4), random=True),
    "dropout_0": Case(layers.dropout(0), random=True),
    # activations
    "sigmoid": Case(layers.sigmoid()),
    "tanh": Case(layers.tanh()),
    "relu": Case(layers.relu(), kink=True),
    "leaky_relu": Case(layers.leaky_relu(), kink=True),
    "leaky_relu_steep": Case(layers.leaky_relu(0.3), kink=True),
    "prelu": Case(layers.prelu(), kink=True),
    "rrelu": Case(layers.rrelu(), kink=True, random=True),
    "elu": Case(layers.elu()),
    "elu_2": Case(layers.elu(2.0), kink=True),
    "silu": Case(layers.silu()),
    "softplus": Case(layers.softplus()),
    "softplus_3": Case(layers.softplus(3.0)),
    "log_sigmoid": Case(layers.log_sigmoid()),
    "gelu": Case(layers.gelu()),
    "gelu_tanh": Case(layers.gelu(approximate=True)),
    "binary_step": Case(layers.binary_step(), kink=True),
    "softmax": Case(layers.softmax()),
    "softmax_axis_1": Case(layers.softmax(axis=1), lambda batch, width: (batch, 3, width)),
    "log_softmax": Case(layers.log_softmax()),
    "log_softmax_axis_1": Case(layers.log_softmax(axis=1), lambda batch, width: (batch, 3, width)),
    # combinators
    "serial": Case(layers.serial(layers.dense(4), layers.tanh(), layers.dropout(0.3), layers.dense(2)), random=True),
    "serial_empty": Case(layers.serial()),
    "serial_nested": Case(layers.serial(tanh_block, layers.serial(layers.dense(2), layers.softmax()))),
    "serial_state": Case(layers.serial(counter(), tanh_block, counter()), counts=True),
    "residual": Case(layers.residual(tanh_block), fixed),
    "residual_shortcut": Case(layers.residual(tanh_block, layers.dense(3, use_bias=False))),
    "residual_random": Case(layers.residual(layers.serial(tanh_block, layers.dropout(0.5))), fixed, random=True),
    "parallel_sum": Case(layers.parallel(tanh_block, layers.dense(3), layers.serial(layers.dense(3), layers.silu()))),
    "parallel_concatenate": Case(layers.parallel(layers.dense(2), tanh_block, combine="concatenate")),
    "parallel_axis_1": Case(
        layers.parallel(layers.dense(2), layers.dense(2), combine="concatenate", axis=1),
        lambda batch, width: (batch, 2, width),
    ),
    "repeat": Case(layers.repeat(tanh_block, 4), fixed),
    "repeat_random": Case(layers.repeat(layers.serial(tanh_block, layers.dropout(0.2)), 2), fixed, random=True),
    "repeat_state": Case(layers.repeat(layers.serial(tanh_block, counter()), 3), fixed, counts=True),
    "recompute": Case(layers.recompute(layers.serial(layers.dense(4), layers.tanh(), layers.dense(2)))),
    "recompute_random": Case(layers.recompute(layers.serial(tanh_block, layers.dropout(0.2))), random=True),
    "repeat_recompute": Case(layers.repeat(layers.recompute(layers.residual(tanh_block)), 3), fixed),
    # own layers
    "layer": Case(scale()),
    "parameterless": Case(
        layers.parameterless(lambda x, *, key, train: (x * x, x), lambda x, dy: 2 * x * dy, name="square()")
    ),
    "elementwise": Case(layers.elementwise(jnp.arctan, lambda x, y: 1 / (1 + x * x))),
    "automatic": Case(gradients.automatic(wave_init, wave_apply, name="wave()"), random=True),
    "automatic_function": Case(gradients.automatic_function(jnp.sin)),
    # models
    "linear": Case(models.linear(3)),
    "mlp": Case(models.mlp((5, 4, 2), activation=layers.tanh)),
    "mlp_dropout": Case(models.mlp((5, 2), activation=layers.silu, dropout=0.2), random=True),
    "sigmoid_network": Case(models.sigmoid_network((4, 2))),
}

# The straight-through forms have a backward that is no derivative on purpose: finite differences do not apply.
STRAIGHT_THROUGH = {
    "binary_step_identity": Case(layers.binary_step(ste="identity"), kink=True),
    "binary_step_clip": Case(layers.binary_step(ste="clip"), kink=True),
}
ALL_CASES = CASES | STRAIGHT_THROUGH


def in_modes(cases):
    """`name-mode` -> (case, train), in evaluation only where that differs from training."""
    return {f"{name}-training": (case, True) for name, case in cases.items()} | {
        f"{name}-evaluation": (case, False) for name, case in cases.items() if case.random or case.counts
    }


def draw(case, seed=0, batch=3, width=2, dtype=jnp.float64):
    """`(params, state, x, key)`: random parameters (no zeros, which hide mistakes) and an input off the kink."""
    return _drawn(case, seed, batch, width, dtype, jax.config.jax_enable_x64)


@lru_cache(maxsize=512)  # most laws look at the same draw
def _drawn(case, seed, batch, width, dtype, x64):
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[0], case.shape(batch, width), dtype)
    if case.kink:
        x = x + jnp.where(x >= 0, 0.1, jnp.asarray(-0.1, dtype))
    params, state = case.layer.init(keys[1], x)
    leaves, structure = jax.tree.flatten(params)
    noise = jax.random.split(keys[2], max(len(leaves), 1))
    leaves = [p + jax.random.normal(k, p.shape, p.dtype) / 4 for p, k in zip(leaves, noise, strict=False)]
    return jax.tree.unflatten(structure, leaves), state, x, keys[3]


def draw_shapes(case, dtype):
    """The shapes and dtypes of a draw, without one."""
    return jax.eval_shape(lambda: _drawn.__wrapped__(case, 0, 3, 2, dtype, None))
