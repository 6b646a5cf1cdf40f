"""Several optimizers for one model, each for some of its parameters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from funcnet.checks import describe, listed
from funcnet.errors import ConfigError
from funcnet.made import constructor
from funcnet.optimizers.checks import check_grads, checked_params
from funcnet.trees import Select, flatten_with_paths, map_with_paths, selector
from funcnet.types import Array, Optimizer, Params, brief

__all__ = ["PartitionedState", "partitioned"]


class PartitionedState(NamedTuple):
    """The state of `partitioned`."""

    inner: tuple[Any, ...]  #: the state of each optimizer, for the params with `None` in place of other leaves

    @property
    def step(self) -> Array:
        """(), int32, calls of `update` so far."""
        return self.inner[0].step

    @property
    def params(self) -> Params:
        """All the params, in their own structure."""

        def owned(*leaves):
            return next((leaf for leaf in leaves if leaf is not None), None)

        return jax.tree.map(owned, *(state.params for state in self.inner), is_leaf=_is_none)

    __repr__ = brief


@constructor
def partitioned(rules: Sequence[tuple[Select, Optimizer]]) -> Optimizer:
    """Train each parameter with its own optimizer: its own rate, method and decay.

    Each optimizer sees a tree with `None` in place of the leaves that are not its own. So it keeps no slots for them,
    does not decay them and does not count them in a norm. `clipped(partitioned(…))` clips by the norm of all leaves.

    Args:
        rules: pairs (pattern, optimizer). The pattern is a regular expression that has to match the whole path of a
            leaf, such as `"2/kernel"`, or a function of the path. The first rule that matches decides. The rules of
            `parallel` have the same form.

    Raises:
        ConfigError: rules of another form; at `init`, a leaf that no rule matches, or a rule that gets no leaf.
        StructureError, DtypeError: gradients that do not fit the params.

    The last layer at a tenth of the rate:

    >>> import jax.numpy as jnp, funcnet as fn
    >>> optimizer = fn.optimizers.partitioned([("1/.*", fn.optimizers.sgd(0.1)), (".*", fn.optimizers.sgd(1.0))])
    >>> state = optimizer.init(({"kernel": jnp.array([4.0])}, {"kernel": jnp.array([4.0])}))
    >>> optimizer.update(state, ({"kernel": jnp.array([1.0])}, {"kernel": jnp.array([1.0])})).params
    ({'kernel': Array([3.], dtype=float32)}, {'kernel': Array([3.9], dtype=float32)})
    """
    rules = tuple(rules)
    for rule in rules or [()]:
        _check_rule(rule)
    chosen = [selector("pattern", pattern) for pattern, _ in rules]

    def owner(path):
        return next((i for i, matches in enumerate(chosen) if matches(path)), None)

    def init(params):
        params = checked_params(params)
        paths = [path for path, _ in flatten_with_paths(params)]
        _check_owners(rules, paths, [owner(path) for path in paths])
        started = []
        for i, (_, optimizer) in enumerate(rules):
            started.append(optimizer.init(map_with_paths(lambda path, p, i=i: p if owner(path) == i else None, params)))
        return PartitionedState(tuple(started))

    def update(state, grads):
        check_grads(state, grads, PartitionedState)

        updated = []
        for (_, optimizer), part in zip(rules, state.inner, strict=True):
            own = jax.tree.map(lambda p, g: None if p is None else g, part.params, grads, is_leaf=_is_none)
            updated.append(optimizer.update(part, own))
        return PartitionedState(tuple(updated))

    return Optimizer(init, update)


def _is_none(x):
    return x is None


def _check_rule(rule):
    pattern, optimizer = rule if isinstance(rule, tuple) and len(rule) == 2 else (None, None)
    if not (isinstance(pattern, str) or callable(pattern)) or not isinstance(optimizer, Optimizer):
        fix = 'write for example [(".*kernel", adam(1e-3)), (".*", sgd(0.1))]'
        raise ConfigError(f"expected rules to be pairs (pattern, optimizer), got {describe(rule)}; {fix}.")


def _check_owners(rules, paths, owners):
    """Every leaf has a rule, and every rule has a leaf."""
    if None in owners:
        left = paths[owners.index(None)]
        raise ConfigError(f'expected a rule for every leaf, got none for {left!r}; end with a rule for ".*".')
    for i, (pattern, _) in enumerate(rules):
        if i not in owners:
            got = f"none of {listed(paths)}; a pattern has to match the whole path"
            raise ConfigError(f"expected {pattern!r} to be the first rule that matches some leaf, got {got}.")
