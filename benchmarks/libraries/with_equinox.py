"""equinox with optax, in three ways. The first is `eqx.filter_jit` with donation. The second is the arrays of the model
under `jax.jit`, as its page on low-overhead loops advises. The third is that step scanned by hand."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks import network as n
from benchmarks.libraries.jax_columns import double, predicting, pure, scanned, stepping
from benchmarks.libraries.optax_parts import OPTIMIZERS, mean_loss
from benchmarks.network import chain, parameters
from benchmarks.workload import Inference, Training

__all__ = ["columns", "double"]


def columns(workload):
    match workload:
        case Training():
            return {
                "filter_jit, donated": partial(by_step, workload, filtered=True),
                "jax.jit, donated": partial(by_step, workload, filtered=False),
                "scanned by hand": partial(by_scan, workload),
            }
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


def build(network, shape, given):
    return eqx.nn.Sequential([_layer(use.layer, use.before, given) for use in chain(network, shape)])


def _layer(layer, before, given):
    key = jax.random.key(0)
    match layer:
        case n.Dense(features):
            own = next(given)
            dense = eqx.nn.Linear(before[-1], features, key=key)
            return _with(dense, own["kernel"].T, own["bias"])
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
        case n.Residual(body, shortcut):
            return Residual(build(body, before, given), build(shortcut, before, given))
    raise TypeError(layer)


def _with(module, weight, bias):
    module = eqx.tree_at(lambda module: module.weight, module, jnp.asarray(weight))
    return module if bias is None else eqx.tree_at(lambda module: module.bias, module, jnp.asarray(bias))


def loaded(workload):
    """The model, and its state in a fresh form."""
    given = parameters(workload.network, workload.shape, workload.dtype)
    return eqx.nn.make_with_state(lambda: build(workload.network, workload.shape, iter(given)))()


def channels_first(x):
    return jnp.moveaxis(x, -1, 1) if x.ndim == 4 else x


def pure_step(workload):
    model, state = loaded(workload)
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


def by_step(workload, filtered):
    step, carry = pure_step(workload)
    if not filtered:
        return stepping(workload, pure(jax.jit(step, donate_argnums=0), carry))
    batch_first = eqx.filter_jit(lambda batch, carry: step(carry, *batch), donate="all-except-first")
    return stepping(workload, pure(lambda carry, *batch: batch_first(batch, carry), carry))


def by_scan(workload):
    return scanned(workload, *pure_step(workload))


def prediction(workload):
    model, state = loaded(workload)
    batched = eqx.filter_jit(lambda model, x: jax.vmap(lambda x: model(x, state)[0])(channels_first(x)))
    return predicting(workload, partial(batched, model))
