"""A training step compiled for a layout, for loops of your own."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import compiler
from funcnet.types import Batch, Layout, TrainState

__all__ = ["compile_step", "program_of"]

IN_FLIGHT = 2  #: steps under way at a time: enough to keep the devices busy


def compile_step(
    step: Callable[[TrainState, Batch], tuple[TrainState, Any]], layout: Layout
) -> Callable[[TrainState, Batch], tuple[TrainState, Any]]:
    """The same step, compiled once. The state stays where the layout has it, and the batch is divided by rows.

    Args:
        step: `(state, batch) -> (state, metrics)`, for example `training.train_step` of `layout.gradient(…)`.
        layout: of `parallel.layout`.

    Returns:
        The compiled step. It donates its state, so go on with the state that it returns. It takes arrays on the host or
        of `parallel.global_batch`. At most two steps are under way when it returns, because loops that never wait hang
        on several CPU devices (jax-ml/jax#25861).

    Raises: what `layout` raises, when it runs.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, optimizer = fn.layers.dense(1), fn.optimizers.sgd(0.1)
    >>> layout = fn.parallel.layout(fn.parallel.mesh())
    >>> gradient = layout.gradient(fn.gradients.backprop(model, fn.losses.mean_squared_error))
    >>> step = fn.parallel.compile_step(fn.training.train_step(gradient, optimizer), layout)
    >>> x = jnp.ones((8, 2))
    >>> state = layout.init_state(lambda key: fn.training.create_state(model, optimizer, key, x), jax.random.key(0))
    >>> state, metrics = step(state, (x, jnp.ones((8, 1))))
    >>> int(state.optimizer.step)
    1
    """

    run = program_of(step, layout)
    under_way: deque[jax.Array] = deque()

    def compiled(state, batch):
        state, metrics, token = run(layout.place_state(state), batch)
        under_way.append(token)
        if len(under_way) > IN_FLIGHT:
            jax.block_until_ready(under_way.popleft())
        return state, metrics

    return compiled


def program_of(step: Callable[[TrainState, Batch], tuple[TrainState, Any]], layout: Layout) -> Any:
    """The step under `jit`, as `compile_step` runs it, with a copy of the number of steps to wait for."""

    @partial(jax.jit, donate_argnums=0, compiler_options=compiler.options(layout.platform))
    def run(state, batch):
        state, metrics = step(layout.place_state(state), layout.place_batch(batch))
        state = layout.place_state(state)
        return state, metrics, jnp.copy(state.optimizer.step)

    return run
