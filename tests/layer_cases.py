"""The table of layers under test: every public constructor has a row, in every form that differs.

A row gives the layer and the shape of its input for a batch size and a width, or a tree of shapes. `kink` marks layers
that have one at 0 (finite differences stay away from it), `random` those that need a key in training, `counts` those
whose state training changes. The others compute the same in both modes, which a law holds, so the further laws look at
them in one.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numerics import quick_jit

from funcnet import gradients, initializers, layers, models
from funcnet.cli.catalogue import embedding, highway, scale, square
from funcnet.made import constructor
from funcnet.trees import map_leaves
from funcnet.types import Layer, Padded

tanh_block = layers.serial(layers.dense(3), layers.tanh())


class Case(NamedTuple):
    layer: Layer
    shape: Callable[[int, int], Any] = lambda batch, width: (batch, width)
    kink: bool = False
    random: bool = False
    counts: bool = False

    def example(self, batch: int, width: int, dtype: Any = jnp.float32) -> Any:
        """The input as shapes; those without a dtype of their own have this one."""
        is_shape = lambda node: type(node) is tuple and all(isinstance(n, int) for n in node)  # noqa: E731
        return jax.tree.map(
            lambda one: jax.ShapeDtypeStruct(one, dtype) if is_shape(one) else one,
            self.shape(batch, width),
            is_leaf=is_shape,
        )


@constructor
def counter():
    """A user's own layer with a state: it adds how often it ran in training."""

    def init(key, x):
        return (), jnp.zeros((), x.dtype)

    def forward(params, state, x, *, key=None, train=False):
        return x + state, state + 1 if train else state, None

    return layers.layer(forward, lambda params, residuals, dy: ((), dy), init=init)


@constructor
def noisy_wave():
    """y = sin(a x), in training with noise, whose backward autodiff supplies."""

    def apply(params, state, x, *, key=None, train=False):
        noise = jax.random.normal(key, x.shape, jnp.float32).astype(x.dtype) if train else 0
        return jnp.sin(params["scale"] * x) + noise * x, state

    return gradients.automatic(lambda key, x: ({"scale": jnp.ones((), x.dtype)}, ()), apply)


def fixed(batch, width):
    return (batch, 3)


def image(batch, width):
    return (batch, 4, 5, width)


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
    # convolution
    "conv": Case(layers.conv(3, 3), image),
    "conv_strided": Case(
        layers.conv(4, (3, 2), strides=(2, 1), padding=((0, 2), 1), dilation=(1, 2), groups=2, use_bias=False),
        lambda batch, width: (batch, 4, 5, 2 * width),
    ),
    "conv_1d_wide": Case(layers.conv(33, (2,), padding="VALID"), lambda batch, width: (batch, 4, width)),
    "conv_3d": Case(layers.conv(2, (2, 1, 2), strides=2), lambda batch, width: (batch, 3, 2, 2, width)),
    "depthwise_conv": Case(layers.depthwise_conv(3), image),
    "depthwise_conv_twice": Case(
        layers.depthwise_conv((2,), multiplier=2, strides=2), lambda batch, width: (batch, 5, width)
    ),
    "conv_transpose": Case(layers.conv_transpose(3, 3, strides=2), lambda batch, width: (batch, 2, 3, width)),
    "conv_transpose_cut": Case(
        layers.conv_transpose(2, (3,), strides=2, dilation=2, padding=((1, 2),)), lambda batch, width: (batch, 4, width)
    ),
    # pooling
    "max_pool": Case(layers.max_pool((3, 2), strides=(2, 1), padding=((1, 2), (1, 0))), image),
    "avg_pool": Case(layers.avg_pool((3, 2), strides=(2, 1), padding="SAME", count_include_pad=False), image),
    "global_avg_pool": Case(layers.global_avg_pool(), image),
    "global_max_pool": Case(layers.global_max_pool(), image),
    # images
    "pad": Case(layers.pad(((1, 2), 0), value=0.5), image),
    "upsample": Case(layers.upsample((3, 2), method="bilinear"), image),
    "local_response_norm": Case(layers.local_response_norm(4, alpha=2.0, k=1.5), lambda batch, width: (batch, 3, 5)),
    # normalisation; three numbers to a mean at least, as of two the deviations are +1 and -1 whatever they are
    "batch_norm": Case(layers.batch_norm(), lambda batch, width: (batch, 2, 2, width), counts=True),
    "batch_norm_features": Case(
        layers.batch_norm(momentum=0.5, epsilon=0.1, unbiased_running_var=True, use_bias=False),
        lambda batch, width: (batch + 2, width),
        counts=True,
    ),
    "layer_norm": Case(layers.layer_norm(), lambda batch, width: (batch, 2, width + 2)),
    "rms_norm": Case(layers.rms_norm(), lambda batch, width: (batch, width + 1)),
    "group_norm": Case(layers.group_norm(2), lambda batch, width: (batch, 3, 2 * width)),
    "instance_norm": Case(
        layers.instance_norm(epsilon=0.1, use_scale=False), lambda batch, width: (batch, 2, 2, width)
    ),
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
    "gated": Case(layers.gated(layers.dense(1))),
    "squeeze_excitation": Case(layers.squeeze_excitation(3, reduction=2), lambda batch, width: (batch, width, 2, 3)),
    "serial_named": Case(layers.serial(trunk=tanh_block, head=layers.dense(2))),
    "held": Case(layers.held(layers.serial(tanh_block, layers.dropout(0.5), counter()))),
    # own layers
    "layer": Case(scale()),
    "parameterless": Case(square()),
    "container": Case(highway(tanh_block, layers.serial(layers.dense(3), layers.sigmoid())), fixed),
    "elementwise": Case(layers.elementwise(jnp.arctan, lambda x, y: 1 / (1 + x * x))),
    "automatic": Case(noisy_wave(), random=True),
    "automatic_function": Case(gradients.automatic_function(jnp.sin)),
    # models
    "linear": Case(models.linear(3)),
    "softmax_regression": Case(models.softmax_regression(3), lambda batch, width: (batch, 2, width, 1)),
    "mlp": Case(models.mlp((5, 4, 2), activation=layers.tanh)),
    "mlp_dropout": Case(models.mlp((5, 2), activation=layers.silu, dropout=0.2), random=True),
    "sigmoid_network": Case(models.sigmoid_network((4, 2))),
}

# The straight-through forms have a backward that is no derivative on purpose: finite differences do not apply.
STRAIGHT_THROUGH = {
    "binary_step_identity": Case(layers.binary_step(ste="identity"), kink=True),
    "binary_step_clip": Case(layers.binary_step(ste="clip"), kink=True),
    "perceptron": Case(models.perceptron(3)),
}


def towers(batch, width):
    """An image and words, by number."""
    return {"image": (batch, 2, width), "words": jax.ShapeDtypeStruct((batch, width + 1), jnp.int32)}


def pair(batch, width):
    return ((batch, width), (batch, 3))


def padded(batch, width):
    return Padded((batch, 4, width), jax.ShapeDtypeStruct((batch, 4), bool))


# Inputs or outputs that are trees, integers among them, and padded sequences.
TREES = {
    "each": Case(layers.each(tanh_block, layers.dropout(0.4)), pair, random=True),
    "each_named": Case(
        layers.each(
            words=layers.serial(embedding(3, 2), layers.tanh()), image=layers.serial(layers.flatten(), layers.dense(2))
        ),
        towers,
    ),
    "parallel_named": Case(
        layers.parallel(ink=layers.dense(1), digit=layers.serial(tanh_block, counter())), counts=True
    ),
    "parallel_tuple": Case(layers.parallel(layers.dense(3), tanh_block, combine=None)),
    "repeat_tree": Case(
        layers.repeat(layers.each(tanh_block, layers.dense(3)), 2), lambda batch, width: ((batch, 3),) * 2
    ),
    "serial_padded": Case(layers.serial(layers.dense(4), layers.tanh(), layers.layer_norm()), padded),
    "residual_padded": Case(layers.residual(layers.recompute(tanh_block)), lambda batch, width: padded(batch, 3)),
}
ALL_CASES = CASES | STRAIGHT_THROUGH | TREES


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
    random, key = np.random.default_rng(seed), jax.random.key(seed)  # NumPy's numbers need no program to be compiled
    x = map_leaves(lambda leaf: drawn_like(random, leaf, case.kink), case.example(batch, width, dtype))
    params, state = jax.eval_shape(case.layer.init, key, x)
    if jax.tree.leaves(state):
        state = quick_jit(lambda key: case.layer.init(key, x)[1])(key)
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) / fan_in(leaf) ** 0.5, dtype), params)
    return params, state, x, jax.random.fold_in(key, 1)


def drawn_like(random, leaf, kink=False):
    """Normal numbers for a floating shape, 0 and 1 for integers, and lengths from 1 to all for what is padded."""
    if isinstance(leaf, Padded):
        *rows, time = leaf.where.shape
        lengths = random.integers(1, time + 1, rows)
        return Padded(drawn_like(random, leaf.values, kink), jnp.asarray(np.arange(time) < lengths[..., None]))
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.asarray(random.integers(0, 2, leaf.shape), leaf.dtype)
    x = random.normal(size=leaf.shape)
    return jnp.asarray(x + 0.1 * np.where(x >= 0, 1, -1) if kink else x, leaf.dtype)


def fan_in(leaf):
    """How many numbers meet in one of a kernel's outputs; 1 of a bias."""
    return max(1, math.prod(leaf.shape[:-1]))


def draw_shapes(case, dtype):
    """The shapes and dtypes of a draw, without one."""
    key, x = jax.eval_shape(jax.random.key, 0), case.example(3, 2, dtype)
    params, state = jax.eval_shape(case.layer.init, key, x)
    if case in TREES.values():  # below integers the parameters are of the default dtype
        params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), params)
    return params, state, x, key
