"""funcnet: `fit`, and a jitted `train_step` called from Python, each with both engines. `fit` trains one model, so
many models at once are `train_step` under `vmap`."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp

import funcnet as fn
from benchmarks import network as n
from benchmarks.libraries.jax_columns import at_once, calling, double, predicting, prepared, pure, stepping, updating
from benchmarks.network import parameters
from benchmarks.workload import CHECKED, Column, Convolution, Inference, Training, Update, batches, leaves, operands
from funcnet.layers.convolution.gradients import convolve, input_gradient, kernel_gradient
from funcnet.layers.convolution.windows import place

__all__ = ["columns", "double"]

LOSS = fn.losses.softmax_cross_entropy
OPTIMIZERS = {
    "adam": fn.optimizers.adam(1e-3),
    "sgd": fn.optimizers.sgd(0.01),
    "momentum": fn.optimizers.sgd(0.01, momentum=0.9),
}
ENGINES = ("backprop", "autodiff")


def columns(workload):
    match workload:
        case Training():
            ways = {"fit": by_fit, "step": by_step} if workload.models == 1 else {"step": by_step}
            both = product(ways.items(), ENGINES)
            return {f"{name}, {engine}": partial(way, workload, engine) for (name, way), engine in both}
        case Inference():
            return {"jit": partial(prediction, workload)}
        case Update():
            return {"jit": partial(updates, workload)}
        case Convolution():
            return {engine: partial(convolution, workload, engine) for engine in ENGINES}
    return {}


def build(network):
    """The same network of funcnet's layers."""
    return fn.layers.serial(*map(_layer, network))


PLAIN = {
    n.Relu: fn.layers.relu, n.Flatten: fn.layers.flatten, n.MeanOverPlaces: fn.layers.global_avg_pool,
    n.LayerNorm: fn.layers.layer_norm, n.Last: fn.layers.last,
}  # fmt: skip


def _layer(layer):
    match layer:
        case n.Dense(features):
            return fn.layers.dense(features)
        case n.Conv(features, size, stride, bias):
            padding = ((size // 2, size // 2),) * 2
            return fn.layers.conv(features, size, strides=stride, padding=padding, use_bias=bias)
        case n.BatchNorm():
            return fn.layers.batch_norm(epsilon=1e-5)
        case n.MaxPool(size):
            return fn.layers.max_pool(size)
        case n.Embedding(words, features):
            return fn.layers.embedding(words, features)
        case n.Positions(length):
            return fn.layers.position_embedding(length)
        case n.Gelu():
            return fn.layers.gelu(approximate=True)
        case n.Attention(heads):
            return fn.layers.attention(heads, causal=True)
        case n.Lstm(features):
            return fn.layers.lstm(features)
        case n.Residual(body, shortcut):
            return fn.layers.residual(build(body), *([build(shortcut)] if shortcut else []))
    return PLAIN[type(layer)]()


def loaded(workload, seed=0):
    """The model, its parameters from `parameters`, and its state."""
    model = build(workload.network)
    x = batches(workload)[0][: workload.batch]
    drawn, state = model.init(jax.random.key(0), x)
    given = jax.tree.leaves(parameters(workload.network, workload.shape, workload.dtype, seed))
    assert [leaf.shape for leaf in given] == [leaf.shape for leaf in jax.tree.leaves(drawn)]
    return model, jax.tree.unflatten(jax.tree.structure(drawn), map(jnp.asarray, given)), state


def start(workload, seed=0):
    model, params, state = loaded(workload, seed)
    optimizer = OPTIMIZERS[workload.optimizer]
    return model, optimizer, fn.TrainState(optimizer.init(params), state, jax.random.key(0))


def by_fit(workload, engine):
    """A report, with a copy of the state, every `steps` steps."""
    model, optimizer, state = start(workload)
    fit = partial(fn.training.fit, model, LOSS, optimizer, engine=engine, state=state, key=0)
    if workload.fed == "device":
        fit, data = partial(fit, batch_size=workload.batch), batches(workload)
        first = tuple(array[: workload.batch] for array in data)
    else:
        data = prepared(workload)
        first = data[:1]

    def check():
        return [float(report.metrics["loss"]) for report in fit(data=first, epochs=CHECKED)]

    reports = fit(data=data, epochs=10**6, report_steps=workload.steps)

    def run():
        jax.block_until_ready(next(reports).state)

    return Column(check, run, workload.steps)


def pure_step(workload, seed, engine):
    model, optimizer, state = start(workload, seed)
    return fn.training.train_step(getattr(fn.gradients, engine)(model, LOSS), optimizer), state


def by_step(workload, engine):
    step, state = at_once(workload, partial(pure_step, engine=engine))
    step = jax.jit(step, donate_argnums=0, compiler_options=fn.compiler.options())

    def advance(state, x, target):
        state, metrics = step(state, (x, target))
        return state, metrics["loss"]

    return stepping(workload, pure(advance, state))


def prediction(workload):
    model, params, state = loaded(workload)
    predict = jax.jit(lambda params, x: model.apply(params, state, x)[0], compiler_options=fn.compiler.options())
    return predicting(workload, partial(predict, params))


def updates(workload):
    optimizer = OPTIMIZERS["adam"]
    params, grads = (list(map(jnp.asarray, arrays)) for arrays in zip(*leaves(workload), strict=True))
    update = jax.jit(optimizer.update, donate_argnums=0, compiler_options=fn.compiler.options())
    return updating(workload, update, optimizer.init(params), grads, lambda state: state.params)


def convolution(workload, engine):
    x, kernel, dy = map(jnp.asarray, operands(workload))
    _, side, _, _, size, stride, *_ = workload
    window = place((side, side), (size, size), (stride, stride), ((size // 2, size // 2),) * 2)
    by_hand = {
        "y": lambda x, kernel, dy: convolve(x, kernel, window),
        "dx": lambda x, kernel, dy: input_gradient(dy, kernel, window),
        "dW": lambda x, kernel, dy: kernel_gradient(x, dy, window),
    }
    by_autodiff = by_hand | {
        "dx": lambda x, kernel, dy: jax.vjp(lambda x: convolve(x, kernel, window), x)[1](dy)[0],
        "dW": lambda x, kernel, dy: jax.vjp(lambda kernel: convolve(x, kernel, window), kernel)[1](dy)[0],
    }
    function = (by_hand if engine == "backprop" else by_autodiff)[workload.result]
    program = jax.jit(function, compiler_options=fn.compiler.options())
    return calling(workload, partial(program, x, kernel, dy))
