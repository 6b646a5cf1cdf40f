"""Layers: pairs of pure functions, each with its backpropagation derived by hand."""

from funcnet.layers.activations import (
    binary_step, elu, gelu, leaky_relu, log_sigmoid, log_softmax, prelu, relu, rrelu, sigmoid, silu, softmax, softplus,
    tanh,
)  # fmt: skip
from funcnet.layers.combinators import map_layers, parallel, recompute, repeat, residual, serial
from funcnet.layers.dense import dense
from funcnet.layers.dropout import dropout
from funcnet.layers.layer import elementwise, layer, no_parameters, parameterless
from funcnet.layers.reshape import flatten, identity, reshape

__all__ = [
    "binary_step", "dense", "dropout", "elementwise", "elu", "flatten", "gelu", "identity", "layer", "leaky_relu",
    "log_sigmoid", "log_softmax", "map_layers", "no_parameters", "parallel", "parameterless", "prelu", "recompute",
    "relu", "repeat", "reshape", "residual", "rrelu", "serial", "sigmoid", "silu", "softmax", "softplus", "tanh",
]  # fmt: skip
