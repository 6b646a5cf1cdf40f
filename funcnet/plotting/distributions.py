"""Histograms of parameters, gradients or updates, leaf by leaf."""

import math
import os
from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.checks import check_count, describe
from funcnet.errors import DataError
from funcnet.made import leading
from funcnet.plotting.figures import CYCLE, new_figure, saved
from funcnet.trees import check_same_structure, flatten_with_paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["histograms"]

_COLUMNS = 4


def histograms(
    trees: Mapping[str, Any], path: str | os.PathLike[str] | None = None, *, bins: int = 40, most: int = 24
) -> "Figure":
    """The numbers of each leaf as a histogram: one panel per leaf, with one line per tree.

    Parameters at several epochs show where they move. Updates, the differences between two steps, show how far. The
    title of a panel counts the numbers that are not finite.

    Args:
        trees: name -> tree of arrays, all of one structure: parameters, gradients, or differences of parameters.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        bins: how many at most, over the range of all trees. A leaf of n numbers gets at most 2 √n.
        most: how many leaves are drawn.

    Raises:
        DataError: no trees, or trees without numbers.
        StructureError: trees that differ in their leaves.
        ConfigError: `bins` or `most` is not a positive integer.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> params, _ = fn.models.mlp((16, 4)).init(jax.random.key(0), jnp.ones((1, 8)))
    >>> figure = fn.plotting.histograms({"at the start": params, "halved": jax.tree.map(lambda leaf: leaf / 2, params)})
    >>> [axes.get_title() for axes in figure.axes]
    ['0/bias', '0/kernel', '2/bias', '2/kernel']
    """
    with leading("histograms"):
        bins, most = check_count("bins", bins), check_count("most", most)
    if not isinstance(trees, Mapping) or not trees:
        raise DataError(f"histograms: expected a dictionary of trees by name, got {describe(trees)}.")
    names = list(trees)
    for name in names[1:]:
        with leading("histograms"):
            check_same_structure(names[0], trees[names[0]], name, trees[name])
    leaves = {name: dict(flatten_with_paths(tree)) for name, tree in trees.items()}
    paths = [path for path, leaf in leaves[names[0]].items() if np.size(leaf)]
    if not paths:
        raise DataError("histograms: expected trees with numbers, got trees without any.")
    shown = paths[:most]
    columns = min(_COLUMNS, math.ceil(math.sqrt(len(shown))))
    rows = -(-len(shown) // columns)
    figure = new_figure("histograms", max(4.5, 2.4 * columns + 0.3), 1.7 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, leaf in zip(panels, shown, strict=False):
        _draw(axes, leaf, {name: leaves[name][leaf] for name in names}, bins)
    for unused in panels[len(shown) :]:
        unused.remove()
    figure.supylabel("share of the numbers in a bin", fontsize="small")
    if len(paths) > len(shown):
        figure.supxlabel(f"the first {len(shown)} of {len(paths)} leaves", fontsize="small")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False, fontsize="small"
    )
    return saved(figure, path)


def _draw(axes: Any, leaf: str, values: dict[str, Any], bins: int) -> None:
    """Draw one panel. It shows shares, so that trees can be compared."""
    numbers = {name: np.asarray(value).astype(float).ravel() for name, value in values.items()}
    finite = {name: value[np.isfinite(value)] for name, value in numbers.items()}
    everything = np.concatenate(list(finite.values()))
    low, high = (everything.min(), everything.max()) if everything.size else (0.0, 1.0)
    room = (high - low or abs(high) or 1) * 1e-6
    bins = min(bins, math.ceil(2 * math.sqrt(np.size(next(iter(values.values()))))))
    edges = np.linspace(low - room, high + room, bins + 1)
    for (name, value), colour in zip(finite.items(), cycle(CYCLE), strict=False):
        counts, _ = np.histogram(value, edges)
        axes.stairs(counts / max(1, len(value)), edges, color=colour, linewidth=1.2, label=name)
    lost = sum(value.size for value in numbers.values()) - everything.size
    axes.set_title(f"{leaf}, {lost} not finite" if lost else leaf, fontsize="small")
    axes.tick_params(labelsize="x-small")
    axes.locator_params("x", nbins=4)
    axes.locator_params("y", nbins=3)
    axes.spines[["top", "right"]].set_visible(False)
