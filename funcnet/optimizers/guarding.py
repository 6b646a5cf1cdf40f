"""Skip steps whose numbers are not finite, because one NaN would spread to all parameters and stay there."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import check_count
from funcnet.made import constructor
from funcnet.optimizers.checks import check_grads, check_optimizer
from funcnet.trees import flatten_with_paths
from funcnet.types import Array, Optimizer, Params, brief

__all__ = ["GuardedState", "guarded", "guards"]


class GuardedState(NamedTuple):
    """The state of `guarded`. A step is bad if its gradient, or the state after its update, is not finite."""

    inner: Any  #: the state of the optimizer within, which counts the steps that were not bad
    step: Array  #: (), int32, calls of `update` so far
    skipped: Array  #: (), int32, bad steps so far
    in_a_row: Array  #: (), int32, bad steps since the last good one; once it is `most`, it only grows
    bad_step: Array  #: (), int32, `step` before the first of the latest bad steps in a row; −1 if there was none
    bad_leaf: (
        Array  #: (), int32, the index of that step's first leaf that is not finite, of the gradient or of `inner`; −1
    )
    bad_update: Array  #: (), bool, whether that leaf is one of `inner` after the update, and the gradient was finite
    most: Array  #: (), int32, the argument of `guarded`

    @property
    def params(self) -> Params:
        """The params. A bad step does not change them."""
        return self.inner.params

    @property
    def bad_path(self) -> str | None:
        """The path of `bad_leaf`; `None` if there was no bad step. Not for use under `jit`.

        It is `"2/kernel"` for a gradient, and `"params/2/kernel"` or `"nu/2/kernel"` for the state after an update.
        """
        leaf = int(self.bad_leaf)
        return None if leaf < 0 else flatten_with_paths(self.inner if self.bad_update else self.params)[leaf][0]

    __repr__ = brief


@constructor
def guarded(optimizer: Optimizer, *, most: int = 3) -> Optimizer:
    """Skip a step whose gradient, new parameters or new slots are not all finite, and count it.

    The slots count because a gradient of 1e20 has an infinite square in float32, by whose root Adam would divide ever
    after. Such a step leaves the state of `optimizer` as it is, bit for bit. The state of this wrapper says how many
    steps were skipped, how many of them in a row, and where the first of that row was. So a single bad batch does no
    harm. Several bad steps in a row show that the parameters themselves lead to infinity, and that no later step will
    help. After `most` bad steps in a row all further steps are skipped too. `training.fit` then ends the run with a
    `DivergenceError`. In a loop of your own, look at `state.in_a_row`.

    `step` counts the calls of `update`, as a training loop counts batches. A schedule of `optimizer` counts the steps
    that were not skipped. Wrappers outside change the gradient before it is checked. Put `frozen` outside. Otherwise
    the gradients of the frozen leaves are computed only for this check.

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
    def take(state, inner, found):
        return state._replace(inner=inner, step=state.step + 1, in_a_row=jnp.zeros_like(state.in_a_row))

    def keep(inner, grads):
        return inner

    def skip(state, inner, found):
        first = state.in_a_row == 0
        leaf, of_update = (jnp.where(first, new, old) for new, old in zip(found, state[5:7], strict=True))
        return state._replace(
            step=state.step + 1,
            skipped=state.skipped + 1,
            in_a_row=state.in_a_row + 1,
            bad_step=jnp.where(first, state.step, state.bad_step),
            bad_leaf=leaf,
            bad_update=of_update,
        )

    def init(params):
        inner = optimizer.init(params)
        zero, none = jnp.int32(0), jnp.int32(-1)
        return GuardedState(inner, *map(jnp.array, (zero, zero, zero, none, none, False, jnp.int32(most))))

    def update(state, grads):
        check_grads(state, grads, GuardedState)
        good = _finite_leaves(grads)
        of_update = jnp.all(good)
        go_on = of_update & (state.in_a_row < state.most)
        # In a branch of its own the update is rounded as it is without a guard.
        inner = jax.lax.cond(go_on, optimizer.update, keep, state.inner, grads)
        updated = _finite_leaves(inner)
        found = jnp.where(of_update, jnp.argmin(updated), jnp.argmin(good)).astype(jnp.int32), of_update
        return jax.lax.cond(go_on & jnp.all(updated), take, skip, state, inner, found)

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


def _finite_leaves(tree: Any) -> Array:
    """Whether all numbers of each leaf are finite, and a True at the end for trees without leaves."""
    return jnp.array([*map(_finite, jax.tree.leaves(tree)), True])


def _finite(leaf: Array) -> Any:
    """A sum of finite numbers may be infinite, so each is multiplied by 0 first."""
    return jnp.sum(leaf * 0) == 0 if jnp.issubdtype(leaf.dtype, jnp.floating) else True
