"""equinox with optax, in three ways. The first is `eqx.filter_jit` with donation. The second is the arrays of the model
under `jax.jit`, as its page on low-overhead loops advises. The third is that step scanned by hand."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks import network as n
from benchmarks.libraries.jax_columns import at_once, donated, double, predicting, pure, scanned_by_hand, stepping
from benchmarks.libraries.optax_parts import OPTIMIZERS, mean_loss
from benchmarks.network import chain, parameters
from benchmarks.workload import Inference, Training

__all__ = ["columns", "double"]


def columns(workload):
    match workload:
        case Training():
            ways = {
                "filter_jit, donated": partial(filtered, workload),
                "jax.jit, donated": partial(donated, workload, pure_step),
            }
            return ways | scanned_by_hand(workload, pure_step)
        case Inference():
            return {"filter_jit": partial(prediction, workload)}
    return {}


class Residual(eqx.nn.StatefulLayer):
    body: eqx.nn.Sequential
    shortcut: eqx.nn.Sequential

    def __call__(self, x, state, *, key=None):
        y, state = self.body(x, state)
        shortcut, state = self.shortcut(x, state)
        return y + shortcut, state


class AtEach(eqx.Module):
    """A module at each position."""

    inner: eqx.Module

    def __call__(self, x, *, key=None):
        return jax.vmap(self.inner)(x)


class Positions(eqx.Module):
    embedding: jax.Array

    def __call__(self, x, *, key=None):
        return x + self.embedding


class Attention(eqx.Module):
    inner: eqx.nn.MultiheadAttention

    def __init__(self, heads, width, own, key):
        with_biases = {f"use_{name}_bias": True for name in ("query", "value", "output")}
        inner = eqx.nn.MultiheadAttention(heads, width, **with_biases, key=key)
        parts = {"query_proj": "query", "key_proj": "key", "value_proj": "value", "output_proj": "out"}
        loaded = [
            _with(getattr(inner, part), own[f"{name}_kernel"].T, own.get(f"{name}_bias"))
            for part, name in parts.items()
        ]
        self.inner = eqx.tree_at(lambda inner: [getattr(inner, part) for part in parts], inner, loaded)

    def __call__(self, x, *, key=None):
        return self.inner(x, x, x, mask=jnp.tri(len(x), dtype=bool))


class Lstm(eqx.Module):
    cell: eqx.nn.LSTMCell

    def __init__(self, width, features, own, key):
        cell = eqx.nn.LSTMCell(width, features, key=key)
        given = [jnp.asarray(leaf) for leaf in (own["kernel"].T, own["recurrent_kernel"].T, own["bias"])]
        self.cell = eqx.tree_at(lambda cell: [cell.weight_ih, cell.weight_hh, cell.bias], cell, given)

    def __call__(self, x, *, key=None):
        def step(carry, x):
            carry = self.cell(x, carry)
            return carry, carry[0]

        zero = jnp.zeros(self.cell.hidden_size, x.dtype)
        return jax.lax.scan(step, (zero, zero), x)[1]


def build(network, shape, given):
    return eqx.nn.Sequential([_layer(use.layer, use.before, given) for use in chain(network, shape)])


def _layer(layer, before, given):
    key = jax.random.key(0)
    match layer:
        case n.Dense(features):
            own = next(given)
            dense = _with(eqx.nn.Linear(before[-1], features, key=key), own["kernel"].T, own["bias"])
            return dense if len(before) == 1 else AtEach(dense)
        case n.Conv(features, size, stride, bias):
            own = next(given)
            conv = eqx.nn.Conv2d(before[-1], features, size, stride, size // 2, use_bias=bias, key=key)
            return _with(conv, own["kernel"].transpose(3, 2, 0, 1), own["bias"][:, None, None] if bias else None)
        case n.BatchNorm():
            own = next(given)
            dtype = own["scale"].dtype
            norm = eqx.nn.BatchNorm(before[-1], "batch", eps=1e-5, momentum=0.9, mode="batch", dtype=dtype)
            return _with(norm, own["scale"], own["bias"])
        case n.MaxPool(size):
            return eqx.nn.MaxPool2d(size, size)
        case n.MeanOverPlaces():
            return eqx.nn.Lambda(lambda x: x.mean((1, 2)))
        case n.Flatten():
            return eqx.nn.Lambda(lambda x: jnp.moveaxis(x, 0, -1).ravel())
        case n.Relu():
            return eqx.nn.Lambda(jax.nn.relu)
        case n.Gelu():
            return eqx.nn.Lambda(jax.nn.gelu)
        case n.Last():
            return eqx.nn.Lambda(lambda x: x[-1])
        case n.Embedding():
            return AtEach(eqx.nn.Embedding(weight=jnp.asarray(next(given)["embedding"])))
        case n.Positions():
            return Positions(jnp.asarray(next(given)["embedding"]))
        case n.LayerNorm():
            own = next(given)
            return AtEach(_with(eqx.nn.LayerNorm(before[-1], dtype=own["scale"].dtype), own["scale"], own["bias"]))
        case n.Attention(heads):
            return Attention(heads, before[-1], next(given), key)
        case n.Lstm(features):
            return Lstm(before[-1], features, next(given), key)
        case n.Residual(body, shortcut):
            return Residual(build(body, before, given), build(shortcut, before, given))
    raise TypeError(layer)


def _with(module, weight, bias):
    module = eqx.tree_at(lambda module: module.weight, module, jnp.asarray(weight))
    return module if bias is None else eqx.tree_at(lambda module: module.bias, module, jnp.asarray(bias))


def loaded(workload, seed=0):
    """The model, and its state in a fresh form."""
    given = parameters(workload.network, workload.shape, workload.dtype, seed)
    return eqx.nn.make_with_state(lambda: build(workload.network, workload.shape, iter(given)))()


def channels_first(x):
    return jnp.moveaxis(x, -1, 1) if x.ndim == 4 else x


def pure_step(workload, seed):
    model, state = loaded(workload, seed)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    optimizer = OPTIMIZERS[workload.optimizer]

    def step(carry, x, target):
        params, state, slots = carry

        def loss(params, state):
            model = eqx.combine(params, static)
            scores, state = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(
                channels_first(x), state
            )
            return mean_loss(scores, target), state

        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params, state)
        updates, slots = optimizer.update(grads, slots, params)
        return (eqx.apply_updates(params, updates), state, slots), value

    return step, (params, state, optimizer.init(params))


def filtered(workload):
    step, carry = at_once(workload, pure_step)
    batch_first = eqx.filter_jit(lambda batch, carry: step(carry, *batch), donate="all-except-first")
    return stepping(workload, pure(lambda carry, *batch: batch_first(batch, carry), carry))


def prediction(workload):
    model, state = loaded(workload)
    model = eqx.nn.inference_mode(model)
    batched = eqx.filter_jit(lambda model, x: jax.vmap(lambda x: model(x, state)[0])(channels_first(x)))
    return predicting(workload, partial(batched, model))
