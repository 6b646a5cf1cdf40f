"""Pictures of training: learning curves and the confusion matrix."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.errors import DataError, ShapeError
from funcnet.plotting.figures import BLUE, GREY, PALE_GREY, VERMILION, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix", "learning_curves"]

_COLOURS = {"train": BLUE, "validation": VERMILION, "rate": GREY}
_READABLE_CLASSES = 25
_TITLES = {"loss": "loss", "accuracy": "accuracy", "r_squared": "R²"}  # of the metrics that are drawn


def learning_curves(
    history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str] | None = None, *, kept: int | None = None
) -> "Figure":
    """Loss, and accuracy or R² if they are reported, in training and validation, with a mark at the best epoch.

    The best epoch has the smallest validation loss. The learning rate is drawn below, if it is reported.

    Args:
        history: one dictionary of scalars per report, `{"epoch": 1, "loss": …, "accuracy": …, "validation_loss": …,
            "validation_accuracy": …, "learning_rate": …}`, as `logs.scalars` makes them. A report may lack any of
            them, and other keys than these and `"r_squared"` are ignored. Without `"epoch"`, or with several reports
            per epoch, the axis shows `"step"`. Without that it shows the number of the report.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        kept: the epoch whose weights were kept, or the step or report if these are on the axis. The mark is there, and
            not at the best one.

    Raises:
        DataError: no report has a loss, or none is of the time that was `kept`.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import funcnet as fn
    >>> history = [{"epoch": 1, "loss": 2.0, "validation_loss": 2.1}, {"epoch": 2, "loss": 1.0, "validation_loss": 1.5}]
    >>> figure = fn.plotting.learning_curves(history)
    >>> [line.get_ydata().tolist() for line in figure.axes[0].lines[:2]]
    [[2.0, 1.0], [2.1, 1.5]]
    """
    reported = {key for report in history for key in report}
    metrics = [metric for metric in _TITLES if reported & {metric, f"validation_{metric}"}]
    if "loss" not in metrics:
        raise DataError(
            'learning_curves: expected reports with a "loss" or "validation_loss", '
            f'got {len(history)} without; collect {{"epoch": report.epoch, **report.metrics}} from training.fit.'
        )
    unit, at = _places(history)
    marked, word = _best(_series(at, history, "validation_loss")), "best"
    if kept is not None:
        if kept not in at:
            raise DataError(f"learning_curves: expected kept to be one of the {unit}s of the reports, got {kept!r}.")
        marked, word = kept, "weights of"
    rate = _series(at, history, "learning_rate")
    figure = new_figure("learning_curves", 4.6 * len(metrics), 4.7 if rate else 3.4)
    grid = figure.add_gridspec(2 if rate else 1, len(metrics), height_ratios=(3.4, 1.1) if rate else None)
    for i, metric in enumerate(metrics):
        axes = figure.add_subplot(grid[0, i])
        curves = {"train": _series(at, history, metric), "validation": _series(at, history, f"validation_{metric}")}
        _draw_panel(axes, metric, unit, curves)
        if marked is not None and len(history) > 1:
            _mark(axes, metric, f"{word} {unit} {marked}", marked, curves["validation"])
        _label_ends(axes, curves)
    if rate:
        axes = figure.add_subplot(grid[1, :])
        _draw_panel(axes, "learning rate", unit, {"rate": rate})
        axes.set_ylim(bottom=0)
        axes.set_yticks([0, max(rate.values())], ["0", f"{max(rate.values()):.3g}"])
    return saved(figure, path)


def confusion_matrix(
    matrix: Any, class_names: Sequence[str] | None = None, path: str | os.PathLike[str] | None = None
) -> "Figure":
    """How often each true class (row) was predicted as each class (column).

    Cells hold counts. Their colour is their share of the row, so that rare classes show as well as common ones. With
    more than 25 classes only the colours are drawn.

    Args:
        matrix: (classes, classes), counts, for example from `metrics.confusion_matrix`.
        class_names: one name per class; by default the numbers from 0.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.

    Raises:
        ShapeError: the matrix is not square, or the number of names is another.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import funcnet as fn
    >>> figure = fn.plotting.confusion_matrix([[8, 2], [1, 9]], ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['8', '2', '1', '9']
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ShapeError(f"confusion_matrix: expected a matrix of shape (classes, classes), got {counts.shape}.")
    n = len(counts)
    names = [str(i) for i in range(n)] if class_names is None else [str(name) for name in class_names]
    if len(names) != n:
        raise ShapeError(f"confusion_matrix: expected {n} class_names, one per row of the matrix, got {len(names)}.")
    side = 0.48 * min(max(n, 4), _READABLE_CLASSES)
    figure = new_figure("confusion_matrix", side + 1.9, side + 0.9)
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, label="share of the true class", format="{x:.0%}", fraction=0.04, pad=0.03)
    bar.outline.set_visible(False)
    _label_classes(axes, names)
    if n <= _READABLE_CLASSES:
        _write_counts(axes, counts, share)
    return saved(figure, path)


def _places(history: Sequence[Mapping[str, Any]]) -> tuple[str, list[int]]:
    """The unit of the x axis, and the place of each report: its epoch or step if all differ, else its number."""
    for unit in ("epoch", "step"):
        at = [int(report.get(unit, -1)) for report in history]
        if len(set(at)) == len(history):
            return unit, at
    return "report", list(range(1, len(history) + 1))


def _series(at: list[int], history: Sequence[Mapping[str, Any]], key: str) -> dict[int, float]:
    """The values of a quantity, by place, where it was reported."""
    return {x: float(report[key]) for x, report in zip(at, history, strict=True) if key in report}


def _best(losses: dict[int, float]) -> int | None:
    """The place of the smallest loss; `None` if no loss is finite."""
    finite = {x: loss for x, loss in losses.items() if np.isfinite(loss)}
    return min(finite, key=finite.__getitem__, default=None)


def _draw_panel(axes: "Axes", metric: str, unit: str, curves: dict[str, dict[int, float]]) -> None:
    from matplotlib.ticker import PercentFormatter

    for label, curve in curves.items():
        if curve:
            options = {"color": _COLOURS[label], "linewidth": 1.8, "marker": "o" if len(curve) == 1 else ""}
            axes.plot(list(curve), list(curve.values()), label=label, **options)
    axes.set_title(_TITLES.get(metric, metric), loc="left")
    axes.set_xlabel(unit)
    axes.locator_params("x", integer=True, min_n_ticks=1)
    places = [place for curve in curves.values() for place in curve]
    if len(set(places)) > 1:
        margin = 0.03 * (max(places) - min(places))
        axes.set_xlim(min(places) - margin, max(places) + margin)
    axes.grid(axis="y", color=PALE_GREY, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if metric == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1))


def _mark(axes: "Axes", metric: str, text: str, place: int, curve: dict[int, float]) -> None:
    """A line through an epoch, a dot on the validation curve, and its value where the panel is empty."""
    left, right = axes.get_xlim()
    side = -1 if place > (left + right) / 2 else 1
    axes.axvline(place, color=GREY, linestyle=":", linewidth=1)
    if place in curve:
        axes.plot([place], [curve[place]], "o", color=_COLOURS["validation"], markersize=5)
        text += f"\n{curve[place]:.2%}" if metric == "accuracy" else f"\n{curve[place]:.4g}"
    # The best loss is low and the best accuracy or R² high, so there is room at the other end of the line.
    height = 0.98 if metric == "loss" else 0.03
    axes.annotate(
        text,
        (place, height),
        xycoords=axes.get_xaxis_transform(),
        xytext=(4 * side, 0),
        textcoords="offset points",
        ha="right" if side < 0 else "left",
        va="top" if metric == "loss" else "bottom",
        color=GREY,
        fontsize="small",
    )


def _label_ends(axes: "Axes", curves: dict[str, dict[int, float]]) -> None:
    """Write the name of each curve at its end, instead of a legend. Two names that would touch are moved apart."""
    low, high = axes.get_ylim()
    ends = {label: list(curve.items())[-1] for label, curve in curves.items() if curve}
    heights = [(y - low) / (high - low) * 190 for _, y in ends.values()]  # about, in points
    push = max(0.0, 13 - abs(heights[0] - heights[-1])) / 2 if len(heights) == 2 else 0.0
    for (label, end), height in zip(ends.items(), heights, strict=True):
        up = 1 if height >= max(heights) else -1
        axes.annotate(
            label,
            end,
            xytext=(6, up * push),
            textcoords="offset points",
            va="center",
            color=_COLOURS[label],
            annotation_clip=False,
        )


def _label_classes(axes: "Axes", names: list[str]) -> None:
    turned = max(map(len, names)) > 4
    shown = slice(None, None, -(-len(names) // _READABLE_CLASSES))
    ticks, words = range(len(names))[shown], names[shown]
    axes.set_xticks(ticks, words, rotation=45 if turned else 0, ha="right" if turned else "center")
    axes.set_yticks(ticks, words)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _write_counts(axes: "Axes", counts: np.ndarray, share: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.5 else "black" if count else "#BBBBBB"
        axes.text(column, row, f"{count:g}", ha="center", va="center", color=colour, fontsize="small")
