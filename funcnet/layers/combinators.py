"""Layers made of layers: in a row, side by side, around a shortcut, repeated, recomputed.

Each hands its key on as one subkey a sublayer, and runs the sublayers' own backwards in reverse.
"""

from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_choice, check_count, describe, spell
from funcnet.errors import ConfigError, ShapeError, StructureError
from funcnet.layers.checks import within
from funcnet.layers.layer import layer
from funcnet.layers.reshape import identity
from funcnet.types import Layer

__all__ = ["check_layers", "map_layers", "parallel", "recompute", "repeat", "residual", "serial"]


def serial(*layers: Layer) -> Layer:
    """The layers one after the other, y = f_n(… f_2(f_1(x))).

    Params and state are tuples with one entry a layer, so a path reads `2/kernel`. `serial()` is the identity.

    Backward. By the chain rule ∂L/∂x_i = backward_i(∂L/∂x_{i+1}), where x_{i+1} = f_i(x_i): the same walk in reverse,
    each layer handing its dx down as the next one's dy. Below a layer whose input has no gradient (integers, dx is
    `None`) the parameters' gradients are zero. Kept: each layer's residuals.

    Raises:
        ConfigError: an argument is no `Layer` (a constructor not called, say).
        StructureError: params or state are no tuple with one entry a layer.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.serial(fn.layers.dense(8), fn.layers.relu(), fn.layers.dense(2))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> y, state = model.apply(params, state, jnp.ones((5, 3)))
    >>> y.shape
    (5, 2)
    """
    name = _name("serial", layers)
    check_layers("serial", layers)

    def init(key, x):
        params, states = [], []
        for i, (sublayer, subkey) in enumerate(zip(layers, _split(key, len(layers)), strict=True)):
            with within(f"serial[{i}]"):
                p, s = sublayer.init(subkey, x)
                x = jax.eval_shape(sublayer.apply, p, s, x)[0]  # the next layer's input
            params.append(p)
            states.append(s)
        return tuple(params), tuple(states)

    def forward(params, state, x, *, key=None, train=False):
        _check_entries(name, "params", params, len(layers))
        _check_entries(name, "state", state, len(layers))
        states, residuals = [], []
        subkeys = _split(key, len(layers))
        for i, (sublayer, p, s, subkey) in enumerate(zip(layers, params, state, subkeys, strict=True)):
            with within(f"serial[{i}]"):
                x, s, r = sublayer.forward(p, s, x, key=subkey, train=train)
            states.append(s)
            residuals.append(r)
        return x, tuple(states), tuple(residuals)

    def backward(params, residuals, dy):
        grads = []
        for sublayer, p, r in zip(reversed(layers), reversed(params), reversed(residuals), strict=True):
            if dy is None:
                grads.append(jax.tree.map(jnp.zeros_like, p))
                continue
            g, dy = sublayer.backward(p, r, dy)
            grads.append(g)
        return tuple(reversed(grads)), dy

    return layer(init, forward, backward, name=name, sublayers=layers, rebuild=serial)


def parallel(*layers: Layer, combine: str = "sum", axis: int = -1) -> Layer:
    """The layers side by side on one input, their outputs summed or concatenated.

    Args:
        layers: at least one.
        combine: `"sum"`, y = Σ_i f_i(x), or `"concatenate"`, y = (f_1(x), f_2(x), …) along `axis`.
        axis: for `"concatenate"`.

    Params and state are tuples with one entry a layer.

    Backward. x reaches L by every branch, so dx = Σ_i dx_i (multivariate chain rule), where branch i gets g itself
    under `"sum"` and its own slice of g under `"concatenate"`. Kept: each branch's residuals, and for
    `"concatenate"` the branches' widths, as arrays of no numbers, (0, width).

    Raises:
        ConfigError: no layer, an argument that is no `Layer`, or another `combine`.
        ShapeError: the branches' outputs do not fit one another.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> wide = fn.layers.parallel(fn.layers.dense(3), fn.layers.dense(4), combine="concatenate")
    >>> params, state = wide.init(jax.random.key(0), jnp.ones((5, 2)))
    >>> wide.apply(params, state, jnp.ones((5, 2)))[0].shape
    (5, 7)
    """
    name = _name("parallel", layers, spell(parallel, combine=combine, axis=axis))
    check_layers("parallel", layers)
    check_choice(name, "combine", combine, ("sum", "concatenate"))
    if not layers:
        raise ConfigError(f"{name}: expected at least one layer, got none.")

    def merge(ys):
        _check_branches(name, combine, axis, ys)
        return reduce(jnp.add, ys) if combine == "sum" else jnp.concatenate(ys, axis)

    def rebuild(*layers):
        return parallel(*layers, combine=combine, axis=axis)

    return _branches(name, "parallel", layers, merge, None if combine == "sum" else axis, rebuild)


def residual(inner: Layer, shortcut: Layer | None = None) -> Layer:
    """A layer around which the input runs too, y = f(x) + s(x), with the shortcut s the identity by default.

    Params and state are pairs, those of `inner` and those of the shortcut.

    Backward. As for a `parallel` sum: dx = backward_f(g) + backward_s(g), which is backward_f(g) + g for the
    identity: the gradient always has a path that no weight can make vanish.

    Raises:
        ShapeError: `inner` changes the shape and the shortcut does not.

    References: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, equation 1.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> block = fn.layers.residual(fn.layers.dense(3))
    >>> params, state = block.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> block.apply(params, state, jnp.zeros((5, 3)))[0].shape
    (5, 3)
    """
    layers = (inner, identity() if shortcut is None else shortcut)
    name = _name("residual", layers[: 1 if shortcut is None else 2])
    check_layers("residual", layers)

    def merge(ys):
        _check_branches(name, "sum", -1, ys)
        return ys[0] + ys[1]

    return _branches(name, "residual", layers, merge, None, residual)


def _branches(name, place, layers, merge, axis, rebuild):
    """`layers` on one input; `merge` makes one output of theirs; `axis` is the one concatenated along, or `None`."""

    def init(key, x):
        params, states, ys = [], [], []
        for i, (sublayer, subkey) in enumerate(zip(layers, _split(key, len(layers)), strict=True)):
            with within(f"{place}[{i}]"):
                p, s = sublayer.init(subkey, x)
                ys.append(jax.eval_shape(sublayer.apply, p, s, x)[0])
            params.append(p)
            states.append(s)
        jax.eval_shape(merge, ys)  # raises here, not at the first batch, if the branches do not fit
        return tuple(params), tuple(states)

    def forward(params, state, x, *, key=None, train=False):
        _check_entries(name, "params", params, len(layers))
        _check_entries(name, "state", state, len(layers))
        ys, states, residuals = [], [], []
        subkeys = _split(key, len(layers))
        for i, (sublayer, p, s, subkey) in enumerate(zip(layers, params, state, subkeys, strict=True)):
            with within(f"{place}[{i}]"):
                y, s, r = sublayer.forward(p, s, x, key=subkey, train=train)
            ys.append(y)
            states.append(s)
            residuals.append(r)
        # A width is static, so it is kept as a shape: an array of no numbers crosses jit and scan for nothing.
        widths = None if axis is None else tuple(jnp.zeros((0, y.shape[axis])) for y in ys)
        return merge(ys), tuple(states), (tuple(residuals), widths)

    def backward(params, residuals, dy):
        kept, widths = residuals
        dys = [dy] * len(layers) if widths is None else _slices(dy, [w.shape[1] for w in widths], axis)
        grads, dxs = zip(*map(_backward, layers, params, kept, dys), strict=True)
        return grads, None if dxs[0] is None else reduce(jnp.add, dxs)

    return layer(init, forward, backward, name=name, sublayers=layers, rebuild=rebuild)


def _backward(sublayer, params, residuals, dy):
    return sublayer.backward(params, residuals, dy)


def _slices(dy, widths, axis):
    """`dy` cut along `axis` into pieces of these widths."""
    edges = [sum(widths[:i]) for i in range(len(widths) + 1)]
    return [jax.lax.slice_in_dim(dy, start, stop, axis=axis) for start, stop in pairwise(edges)]


def repeat(inner: Layer, n: int) -> Layer:
    """`inner` applied `n` times in a row, each time with parameters of its own, y = f(p_n, … f(p_1, x)).

    Params and state are those of `inner` with a leading axis of length `n`. The layers run in one `jax.lax.scan`,
    so the compile time does not grow with `n`.

    Backward. As for `serial`: with x_i the input of the i-th time and r_i its residuals,
        (∂L/∂p_i, ∂L/∂x_i) = backward(p_i, r_i, ∂L/∂x_{i+1}),
    a scan over the stacked residuals in reverse, whose carry is ∂L/∂x. Kept: the stacked residuals.

    Raises:
        ConfigError: `n` is no positive integer.
        ShapeError: `inner` changes the shape or dtype of its input.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> deep = fn.layers.repeat(fn.layers.serial(fn.layers.dense(3), fn.layers.tanh()), 50)
    >>> params, state = deep.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> params[0]["kernel"].shape
    (50, 3, 3)
    """
    name = spell(repeat, inner, n)
    check_layers("repeat", (inner,))
    n = check_count(name, "n", n)

    def init(key, x):
        with within("repeat"):
            params, state = jax.vmap(lambda subkey: inner.init(subkey, x))(jax.random.split(key, n))
            first = jax.tree.map(lambda leaf: leaf[0], (params, state))
            y = jax.eval_shape(inner.apply, *first, x)[0]
        if (y.shape, y.dtype) != (x.shape, x.dtype):
            raise ShapeError(
                f"{name}: expected {inner} to keep shape and dtype, got {x.shape} {x.dtype} -> {y.shape} {y.dtype}; "
                "repeat takes a layer whose output is the next one's input."
            )
        return params, state

    def forward(params, state, x, *, key=None, train=False):
        _check_stack(name, params, state, n)

        def step(x, entry):
            p, s, subkey = entry
            with within("repeat"):
                y, s, r = inner.forward(p, s, x, key=subkey, train=train)
            return y, (s, r)

        subkeys = None if key is None else jax.random.split(key, n)
        y, (new_state, residuals) = jax.lax.scan(step, x, (params, state, subkeys), length=n)
        return y, new_state, residuals

    def backward(params, residuals, dy):
        def step(dy, entry):
            p, r = entry
            dparams, dx = inner.backward(p, r, dy)
            return dx, dparams

        dx, dparams = jax.lax.scan(step, dy, (params, residuals), length=n, reverse=True)
        return dparams, dx

    return layer(
        init, forward, backward, name=name, sublayers=(inner,), rebuild=lambda inner: repeat(inner, n)
    )  # fmt: skip


def recompute(inner: Layer) -> Layer:
    """`inner` with its memory traded for time: only its input is kept, and the backward runs the forward again.

    The result is that of `inner`. `apply` is under `jax.checkpoint`, so that autodiff keeps no more.

    Backward. The residuals are a function of what is kept: (dW, dx) = backward(W, residuals(W, x), g).
    Kept: x, the state before, the key, and the mode.

    References: Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> thrifty = fn.layers.recompute(fn.layers.serial(fn.layers.dense(64), fn.layers.tanh()))
    >>> params, state = thrifty.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> y, state, residuals = thrifty.forward(params, state, jnp.ones((5, 3)))
    >>> fn.trees.total_size(residuals)
    15
    """
    name = spell(recompute, inner)
    check_layers("recompute", (inner,))

    def forward(params, state, x, *, key=None, train=False):
        with within("recompute"):
            y, new_state, _ = inner.forward(params, state, x, key=key, train=train)
        return y, new_state, {"x": x, "state": state, "key": key, "mode": () if train else None}

    def backward(params, residuals, dy):
        # The barrier keeps the compiler from merging the second forward with the first, which would keep
        # everything alive after all; dy is in it so that the second one cannot start early.
        x, dy = jax.lax.optimization_barrier((residuals["x"], dy))
        train = residuals["mode"] is not None
        _, _, inner_residuals = inner.forward(params, residuals["state"], x, key=residuals["key"], train=train)
        return inner.backward(params, inner_residuals, dy)

    made = layer(inner.init, forward, backward, name=name, sublayers=(inner,), rebuild=recompute)

    def apply(params, state, x, *, key=None, train=False):
        def checkpointed(params, state, x, key):
            return made.apply(params, state, x, key=key, train=train)

        return jax.checkpoint(checkpointed)(params, state, x, key)

    apply.__name__ = apply.__qualname__ = name
    return Layer(made.init, apply, made.forward, made.backward)


def map_layers(function: Callable[[str, Layer], Layer], model: Layer) -> Layer:
    """The model with every plain layer replaced, in forward order, by `function(place, layer)`; containers stay.

    A place reads as in errors, `serial[2] repeat serial[0]`, and is `""` for a model that is a plain layer.

    >>> import funcnet as fn
    >>> model = fn.layers.serial(fn.layers.dense(3), fn.layers.repeat(fn.layers.tanh(), 2))
    >>> fn.layers.map_layers(lambda place, layer: print(place) or fn.layers.recompute(layer), model)
    serial[0]
    serial[1] repeat
    serial(recompute(dense(3)), repeat(recompute(tanh()), 2))
    """
    return _map_layers(function, model, "")


def _map_layers(function, model, place):
    if not model.sublayers or model.rebuild is None:
        return function(place, model)
    constructor = model.name.split("(")[0]
    one = constructor in ("gated", "recompute", "repeat")  # these have one layer, and no number for it
    places = [f"{place} {constructor}{'' if one else f'[{i}]'}".strip() for i in range(len(model.sublayers))]
    return model.rebuild(*(_map_layers(function, sub, p) for sub, p in zip(model.sublayers, places, strict=True)))


def _name(constructor: str, layers: tuple[Any, ...], options: str = "") -> str:
    words = [str(sublayer) for sublayer in layers]
    words += [options[options.index("(") + 1 : -1]] if options and not options.endswith("()") else []
    return f"{constructor}({', '.join(words)})"


def _split(key: Any, n: int) -> list[Any]:
    """One subkey a sublayer, or `None` for each."""
    if key is None or n == 0:
        return [None] * n
    return list(jax.random.split(key, n))


def check_layers(constructor, layers):
    for i, sublayer in enumerate(layers):
        if not isinstance(sublayer, Layer):
            raise ConfigError(
                f"{constructor}: expected argument {i} to be a Layer, got {describe(sublayer)}; "
                f"{_way_to_a_layer(constructor, sublayer)}."
            )


def _way_to_a_layer(constructor, value):
    if callable(value) and hasattr(value, "__name__"):
        return f"call it: {value.__name__}()"
    return f"unpack it: {constructor}(*layers)" if isinstance(value, list | tuple) else "make it with layer(...)"


def _check_entries(name, what, tree, n):
    if not isinstance(tree, tuple) or len(tree) != n:
        got = f"{len(tree)} entries" if isinstance(tree, tuple) else describe(tree)
        raise StructureError(
            f"{name}: expected {what} to be a tuple with one entry a layer, {n} in all, got {got}; the order is "
            "apply(params, state, x), with params and state from init of this very layer."
        )


def _check_stack(name, params, state, n):
    for leaf in jax.tree.leaves((params, state)):
        if leaf.ndim == 0 or leaf.shape[0] != n:
            raise StructureError(
                f"{name}: expected every leaf of params and state to have a leading axis of length {n}, "
                f"got shape {leaf.shape}; take params and state from init of this very layer."
            )


def _check_branches(name, combine, axis, ys):
    shapes = [y.shape for y in ys]
    if combine == "concatenate":
        if any(not -len(shape) <= axis < len(shape) for shape in shapes):
            raise ShapeError(f"{name}: expected outputs with an axis {axis}, got shapes {shapes}.")
        shapes = [(*shape[:axis], 0, *shape[axis % len(shape) + 1 :]) for shape in shapes]
    if len(set(shapes)) > 1 or len({y.dtype for y in ys}) > 1:
        raise ShapeError(
            f"{name}: expected outputs of one shape and dtype{f' outside axis {axis}' if combine != 'sum' else ''}, "
            f"got {', '.join(f'{y.shape} {y.dtype}' for y in ys)}; make the branches fit, with a dense shortcut, say."
        )
