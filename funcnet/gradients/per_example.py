"""Per-example gradients: one gradient per example, from one forward and one backward pass of the whole batch.

If a layer computes the output of each example from that example alone, its residuals and dy say what each example
contributes to the gradient of the parameters. The layer's backward adds these contributions up. So each layer with
parameters has a second rule beside its backward, without the sum. The containers' backwards pass on what the rules
return, as they pass on dparams.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.errors import ConfigError, ShapeError, translated
from funcnet.gradients.engines import hand_gradient, unpack
from funcnet.layers.containers import map_layers, tied
from funcnet.made import constructor, leading
from funcnet.trees import check_same_structure, equal_rows, flatten_with_paths, is_whole, leaves, path_string
from funcnet.types import Array, Batch, Gradient, GradientFn, Key, Layer, LossFn, Params, State

__all__ = ["per_example", "per_example_norms"]


@constructor
def per_example(model: Layer, loss: LossFn) -> GradientFn:
    """An engine whose gradients have a leading batch axis: row i of each leaf is the gradient of example i's own loss.

    Args:
        model: a layer. Each layer with parameters in it needs a rule, `Rules(per_example=…)`. All layers of the library
            have one. The rule of `batch_norm` raises an error, because it mixes the examples of a training batch.
        loss: one of `funcnet.losses` or your own, with a hand-derived gradient.

    Returns:
        `(params, state, batch, key=None) -> Gradient(loss, grads, state, prediction)`. Its `loss` has the shape
        (batch,), and each leaf of `grads` has the shape (batch, *shape of the parameter), also within `layers.repeat`.
        Use it under `jax.jit`.

    L_i is the loss of example i as a batch of its own: the mean over its own marked values. If each example has equally
    many of them, L = (1/n) Σ_i L_i, and so ∂L/∂θ = (1/n) Σ_i ∂L_i/∂θ: the mean of the gradients is the gradient of the
    mean. The model runs on the batch as a whole, in training mode, with the batch's key.

    Derivation. Let y_i depend on x_i and θ alone, and let g_i = ∂L_i/∂y_i. A backward computes ∂/∂θ Σ_i L_i as a sum
    over the examples, whose term i depends on example i alone. So term i is ∂L_i/∂θ, from the same residuals. For
    `dense`, xᵀ g = Σ_i x_i ⊗ g_i has the terms x_i ⊗ g_i. Layers that mix examples have no such gradients.

    Raises:
        ConfigError: the loss has no hand-derived gradient. When it runs: a layer with parameters has no rule, or a
            layer mixes examples, or the model takes batches of one size only.
        StructureError: when it runs, a rule's result is not like the parameters with a leading batch axis.
        ShapeError: when it runs, x, target or prediction have other rows than the batch, or a container gives a layer
            with parameters other rows. A trace with twice the rows tells them from an axis of the same length.

    References: Goodfellow, "Efficient Per-Example Gradient Computations", arXiv 1510.01799.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> gradient = fn.gradients.per_example(fn.layers.dense(1, use_bias=False), fn.losses.mean_squared_error)
    >>> batch = (jnp.array([[3.0], [1.0]]), jnp.array([[5.0], [0.0]]))
    >>> one_each = gradient({"kernel": jnp.array([[2.0]])}, (), batch)
    >>> one_each.loss, one_each.grads["kernel"].ravel()
    (Array([1., 4.], dtype=float32), Array([6., 4.], dtype=float32))
    """
    run = _engine(model, loss, _batch_last)

    def gradient(params, state, batch, key=None, /):
        computed = run(params, state, batch, key)
        n = len(computed.loss)
        grads = jax.tree.map(lambda node: _batch_first(node, n), computed.grads, is_leaf=_is_rows)
        return computed._replace(grads=grads)

    return gradient


@constructor
def per_example_norms(model: Layer, loss: LossFn) -> Callable[[Params, State, Batch, Key | None], Array]:
    """The norm of each example's gradient over all parameters, ‖∂L_i/∂θ‖, in JAX's default float dtype.

    `dense` computes it from x and dy without the gradients. Other layers make their gradients, one layer at a time. The
    squares are not scaled: in float32 a norm beyond 1.8e19 is infinite, and one below 1e-23 is 0.

    Args, Raises: as for `per_example`.

    Returns:
        `(params, state, batch, key=None) -> norms`, of shape (batch,).

    Derivation. ‖∂L_i/∂θ‖² = Σ_layers ‖∂L_i/∂θ_layer‖², and for a product ‖x_i ⊗ g_i‖² = ‖x_i‖² ‖g_i‖².

    References: Goodfellow, "Efficient Per-Example Gradient Computations", arXiv 1510.01799.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> norms = fn.gradients.per_example_norms(fn.layers.dense(1), fn.losses.mean_squared_error)
    >>> params = {"kernel": jnp.array([[2.0]]), "bias": jnp.array([0.0])}
    >>> norms(params, (), (jnp.array([[0.75], [0.0]]), jnp.array([[-0.5], [3.0]])))
    Array([5., 6.], dtype=float32)
    """
    run = _engine(model, loss, _squares)

    def norms(params, state, batch, key=None, /):
        result = run(params, state, batch, key)
        n = len(result.loss)
        rows = jax.tree.leaves([node.values for _, node in _layers(result.grads)])
        squares = [values.reshape(-1, n).sum(0) for values in rows]
        return jnp.sqrt(sum(squares, jnp.zeros(n)))

    return norms


class _Rows(NamedTuple):
    """Replaces a layer's dparams. Its type differs from that of the zeros that `serial` puts for some layers."""

    values: Any  #: a tree of arrays, one number or gradient per example; their last axis stays last within `repeat`


def _is_rows(node):
    return isinstance(node, _Rows)


def _layers(grads):
    """The layers with rows, by path."""
    found = jax.tree_util.tree_leaves_with_path(grads, is_leaf=_is_rows)
    return [(path_string(path), node) for path, node in found if _is_rows(node)]


Rule = Callable[[Layer, Any, Any, Any], Any]  #: (layer, params, residuals, dy) -> what is put into `_Rows`


def _engine(model: Layer, loss: LossFn, rule: Rule) -> GradientFn:
    """An engine in which `rule` replaces each layer's own dparams, and the loss has the shape (batch,)."""
    _check_unshared(model)
    loss_gradient = hand_gradient("loss", loss)
    check = getattr(loss, "check", None)
    model = map_layers(lambda place, inner: _ruled(inner, rule), model)

    def alone(prediction, target, options):
        prediction, target, options = jax.tree.map(lambda leaf: leaf[None], (prediction, target, options))
        dy = loss_gradient(prediction, target, **options)
        return loss(prediction, target, **options), jax.tree.map(lambda leaf: leaf[0], dy)

    def engine(params, state, batch, key):
        x, target, options = unpack(batch)
        prediction, new_state, residuals = model.forward(params, state, x, key=key, train=True)
        if check is not None:
            check(prediction, target, **options)  # here, because under vmap no label can be read
        if any(map(is_whole, leaves(prediction))):
            fix = "end the model with the layer itself, without layers.deferred"
            raise ConfigError(f"expected a prediction with a row for each example, got an array without rows; {fix}.")
        equal_rows((batch, prediction), "the rows of x, target and prediction are the examples")
        values, dy = jax.vmap(alone)(prediction, target, options)
        grads, _ = model.backward(params, residuals, dy)
        return Gradient(values, grads, new_state, prediction)

    def gradient(params, state, batch, key=None, /):
        computed = engine(params, state, batch, key)
        n = len(computed.loss)
        twice = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2 * n, *leaf.shape[1:]), leaf.dtype), batch)
        problem = f"expected a model for batches of any size, got an error for {2 * n} rows"
        with translated(Exception, ConfigError, problem, "use jax.vmap over the examples"):
            more = jax.eval_shape(engine, params, state, twice, key)
        for (path, found), (_, also) in zip(_layers(computed.grads), _layers(more.grads), strict=True):
            _check_rows(path, found, n)
            _check_rows(path, also, 2 * n)
        return computed

    return gradient


def _ruled(inner: Layer, rule: Rule) -> Layer:
    def backward(params, residuals, dy):
        dparams, dx = inner.backward(params, residuals, dy)
        # A layer without parameters has a rule only to raise an error: layers below it cannot separate what it mixes.
        if jax.tree.leaves(params) or inner.rules.per_example is not None:
            with leading(str(inner)):
                dparams = _Rows(rule(inner, params, residuals, dy))
        return dparams, dx

    return inner._replace(backward=backward)


def _check_unshared(model):
    if model.made.constructor is tied:
        got = f"{model}; a shared leaf has the sum of its gradients, of which no layer knows the norm"
        raise ConfigError(f"expected a model without tied leaves, got {got}. Use jax.vmap over the examples.")
    for inner in model.inside.layers if model.inside else ():
        _check_unshared(inner)


def _one_each(inner, params, residuals, dy):
    """The layer's per-example gradients, batch axis first."""
    if inner.rules.per_example is None:
        fix = "write layer(…, rules=Rules(per_example=rule)) with rule(params, residuals, dy) -> dparams, rows first"
        raise ConfigError(f"expected a layer with a rule for per-example gradients, got none; {fix}.")
    grads = inner.rules.per_example(params, residuals, dy)
    n = jax.tree.leaves(dy)[0].shape[0]
    expected = jax.tree.map(lambda p: np.broadcast_to(0, (n, *p.shape)), params)
    check_same_structure("params with a leading batch axis", expected, "the per-example gradients", grads)
    return grads


def _batch_last(inner, params, residuals, dy):
    return jax.tree.map(lambda g: jnp.moveaxis(g, 0, -1), _one_each(inner, params, residuals, dy))


def _batch_first(node, n):
    if _is_rows(node):
        return jax.tree.map(lambda g: jnp.moveaxis(g, -1, 0), node.values)
    return jnp.zeros(
        (n, *node.shape), node.dtype
    )  # below a layer whose input has no gradient: zeros like the parameter


def _check_rows(path, node, n):
    """A container that folds an axis into the batch, or puts one in its place, has rows that are not the examples."""
    for within, g in flatten_with_paths(node.values):
        if g.shape[-1] != n:
            place = "/".join(part for part in (path, within) if part)
            got = f"{g.shape[-1]}; a container around that layer makes other rows of them"
            fix = "use jax.vmap over the examples"
            raise ShapeError(f"expected {n} rows for the gradients of {place} in a batch of {n}, got {got}; {fix}.")


def _squares(inner, params, residuals, dy):
    if inner.rules.per_example_square is not None:
        return inner.rules.per_example_square(params, residuals, dy).astype(jnp.result_type(float))
    leaves = jax.tree.leaves(_one_each(inner, params, residuals, dy))
    squares = [_square(leaf.astype(jnp.result_type(float))) for leaf in leaves]
    return reduce(jnp.add, squares) if squares else ()


def _square(leaf):
    return jnp.sum(jnp.square(leaf), tuple(range(1, leaf.ndim)))
