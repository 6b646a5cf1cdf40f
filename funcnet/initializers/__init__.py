"""Initializers: `(key, shape, dtype) -> array`.

`zeros` and `ones` are initializers themselves. All others are made by a call, for example `he_normal()`. They print as
this call, and equal calls make equal initializers.

A kernel has the shape (in, out), or (…, in, out) with the receptive field in front, as in a convolution's HWIO:

    fan_in = receptive field · in,   fan_out = receptive field · out.

A kernel must not start with equal numbers everywhere. Units with equal weights get equal gradients and stay equal.
"""

from funcnet.initializers.distributions import (
    constant, identity, normal, ones, orthogonal, truncated_normal, uniform, zeros,
)  # fmt: skip
from funcnet.initializers.initializer import Initializer
from funcnet.initializers.scaling import (
    calculate_gain, he_normal, he_uniform, lecun_normal, lecun_uniform, variance_scaling, xavier_normal, xavier_uniform,
)  # fmt: skip

__all__ = [
    "Initializer", "calculate_gain", "constant", "he_normal", "he_uniform", "identity", "lecun_normal", "lecun_uniform",
    "normal", "ones", "orthogonal", "truncated_normal", "uniform", "variance_scaling", "xavier_normal",
    "xavier_uniform", "zeros",
]  # fmt: skip
