"""Pictures of predicted numbers."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.checks import check_same_shape, check_shape, check_values
from funcnet.errors import DataError
from funcnet.made import leading
from funcnet.plotting.figures import BLUE, GREY, PALE_GREY, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["predicted_values"]

_COLUMNS = 3


def predicted_values(
    targets: Any,
    predictions: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    names: Sequence[str] | None = None,
) -> "Figure":
    """Each prediction of a regression over its target. A perfect one lies on the line.

    Above each panel is the root mean squared error, √(Σ (p − t)² / n), in the units of the target.

    Args:
        targets, predictions: (n,) or (n, outputs), numbers.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        names: one per output; by default the numbers from 0.

    Raises:
        ShapeError: arrays of other or different shapes, or another number of names.
        DataError: no rows, or numbers that are not finite.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import funcnet as fn
    >>> figure = fn.plotting.predicted_values([1.0, 2.0, 4.0], [1.0, 2.0, 1.0], names=["price"])
    >>> print(figure.axes[0].get_title("left"))
    price: error 1.732
    """
    with leading("predicted_values"):
        t, p = (np.asarray(values, np.float64) for values in (targets, predictions))
        check_same_shape(p, t)
        if t.ndim == 1:
            t, p = t[:, None], p[:, None]
        check_shape("targets", t, "(n, outputs)", "give one column per output")
        if not t.size:
            raise DataError(f"expected at least one row and one output, got shape {t.shape}.")
        for what, values in (("targets", t), ("predictions", p)):
            check_values(DataError, f"{what} that are finite", values, None, np.isfinite, "leave these rows out")
        outputs = t.shape[1]
        words = [str(name) for name in (range(outputs) if names is None else names)]
        check_shape("names", words, f"({outputs},)", "give one per output")
    columns = min(outputs, _COLUMNS)
    rows = -(-outputs // columns)
    figure = new_figure("predicted_values", 3.6 * columns, 3.5 * rows)
    for i, name in enumerate(words):
        axes = figure.add_subplot(rows, columns, i + 1)
        ends = [min(t[:, i].min(), p[:, i].min()), max(t[:, i].max(), p[:, i].max())]
        axes.plot(ends, ends, color=GREY, linewidth=1)
        axes.plot(t[:, i], p[:, i], "o", color=BLUE, markersize=4, alpha=0.5, markeredgewidth=0)
        axes.set_title(f"{name}: error {np.sqrt(np.mean((p[:, i] - t[:, i]) ** 2)):.4g}", loc="left", fontsize="medium")
        axes.set(xlabel="target", ylabel="predicted")
        axes.grid(color=PALE_GREY, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    return saved(figure, path)
