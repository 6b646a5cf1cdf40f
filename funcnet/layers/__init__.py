"""Layers: pairs of pure functions, each with its backpropagation derived by hand."""

from funcnet.layers.activations import (
    binary_step, elu, gelu, leaky_relu, log_sigmoid, prelu, relu, rrelu, sigmoid, silu, softplus, tanh,
)  # fmt: skip
from funcnet.layers.containers import (
    container, each, held, map_layers, merged, parallel, plain_layers, recompute, repeat, residual, serial,
)  # fmt: skip
from funcnet.layers.convolution import (
    avg_pool, conv, conv_transpose, depthwise_conv, global_avg_pool, global_max_pool, max_pool,
)  # fmt: skip
from funcnet.layers.dense import dense
from funcnet.layers.dropout import dropout
from funcnet.layers.gating import gated, squeeze_excitation
from funcnet.layers.images import pad, upsample
from funcnet.layers.layer import elementwise, layer, parameterless
from funcnet.layers.normalization import (
    batch_norm, group_norm, instance_norm, layer_norm, local_response_norm, rms_norm,
)  # fmt: skip
from funcnet.layers.reshape import flatten, identity, reshape
from funcnet.layers.softmax import log_softmax, softmax
from funcnet.made import within

__all__ = [
    "avg_pool", "batch_norm", "binary_step", "container", "conv", "conv_transpose", "dense", "depthwise_conv",
    "dropout", "each", "elementwise", "elu", "flatten", "gated", "gelu", "global_avg_pool", "global_max_pool",
    "group_norm", "held", "identity", "instance_norm", "layer", "layer_norm", "leaky_relu", "local_response_norm",
    "log_sigmoid", "log_softmax", "map_layers", "max_pool", "merged", "pad", "parallel", "parameterless",
    "plain_layers", "prelu", "recompute", "relu", "repeat", "reshape", "residual", "rms_norm", "rrelu", "serial",
    "sigmoid", "silu", "softmax", "softplus", "squeeze_excitation", "tanh", "upsample", "within",
]  # fmt: skip
