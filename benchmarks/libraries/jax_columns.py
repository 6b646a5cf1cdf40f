"""What the libraries on JAX share: columns of a pure step, and of one that changes its objects."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.network import Conv, uses
from benchmarks.workload import BATCHES, CHECKED, Column, batches

#: The context in which float64 is float64.
double = partial(jax.enable_x64, True)


def stepping(workload, start):
    """Called from Python, one step at a time.

    `start() -> advance`, and `advance(x, target) -> (loss, all that the step computes)`.
    """
    data = prepared(workload)
    advance = start()

    def check():
        return np.ravel([advance(*data[0])[0] for _ in range(CHECKED)]).tolist()

    def run():
        for i in range(workload.steps):
            done = advance(*data[i % BATCHES])
        jax.block_until_ready(done)

    return Column(check, run, workload.steps)


def pure(step, carry):
    """`start` for `stepping` from `step(carry, x, target) -> (carry, loss)`, which is jitted and may donate carry."""

    def start():
        held = [jax.tree.map(jnp.array, carry)]

        def advance(x, target):
            held[0], loss = step(held[0], x, target)
            return loss, held[0]

        return advance

    return start


def at_once(workload, pure_step):
    """The step of all models of a workload, under `vmap`, and their first carries, stacked.

    `pure_step(workload, seed) -> (step, carry)`, and `step(carry, *batch) -> (carry, loss)`.
    """
    if workload.models == 1:
        return pure_step(workload, 0)
    steps, carries = zip(*(pure_step(workload, seed) for seed in range(workload.models)), strict=True)

    def step(carry, *batch):
        return jax.vmap(lambda carry: steps[0](carry, *batch))(carry)

    return step, stacked(carries)


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def donated(workload, pure_step):
    """The step under `jax.jit`, called from Python."""
    step, carry = at_once(workload, pure_step)
    return stepping(workload, pure(jax.jit(step, donate_argnums=0), carry))


def scanned_by_hand(workload, pure_step):
    """This way by its name, where the batches lie on the device."""
    return {"scanned by hand": partial(scanned, workload, pure_step)} if workload.fed == "device" else {}


def scanned(workload, pure_step):
    """All steps in one `lax.scan` over batches on the device, around the same pure step.

    For convolutions two steps are enough, because their gradients are slow in a loop (jax-ml/jax#12868).
    """
    step, carry = at_once(workload, pure_step)
    x, target = (jnp.stack(arrays) for arrays in zip(*prepared(workload), strict=True))

    def losses_of(carry, order):
        def body(carry, i):
            return step(carry, x[i], target[i])

        return jax.lax.scan(body, carry, order)

    def check():
        return np.ravel(jax.jit(losses_of)(carry, jnp.zeros(2, int))[1]).tolist()

    program = jax.jit(losses_of, donate_argnums=0)
    steps = 2 if any(isinstance(use.layer, Conv) for use in uses(workload.network, workload.shape)) else workload.steps
    order = jnp.arange(steps) % BATCHES
    held = [jax.tree.map(jnp.array, carry)]

    def run():
        held[0], losses = program(held[0], order)
        jax.block_until_ready((held[0], losses))

    return Column(check, run, steps)


def predicting(workload, predict):
    """`predict(x) -> y`, compiled."""
    x = jnp.asarray(batches(workload)[0][: workload.batch])
    return calling(workload, partial(predict, x))


def calling(workload, program):
    """`program() -> array`, compiled."""

    def check():
        return [float(value) for value in program()[0].ravel()[:CHECKED]]

    def run():
        for _ in range(workload.calls):
            result = program()
        jax.block_until_ready(result)

    return Column(check, run, workload.calls)


def updating(workload, update, state, grads, params_of):
    """`update(state, grads) -> state`, jitted, with its state donated."""
    held = [state]

    def check():
        for _ in range(CHECKED):
            held[0] = update(held[0], grads)
        return [float(leaf.ravel()[0]) for leaf in jax.tree.leaves(params_of(held[0]))[:CHECKED]]

    def run():
        for _ in range(workload.updates):
            held[0] = update(held[0], grads)
        jax.block_until_ready(held[0])

    return Column(check, run, workload.updates)


def prepared(workload):
    """The batches, each two arrays: on the device, or of NumPy."""
    x, target = batches(workload)
    rows, put = workload.batch, jnp.asarray if workload.fed == "device" else np.asarray
    return [(put(x[i : i + rows]), put(target[i : i + rows])) for i in range(0, len(x), rows)]
