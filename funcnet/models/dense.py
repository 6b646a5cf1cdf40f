"""Models of dense layers, for rows of features."""

from collections.abc import Callable
from typing import Any

from funcnet import initializers, layers
from funcnet.checks import check_count, fraction
from funcnet.errors import ConfigError
from funcnet.made import constructor
from funcnet.types import Layer

__all__ = ["linear", "mlp", "sigmoid_network"]


@constructor
def linear(features: int) -> Layer:
    """Linear model, y = x W + b: linear regression with a squared error, softmax regression with a cross-entropy.

    It is a single `layers.dense`, for input (batch, in); params `kernel` (in, features) and `bias` (features,).

    Raises:
        ConfigError: `features` is not a positive integer.

    >>> import funcnet as fn
    >>> fn.models.linear(10)
    dense(10)
    """
    return layers.dense(features)


@constructor
def mlp(
    features: tuple[int, ...],
    *,
    activation: Callable[[], Layer] = layers.relu,
    dropout: float = 0.0,
    use_bias: bool = True,
    kernel_init: initializers.Initializer = initializers.he_normal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Multi-layer perceptron: dense layers, with an activation and, if wanted, dropout after each but the last.

    Args:
        features: widths of the dense layers, the hidden ones and then the output.
        activation: a constructor, such as `layers.tanh` or `lambda: layers.leaky_relu(0.1)`, called per hidden layer.
        dropout: share of the hidden units dropped in training, which then needs a key; 0 for no dropout.
        use_bias, kernel_init, bias_init: of every dense layer.

    Input (batch, …, in), output (batch, …, features[-1]); images go through `layers.flatten()` first.

    Raises:
        ConfigError: `features` is not a tuple of positive integers, `activation` does not make a layer, or `dropout` is
            outside [0, 1).

    References: Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 1986.

    >>> import funcnet as fn
    >>> fn.models.mlp((128, 10), dropout=0.1, kernel_init=fn.initializers.xavier_normal())
    serial(dense(128, kernel_init=xavier_normal()), relu(), dropout(0.1), dense(10, kernel_init=xavier_normal()))
    """
    _check_features(features)
    dropout = fraction("dropout", dropout)

    def dense(width):
        return layers.dense(width, use_bias=use_bias, kernel_init=kernel_init, bias_init=bias_init)

    def hidden(width):
        block = [dense(width), _activation(activation)]
        return [*block, layers.dropout(dropout)] if dropout else block

    *widths, last = features
    return layers.serial(*(layer for width in widths for layer in hidden(width)), dense(last))


@constructor
def sigmoid_network(
    features: tuple[int, ...],
    *,
    kernel_init: initializers.Initializer = initializers.xavier_normal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """The textbook's network, a_l = σ(a_{l−1} W_l + b_l): a sigmoid after every dense layer, also after the last.

    With one hidden layer and L = ½ Σ (a₂ − t)² the backward pass is the classical derivation, written for rows:
        δ₂ = ∂L/∂z₂ = (a₂ − t) ⊙ a₂ (1 − a₂),     dW₂ = a₁ᵀ δ₂,   db₂ = Σ_batch δ₂,
        δ₁ = ∂L/∂z₁ = δ₂ W₂ᵀ ⊙ a₁ (1 − a₁),       dW₁ = xᵀ δ₁,    db₁ = Σ_batch δ₁.
    Textbooks write an example as a column, z = W x + b. Their W is the transpose of `kernel`, and their δ aᵀ is the
    transpose of aᵀ δ. For training, `mlp` with a linear output and a loss on logits is more precise.

    Args:
        features: widths of the dense layers, the hidden ones and then the output.
        kernel_init, bias_init: of every dense layer.

    Input (batch, …, in), output (batch, …, features[-1]) in (0, 1).

    Raises:
        ConfigError: `features` is not a tuple of positive integers.

    References: Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 1986.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> network = fn.models.sigmoid_network((3, 2))
    >>> params, state = network.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> [sorted(p) for p in params]
    [['bias', 'kernel'], [], ['bias', 'kernel'], []]
    """
    _check_features(features)
    dense = [layers.dense(width, kernel_init=kernel_init, bias_init=bias_init) for width in features]
    return layers.serial(*(layer for one in dense for layer in (one, layers.sigmoid())))


def _check_features(features: Any) -> None:
    if not isinstance(features, tuple) or not features:
        raise ConfigError(f"expected features to be a tuple of widths, at least one, got {features!r}.")
    for width in features:
        check_count("each of features", width)


def _activation(activation: Any) -> Layer:
    if isinstance(activation, Layer):
        raise ConfigError(f"expected activation to be a constructor, got {activation}; leave out its ().")
    made = activation() if callable(activation) else activation
    if not isinstance(made, Layer):
        raise ConfigError(f"expected activation to make a layer, such as layers.tanh, got {activation!r}.")
    return made
