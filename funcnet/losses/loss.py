"""What a loss is, and how one is made.

    loss(prediction, target, *, reduction="mean", where=None, **own options)  ->  (), or an array for reduction="none"
    loss.gradient(the same arguments)                                         ->  ∂loss/∂prediction, derived by hand
    loss.check(prediction, target, *, where=None)                             ->  None, or the error

A loss first makes *values*, one for each element, row or example of the prediction; `axes` says which. Then it reduces
them: `"mean"`, `"sum"`, or `"none"`, whose `gradient` is that of the sum. `where` is a mask over leading axes of the
values, so that (batch,) marks examples: the mean is over the marked values (0 if none is), and the others are 0 in
the loss and in its gradient, whatever stands there, NaN or an impossible label.

`check` reads shapes and dtypes, and so works on tracers and on a `jax.ShapeDtypeStruct`; the values of a target that
is no tracer are judged too. Every loss begins with it.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import check_choice
from funcnet.errors import ConfigError, ShapeError
from funcnet.losses.checks import Check, as_shaped, check_equal_shapes, check_prediction, check_where, over_leading_axes
from funcnet.types import Array

__all__ = ["HandDerived", "Loss", "Reduction", "as_floats", "hand_derived", "loss", "partial", "prepare"]

P = ParamSpec("P")


class HandDerived(Protocol[P]):
    """A function with its hand-derived gradient attached, of the same arguments."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Array: ...

    @property
    def gradient(self) -> Callable[P, Any]: ...

    def hand_gradient(self, gradient: Callable[P, Any], /) -> Callable[P, Any]:
        """The decorator that attaches `gradient`."""
        ...


class Loss(HandDerived[P], Protocol[P]):
    """A loss; the head of `funcnet.losses.loss` says what each part promises."""

    check: Callable[..., None]
    axes: int | None  #: the values have the shape `prediction.shape[:axes]`
    takes: str | None  #: `"logits"`, `"probabilities"`, `"log-probabilities"`, or `None` for any numbers


AnyHandDerived = TypeVar("AnyHandDerived", bound=HandDerived[...])


def loss(
    *,
    check: Check = check_equal_shapes,
    axes: int | None = None,
    takes: Literal["logits", "probabilities", "log-probabilities"] | None = None,
) -> Callable[[Callable[P, Array]], Loss[P]]:
    """Make a loss of a function: the same function, with `check` and, once it is written, `gradient` attached.

    Args:
        check: `(name, prediction, target, where) -> None`, raises if the loss cannot take them.
        axes: the values have the shape `prediction.shape[:axes]`: `None` one value for each element, `-1` for each row
            of the last axis, `1` for each example.
        takes: what the prediction is, where that is not any number: the gradient engines warn of a model that ends
            with something else.

    The cubic loss, |p − t|³ for each element, with ∂/∂p = 3 |p − t| (p − t):

    >>> import jax.numpy as jnp, funcnet as fn
    >>> @fn.losses.loss()
    ... def cubic(prediction, target, *, reduction="mean", where=None):
    ...     p, t, over = fn.losses.prepare(cubic, prediction, target, reduction, where)
    ...     return over.reduce(jnp.abs(p - t) ** 3)
    >>> @cubic.hand_gradient
    ... def _(prediction, target, *, reduction="mean", where=None):
    ...     p, t, over = fn.losses.prepare(cubic, prediction, target, reduction, where)
    ...     return over.spread(3 * jnp.abs(p - t) * (p - t))
    >>> cubic.gradient(jnp.array([3.0, 1.0]), jnp.array([1, 1]))
    Array([6., 0.], dtype=float32)
    """

    def attach(function: Callable[P, Array]) -> Loss[P]:
        name = function.__name__

        def checked(prediction, target, *, where=None):
            prediction = as_shaped(prediction)
            check_prediction(name, prediction)
            check_where(name, where, prediction.shape[:axes])
            check(name, prediction, as_shaped(target), where)

        vars(function).update(check=checked, axes=axes, takes=takes)
        return cast(Loss[P], hand_derived(function))

    return attach


def hand_derived(function: Callable[P, Array]) -> HandDerived[P]:
    """Let a function carry its gradient: `@function.hand_gradient` above the gradient attaches it.

    Raises:
        ConfigError: when it is attached, if the gradient's arguments or their defaults differ from the function's.

    A penalty, for which `gradients.backprop(model, loss, penalty=cubes)` needs it:

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> @fn.losses.hand_derived
    ... def cubes(params):
    ...     return sum(jnp.sum(jnp.abs(leaf) ** 3) for leaf in jax.tree.leaves(params))
    >>> @cubes.hand_gradient
    ... def _(params):
    ...     return jax.tree.map(lambda leaf: 3 * jnp.abs(leaf) * leaf, params)
    >>> cubes.gradient({"kernel": jnp.array([2.0, -1.0])})
    {'kernel': Array([12., -3.], dtype=float32)}
    """
    name = function.__name__

    def hand_gradient(gradient):
        if _arguments(gradient) != _arguments(function):
            raise ConfigError(
                f"{name}.hand_gradient: expected a gradient with the arguments {inspect.signature(function)}, "
                f"got {inspect.signature(gradient)}; give both the same names and defaults."
            )
        gradient.__name__ = gradient.__qualname__ = f"{name}.gradient"
        gradient.__doc__ = gradient.__doc__ or f"The gradient of `{name}`, derived in its docstring."
        vars(function)["gradient"] = gradient
        return gradient

    vars(function)["hand_gradient"] = hand_gradient
    return cast(HandDerived[P], function)


def _arguments(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def partial(function: AnyHandDerived, **options: Any) -> AnyHandDerived:
    """A loss or penalty with some options fixed, in its gradient too.

    Raises:
        ConfigError: the function has no such option.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> robust = fn.losses.partial(fn.losses.huber, delta=0.5)
    >>> robust(jnp.array([2.0]), jnp.array([0.0])), robust.gradient(jnp.array([2.0]), jnp.array([0.0]))
    (Array(0.875, dtype=float32), Array([0.5], dtype=float32))
    """
    known = [name for name, p in inspect.signature(function).parameters.items() if p.default is not p.empty]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"partial({function.__name__}): expected options among {known}, got {unknown}.")
    bound = functools.partial(function, **options)
    kept = ("__name__", "__doc__", "check", "axes", "takes")  # a penalty has no check
    vars(bound).update({name: getattr(function, name) for name in kept if hasattr(function, name)})
    if hasattr(function, "gradient"):
        vars(bound)["gradient"] = functools.partial(function.gradient, **options)
    return cast(AnyHandDerived, bound)


class Reduction(NamedTuple):
    """How values become a loss, and their slopes its gradient. `prepare` makes it."""

    name: str  #: of the loss
    kind: str  #: "mean", "sum" or "none"
    shape: tuple[int, ...]  #: of the values
    mask: Array | None  #: over leading axes of the values
    dtype: Any  #: of the prediction, and so of the loss and its gradient; half precision is computed in float32

    def reduce(self, values: Array) -> Array:
        """The loss: the values, their sum, or their mean; 0 where they are not marked."""
        if values.shape != self.shape:
            raise ShapeError(
                f"{self.name}: expected values of shape {self.shape}, got {values.shape}; "
                "say which axes of prediction they have with losses.loss(axes=…)."
            )
        values = self.select(values)
        if self.kind != "none":
            values = values.sum()
        if self.kind == "mean":
            values = values / self.count(values.dtype)
        return values.astype(self.dtype)

    def spread(self, slopes: Array) -> Array:
        """The gradient: from ∂value/∂prediction of the value that each element belongs to."""
        if self.kind == "mean":
            slopes = slopes * (1 / self.count(slopes.dtype))
        return self.select(slopes).astype(self.dtype)

    def select(self, x: Array) -> Array:
        """`x`, and 0 where it is not marked. A product with the mask would let NaN through."""
        return x if self.mask is None else jnp.where(over_leading_axes(self.mask, x.ndim), x, 0)

    def count(self, dtype: Any) -> Any:
        """How many values are marked, at least 1, as the divisor of the mean."""
        if self.mask is None:
            return float(max(math.prod(self.shape), 1))
        marked = self.mask.sum().astype(dtype) * float(math.prod(self.shape[self.mask.ndim :]))
        return jnp.maximum(marked, 1)


def as_floats(target: Any, prediction: Array) -> Array:
    """The target in the dtype of the prediction."""
    if not isinstance(target, jax.Array):
        # On the host, because jnp.asarray wraps the integer 2**40 to 0 unless x64 is on.
        target = jnp.asarray(np.asarray(target).astype(prediction.dtype))
    return target.astype(prediction.dtype)


def prepare(
    function: Loss[...],
    prediction: Any,
    target: Any,
    reduction: str,
    where: Any,
    *,
    convert: Callable[[Any, Array], Array] = as_floats,
) -> tuple[Array, Array, Reduction]:
    """Check what a loss was given, and make it ready to compute with.

    Args:
        function: the loss.
        prediction, target, reduction, where: its arguments.
        convert: `(target, prediction) -> array`, of the dtype of the prediction, with the values' axes first.

    Returns:
        The prediction and the target as arrays of one floating dtype, both 0 outside the mask, and the `Reduction`.

    Raises:
        ShapeError, DtypeError, LabelError: `function.check` does.
        ConfigError: an unknown reduction.

    The example of `losses.loss` shows where it stands. Outside the mask all is 0, whatever stood there:

    >>> import jax.numpy as jnp, funcnet as fn
    >>> prediction, where = jnp.array([2.0, jnp.nan]), jnp.array([True, False])
    >>> p, t, over = fn.losses.prepare(fn.losses.mean_squared_error, prediction, jnp.array([1, 7]), "mean", where)
    >>> p, t, over.reduce((p - t) ** 2)
    (Array([2., 0.], dtype=float32), Array([1., 0.], dtype=float32), Array(1., dtype=float32))
    """
    function.check(prediction, target, where=where)
    check_choice(function.__name__, "reduction", reduction, ("mean", "sum", "none"))
    prediction = jnp.asarray(prediction)
    mask = None if where is None else jnp.asarray(where)
    over = Reduction(function.__name__, reduction, prediction.shape[: function.axes], mask, prediction.dtype)
    if jnp.finfo(prediction.dtype).bits < 32:
        prediction = prediction.astype(jnp.float32)  # a square beyond 255 is infinite in float16
    # The masked numbers are replaced *before* the mathematics: autodiff multiplies what a `where` leaves out by 0,
    # and 0 × NaN is NaN.
    return over.select(prediction), over.select(convert(target, prediction)), over
