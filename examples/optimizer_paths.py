"""Five optimizers on a saddle and in a ravine: which leave the saddle, which swing, and which arrive within 100 steps.

`python examples/optimizer_paths.py saddle.png ravine.png` draws the paths too.
"""

import sys

import jax
import jax.numpy as jnp

import funcnet as fn

STEPS = 100


def saddle(p):
    """A saddle at (0, 0) between the minima (0, ±1); along y it is flat at first."""
    return 0.5 * p[0] ** 2 + 0.25 * p[1] ** 4 - 0.5 * p[1] ** 2


def ravine(p):
    """Twenty times as steep across, in y, as along, in x; its minimum is (0, 0)."""
    return p[0] ** 2 / 20 + p[1] ** 2


OPTIMIZERS = {  # (on the saddle, in the ravine): each with a rate that suits it
    "SGD": (fn.optimizers.sgd(0.1), fn.optimizers.sgd(0.95)),
    "momentum": (fn.optimizers.sgd(0.1, momentum=0.9), fn.optimizers.sgd(0.1, momentum=0.9)),
    "AdaGrad": (fn.optimizers.adagrad(0.3), fn.optimizers.adagrad(1.5)),
    "RMSProp": (fn.optimizers.rmsprop(0.015), fn.optimizers.rmsprop(0.1)),
    "Adam": (fn.optimizers.adam(0.1), fn.optimizers.adam(0.3)),
}
SURFACES = {"saddle": (saddle, (-1.5, 0.001), (0, 1)), "ravine": (ravine, (-7.0, 2.0), (0, 0))}


def path_of(optimizer, function, start):
    """The parameters from the start on, (STEPS + 1, 2). Here they are one array; a tree would work too."""

    def step(state, _):
        state = optimizer.update(state, jax.grad(function)(state.params))
        return state, state.params

    start = jnp.array(start)
    _, points = jax.lax.scan(step, optimizer.init(start), length=STEPS)
    return jnp.concatenate([start[None], points])


for i, (name, (function, start, minimum)) in enumerate(SURFACES.items()):
    paths = {word: path_of(both[i], function, start) for word, both in OPTIMIZERS.items()}
    for word, points in paths.items():
        above = jax.vmap(function)(points) - function(jnp.array(minimum, float))
        there = int(jnp.argmax(above < 0.01)) if above.min() < 0.01 else f"more than {STEPS}"
        print(f"{name}  {word:9}  {there} steps to within 0.01 of the minimum, {above[-1]:.1e} above it at the end")
    if len(sys.argv) > 1 + i:
        fn.plotting.loss_surface(function, paths, sys.argv[1 + i], minimum=minimum)
