"""One training step: the gradient of a batch, then the optimizer's update."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_key, is_count
from funcnet.training.divergence import skipped
from funcnet.types import Array, Batch, Gradient, GradientFn, Key, Optimizer, TrainState

__all__ = ["advance", "as_key", "create_state", "train_step", "unless"]


def create_state(model: Any, optimizer: Optimizer, key: Any, x: Any) -> TrainState:
    """The state before the first step.

    The parameters are drawn under `jit`, where results do not depend on how arrays are laid out over devices.

    Args:
        model: a layer, or a machine of `pretraining.rbm`.
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


def advance(
    gradient: GradientFn, optimizer: Optimizer, state: TrainState, batch: Batch
) -> tuple[TrainState, Gradient, Array | None]:
    """One step, the gradient that made it, and whether `optimizers.guarded` left it out (`None` without one).

    Step t draws its randomness from `fold_in(state.key, t)`. A step that is left out leaves the layers' state too:
    a NaN would spoil their running statistics as it would the parameters.
    """
    key = jax.random.fold_in(state.key, state.optimizer.step)
    computed = gradient(state.optimizer.params, state.model, batch, key)
    updated = optimizer.update(state.optimizer, computed.grads)
    left_out = skipped(state.optimizer, updated)
    model = unless(left_out, computed.state, state.model)
    return TrainState(updated, model, state.key), computed, left_out


def unless(left_out: Array | None, new: Any, old: Any) -> Any:
    """`old` where a step is left out, else `new`."""
    if left_out is None:
        return new
    return jax.tree.map(lambda new, old: jnp.where(left_out, old, new), new, old)


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
        state, computed, _ = advance(gradient, optimizer, state, batch)
        return state, {"loss": computed.loss}

    return step
