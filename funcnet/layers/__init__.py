"""Layers: pairs of pure functions, each with its backpropagation derived by hand."""

from funcnet.layers.activations import (
    binary_step, elu, gelu, leaky_relu, log_sigmoid, prelu, relu, rrelu, sigmoid, silu, softplus, tanh,
)  # fmt: skip
from funcnet.layers.attention import attention
from funcnet.layers.containers import (
    container, each, held, map_layers, merged, parallel, plain_layers, recompute, repeat, residual,
    scan, serial, tied,
)  # fmt: skip
from funcnet.layers.convolution import (
    avg_pool, conv, conv_transpose, depthwise_conv, global_avg_pool, global_max_pool, max_pool,
)  # fmt: skip
from funcnet.layers.deferred import deferred
from funcnet.layers.dense import dense
from funcnet.layers.dropout import dropout
from funcnet.layers.embedding import embedding, unembedding
from funcnet.layers.gating import gated, glu, squeeze_excitation
from funcnet.layers.images import pad, upsample
from funcnet.layers.layer import elementwise, layer, parameterless
from funcnet.layers.normalization import (
    batch_norm, group_norm, instance_norm, layer_norm, local_response_norm, rms_norm,
)  # fmt: skip
from funcnet.layers.positions import position_embedding, sinusoidal_positions
from funcnet.layers.recurrent import (
    bidirectional, gru, gru_cell, last, lstm, lstm_cell, max_over, mean_over, over_time, rnn, rnn_cell,
)  # fmt: skip
from funcnet.layers.reshape import flatten, identity, reshape
from funcnet.layers.softmax import log_softmax, softmax
from funcnet.layers.transformer import transformer_block
from funcnet.made import within

__all__ = [
    "attention", "avg_pool", "batch_norm", "bidirectional", "binary_step", "container", "conv", "conv_transpose",
    "deferred", "dense", "depthwise_conv", "dropout", "each", "elementwise", "elu", "embedding", "flatten", "gated",
    "gelu", "global_avg_pool", "global_max_pool", "glu", "group_norm", "gru", "gru_cell", "held", "identity",
    "instance_norm", "last", "layer", "layer_norm", "leaky_relu", "local_response_norm", "log_sigmoid", "log_softmax",
    "lstm", "lstm_cell", "map_layers", "max_over", "max_pool", "mean_over", "merged", "over_time", "pad", "parallel",
    "parameterless", "plain_layers", "position_embedding", "prelu", "recompute", "relu", "repeat", "reshape",
    "residual", "rms_norm", "rnn", "rnn_cell", "rrelu", "scan", "serial", "sigmoid", "silu", "sinusoidal_positions",
    "softmax", "softplus", "squeeze_excitation", "tanh", "tied", "transformer_block", "unembedding", "upsample",
    "within",
]  # fmt: skip
