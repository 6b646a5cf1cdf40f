"""One training step: the gradient of a batch, then the optimizer's update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_arrays, check_count, check_key, describe, is_count
from funcnet.errors import StructureError
from funcnet.made import leading
from funcnet.training.divergence import skipped
from funcnet.trees import differences, shapes
from funcnet.types import Array, Batch, Gradient, GradientFn, Key, Optimizer, Params, State, TrainState

__all__ = ["advance", "as_key", "check_state", "create_state", "train_step", "unless"]


def create_state(
    model: Any, optimizer: Optimizer, key: Any, x: Any, params: Params = None, model_state: State = None
) -> TrainState:
    """The state before the first step.

    Args:
        model: a layer, or a machine of `pretraining.rbm`.
        optimizer: its `init` takes the parameters into the optimizer's state.
        key: a PRNG key or an integer seed.
        x: an example batch, or a tree of `jax.ShapeDtypeStruct`.
        params, model_state: to start from instead of random ones, for example from `checkpoints.load_weights`. They
            must have the leaves, shapes and dtypes of `model.init`. If params are given and `model.init` cannot take
            `x`, for example with two models that are trained against each other, they are not checked, and the state is
            `()` by default.

    Raises:
        DtypeError: `x` does not consist of arrays, or the key is not a key.
        StructureError: `params` or `model_state` are not those of the model. The message has each leaf that differs.

    It also raises what `model.init` raises.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, optimizer = fn.layers.dense(2), fn.optimizers.sgd(0.1)
    >>> state = fn.training.create_state(model, optimizer, 0, jax.ShapeDtypeStruct((1, 3), jnp.float32))
    >>> state.optimizer.params["kernel"].shape
    (3, 2)
    """
    with leading("create_state"):
        init_key, run_key = jax.random.split(as_key(key))
        if params is None:
            check_arrays("x", x)
            params, drawn = model.init(init_key, shapes(x))
            if model_state is not None:
                _check_given("model_state", model_state, drawn)
            model_state = drawn if model_state is None else model_state
        else:
            model_state = _checked_state(model, x, init_key, params, model_state)
    return TrainState(optimizer.init(params), model_state, run_key)


def _checked_state(model, x, key, params, model_state):
    """The first state of the model for given params, which are checked against those of `init`."""
    made = _made(lambda: jax.eval_shape(model.init, key, shapes(x)))
    if made is None:
        return () if model_state is None else model_state
    _check_given("params", params, made[0])
    if model_state is None:
        return model.init(key, shapes(x))[1] if jax.tree.leaves(made[1]) else made[1]
    _check_given("model_state", model_state, made[1])
    return model_state


def _made(make):
    """What `make` returns, or `None` if it raises. Its callers can do without the result."""
    try:
        return make()
    except Exception:  # a user's model that takes something else, or that is not a layer, may raise anything
        return None


def _check_given(what, given, expected):
    if found := differences(expected, given, dtypes=True):
        fix = "take them from this model, for this x"
        raise StructureError(f"expected {what} with the leaves of model.init, got others: {found}; {fix}.")


def check_state(state: Any, model: Any, optimizer: Optimizer, x: Any) -> None:
    """Check that a given state is one of this optimizer, and of this model if its `init` takes `x`.

    `model` is `None` if a user's own engine runs it, because its `init` then need not take `x`.
    """
    if not isinstance(state, TrainState):
        is_report = isinstance(getattr(state, "state", None), TrainState)
        fix = "take its .state" if is_report else "take report.state, or create_state"
        raise StructureError(f"expected state to be a TrainState, got {describe(state)}; {fix}.")
    check_key(state.key, "or take the state of a run")
    fix = "take the state of a run with both, or make one with create_state(model, optimizer, key, x)"
    own = getattr(state.optimizer, "params", None)
    made = None if model is None else _made(lambda: jax.eval_shape(model.init, jax.random.key(0), shapes(x)))
    params, model_state = (own, None) if made is None else made
    for what, got, expected in (("params", own, params), ("state of the model", state.model, model_state)):
        if made is not None and (found := differences(expected, got, dtypes=True)):
            raise StructureError(f"expected state to be of this model for this x, got other {what}: {found}; {fix}.")
    started = jax.eval_shape(optimizer.init, own)
    found = differences(started, state.optimizer, dtypes=True)
    if found or type(started) is not type(state.optimizer):
        got = f"the {type(state.optimizer).__name__} of another{found and ': '}{found}"
        raise StructureError(f"expected state to be of the optimizer {optimizer}, got {got}; {fix}.")


def as_key(key: Any) -> Key:
    """A PRNG key, or the key of an integer seed."""
    if is_count(key, 0):
        return jax.random.key(check_count("key", key, 0, 2**63 - 1))
    check_key(key)
    return key


def advance(
    gradient: GradientFn, optimizer: Optimizer, state: TrainState, batch: Batch
) -> tuple[TrainState, Gradient, Array | None]:
    """The state after one step, the gradient, and whether `optimizers.guarded` skipped the step (`None` without one).

    Step t draws its randomness from `fold_in(state.key, t)`. A skipped step does not change the layers' state either,
    because a NaN would spoil their running statistics as it would spoil the parameters.
    """
    key = jax.random.fold_in(state.key, state.optimizer.step)
    computed = gradient(state.optimizer.params, state.model, batch, key)
    updated = optimizer.update(state.optimizer, computed.grads)
    left_out = skipped(state.optimizer, updated)
    model = unless(left_out, computed.state, state.model)
    return TrainState(updated, model, state.key), computed, left_out


def unless(left_out: Array | None, new: Any, old: Any) -> Any:
    """`old` if a step was left out, else `new`."""
    if left_out is None:
        return new
    return jax.tree.map(lambda new, old: jnp.where(left_out, old, new), new, old)


def train_step(
    gradient: GradientFn, optimizer: Optimizer
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """A training step as a pure function, `(TrainState, batch) -> (TrainState, metrics)`, ready for `jax.jit`.

    Args:
        gradient: `gradients.autodiff(model, loss)`, `gradients.backprop(model, loss)`, or one of your own.
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
