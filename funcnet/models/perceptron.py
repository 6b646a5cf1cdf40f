"""The perceptron: one layer of binary-step units, trained by the classical rule."""

from funcnet import initializers, layers
from funcnet.checks import check_count
from funcnet.made import constructor
from funcnet.types import Layer

__all__ = ["perceptron"]


@constructor
def perceptron(features: int = 1) -> Layer:
    """Rosenblatt's perceptron, y = H(x W + b) with H(z) = 1 for z ≥ 0, else 0, and a start at W = 0, b = 0.

    The classical rule corrects by the error t − y, with learning rate η:
        W ← W + η xᵀ (t − y),   b ← b + η Σ_batch (t − y).
    It needs no code of its own. The derivative of the step is 0 almost everywhere, so the backward pass uses 1 in its
    place (straight-through). For L = ½ Σ (y − t)² it then gives ∂L/∂z = y − t and ∂L/∂W = −xᵀ (t − y). So the rule is
    plain gradient descent, `optimizers.sgd(η)`, on `losses.partial(losses.half_squared_error, reduction="sum")`, with
    either engine.

    Suppose that a line separates the examples, and that they are presented one at a time. Then the perceptron learns
    them after at most (R/γ)² mistakes, for every η. R is the largest norm of a row (x, 1), and γ is the margin of a
    separating unit vector (W, b). If no line separates the examples, the weights never stop moving. XOR is the smallest
    such case.

    Args:
        features: number of units. Each learns its own question.

    Input (batch, in), output (batch, features) of zeros and ones. Targets are zeros and ones too.

    Raises:
        ConfigError: `features` is not a positive integer.

    References: Rosenblatt, "The Perceptron", Psychological Review 1958; Novikoff, "On Convergence Proofs on
    Perceptrons", 1962; Minsky, Papert, "Perceptrons", 1969.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> model, rule = fn.models.perceptron(), fn.losses.partial(fn.losses.half_squared_error, reduction="sum")
    >>> x, either = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), jnp.array([[0], [1], [1], [1]])
    >>> *_, last = fn.training.fit(model, rule, fn.optimizers.sgd(1.0), (x, either), epochs=5, batch_size=1)
    >>> model.apply(last.state.optimizer.params, last.state.model, x)[0].ravel()
    Array([0., 1., 1., 1.], dtype=float32)
    """
    features = check_count("features", features)
    return layers.serial(layers.dense(features, kernel_init=initializers.zeros), layers.binary_step(ste="identity"))
