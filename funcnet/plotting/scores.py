"""Pictures of precision, recall and F1."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.checks import check_count, check_shape, check_values, describe
from funcnet.errors import DataError, StructureError
from funcnet.made import leading
from funcnet.plotting.figures import CYCLE, PALE_GREY, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["class_scores"]

_MARKERS = {"precision": ">", "recall": "<", "F1": "o"}


def class_scores(
    scores: Any, path: str | os.PathLike[str] | None = None, *, names: Sequence[str] | None = None, most: int = 50
) -> "Figure":
    """Precision, recall and F1 of each class or label: one line each, with F1 between the other two.

    A class with high precision and low recall is named too seldom, one with low precision and high recall too often.
    Above the picture is the mean of F1.

    Args:
        scores: the value of `metrics.precision_recall_f1`, or three arrays (classes,) in this order, from 0 to 1.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        names: one per class; by default the numbers from 0.
        most: how many classes are drawn. The mean is that of all.

    Raises:
        StructureError: other than three arrays.
        ShapeError: arrays of other or different shapes, or another number of names.
        DataError: no class, or numbers outside 0 to 1.
        ConfigError: `most` is not a positive integer.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> metric = fn.metrics.precision_recall_f1(2)
    >>> prediction = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    >>> scores = metric.compute(metric.update(metric.init(), prediction, jnp.array([1, 0, 0])))
    >>> figure = fn.plotting.class_scores(scores, names=["cat", "dog"])
    >>> print(figure.axes[0].get_title("left"))
    mean F1 of 2: 0.6667
    """
    with leading("class_scores"):
        most = check_count("most", most)
        if not isinstance(scores, Sequence) or len(scores) != len(_MARKERS):
            fix = "give the value of metrics.precision_recall_f1"
            raise StructureError(f"expected precision, recall and F1, got {describe(scores)}; {fix}.")
        values = dict(zip(_MARKERS, (np.asarray(score, np.float64) for score in scores), strict=True))
        classes = values["F1"].size
        if not classes:
            raise DataError("expected at least one class, got none.")
        for what, score in values.items():
            check_shape(what, score, f"({classes},)", "give one number per class")
            check_values(DataError, f"{what} from 0 to 1", score, None, lambda v: (v >= 0) & (v <= 1), "give shares")
        words = [str(name) for name in (range(classes) if names is None else names)]
        check_shape("names", words, f"({classes},)", "give one per class")
    shown = min(classes, most)
    figure = new_figure("class_scores", 6.4, 1.2 + 0.3 * shown)
    axes = figure.add_subplot()
    heights = np.arange(shown)
    ends = np.stack([values[what][:shown] for what in _MARKERS])
    axes.hlines(heights, ends.min(0), ends.max(0), color=PALE_GREY, linewidth=4, zorder=1)
    for (what, marker), colour in zip(_MARKERS.items(), CYCLE, strict=False):
        axes.plot(values[what][:shown], heights, marker, color=colour, markersize=6, label=what, clip_on=False)
    axes.set_yticks(heights, words[:shown])
    axes.set(xlim=(0, 1), ylim=(shown - 0.5, -0.5))
    axes.set_title(f"mean F1 of {classes}: {values['F1'].mean():.4g}", loc="left", fontsize="medium")
    axes.grid(axis="x", color=PALE_GREY, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=8)  # points: half a marker at 0, and as much again
    if shown < classes:
        axes.set_xlabel(f"the first {shown} of {classes} classes")
    figure.legend(loc="outside lower center", ncols=len(_MARKERS), frameon=False, fontsize="small")
    return saved(figure, path)
