"""Pictures of a classifier of points in the plane: its regions, and how they change during training."""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import check_count, check_shape, positive
from funcnet.errors import ConfigError, DataError, ShapeError
from funcnet.made import leading
from funcnet.plotting.checks import check_class_names, check_class_numbers
from funcnet.plotting.figures import CYCLE, new_figure, saved
from funcnet.types import Layer, Params, Report, State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["decision_boundary", "decision_boundary_gif"]


def decision_boundary(
    model: Layer, params: Params, state: State, x: Any, labels: Any, path: str | os.PathLike[str] | None = None,
    *, class_names: Sequence[str] | None = None, threshold: float = 0.0, resolution: int = 200,
) -> "Figure":  # fmt: skip
    """The regions of the plane that a classifier gives to the classes, and points in the colours of their true classes.

    A ring marks each point that lies in the region of another class.

    Args:
        model: a classifier of two features, with one output per class, or with a single output for two classes.
        params, state: of the model.
        x: (n, 2), the points.
        labels: (n,), integers from 0.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        class_names: one name per class; by default the numbers from 0.
        threshold: for a model with a single output. The class is 1 above it. Use 0 for a logit, 0.5 for a probability.
        resolution: points along each side at which the model is computed.

    Raises:
        ShapeError: points, labels, names or outputs of another shape.
        LabelError: labels that are negative or not integers.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> x, labels = jnp.array([[-1.0, 0.0], [1.0, 0.0], [2.0, 0.5]]), jnp.array([0, 1, 0])
    >>> params = {"kernel": jnp.array([[1.0], [0.0]]), "bias": jnp.zeros(1)}  # 1 on the right
    >>> figure = fn.plotting.decision_boundary(fn.layers.dense(1), params, (), x, labels)
    >>> figure.axes[0].get_title()
    '66.7% of 3 points'
    """
    canvas = _Canvas("decision_boundary", model, x, labels, class_names, threshold, resolution)
    right = canvas.show(params, state)
    canvas.axes.set_title(f"{right:.1%} of {len(canvas.x)} points", fontsize="medium")
    return saved(canvas.figure, path)


def decision_boundary_gif(
    model: Layer, reports: Iterable[Report], x: Any, labels: Any, path: str | os.PathLike[str],
    *, class_names: Sequence[str] | None = None, threshold: float = 0.0, resolution: int = 120, fps: float = 5.0,
) -> "Figure":  # fmt: skip
    """`decision_boundary` during training: an animated GIF with one frame per report. The last frame stays longer.

    Args:
        model, x, labels, class_names, threshold, resolution: as for `decision_boundary`.
        reports: for example of `training.fit`. An iterator is used up.
        path: the file, `.gif`.
        fps: frames per second.

    Returns:
        The last frame.

    Raises:
        DataError: no reports.
        ConfigError: a path with another ending.
        what `decision_boundary` raises.

    >>> import tempfile, jax.numpy as jnp, numpy as np, funcnet as fn
    >>> x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    >>> labels, model, loss = (x[:, 0] > 0).astype(np.int32), fn.layers.dense(2), fn.losses.softmax_cross_entropy
    >>> reports = fn.training.fit(model, loss, fn.optimizers.sgd(1.0), (x, labels), epochs=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     last = fn.plotting.decision_boundary_gif(model, reports, x, labels, f"{folder}/boundary.gif", resolution=20)
    >>> last.axes[0].get_title()[:8]
    'epoch 3:'
    """
    if os.path.splitext(path)[1] != ".gif":
        raise ConfigError(f"decision_boundary_gif: expected a path that ends with .gif, got {os.fspath(path)!r}.")
    with leading("decision_boundary_gif"):
        fps = positive("fps", fps)
    canvas = _Canvas("decision_boundary_gif", model, x, labels, class_names, threshold, resolution)
    images = []
    for report in reports:
        right = canvas.show(report.state.optimizer.params, report.state.model)
        canvas.axes.set_title(f"epoch {report.epoch}: {right:.1%} of {len(canvas.x)} points", fontsize="medium")
        images.append(canvas.image())
    if not images:
        raise DataError("decision_boundary_gif: expected reports, such as those of training.fit, got none.")
    _save_gif(images, path, [round(1000 / fps)] * (len(images) - 1) + [2000])
    return canvas.figure


def _save_gif(images: list[np.ndarray], path: str | os.PathLike[str], milliseconds: list[int]) -> None:
    """Save all frames with one palette, so that each stores only its differences from the frame before."""
    from PIL import Image

    height, width, _ = images[0].shape
    strip = Image.fromarray(np.concatenate(images)).quantize(32, dither=Image.Dither.NONE)
    first, *rest = (strip.crop((0, i * height, width, (i + 1) * height)) for i in range(len(images)))
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, optimize=True)


class _Canvas:
    """A figure with the points. Its regions can be drawn again for other parameters."""

    def __init__(self, name, model, x, labels, class_names, threshold, resolution):
        self.x, self.labels = _checked(name, x, labels)
        with leading(name):
            resolution = check_count("resolution", resolution)
        names = class_names or [str(i) for i in range(int(self.labels.max()) + 1)]
        with leading(name):
            check_class_names(names, self.labels.max())
        self.figure = new_figure(name, 4.8, 3.6)
        self.axes: Axes = self.figure.subplots()
        low, high = self.x.min(0), self.x.max(0)
        room = 0.08 * np.where(high > low, high - low, 1)
        sides = [
            np.linspace(a, b, resolution, dtype=self.x.dtype) for a, b in zip(low - room, high + room, strict=True)
        ]
        self.grid = jnp.stack(jnp.meshgrid(*map(jnp.asarray, sides)), -1)
        (left, right), (bottom, top) = ((side[0], side[-1]) for side in sides)
        blank = np.ones((resolution, resolution, 3))
        self.regions = self.axes.imshow(
            blank, extent=(left, right, bottom, top), origin="lower", aspect="auto", interpolation="nearest"
        )
        (self.rings,) = self.axes.plot([], [], "o", color="black", markersize=8, fillstyle="none", markeredgewidth=0.9)
        for i, word in enumerate(names):
            at = self.x[self.labels == i]
            self.axes.plot(*at.T, "o", color=_colour(i), markersize=4.5, markeredgecolor="white", markeredgewidth=0.5,
                           label=word)  # fmt: skip
        self.axes.set(xlabel="x₁", ylabel="x₂", xlim=(left, right), ylim=(bottom, top))
        self.figure.legend(loc="outside right upper", frameon=False, title="class")

        def classes(params, state, x):
            y, _ = model.apply(params, state, x)
            with leading(name):
                check_shape(
                    "the model's output", y, "(n, classes)", "give one output per class, or one for two classes"
                )
            return y.argmax(1) if y.shape[1] > 1 else (y[:, 0] > threshold).astype(jnp.int32)

        self.classes = jax.jit(classes)

    def show(self, params: Params, state: State) -> float:
        """Draw the regions, and return the share of the points that lie in the region of their class."""
        there = np.asarray(self.classes(params, state, self.grid.reshape(-1, 2))).reshape(self.grid.shape[:2])
        pale = np.array([0.72 + 0.28 * np.array(_rgb(i)) for i in range(int(there.max()) + 1)])
        self.regions.set_data(pale[there])
        wrong = np.asarray(self.classes(params, state, jnp.asarray(self.x))) != self.labels
        self.rings.set_data(*self.x[wrong].T)
        return 1 - float(wrong.mean())

    def image(self) -> np.ndarray:
        """The figure as pixels, (height, width, 3)."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3]


def _checked(name: str, x: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    points, labels = np.array(x), np.array(labels)  # copies: a GIF is drawn over a whole training
    points = points if np.issubdtype(points.dtype, np.floating) else points.astype(np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ShapeError(f"{name}: expected x of shape (n, 2), points in the plane, got {points.shape}.")
    with leading(name):
        check_class_numbers("labels", labels, len(points))
    return points, labels


def _colour(i: int) -> str:
    return CYCLE[i % len(CYCLE)]


def _rgb(i: int) -> tuple[float, ...]:
    return tuple(int(_colour(i)[j : j + 2], 16) / 255 for j in (1, 3, 5))
