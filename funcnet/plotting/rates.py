"""The picture of a search for a learning rate."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.checks import describe
from funcnet.errors import DataError
from funcnet.plotting.figures import BLUE, GREY, PALE_GREY, VERMILION, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["rate_search"]


def rate_search(search: Any, path: str | os.PathLike[str] | None = None) -> "Figure":
    """The loss by learning rate, with the suggested rate and the rate beyond which the loss rises.

    Args:
        search: of `training.find_learning_rate`.
        path: where to save the figure, if anywhere; the ending gives the format, such as `.png`.

    Raises:
        DataError: something else than the result of a search.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import funcnet as fn
    >>> model, loss, data = fn.models.mlp((8, 10)), fn.losses.softmax_cross_entropy, fn.data.digits()
    >>> found = fn.training.find_learning_rate(model, loss, fn.optimizers.sgd(1.0), data, batch_size=64)
    >>> figure = fn.plotting.rate_search(found)
    >>> bool((figure.axes[0].lines[0].get_xdata() == found.rates).all())
    True
    """
    if not hasattr(search, "smoothed"):
        got = f"{describe(search)}; give the result of training.find_learning_rate"
        raise DataError(f"rate_search: expected a search for a learning rate, got {got}.")
    figure = new_figure("rate_search", 6.4, 3.4)
    axes = figure.subplots()
    axes.plot(search.rates, search.losses, color=PALE_GREY, linewidth=1.2)
    axes.plot(search.rates, search.smoothed, color=BLUE, linewidth=1.8)
    low, high = np.min(search.smoothed), np.max(search.smoothed)
    axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
    for rate, word, colour in ((search.rate, "rate", VERMILION), (search.limit, "rises", GREY)):
        if rate is not None:
            axes.axvline(rate, color=colour, linestyle=":", linewidth=1.2)
            axes.annotate(
                f"{word} {rate:.2g}", (rate, 0.98), xycoords=axes.get_xaxis_transform(), xytext=(-4, 0),
                textcoords="offset points", ha="right", va="top", color=colour, fontsize="small",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set(xlabel="learning rate", ylabel="loss")
    axes.grid(axis="y", color=PALE_GREY, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return saved(figure, path)
