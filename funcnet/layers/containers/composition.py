"""Layers one after the other, side by side, with a shortcut, or each on its own input."""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from types import EllipsisType

import jax
import jax.numpy as jnp

from funcnet.checks import check_choice
from funcnet.errors import ConfigError, ShapeError, StructureError
from funcnet.layers.checks import describe_tree
from funcnet.layers.containers.container import check_layers, container, merged
from funcnet.made import constructor
from funcnet.trees import keep_shape, kept_shape, map_leaves, total
from funcnet.types import Layer

__all__ = ["concatenated", "each", "parallel", "residual", "serial", "slices", "summed"]


@constructor
def serial(*layers: Layer, **named: Layer) -> Layer:
    """The layers one after the other, y = f_n(… f_2(f_1(x))).

    Params and state are tuples with one entry per layer, so the path of a leaf is for example `2/kernel`. With names,
    as in `serial(trunk=…, head=…)`, they are dictionaries, and the path is `head/kernel`. The layers run in the order
    of the call. `serial()` is the identity.

    Backward. By the chain rule ∂L/∂x_i = backward_i(∂L/∂x_{i+1}), where x_{i+1} = f_i(x_i). This is the same walk in
    reverse, and the dx of each layer is the dy of the layer below. If the input of a layer has no gradient (integers,
    whose dx is `None`), the gradients of all parameters below it are zero. Kept: each layer's residuals.

    Raises:
        ConfigError: an argument is not a `Layer`, for example a constructor that was not called.
        ConfigError: only some of the layers have names, or one has the name `combine` or `axis`.
        StructureError: params or state do not have one entry per layer.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.serial(fn.layers.dense(8), fn.layers.relu(), fn.layers.dense(2))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> y, state = model.apply(params, state, jnp.ones((5, 3)))
    >>> y.shape
    (5, 2)
    """

    def walk(run, x):
        for i in range(count):
            x = run(i, x)
        return x, None

    def back(run, kept, dy):
        del kept
        for i in reversed(range(count)):
            dy = run(i, dy)
        return dy

    count = len(layers) + len(named)
    return container(_one_kind(layers, named), walk, back)


@constructor
def parallel(*layers: Layer, combine: str | EllipsisType | None = ..., axis: int = -1, **named: Layer) -> Layer:
    """The layers side by side on one input, their outputs summed, concatenated, or kept apart.

    Args:
        layers: at least one. Either all have names, as in `parallel(digit=dense(10), ink=dense(1))`, or none has.
        combine: `"sum"` gives y = Σ_i f_i(x). `"concatenate"` gives y = (f_1(x), f_2(x), …) along `axis`. `None` gives
            a tuple of the outputs, or a dictionary if the layers have names. The default is `"sum"`, or `None` if the
            layers have names.
        axis: the axis of `"concatenate"`.

    Params and state are tuples with one entry per layer, or dictionaries if the layers have names.

    Backward. x reaches L through every branch, so dx = Σ_i dx_i (multivariate chain rule). With g = ∂L/∂y, branch i
    gets g itself for `"sum"`, its own slice of g for `"concatenate"`, and its own entry of g otherwise. A branch whose
    output no loss reads has a gradient of zeros. Kept: each branch's residuals, and for `"concatenate"` the shapes of
    the branches' outputs, as arrays without numbers.

    Raises:
        ConfigError: no layer is given, an argument is not a `Layer`, only some have names, or `combine` has another
            value.
        ShapeError: the branches' outputs do not fit one another.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> wide = fn.layers.parallel(fn.layers.dense(3), fn.layers.dense(4), combine="concatenate")
    >>> params, state = wide.init(jax.random.key(0), jnp.ones((5, 2)))
    >>> wide.apply(params, state, jnp.ones((5, 2)))[0].shape
    (5, 7)
    >>> heads = fn.layers.parallel(digit=fn.layers.dense(10), ink=fn.layers.dense(1))
    >>> params, state = heads.init(jax.random.key(0), jnp.ones((5, 2)))
    >>> {name: y.shape for name, y in heads.apply(params, state, jnp.ones((5, 2)))[0].items()}
    {'digit': (5, 10), 'ink': (5, 1)}
    """
    branches = _one_kind(layers, named)
    if not branches:
        raise ConfigError("expected at least one layer, got none.")
    how = (None if named else "sum") if combine is ... else combine
    if how is not None:
        check_choice("combine", how, ("sum", "concatenate"))

    def walk(run, x):
        ys = [run(i, x) for i in range(len(branches))]
        if how is None:
            return (dict(zip(named, ys, strict=True)) if named else tuple(ys)), None
        if how == "sum":
            return summed(ys), None
        # A width is static, so it is kept as a shape.
        return merged(partial(concatenated, axis), *ys), [keep_shape(y) for y in ys]

    def back(run, kept, dy):
        if how is None:
            dys = [dy[name] for name in named] if named else dy
        else:
            dys = [dy] * len(branches) if how == "sum" else slices(dy, [kept_shape(y).shape[axis] for y in kept], axis)
        return total([run(i, dy) for i, dy in enumerate(dys)])

    return container(branches, walk, back)


@constructor
def residual(inner: Layer, shortcut: Layer | None = None) -> Layer:
    """A layer with a shortcut around it, y = f(x) + s(x). By default the shortcut s is the identity.

    Params and state are tuples. The first entry is that of `inner`, the second one that of `shortcut`, if it is given.

    Backward. As for a `parallel` sum, dx = backward_f(g) + backward_s(g). For the identity this is backward_f(g) + g.
    So the gradient always has a path on which no weight can make it vanish.

    Raises:
        ShapeError: `inner` changes the shape and the shortcut does not.

    References: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, equation 1.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> block = fn.layers.residual(fn.layers.dense(3))
    >>> params, state = block.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> block.apply(params, state, jnp.zeros((5, 3)))[0].shape
    (5, 3)
    """

    def walk(run, x):
        return summed([run(0, x), x if shortcut is None else run(1, x)]), None

    def back(run, kept, dy):
        del kept
        return total([run(0, dy), dy if shortcut is None else run(1, dy)])

    return container((inner,) if shortcut is None else (inner, shortcut), walk, back)


@constructor
def each(*layers: Layer, **named: Layer) -> Layer:
    """One layer for each entry of the input, y_i = f_i(x_i).

    x, y, params and state are tuples. With names, as in `each(image=…, text=…)`, they are dictionaries.

    Backward. y_i depends on x_i alone, so dx_i = backward_i(g_i). Kept: each layer's residuals.

    Raises:
        ConfigError: an argument is not a `Layer`, or only some have names.
        StructureError: `x` does not have one entry per layer.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> towers = fn.layers.each(image=fn.layers.flatten(), row=fn.layers.dense(3))
    >>> x = {"image": jnp.ones((5, 2, 2)), "row": jnp.ones((5, 4))}
    >>> params, state = towers.init(jax.random.key(0), x)
    >>> {name: y.shape for name, y in towers.apply(params, state, x)[0].items()}
    {'image': (5, 4), 'row': (5, 3)}
    """
    entries = _one_kind(layers, named)
    places = list(named or range(len(layers)))

    def walk(run, x):
        _check_entries(named, places, x)
        ys = [run(i, x[place]) for i, place in enumerate(places)]
        return (dict(zip(named, ys, strict=True)) if named else tuple(ys)), None

    def back(run, kept, dy):
        del kept
        dxs = [run(i, dy[place]) for i, place in enumerate(places)]
        return dict(zip(named, dxs, strict=True)) if named else tuple(dxs)

    return container(entries, walk, back)


def _one_kind(layers: tuple[Layer, ...], named: Mapping[str, Layer]) -> tuple[Layer, ...] | Mapping[str, Layer]:
    """Layers by position or by name, not both."""
    if layers and named:
        check_layers(layers)
        got = f"{len(layers)} without a name and {len(named)} with one; name all"
        raise ConfigError(f"expected all layers to have names or none, got {got}.")
    if taken := {"combine", "axis"} & named.keys():
        got = f"{', '.join(map(repr, taken))}, which is an option of parallel"
        raise ConfigError(f"expected names of layers, got {got}; choose another.")
    return named or layers


def _check_entries(named, places, x):
    if named and (not isinstance(x, dict) or set(x) != set(named)):
        raise StructureError(f"expected x to be a dictionary with the entries {sorted(named)}, got {describe_tree(x)}.")
    if not named and (not isinstance(x, tuple | list) or len(x) != len(places)):
        wanted = f"a tuple of {len(places)} entries, one per layer"
        raise StructureError(f"expected x to be {wanted}, got {describe_tree(x)}.")


def summed(ys):
    """The sum of the outputs of branches, leaf by leaf."""

    def add(*leaves):
        _check_alike(leaves, [leaf.shape for leaf in leaves])
        return sum(leaves[1:], leaves[0])

    try:
        return map_leaves(lambda *leaves: merged(add, *leaves), *ys)
    except ValueError as error:
        if isinstance(error, ShapeError):
            raise
        got = ", ".join(map(describe_tree, ys))
        raise StructureError(f"expected outputs of one structure, got {got}; make the branches fit.") from error


def concatenated(axis, *ys):
    """The outputs of branches side by side along `axis`."""
    shapes = [y.shape for y in ys]
    if any(not -len(shape) <= axis < len(shape) for shape in shapes):
        raise ShapeError(f"expected outputs with an axis {axis}, got shapes {shapes}.")
    _check_alike(ys, [(*shape[:axis], 0, *shape[axis % len(shape) + 1 :]) for shape in shapes], f" outside axis {axis}")
    return jnp.concatenate(ys, axis)


def _check_alike(ys, shapes, where=""):
    if len(set(shapes)) > 1 or len({y.dtype for y in ys}) > 1:
        got = ", ".join(f"{y.shape} {y.dtype}" for y in ys)
        fix = "make the branches fit, for example with a dense shortcut"
        raise ShapeError(f"expected outputs of one shape and dtype{where}, got {got}; {fix}.")


def slices(dy, widths, axis):
    """`dy` cut along `axis` into pieces of these widths."""
    edges = [sum(widths[:i]) for i in range(len(widths) + 1)]
    return [jax.lax.slice_in_dim(dy, start, stop, axis=axis) for start, stop in pairwise(edges)]
