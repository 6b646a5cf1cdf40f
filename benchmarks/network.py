"""A network as plain data, which every library builds from its own parts.

A network is a tuple of the layers below. Images are (batch, height, width, channels), sequences (batch, time, features)
and words (batch, time). Kernels are (height, width, in, out) or (in, out). A library with another order changes it when
it takes the parameters.
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


class Embedding(NamedTuple):
    """A vector for each word, which is a number below `words`."""

    words: int
    features: int


class Positions(NamedTuple):
    """A vector that is learned for each position, added."""

    length: int


class LayerNorm(NamedTuple):
    """Normalisation over the features of each position, epsilon 1e-5."""


class Gelu(NamedTuple):
    """With tanh."""


class Attention(NamedTuple):
    """Each position looks at itself and those before it. Queries, values and the result have biases; those of the keys
    would change nothing, and stay 0 where a library has them."""

    heads: int


class Lstm(NamedTuple):
    """All states. The four gates, in the order input, forget, candidate, output, lie side by side in the kernels."""

    features: int


class Last(NamedTuple):
    """The last position."""


class Residual(NamedTuple):
    """body(x) + shortcut(x). A shortcut without layers is x itself."""

    body: "Network"
    shortcut: "Network" = ()


Layer: TypeAlias = (
    Dense | Conv | BatchNorm | Relu | MaxPool | MeanOverPlaces | Flatten | Embedding | Positions | LayerNorm | Gelu
    | Attention | Lstm | Last | Residual
)  # fmt: skip
Network: TypeAlias = tuple[Layer, ...]


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
    """He's normal kernels, zero biases, scales of one, small vectors: one dictionary per layer with parameters."""
    random = np.random.default_rng(seed)

    def zeros(features):
        return np.zeros(features, dtype)

    def kernel(*shape):
        return (random.normal(size=shape) * math.sqrt(2 / math.prod(shape[:-1]))).astype(dtype)

    def vectors(*shape):
        return {"embedding": (random.normal(size=shape) / 50).astype(dtype)}

    found = []
    for layer, before, after in uses(network, shape):
        match layer:
            case Dense(features):
                found.append({"bias": zeros(features), "kernel": kernel(before[-1], features)})
            case Conv(features, size, _, bias):
                own = {"kernel": kernel(size, size, before[-1], features)}
                found.append({"bias": zeros(features)} | own if bias else own)
            case BatchNorm() | LayerNorm():
                found.append({"bias": zeros(after[-1]), "scale": zeros(after[-1]) + 1})
            case Embedding(words, features):
                found.append(vectors(words, features))
            case Positions(length):
                found.append(vectors(length, after[-1]))
            case Attention():
                kernels = {f"{name}_kernel": kernel(after[-1], after[-1]) for name in ("query", "key", "value", "out")}
                found.append(kernels | {f"{name}_bias": zeros(after[-1]) for name in ("query", "value", "out")})
            case Lstm(features):
                own = {"kernel": kernel(before[-1], 4 * features), "recurrent_kernel": kernel(features, 4 * features)}
                found.append(own | {"bias": zeros(4 * features)})
    return found


def _after(layer: NamedTuple, shape: Shape) -> Shape:
    match layer:
        case Dense(features) | Lstm(features):
            return (*shape[:-1], features)
        case Embedding(_, features):
            return (*shape, features)
        case Conv(features, _, stride):
            return (*(-(-n // stride) for n in shape[:-1]), features)
        case MaxPool(size):
            return (*(n // size for n in shape[:-1]), shape[-1])
        case MeanOverPlaces() | Last():
            return shape[-1:]
        case Flatten():
            return (math.prod(shape),)
    return shape
