"""Optimizers: pairs of pure functions, `init(params) -> state` and `update(state, grads) -> state`.

The state carries the parameters and counts the calls of `update`: every state shows `.params` and `.step`, whatever
else it keeps, so a training step reads, writes and donates one value. `update` returns a state of the same structure,
shapes and dtypes, and compiles once. A learning rate is a number or a schedule (`funcnet.schedules`).

    optimizer = fn.optimizers.clipped(fn.optimizers.adam(1e-3), norm=1.0)
    state = optimizer.init(params)
    state = jax.jit(optimizer.update)(state, grads)
    state.params
"""

from funcnet.optimizers.accumulation import AccumulatedState, accumulated
from funcnet.optimizers.adaptive import AdaGradState, AdamState, RMSPropState, adagrad, adam, adamw, rmsprop
from funcnet.optimizers.averaging import AveragedState, averaged
from funcnet.optimizers.guarding import GuardedState, guarded, guards
from funcnet.optimizers.partition import PartitionedState, partitioned
from funcnet.optimizers.sgd import SGDState, sgd
from funcnet.optimizers.wrappers import FrozenState, clipped, decayed, frozen

__all__ = [
    "AccumulatedState", "AdaGradState", "AdamState", "AveragedState", "FrozenState", "GuardedState", "PartitionedState",
    "RMSPropState", "SGDState", "accumulated", "adagrad", "adam", "adamw", "averaged", "clipped", "decayed", "frozen",
    "guarded", "guards", "partitioned", "rmsprop", "sgd",
]  # fmt: skip
