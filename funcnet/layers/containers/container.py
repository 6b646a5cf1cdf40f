"""`container` makes init, apply, forward, backward and the cell of a container from a walk and its reverse."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from funcnet.checks import check_kind, describe
from funcnet.errors import StructureError
from funcnet.layers.checks import ORDER, check_dy, check_entries
from funcnet.layers.layer import assembled, cell
from funcnet.made import within_layer
from funcnet.trees import is_empty, is_padded, keep_shape, map_leaves, shapes, zeros_like
from funcnet.types import Inside, Layer, Padded, Rules

__all__ = ["Walk", "around", "check_layers", "container", "merged", "placed", "suffix"]

#: `(run, x) -> (y, kept)`, where `run(i, x)` gives the output of layer i
Walk: TypeAlias = Callable[[Callable[[int, Any], Any], Any], tuple[Any, Any]]


def container(
    layers: Layer | Sequence[Layer] | Mapping[str, Layer],
    walk: Walk,
    back: Callable[[Callable[[int, Any], Any], Any, Any], Any],
) -> Layer:
    """A layer made of layers, from the walk through them and its reverse.

    Args:
        layers: the layers that it runs. Params and state have the form of `layers`: that of the one layer, a tuple with
            one entry per layer, or a dictionary.
        walk: `(run, x) -> (y, kept)`, where `run(i, x)` gives the output of layer i, counted from 0 in the order of
            `layers`. Each layer runs once. What the walk computes itself must go through `merged`, because `init` runs
            the walk on shapes. `kept` holds arrays for `back`, or is `None`.
        back: `(run, kept, dy) -> dx`, where `run(i, dy)` gives the dx of layer i, or `None` if no gradient arrives
            there. `trees.total` adds such gradients. A layer that `back` does not run, or whose dy is empty, has a
            gradient of zeros.

    `init` runs the walk on shapes, `apply` runs it with the `apply` of each layer, and `forward` with the `forward` of
    each layer. So a layer whose `apply` saves memory under autodiff, such as `recompute`, saves it inside containers
    too.

    For example a highway layer, y = t ⊙ f(x) + (1 − t) ⊙ x with t = s(x). With g = ∂L/∂y, df = t ⊙ g and dt = (f − x) ⊙
    g. x also reaches y directly, which gives (1 − t) ⊙ g. Kept: x, f(x), t.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> from funcnet.layers import container, dense, merged, serial, sigmoid, tanh
    >>> @fn.constructor
    ... def highway(f, s):
    ...     def walk(run, x):
    ...         y, t = run(0, x), run(1, x)
    ...         return merged(lambda x, y, t: t * y + (1 - t) * x, x, y, t), (x, y, t)
    ...     def back(run, kept, dy):
    ...         x, y, t = kept
    ...         return fn.trees.total([run(0, t * dy), run(1, (y - x) * dy), (1 - t) * dy])
    ...     return container((f, s), walk, back)
    >>> model = highway(serial(dense(3), tanh()), serial(dense(3), sigmoid()))
    >>> fn.checking.check_gradients(model, jax.ShapeDtypeStruct((4, 3), jnp.float32)).ok
    True
    """
    entries = _entries(layers)

    def init(key, x):
        keys = entries.keys(key)

        def step(i, x):
            params, state = entries.layers[i].init(keys[i], x)
            y, _ = jax.eval_shape(entries.layers[i].apply, params, state, x, key=keys[i])
            return y, params, state

        run, made = entries.runner(step)
        walk(run, shapes(x))
        if len(made) < len(entries.layers):
            raise StructureError(f"expected walk to run all {len(entries.layers)} layers, got {len(made)} of them.")
        return entries.packed(made, 0), entries.packed(made, 1)

    def walked(role) -> Any:
        def method(params, state, x, *, key=None, train=False):
            own, states = entries.unpacked("params", params), entries.unpacked("state", state)
            keys = entries.keys(key)
            run, made = entries.runner(
                lambda i, x: getattr(entries.layers[i], role)(own[i], states[i], x, key=keys[i], train=train)
            )
            y, kept = walk(run, x)
            new_state = entries.packed(made, 0)
            if role == "apply":
                return y, new_state
            return y, new_state, (entries.packed(made, 1), kept, map_leaves(keep_shape, y))

        return method

    def backward(params, residuals, dy):
        residuals, kept, like = residuals
        check_dy(like, dy)
        own, inner = entries.unpacked("params", params), entries.unpacked("residuals", residuals)
        run, made = entries.runner(lambda i, dy: _backward(entries.layers[i], own[i], inner[i], dy))
        dx = None if is_empty(dy) else back(run, kept, dy)
        return entries.packed({i: made.get(i, [zeros_like(p)]) for i, p in enumerate(own)}, 0), dx

    rules = Rules(cell=_cell(entries, walk, back))
    inside = Inside(entries.layers, entries.places, lambda *others: container(entries.around(others), walk, back))
    return assembled("container", init, walked("apply"), walked("forward"), backward, inside=inside, rules=rules)


def _backward(layer, params, residuals, dy):
    """`(dx, dparams)` of a layer. If no gradient arrives, its backward is not called."""
    if is_empty(dy):
        return None, zeros_like(params)
    dparams, dx = layer.backward(params, residuals, dy)
    return dx, dparams


def _cell(entries: "_Entries", walk: Walk, back: Any) -> Layer | None:
    """The container for one position at a time, if all its layers have a cell. Its carry has one entry per layer."""
    cells: list[Any] = [layer.rules.cell for layer in entries.layers]
    if None in cells:
        return None

    def init(key, x):
        keys = entries.keys(key)

        def shapes_of(i, params, state, x):
            carry = cells[i].rules.start(params, state, x, 1)
            return cells[i].apply(params, state, (carry, x))[0][1]

        def step(i, x):
            params, state = cells[i].init(keys[i], (None, x))
            return jax.eval_shape(partial(shapes_of, i), params, state, x), params, state

        run, made = entries.runner(step)
        walk(run, shapes(x[1]))
        return entries.packed(made, 0), entries.packed(made, 1)

    def start(params, state, x, length):
        own, states = entries.unpacked("params", params), entries.unpacked("state", state)

        def step(i, x):
            carry = cells[i].rules.start(own[i], states[i], x, length)
            (_, y), _ = jax.eval_shape(cells[i].apply, own[i], states[i], (carry, x))
            return y, carry

        run, made = entries.runner(step)
        walk(run, shapes(x))
        return entries.packed(made, 0)

    def forward(params, state, x, *, key=None, train=False):
        own, states = entries.unpacked("params", params), entries.unpacked("state", state)
        carries, keys = entries.unpacked("carry", x[0]), entries.keys(key)

        def step(i, x):
            (carry, y), *rest = cells[i].forward(own[i], states[i], (carries[i], x), key=keys[i], train=train)
            return y, carry, *rest

        run, made = entries.runner(step)
        y, kept = walk(run, x[1])
        return (entries.packed(made, 0), y), entries.packed(made, 1), (entries.packed(made, 2), kept)

    def backward(params, residuals, dy):
        own, inner = entries.unpacked("params", params), entries.unpacked("residuals", residuals[0])
        dcarries = entries.unpacked("dy of the carry", dy[0])

        def step(i, dy):
            dx, dparams = _backward(cells[i], own[i], inner[i], (dcarries[i], dy))
            return (None, dparams, None) if dx is None else (dx[1], dparams, dx[0])

        run, made = entries.runner(step)
        dx = back(run, residuals[1], dy[1])
        return entries.packed(made, 0), (entries.packed(made, 1), dx)

    return cell(forward, backward, init, start)


def merged(function: Callable[..., Any], *trees: Any) -> Any:
    """What a walk computes itself, `function(*trees)`.

    In `init` the trees hold shapes. Of a `Padded` the function gets the values, and the result is `Padded` again.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> fn.layers.merged(jnp.add, *[jax.ShapeDtypeStruct((2, 3), jnp.float32)] * 2)
    ShapeDtypeStruct(shape=(2, 3), dtype=float32)
    """
    padded = next((tree for tree in trees if is_padded(tree)), None)
    values = [tree.values if is_padded(tree) else tree for tree in trees]
    abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(values))
    y = jax.eval_shape(function, *values) if abstract else function(*values)
    return y if padded is None else Padded(y, padded.where)


def placed(inner: Layer) -> Layer:
    """The only layer of a container. Its errors also name the container."""
    check_layers((inner,))

    def within(function):
        def run(*args, **options):
            with within_layer(""):
                return function(*args, **options)

        return run

    return Layer(within(inner.init), within(inner.apply), within(inner.forward), within(inner.backward))


def around(label: str, inner: Layer, *functions: Any, rules: Rules | None = None) -> Layer:
    """A container of one layer, from its four functions. By default its cell is that of the layer."""
    rules = Rules(cell=inner.rules.cell) if rules is None else rules
    return assembled(label, *functions, inside=Inside((inner,), (None,), None), rules=rules)


class _Entries(NamedTuple):
    """The layers of a container, and where each has its entry in params, state and residuals."""

    layers: tuple[Layer, ...]
    places: tuple[Any, ...]  #: numbers, names, or `(None,)` for a single layer

    def runner(self, step: Callable[[int, Any], Any]) -> tuple[Callable[[int, Any], Any], dict[int, list[Any]]]:
        """`run(i, x)`, which returns the first result of `step(i, x)`, and a dictionary of its other results, by i."""
        besides: dict[int, list[Any]] = {}

        def run(i, x):
            if i in besides:
                raise StructureError(f"expected each layer to run once, got layer {i} twice; pass one layer per run.")
            with within_layer(suffix(self.places[i])), jax.named_scope(self._scope(i)):
                y, *besides[i] = step(i, x)
            return y

        return run, besides

    def _scope(self, i: int) -> str:
        """What profiles and compiled programs call a layer: `2_conv`."""
        place, word = self.places[i], self.layers[i].made.word
        return word if place is None else f"{place}_{word}"

    def packed(self, besides: Mapping[int, Sequence[Any]], column: int) -> Any:
        """One of the other results of the steps, for all layers, in the form in which `layers` was given."""
        return self.around([besides[i][column] for i in range(len(self.layers))])

    def around(self, values: Sequence[Any]) -> Any:
        """One value per layer, in the form in which `layers` was given."""
        if self.places == (None,):
            return values[0]
        by_name = self.places and isinstance(self.places[0], str)
        return dict(zip(self.places, values, strict=True)) if by_name else tuple(values)

    def keys(self, key: Any) -> list[Any]:
        """One subkey per layer, or the key itself for a single layer. Without a key it is `None` for each."""
        if key is None or self.places in ((), (None,)):
            return [key] * len(self.layers)
        keys = jax.random.split(key, len(self.layers))
        return [keys[i] for i in range(len(keys))]  # `list(keys)` would compile a program for each number of layers

    def unpacked(self, what: str, tree: Any) -> list[Any]:
        """The entry of each layer."""
        if self.places == (None,):
            return [tree]
        if self.places and isinstance(self.places[0], str):
            check_entries(what, tree, self.places, "entries")
            return [tree[name] for name in self.places]
        if not isinstance(tree, tuple) or len(tree) != len(self.places):
            got = f"{len(tree)} entries" if isinstance(tree, tuple) else describe(tree)
            wanted = f"a tuple with one entry per layer, {len(self.places)} in all"
            raise StructureError(f"expected {what} to be {wanted}, got {got}; {ORDER}.")
        return list(tree)


def _entries(layers: Any) -> _Entries:
    if isinstance(layers, Layer):
        return _Entries((layers,), (None,))
    if isinstance(layers, Mapping):
        check_layers(layers.values(), list(layers))
        return _Entries(tuple(layers.values()), tuple(layers))
    check_layers(layers)
    return _Entries(tuple(layers), tuple(range(len(layers))))


def suffix(place: Any) -> str:
    """What follows a container's name to name a layer in it: `[0]`, `[trunk]`, or nothing for a single layer."""
    return "" if place is None else f"[{place}]"


def check_layers(layers: Iterable[Any], names: Sequence[Any] | None = None) -> None:
    """Each of `layers` is a `Layer`."""
    for i, layer in enumerate(layers):
        check_kind(f"argument {names[i] if names else i}", layer, Layer, "a Layer", _way_to_a_layer(layer))


def _way_to_a_layer(value):
    name = getattr(value, "__name__", "")
    if callable(value) and name:
        from funcnet import layers  # which is complete only after this module

        of_arrays = str(getattr(value, "__module__", "")).startswith(("jax", "numpy")) or isinstance(value, np.ufunc)
        if of_arrays and name in layers.__all__:
            return f"use layers.{name}()"
        if of_arrays or not name.isidentifier():
            return f"make it a layer, with its derivative: layers.elementwise({name}, lambda x, y: …)"
        return f"call it: {name}()"
    return "unpack it: *layers" if isinstance(value, list | tuple) else "make it with layer(...)"
