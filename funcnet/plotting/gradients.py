"""Pictures of gradients: their errors by leaf, and their size by layer."""

import os
from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.errors import DataError
from funcnet.plotting.figures import BLUE, CYCLE, GREY, PALE_GREY, RED, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["gradient_errors", "gradient_flow"]

_GRADIENT = {"linestyle": "-", "linewidth": 1.8, "marker": "o", "markersize": 3}
_OUTPUT = {"linestyle": (0, (4, 2)), "linewidth": 1.2, "marker": "o", "markersize": 1.2}
_DTYPES = {"float32": "#E69F00", "float16": "#009E73", "bfloat16": "#CC79A7"}
_EPSILONS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_ENGINES = {  # markers, and colours in float64
    ("backprop", "autodiff"): ("o", BLUE),
    ("backprop", "numeric"): ("D", "#56B4E9"),
    ("autodiff", "numeric"): ("^", GREY),
}


def gradient_flow(traces: Any, path: str | os.PathLike[str] | None = None) -> "Figure":
    """The root mean squares of each layer's output and of the gradient that arrives there, by depth.

    The scale is logarithmic, so on a straight line gradients shrink or grow by the same factor per layer. A cross at
    the bottom marks a layer whose gradient is 0. A cross at the top marks a layer whose gradient is not finite.

    Args:
        traces: a `checking.Trace`, or a dictionary of them by name, to compare networks or epochs.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.

    Raises:
        DataError: neither a trace nor a dictionary of traces.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    References: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
    2010, figures 6 and 7.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, batch = fn.models.mlp((8, 1)), (jnp.ones((4, 3)), jnp.ones((4, 1)))
    >>> params, state = model.init(jax.random.key(0), batch[0])
    >>> trace = fn.checking.trace_backward(model, fn.losses.mean_squared_error)(params, state, batch)
    >>> figure = fn.plotting.gradient_flow({"at the start": trace})
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['at the start', ' ', 'gradient ∂loss/∂y', 'output y']
    """
    named = traces if isinstance(traces, Mapping) else {"": traces}
    if not named or not all(hasattr(trace, "places") for trace in named.values()):
        raise DataError(
            "gradient_flow: expected a Trace or a dictionary of them, "
            f"got {type(traces).__name__ if named else 'an empty one'}; make one with checking.trace_backward."
        )
    figure = new_figure("gradient_flow", 7.2, 3.2)
    axes = figure.subplots()
    axes.set_yscale("log")
    for (name, trace), colour in zip(named.items(), cycle(CYCLE), strict=False):
        _draw_flow(axes, name, trace, colour)
    if any(named):
        axes.plot([], [], " ", label=" ")  # a space between the names and the styles
    neutral = GREY if any(named) else CYCLE[0]
    axes.plot([], [], color=neutral, label="gradient ∂loss/∂y", **_GRADIENT)
    axes.plot([], [], color=neutral, label="output y", **_OUTPUT)
    axes.set_xlabel("layer")
    axes.set_ylabel("root mean square")
    axes.locator_params("x", integer=True, min_n_ticks=1)
    axes.grid(axis="y", color=PALE_GREY, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, labelcolor="linecolor")
    return saved(figure, path)


def _draw_flow(axes: "Axes", name: str, trace: Any, colour: str) -> None:
    """Two lines through the values that have a logarithm, and crosses for gradients that have none."""
    layers = np.arange(len(trace.places))
    for rms, style, label in ((trace.dy.rms, _GRADIENT, name or None), (trace.y.rms, _OUTPUT, None)):
        rms = np.asarray(rms)
        axes.plot(layers, np.where(np.isfinite(rms) & (rms > 0), rms, np.nan), color=colour, label=label, **style)
    for height, there in ((0, np.asarray(trace.dy.rms) == 0), (1, np.asarray(trace.dy.nonfinite) >= 0)):
        if there.any():
            at = {"transform": axes.get_xaxis_transform(), "clip_on": False}
            axes.plot(layers[there], np.full(there.sum(), height), "x", color=colour, **at)


def gradient_errors(
    reports: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    tolerance: float = 1e-10,
    numeric_tolerance: float = 1e-6,
) -> "Figure":
    """How far apart engines are in a gradient check: one line per leaf, in bands by layer, on a logarithmic scale.

    Each pair of engines has its own marker. The colour shows the pair in float64, and otherwise the dtype. Errors are
    norm-relative. A mark at 0 means that the engines agree to the last bit. A ring marks what the check called wrong.

    Args:
        reports: a report of `checking.check_gradients`, or several by name, which get one line each.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        tolerance, numeric_tolerance: the largest errors that the check allowed, by hand against autodiff and against
            finite differences. A line of the pair's colour is drawn at each, if the reports have such rows. A gradient
            that is 0 but for rounding may be right beyond it. Shorter dtypes have no such number. Dotted lines stand at
            their ε.

    Raises:
        DataError: no reports.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> report = fn.checking.check_gradients(fn.layers.dense(2), jax.ShapeDtypeStruct((3, 4), jnp.float32))
    >>> axes = fn.plotting.gradient_errors(report).axes[0]
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['x', 'bias', 'kernel']
    """
    lines = _lines(reports)
    if not lines:
        raise DataError("gradient_errors: expected a report of checking.check_gradients, or several, got none.")
    figure = new_figure("gradient_errors", 7.6, 1.3 + 0.3 * len(lines))
    axes = figure.subplots()
    rows = [row for line in lines.values() for row in line]
    low, high = _limits([row.error for row in rows])
    kinds = list(dict.fromkeys((row.dtype, row.engines) for row in rows))
    for i, kind in enumerate(kinds):
        shift = (i - (len(kinds) - 1) / 2) * 0.6 / len(kinds)  # side by side on their line, not on top of each other
        _draw_marks(axes, kind, [(y + shift, r) for y, line in enumerate(lines.values()) for r in line], low, high)
    _mark_tolerances(axes, tolerance, numeric_tolerance, kinds)
    if not all(row.ok for row in rows):
        place = f": {reports.located[0]}" if getattr(reports, "located", ()) else ""
        axes.plot([], [], "o", color=RED, fillstyle="none", markersize=9, label=f"wrong{place}")
    _band_lines(axes, lines)
    _label_errors(axes, low, high, zeros=any(row.error == 0 for row in rows))
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize="small", handletextpad=0.2)
    return saved(figure, path)


def _lines(reports: Any) -> dict[str, list[Any]]:
    """The rows of each line. A line is a leaf, the input first, or a report."""
    if isinstance(reports, Mapping):
        return {name: list(report.rows) for name, report in reports.items()}
    lines: dict[str, list[Any]] = {}
    for row in sorted(reports.rows, key=lambda row: row.leaf.startswith("params")):
        lines.setdefault(row.leaf.removeprefix("params/"), []).append(row)
    return lines


def _limits(errors: list[float]) -> tuple[float, float]:
    """Where 0 and ∞ are drawn."""
    known = [error for error in errors if 0 < error < np.inf]
    return min([1e-16, *known]) / 10, 10 * max([1.0, *known])


def _draw_marks(axes: "Axes", kind: tuple[str, tuple[str, str]], places: list[Any], low: float, high: float) -> None:
    dtype, engines = kind
    shown = [
        (np.clip(np.nan_to_num(row.error, nan=high), low, high), y, row.ok)
        for y, row in places
        if (row.dtype, row.engines) == kind
    ]
    marks = {"linestyle": "", "clip_on": False, "zorder": 3}
    x, y, _ = zip(*shown, strict=True)
    label = f"{engines[0]} / {engines[1]}, {dtype}"
    shape, colour = _ENGINES[engines]
    colour = colour if dtype == "float64" else _DTYPES[dtype]
    axes.plot(x, y, shape, color=colour, markersize=5, alpha=0.85, label=label, **marks)
    for x, y, ok in shown:
        if not ok:
            axes.plot(x, y, "o", color=RED, fillstyle="none", markersize=9, **marks)


def _mark_tolerances(
    axes: "Axes", tolerance: float, numeric_tolerance: float, kinds: list[tuple[str, tuple[str, str]]]
) -> None:
    lines = []
    for x, name, engines, side in (
        (tolerance, "autodiff", ("backprop", "autodiff"), "center"),
        (numeric_tolerance, "differences", ("backprop", "numeric"), "left"),  # the ε of float32 stands left of it
    ):
        if ("float64", engines) in kinds:
            axes.axvline(x, color=_ENGINES[engines][1], linestyle="--", linewidth=1)
            lines.append((x, f"tolerance\nof {name}\n{x:.0e}", side))
    for dtype in dict.fromkeys(dtype for dtype, _ in kinds if dtype in _EPSILONS):
        axes.axvline(_EPSILONS[dtype], color=_DTYPES[dtype], linestyle=":", linewidth=1)
        lines.append((_EPSILONS[dtype], f"ε {dtype}", "center"))
    for x, word, side in lines:
        axes.annotate(
            word,
            (x, 1),
            (0, 2),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            fontsize="x-small",
            color=GREY,
            ha=side,
            va="bottom",
        )


def _band_lines(axes: "Axes", lines: dict[str, list[Any]]) -> None:
    """Write the names of the lines, those that fail in red. The leaves of every second layer stand on grey."""
    names = list(lines)
    layers = [name.rpartition("/")[0] for name in names]
    shaded = False
    for y, layer in enumerate(layers):
        shaded ^= y > 0 and layer != layers[y - 1]
        if shaded:
            axes.axhspan(y - 0.5, y + 0.5, color=PALE_GREY, alpha=0.5, linewidth=0, zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)  # the first on top
    for text, line in zip(axes.get_yticklabels(), lines.values(), strict=True):
        if not all(row.ok for row in line):
            text.set(color=RED, weight="bold")
    axes.tick_params("y", length=0)


def _label_errors(axes: "Axes", low: float, high: float, zeros: bool) -> None:
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    exponents = range(-16, int(np.log10(high)) + 1, 4)
    ticks = {10.0**n: f"1e{n}" if n else "1" for n in exponents} | ({low: "0"} if zeros else {})
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel("norm-relative error (left of the line of their colour, engines agree)")
    axes.grid(axis="x", color=PALE_GREY, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
