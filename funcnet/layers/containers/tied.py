"""One leaf in two places."""

from collections.abc import Mapping
from typing import Any

import jax

from funcnet.checks import check_kind, listed
from funcnet.errors import ConfigError, ShapeError, StructureError
from funcnet.layers.checks import ORDER
from funcnet.layers.containers.container import around, placed
from funcnet.layers.layer import cell as make_cell
from funcnet.made import constructor
from funcnet.trees import path_string
from funcnet.types import Layer, Rules

__all__ = ["tied"]


@constructor
def tied(model: Layer, paths: Mapping[str, str]) -> Layer:
    """A model in which one leaf of the parameters stands in two places or more.

    Args:
        model: any layer. It does not know that leaves are shared.
        paths: for example `{"4/embedding": "0/embedding"}`: the leaf at the first path is the leaf at the second.

    Params are those of `model`, with `None` at each first path. State is that of `model`.

    Backward. Let p stand in the places a and b of the model, y = f(p_a, p_b, x) with p_a = p_b = p. By the chain rule
        ∂L/∂p = ∂L/∂p_a + ∂L/∂p_b,
    and dx is that of the model. Kept: what the model keeps.

    Raises:
        ConfigError: `paths` is empty or not a dictionary of paths, or a second path is also a first one.
        StructureError: the model does not have a leaf at a path, or params hold a leaf where `None` should stand.
        ShapeError: two leaves that should be one differ in shape or dtype.

    References: Press, Wolf, "Using the Output Embedding to Improve Language Models", EACL 2017.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.serial(fn.layers.embedding(5, 3), fn.layers.tanh(), fn.layers.unembedding(5))
    >>> model = fn.layers.tied(model, {"2/embedding": "0/embedding"})
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 2), int))
    >>> jax.tree.map(jnp.shape, params)
    ({'embedding': (5, 3)}, (), {'embedding': None})
    """
    _check_paths(paths)
    run = placed(model)

    def shared(params):
        """The params of the model without the leaves that others stand for."""
        leaves = _leaves(params)
        for path, source in paths.items():
            _check_alike(path, source, leaves)
        return _with(params, dict.fromkeys(paths))

    def init(key, x):
        params, state = run.init(key, x)
        return shared(params), state

    def whole(params):
        """The params of the model."""
        leaves = _leaves(params)
        _check_shared(paths, leaves)
        return _with(params, {path: leaves[source] for path, source in paths.items()})

    def summed(dparams):
        """The gradient of the shared params."""
        leaves, sums = _leaves(dparams), dict.fromkeys(paths)
        if not paths.keys() <= leaves.keys():
            return dparams  # of a layer that shows something else in the place of its gradient, to a check
        for path, source in paths.items():
            before = sums.get(source)
            sums[source] = leaves[path] + (leaves[source] if before is None else before)
        return _with(dparams, sums)

    def apply(params, state, x, *, key=None, train=False):
        return run.apply(whole(params), state, x, key=key, train=train)

    def forward(params, state, x, *, key=None, train=False):
        return run.forward(whole(params), state, x, key=key, train=train)

    def backward(params, residuals, dy):
        dparams, dx = run.backward(whole(params), residuals, dy)
        return summed(dparams), dx

    rules = Rules(cell=_tied_cell(model.rules.cell, shared, whole, summed))
    return around("tied", model, init, apply, forward, backward, rules=rules)


def _tied_cell(cell: Any, shared: Any, whole: Any, summed: Any) -> Layer | None:
    """The cell of the model, with the shared params."""
    if cell is None:
        return None

    def init(key, x):
        params, state = cell.init(key, x)
        return shared(params), state

    def start(params, state, x, length):
        return cell.rules.start(whole(params), state, x, length)

    def forward(params, state, x, *, key=None, train=False):
        return cell.forward(whole(params), state, x, key=key, train=train)

    def backward(params, residuals, dy):
        dparams, dx = cell.backward(whole(params), residuals, dy)
        return summed(dparams), dx

    return make_cell(forward, backward, init, start)


def _is_none(node):
    return node is None


def _leaves(params):
    """The leaves by path, `None` included."""
    found = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_none)[0]
    return {path_string(path): leaf for path, leaf in found}


def _with(params, leaves):
    """The params with other leaves at these paths."""

    def chosen(path, leaf):
        return leaves.get(path_string(path), leaf)

    return jax.tree_util.tree_map_with_path(chosen, params, is_leaf=_is_none)


def _check_paths(paths):
    check_kind("paths", paths, Mapping, "a dictionary", 'write for example {"4/embedding": "0/embedding"}')
    chained = sorted(set(paths) & set(paths.values()))
    if not paths or chained or not all(isinstance(path, str) for path in (*paths, *paths.values())):
        got = f"{chained[0]!r} on both sides" if chained else repr(dict(paths))
        raise ConfigError(f"expected paths from a leaf to another one, got {got}; give each the leaf that stays.")


def _check_alike(path, source, leaves):
    for one in (path, source):
        if leaves.get(one) is None:
            raise StructureError(f"expected a leaf at {one!r}, got none; the leaves are {listed(leaves)}.")
    one, other = leaves[path], leaves[source]
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        got = f"{one.dtype}{list(one.shape)} at {path!r} and {other.dtype}{list(other.shape)} at {source!r}"
        raise ShapeError(f"expected two leaves of one shape and dtype, got {got}.")


def _check_shared(paths, leaves):
    for path, source in paths.items():
        if leaves.get(source) is None or path not in leaves or leaves[path] is not None:
            raise StructureError(f"expected params with a leaf at {source!r} and None at {path!r}; {ORDER}.")
