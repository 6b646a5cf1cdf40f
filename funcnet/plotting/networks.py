"""A picture of a network: one box per layer, and arrows with the shapes of what passes between them."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from funcnet import layers
from funcnet.checks import describe
from funcnet.errors import DataError
from funcnet.plotting.figures import BLUE, GREY, VERMILION, new_figure, saved
from funcnet.trees import leaves, shapes, values_of
from funcnet.types import Layer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["graph"]

# In inches: height of a box, length of an arrow, from the lowest branch to its join, height of the join, margin, width
# of a letter, height of a name
_BOX, _ARROW, _JOIN, _JOINT, _PAD, _LETTER, _NAME = 0.34, 0.36, 0.26, 0.24, 0.16, 0.082, 0.2
_PALE_BLUE = "#E5F1F8"


class _Block(NamedTuple):
    """A part of the picture. `draw` puts the middle of its top at (x, y); y points down."""

    width: float
    height: float
    draw: Callable[["Axes", float, float], None]
    y: Any  #: the output's shape
    forks: bool = False  #: whether it begins with lines to branches or a name; the arrow to it then has no head


def graph(model: Layer, x: Any, path: str | os.PathLike[str] | None = None) -> "Figure":
    """A network from its input at the top to its output at the bottom, with shapes beside the arrows.

    The layers of a `serial` stand one below the other. Those of a `parallel`, a `residual` and an `each` stand side by
    side, with the operation that joins them below. `repeat` and other containers, your own too, are frames around their
    layers. Names of layers stand above them. Only shapes are computed.

    Args:
        model: a layer.
        x: an example batch or `jax.ShapeDtypeStruct`, batch axis included, or a tree of them.
        path: where to save the figure, if anywhere; the ending gives the format, such as `.png`.

    Raises:
        DataError: the model is not a layer.
        what the layers' `init` raises for `x`.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> from funcnet.layers import dense, relu, residual, serial
    >>> model = serial(dense(16), residual(serial(relu(), dense(16))), dense(3))
    >>> figure = fn.plotting.graph(model, jax.ShapeDtypeStruct((32, 8), jnp.float32))
    >>> words = [text.get_text() for text in figure.axes[0].texts]
    >>> words[0], words[-1], words.count("(32, 16)"), "+" in words
    ('x (32, 8)', 'y (32, 3)', 4, True)
    """
    if not isinstance(model, Layer):
        raise DataError(f"graph: expected a layer, got {describe(model)}.")
    block = _block(model, x)
    words = [f"x {_shape(x)}", f"y {_shape(block.y)}"]
    widest = max(block.width, 1.6, *(_LETTER * len(word) for word in words))
    width, height = widest + 2 * _PAD, block.height + 2 * _ARROW + 2 * _PAD
    figure = new_figure("graph", width, height)
    figure.set_layout_engine("none")  # all places are given, in inches
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    middle = width / 2
    _write(axes, middle, _PAD, words[0], color=GREY)
    _arrow(axes, middle, _PAD + 0.1, _PAD + _ARROW, head=not block.forks)
    block.draw(axes, middle, _PAD + _ARROW)
    end = _PAD + _ARROW + block.height
    _arrow(axes, middle, end, end + _ARROW - 0.1)
    _write(axes, middle, end + _ARROW, words[1], color=GREY)
    return saved(figure, path)


def _block(layer: Layer, x: Any) -> _Block:
    inside, kind = layer.inside, layer.made.constructor
    if inside is None or not inside.layers:
        return _box(layer, x)
    traced = _traced(layer, x)
    if traced is None:
        return _box(layer, x)
    inputs, y = traced
    # The identity in a residual is a line.
    blocks = [
        None
        if kind is layers.residual and inner.made.constructor is layers.identity
        else _named(at, _block(inner, own))
        for inner, at, own in zip(inside.layers, inside.places, inputs, strict=True)
    ]
    if kind is layers.serial:
        return _stack([block for block in blocks if block is not None])
    if kind is layers.residual:
        return _side_by_side([*blocks, None][:2], "+", y)
    if kind is layers.parallel or kind is layers.each:
        y = {name: y[name] for name in inside.places} if type(y) is dict else y  # in the order of the call
        return _side_by_side(blocks, _joint(layer), y)
    if kind is layers.repeat:
        return _framed(blocks, f"× {layer.made.arguments['n']}", y)
    return _framed(blocks, layer.made.word or "", y)


def _joint(layer: Layer) -> str:
    """What joins the branches of a `parallel` or an `each`."""
    combine = layer.made.arguments.get("combine", None)
    named = bool(layer.made.arguments["named"])
    if combine is None or (combine is ... and named):
        return "{ }" if named else "( )"
    return "concatenate" if combine == "concatenate" else "+"


def _traced(container: Layer, x: Any) -> tuple[list[Any], Any] | None:
    """The input of each layer that a container runs, and its output, as shapes; `None` if it cannot be rebuilt."""
    inside = container.inside
    assert inside is not None
    if inside.rebuild is None:
        return None
    inputs: dict[int, Any] = {}

    def noting(i: int, layer: Layer) -> Layer:
        def apply(params, state, x, *, key=None, train=False):
            inputs[i] = shapes(x)
            return layer.apply(params, state, x, key=key, train=train)

        return layer._replace(apply=apply)

    y = _after(inside.rebuild(*(noting(i, layer) for i, layer in enumerate(inside.layers))), x)
    return [inputs[i] for i in range(len(inside.layers))], y


def _after(layer: Layer, x: Any) -> Any:
    """The output of a layer, as shapes."""
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    return jax.eval_shape(layer.apply, params, state, x)[0]


def _box(layer: Layer, x: Any) -> _Block:
    name = str(layer) if len(str(layer)) <= 30 else str(layer)[:29] + "…"
    width = max(0.9, _LETTER * len(name) + 0.2)
    has_parameters = bool(jax.tree.leaves(jax.eval_shape(layer.init, jax.random.key(0), x)[0]))

    def draw(axes, x, y):
        from matplotlib.patches import FancyBboxPatch

        colour = BLUE if has_parameters else GREY
        axes.add_patch(FancyBboxPatch(
            (x - width / 2 + 0.05, y + 0.05), width - 0.1, _BOX - 0.1, boxstyle="round,pad=0.05", edgecolor=colour,
            facecolor=_PALE_BLUE if has_parameters else "white", linewidth=1.1,
        ))  # fmt: skip
        _write(axes, x, y + _BOX / 2, name)

    return _Block(width, _BOX, draw, _after(layer, x))


def _named(name: Any, block: _Block) -> _Block:
    """A block below its name, if it has one."""
    if not isinstance(name, str):
        return block
    width = max(block.width, 2 * (_LETTER * len(name) + 0.1))

    def draw(axes, x, y):
        axes.text(x - 0.08, y + _NAME / 2, name, ha="right", va="center", color=VERMILION, fontsize=8)
        _line(axes, [x, x], [y, y + _NAME])
        block.draw(axes, x, y + _NAME)

    return _Block(width, block.height + _NAME, draw, block.y, forks=True)


def _stack(blocks: list[_Block]) -> _Block:
    def draw(axes, x, y):
        for i, block in enumerate(blocks):
            if i:
                _arrow(axes, x, y, y + _ARROW, _shape(blocks[i - 1].y), head=not block.forks)
                y += _ARROW
            block.draw(axes, x, y)
            y += block.height

    room = max(2 * _LETTER * (len(_shape(block.y)) + 1) for block in blocks)  # the shapes stand right of the middle
    height = sum(block.height for block in blocks) + _ARROW * (len(blocks) - 1)
    return _Block(max(room, *(block.width for block in blocks)), height, draw, blocks[-1].y, blocks[0].forks)


def _side_by_side(branches: list[_Block | None], word: str, y: Any) -> _Block:
    """Branches from one point to another. The branch of an identity is a line."""
    widths = [0.3 if branch is None else branch.width for branch in branches]
    tallest = max((branch.height for branch in branches if branch is not None), default=0.0)
    width = sum(widths) + 2 * _PAD * (len(widths) - 1)
    height = _ARROW + tallest + _JOIN + 0.2 + _JOINT

    def draw(axes, middle, y):
        join, place = y + _ARROW + tallest + _JOIN, middle - width / 2
        for branch, across in zip(branches, widths, strict=True):
            at = place + across / 2
            place += across + 2 * _PAD
            _line(axes, [middle, at], [y + 0.1, y + 0.1])
            if branch is None:
                _line(axes, [at, at], [y + 0.1, join])
            else:
                _arrow(axes, at, y + 0.1, y + _ARROW, head=not branch.forks)
                branch.draw(axes, at, y + _ARROW)
                _line(axes, [at, at], [y + _ARROW + branch.height, join])
                axes.text(at + 0.06, join - _JOIN / 2, _shape(branch.y), fontsize=7, color=GREY, va="center")
            _line(axes, [at, middle], [join, join])
        _line(axes, [middle, middle], [y, y + 0.1])
        _arrow(axes, middle, join, join + 0.2)
        _write(axes, middle, join + 0.2 + _JOINT / 2, word, bbox={
            "boxstyle": "circle,pad=0.25" if word == "+" else "round,pad=0.25", "edgecolor": VERMILION,
            "facecolor": "white",
        })  # fmt: skip

    return _Block(max(width, 1.2), height, draw, y, forks=True)


def _framed(blocks: list[_Block | None], word: str, y: Any) -> _Block:
    """A dashed frame around the layers that a container runs, which stand side by side if there are several."""
    inner = [block for block in blocks if block is not None]
    across = sum(block.width for block in inner) + 2 * _PAD * (len(inner) - 1)
    tallest = max(block.height for block in inner)
    width = across + 2 * _PAD + 2 * (_LETTER * len(word) + 0.1)
    height = tallest + 2 * _PAD

    def draw(axes, x, y):
        from matplotlib.patches import Rectangle

        left, place = x - width / 2, x - across / 2
        axes.add_patch(Rectangle((left, y), width, height, fill=False, edgecolor=GREY, linestyle=(0, (4, 3))))
        axes.text(left + width - 0.08, y + height / 2, word, ha="right", va="center", color=VERMILION, fontsize=9)
        for block in inner:
            at = place + block.width / 2
            place += block.width + 2 * _PAD
            _line(axes, [at, at], [y, y + _PAD])
            block.draw(axes, at, y + _PAD)
            _line(axes, [at, at], [y + _PAD + block.height, y + height])

    return _Block(width, height, draw, y)


def _shape(x: Any) -> str:
    """The shape, for example `(32, 8)`. For a tree: the shapes of its leaves, with the names of a dictionary."""
    if type(x) is dict:
        return ", ".join(f"{name} {_shape(one)}" for name, one in x.items())
    arrays = [values_of(leaf) for leaf in leaves(x)]
    return ", ".join(str(tuple(leaf.shape)) for leaf in arrays)


def _write(axes: "Axes", x: float, y: float, words: str, **style: Any) -> None:
    axes.text(x, y, words, **({"ha": "center", "va": "center", "fontsize": 8.5} | style))


def _line(axes: "Axes", x: list[float], y: list[float]) -> None:
    axes.plot(x, y, color=GREY, linewidth=1.1, solid_capstyle="round")


def _arrow(axes: "Axes", x: float, top: float, bottom: float, words: str = "", head: bool = True) -> None:
    style = {"arrowstyle": "-|>" if head else "-", "color": GREY, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (x, bottom), (x, top), arrowprops=style)
    if words:
        axes.text(x + 0.08, (top + bottom) / 2, words, fontsize=7, color=GREY, va="center")
