"""The rows of the layers.

Every public constructor has a row of its own name, and a row for each further form that differs. Sizes are small, and
most of the time goes into compiling. Forms with a random layer or a state inside are checked in both modes, which costs
twice as much. So each container has only one row of each kind.
"""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet import gradients, initializers, layers
from funcnet.catalogue.own import counter, embedding, highway, scale, square, wave
from funcnet.catalogue.rows import LayerRow
from funcnet.types import Padded

__all__ = ["LAYERS", "TREES"]

_tanh_block = layers.serial(layers.dense(3), layers.tanh())
_noisy_block = layers.serial(_tanh_block, layers.dropout(0.2))


def _stepped(*entries) -> Any:
    """The layers one after the other, one position at a time."""
    return layers.serial(*entries).rules.cell


def _fixed(batch, width):
    return (batch, 3)


def _sequence(batch, width):
    return (batch, 2, width)


def _times(batch, width):
    return (batch, 3, width)


def _four(batch, width):
    return (batch, 3, 4)


def _image(batch, width):
    return (batch, 4, 5, width)


LAYERS: dict[str, LayerRow] = {
    # layers that only move numbers
    "identity": LayerRow(layers.identity()),
    "flatten": LayerRow(layers.flatten(), lambda batch, width: (batch, width, 2)),
    "flatten_flat": LayerRow(layers.flatten()),
    "reshape": LayerRow(layers.reshape((2, -1)), lambda batch, width: (batch, width, 2)),
    "reshape_exact": LayerRow(layers.reshape((3, 1)), _fixed),
    # dense
    "dense": LayerRow(layers.dense(4)),
    "dense_no_bias": LayerRow(layers.dense(2, use_bias=False, kernel_init=initializers.orthogonal())),
    "dense_time_axis": LayerRow(layers.dense(3), _sequence),
    # dropout
    "dropout": LayerRow(layers.dropout(0.4), random=True),
    "dropout_0": LayerRow(layers.dropout(0), random=True),
    "dropout_channels": LayerRow(
        layers.dropout(0.4, broadcast_dims=(1, 2)), lambda batch, width: (batch, 2, 2, width), random=True
    ),
    # attention, positions and words
    "attention": LayerRow(layers.attention(2, head_features=2), _times),
    "attention_causal": LayerRow(layers.attention(2, causal=True, rotary=100.0, head_features=2), _times),
    "attention_grouped": LayerRow(
        layers.attention(4, kv_heads=2, head_features=1, window=2, use_bias=False, dropout=0.3), _times, random=True
    ),
    "position_embedding": LayerRow(layers.position_embedding(3), _sequence),
    "sinusoidal_positions": LayerRow(layers.sinusoidal_positions(), lambda batch, width: (batch, 2, width + 1)),
    "unembedding": LayerRow(layers.unembedding(5), _sequence),
    # convolution
    "conv": LayerRow(layers.conv(3, 3), _image),
    "conv_strided": LayerRow(
        layers.conv(4, (3, 2), strides=(2, 1), padding=((0, 2), 1), dilation=(1, 2), groups=2, use_bias=False),
        lambda batch, width: (batch, 4, 5, 2 * width),
    ),
    "conv_1d_wide": LayerRow(layers.conv(33, (2,), padding="VALID"), lambda batch, width: (batch, 4, width)),
    "conv_causal": LayerRow(layers.conv(3, (2,), padding="CAUSAL", dilation=2), lambda batch, width: (batch, 4, width)),
    "conv_3d": LayerRow(layers.conv(2, (2, 1, 2), strides=2), lambda batch, width: (batch, 3, 2, 2, width)),
    "depthwise_conv": LayerRow(layers.depthwise_conv(3), _image),
    "depthwise_conv_twice": LayerRow(
        layers.depthwise_conv((2,), multiplier=2, strides=2), lambda batch, width: (batch, 5, width)
    ),
    "conv_transpose": LayerRow(layers.conv_transpose(3, 3, strides=2), lambda batch, width: (batch, 2, 3, width)),
    "conv_transpose_cut": LayerRow(
        layers.conv_transpose(2, (3,), strides=2, dilation=2, padding=((1, 2),)), lambda batch, width: (batch, 4, width)
    ),
    # pooling: windows side by side, overlapping, with gaps between them
    "max_pool": LayerRow(layers.max_pool(2), _image),
    "max_pool_overlapping": LayerRow(layers.max_pool((3, 2), strides=(2, 1), padding=((1, 2), (1, 0))), _image),
    "avg_pool": LayerRow(layers.avg_pool((2,), strides=3, padding="SAME"), lambda batch, width: (batch, 7, width)),
    "avg_pool_no_pad": LayerRow(
        layers.avg_pool((3, 2), strides=(2, 1), padding="SAME", count_include_pad=False), _image
    ),
    "global_avg_pool": LayerRow(layers.global_avg_pool(), _image),
    "global_max_pool": LayerRow(layers.global_max_pool(), _image),
    # images
    "pad": LayerRow(layers.pad(((1, 2), 0), value=0.5), _image),
    "upsample": LayerRow(layers.upsample((2, 3)), lambda batch, width: (batch, 2, 3, width)),
    "upsample_bilinear": LayerRow(layers.upsample((3, 2), method="bilinear"), _image),
    "local_response_norm": LayerRow(
        layers.local_response_norm(4, alpha=2.0, k=1.5), lambda batch, width: (batch, 3, 5)
    ),
    # normalisation, with at least three numbers per mean: the normalised deviations of two numbers are always +1 and -1
    "batch_norm": LayerRow(layers.batch_norm(), lambda batch, width: (batch, 2, 2, width), counts=True),
    "batch_norm_features": LayerRow(
        layers.batch_norm(momentum=0.5, epsilon=0.1, unbiased_running_var=True, use_bias=False),
        lambda batch, width: (batch + 2, width),
        counts=True,
    ),
    "layer_norm": LayerRow(layers.layer_norm(), lambda batch, width: (batch, 2, width + 2)),
    "rms_norm": LayerRow(layers.rms_norm(), lambda batch, width: (batch, width + 1)),
    "group_norm": LayerRow(layers.group_norm(2), lambda batch, width: (batch, 3, 2 * width)),
    "instance_norm": LayerRow(layers.instance_norm(), lambda batch, width: (batch, 2, 2, width)),
    "instance_norm_no_scale": LayerRow(
        layers.instance_norm(epsilon=0.1, use_scale=False), lambda batch, width: (batch, 2, 2, width)
    ),
    # activations
    "sigmoid": LayerRow(layers.sigmoid()),
    "tanh": LayerRow(layers.tanh()),
    "relu": LayerRow(layers.relu(), kink=True),
    "leaky_relu": LayerRow(layers.leaky_relu(0.3), kink=True),  # steep enough for the book's picture
    "leaky_relu_default": LayerRow(layers.leaky_relu(), kink=True),
    "prelu": LayerRow(layers.prelu(), kink=True),
    "rrelu": LayerRow(layers.rrelu(), kink=True, random=True),
    "elu": LayerRow(layers.elu()),
    "elu_2": LayerRow(layers.elu(2.0), kink=True),
    "silu": LayerRow(layers.silu()),
    "softplus": LayerRow(layers.softplus()),
    "softplus_3": LayerRow(layers.softplus(3.0)),
    "log_sigmoid": LayerRow(layers.log_sigmoid()),
    "gelu": LayerRow(layers.gelu()),
    "gelu_tanh": LayerRow(layers.gelu(approximate=True)),
    "binary_step": LayerRow(layers.binary_step(), kink=True),
    "binary_step_identity": LayerRow(layers.binary_step(ste="identity"), kink=True, straight_through=True),
    "binary_step_clip": LayerRow(layers.binary_step(ste="clip"), kink=True, straight_through=True),
    "softmax": LayerRow(layers.softmax()),
    "softmax_axis_1": LayerRow(layers.softmax(axis=1), lambda batch, width: (batch, 3, width)),
    "log_softmax": LayerRow(layers.log_softmax()),
    "log_softmax_axis_1": LayerRow(layers.log_softmax(axis=1), lambda batch, width: (batch, 3, width)),
    # containers
    "serial": LayerRow(
        layers.serial(layers.dense(4), layers.tanh(), layers.dropout(0.3), layers.dense(2)), random=True
    ),
    "serial_empty": LayerRow(layers.serial()),
    "serial_nested": LayerRow(layers.serial(_tanh_block, layers.serial(layers.dense(2), layers.softmax()))),
    "serial_state": LayerRow(layers.serial(counter(), _tanh_block, counter()), counts=True),
    "serial_named": LayerRow(layers.serial(trunk=_tanh_block, head=layers.dense(2))),
    "residual": LayerRow(layers.residual(_tanh_block), _fixed),
    "residual_shortcut": LayerRow(layers.residual(_tanh_block, layers.dense(3, use_bias=False))),
    "residual_random": LayerRow(layers.residual(layers.serial(_tanh_block, layers.dropout(0.5))), _fixed, random=True),
    "parallel": LayerRow(layers.parallel(_tanh_block, layers.dense(3), layers.serial(layers.dense(3), layers.silu()))),
    "parallel_random": LayerRow(layers.parallel(_noisy_block, layers.dense(3)), random=True),
    "parallel_concatenate": LayerRow(layers.parallel(layers.dense(2), _tanh_block, combine="concatenate")),
    "parallel_axis_1": LayerRow(
        layers.parallel(layers.dense(2), layers.dense(2), combine="concatenate", axis=1), _sequence
    ),
    "repeat": LayerRow(layers.repeat(_tanh_block, 4), _fixed),
    "repeat_random": LayerRow(layers.repeat(_noisy_block, 2), _fixed, random=True),
    "repeat_state": LayerRow(layers.repeat(layers.serial(_tanh_block, counter()), 3), _fixed, counts=True),
    "repeat_recompute": LayerRow(layers.repeat(layers.recompute(layers.residual(_tanh_block)), 3), _fixed),
    "recompute": LayerRow(layers.recompute(layers.serial(layers.dense(4), layers.tanh(), layers.dense(2)))),
    "recompute_random": LayerRow(layers.recompute(_noisy_block), random=True),
    "gated": LayerRow(layers.gated(layers.dense(1))),
    "gated_wide": LayerRow(layers.gated(_tanh_block), _fixed),
    "glu": LayerRow(layers.glu(layers.silu()), lambda batch, width: (batch, 2, 2 * width)),
    "transformer_block": LayerRow(layers.transformer_block(4, 2, hidden=3, causal=True), _four),
    "transformer_block_post": LayerRow(
        layers.transformer_block(
            4, 1, hidden=3, pre_norm=False, activation=layers.glu(), norm=layers.rms_norm(), rotary=10.0, use_bias=False
        ),
        _four,
    ),
    "squeeze_excitation": LayerRow(
        layers.squeeze_excitation(3, reduction=2), lambda batch, width: (batch, width, 2, 3)
    ),
    "scan": LayerRow(layers.scan(_stepped(layers.rnn(3), layers.tanh())), _sequence),
    "over_time": LayerRow(layers.over_time(_tanh_block), _sequence),
    "bidirectional": LayerRow(layers.bidirectional(layers.gru(2)), _sequence),
    "bidirectional_sum": LayerRow(layers.bidirectional(layers.rnn(3), combine="sum"), _sequence),
    "held": LayerRow(layers.held(layers.serial(_tanh_block, layers.dropout(0.5), counter()))),
    # sequences
    "rnn": LayerRow(layers.rnn(3), _sequence),
    "rnn_relu": LayerRow(layers.rnn(3, activation="relu", reverse=True, use_bias=False), _sequence, kink=True),
    "lstm": LayerRow(layers.lstm(3), _sequence),
    "lstm_reverse": LayerRow(layers.lstm(2, reverse=True, use_bias=False), _sequence),
    "gru": LayerRow(layers.gru(3), _sequence),
    "gru_reverse": LayerRow(layers.gru(2, reverse=True, use_bias=False), _sequence),
    "last": LayerRow(layers.last(), lambda batch, width: (batch, 3, width)),
    "mean_over": LayerRow(layers.mean_over(), lambda batch, width: (batch, 3, width)),
    "max_over": LayerRow(layers.max_over(), lambda batch, width: (batch, 3, width)),
    # functions that make a user's own layers
    "layer": LayerRow(scale()),
    "parameterless": LayerRow(square()),
    "container": LayerRow(highway(_tanh_block, layers.serial(layers.dense(3), layers.sigmoid())), _fixed),
    "elementwise": LayerRow(layers.elementwise(jnp.arctan, lambda x, y: 1 / (1 + x * x))),
    "elementwise_keep_x": LayerRow(layers.elementwise(jnp.cos, lambda x, y: -jnp.sin(x), keep="x")),
    "automatic": LayerRow(wave(), random=True),
    "automatic_function": LayerRow(gradients.automatic_function(jnp.sin)),
}


def _towers(batch, width):
    """An image, and words as integers."""
    return {"image": (batch, 2, width), "words": jax.ShapeDtypeStruct((batch, width + 1), jnp.int32)}


def _pair(batch, width):
    return ((batch, width), (batch, 3))


def _padded(batch, width):
    return Padded((batch, 4, width), jax.ShapeDtypeStruct((batch, 4), bool))


def _words(batch, width):
    return jax.ShapeDtypeStruct((batch, width + 1), jnp.int32)


def _padded_words(batch, width):
    return Padded(_words(batch, 3), jax.ShapeDtypeStruct((batch, 4), bool))


def _step(states):
    """A carry of width 3, and x_t."""
    return lambda batch, width: ((batch, 3) if states == 1 else ((batch, 3),) * states, (batch, width))


def _carried(batch, width):
    """A carry of width 3, and a padded sequence."""
    return (((batch, 3),) * 2, _padded(batch, width))


#: Layers with trees as inputs or outputs, also of integers, and with padded sequences.
TREES: dict[str, LayerRow] = {
    "each": LayerRow(layers.each(_tanh_block, layers.dropout(0.4)), _pair, random=True),
    "each_named": LayerRow(
        layers.each(
            words=layers.serial(embedding(3, 2), layers.tanh()), image=layers.serial(layers.flatten(), layers.dense(2))
        ),
        _towers,
    ),
    "parallel_named": LayerRow(
        layers.parallel(ink=layers.dense(1), digit=layers.serial(_tanh_block, counter())), counts=True
    ),
    "parallel_tuple": LayerRow(layers.parallel(layers.dense(3), _tanh_block, combine=None)),
    "repeat_tree": LayerRow(
        layers.repeat(layers.each(_tanh_block, layers.dense(3)), 2), lambda batch, width: ((batch, 3),) * 2
    ),
    "deferred": LayerRow(layers.serial(layers.tanh(), layers.deferred(layers.dense(3, use_bias=False)))),
    "deferred_padded": LayerRow(
        layers.serial(layers.dense(4), layers.deferred(layers.dense(3, use_bias=False))), _padded
    ),
    "serial_padded": LayerRow(layers.serial(layers.dense(4), layers.tanh(), layers.layer_norm()), _padded),
    "residual_padded": LayerRow(layers.residual(layers.recompute(_tanh_block)), lambda batch, width: _padded(batch, 3)),
    "attention_cross": LayerRow(
        layers.attention(1, head_features=3),
        lambda batch, width: ((batch, 2, width), Padded((batch, 3, 2), jax.ShapeDtypeStruct((batch, 3), bool))),
    ),
    "attention_padded": LayerRow(layers.attention(2, causal=True, head_features=2), _padded),
    "embedding": LayerRow(layers.embedding(4, 3), _words),
    "embedding_padded": LayerRow(layers.serial(layers.embedding(2, 3), layers.position_embedding(5)), _padded_words),
    "tied": LayerRow(
        layers.tied(
            layers.serial(layers.embedding(4, 3), layers.tanh(), layers.unembedding(4)), {"2/embedding": "0/embedding"}
        ),
        _words,
    ),
    "rnn_cell": LayerRow(layers.rnn_cell(3), _step(1)),
    "rnn_cell_relu": LayerRow(layers.rnn_cell(3, activation="relu", use_bias=False), _step(1), kink=True),
    "lstm_cell": LayerRow(layers.lstm_cell(3), _step(2)),
    "gru_cell": LayerRow(layers.gru_cell(3), _step(1)),
    "gru_cell_no_bias": LayerRow(layers.gru_cell(3, use_bias=False), _step(1)),
    "rnn_padded": LayerRow(layers.rnn(3), _padded),
    "lstm_padded": LayerRow(layers.lstm(3), _padded),
    "gru_padded": LayerRow(layers.gru(3, reverse=True), _padded),
    "bidirectional_padded": LayerRow(
        layers.serial(layers.bidirectional(layers.lstm(2)), layers.over_time(_tanh_block), layers.mean_over()), _padded
    ),
    "last_padded": LayerRow(layers.serial(layers.dense(3), layers.last()), _padded),
    "max_over_padded": LayerRow(layers.serial(layers.max_over(), layers.dense(3)), _padded),
    "scan_carry": LayerRow(layers.scan(layers.lstm_cell(3), reverse=True, carry=True), _carried),
    "scan_random": LayerRow(layers.scan(_stepped(layers.rnn(3), layers.dropout(0.4))), _padded, random=True),
    "scan_state": LayerRow(layers.scan(_stepped(layers.rnn(3), counter())), _sequence, counts=True),
}
