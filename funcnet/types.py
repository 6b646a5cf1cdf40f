"""The contracts of funcnet. Everything else in the package obeys this page.

**A layer is four pure functions.** `init` makes parameters and state. `apply` is the forward pass that users compose
and that `jax.grad` differentiates. `forward` and `backward` are the same layer with its backpropagation derived by
hand. `apply` is `forward` without its residuals. So the gradient of `apply` is an independent check of `backward`,
because the two share the forward pass and nothing else.

    init      (key, x)                                        -> (params, state)
    apply     (params, state, x, *, key=None, train=False)    -> (y, state)
    forward   (params, state, x, *, key=None, train=False)    -> (y, state, residuals)
    backward  (params, residuals, dy)                         -> (dparams, dx)

- `x` and `y` are arrays or trees of arrays with the batch axis first. In `init`, `x` is an example batch or a tree of
  `jax.ShapeDtypeStruct`. Only shapes and dtypes are read, and the batch size never changes a parameter's shape. A plain
  layer takes one array unless it says otherwise.
- `params` and `state` are pytrees of arrays. A layer without parameters or state has `()`.
- `train` is a static Python bool: `jax.jit(model.apply, static_argnames="train")`. With `train=True` randomness comes
  from `key` alone, so the same key gives the same result. With `train=False` the state comes back unchanged.
- `residuals` is a pytree of arrays: what `backward` needs to know about the forward pass. It crosses `jit`, `scan` and
  `vmap`. What it holds concerns only the two functions. A static fact, such as the mode, is kept in the *structure* of
  the tree (an array, or `None` in its place), because a Python bool would turn into a traced array at the next `jit`.
- `dx` is ∂L/∂x: `x` with each floating leaf replaced by its gradient, an array of its shape and dtype, and each other
  leaf by `None`. `dy` is the same for `y`, with `None` also for outputs that no loss reads. A `None` in place of a tree
  stands for `None` at each of its leaves. `dparams` is ∂L/∂params, a tree like `params`.

Besides the functions, a layer has facts about itself: `made`, the call that made it (`funcnet.made`), `inside`, the
layers that a container runs, and `rules`, what else is known about it.

**`Padded`** is a batch of sequences of several lengths, and **`Whole`** an array without rows. Functions of trees treat
each of them as one leaf.

**A loss** is a value that is called as a pure function and carries its hand-derived gradient (`funcnet.losses`).
**A gradient engine** turns a model and a loss into one function. The two engines have the same signature
(`funcnet.gradients`). **An optimizer** is a pair of pure functions, and its state carries the parameters
(`funcnet.optimizers`). **A train state** is all that a training step reads and writes (`funcnet.training`).
"""

import reprlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax

from funcnet.made import Made, folded, kind_of, own_call

__all__ = [
    "ApplyFn", "Array", "BackwardFn", "Batch", "ForwardFn", "Gradient", "GradientFn", "InitFn", "Inside", "Key",
    "Layer", "Layout", "LossFn", "Optimizer", "Padded", "Params", "Report", "Residuals", "Rules", "Schedule", "State",
    "TrainState", "Whole", "brief",
]  # fmt: skip

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array  #: a typed PRNG key, from `jax.random.key(seed)`
Params: TypeAlias = Any  #: a pytree of arrays
State: TypeAlias = Any  #: a pytree of arrays; `()` for a layer without state
Residuals: TypeAlias = Any  #: a pytree of arrays; `None` marks something not kept
Batch: TypeAlias = tuple[Any, ...]  #: `(x, target[, where[, weights]])`: what counts in the loss, and by how much
LossFn: TypeAlias = Callable[..., Array]  #: `(prediction, target, *, reduction="mean", where=None, weights=None)` -> ()
Schedule: TypeAlias = Callable[[Array], Any]  #: updates already done, () int32 -> learning rate


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Padded:
    """Sequences of several lengths in one batch. Values at padded positions change no number that counts.

    Its gradients are arrays of the shape of `values`, with zeros at padded positions.
    """

    values: Any  #: (batch, time, …)
    where: Any  #: (batch, time), bool, true where there is something


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Whole:
    """An array without rows in a batch or a prediction: it belongs to all examples, and is never cut into parts.

    Its gradient is an array of its shape, the sum over all examples.
    """

    array: Any


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


class Rules(NamedTuple):
    """What else is known about a layer."""

    #: `(params, residuals, dy) -> dparams` without the sum over the batch, with a leading batch axis on every leaf
    per_example: Callable[[Params, Residuals, Any], Params] | None = None
    #: `(params, residuals, dy) -> (batch,)`, the squared norms of those, if they are cheaper than the gradients
    per_example_square: Callable[[Params, Residuals, Any], Array] | None = None
    #: how many last axes the layer reads together, while it treats all positions of the other axes alike: 0 for an
    #: activation, 1 for a dense layer, `None` for a layer that is not position-wise
    positionwise: int | None = None
    #: the layer one position at a time, with the same params and state: `(carry, x_t)` -> `(carry, y_t)`. The arrays of
    #: the carry have the rows first, and `init` also takes `None` for it
    cell: "Layer | None" = None
    #: for a cell, `(params, state, x_t, length) -> carry`, the first carry, from shapes and options alone
    start: Callable[[Params, State, Any, int], Any] | None = None


class Inside(NamedTuple):
    """What a container runs."""

    layers: tuple["Layer", ...]  #: in the order of the call
    places: tuple[Any, ...]  #: the entry of each in params and state, a number or a name; `None` for one that has all
    #: `(*layers) -> Layer`, the same container around other layers; `None` without `@constructor`
    rebuild: Callable[..., "Layer"] | None


class Layer(NamedTuple):
    """Four pure functions, and facts about the layer. The head of this module says what each function promises.

    `init, apply = layer[:2]` is all that autodiff needs. A layer prints as the call that made it. Two layers are equal
    if their four functions are equal, and functions of equal calls are equal.

    >>> import funcnet as fn
    >>> fn.layers.serial(fn.layers.dense(16), fn.layers.relu())
    serial(dense(16), relu())
    >>> fn.layers.dense(16) == fn.layers.dense(16), fn.layers.relu().made.constructor is fn.layers.relu
    (True, True)
    """

    init: InitFn
    apply: ApplyFn
    forward: ForwardFn
    backward: BackwardFn
    made: Made = own_call("layer")  #: the call that made it
    inside: Inside | None = None  #: for a container
    rules: Rules = Rules()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layer) and self[:4] == other[:4]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:4])

    def __repr__(self) -> str:
        return str(self.made)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(folded(self.made))  # what IPython and notebooks show


class Gradient(NamedTuple):
    """What a gradient engine returns for one batch."""

    loss: Array  #: (), the loss of the batch, penalty included
    grads: Params  #: ∂loss/∂params, a tree like the parameters
    state: State  #: the layers' state after the batch
    prediction: Any  #: the model's output for the batch
    counted: Any = None  #: the number that divided the loss, or one number per part of a `losses.weighted_sum`

    def __repr__(self) -> str:
        return brief(self)


class GradientFn(Protocol):
    """`gradient(params, state, batch, key=None) -> Gradient`: the one signature of both engines."""

    def __call__(self, params: Params, state: State, batch: Batch, key: Key | None = None, /) -> Gradient: ...


class Optimizer(NamedTuple):
    """Two pure functions. The state carries the parameters, so a step needs only one donated argument.

    `update` returns a state of the same tree structure, shapes and dtypes. It never changes its arguments.

    Every state has `params`, the current parameters, and `step`, (), int32: the number of calls of `update` so far,
    including those that only gathered or skipped. A training loop takes `step` as the number of batches so far. The
    order of the batches and all randomness are functions of it.
    """

    init: Callable[[Params], Any]  #: (params) -> state
    update: Callable[[Any, Params], Any]  #: (state, grads) -> state
    made: Made = own_call("optimizer")  #: the call that made it

    def __repr__(self) -> str:
        return str(self.made)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(folded(self.made))


class TrainState(NamedTuple):
    """All that a training step reads and writes."""

    optimizer: Any  #: the optimizer's state; the parameters are `state.optimizer.params`
    model: State  #: the layers' state
    key: Key  #: the root of all randomness; step t draws from `fold_in(key, t)`

    def __repr__(self) -> str:
        return brief(self)


class Layout(NamedTuple):
    """How a run is laid out on several devices: pure functions, made by `parallel.layout`.

    They work inside and outside `jit`. Inside `jit`, placing an array is a constraint on the compiled program. Outside,
    it moves the array.
    """

    init_state: Callable[[Callable[[Key], Any], Key], Any]  #: (init, key) -> init(key), made where it will lie
    place_state: Callable[[Any], Any]  #: a train state, or params, with each leaf placed as the rules say
    place_data: Callable[[Any], Any]  #: a data set, complete on every device, so that batches can gather their rows
    place_batch: Callable[[Any], Any]  #: a global batch, with its rows divided among the devices
    gradient: Callable[[GradientFn], GradientFn]  #: an engine's gradient, computed over the mesh
    check_rows: Callable[[str, str, int], None]  #: (name, what, rows), raises unless the rows can be divided evenly
    platform: str | None = None  #: of its devices, such as "tpu"; `None` is the default one


class Report(NamedTuple):
    """What `training.fit` yields."""

    epoch: int  #: epochs finished; a started one counts as finished
    step: int  #: updates done
    metrics: dict[str, Any]  #: scalars and arrays by name: "loss", "accuracy", "validation_loss" …
    state: TrainState  #: stays valid after the next report
    cursor: Any = None  #: the position of an iterator of batches, for `fit(cursor=…)`; arrays need none
    partial: bool = False  #: whether a stop came before the report was due, so that nothing is judged by it

    def __repr__(self) -> str:
        return brief(self)


# How these values print. Their arrays may be large, on another device, traced or deleted.

_MOST = 8  # entries of a dictionary


def brief(self: Any) -> str:
    """A named tuple of arrays in a line: its scalars as numbers, and how many numbers its other fields hold.

    Only scalars are read. One that cannot be read is shown by its dtype and shape, for example if it is traced or its
    buffer was donated. Fields that hold nothing, or their default, are left out. A state of your own prints like this
    with `__repr__ = brief` in its class.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> state = fn.training.create_state(fn.layers.dense(3), fn.optimizers.sgd(0.1), 0, jnp.ones((1, 4)))
    >>> state
    TrainState(optimizer=SGDState(step=0, params=<15 numbers in 2 arrays>, scale=1), key=key<fry>[])
    >>> fn.Report(2, 90, {"loss": jnp.array(0.25), "confusion": jnp.eye(10)}, state=None)
    Report(epoch=2, step=90, metrics={'loss': 0.25, 'confusion': float32[10, 10]})
    """
    return _fields(self, _word)


def _fields(value: Any, word: Callable[[Any], str]) -> str:
    words = [
        f"{name}={word(one)}"
        for name, one in zip(value._fields, value, strict=True)
        if jax.tree.leaves(one) and one is not value._field_defaults.get(name)
    ]
    return f"{type(value).__name__}({', '.join(words)})"


def _word(value: Any) -> str:
    """A field in words. The fields of a named tuple in it are given by their sizes."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _fields(value, _size)
    if isinstance(value, dict) and any(getattr(one, "shape", None) == () for one in value.values()):
        entries = [f"{name!r}: {_size(one)}" for name, one in islice(value.items(), _MOST)]
        return f"{{{', '.join(entries)}{', …' if len(value) > _MOST else ''}}}"
    return _size(value)


def _size(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _number(value)
    sizes = [leaf.size for leaf in jax.tree.leaves(value) if isinstance(getattr(leaf, "size", None), int)]
    if not sizes:
        return f"{value:.4g}" if isinstance(value, float) else reprlib.repr(value)
    return f"<{sum(sizes):,} numbers in {len(sizes)} array{'s' if len(sizes) > 1 else ''}>"


def _number(array: Any) -> str:
    """A scalar as its number, if that can be read, and any other array by dtype and shape."""
    if array.shape == ():
        with suppress(Exception):
            number = array.item()
            return f"{number:.4g}" if isinstance(number, float) else str(number)
    return kind_of(array)
