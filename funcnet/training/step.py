"""One training step: the gradient of a batch, then the optimizer's update."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax

from funcnet.checks import check_key, is_count
from funcnet.types import Array, Batch, Gradient, GradientFn, Key, Layer, Optimizer, TrainState

__all__ = ["advance", "as_key", "create_state", "train_step"]


def create_state(model: Layer, optimizer: Optimizer, key: Any, x: Any) -> TrainState:
    """The state before the first step.

    The parameters are drawn under `jit`, where results do not depend on how arrays are laid out over devices.

    Args:
        model: a layer.
        optimizer: its `init` takes the parameters into the optimizer's state.
        key: a PRNG key or an integer seed.
        x: an example batch or a `jax.ShapeDtypeStruct`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, optimizer = fn.layers.dense(2), fn.optimizers.sgd(0.1)
    >>> state = fn.training.create_state(model, optimizer, 0, jax.ShapeDtypeStruct((1, 3), jnp.float32))
    >>> state.optimizer.params["kernel"].shape
    (3, 2)
    """
    key = as_key("create_state", key)
    init_key, run_key = jax.random.split(key)
    params, state = _init(model, jax.ShapeDtypeStruct(x.shape, x.dtype))(init_key)
    return TrainState(optimizer.init(params), state, run_key)


@lru_cache(maxsize=64)  # one compiled program for all starts of a model
def _init(model, x):
    return jax.jit(lambda key: model.init(key, x))


def as_key(name: str, key: Any) -> Key:
    """A PRNG key, or the key of an integer seed."""
    if is_count(key, 0):
        return jax.random.key(int(key))
    check_key(name, key)
    return key


def advance(gradient: GradientFn, optimizer: Optimizer, state: TrainState, batch: Batch) -> tuple[TrainState, Gradient]:
    """One step, and the gradient that made it. Step t draws its randomness from `fold_in(state.key, t)`."""
    key = jax.random.fold_in(state.key, state.optimizer.step)
    computed = gradient(state.optimizer.params, state.model, batch, key)
    return TrainState(optimizer.update(state.optimizer, computed.grads), computed.state, state.key), computed


def train_step(
    gradient: GradientFn, optimizer: Optimizer
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """A training step as a pure function, `(TrainState, batch) -> (TrainState, metrics)`, ready for `jax.jit`.

    Args:
        gradient: `gradients.autodiff(model, loss)` or `gradients.backprop(model, loss)`.
        optimizer: one of `funcnet.optimizers`.

    Returns: the step; its metrics are `{"loss": ()}`, the loss before the update.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, optimizer = fn.layers.dense(1), fn.optimizers.sgd(0.1)
    >>> gradient = fn.gradients.backprop(model, fn.losses.mean_squared_error)
    >>> step = jax.jit(fn.training.train_step(gradient, optimizer))
    >>> x = jnp.ones((4, 3))
    >>> state = fn.training.create_state(model, optimizer, 0, x)
    >>> state, metrics = step(state, (x, jnp.ones((4, 1))))
    >>> int(state.optimizer.step), sorted(metrics)
    (1, ['loss'])
    """

    def step(state, batch):
        state, computed = advance(gradient, optimizer, state, batch)
        return state, {"loss": computed.loss}

    return step
