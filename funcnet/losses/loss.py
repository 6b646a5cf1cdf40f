"""What a loss is, and how to make one.

    loss(prediction, target, *, reduction="mean", where=None, weights=None, **own options)  ->  (), or an array
    loss.gradient(the same arguments)                             ->  ∂loss/∂prediction, derived by hand; or `None`
    loss.check(prediction, target, *, where=None, weights=None)   ->  None, or the error
    loss.counted(the same arguments as the loss)                  ->  (), the divisor of the mean; or `None`

A loss first computes *values*, one for each element, row or example of the prediction; `axes` says which. Then it
reduces them: `"mean"`, `"sum"` or `"none"`. The `gradient` for `"none"` is that of the sum.

`where` says which values count, and `weights` by how much. Both have the shape of the values, or a leading part of it:
(batch,) for examples, (batch, time) for a loss per position. With c = where · weights the value v counts as c v. The
mean is Σ c v / Σ c, or 0 if nothing counts. What `where` excludes is 0 in the loss and in its gradient, even NaN or an
impossible label. A weight of 0 does not hide these. In a `Padded` prediction or target the padding does not count. The
gradient is then an array of the shape of its `values`. A loss of whole sequences has one value for each of them, and
reads itself what is padded.

`counted` is Σ c. It reads the target but not the numbers of the prediction, for which a `jax.ShapeDtypeStruct` will do.
So a batch that is computed in parts can be combined exactly, with `share`. `counted` is `None` for a loss that is not a
mean of values.

`check` reads shapes and dtypes, so it works on tracers and on a `jax.ShapeDtypeStruct`. It also checks the values of a
target that is not a tracer. Every loss begins with it.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Literal, NamedTuple, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp

from funcnet.checks import as_shaped, check_jax_holds, check_one_array, check_weights, check_where, is_one_array
from funcnet.dtypes import at_least_float32, widen
from funcnet.errors import ConfigError, StructureError
from funcnet.losses.checks import Check, check_equal_shapes, check_padding, check_prediction
from funcnet.losses.reduction import Reduction, as_floats, reduction_of
from funcnet.made import Made, Part, constructor, leading, own_call
from funcnet.trees import unpadded, values_of
from funcnet.types import Array, LossFn

__all__ = ["HandDerived", "Loss", "Summand", "hand_derived", "loss", "partial", "prepare"]

P = ParamSpec("P")


_OWN = own_call("function")


@dataclass(eq=False, repr=False)
class HandDerived(Generic[P]):
    """A function and its hand-derived gradient, which take the same arguments: a penalty, or a `Loss`.

    It is called like the function, and prints as the call that made it. Two are equal if their functions are equal.
    """

    value: Callable[P, Array]
    gradient: Callable[P, Any] | None = None
    made: Made = _OWN

    def __post_init__(self):
        functools.update_wrapper(self, self.value, ("__module__", "__doc__"), ())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Array:
        return self.value(*args, **kwargs)

    def hand_gradient(self, gradient: Callable[P, Any], /) -> Callable[P, Any]:
        """The decorator that sets the gradient.

        Raises:
            ConfigError: there is one already, or its arguments or their defaults differ from the function's.
        """
        if self.gradient is not None:
            raise ConfigError(f"{self}.hand_gradient: expected one gradient, got a second; leave one of them out.")
        if _arguments(gradient) != _arguments(self.value):
            wanted, got = inspect.signature(self.value), inspect.signature(gradient)
            fix = "give both the same names and defaults"
            raise ConfigError(f"{self}.hand_gradient: expected a gradient with {wanted}, got {got}; {fix}.")
        self.gradient = Part(self.made, "gradient", gradient)
        return gradient

    @property
    def __name__(self) -> str:
        return self.made.word

    def __repr__(self) -> str:
        return self.made.name

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, f.name) == getattr(other, f.name) for f in fields(self))

    def __hash__(self) -> int:
        return hash(self.value)

    def __reduce__(self) -> str:
        return self.made.name  # pickled by its name, like a function


def _arguments(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


class Summand(NamedTuple):
    """One of the losses that a `weighted_sum` adds, with its arguments from a batch."""

    weight: float
    loss: LossFn
    prediction: Any
    target: Any
    options: dict[str, Any]  #: `where` and `weights`, if they are given


@dataclass(eq=False, repr=False)
class Loss(HandDerived[P]):
    """A loss, which is called like a function. The head of `funcnet.losses.loss` says what each part promises."""

    check: Callable[..., None] | None = None
    counted: Callable[..., Any] | None = None
    axes: int | None = None  #: the values have the shape `prediction.shape[:axes]`
    takes: str | None = None  #: what the prediction must be, as in `loss`; `None` for any numbers
    parts: Mapping[str, tuple[float, LossFn]] | None = None  #: the weights and losses of a `weighted_sum`
    sequences: bool = False  #: the loss reads itself what is padded
    main: Callable[[Any], Any] | None = None  #: the array of a prediction of several arrays that has the values' axes

    def each_part(self, prediction: Any, target: Any, where: Any = None, weights: Any = None) -> dict[str, Summand]:
        """The parts of a `weighted_sum` with their arguments, by name; {} for another loss."""
        given = {"where": where, "weights": weights}
        for what, one in given.items():
            if isinstance(one, dict) and self.parts is not None and not one.keys() <= self.parts.keys():
                raise ConfigError(f"expected {what} for the parts {list(self.parts)}, got {list(one)}; name the parts.")

        def options(name):
            own = {what: one.get(name) if isinstance(one, dict) else one for what, one in given.items()}
            return {what: one for what, one in own.items() if one is not None}

        return {
            name: Summand(weight, loss, _prediction(prediction, name), _entry(target, name), options(name))
            for name, (weight, loss) in (self.parts or {}).items()
        }

    def terms(
        self, prediction: Any, target: Any, *, where: Any = None, weights: Any = None
    ) -> dict[str, tuple[Array, Any]]:
        """For each part of a `weighted_sum`, by name: its loss without its weight, and what counted in it or `None`.

        If a part is itself a weighted sum, its parts are named `outer/inner`.

        >>> import jax.numpy as jnp, funcnet as fn
        >>> both = fn.losses.weighted_sum(a=(1.0, fn.losses.mean_squared_error), b=(0.5, fn.losses.huber))
        >>> both.terms(jnp.array([3.0, 1.0]), jnp.array([1.0, 1.0]))["b"]
        (Array(0.75, dtype=float32), Array(2., dtype=float32))
        """
        with leading(self.made.name, self.made.word):
            parts = self.each_part(prediction, target, where, weights)
        found = {}
        for name, part in parts.items():
            given = {"where": part.options.get("where"), "weights": part.options.get("weights")}
            if isinstance(part.loss, Loss) and part.loss.parts:
                inner = part.loss.terms(part.prediction, part.target, **given)
                found |= {f"{name}/{key}": term for key, term in inner.items()}
            else:
                count = getattr(part.loss, "counted", None)
                value = part.loss(part.prediction, part.target, **part.options)
                found[name] = value, None if count is None else count(part.prediction, part.target, **given)
        return found


def _prediction(prediction, name):
    if isinstance(prediction, dict) and name not in prediction:
        fix = "name the model's outputs as the parts"
        raise StructureError(f"expected prediction with an entry {name!r}, got {list(prediction)}; {fix}.")
    return _entry(prediction, name)


def _entry(tree, name):
    return tree.get(name) if isinstance(tree, dict) else tree


AnyHandDerived = TypeVar("AnyHandDerived", bound=HandDerived[...])


def loss(
    *,
    check: Check | None = check_equal_shapes,
    axes: int | None = None,
    takes: Literal["logits", "probabilities", "class probabilities", "log-probabilities"] | None = None,
    mean: bool = True,
    share: Callable[..., Any] | None = None,
    sequences: bool = False,
    main: Callable[[Any], Any] | None = None,
) -> Callable[[Callable[P, Array]], Loss[P]]:
    """Make a loss from a function; its `hand_gradient` is the decorator for its gradient.

    Args:
        check: `(prediction, target, where) -> None`, which raises an error if the loss cannot take them. `None` is for
            a loss that reads no target, or takes any target. It also gets those options of the loss that it has
            arguments for.
        axes: the values have the shape `prediction.shape[:axes]`. `None` means one value for each element, `-1` one for
            each row of the last axis, `1` one for each example.
        takes: what the prediction must be, if it may not be any number. "class probabilities" sum to 1 over the
            classes, and "probabilities" need not. The gradient engines warn of a model that ends with something else.
        mean: whether `reduction="mean"` is the mean of the values. `mean=False` is for the root of a mean, or a ratio
            of sums. Such a loss has no `counted`, and functions that combine batches by `counted` refuse it. A function
            without `weights=` has no `counted` either.
        share: `(prediction, target, **options) -> array` of the shape of the values, or `None`. It says how much each
            value counts in the mean, as a factor beside `weights`. Class weights need it. The loss function puts the
            same array into `over._replace(share=…)`.
        sequences: whether each value is that of a whole sequence. Then the positions of a `Padded` prediction or target
            are not positions of the values, and the check gets both as they are.
        main: `(prediction) -> array`, for a loss whose prediction is several arrays: the one that has the axes of the
            values. The check gets the prediction as it is, and `prepare` returns this array.

    The cubic loss, |p − t|³ for each element, with ∂/∂p = 3 |p − t| (p − t):

    >>> import jax.numpy as jnp, funcnet as fn
    >>> @fn.losses.loss()
    ... def cubic(prediction, target, *, reduction="mean", where=None, weights=None):
    ...     p, t, over = fn.losses.prepare(cubic, prediction, target, reduction, where, weights)
    ...     return over.reduce(jnp.abs(p - t) ** 3)
    >>> @cubic.hand_gradient
    ... def _(prediction, target, *, reduction="mean", where=None, weights=None):
    ...     p, t, over = fn.losses.prepare(cubic, prediction, target, reduction, where, weights)
    ...     return over.spread(3 * jnp.abs(p - t) * (p - t))
    >>> p, t = jnp.array([3.0, 1.0]), jnp.array([1, 1])
    >>> cubic.gradient(p, t), cubic.counted(p, t, weights=jnp.array([0.5, 1.0]))
    (Array([6., 0.], dtype=float32), Array(1.5, dtype=float32))
    """

    takes_options = set() if check is None else {*inspect.signature(check).parameters}

    def make(function: Callable[P, Array]) -> Loss[P]:
        def checked(prediction, target, *, where=None, weights=None, **options):
            given = prediction
            prediction = given if main is None else main(given)
            p, t = values_of(prediction), values_of(target)
            check_one_array("prediction", p, "losses.weighted_sum has a loss for each entry")
            p = as_shaped(p)
            check_jax_holds("prediction", p)
            check_prediction(p)
            shape = p.shape[:axes]
            check_where(where, shape)
            if not sequences:
                check_padding("prediction", prediction, shape)
                check_padding("target", target, shape)
            _, _, where = _values(sequences, prediction, target, where)
            check_weights(weights, shape, where)
            if check is None:
                return
            if not sequences:
                target = as_shaped(t) if is_one_array(t) else t
                given = p if main is None else given
            check(given, target, where, **{name: x for name, x in options.items() if name in takes_options})

        def counted(prediction, target, *, reduction="mean", where=None, weights=None, **options):
            checked(prediction, target, where=where, weights=weights, **options)
            prediction = prediction if main is None else main(prediction)
            prediction, target, where = _values(sequences, prediction, target, where)
            prediction = as_shaped(prediction)
            wide = jax.ShapeDtypeStruct(prediction.shape, at_least_float32(prediction.dtype))
            over = reduction_of(reduction, wide, where, weights, axes)
            if reduction != "mean":
                return jnp.ones((), wide.dtype)  # a sum is divided by 1
            if share is not None:
                over = over._replace(share=share(wide, target, **options))
            return jnp.asarray(over.total(wide.dtype), wide.dtype)

        made = own_call(function.__name__)
        weighable = mean and "weights" in inspect.signature(function).parameters
        return Loss(
            Part(made, "value", function),
            made=made,
            check=Part(made, "check", checked),
            counted=Part(made, "counted", counted) if weighable else None,
            axes=axes,
            takes=takes,
            sequences=sequences,
            main=main,
        )

    return make


def _values(sequences, prediction, target, where):
    """The values of prediction and target, and what counts: the padding does not, unless the loss reads it itself."""
    if sequences:
        return values_of(prediction), values_of(target), where
    return unpadded(prediction, target, where)


def hand_derived(function: Callable[P, Array]) -> HandDerived[P]:
    """Let a function carry its gradient: `@function.hand_gradient` above the gradient sets it.

    A penalty needs it for `gradients.backprop(model, loss, penalty=cubes)`:

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
    made = own_call(function.__name__)
    return HandDerived(Part(made, "value", function), made=made)


@constructor
def partial(function: AnyHandDerived, /, **options: Any) -> AnyHandDerived:
    """A loss or penalty with some options fixed, also in its `gradient` and `counted`.

    Raises:
        ConfigError: the function has no such option.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> robust = fn.losses.partial(fn.losses.huber, delta=0.5)
    >>> robust
    partial(huber, delta=0.5)
    >>> robust(jnp.array([2.0]), jnp.array([0.0])), robust.gradient(jnp.array([2.0]), jnp.array([0.0]))
    (Array(0.875, dtype=float32), Array([0.5], dtype=float32))
    """
    known = [name for name, p in inspect.signature(function).parameters.items() if p.default is not p.empty]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"expected options among {known}, got {unknown}.")
    if getattr(function, "parts", None) and (own := options.keys() & {"where", "weights"}):
        raise ConfigError(f"expected options that fit every batch, got {sorted(own)}; give them in the call.")
    if not isinstance(function, HandDerived):
        return cast(AnyHandDerived, _bound(function, options))
    changes = {"value": _bound(function.value, options), "gradient": _bound(function.gradient, options)}
    if isinstance(function, Loss):
        checked = {} if function.parts else options  # the check of a sum takes none
        changes |= {"check": _bound(function.check, checked), "counted": _bound(function.counted, options)}
    return replace(function, **changes, made=own_call("partial"))


def _bound(function, options):
    """The function with these options, which a call may override. Its errors still begin with its own name."""
    if function is None:
        return None

    @functools.wraps(function, updated=())
    def bound(*args, **given):
        return function(*args, **(options | given))

    return bound


def prepare(
    function: Loss[...],
    prediction: Any,
    target: Any,
    reduction: str,
    where: Any,
    weights: Any = None,
    *,
    convert: Callable[[Any, Array], Array] = as_floats,
    **options: Any,
) -> tuple[Array, Array, Reduction]:
    """Check the arguments of a loss, and make them ready to compute with.

    Args:
        function: the loss.
        prediction, target, reduction, where, weights: its arguments.
        convert: `(target, prediction) -> array`, of the dtype of the prediction, with the values' axes first.
        options: further arguments of the loss, for its check.

    Returns:
        The prediction and the target as arrays of one floating dtype, both 0 outside the mask, and the `Reduction`. Of
        a `Padded` they are the values, and the padding is outside the mask.

    Raises:
        ShapeError, DtypeError, LabelError, DataError: `function.check` raises them.
        ConfigError: an unknown reduction.

    The example of `losses.loss` shows where to call it. Outside the mask all is 0, whatever was there:

    >>> import jax.numpy as jnp, funcnet as fn
    >>> prediction, where = jnp.array([2.0, jnp.nan]), jnp.array([True, False])
    >>> p, t, over = fn.losses.prepare(fn.losses.mean_squared_error, prediction, jnp.array([1, 7]), "mean", where)
    >>> p, t, over.reduce((p - t) ** 2)
    (Array([2., 0.], dtype=float32), Array([1., 0.], dtype=float32), Array(1., dtype=float32))
    """
    if function.check is not None:
        function.check(prediction, target, where=where, weights=weights, **options)
    prediction = prediction if function.main is None else function.main(prediction)
    prediction, target, where = _values(function.sequences, prediction, target, where)
    prediction = jnp.asarray(prediction)
    over = reduction_of(reduction, prediction, where, weights, function.axes)
    prediction = widen(prediction)
    # The masked numbers are replaced *before* the mathematics: autodiff multiplies what a `where` leaves out by 0,
    # and 0 × NaN is NaN.
    return over.select(prediction), over.select(convert(target, prediction)), over
