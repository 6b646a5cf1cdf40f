"""A picture of a network: a box a layer, arrows with the shapes that pass along them."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from funcnet.checks import describe
from funcnet.errors import DataError
from funcnet.plotting.figures import BLUE, GREY, VERMILION, new_figure, saved
from funcnet.types import Layer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["graph"]

# In inches: a box's height, an arrow's length, from the lowest branch to its join, that itself, room, a letter
_BOX, _ARROW, _JOIN, _JOINT, _PAD, _LETTER = 0.34, 0.36, 0.26, 0.24, 0.16, 0.082
_PALE_BLUE = "#E5F1F8"


class _Block(NamedTuple):
    """A part of the picture, which draws itself where it is told: its top's middle at (x, y), y downward."""

    width: float
    height: float
    draw: Callable[["Axes", float, float], None]
    y: Any  #: the output's shape
    forks: bool = False  #: whether it begins with lines to several branches, which no arrow's head points at


def graph(model: Layer, x: Any, path: str | os.PathLike[str] | None = None) -> "Figure":
    """A network from its input at the top to its output at the bottom, with shapes beside the arrows.

    The layers of a `serial` stand one below the other, those of a `parallel` and a `residual` side by side, joined by
    what joins them; `repeat` and other containers are frames around theirs. Only shapes are followed.

    Args:
        model: a layer.
        x: an example batch or `jax.ShapeDtypeStruct`, batch axis included.
        path: where to save the figure, if anywhere; the ending gives the format, `.png` say.

    Raises:
        DataError: the model is no layer.
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
    width, height = max(block.width, 1.6) + 2 * _PAD, block.height + 2 * _ARROW + 2 * _PAD
    figure = new_figure("graph", width, height)
    figure.set_layout_engine("none")  # the places are known, in inches
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    middle = width / 2
    _write(axes, middle, _PAD, f"x {_shape(x)}", color=GREY)
    _arrow(axes, middle, _PAD + 0.1, _PAD + _ARROW, head=not block.forks)
    block.draw(axes, middle, _PAD + _ARROW)
    end = _PAD + _ARROW + block.height
    _arrow(axes, middle, end, end + _ARROW - 0.1)
    _write(axes, middle, end + _ARROW, f"y {_shape(block.y)}", color=GREY)
    return saved(figure, path)


def _block(layer: Layer, x: Any) -> _Block:
    kind, subs = layer.name.split("(")[0], layer.sublayers
    if kind == "serial" and subs:
        return _stack(subs, x)
    if kind in ("parallel", "residual") and subs:
        return _side_by_side(layer, subs, x)
    if kind in ("repeat", "recompute", "gated") and len(subs) == 1:
        return _framed(layer, kind, subs[0], x)
    return _box(layer, x)


def _after(layer: Layer, x: Any) -> Any:
    """The output of a layer, as shapes."""
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    return jax.eval_shape(layer.apply, params, state, x)[0]


def _box(layer: Layer, x: Any) -> _Block:
    name = layer.name if len(layer.name) <= 30 else layer.name[:29] + "…"
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


def _stack(layers: tuple[Layer, ...], x: Any) -> _Block:
    blocks = []
    for layer in layers:
        blocks.append(_block(layer, x))
        x = blocks[-1].y

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


def _side_by_side(layer: Layer, layers: tuple[Layer, ...], x: Any) -> _Block:
    """Branches from one point to one; that of an identity is a line."""
    branches = [None if sub.name == "identity()" else _block(sub, x) for sub in layers]
    widths = [0.3 if branch is None else branch.width for branch in branches]
    tallest = max((branch.height for branch in branches if branch is not None), default=0.0)
    width = sum(widths) + 2 * _PAD * (len(widths) - 1)
    options = layer.name[:-1].rpartition(")")[2]  # behind the last of its layers
    word = "concatenate" if "concatenate" in options else "+"
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
                _arrow(axes, at, y + 0.1, y + _ARROW)
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

    return _Block(max(width, 1.2), height, draw, _after(layer, x), forks=True)


def _framed(layer: Layer, kind: str, inner: Layer, x: Any) -> _Block:
    """A dashed frame around what a container runs."""
    block = _block(inner, x)
    word = f"× {layer.name.rpartition(',')[2].strip(' )')}" if kind == "repeat" else kind
    width = block.width + 2 * _PAD + 2 * (_LETTER * len(word) + 0.1)
    height = block.height + 2 * _PAD

    def draw(axes, x, y):
        from matplotlib.patches import Rectangle

        left = x - width / 2
        axes.add_patch(Rectangle((left, y), width, height, fill=False, edgecolor=GREY, linestyle=(0, (4, 3))))
        axes.text(left + width - 0.08, y + height / 2, word, ha="right", va="center", color=VERMILION, fontsize=9)
        _line(axes, [x, x], [y, y + _PAD])
        block.draw(axes, x, y + _PAD)
        _line(axes, [x, x], [y + _PAD + block.height, y + height])

    return _Block(width, height, draw, _after(layer, x))


def _shape(x: Any) -> str:
    """`(32, 8)`; of a tree, those of its leaves."""
    return ", ".join(str(tuple(leaf.shape)) for leaf in jax.tree.leaves(x))


def _write(axes: "Axes", x: float, y: float, words: str, **style: Any) -> None:
    axes.text(x, y, words, **({"ha": "center", "va": "center", "fontsize": 8.5} | style))


def _line(axes: "Axes", x: list[float], y: list[float]) -> None:
    axes.plot(x, y, color=GREY, linewidth=1.1, solid_capstyle="round")


def _arrow(axes: "Axes", x: float, top: float, bottom: float, words: str = "", head: bool = True) -> None:
    style = {"arrowstyle": "-|>" if head else "-", "color": GREY, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (x, bottom), (x, top), arrowprops=style)
    if words:
        axes.text(x + 0.08, (top + bottom) / 2, words, fontsize=7, color=GREY, va="center")
