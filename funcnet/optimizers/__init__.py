"""Optimizers: pairs of pure functions, `init(params) -> state` and `update(state, grads) -> state`.

The state carries the parameters and counts the calls of `update`. Every state has `.params` and `.step`, whatever else
it keeps. So a training step reads, writes and donates one value. `update` returns a state of the same structure, shapes
and dtypes, so it compiles once. A learning rate is a number or a schedule (`funcnet.schedules`).

    optimizer = fn.optimizers.clipped(fn.optimizers.adam(1e-3), norm=1.0)
    state = optimizer.init(params)
    state = jax.jit(optimizer.update)(state, grads)
    state.params

`descent` makes an optimizer from the direction of one leaf. `rescaled` changes the rate of a state.
"""

from funcnet.optimizers.adam import AdamState, adam, adamw, nadam
from funcnet.optimizers.adaptive import AdaGradState, RMSPropState, adagrad, rmsprop
from funcnet.optimizers.averaging import AveragedState, averaged
from funcnet.optimizers.descent import descent, rescaled
from funcnet.optimizers.guarding import GuardedState, guarded, guards
from funcnet.optimizers.lion import LionState, lion
from funcnet.optimizers.partition import PartitionedState, partitioned
from funcnet.optimizers.sgd import SGDState, sgd
from funcnet.optimizers.wrappers import FrozenState, clipped, decayed, frozen

__all__ = [
    "AdaGradState", "AdamState", "AveragedState", "FrozenState", "GuardedState", "LionState", "PartitionedState",
    "RMSPropState", "SGDState", "adagrad", "adam", "adamw", "averaged", "clipped", "decayed", "descent", "frozen",
    "guarded", "guards", "lion", "nadam", "partitioned", "rescaled", "rmsprop", "sgd",
]  # fmt: skip
