"""Optimizers made of optimizers, which change the gradient or keep it from some parameters.

Each wrapper takes an `Optimizer` and returns one, so they nest in any order. The outermost one sees the gradient first.
So `clipped(decayed(sgd(0.1), 1e-4), norm=1.0)` clips the gradient of the loss and then adds the decay, while
`decayed(clipped(sgd(0.1), norm=1.0), 1e-4)` clips the sum of both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnet.checks import listed, nonnegative, positive
from funcnet.dtypes import widen
from funcnet.errors import ConfigError
from funcnet.made import constructor
from funcnet.optimizers.checks import check_grads, check_optimizer, checked_params
from funcnet.trees import Select, check_matches, flatten_with_paths, map_with_paths, norm_factors, selector
from funcnet.types import Array, Optimizer, Params, brief

__all__ = ["FrozenState", "clipped", "decayed", "frozen"]


@constructor
def clipped(optimizer: Optimizer, *, norm: float | None = None, value: float | None = None) -> Optimizer:
    """Keep the gradient small before `optimizer` sees it.

    With `norm` c: g ← g · min(1, c / ‖g‖), where ‖g‖ is the Euclidean norm of all leaves together. The direction stays
    the same. With `value` c: each number is clipped to [−c, c]. The state is that of `optimizer`.

    `clipped(frozen(…))` counts the frozen leaves in ‖g‖, but `frozen(clipped(…))` does not.

    Args:
        optimizer: what to wrap.
        norm, value: c > 0, exactly one of the two.

    Raises:
        ConfigError: none or both of the two, or one that is not positive.
        StructureError, DtypeError: gradients that do not fit the params.

    References: Pascanu, Mikolov, Bengio, "On the Difficulty of Training Recurrent Neural Networks", ICML 2013,
    algorithm 1.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.clipped(fn.optimizers.sgd(1.0), norm=1.0)
    >>> state = optimizer.init({"kernel": jnp.array([0.0, 0.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([3.0, 4.0])}).params["kernel"].round(6)
    Array([-0.6, -0.8], dtype=float32)
    """
    check_optimizer(optimizer)
    if (norm is None) == (value is None):
        got = "none" if norm is None else "both; nest two wrappers for both"
        raise ConfigError(f"expected exactly one of norm and value, got {got}.")
    if value is not None:
        limit = positive("value", value)
        return _before(optimizer, lambda _, grads: jax.tree.map(lambda g: jnp.clip(g, -limit, limit), grads))
    limit = positive("norm", norm)

    def shorten(_, grads):
        # g c / ‖g‖ with ‖g‖ = size · share, in an order in which no number overflows. NaN and inf become NaN.
        size, share = norm_factors(grads)
        short = size * share <= limit
        factor = limit / jnp.where(short, 1, share)

        def scaled(g):
            wide = widen(g)
            return jnp.where(short, wide, wide / size.astype(wide.dtype) * factor.astype(wide.dtype))

        return jax.tree.map(lambda g: scaled(g).astype(g.dtype), grads)

    return _before(optimizer, shorten)


@constructor
def decayed(optimizer: Optimizer, weight_decay: float, *, mask: Select | None = None) -> Optimizer:
    """Weight decay as part of the gradient, g ← g + λ p: the gradient of the penalty λ/2 ‖p‖².

    The optimizer then scales the decay like the rest of the gradient. For Adam, `adamw` is the better choice, because
    it keeps the decay out of that scaling. The state is that of `optimizer`.

    Args:
        optimizer: what to wrap.
        weight_decay: λ ≥ 0.
        mask: which parameters decay: a regular expression that matches the whole path of a leaf, such as
            `".*kernel"`, or a function of the path; by default all.

    Raises:
        ConfigError: an argument out of its range.
        StructureError, DtypeError: gradients that do not fit the params.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.decayed(fn.optimizers.sgd(1.0), 0.25)
    >>> state = optimizer.init({"kernel": jnp.array([4.0])})
    >>> optimizer.update(state, {"kernel": jnp.array([1.0])}).params
    {'kernel': Array([2.], dtype=float32)}
    """
    check_optimizer(optimizer)
    weight_decay = nonnegative("weight_decay", weight_decay)
    decays = None if mask is None else selector("mask", mask)

    def decay(path, p, g):
        return g + weight_decay * p if decays is None or decays(path) else g

    def init(params):
        check_matches(mask, [path for path, _ in flatten_with_paths(params)])
        return optimizer.init(params)

    return _before(optimizer._replace(init=init), lambda params, grads: map_with_paths(decay, params, grads))


def _before(optimizer: Optimizer, change: Callable[[Params, Params], Params]) -> Optimizer:
    """The optimizer, but its gradients go through `change(params, grads)` first."""

    def update(state, grads):
        check_grads(state, grads)
        return optimizer.update(state, change(state.params, grads))

    return Optimizer(optimizer.init, update)


class FrozenState(NamedTuple):
    """The state of `frozen`."""

    inner: Any  #: the state of the optimizer within, for the params without the frozen leaves
    fixed: Params  #: the frozen leaves, like params, with `None` in place of the others

    @property
    def step(self) -> Array:
        """(), int32, calls of `update` so far."""
        return self.inner.step

    @property
    def params(self) -> Params:
        """All the params, in their own structure."""
        return jax.tree.map(
            lambda fixed, trained: trained if fixed is None else fixed,
            self.fixed, self.inner.params, is_leaf=_is_none,
        )  # fmt: skip

    __repr__ = brief


@constructor
def frozen(optimizer: Optimizer, select: Select) -> Optimizer:
    """Hold some parameters fixed and train the others.

    `optimizer` sees a tree with `None` in place of the frozen leaves. So it keeps no slots for them, does not decay
    them and does not count them in a norm. `update` takes the gradients of all parameters. Under `jit` the gradients of
    the frozen ones are not computed, because nothing reads them. An outer wrapper does read them: `clipped(frozen(…))`
    counts them in the norm, but `frozen(clipped(…))` does not.

    Args:
        optimizer: what trains the other parameters.
        select: which parameters stay fixed: a regular expression that matches the whole path of a leaf, such as
            `"0/.*"`, or a function of the path.

    Raises:
        ConfigError: at `init`, if `select` chooses no leaf, or every leaf.
        StructureError, DtypeError: gradients that do not fit the params.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.frozen(fn.optimizers.sgd(1.0), "0/.*")
    >>> state = optimizer.init(({"kernel": jnp.array([4.0])}, {"kernel": jnp.array([4.0])}))
    >>> optimizer.update(state, ({"kernel": jnp.array([1.0])}, {"kernel": jnp.array([1.0])})).params
    ({'kernel': Array([4.], dtype=float32)}, {'kernel': Array([3.], dtype=float32)})
    """
    check_optimizer(optimizer)
    chosen = selector("select", select)

    def init(params):
        params = checked_params(params)
        fixed = map_with_paths(lambda path, p: p if chosen(path) else None, params)
        _check_selection(select, params, fixed)
        return FrozenState(optimizer.init(_others(fixed, params)), fixed)

    def update(state, grads):
        check_grads(state, grads, FrozenState)
        return FrozenState(optimizer.update(state.inner, _others(state.fixed, grads)), state.fixed)

    return Optimizer(init, update)


def _is_none(x):
    return x is None


def _others(fixed, tree):
    return jax.tree.map(lambda fixed, leaf: leaf if fixed is None else None, fixed, tree, is_leaf=_is_none)


def _check_selection(select, params, fixed):
    paths, chosen = [path for path, _ in flatten_with_paths(params)], flatten_with_paths(fixed)
    if not 0 < len(chosen) < len(paths):
        how = "a pattern has to match the whole path" if isinstance(select, str) else "it is called with these paths"
        got = f"{len(chosen)} of {len(paths)}: {listed(paths)}; {how}"
        raise ConfigError(f"expected select to choose some of the leaves, got {got}.")
