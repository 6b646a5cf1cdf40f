"""Pictures of functions: activations with their derivatives, schedules, and what initializers do in deep networks."""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import check_count, describe
from funcnet.errors import ConfigError, DataError, ShapeError
from funcnet.made import leading
from funcnet.numerics import power_of_two
from funcnet.plotting.figures import BLUE, CYCLE, PALE_GREY, VERMILION, new_figure, saved
from funcnet.types import Key, Layer, Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["activations", "initializer_spread", "schedules"]


def activations(layers: Sequence[Layer], path: str | os.PathLike[str] | None = None, *, limit: float = 5.0) -> "Figure":
    """Elementwise layers and their derivatives, one panel per layer. The derivative is the hand-derived backward.

    Args:
        layers: for example `layers.relu()`. A layer with parameters gets those of its `init`.
        path: where to save the figure, if anywhere; the ending gives the format, such as `.png`.
        limit: the panels go from −limit to limit.

    Raises:
        DataError: no layers, or something that is not a layer.
        ShapeError: a layer whose output has another shape than its input.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import funcnet as fn
    >>> figure = fn.plotting.activations([fn.layers.relu(), fn.layers.tanh()])
    >>> y, slope = figure.axes[1].lines[:2]  # of tanh
    >>> round(float(y.get_ydata().max()), 3), float(slope.get_ydata().max())
    (1.0, 1.0)
    """
    if not layers or not all(isinstance(layer, Layer) for layer in layers):
        raise DataError(f"activations: expected layers, such as [layers.relu()], got {describe(layers)}.")
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    figure = new_figure("activations", max(3.0, 1.8 * columns + 0.3), 1.7 * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, layer in zip(panels, layers, strict=False):
        x, y, slope = _with_derivative(layer, limit)
        axes.plot(x, y, color=BLUE, linewidth=1.8, label="y")
        axes.plot(x, slope, color=VERMILION, linewidth=1.4, linestyle=(0, (4, 2)), label="dy/dx")
        axes.set_title(str(layer), fontsize="small")
        _quiet(axes)
        axes.axvline(0, color=PALE_GREY, linewidth=0.8, zorder=0)
    for unused in panels[len(layers) :]:
        unused.remove()
    figure.supxlabel("x", fontsize="small")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return saved(figure, path)


def _with_derivative(layer: Layer, limit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and dy/dx, which is the backward of ones."""
    x = jnp.linspace(-limit, limit, 401)[:, None]
    params, state = layer.init(jax.random.key(0), x)
    y, _, residuals = layer.forward(params, state, x)
    if jnp.shape(y) != x.shape:
        raise ShapeError(f"activations: expected an elementwise layer, got {layer}, (401, 1) -> {jnp.shape(y)}.")
    _, slope = layer.backward(params, residuals, jnp.ones_like(y))
    return np.asarray(x)[:, 0], np.asarray(y)[:, 0], np.asarray(slope)[:, 0]


def schedules(schedules: Mapping[str, Schedule], steps: int, path: str | os.PathLike[str] | None = None) -> "Figure":
    """Learning rates by step.

    Args:
        schedules: name -> schedule, of `funcnet.schedules` or your own.
        steps: how many updates are drawn.
        path: where to save the figure, if anywhere; the ending gives the format, such as `.png`.

    Raises:
        DataError: no schedules.
        ConfigError: `steps` is not a positive integer.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import funcnet as fn
    >>> decays = {"cosine": fn.schedules.cosine_decay(0.1, 100), "steps": fn.schedules.step_decay(0.1, 40)}
    >>> cosine, stairs = fn.plotting.schedules(decays, 100).axes[0].lines
    >>> round(float(cosine.get_ydata()[50]), 3), round(float(stairs.get_ydata()[50]), 3)
    (0.05, 0.01)
    """
    with leading("schedules"):
        steps = check_count("steps", steps)
    if not schedules:
        raise DataError("schedules: expected a dictionary of schedules by name, got an empty one.")
    figure = new_figure("schedules", 6.4, 3.2)
    axes = figure.subplots()
    at = jnp.arange(steps)
    for (name, schedule), colour in zip(schedules.items(), cycle(CYCLE), strict=False):
        rates = np.broadcast_to(np.asarray(jax.vmap(schedule)(at)), (steps,))
        axes.plot(np.asarray(at), rates, color=colour, linewidth=1.8, label=name)
    axes.set(xlabel="step (updates done)", ylabel="learning rate")
    axes.set_ylim(bottom=0)
    _quiet(axes)
    figure.legend(loc="outside right upper", frameon=False)
    return saved(figure, path)


def initializer_spread(
    initializers: Mapping[str, Callable[..., Any]], activation: Layer, path: str | os.PathLike[str] | None = None,
    *, depth: int = 20, width: int = 256, key: Key | None = None,
) -> "Figure":  # fmt: skip
    """The standard deviation of each layer's output in a deep network before training, one line per initializer.

    Each layer is x ← f(x W) on 256 rows that begin as standard normal numbers. The scale is logarithmic, so a straight
    line falls or rises by the same factor per layer. A good initializer keeps the line level.

    Args:
        initializers: name -> initializer of the kernels (width, width).
        activation: f, an elementwise layer.
        path: where to save the figure, if anywhere; the ending gives the format, such as `.png`.
        depth: number of layers.
        width: units of each layer.
        key: a PRNG key; by default `jax.random.key(0)`.

    Raises:
        ConfigError: no initializers, or sizes that are not positive integers.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    References: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
    2010, section 4; He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015, section 2.2.

    >>> import funcnet as fn
    >>> kinds = {"He": fn.initializers.he_normal(), "small": fn.initializers.normal(0.01)}
    >>> he, small = fn.plotting.initializer_spread(kinds, fn.layers.relu(), depth=6, width=64).axes[0].lines
    >>> bool(he.get_ydata()[-1] > 0.1), bool(small.get_ydata()[-1] < 1e-4)
    (True, True)
    """
    with leading("initializer_spread"):
        depth, width = check_count("depth", depth), check_count("width", width)
    if not initializers:
        raise ConfigError("initializer_spread: expected a dictionary of initializers by name, got an empty one.")
    figure = new_figure("initializer_spread", 6.4, 3.2)
    axes = figure.subplots()
    axes.set_yscale("log")
    for (name, initializer), colour in zip(initializers.items(), cycle(CYCLE), strict=False):
        spread = np.asarray(_spread(initializer, activation, depth, width, jax.random.key(0) if key is None else key))
        shown = np.where(np.isfinite(spread) & (spread > 0), spread, np.nan)
        axes.plot(np.arange(depth + 1), shown, color=colour, linewidth=1.8, marker="o", markersize=3, label=name)
    axes.set(xlabel=f"layer, each {width} units and {activation}", ylabel="standard deviation of the output")
    axes.locator_params("x", integer=True)
    _quiet(axes)
    figure.legend(loc="outside right upper", frameon=False)
    return saved(figure, path)


def _spread(initializer: Callable[..., Any], activation: Layer, depth: int, width: int, key: Key) -> Any:
    """The standard deviations of the input and of each layer's output, (depth + 1,)."""
    first, *keys = jax.random.split(key, depth + 1)
    x = jax.random.normal(first, (256, width))
    params, state = activation.init(first, x)

    def layer(x, key):
        y, _ = activation.apply(params, state, x @ initializer(key, (width, width), x.dtype))
        size = power_of_two([y], y.dtype)  # the squares of small numbers underflow, and those of large ones overflow
        return y, size * jnp.std(y / size)

    _, spread = jax.jit(lambda x, keys: jax.lax.scan(layer, x, keys))(x, jnp.stack(keys))
    return jnp.concatenate([jnp.std(x)[None], spread])


def _quiet(axes: "Axes") -> None:
    axes.grid(axis="y", color=PALE_GREY, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
