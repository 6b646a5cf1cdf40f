"""Vision, part by part, against the gradient that autodiff derives, and a LeNet step against flax and torch.

    python benchmarks/vision.py [parts | step]

Everything in float32, in one process, interleaved, warm, blocked until ready; medians of the rounds in milliseconds
with the fastest and slowest. "In a loop" is the same function in the body of a compiled loop, as `training.fit` runs
its steps (jax-ml/jax#12868: there XLA compiles the convolutions that autodiff derives badly). The step needs the extra
`bench`.
"""

import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import funcnet as fn
from funcnet.layers import convolution
from funcnet.layers.windows import place

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
STEPS = 10
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
    """A step's time in the body of a compiled loop around `function`, whose arguments change with the step."""

    def body(i, total):
        moved = jax.tree.map(lambda a: a + 1e-6 * total, args)
        return sum(leaf.reshape(-1)[0] for leaf in jax.tree.leaves(function(*moved)))

    loop = jax.jit(lambda steps: lax.fori_loop(0, steps, body, 0.0)).lower(0).compile()
    times = []
    while not times or (sum(times) < 0.2 and len(times) < 9):  # once is enough of a long one
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
        window = place(name, (side, side), (k, k), (s, s), "SAME")
        x, dy = normal(0, batch, side, side, channels), normal(1, batch, *window.places, features)
        kernel = normal(2, k, k, channels, features)

        def by_autodiff(x, dy, kernel=kernel, window=window):
            return jax.vjp(lambda kernel: convolution.convolve(x, kernel, window), kernel)[1](dy)[0]

        def by_hand(x, dy, window=window):
            return convolution.kernel_gradient(x, dy, window)

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


# A training step.


def images_and_labels(batch=128):
    random = np.random.default_rng(0)
    return random.normal(size=(batch, 28, 28, 1)).astype(np.float32), random.integers(0, 10, batch).astype(np.int32)


def funcnet_steps(x, target):
    """`fit`, by ten steps a report, and a jitted step with each engine, called from Python."""
    f = fn.layers
    model = f.serial(
        f.conv(32, 3), f.relu(), f.max_pool(2), f.conv(64, 3), f.relu(), f.max_pool(2), f.flatten(),
        f.dense(128), f.relu(), f.dense(10),
    )  # fmt: skip
    optimizer, loss = fn.optimizers.sgd(0.01), fn.losses.softmax_cross_entropy
    batch = jnp.asarray(x), jnp.asarray(target)
    calls = {}
    for engine in ("backprop", "autodiff"):
        step = jax.jit(fn.training.train_step(getattr(fn.gradients, engine)(model, loss), optimizer), donate_argnums=0)
        calls[f"funcnet {engine}"] = stepper(step, fn.training.create_state(model, optimizer, 0, x), batch)
    many = np.tile(x, (STEPS, 1, 1, 1)), np.tile(target, STEPS)
    reports = fn.training.fit(model, loss, optimizer, many, engine="backprop", epochs=10**6, batch_size=len(x))
    calls["funcnet fit"] = lambda: next(reports).state
    return calls


def stepper(step, state, batch):
    held = [state]

    def call():
        held[0], _ = step(held[0], batch)
        return held[0]

    return call


def flax_step(x, target):
    """As flax's own documentation has it: nnx, its optimizer around optax, `nnx.jit`."""
    import optax
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv1, self.conv2 = nnx.Conv(1, 32, (3, 3), rngs=rngs), nnx.Conv(32, 64, (3, 3), rngs=rngs)
            self.dense1, self.dense2 = nnx.Linear(7 * 7 * 64, 128, rngs=rngs), nnx.Linear(128, 10, rngs=rngs)

        def __call__(self, x):
            x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
            x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
            return self.dense2(nnx.relu(self.dense1(x.reshape(x.shape[0], -1))))

    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.01), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, target):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(x), target).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    batch = jnp.asarray(x), jnp.asarray(target)
    return {"flax nnx + optax": lambda: step(model, optimizer, *batch)}


def torch_steps(x, target):
    """Eager, in both memory formats, on as many threads as there are cores."""
    import torch
    from torch import nn

    calls = {}
    for name, memory in (("torch", torch.contiguous_format), ("torch channels_last", torch.channels_last)):
        model = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(7 * 7 * 64, 128), nn.ReLU(), nn.Linear(128, 10),
        ).to(memory_format=memory)  # fmt: skip
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        images = torch.tensor(x.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=memory)
        labels = torch.tensor(target.astype(np.int64))

        def call(model=model, optimizer=optimizer, images=images, labels=labels):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            return 0

        calls[name] = call
    return calls


def steps():
    print("\ntraining step: conv 3 x 3 x 32, pool, conv 3 x 3 x 64, pool, dense 128, dense 10; 28 x 28, batch 128, SGD")
    x, target = images_and_labels()
    results = timed(funcnet_steps(x, target) | flax_step(x, target) | torch_steps(x, target))
    results["funcnet fit"] = tuple(t / STEPS for t in results["funcnet fit"])  # a report comes after so many
    for name, (median, low, high) in results.items():
        print(f"{name:30} {median:6.1f} ms ({low:.1f} to {high:.1f})  {median / results['funcnet fit'][0]:.2f} x")


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["parts", "step"]
    if "parts" in chosen:
        pools()
        norms()
        print()
        kernel_gradients()
    if "step" in chosen:
        steps()
