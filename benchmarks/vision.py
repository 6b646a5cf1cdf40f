"""The parts of networks for images: their hand-derived gradients compared with those of autodiff.

    python benchmarks/vision.py

Everything runs in float32, in one process, interleaved and warmed up, and the clock waits for the results. The output
is the median of the rounds in milliseconds, with the fastest and the slowest. "In a loop" is the same function in the
body of a compiled loop, as `training.fit` runs its steps. There XLA compiles the convolutions that autodiff derives
badly (jax-ml/jax#12868).
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import funcnet as fn
from funcnet.layers.convolution import gradients
from funcnet.layers.convolution.windows import place

#: name, batch, side, in, features, kernel, stride
KERNELS = [
    ("LeNet-like, first", 128, 28, 1, 32, 3, 1),
    ("LeNet-like, second", 128, 14, 32, 64, 3, 1),
    ("wide", 128, 28, 32, 64, 3, 1),
    ("wider", 64, 32, 64, 64, 3, 1),
    ("LeNet-5, first", 128, 28, 1, 6, 5, 1),
    ("LeNet-5, second", 128, 14, 6, 16, 5, 1),
    ("VGG, 3 to 64", 64, 32, 3, 64, 3, 1),
    ("VGG, 64 to 128", 64, 16, 64, 128, 3, 1),
    ("VGG, 128 to 128", 64, 16, 128, 128, 3, 1),
    ("VGG, 256 to 256", 64, 8, 256, 256, 3, 1),
    ("ResNet-20, first", 32, 32, 3, 16, 3, 1),
    ("ResNet-20, stage 1", 32, 32, 16, 16, 3, 1),
    ("ResNet-20, into stage 2", 32, 32, 16, 32, 3, 2),
    ("ResNet-20, shortcut", 32, 32, 16, 32, 1, 2),
    ("ResNet-20, stage 2", 32, 16, 32, 32, 3, 1),
    ("ResNet-20, into stage 3", 32, 16, 32, 64, 3, 2),
    ("ResNet-20, stage 3", 32, 8, 64, 64, 3, 1),
]
#: batch, side, channels, window, stride, padding
POOLS = [
    (128, 28, 32, 2, 2, "VALID"),
    (128, 14, 64, 2, 2, "VALID"),
    (64, 32, 64, 2, 2, "VALID"),
    (128, 28, 32, 3, 2, "SAME"),
    (64, 16, 64, 3, 1, "SAME"),
    (32, 32, 16, 2, 2, "VALID"),
]
NORMS = [(128, 28, 28, 32), (32, 32, 32, 16), (32, 16, 16, 32), (32, 8, 8, 64), (64, 32, 32, 64), (128, 256)]


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def timed(functions, rounds=15):
    """name -> (median, fastest, slowest) in milliseconds, interleaved."""
    for function in functions.values():
        jax.block_until_ready(function())
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: (float(np.median(t)), min(t), max(t)) for name, t in times.items()}


def looped(function, *args):
    """The time of a step in a compiled loop around `function`. The arguments change with the step."""

    def body(i, total):
        moved = jax.tree.map(lambda a: a + 1e-6 * total, args)
        return sum(leaf.reshape(-1)[0] for leaf in jax.tree.leaves(function(*moved)))

    loop = jax.jit(lambda steps: lax.fori_loop(0, steps, body, 0.0)).lower(0).compile()
    times = []
    while not times or (sum(times) < 0.2 and len(times) < 9):  # a long one runs only once
        start = time.perf_counter()
        loop(2).block_until_ready()
        times.append((time.perf_counter() - start) / 2)
    return 1e3 * float(np.median(times))


def show(name, results, base="autodiff"):
    words = [f"{key} {median:.2f} ({low:.2f} to {high:.2f})" for key, (median, low, high) in results.items()]
    ratios = {key: results[base][0] / median for key, (median, _, _) in results.items() if key != base}
    print(f"{name:28} " + "  ".join(words) + "  ratio " + ", ".join(f"{r:.2f}" for r in ratios.values()), flush=True)
    return ratios


def geometric_mean(numbers):
    return float(np.exp(np.mean(np.log(numbers))))


def kernel_gradients():
    print("kernel gradient of a convolution")
    ratios, in_loops = [], []
    for name, batch, side, channels, features, k, s in KERNELS:
        window = place((side, side), (k, k), (s, s), "SAME")
        x, dy = normal(0, batch, side, side, channels), normal(1, batch, *window.places, features)
        kernel = normal(2, k, k, channels, features)

        def by_autodiff(x, dy, kernel=kernel, window=window):
            return jax.vjp(lambda kernel: gradients.convolve(x, kernel, window), kernel)[1](dy)[0]

        def by_hand(x, dy, window=window):
            return gradients.kernel_gradient(x, dy, window)

        compiled = jax.jit(by_autodiff), jax.jit(by_hand)
        np.testing.assert_allclose(*(np.asarray(f(x, dy)) for f in compiled), rtol=1e-3, atol=1e-2)
        results = timed({"autodiff": partial(compiled[0], x, dy), "hand": partial(compiled[1], x, dy)})
        loops = [looped(function, x, dy) for function in (by_autodiff, by_hand)]
        ratios.append(show(name, results)["hand"])
        in_loops.append(loops[0] / loops[1])
        print(f"{'':28} in a loop: autodiff {loops[0]:.1f}  hand {loops[1]:.2f}  ratio {in_loops[-1]:.0f}", flush=True)
    print(f"geometric mean {geometric_mean(ratios):.2f} (least {min(ratios):.2f}), ", end="")
    print(f"in a loop {geometric_mean(in_loops):.0f}\n")


def pools():
    print("max pooling, forward and backward, against the gradient of reduce_window")
    for batch, side, channels, k, s, padding in POOLS:
        layer = fn.layers.max_pool(k, strides=s, padding=padding)
        x = normal(0, batch, side, side, channels)

        def windowed(x, k=k, s=s, padding=padding):
            return lax.reduce_window(x, -jnp.inf, lax.max, (1, k, k, 1), (1, s, s, 1), padding)

        dy = normal(1, *jax.eval_shape(windowed, x).shape)

        @jax.jit
        def of_reduce_window(x, dy, windowed=windowed):
            y, vjp = jax.vjp(windowed, x)
            return y, vjp(dy)[0]

        show(
            f"{x.shape} {k} x {k} / {s} {padding}",
            timed(both_ways(layer, x, dy, {"autodiff": partial(of_reduce_window, x, dy)})),
        )


def norms():
    print("\nbatch normalisation in training, forward and backward")
    for shape in NORMS:
        x = normal(0, *shape) + 1
        show(f"{shape}", timed(both_ways(fn.layers.batch_norm(), x, normal(1, *shape))))


def both_ways(layer, x, dy, others=None):
    """Forward and backward of a layer by hand, and by autodiff of its own forward or as `others` says."""
    params, state = layer.init(jax.random.key(0), x)

    @jax.jit
    def by_autodiff(params, x, dy):
        y, vjp = jax.vjp(lambda params, x: layer.apply(params, state, x, train=True)[0], params, x)
        return y, vjp(dy)

    @jax.jit
    def by_hand(params, x, dy):
        y, _, residuals = layer.forward(params, state, x, train=True)
        return y, layer.backward(params, residuals, dy)

    functions = others or {"autodiff": lambda: by_autodiff(params, x, dy)}
    return functions | {"hand": lambda: by_hand(params, x, dy)}


if __name__ == "__main__":
    pools()
    norms()
    print()
    kernel_gradients()
