"""Vanishing gradients: twenty sigmoid layers against twenty ReLU layers with He initialisation, before any training.

`python examples/vanishing_gradients.py gradient_flow.png` draws the picture too.
"""

import sys

import jax

import funcnet as fn

LAYERS, WIDTH = 20, 64

(images, labels), _ = fn.data.split(*fn.data.digits())
batch = images[:256], labels[:256]
features = (WIDTH,) * (LAYERS - 1) + (10,)
models = {
    "ReLU, He": fn.models.mlp(features, activation=fn.layers.relu, kernel_init=fn.initializers.he_normal()),
    "sigmoid, Xavier": fn.models.mlp(
        features, activation=fn.layers.sigmoid, kernel_init=fn.initializers.xavier_normal()
    ),
}

traces = {}
for name, model in models.items():
    params, state = jax.jit(model.init)(jax.random.key(0), batch[0])
    trace = jax.jit(fn.checking.trace_backward(model, fn.losses.softmax_cross_entropy))
    traces[name] = trace(params, state, batch)
    last, first = traces[name].dy.rms[-1], traces[name].dy.rms[0]
    print(f"{name}: ∂loss/∂y {last:.1e} at the last layer, {first:.1e} at the first, a factor of {last / first:.1e}")

if sys.argv[1:]:
    fn.plotting.gradient_flow(traces, sys.argv[1])
