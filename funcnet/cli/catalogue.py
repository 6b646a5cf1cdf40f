"""What `funcnet check` looks at when it is given no target: every layer, model, loss and penalty of the library, once
in each form whose mathematics differ."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import gradients, initializers, layers, losses, models
from funcnet.made import constructor
from funcnet.trees import total
from funcnet.types import Layer, Padded

__all__ = ["CATALOGUE", "Entry", "embedding", "highway", "scale", "square", "wave"]


class Entry(NamedTuple):
    """A target with an input, as `check_gradients` takes them."""

    target: Any  #: a layer, a loss, or a penalty
    x: Any  #: the input, or a tree of inputs; for a loss the prediction, for a penalty the parameters
    y: Any = None  #: the target of a loss
    engines: tuple[str, ...] = ("backprop", "autodiff", "numeric")


def _shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def _layer(layer, *sizes):
    return Entry(layer, _shape(*(sizes or (3, 4))))


def _straight_through(layer):
    """A layer whose backward is on purpose not a derivative: numeric ones say nothing of it."""
    return _layer(layer)._replace(engines=("backprop", "autodiff"))


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

    With g = ∂L/∂y: df = t ⊙ g, dt = (f(x) − x) ⊙ g, and x is reached directly by (1 − t) ⊙ g. Kept: x, f(x), t.
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
def wave() -> Layer:
    """A user's own layer, y = sin(a x), whose backward pass is left to autodiff."""

    def apply(params, state, x, *, key=None, train=False):
        return jnp.sin(params["scale"] * x), state

    return gradients.automatic(lambda key, x: ({"scale": jnp.ones((), x.dtype)}, ()), apply)


_block = layers.serial(layers.dense(4), layers.tanh())
_noisy = layers.serial(layers.dense(4), layers.dropout(0.3))

LAYERS = {
    "identity": _layer(layers.identity()),
    "flatten": _layer(layers.flatten(), 3, 2, 4),
    "reshape": _layer(layers.reshape((2, -1)), 3, 4, 2),
    "dense": _layer(layers.dense(2)),
    "dense_no_bias": _layer(layers.dense(2, use_bias=False)),
    "dense_sequence": _layer(layers.dense(2), 3, 2, 4),
    "dropout": _layer(layers.dropout(0.4)),
    "dropout_channels": _layer(layers.dropout(0.4, broadcast_dims=(1, 2)), 3, 2, 2, 4),
    "conv": _layer(layers.conv(2, 3, strides=2), 3, 4, 5, 2),
    "conv_wide": _layer(layers.conv(32, (2,), padding=1), 3, 3, 2),
    "conv_groups": _layer(layers.conv(4, (2,), dilation=2, groups=2, use_bias=False), 3, 6, 4),
    "depthwise_conv": _layer(layers.depthwise_conv(2, multiplier=2), 3, 3, 4, 2),
    "conv_transpose": _layer(layers.conv_transpose(2, (3,), strides=2), 3, 4, 2),
    "max_pool": _layer(layers.max_pool(2), 3, 4, 4, 2),
    "max_pool_overlapping": _layer(layers.max_pool(3, strides=2, padding=((1, 2), (1, 0))), 3, 4, 5, 2),
    "avg_pool": _layer(layers.avg_pool((2,), strides=3, padding="SAME"), 3, 7, 2),
    "avg_pool_counted": _layer(layers.avg_pool(3, strides=2, padding=1, count_include_pad=False), 3, 4, 5, 2),
    "global_avg_pool": _layer(layers.global_avg_pool(), 3, 2, 3, 4),
    "global_max_pool": _layer(layers.global_max_pool(), 3, 2, 3, 4),
    "pad": _layer(layers.pad(((1, 2), 0)), 3, 2, 3, 2),
    "upsample": _layer(layers.upsample((2, 3)), 3, 2, 3, 2),
    "upsample_bilinear": _layer(layers.upsample((2, 3), method="bilinear"), 3, 2, 3, 2),
    "local_response_norm": _layer(layers.local_response_norm(4, alpha=2.0), 3, 2, 6),
    "batch_norm": _layer(layers.batch_norm(), 3, 2, 2, 2),
    "batch_norm_features": _layer(layers.batch_norm(use_bias=False), 4, 3),
    "layer_norm": _layer(layers.layer_norm(), 3, 2, 4),
    "rms_norm": _layer(layers.rms_norm()),
    "group_norm": _layer(layers.group_norm(2), 3, 3, 4),
    "instance_norm": _layer(layers.instance_norm(), 3, 2, 2, 2),
    "sigmoid": _layer(layers.sigmoid()),
    "tanh": _layer(layers.tanh()),
    "relu": _layer(layers.relu()),
    "leaky_relu": _layer(layers.leaky_relu(0.3)),
    "prelu": _layer(layers.prelu()),
    "rrelu": _layer(layers.rrelu()),
    "elu": _layer(layers.elu(2.0)),
    "silu": _layer(layers.silu()),
    "softplus": _layer(layers.softplus(3.0)),
    "log_sigmoid": _layer(layers.log_sigmoid()),
    "gelu": _layer(layers.gelu()),
    "gelu_tanh": _layer(layers.gelu(approximate=True)),
    "binary_step": _layer(layers.binary_step()),
    "binary_step_identity": _straight_through(layers.binary_step("identity")),
    "binary_step_clip": _straight_through(layers.binary_step("clip")),
    "softmax": _layer(layers.softmax()),
    "softmax_axis": _layer(layers.softmax(axis=1), 3, 2, 4),
    "log_softmax": _layer(layers.log_softmax()),
    "log_softmax_axis": _layer(layers.log_softmax(axis=1), 3, 2, 4),
    "serial": _layer(layers.serial(_block, layers.dropout(0.3), layers.dense(2))),
    "residual": _layer(layers.residual(_noisy)),
    "residual_shortcut": _layer(layers.residual(_block, layers.dense(4, use_bias=False)), 3, 2),
    "parallel": _layer(layers.parallel(_noisy, layers.dense(4))),
    "parallel_concatenate": _layer(layers.parallel(_noisy, layers.dense(2), combine="concatenate")),
    "serial_named": _layer(layers.serial(trunk=_noisy, head=layers.dense(2))),
    "parallel_named": _layer(layers.parallel(digit=layers.dense(3), ink=_noisy)),
    "parallel_tuple": _layer(layers.parallel(_noisy, layers.dense(3), combine=None)),
    "each": Entry(layers.each(_noisy, layers.dense(3)), (_shape(3, 4), _shape(3, 2))),
    "each_named": Entry(
        layers.each(image=layers.serial(layers.flatten(), layers.dense(2)), words=embedding(2, 3)),
        {"image": _shape(3, 2, 4), "words": _shape(3, 2, dtype=jnp.int32)},
    ),
    "repeat": _layer(layers.repeat(_noisy, 3)),
    "recompute": _layer(layers.recompute(_noisy)),
    "held": _layer(layers.held(_noisy)),
    "container": _layer(highway(_noisy, layers.serial(layers.dense(4), layers.sigmoid()))),
    "padded": Entry(_block, Padded(_shape(3, 4, 2), _shape(3, 4, dtype=bool))),
    "gated": _layer(layers.gated(_noisy)),
    "squeeze_excitation": _layer(layers.squeeze_excitation(4, 2), 3, 2, 2, 4),
    "layer": _layer(scale()),
    "parameterless": _layer(square()),
    "elementwise": _layer(layers.elementwise(jnp.arctan, lambda x, y: 1 / (1 + x * x), keep="x")),
    "automatic": _layer(wave()),
    "automatic_function": _layer(gradients.automatic_function(jnp.sin)),
    "linear": _layer(models.linear(3)),
    "softmax_regression": _layer(models.softmax_regression(2), 3, 2, 2, 1),
    "lenet": _layer(models.lenet(2, features=(1, 2), hidden=(2,)), 2, 12, 12, 1),
    "vgg": _layer(models.vgg(2, blocks=((2,),), hidden=(2,), dropout=0.2), 3, 4, 4, 1),
    "resnet": _layer(models.resnet(2, depth=8, features=1), 3, 4, 4, 1),
    "mobilenet": _layer(models.mobilenet(2, features=2, blocks=((2, 2),)), 3, 4, 4, 1),
    "mlp": _layer(models.mlp((5, 2), dropout=0.2)),
    "sigmoid_network": _layer(models.sigmoid_network((5, 2))),
    "perceptron": _straight_through(models.perceptron(2)),
}

_random = np.random.default_rng(0)
_numbers, _goals = _random.normal(size=(2, 5, 4))
_between = _random.uniform(0.1, 0.9, (5, 4))
_yes_no = _random.integers(0, 2, (5, 4))
_labels = _random.integers(0, 4, 5)
_shares = _random.dirichlet(np.ones(4), 5)
_log_shares = np.log(_random.dirichlet(np.ones(4), 5))

LOSSES = {
    "mean_squared_error": Entry(losses.mean_squared_error, _numbers, _goals),
    "half_squared_error": Entry(losses.half_squared_error, _numbers, _goals),
    "mean_absolute_error": Entry(losses.mean_absolute_error, _numbers, _goals),
    "root_mean_squared_error": Entry(losses.root_mean_squared_error, _numbers, _goals),
    "smooth_l1": Entry(losses.partial(losses.smooth_l1, beta=0.4), _numbers, _goals),
    "huber": Entry(losses.partial(losses.huber, delta=0.6), _numbers, _goals),
    "log_cosh": Entry(losses.log_cosh, _numbers, _goals),
    "binary_cross_entropy": Entry(losses.binary_cross_entropy, _between, _yes_no),
    "binary_cross_entropy_with_logits": Entry(losses.binary_cross_entropy_with_logits, _numbers, _yes_no),
    "binary_cross_entropy_with_logits_weighted": Entry(
        losses.partial(losses.binary_cross_entropy_with_logits, pos_weight=3.0, label_smoothing=0.2), _numbers, _between
    ),
    "softmax_cross_entropy": Entry(losses.softmax_cross_entropy, _numbers, _labels),
    "softmax_cross_entropy_smoothed": Entry(
        losses.partial(losses.softmax_cross_entropy, label_smoothing=0.1), _numbers, _labels
    ),
    "softmax_cross_entropy_class_weights": Entry(
        losses.partial(losses.softmax_cross_entropy, class_weights=(1.0, 2.0, 0.5, 3.0)), _numbers, _labels
    ),
    "softmax_cross_entropy_shares": Entry(losses.softmax_cross_entropy, _numbers, _shares),
    "negative_log_likelihood": Entry(losses.negative_log_likelihood, _log_shares, _labels),
    "negative_log_likelihood_shares": Entry(losses.negative_log_likelihood, _log_shares, _shares),
    "multiclass_hinge": Entry(losses.multiclass_hinge, _numbers, _labels),
    "multiclass_hinge_crammer_singer": Entry(
        losses.partial(losses.multiclass_hinge, variant="crammer_singer", margin=1.5), _numbers, _labels
    ),
    "weighted_sum": Entry(
        losses.weighted_sum(digit=(1.0, losses.softmax_cross_entropy), ink=(0.5, losses.mean_squared_error)),
        {"digit": _numbers, "ink": _between, "code": _goals},
        {"digit": _labels, "ink": _goals},
    ),
}

_params = {"bias": _numbers[0], "kernel": _numbers}

PENALTIES = {
    "l1_penalty": Entry(losses.partial(losses.l1_penalty, strength=0.5), _params),
    "l2_penalty": Entry(losses.partial(losses.l2_penalty, strength=0.5), _params),
}

CATALOGUE = LAYERS | LOSSES | PENALTIES
