"""How layers are made: `layer` from the contract's functions, `parameterless` and `elementwise` from less.

An own layer is made with these as the library's are; `funcnet.gradients.automatic` makes one whose backward pass
autodiff supplies.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_choice, check_key
from funcnet.layers.checks import check_arrays, check_dy, check_empty, check_floating, check_train
from funcnet.types import Array, BackwardFn, ForwardFn, InitFn, Layer, Params, Residuals

__all__ = ["elementwise", "layer", "no_parameters", "parameterless"]


def layer(
    init: InitFn,
    forward: ForwardFn,
    backward: BackwardFn,
    *,
    name: str | None = None,
    sublayers: tuple[Layer, ...] = (),
    rebuild: Callable[..., Layer] | None = None,
    per_example: Callable[[Params, Residuals, Any], Params] | None = None,
    per_example_square: Callable[[Params, Residuals, Any], Array] | None = None,
) -> Layer:
    """Make a `Layer` of its three independent functions; `apply` is `forward` without the residuals.

    Args:
        init: `(key, x) -> (params, state)`; `()` for no parameters, `()` for no state.
        forward: `(params, state, x, *, key=None, train=False) -> (y, state, residuals)`.
        backward: `(params, residuals, dy) -> (dparams, dx)`.
        name: the call that makes the layer, such as `"scale(2)"`, with which its errors begin; by default the name
            of the function around `forward`.
        sublayers: the layers that a container runs.
        rebuild: for a container, the same one around other layers, `(*sublayers) -> Layer`; `layers.map_layers`
            needs it to look inside.
        per_example: `(params, residuals, dy) -> dparams` without the sum over the batch: a leading batch axis on every
            leaf. `gradients.per_example` needs it of each plain layer with parameters.
        per_example_square: `(params, residuals, dy) -> (batch,)`, the squared norm of those, where it is cheaper than
            they are; `gradients.per_example_norms` takes it.

    Raises:
        DtypeError: when the layer is called, if the key is no key, `x` no array, or `train` no bool.

    A layer y = a ⊙ x with one number a a feature. Write g = ∂L/∂y: da = Σ_batch g ⊙ x and dx = a ⊙ g. Kept: x.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> def scale():
    ...     def init(key, x):
    ...         return {"scale": jnp.ones(x.shape[-1:], x.dtype)}, ()
    ...     def forward(params, state, x, *, key=None, train=False):
    ...         return params["scale"] * x, state, x
    ...     def backward(params, x, dy):
    ...         return {"scale": (dy * x).sum(0)}, params["scale"] * dy
    ...     return fn.layers.layer(init, forward, backward)
    >>> params, state = scale().init(jax.random.key(0), jnp.ones((4, 3)))
    >>> y, state = scale().apply(params, state, jnp.ones((4, 3)))
    >>> scale(), y.shape
    (scale, (4, 3))
    """
    label = name or _constructor_name(forward)

    def checked_init(key, x):
        check_key(label, key, "the order is init(key, x)")
        check_arrays(label, "x", x)
        return init(key, x)

    def checked_forward(params, state, x, *, key=None, train=False):
        check_arrays(label, "x", x)
        check_train(label, train)
        return forward(params, state, jax.tree.map(jnp.asarray, x), key=key, train=train)

    def apply(params, state, x, *, key=None, train=False):
        y, new_state, _ = checked_forward(params, state, x, key=key, train=train)
        return y, new_state

    made = Layer(checked_init, apply, checked_forward, backward)
    # The functions carry the layer's name, so that errors, profiles and compiled programs show it.
    for function in (checked_init, apply, checked_forward):
        function.__name__ = function.__qualname__ = label
    vars(checked_forward).update(
        sublayers=sublayers, rebuild=rebuild, per_example=per_example, per_example_square=per_example_square
    )
    return made


def no_parameters(key: Any, x: Any) -> tuple[tuple[()], tuple[()]]:
    """The `init` of a layer without parameters and state.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> fn.layers.no_parameters(jax.random.key(0), jnp.ones((2, 3)))
    ((), ())
    """
    del key, x
    return (), ()


def parameterless(
    forward: Callable[..., tuple[Any, Any]], backward: Callable[[Any, Any], Any], *, name: str | None = None
) -> Layer:
    """A layer without parameters and state.

    Args:
        forward: `(x, *, key, train) -> (y, residuals)`.
        backward: `(residuals, dy) -> dx`.
        name: as for `layer`.

    Gradient reversal: y = x, and dx = −dy on purpose.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> def reversal():
    ...     return fn.layers.parameterless(
    ...         lambda x, *, key, train: (x, None), lambda residuals, dy: -dy, name="reversal()")
    >>> reversal().backward((), None, jnp.ones(2))
    ((), Array([-1., -1.], dtype=float32))
    """
    label = name or _constructor_name(forward)

    def layer_forward(params, state, x, *, key=None, train=False):
        check_empty(label, "params", params)
        check_empty(label, "state", state)
        y, residuals = forward(x, key=key, train=train)
        return y, (), residuals

    def layer_backward(params, residuals, dy):
        del params
        return (), backward(residuals, dy)

    return layer(no_parameters, layer_forward, layer_backward, name=label)


def elementwise(
    function: Callable[[Any], Any], derivative: Callable[[Any, Any], Any], *, keep: str = "xy", name: str | None = None
) -> Layer:
    """A layer y = f(x), element by element, with the derivative f′ written beside f.

    Args:
        function: `x -> y`, of the shape of `x`.
        derivative: `(x, y) -> dy/dx`, of the shape of `x`. Write it with `y` where you can: the next layer keeps
            that array anyhow, so it costs no memory.
        keep: which of the two `derivative` reads: `"x"`, `"y"` or `"xy"`. The other one comes as `None`.
        name: as for `layer`.

    Backward. y_i depends on x_i alone, so the Jacobian is diagonal and dx = f′(x) ⊙ g with g = ∂L/∂y.
    Kept: what `keep` says.

    Raises:
        ConfigError: for another `keep`.
        DtypeError: when the layer is called, for an input that is not floating-point.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> square = fn.layers.elementwise(jnp.square, lambda x, y: 2 * x, keep="x", name="square()")
    >>> y, state, residuals = square.forward((), (), jnp.array([3.0]))
    >>> square.backward((), residuals, jnp.array([1.0]))
    ((), Array([6.], dtype=float32))
    """
    label = name or getattr(function, "__name__", "elementwise")
    check_choice(label, "keep", keep, ("x", "y", "xy"))

    def forward(x, *, key, train):
        del key, train
        check_floating(label, x)
        y = function(x)
        return y, (x if "x" in keep else None, y if "y" in keep else None)

    def backward(residuals, dy):
        x, y = residuals
        kept = x if y is None else y
        check_dy(label, dy, kept.shape, kept.dtype)
        return derivative(x, y) * dy

    return parameterless(forward, backward, name=label)


def _constructor_name(function: Callable[..., Any]) -> str:
    """`scale` for a function defined within `scale`."""
    return getattr(function, "__qualname__", "layer").split(".")[0]
