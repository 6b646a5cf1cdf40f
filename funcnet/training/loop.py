"""The compiled training loop: many steps in one call of the device.

For a small model, calling a step from Python costs more than the step itself (`docs/speed.md`). Here a *chunk* of steps
runs in one compiled loop over data that are already on the device. The number of steps is an argument. So chunks of any
length are one program, and no result depends on their length.

One kind of step runs better outside a loop. XLA's CPU compiler has a fast implementation of convolutions, for operands
in one order. It brings operands into that order only in the entry of a program (jax-ml/jax#12868). Autodiff makes
operands in another order, which are very slow inside a loop body. Such steps are called one by one.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from funcnet import compiler, gradients
from funcnet.data.batching import masked
from funcnet.errors import ConfigError, StructureError
from funcnet.gradients.accumulation import parts_of, refusal
from funcnet.gradients.engines import unpack
from funcnet.made import leading, spelled
from funcnet.training.divergence import guard_counts
from funcnet.training.evaluation import factors_of, tally_batch
from funcnet.training.memory import check_memory
from funcnet.training.step import advance, unless
from funcnet.training.vectors import rows_at
from funcnet.types import Gradient, GradientFn, Key, Layout

__all__ = [
    "ENGINES", "ONE_DEVICE", "Chunk", "Pace", "Program", "augmented", "compiled_chunk", "copy", "factors_under",
    "reorders",
]  # fmt: skip

ENGINES = {"autodiff": gradients.autodiff, "backprop": gradients.backprop}


# The layout of a run on one device, or on the devices where the state is.
ONE_DEVICE = Layout(
    init_state=lambda init, key: init(key),
    place_state=lambda state: state,
    place_data=jax.device_put,
    place_batch=lambda batch: batch,
    gradient=lambda gradient: gradient,
    check_rows=lambda name, what, rows: None,
)


class Chunk(NamedTuple):
    """Batches for the next steps. Step i trains on the rows `rows[i]` of the data, and those in `mask[i]` count.

    Without `rows` the data are the batches themselves, stacked along a first axis.
    """

    data: Any  #: (x, target[, where[, weights]]), each a tree of (n, …), or without rows of (most steps, …)
    rows: Any  #: (most steps, batch) int32, or None; entries beyond `steps` are not read
    mask: Any  #: (most steps, batch) bool, or None where all rows count
    batch_size: int  #: rows of a batch
    steps: int  #: steps to do
    epoch: int  #: epochs finished afterwards; one that has begun counts
    reports: bool  #: whether a report is due afterwards
    cursor: Any  #: the position of an iterator of batches afterwards


class Program(NamedTuple):
    """A compiled loop over chunks."""

    trace: Callable[[Any, Any, Chunk], Any]  #: like `run` for a chunk of shapes, without running; `run` traces no more
    run: Callable[[Any, Any, Chunk], tuple[Any, Any, Any]]  #: gives state, tally and a token, ready at the end; donates


@lru_cache(maxsize=64)  # one compiled loop for all runs of the same model, loss, optimizer and metrics
def compiled_chunk(model, loss, optimizer, engine, penalty, metrics, augment, layout, accumulate):
    """The `Program` of a training."""
    gradient = engine(model, loss, penalty=penalty)
    factors = factors_under(engine, loss)
    if engine not in ENGINES.values():
        gradient = _checked(gradient, engine, bool(metrics))
    if accumulate > 1:
        with leading(f"fit(accumulate={accumulate})"):
            if parts_of(gradient) is None:
                raise ConfigError(refusal(gradient))
        gradient = gradients.accumulated(gradient, accumulate)
    gradient = layout.gradient(gradient)
    if factors:
        gradient = _by_parts(gradient, loss)
    if augment is not None:
        gradient = augmented(gradient, augment)
    parts = getattr(loss, "parts", None) if factors else None

    def step(state, tally, data, rows, mask, i):
        if rows is None:
            batch = jax.tree.map(lambda leaf: leaf[i], data)
        else:
            batch = rows_at(data, rows[i])
        if mask is not None:
            x, target, *rest = batch
            batch = (x, target, masked(rest[0] if rest else None, mask[i], parts), *rest[1:])
        state, computed, left_out = advance(gradient, optimizer, state, batch)
        counted = tally_batch(tally, metrics, factors, computed.loss, computed.counted, computed.prediction, batch)
        return layout.place_state(state), unless(left_out, counted, tally)

    def token(state):
        return jnp.copy(state.optimizer.step), guard_counts(state.optimizer)

    @partial(jax.jit, donate_argnums=(0, 1), compiler_options=compiler.options(layout.platform))
    def loop(state, tally, data, rows, mask, steps):
        def body(i, carry):
            state, tally = carry
            return step(state, tally, data, rows, mask, i)

        state, tally = jax.lax.fori_loop(0, steps, body, (state, tally))
        state = layout.place_state(state)  # the compiler may choose other places for what leaves a loop
        return state, tally, token(state)

    @partial(jax.jit, donate_argnums=(0, 1), compiler_options=compiler.options(layout.platform))
    def single(state, tally, data, rows, mask, i):
        state, tally = step(state, tally, data, rows, mask, i)
        return state, tally, token(state)

    together: list[bool] = []  # known from the first chunk on

    def run(state, tally, chunk):
        data = (chunk.data, chunk.rows, chunk.mask)
        if not together:
            traced = loop.trace(state, tally, *data, chunk.steps)
            device = state.optimizer.step.addressable_shards[0].device
            together.append(not (device.platform == "cpu" and reorders(traced.jaxpr.jaxpr)))
            program = traced if together[0] else single.trace(state, tally, *data, 0)
            compiled = program.lower().compile()  # which the call below takes from the cache
            check_memory(compiled, device, chunk.batch_size)
        if together[0]:
            return loop(state, tally, *data, chunk.steps)
        done = None
        for i in range(chunk.steps):
            state, tally, done = single(state, tally, *data, i)
        return state, tally, done

    return Program(lambda state, tally, chunk: loop.trace(state, tally, *chunk[:3], chunk.steps), run)


def factors_under(engine: Any, loss: Any) -> dict[str, float]:
    """The factors of the parts that reports show: those of a weighted sum, if the engine computes the loss."""
    return factors_of(loss) if engine in ENGINES.values() else {}


def _by_parts(gradient: GradientFn, loss: Any) -> GradientFn:
    """The gradient with `loss.terms` for what counted. The loss is computed once, as XLA merges equal computations."""

    def computed_by_parts(params, state, batch, key: Any = None, /):
        computed = gradient(params, state, batch, key)
        _, target, options = unpack(batch)
        return computed._replace(counted=loss.terms(computed.prediction, target, **options))

    return computed_by_parts


def _checked(gradient: GradientFn, engine: Any, measured: bool) -> GradientFn:
    """The gradient of a user's own engine, checked for what the loop reads."""

    def checked(params, state, batch, key: Any = None, /):
        computed = gradient(params, state, batch, key)
        if not isinstance(computed, Gradient):
            wanted = "return a function that gives a Gradient(loss, grads, state, prediction)"
            got = f"a {type(computed).__name__} from it"
            raise StructureError(f"expected the engine {spelled(engine)} to {wanted}, got {got}.")
        if measured and computed.prediction is None:
            without = f"the engine {spelled(engine)}, whose Gradient has no prediction"
            raise ConfigError(f"expected no metrics with {without}; give it one, or leave metrics out.")
        return computed

    return checked


def augmented(gradient: GradientFn, augment: Callable[[Key, Any, Any], tuple[Any, Any]]) -> GradientFn:
    """The gradient of batches that go through `augment` first, which gets a key of its own."""

    def of_augmented(params, state, batch, key: Any = None, /):
        augment_key, key = jax.random.split(key)
        x, target, *where = batch
        return gradient(params, state, (*augment(augment_key, x, target), *where), key)

    return of_augmented


def reorders(program: Jaxpr) -> bool:
    """Whether a program for a CPU holds a convolution whose operands are not in the order batch, size, channels."""
    for equation in _equations(program):
        if equation.primitive.name == "conv_general_dilated":
            *axes, last = range(1, len(equation.params["window_strides"]) + 2)
            images, kernel = (0, last, *axes), (last, last - 1, *(axis - 1 for axis in axes))
            if tuple(equation.params["dimension_numbers"]) != (images, kernel, images):
                return True
    return False


def _equations(program: Jaxpr) -> Iterator[JaxprEqn]:
    """All equations of a program for a CPU, including those of the programs inside it."""
    for equation in program.eqns:
        yield equation
        parameters = dict(equation.params)
        platforms = parameters.pop("branches_platforms", None)
        if platforms is not None:  # of a choice by platform only the CPU's branch is compiled
            chosen = next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)
            parameters["branches"] = parameters["branches"][chosen]
        for inner in jax.tree.leaves(list(parameters.values())):
            if isinstance(inner, Jaxpr | ClosedJaxpr):
                yield from _equations(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)


@jax.jit
def copy(tree):
    """New buffers with the same contents, for states that must outlive a donation."""
    return jax.tree.map(jnp.copy, tree)


class Pace:
    """How many steps the next chunk has: about `seconds` of work, so that a run answers to Ctrl-C within a second.

    At most two chunks are in flight, because loops that never wait hang on several CPU devices.
    """

    def __init__(self, most_steps: int, seconds: float = 0.5):
        self.most_steps = most_steps
        self.seconds = seconds
        self.limit = 1
        self._in_flight: deque[tuple[Any, int]] = deque()
        self._last = time.perf_counter()

    def started(self, token: Any, steps: int) -> list[Any]:
        """A chunk was dispatched. Wait until at most two are in flight, and return the tokens of those that ended."""
        self._in_flight.append((token, steps))
        return self._await(2)

    def finish(self) -> list[Any]:
        """Wait for everything in flight."""
        return self._await(0)

    def agree(self, stopping: bool) -> bool:
        """Let all processes go on with chunks of one length. Returns whether any of them is to stop.

        Nothing else is in flight meanwhile, because what runs on several processes must run in the same order on all.
        """
        self.finish()
        told = multihost_utils.process_allgather(np.array([self.limit, stopping], np.int32))
        self.limit = int(told[:, 0].min())
        return bool(told[:, 1].any())

    def resumed(self) -> None:
        """The clock runs again after a pause that the caller made."""
        self._last = time.perf_counter()

    def _await(self, most: int) -> list[Any]:
        ended = []
        while len(self._in_flight) > most:
            token, steps = self._in_flight.popleft()
            ended.append(jax.block_until_ready(token))
            now = time.perf_counter()
            took, self._last = now - self._last, now
            # Grow eightfold at most, because the first durations contain compilation and say little.
            wanted = self.seconds / max(took, 1e-9) * steps
            self.limit = int(max(1, min(wanted, 8 * self.limit, self.most_steps)))
        return ended
