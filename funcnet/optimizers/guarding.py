"""Skip steps whose gradient is not finite, because one NaN would spread to all parameters and stay there."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import check_count
from funcnet.made import constructor
from funcnet.optimizers.checks import check_grads, check_optimizer
from funcnet.trees import flatten_with_paths
from funcnet.types import Array, Optimizer, Params

__all__ = ["GuardedState", "guarded", "guards"]


class GuardedState(NamedTuple):
    """The state of `guarded`. A step is called bad if a gradient in it is not finite."""

    inner: Any  #: the state of the optimizer within, which counts the steps that were not bad
    step: Array  #: (), int32, calls of `update` so far
    skipped: Array  #: (), int32, bad steps so far
    in_a_row: Array  #: (), int32, bad steps since the last good one; once it is `most`, it only grows
    bad_step: Array  #: (), int32, `step` before the first of the latest bad steps in a row; −1 if there was none
    bad_leaf: Array  #: (), int32, the index of the first leaf of that step's gradients that is not finite; −1
    most: Array  #: (), int32, the argument of `guarded`

    @property
    def params(self) -> Params:
        """The params. A bad step does not change them."""
        return self.inner.params

    @property
    def bad_path(self) -> str | None:
        """The path of `bad_leaf`, such as `"2/kernel"`; `None` if there was no bad step. Not for use under `jit`."""
        leaf = int(self.bad_leaf)
        return None if leaf < 0 else flatten_with_paths(self.params)[leaf][0]


@constructor
def guarded(optimizer: Optimizer, *, most: int = 3) -> Optimizer:
    """Skip a step whose gradients are not all finite, and count it.

    Such a step leaves the state of `optimizer` as it is, bit for bit. The state of this wrapper says how many steps
    were skipped, how many of them in a row, and where the first of that row was. So a single bad batch does no harm.
    Several bad steps in a row show that the parameters themselves lead to infinity, and that no later step will help.
    After `most` bad steps in a row all further steps are skipped too. `training.fit` then ends the run with a
    `DivergenceError`. In a loop of your own, look at `state.in_a_row`.

    `step` counts the calls of `update`, as a training loop counts batches. A schedule of `optimizer` counts the steps
    that were not skipped. Wrappers outside change the gradient before it is checked. Wrappers within see only finite
    gradients. Put `frozen` outside. Otherwise the gradients of the frozen leaves are computed only for this check.

    Args:
        optimizer: what to wrap.
        most: how many bad steps in a row end the training, 1 or more.

    Raises:
        ConfigError: `most` is not a positive integer.
        StructureError, DtypeError: gradients that do not fit the params.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.guarded(fn.optimizers.sgd(1.0))
    >>> state = optimizer.init({"bias": jnp.array([4.0]), "kernel": jnp.array([4.0])})
    >>> state = optimizer.update(state, {"bias": jnp.array([1.0]), "kernel": jnp.array([jnp.nan])})
    >>> state.params
    {'bias': Array([4.], dtype=float32), 'kernel': Array([4.], dtype=float32)}
    >>> int(state.step), int(state.skipped), state.bad_path
    (1, 1, 'kernel')
    """
    check_optimizer(optimizer)
    most = check_count("most", most)

    # The branches are made once: outside `jit`, new functions would be compiled in every call.
    def take(state, grads):
        inner, none = optimizer.update(state.inner, grads), jnp.zeros_like(state.in_a_row)
        return GuardedState(inner, state.step + 1, state.skipped, none, state.bad_step, state.bad_leaf, state.most)

    def skip(state, grads):
        first = state.in_a_row == 0
        bad_step = jnp.where(first, state.step, state.bad_step)
        bad_leaf = jnp.where(first, _first_bad(grads), state.bad_leaf)
        return GuardedState(
            state.inner, state.step + 1, state.skipped + 1, state.in_a_row + 1, bad_step, bad_leaf, state.most
        )

    def init(params):
        inner = optimizer.init(params)
        zero, none = jnp.int32(0), jnp.int32(-1)
        return GuardedState(inner, *map(jnp.array, (zero, zero, zero, none, none, jnp.int32(most))))

    def update(state, grads):
        check_grads(state, grads, GuardedState)
        good = _all_finite(grads) & (state.in_a_row < state.most)
        return jax.lax.cond(good, take, skip, state, grads)

    return Optimizer(init, update)


def guards(state: Any) -> list[GuardedState]:
    """The states of all `guarded` in an optimizer's state, or in any tree, the outermost first.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.averaged(fn.optimizers.guarded(fn.optimizers.sgd(0.1)))
    >>> [int(guard.skipped) for guard in fn.optimizers.guards(optimizer.init({"kernel": jnp.ones(2)}))]
    [0]
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, GuardedState))
    outer = [leaf for leaf in leaves if isinstance(leaf, GuardedState)]
    return [guard for one in outer for guard in (one, *guards(one.inner))]


def _finite(g: Array) -> Array:
    """Whether all numbers are finite. A sum of finite numbers may be infinite, so each is multiplied by 0 first."""
    return jnp.sum(g * 0) == 0


def _all_finite(grads: Params) -> Array:
    return jnp.all(jnp.array([_finite(g) for g in jax.tree.leaves(grads)], bool))


def _first_bad(grads: Params) -> Array:
    """The index of the first leaf that is not finite. The entry at the end is for trees without leaves."""
    finite = [_finite(g) for g in jax.tree.leaves(grads)]
    return jnp.argmin(jnp.array([*finite, False])).astype(jnp.int32)
