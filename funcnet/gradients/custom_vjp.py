"""Make the hand-derived backward the rule that `jax.grad` follows."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from funcnet.checks import check_arrays
from funcnet.errors import ForwardModeError
from funcnet.gradients.cotangents import as_cotangent, as_gradient
from funcnet.layers.checks import check_train
from funcnet.made import leading
from funcnet.types import Layer

__all__ = ["as_custom_vjp"]


def as_custom_vjp(layer: Layer) -> Layer:
    """The same layer, whose `apply` carries its hand-derived backward as `jax.custom_vjp`.

    So `jax.grad` and `jax.vjp` of `apply` run `backward`, and JAX differentiates nothing. The other three functions
    stay as they are. Wrap only the outermost layer, the model. `layers.map_layers` unwraps it.

    Only reverse mode works, because a backward computes gᵀ J from g, while forward mode needs J v. The gradient itself
    may be differentiated again in either mode: `jax.hessian`, `jax.jacrev(jax.grad(…))`, `jax.jvp` of a gradient. No
    gradient flows through the state, neither into the old state nor from the new one.

    Within `jax.shard_map`, first let the params vary with `jax.lax.pcast(params, axis, to="varying")`, and sum their
    gradients with `jax.lax.psum`. A backward knows only its own device.

    Check a layer before you wrap it. Afterwards `apply` and `backward` have the same gradient, so they agree even if it
    is wrong.

    Raises:
        ForwardModeError: under `jax.jvp`, `jax.jacfwd` or the function that `jax.linearize` returns. The call of
            `apply` raises it, or, under `jax.jit`, the compilation.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> def backward(params, x, dy):
    ...     return (), jnp.clip(2 * x * dy, -1, 1)
    >>> def square(params, state, x, *, key=None, train=False):
    ...     return x * x, state, x
    >>> gentle = fn.layers.layer(square, backward)
    >>> objective = lambda x, layer: layer.apply((), (), x)[0].sum()
    >>> jax.grad(objective)(jnp.array([0.25, 3.0]), gentle)
    Array([0.5, 6. ], dtype=float32)
    >>> jax.grad(objective)(jnp.array([0.25, 3.0]), fn.gradients.as_custom_vjp(gentle))
    Array([0.5, 1. ], dtype=float32)
    """
    runs = {train: _with_rule(layer, train) for train in (False, True)}
    guard = _guard(str(layer))

    def apply(params, state, x, *, key=None, train=False):
        with leading(str(layer)):
            check_arrays("x", x)
            check_train(train)
        params, state, x = jax.tree.map(guard, (params, state, jax.tree.map(jnp.asarray, x)))
        return runs[train](params, state, x, key)

    return layer._replace(apply=apply)


def _with_rule(layer, train):
    @jax.custom_vjp
    def run(params, state, x, key):
        return layer.apply(params, state, x, key=key, train=train)

    def forward(params, state, x, key):
        y, new_state, residuals = layer.forward(params, state, x, key=key, train=train)
        return (y, new_state), (params, x, residuals)

    def backward(kept, cotangents):
        params, x, residuals = kept
        dparams, dx = layer.backward(params, residuals, as_gradient(cotangents[0]))
        return dparams, None, as_cotangent(x, dx), None  # None is zero, for the state and for the key

    run.defvjp(forward, backward)
    return run


# custom_vjp turns a tangent into an operation that can be transposed, which is reverse mode, but not run. JAX's error
# for running it names neither the layer nor the remedy. So the tangents first pass an identity of the same kind.


def _guard(name):
    """The identity, for numbers whose tangents can only be transposed."""

    @jax.custom_jvp
    def guard(leaf):
        return leaf

    @guard.defjvp
    def _(primals, tangents):
        # Not guard(primals[0]), because the gradient may be differentiated once more in forward mode.
        return primals[0], _transpose_only.bind(tangents[0], name=name)

    return lambda leaf: guard(leaf) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf


def _refuse(*_: Any, name: str, **__: Any) -> Any:
    wanted = "reverse mode (jax.grad, jax.jacrev), the only mode that a hand-derived backward defines"
    got = "forward mode (jax.jvp, jax.jacfwd); use apply of the layer that as_custom_vjp was given"
    raise ForwardModeError(f"{name}: expected {wanted}, got {got}.")


_transpose_only = Primitive("funcnet_transpose_only")
_transpose_only.def_impl(_refuse)
_transpose_only.def_abstract_eval(lambda tangent, *, name: tangent)
ad.deflinear2(_transpose_only, lambda cotangent, _, *, name: [cotangent])
batching.primitive_batchers[_transpose_only] = _refuse
mlir.register_lowering(_transpose_only, _refuse)
