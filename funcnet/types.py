"""The contracts of funcnet. Everything else in the package obeys this page.

**A layer is four pure functions.** `init` makes parameters and state; `apply` is the forward pass that users
compose and that `jax.grad` differentiates; `forward` and `backward` are the same layer with its
backpropagation derived by hand. `apply` is `forward` without its residuals, so the gradient of `apply` is an
independent check of `backward`: the two share the forward pass and nothing else.

    init      (key, x)                                        -> (params, state)
    apply     (params, state, x, *, key=None, train=False)    -> (y, state)
    forward   (params, state, x, *, key=None, train=False)    -> (y, state, residuals)
    backward  (params, residuals, dy)                         -> (dparams, dx)

- `x` has the batch axis first. In `init` it is an example batch or a `jax.ShapeDtypeStruct`; only its shape
  and dtype are read, and the batch size never changes a parameter's shape.
- `params` and `state` are pytrees of arrays; a layer without parameters or state has `()`.
- `train` is a static Python bool: `jax.jit(model.apply, static_argnames="train")`. With `train=True`
  randomness comes from `key` alone: same key, same result. With `train=False` the state comes back unchanged.
- `residuals` is a pytree of arrays: what `backward` needs to know of the forward pass. It crosses `jit`,
  `scan` and `vmap`. A static fact, such as the mode, is kept in the *structure* of the tree (an array, or
  `None` in its place), because a Python bool would turn into a traced array at the next `jit`.
- `dy` is ∂L/∂y, of the shape and dtype of `y`; `dparams` is ∂L/∂params, a tree like `params`; `dx` is ∂L/∂x,
  of the shape and dtype of `x`, and `None` where `x` holds integers, which have no gradient.

**A loss** is a pure function with its hand-derived gradient attached (`funcnet.losses`).
**A gradient engine** turns a model and a loss into one function; the two engines have one signature
(`funcnet.gradients`). **An optimizer** is a pair of pure functions, and its state carries the parameters
(`funcnet.optimizers`). **A train state** is all that a training step reads and writes (`funcnet.training`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax

__all__ = [
    "ApplyFn", "Array", "BackwardFn", "Batch", "ForwardFn", "Gradient", "GradientFn", "InitFn", "Key", "Layer",
    "Layout", "LossFn", "Optimizer", "OptimizerState", "Params", "Report", "Residuals", "Schedule", "State",
    "TrainState",
]  # fmt: skip

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array  #: a typed PRNG key, from `jax.random.key(seed)`
Params: TypeAlias = Any  #: a pytree of arrays
State: TypeAlias = Any  #: a pytree of arrays; `()` for a layer without state
Residuals: TypeAlias = Any  #: a pytree of arrays; `None` marks something not kept
Batch: TypeAlias = tuple[Any, ...]  #: `(x, target)` or `(x, target, where)`, `where` marking the rows that count
LossFn: TypeAlias = Callable[..., Array]  #: `(prediction, target, *, reduction="mean", where=None)` -> ()
Schedule: TypeAlias = Callable[[Array], Any]  #: updates already done, () int32 -> learning rate


class InitFn(Protocol):
    def __call__(self, key: Key, x: Any, /) -> tuple[Params, State]: ...


class ApplyFn(Protocol):
    def __call__(
        self, params: Params, state: State, x: Any, /, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]: ...


class ForwardFn(Protocol):
    def __call__(
        self, params: Params, state: State, x: Any, /, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State, Residuals]: ...


class BackwardFn(Protocol):
    def __call__(self, params: Params, residuals: Residuals, dy: Any, /) -> tuple[Params, Any]: ...


class Layer(NamedTuple):
    """Four pure functions; see the head of this module for what each one promises.

    `init, apply = layer[:2]` is all that autodiff needs. A layer prints as the call that made it.

    >>> import funcnet as fn
    >>> fn.layers.serial(fn.layers.dense(16), fn.layers.relu())
    serial(dense(16), relu())
    """

    init: InitFn
    apply: ApplyFn
    forward: ForwardFn
    backward: BackwardFn

    @property
    def name(self) -> str:
        """The call that made the layer, `dense(16)`: every error of the layer begins with it."""
        return getattr(self.forward, "__name__", "layer")

    @property
    def sublayers(self) -> tuple["Layer", ...]:
        """The layers that a container runs, in order; `()` for a plain layer."""
        return getattr(self.forward, "sublayers", ())

    @property
    def rebuild(self) -> Callable[..., "Layer"] | None:
        """For a container, `(*sublayers) -> Layer`, the same one around other layers; `None` for a plain layer."""
        return getattr(self.forward, "rebuild", None)

    @property
    def per_example(self) -> Callable[[Params, Residuals, Any], Params] | None:
        """`(params, residuals, dy) -> dparams` with a leading batch axis, or `None`: see `gradients.per_example`."""
        return getattr(self.forward, "per_example", None)

    @property
    def per_example_square(self) -> Callable[[Params, Residuals, Any], Array] | None:
        """`(params, residuals, dy) -> (batch,)`, the squared norms of those gradients, or `None`."""
        return getattr(self.forward, "per_example_square", None)

    def __repr__(self) -> str:
        return self.name


class Gradient(NamedTuple):
    """What a gradient engine returns for one batch."""

    loss: Array  #: (), the loss of the batch, penalty included
    grads: Params  #: ∂loss/∂params, a tree like the parameters
    state: State  #: the layers' state after the batch
    prediction: Any  #: the model's output for the batch


class GradientFn(Protocol):
    """`gradient(params, state, batch, key=None) -> Gradient`: the one signature of both engines."""

    def __call__(self, params: Params, state: State, batch: Batch, key: Key | None = None, /) -> Gradient: ...


class OptimizerState(Protocol):
    """What every optimizer's state shows; its other slots have names of their own.

    A training loop takes `step` for the number of batches so far: their order and all randomness are functions of it.
    """

    @property
    def step(self) -> Array: ...  # (), int32: calls of `update` so far, also those that only gathered or skipped

    @property
    def params(self) -> Params: ...  # the parameters now


class Optimizer(NamedTuple):
    """Two pure functions. The state carries the parameters, so one donated argument is all a step needs.

    `update` returns a state of the same tree structure, shapes and dtypes. It never changes its arguments.
    """

    init: Callable[[Params], Any]  #: (params) -> state
    update: Callable[[Any, Params], Any]  #: (state, grads) -> state


class TrainState(NamedTuple):
    """All that a training step reads and writes."""

    optimizer: Any  #: the optimizer's state; the parameters are `state.optimizer.params`
    model: State  #: the layers' state
    key: Key  #: the root of all randomness; step t draws from `fold_in(key, t)`


class Layout(NamedTuple):
    """How a run lies on several devices: pure functions, made by `parallel.layout`, that work within `jit` and outside.

    Within `jit` placing an array is a constraint on the compiled program, outside it moves the array.
    """

    init_state: Callable[[Callable[[Key], Any], Key], Any]  #: (init, key) -> init(key), made where it will lie
    place_state: Callable[[Any], Any]  #: a train state, or params, each leaf as the rules say
    place_data: Callable[[Any], Any]  #: a data set, whole on every device, for batches to gather their rows from
    place_batch: Callable[[Any], Any]  #: a global batch, its rows dealt out to the devices
    gradient: Callable[[GradientFn], GradientFn]  #: an engine's gradient, computed over the mesh
    check_rows: Callable[[str, str, int], None]  #: (name, what, rows), raises unless so many can be dealt out evenly


class Report(NamedTuple):
    """What `training.fit` yields."""

    epoch: int  #: epochs finished, a started one counting as finished
    step: int  #: updates done
    metrics: dict[str, Any]  #: scalars and arrays by name: "loss", "accuracy", "validation_loss" …
    state: TrainState  #: stays valid after the next report
    cursor: Any = None  #: where an iterator of batches stood, for `fit(cursor=…)`; arrays need none
