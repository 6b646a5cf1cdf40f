"""Pictures of a loss of two numbers, and of the paths of optimizers on it."""

import os
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.errors import DataError, ShapeError
from funcnet.plotting.figures import CYCLE, GREY, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["loss_surface"]

_BANDS = 14


def loss_surface(
    function: Callable[[Any], Any], paths: Mapping[str, Any], path: str | os.PathLike[str] | None = None,
    *, minimum: tuple[float, float] | None = None, margin: float = 0.15, labels: tuple[str, str] = ("x", "y"),
) -> "Figure":  # fmt: skip
    """A function of two numbers as contour lines, and paths on it: a ring where each starts, a dot where it ends.

    The contour lines divide the picture into equal shares, so that a flat valley shows as well as steep walls.

    Args:
        function: `(2,) -> ()`, written with JAX's functions.
        paths: name -> points (steps, 2), from the start to the end. A path ends before a point that is not finite.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        minimum: a point to mark with a cross.
        margin: room around the paths, as a share of their extent.
        labels: names of the two numbers.

    Raises:
        DataError: no path.
        ShapeError: a path that is not (steps, 2), or a function whose value is not a scalar.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> bowl = lambda p: p[0] ** 2 + 4 * p[1] ** 2
    >>> figure = fn.plotting.loss_surface(bowl, {"straight": [[2.0, 1.0], [0.0, 0.0]]}, minimum=(0, 0))
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['straight', 'minimum']
    """
    points = {name: _points(name, value) for name, value in paths.items()}
    if not points:
        raise DataError("loss_surface: expected paths, name -> points (steps, 2), got none.")
    figure = new_figure("loss_surface", 6.2, 3.9)
    axes = figure.subplots()
    x, y = _grid([*points.values(), *([np.array([minimum])] if minimum else [])], margin)
    values = jax.vmap(jax.vmap(function))(jnp.stack(jnp.meshgrid(jnp.asarray(x), jnp.asarray(y)), -1))
    if values.shape != (len(y), len(x)):
        raise ShapeError(f"loss_surface: expected function (2,) -> (), got a value of shape {values.shape[2:]}.")
    values = np.asarray(values, float)
    levels = np.unique(np.quantile(values[np.isfinite(values)], np.linspace(0, 1, _BANDS + 1)))
    axes.contourf(x, y, values, levels, cmap="Greys_r", alpha=0.25)
    axes.contour(x, y, values, levels, colors=GREY, linewidths=0.4)
    for (name, way), colour in zip(points.items(), cycle(CYCLE), strict=False):
        axes.plot(*way.T, color=colour, linewidth=1.4, label=name, marker=".", markersize=2.5)
        axes.plot(*way[0], "o", color=colour, markersize=7, fillstyle="none")
        axes.plot(*way[-1], "o", color=colour, markersize=6, markeredgecolor="white", zorder=3)
    if minimum:
        axes.plot(*minimum, "+", color="black", markersize=11, markeredgewidth=1.6, linestyle="", label="minimum")
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    figure.legend(loc="outside right upper", frameon=False)
    return saved(figure, path)


def _points(name: str, value: Any) -> np.ndarray:
    points = np.asarray(value, float)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points[:1]).all() or not len(points):
        wanted = "finite points of shape (steps, 2)"
        raise ShapeError(f"loss_surface: expected the path {name!r} to be {wanted}, got {points.shape}.")
    finite = np.isfinite(points).all(1)
    return points[: len(points) if finite.all() else int(np.argmin(finite))]  # up to the first that is not finite


def _grid(groups: list[np.ndarray], margin: float) -> tuple[np.ndarray, np.ndarray]:
    """The places along both axes at which the function is computed."""
    everything = np.concatenate(groups)
    low, high = everything.min(0), everything.max(0)
    room = margin * np.where(high > low, high - low, 1)
    x, y = (np.linspace(a, b, 161, dtype=np.float32) for a, b in zip(low - room, high + room, strict=True))
    return x, y
