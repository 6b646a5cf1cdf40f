"""The makers of layers: `layer` from a forward and a backward pass, `parameterless` and `elementwise` from less.

The library makes its own layers with them, and you can make yours in the same way. `funcnet.gradients.automatic` makes
a layer whose backward pass comes from autodiff.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from funcnet.checks import check_arrays, check_choice, check_floating, check_key, describe
from funcnet.dtypes import widen
from funcnet.errors import StructureError
from funcnet.layers.checks import check_array, check_dy, check_leaves, check_padded, check_pair, check_train
from funcnet.made import leading, own_call, owned, spelled
from funcnet.numerics import by_platform
from funcnet.trees import filled, is_padded, keep_shape, map_leaves
from funcnet.types import ApplyFn, BackwardFn, ForwardFn, InitFn, Inside, Layer, Padded, Rules, State

__all__ = ["Leaves", "assembled", "cell", "elementwise", "layer", "one_position", "parameterless"]

#: From the name of each leaf to `(initializer, shape)` or `(initializer, shape, dtype)`. A false entry is left out.
Leaves: TypeAlias = dict[str, Any]


def layer(
    forward: ForwardFn,
    backward: BackwardFn,
    *,
    apply: ApplyFn | None = None,
    leaves: Leaves | Callable[[Any], Leaves] | None = None,
    state: Callable[[Any], State] | None = None,
    init: InitFn | None = None,
    rules: Rules = Rules(),
    trees: bool = False,
) -> Layer:
    """Make a `Layer` from a forward pass and its hand-derived backward pass. `apply` is `forward` without residuals.

    Args:
        forward: `(params, state, x, *, key=None, train=False) -> (y, state, residuals)`.
        backward: `(params, residuals, dy) -> (dparams, dx)`. Only the declared leaves of `dparams` are kept.
        apply: `(params, state, x, *, key=None, train=False) -> (y, state)`, if without residuals the same can be had
            faster. Its autodiff must be that of `forward`.
        leaves: the parameters, `{"kernel": (initializer, shape), "bias": use_bias and (initializer, shape)}`, or a
            function of `x` that returns such a dictionary. An entry may also have a dtype. The default is that of `x`.
            A false entry is left out. Entry 0 draws from the key of `init`, entry i from `fold_in(key, i)`. `layer`
            makes and checks the leaves. Without leaves the params are `()`.
        state: a function of `x` that returns the first state. The default is `()`.
        init: `(key, x) -> (params, state)`, for what `leaves` and `state` cannot express. Its results are not checked.
        rules: what else is known about the layer. With `rules.start` it is a cell, whose `x` is `(carry, x_t)`.
        trees: whether `x` may be any tree, also one with a `Padded`. `forward` then gets it unchanged. By default `x`
            is one array. It may also be a `Padded` if `rules.positionwise` allows it, and `forward` then gets its
            values. Functions of `x` for `leaves` and `state` get the values of a `Padded`, and the x_t of a cell.

    Errors begin with the call of the constructor if that has the decorator `@constructor`. Otherwise they begin with
    the name of the function around `forward`.

    Raises:
        ShapeError, DtypeError, StructureError: when the layer is called and `x`, `params`, `state` or `dy` does not
            fit, the key is not a key, or `train` is not a bool.

    For example a layer y = a ⊙ x with one number a per feature. Write g = ∂L/∂y: da = Σ_batch g ⊙ x and dx = a ⊙ g.
    Kept: x.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> def scale():
    ...     def forward(params, state, x, *, key=None, train=False):
    ...         return params["scale"] * x, state, x
    ...     def backward(params, x, dy):
    ...         return {"scale": (dy * x).sum(0)}, params["scale"] * dy
    ...     ones = fn.initializers.ones
    ...     return fn.layers.layer(forward, backward, leaves=lambda x: {"scale": (ones, x.shape[-1:])})
    >>> params, state = scale().init(jax.random.key(0), jnp.ones((4, 3)))
    >>> y, state = scale().apply(params, state, jnp.ones((4, 3)))
    >>> scale(), y.shape
    (scale, (4, 3))
    """

    trees = trees or rules.start is not None

    def read(x):
        """What `leaves` and `state` are functions of."""
        if rules.start is not None:
            check_pair(x, "(carry, x_t)", "layers.scan runs a cell over time")
            x = x[1]
        return x.values if is_padded(x) else x

    def declared(x):
        """The entries that are not false, each with its number, its initializer and its shape and dtype."""
        entries = leaves(x) if callable(leaves) else leaves or {}
        if any(entry and len(entry) == 2 for entry in entries.values()):
            check_floating("x", x)
        return {
            name: (i, entry[0], jax.ShapeDtypeStruct(entry[1], entry[2] if len(entry) > 2 else x.dtype))
            for i, (name, entry) in enumerate(entries.items())
            if entry
        }

    def own_init(key, x):
        x = x if trees else _one_array(x, rules)
        if init is not None:
            return init(key, x)
        x = read(x)
        params = {
            name: initializer(jax.random.fold_in(key, i) if i else key, leaf.shape, leaf.dtype)
            for name, (i, initializer, leaf) in declared(x).items()
        }
        return params or (), () if state is None else state(x)

    def fitting(params, given, x):
        """The values of `x`, checked beside params and state."""
        values = x if trees else _one_array(x, rules)
        if init is None:
            own = read(values)
            check_leaves("params", params, own, {name: leaf for name, (_, _, leaf) in declared(own).items()})
            check_leaves("state", given, own, {} if state is None else jax.eval_shape(state, own))
        return values

    def with_places(x, y):
        return Padded(y, x.where) if is_padded(x) and not trees else y

    def own_forward(params, given, x, *, key=None, train=False):
        y, new_state, residuals = forward(params, given, fitting(params, given, x), key=key, train=train)
        return with_places(x, y), new_state, (residuals, map_leaves(keep_shape, y))

    def own_apply(params, given, x, *, key=None, train=False):
        y, new_state, *_ = (apply or forward)(params, given, fitting(params, given, x), key=key, train=train)
        return with_places(x, y), new_state

    def own_backward(params, residuals, dy):
        dparams, dx = backward(params, *_with_checked_dy(residuals, dy))
        return (dparams if init else _declared(params, dparams)), dx

    def ruled(rule):
        def run(params, residuals, dy):
            result = rule(params, *_with_checked_dy(residuals, dy))
            return _declared(params, result) if isinstance(result, dict) and not init else result

        return rule and run

    rules = rules._replace(
        per_example=ruled(rules.per_example), per_example_square=ruled(rules.per_example_square)
    )  # fmt: skip
    if rules.positionwise is not None and rules.cell is None:
        rules = rules._replace(cell=one_position(Layer(own_init, own_apply, own_forward, own_backward)))
    return assembled(_label(forward), own_init, own_apply, own_forward, own_backward, rules=rules)


def assembled(
    label: str,
    init: InitFn,
    apply: ApplyFn,
    forward: ForwardFn,
    backward: BackwardFn,
    *,
    inside: Inside | None = None,
    rules: Rules = Rules(),
) -> Layer:
    """A layer from its four functions, with the checks of all layers. `label` names it if no constructor does."""

    def checked_init(key, x):
        check_key(key, "the order is init(key, x)")
        check_arrays("x", x)
        return init(key, x)

    def checked(method):
        def run(params, state, x, *, key=None, train=False):
            check_arrays("x", x)
            check_train(train)
            return method(params, state, jax.tree.map(jnp.asarray, x), key=key, train=train)

        return run

    functions = Layer(checked_init, checked(apply), checked(forward), backward, inside=inside, rules=rules)
    return owned(own_call(label), functions)


def parameterless(
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[[Any, Any], Any],
    *,
    apply: Callable[..., Any] | None = None,
    rules: Rules = Rules(),
    trees: bool = False,
) -> Layer:
    """A layer without parameters and state.

    Args:
        forward: `(x, *, key, train) -> (y, residuals)`.
        backward: `(residuals, dy) -> dx`.
        apply: `(x, *, key, train) -> y`, as for `layer`.
        rules, trees: as for `layer`.

    For example gradient reversal: y = x, and dx = −dy on purpose.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> def reversal():
    ...     return fn.layers.parameterless(lambda x, *, key, train: (x, None), lambda residuals, dy: -dy)
    >>> _, _, residuals = reversal().forward((), (), jnp.ones(2))
    >>> reversal().backward((), residuals, jnp.ones(2)), reversal()
    (((), Array([-1., -1.], dtype=float32)), reversal)
    """

    def layer_forward(params, state, x, *, key=None, train=False):
        del params
        y, residuals = forward(x, key=key, train=train)
        return y, state, residuals

    def layer_backward(params, residuals, dy):
        return params, backward(residuals, dy)

    def layer_apply(params, state, x, *, key=None, train=False):
        del params
        y = apply(x, key=key, train=train) if apply else forward(x, key=key, train=train)[0]
        return y, state

    made = layer(layer_forward, layer_backward, apply=layer_apply, rules=rules, trees=trees)
    return _labelled(made, _label(forward))


def elementwise(
    function: Callable[[Any], Any],
    derivative: Callable[[Any, Any], Any],
    *,
    apply: Callable[[Any], Any] | None = None,
    keep: str = "xy",
) -> Layer:
    """A layer y = f(x), element by element, with the derivative f′ written beside f.

    Args:
        function: `x -> y`, of the shape of `x`.
        derivative: `(x, y) -> dy/dx`, of the shape of `x`. Write it with `y` where you can. The next layer keeps that
            array anyway, so it costs no memory.
        apply: `x -> y`, as for `layer`.
        keep: what `derivative` reads: `"x"`, `"y"` or `"xy"`. What it does not read is passed as `None`.

    In half precision both functions compute in float32, and their results are rounded.

    Backward. y_i depends on x_i alone, so the Jacobian is diagonal and dx = f′(x) ⊙ g with g = ∂L/∂y.
    Kept: what `keep` says.

    Raises:
        ConfigError: `keep` has another value.
        DtypeError: when the layer is called with an input that is not floating-point.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> square = fn.layers.elementwise(jnp.square, lambda x, y: 2 * x, keep="x")
    >>> y, state, residuals = square.forward((), (), jnp.array([3.0]))
    >>> square.backward((), residuals, jnp.array([1.0])), square
    (((), Array([6.], dtype=float32)), square)
    """
    with leading("elementwise"):
        check_choice("keep", keep, ("x", "y", "xy"))

    def valued(function, x):
        check_floating("x", x)
        return function(widen(x)).astype(x.dtype)

    def forward(x, *, key, train):
        del key, train
        y = valued(function, x)
        return y, (x if "x" in keep else None, y if "y" in keep else None)

    def own_apply(x, *, key, train):
        del key, train
        return valued(apply or function, x)

    def backward(residuals, dy):
        x, y = residuals
        kept = _set_apart(x), y
        return (derivative(*jax.tree.map(widen, kept)) * widen(dy)).astype(dy.dtype)

    made = parameterless(forward, backward, apply=own_apply, rules=Rules(positionwise=0))
    return _labelled(made, spelled(function))


@partial(jax.jit, inline=True)
def _set_apart(x: Any) -> Any:
    """x. On a CPU the compiler does not see that it is the x of the forward pass.

    It would see there that both passes compute the same on the way from x to y, such as a tanh, and keep that besides
    x. Compilers for other platforms compute it again by themselves.
    """
    return by_platform(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)


def _one_array(x: Any, rules: Rules) -> Any:
    """What a plain layer takes: one array, or the values of a `Padded` where its rules allow that."""
    if is_padded(x):
        check_padded(x, rules.positionwise)
        return x.values
    check_array(x)
    return x


def _with_checked_dy(residuals: Any, dy: Any) -> tuple[Any, Any]:
    """A layer's own residuals, and `dy` with zeros for `None`."""
    if not isinstance(residuals, tuple) or len(residuals) != 2:
        got = f"{describe(residuals)}; the order is backward(params, residuals, dy)"
        raise StructureError(f"expected residuals from forward of this very layer, got {got}.")
    own, kept = residuals
    check_dy(kept, dy)
    return own, filled(kept, dy)


def _declared(params: Any, gradients: Any) -> Any:
    """The gradients of the leaves that `params` has."""
    if not isinstance(params, dict):
        return params
    missing = sorted(set(params) - set(gradients))
    if missing:
        raise StructureError(f"expected backward to give a gradient for each leaf, got none for {missing}; add them.")
    return {leaf: gradients[leaf] for leaf in params}


def one_position(layer: Layer) -> Layer:
    """The cell of a layer that treats each position by itself. It carries nothing."""

    def init(key, x):
        return layer.init(key, x[1])

    def forward(params, state, x, *, key=None, train=False):
        y, state, residuals = layer.forward(params, state, x[1], key=key, train=train)
        return ((), y), state, residuals

    def backward(params, residuals, dy):
        dparams, dx = layer.backward(params, residuals, dy[1])
        return dparams, ((), dx)

    return cell(forward, backward, init, lambda params, state, x, length: ())


def cell(forward: ForwardFn, backward: BackwardFn, init: InitFn, start: Any) -> Layer:
    """A layer on `(carry, x_t)` that gives `(carry, y_t)`. Its `init` also takes `None` for the carry."""
    return layer(forward, backward, init=init, rules=Rules(start=start))


def _labelled(layer: Layer, label: str) -> Layer:
    """A layer made without a constructor, under another name."""
    return owned(own_call(label), layer)


def _label(function: Callable[..., Any]) -> str:
    """`scale` for a function defined within `scale`."""
    return getattr(function, "__qualname__", "layer").split(".")[0]
