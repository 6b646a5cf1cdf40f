"""A network as plain data, which every library builds from its own parts.

A network is a tuple of the layers below. Images are (batch, height, width, channels), kernels (height, width, in, out)
or (in, out). A library with another order changes it when it takes the parameters.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int, ...]


class Dense(NamedTuple):
    features: int


class Conv(NamedTuple):
    """A convolution with `size // 2` zeros on each side of the image."""

    features: int
    size: int
    stride: int = 1
    bias: bool = True


class BatchNorm(NamedTuple):
    """Normalisation by the mean and variance of the batch, epsilon 1e-5."""


class Relu(NamedTuple):
    pass


class MaxPool(NamedTuple):
    """Maxima of windows that touch and do not overlap."""

    size: int


class MeanOverPlaces(NamedTuple):
    pass


class Flatten(NamedTuple):
    pass


class Residual(NamedTuple):
    """body(x) + shortcut(x). A shortcut without layers is x itself."""

    body: "Network"
    shortcut: "Network" = ()


Network: TypeAlias = tuple[Dense | Conv | BatchNorm | Relu | MaxPool | MeanOverPlaces | Flatten | Residual, ...]


class Use(NamedTuple):
    """A layer at its place in a network, with the shapes of one example before and after it."""

    layer: NamedTuple
    before: Shape
    after: Shape


def chain(network: Network, shape: Shape) -> Iterator[Use]:
    """The layers one after the other, a residual block as one of them."""
    for layer in network:
        after = output_shape(layer.body, shape) if isinstance(layer, Residual) else _after(layer, shape)
        yield Use(layer, shape, after)
        shape = after


def uses(network: Network, shape: Shape) -> Iterator[Use]:
    """All layers in the order of the parameters: the body of a residual block, then its shortcut, then the block."""
    for use in chain(network, shape):
        if isinstance(use.layer, Residual):
            yield from uses(use.layer.body, use.before)
            yield from uses(use.layer.shortcut, use.before)
        yield use


def output_shape(network: Network, shape: Shape) -> Shape:
    """The shape of one example after the network."""
    return [use.after for use in chain(network, shape)][-1]


def parameters(network: Network, shape: Shape, dtype: str, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """He's normal kernels, zero biases, scales of one: one dictionary per layer that has parameters."""
    random = np.random.default_rng(seed)

    def zeros(features):
        return np.zeros(features, dtype)

    def kernel(*shape):
        return (random.normal(size=shape) * math.sqrt(2 / math.prod(shape[:-1]))).astype(dtype)

    found = []
    for layer, before, after in uses(network, shape):
        match layer:
            case Dense(features):
                found.append({"bias": zeros(features), "kernel": kernel(before[-1], features)})
            case Conv(features, size, _, bias):
                own = {"kernel": kernel(size, size, before[-1], features)}
                found.append({"bias": zeros(features)} | own if bias else own)
            case BatchNorm():
                found.append({"bias": zeros(after[-1]), "scale": zeros(after[-1]) + 1})
    return found


def _after(layer: NamedTuple, shape: Shape) -> Shape:
    match layer:
        case Dense(features):
            return (*shape[:-1], features)
        case Conv(features, _, stride):
            return (*(-(-n // stride) for n in shape[:-1]), features)
        case MaxPool(size):
            return (*(n // size for n in shape[:-1]), shape[-1])
        case MeanOverPlaces():
            return shape[-1:]
        case Flatten():
            return (math.prod(shape),)
    return shape
