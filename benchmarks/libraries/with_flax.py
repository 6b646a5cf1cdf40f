"""flax nnx with optax, in three ways. The first is `nnx.jit` with `nnx.cached_partial`, as in its guides. The second is
a pure step of the split model under `jax.jit` with donated state, as its guide to performance advises. The third is
that step scanned by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks import network as n
from benchmarks.libraries.jax_columns import donated, double, predicting, scanned_by_hand, stacked, stepping
from benchmarks.libraries.optax_parts import OPTIMIZERS, mean_loss
from benchmarks.network import chain, parameters
from benchmarks.workload import Inference, Training

__all__ = ["columns", "double"]


def columns(workload):
    match workload:
        case Training():
            ways = {
                "nnx.jit": partial(by_nnx, workload, cached=False),
                "nnx.cached_partial": partial(by_nnx, workload, cached=True),
                "jax.jit, donated": partial(donated, workload, pure_step),
            }
            return ways | scanned_by_hand(workload, pure_step)
        case Inference():
            return {"nnx.jit": partial(prediction, workload, split=False), "jax.jit": partial(prediction, workload)}
    return {}


class Residual(nnx.Module):
    def __init__(self, body, shortcut):
        self.body, self.shortcut = body, shortcut

    def __call__(self, x):
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


class Positions(nnx.Module):
    def __init__(self, embedding):
        self.embedding = nnx.Param(embedding)

    def __call__(self, x):
        return x + self.embedding[...]


class Attention(nnx.Module):
    def __init__(self, heads, width, own):
        dtype, each = own["out_bias"].dtype, width // heads
        self.inner = nnx.MultiHeadAttention(
            heads, width, decode=False, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0)
        )
        for name in ("query", "key", "value"):
            bias = own.get(f"{name}_bias", np.zeros(width, dtype)).reshape(heads, each)
            _with(
                getattr(self.inner, name), {"kernel": own[f"{name}_kernel"].reshape(width, heads, each), "bias": bias}
            )
        _with(self.inner.out, {"kernel": own["out_kernel"].reshape(heads, each, width), "bias": own["out_bias"]})

    def __call__(self, x):
        return self.inner(x, mask=nnx.make_causal_mask(x[..., 0]))


def _lstm_cell(width, features, own):
    """Flax has a kernel for each gate, in one product, and the biases with the product of the state."""
    dtype = own["bias"].dtype
    cell = nnx.OptimizedLSTMCell(width, features, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    _with(cell.dense_i, {"kernel": own["kernel"]})
    _with(cell.dense_h, {"kernel": own["recurrent_kernel"], "bias": own["bias"]})
    return cell


def build(network, shape, given):
    return nnx.Sequential(*(_layer(use.layer, use.before, given) for use in chain(network, shape)))


def _layer(layer, before, given):
    rngs = nnx.Rngs(0)
    match layer:
        case n.Dense(features):
            return _with(nnx.Linear(before[-1], features, rngs=rngs), next(given))
        case n.Conv(features, size, stride, bias):
            pads = [(size // 2, size // 2)] * 2
            conv = nnx.Conv(before[-1], features, (size, size), stride, padding=pads, use_bias=bias, rngs=rngs)
            return _with(conv, next(given))
        case n.BatchNorm():
            own = next(given)
            dtype = own["scale"].dtype
            norm = nnx.BatchNorm(
                before[-1], use_running_average=False, momentum=0.9, epsilon=1e-5, param_dtype=dtype, rngs=rngs
            )
            return _with(norm, own)
        case n.MaxPool(size):
            return partial(nnx.max_pool, window_shape=(size, size), strides=(size, size))
        case n.MeanOverPlaces():
            return partial(jnp.mean, axis=(1, 2))
        case n.Flatten():
            return lambda x: x.reshape(x.shape[0], -1)
        case n.Relu():
            return nnx.relu
        case n.Gelu():
            return nnx.gelu
        case n.Last():
            return lambda x: x[:, -1]
        case n.Embedding(words, features):
            return _with(nnx.Embed(words, features, rngs=rngs), next(given))
        case n.Positions():
            return Positions(jnp.asarray(next(given)["embedding"]))
        case n.LayerNorm():
            return _with(nnx.LayerNorm(before[-1], epsilon=1e-5, rngs=rngs), next(given))
        case n.Attention(heads):
            return Attention(heads, before[-1], next(given))
        case n.Lstm(features):
            return nnx.RNN(_lstm_cell(before[-1], features, next(given)))
        case n.Residual(body, shortcut):
            inner = build(body, before, given)
            return Residual(inner, build(shortcut, before, given) if shortcut else None)
    raise TypeError(layer)


def _with(module, own):
    for name, value in own.items():
        setattr(module, name, nnx.Param(jnp.asarray(value)))
    return module


def loaded(workload, seed=0):
    given = parameters(workload.network, workload.shape, workload.dtype, seed)
    return build(workload.network, workload.shape, iter(given))


def by_nnx(workload, cached):
    def start():
        model = loaded(workload)

        def own(model):
            return nnx.Optimizer(model, OPTIMIZERS[workload.optimizer], wrt=nnx.Param)

        def step(model, optimizer, x, target):
            loss, grads = nnx.value_and_grad(lambda model: mean_loss(model(x), target))(model)
            optimizer.update(model, grads)
            return loss

        if workload.models > 1:
            states = [nnx.state(loaded(workload, seed)) for seed in range(workload.models)]
            model = nnx.merge(nnx.graphdef(model), stacked(states))
            own, step = nnx.vmap(own), nnx.vmap(step, in_axes=(0, 0, None, None))
        step, optimizer = nnx.jit(step), own(model)
        step = nnx.cached_partial(step, model, optimizer) if cached else partial(step, model, optimizer)

        def advance(x, target):
            loss = step(x, target)
            return loss, (loss, nnx.state(model))

        return advance

    return stepping(workload, start)


def pure_step(workload, seed):
    graph, params, rest = nnx.split(loaded(workload, seed), nnx.Param, ...)
    optimizer = OPTIMIZERS[workload.optimizer]

    def step(carry, x, target):
        params, rest, state = carry

        def loss(params):
            model = nnx.merge(graph, params, rest, copy=True)  # its statistics change in this trace
            value = mean_loss(model(x), target)
            return value, nnx.split(model, nnx.Param, ...)[2]

        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), rest, state), value

    return step, (params, rest, optimizer.init(params))


def prediction(workload, split=True):
    model = loaded(workload)
    model.eval()
    if not split:
        return predicting(workload, partial(nnx.jit(lambda model, x: model(x)), model))
    graph, state = nnx.split(model)
    predict = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    return predicting(workload, partial(predict, state))
