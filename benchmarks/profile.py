"""Where the time of a training step goes: the busy time of its instructions, by the operation that they come from."""

import re
import tempfile
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp

import funcnet as fn
from benchmarks.libraries import with_funcnet
from benchmarks.workload import Training, batches

RUNS = 10
#: Instructions that contain others.
CONTAINERS = ("while", "call", "conditional")


def profile(workload: Training, engine: str = "backprop") -> list[tuple[str, float]]:
    """(operation, its share of the busy time of all threads), the largest first.

    An operation is the primitive whose instruction, or whose fusion with its neighbours, took the time.
    """
    model, optimizer, state = with_funcnet.start(workload)
    gradient = getattr(fn.gradients, engine)(model, with_funcnet.LOSS)
    batch = tuple(jax.device_put(array[: workload.batch]) for array in batches(workload))
    step = jax.jit(
        fn.training.train_step(gradient, optimizer), donate_argnums=0, compiler_options=fn.compiler.options()
    )
    step = step.lower(state, batch).compile()
    origin = origins(step.as_text())
    state, _ = jax.block_until_ready(step(jax.tree.map(jnp.copy, state), batch))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(RUNS):
                state, _ = jax.block_until_ready(step(state, batch))
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    busy = Counter()
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in origin:
                    busy[origin[event.name]] += event.duration_ns
    total = sum(busy.values())
    return [(name, time / total) for name, time in busy.most_common()]


def origins(program: str) -> dict[str, str]:
    """Instruction -> primitive, of a compiled program's text.

    >>> origins('  %fusion.3 = f32[8]{0} fusion(%x), metadata={op_name="jit(step)/while/body/dot_general"}')
    {'fusion.3': 'dot_general'}
    """
    found = re.findall(r'%?(\S+) = .*op_name="([^"]*)"', program)
    return {name: path.split("/")[-1] for name, path in found if not name.startswith(CONTAINERS)}
