"""JAX's own stax with optax: pure functions, `jax.jit` with donated state, and the same step scanned by hand. What
stax lacks is written here as anyone would with JAX: attention by `jax.nn`, a recurrence as a plain `lax.scan`."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.example_libraries import stax

from benchmarks import network as n
from benchmarks.libraries.jax_columns import donated, double, predicting, scanned_by_hand, updating
from benchmarks.libraries.optax_parts import OPTIMIZERS, mean_loss
from benchmarks.network import parameters, uses
from benchmarks.workload import Inference, Training, Update, leaves

__all__ = ["columns", "double"]


def columns(workload):
    match workload:
        case Training():
            ways = {"jit, donated": partial(donated, workload, pure_step)}
            return ways | scanned_by_hand(workload, pure_step)
        case Inference() if not has_batch_norm(workload):  # that of stax keeps no statistics
            return {"jit": partial(prediction, workload)}
        case Update():
            return {"optax, jit, donated": partial(updates, workload)}
    return {}


def has_batch_norm(workload):
    return any(isinstance(use.layer, n.BatchNorm) for use in uses(workload.network, workload.shape))


def build(network):
    return stax.serial(*map(_layer, network))


def _layer(layer):
    match layer:
        case n.Dense(features):
            return stax.Dense(features)
        case n.Conv(features, size, stride, bias):
            pads = [(size // 2, size // 2)] * 2
            init, apply = stax.Conv(features, (size, size), (stride, stride), pads)
            return init, apply if bias else lambda params, x, **_: apply((*params, 0), x)
        case n.BatchNorm():
            return stax.BatchNorm(epsilon=1e-5)
        case n.MaxPool(size):
            return stax.MaxPool((size, size), (size, size))
        case n.MeanOverPlaces():
            return lambda key, shape: ((shape[0], shape[-1]), ()), lambda _, x, **__: x.mean((1, 2))
        case n.Residual(body, shortcut):
            branches = stax.parallel(build(body), build(shortcut) if shortcut else stax.Identity)
            return stax.serial(stax.FanOut(2), branches, stax.FanInSum)
        case n.Embedding(_, features):
            return _pair(lambda params, x: params["embedding"][x], lambda shape: (*shape, features))
        case n.Attention(heads):
            return _pair(partial(_attention, heads))
        case n.Lstm(features):
            return _pair(_lstm, lambda shape: (*shape[:-1], features))
    return PLAIN[type(layer)]


def _pair(apply, after=lambda shape: shape):
    return lambda key, shape: (after(shape), ()), lambda params, x, **_: apply(params, x)


def _layer_norm(params, x):
    return jax.nn.standardize(x, epsilon=1e-5) * params["scale"] + params["bias"]


def _attention(heads, params, x):
    def split(name):
        y = x @ params[f"{name}_kernel"] + params.get(f"{name}_bias", 0)
        return y.reshape(*y.shape[:-1], heads, -1)

    y = jax.nn.dot_product_attention(split("query"), split("key"), split("value"), is_causal=True)
    return y.reshape(x.shape) @ params["out_kernel"] + params["out_bias"]


def _lstm(params, x):
    def step(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x @ params["kernel"] + h @ params["recurrent_kernel"] + params["bias"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros((len(x), params["recurrent_kernel"].shape[0]), x.dtype)
    return jax.lax.scan(step, (zero, zero), x.swapaxes(0, 1))[1].swapaxes(0, 1)


PLAIN = {
    n.Relu: stax.Relu, n.Flatten: stax.Flatten, n.Gelu: stax.Gelu, n.LayerNorm: _pair(_layer_norm),
    n.Positions: _pair(lambda params, x: x + params["embedding"]),
    n.Last: _pair(lambda _, x: x[:, -1], lambda shape: (shape[0], shape[-1])),
}  # fmt: skip


def loaded(workload, seed=0):
    """`(params, x) -> y` and the parameters, in stax's order."""
    _, apply = build(workload.network)
    given = iter(parameters(workload.network, workload.shape, workload.dtype, seed))
    return apply, _params(workload.network, given)


def _params(network, given):
    """One tuple per layer: (kernel, bias), or (shift, scale) as stax has them. Of the layers above a dictionary."""

    def one(layer):
        match layer:
            case n.Dense() | n.Conv():
                own = next(given)
                kernel = jnp.asarray(own["kernel"])
                if "bias" not in own:
                    return (kernel,)
                return kernel, jnp.asarray(own["bias"]).reshape((1, 1, 1, -1) if kernel.ndim == 4 else -1)
            case n.BatchNorm():
                own = next(given)
                return jnp.asarray(own["bias"]), jnp.asarray(own["scale"])
            case n.Residual(body, shortcut):
                return (), (_params(body, given), _params(shortcut, given) if shortcut else ()), ()
            case n.Embedding() | n.Positions() | n.LayerNorm() | n.Attention() | n.Lstm():
                return jax.tree.map(jnp.asarray, next(given))
        return ()

    return tuple(one(layer) for layer in network)


def pure_step(workload, seed):
    """`(carry, x, target) -> (carry, loss)` and the first carry."""
    apply, params = loaded(workload, seed)
    optimizer = OPTIMIZERS[workload.optimizer]

    def step(carry, x, target):
        params, state = carry

        def loss(params):
            return mean_loss(apply(params, x), target)

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    return step, (params, optimizer.init(params))


def prediction(workload):
    apply, params = loaded(workload)
    return predicting(workload, partial(jax.jit(apply), params))


def updates(workload):
    optimizer = OPTIMIZERS["adam"]
    params, grads = (list(map(jnp.asarray, arrays)) for arrays in zip(*leaves(workload), strict=True))

    def update(carry, grads):
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    carry = params, optimizer.init(params)
    return updating(workload, jax.jit(update, donate_argnums=0), carry, grads, lambda carry: carry[0])
