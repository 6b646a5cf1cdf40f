"""Pictures: learning curves, the confusion matrix, and gradients through the layers.

Figures are made with matplotlib's objects and not with pyplot, so there is no global state, no window opens, and no
display is needed. Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.errors import DataError, MissingExtraError, ShapeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix", "gradient_errors", "gradient_flow", "learning_curves"]

_COLOURS = {"train": "#0072B2", "validation": "#D55E00"}
_CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GRADIENT = {"linestyle": "-", "linewidth": 1.8, "marker": "o", "markersize": 3}
_OUTPUT = {"linestyle": (0, (4, 2)), "linewidth": 1.2, "marker": "o", "markersize": 1.2}
_GREY, _PALE_GREY = "#6E6E6E", "#E3E3E3"
_READABLE_CLASSES = 25
_RED = "#C1121F"
_DTYPES = {"float32": "#E69F00", "float16": "#009E73", "bfloat16": "#CC79A7"}
_EPSILONS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_ENGINES = {  # shapes, and colours in float64
    ("backprop", "autodiff"): ("o", "#0072B2"),
    ("backprop", "numeric"): ("D", "#56B4E9"),
    ("autodiff", "numeric"): ("^", "#6E6E6E"),
}


def learning_curves(history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str] | None = None) -> "Figure":
    """Loss, and accuracy where there is one, in training and validation, with the best validation epoch marked.

    The best epoch is that of the smallest validation loss.

    Args:
        history: one dictionary of scalars a report, `{"epoch": 1, "loss": …, "accuracy": …, "validation_loss": …,
            "validation_accuracy": …}`. A report may lack any of them, and other keys are ignored. Without `"epoch"`,
            or with several reports an epoch, the axis shows `"step"`, and without that the number of the report.
        path: where to save the figure, if anywhere; the ending gives the format, `.png` say.

    Raises:
        DataError: no report has a loss.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import funcnet as fn
    >>> history = [{"epoch": 1, "loss": 2.0, "validation_loss": 2.1}, {"epoch": 2, "loss": 1.0, "validation_loss": 1.5}]
    >>> figure = fn.plotting.learning_curves(history)
    >>> [line.get_ydata().tolist() for line in figure.axes[0].lines[:2]]
    [[2.0, 1.0], [2.1, 1.5]]
    """
    reported = {key for report in history for key in report}
    metrics = [metric for metric in ("loss", "accuracy") if reported & {metric, f"validation_{metric}"}]
    if "loss" not in metrics:
        raise DataError(
            'learning_curves: expected reports with a "loss" or "validation_loss", '
            f'got {len(history)} without; collect {{"epoch": report.epoch, **report.metrics}} from training.fit.'
        )
    figure = _figure("learning_curves", 4.6 * len(metrics), 3.4)
    unit, at = _places(history)
    best = _best(_series(at, history, "validation_loss"))
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        curves = {"train": _series(at, history, metric), "validation": _series(at, history, f"validation_{metric}")}
        _draw_panel(axes, metric, unit, curves)
        if best is not None and len(history) > 1:
            _mark_best(axes, metric, f"best {unit} {best}", best, curves["validation"])
        _label_ends(axes, curves)
    return _saved(figure, path)


def confusion_matrix(
    matrix: Any, class_names: Sequence[str] | None = None, path: str | os.PathLike[str] | None = None
) -> "Figure":
    """How often each true class (row) was predicted as each class (column).

    Cells hold counts and are coloured by their share of the row, so that rare classes show as well as common ones.
    Above 25 classes the colours stand without counts.

    Args:
        matrix: (classes, classes), counts, as from `metrics.confusion_matrix`.
        class_names: one name a class; by default the numbers from 0.
        path: where to save the figure, if anywhere; the ending gives the format, `.png` say.

    Raises:
        ShapeError: the matrix is not square, or the names are not as many.
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
        raise ShapeError(f"confusion_matrix: expected {n} class_names, one a row of the matrix, got {len(names)}.")
    side = 0.48 * min(max(n, 4), _READABLE_CLASSES)
    figure = _figure("confusion_matrix", side + 1.9, side + 0.9)
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, label="share of the true class", format="{x:.0%}", fraction=0.04, pad=0.03)
    bar.outline.set_visible(False)
    _label_classes(axes, names)
    if n <= _READABLE_CLASSES:
        _write_counts(axes, counts, share)
    return _saved(figure, path)


def gradient_errors(reports: Any, path: str | os.PathLike[str] | None = None, *, tolerance: float = 1e-10) -> "Figure":
    """How far engines are apart in a gradient check: a line for each leaf, banded by layer, on a logarithmic scale.

    Each pair of engines has a shape, and with each dtype a colour. Errors are norm-relative; where the engines agree
    to the last bit the mark stands at 0. What the check called wrong is ringed.

    Args:
        reports: a report of `checking.check_gradients`; or several by name, which get a line each.
        path: where to save the figure, if anywhere; the ending gives the format, `.png` say.
        tolerance: where the line of the largest error by hand against autodiff is drawn: what the check was given. In
            shorter dtypes, which have no such number, dotted lines stand at their ε.

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
    figure = _figure("gradient_errors", 7.6, 1.3 + 0.3 * len(lines))
    axes = figure.subplots()
    rows = [row for line in lines.values() for row in line]
    low, high = _limits([row.error for row in rows])
    kinds = list(dict.fromkeys((row.dtype, row.engines) for row in rows))
    for i, kind in enumerate(kinds):
        shift = (i - (len(kinds) - 1) / 2) * 0.6 / len(kinds)  # side by side on their line, not on top of each other
        _draw_marks(axes, kind, [(y + shift, r) for y, line in enumerate(lines.values()) for r in line], low, high)
    _mark_tolerances(axes, tolerance, {row.dtype for row in rows})
    if not all(row.ok for row in rows):
        place = f": {reports.located[0]}" if getattr(reports, "located", ()) else ""
        axes.plot([], [], "o", color=_RED, fillstyle="none", markersize=9, label=f"wrong{place}")
    _band_lines(axes, lines)
    _label_errors(axes, low, high, zeros=any(row.error == 0 for row in rows))
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize="small", handletextpad=0.2)
    return _saved(figure, path)


def gradient_flow(traces: Any, path: str | os.PathLike[str] | None = None) -> "Figure":
    """How large the outputs and the gradients that arrive are at each layer: their root mean squares, by depth.

    The scale is logarithmic: on a straight line gradients shrink, or grow, by the same factor a layer. A layer whose
    gradient is 0 has a cross at the foot, and one whose gradient is not finite has it at the head.

    Args:
        traces: a `checking.Trace`, or a dictionary of them by name, to compare networks or epochs.
        path: where to save the figure, if anywhere; the ending gives the format, `.png` say.

    Raises:
        DataError: neither a trace nor a dictionary of some.
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
    figure = _figure("gradient_flow", 7.2, 3.2)
    axes = figure.subplots()
    axes.set_yscale("log")
    for (name, trace), colour in zip(named.items(), cycle(_CYCLE), strict=False):
        _draw_flow(axes, name, trace, colour)
    if any(named):
        axes.plot([], [], " ", label=" ")  # a space between the names and the styles
    neutral = _GREY if any(named) else _CYCLE[0]
    axes.plot([], [], color=neutral, label="gradient ∂loss/∂y", **_GRADIENT)
    axes.plot([], [], color=neutral, label="output y", **_OUTPUT)
    axes.set_xlabel("layer")
    axes.set_ylabel("root mean square")
    axes.locator_params("x", integer=True, min_n_ticks=1)
    axes.grid(axis="y", color=_PALE_GREY, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, labelcolor="linecolor")
    return _saved(figure, path)


def _draw_flow(axes: "Axes", name: str, trace: Any, colour: str) -> None:
    """Two lines through what has a logarithm, and crosses for gradients that have none."""
    layers = np.arange(len(trace.places))
    for rms, style, label in ((trace.dy.rms, _GRADIENT, name or None), (trace.y.rms, _OUTPUT, None)):
        rms = np.asarray(rms)
        axes.plot(layers, np.where(np.isfinite(rms) & (rms > 0), rms, np.nan), color=colour, label=label, **style)
    for height, there in ((0, np.asarray(trace.dy.rms) == 0), (1, np.asarray(trace.dy.nonfinite) >= 0)):
        if there.any():
            at = {"transform": axes.get_xaxis_transform(), "clip_on": False}
            axes.plot(layers[there], np.full(there.sum(), height), "x", color=colour, **at)


def _figure(name: str, width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f"{name}: expected the package matplotlib, which is not installed; pip install 'funcnet[plot]'."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _saved(figure: "Figure", path: str | os.PathLike[str] | None) -> "Figure":
    if path is not None:
        figure.savefig(path, dpi=150, bbox_inches="tight")
    return figure


def _places(history: Sequence[Mapping[str, Any]]) -> tuple[str, list[int]]:
    """The first of epoch and step that tells the reports apart, and where each report stands."""
    for unit in ("epoch", "step"):
        at = [int(report.get(unit, -1)) for report in history]
        if len(set(at)) == len(history):
            return unit, at
    return "report", list(range(1, len(history) + 1))


def _series(at: list[int], history: Sequence[Mapping[str, Any]], key: str) -> dict[int, float]:
    """What a quantity was, where it was reported."""
    return {x: float(report[key]) for x, report in zip(at, history, strict=True) if key in report}


def _best(losses: dict[int, float]) -> int | None:
    """Where the loss is smallest; `None` where none is finite."""
    finite = {x: loss for x, loss in losses.items() if np.isfinite(loss)}
    return min(finite, key=finite.__getitem__, default=None)


def _draw_panel(axes: "Axes", metric: str, unit: str, curves: dict[str, dict[int, float]]) -> None:
    from matplotlib.ticker import PercentFormatter

    for label, curve in curves.items():
        if curve:
            options = {"color": _COLOURS[label], "linewidth": 1.8, "marker": "o" if len(curve) == 1 else ""}
            axes.plot(list(curve), list(curve.values()), label=label, **options)
    axes.set_title(metric, loc="left")
    axes.set_xlabel(unit)
    axes.locator_params("x", integer=True, min_n_ticks=1)
    axes.grid(axis="y", color=_PALE_GREY, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if metric == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1))


def _mark_best(axes: "Axes", metric: str, text: str, best: int, curve: dict[int, float]) -> None:
    """A line through the best epoch, a dot on the validation curve, and its value where the panel is empty."""
    left, right = axes.get_xlim()
    side = -1 if best > (left + right) / 2 else 1
    axes.axvline(best, color=_GREY, linestyle=":", linewidth=1)
    if best in curve:
        axes.plot([best], [curve[best]], "o", color=_COLOURS["validation"], markersize=5)
        text += f"\n{curve[best]:.4g}" if metric == "loss" else f"\n{curve[best]:.2%}"
    # At its best the loss is low and the accuracy high: there is room at the other end of the line.
    height = 0.98 if metric == "loss" else 0.03
    axes.annotate(
        text,
        (best, height),
        xycoords=axes.get_xaxis_transform(),
        xytext=(4 * side, 0),
        textcoords="offset points",
        ha="right" if side < 0 else "left",
        va="top" if metric == "loss" else "bottom",
        color=_GREY,
        fontsize="small",
    )


def _label_ends(axes: "Axes", curves: dict[str, dict[int, float]]) -> None:
    """The curves' names at their ends, in their colours, instead of a legend; two that would touch are moved apart."""
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


def _lines(reports: Any) -> dict[str, list[Any]]:
    """The rows by their line: by leaf, input first, or by report."""
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
    shown = [(min(max(row.error, low), high), y, row.ok) for y, row in places if (row.dtype, row.engines) == kind]
    marks = {"linestyle": "", "clip_on": False, "zorder": 3}
    x, y, _ = zip(*shown, strict=True)
    label = f"{engines[0]} / {engines[1]}, {dtype}"
    shape, colour = _ENGINES[engines]
    colour = colour if dtype == "float64" else _DTYPES[dtype]
    axes.plot(x, y, shape, color=colour, markersize=5, alpha=0.85, label=label, **marks)
    for x, y, ok in shown:
        if not ok:
            axes.plot(x, y, "o", color=_RED, fillstyle="none", markersize=9, **marks)


def _mark_tolerances(axes: "Axes", tolerance: float, dtypes: set[str]) -> None:
    axes.axvline(tolerance, color=_GREY, linestyle="--", linewidth=1)
    lines = {tolerance: f"tolerance {tolerance:.0e}"}
    for dtype in dtypes & set(_EPSILONS):
        axes.axvline(_EPSILONS[dtype], color=_DTYPES[dtype], linestyle=":", linewidth=1)
        lines[_EPSILONS[dtype]] = f"ε {dtype}"
    for x, word in lines.items():
        axes.annotate(
            word,
            (x, 1),
            (0, 2),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            fontsize="x-small",
            color=_GREY,
            ha="center",
            va="bottom",
        )


def _band_lines(axes: "Axes", lines: dict[str, list[Any]]) -> None:
    """Names of the lines, failing ones in red; the leaves of every other layer stand on grey."""
    names = list(lines)
    layers = [name.rpartition("/")[0] for name in names]
    shaded = False
    for y, layer in enumerate(layers):
        shaded ^= y > 0 and layer != layers[y - 1]
        if shaded:
            axes.axhspan(y - 0.5, y + 0.5, color=_PALE_GREY, alpha=0.5, linewidth=0, zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)  # the first on top
    for text, line in zip(axes.get_yticklabels(), lines.values(), strict=True):
        if not all(row.ok for row in line):
            text.set(color=_RED, weight="bold")
    axes.tick_params("y", length=0)


def _label_errors(axes: "Axes", low: float, high: float, zeros: bool) -> None:
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    exponents = range(-16, int(np.log10(high)) + 1, 4)
    ticks = {10.0**n: f"1e{n}" if n else "1" for n in exponents} | ({low: "0"} if zeros else {})
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel("norm-relative error")
    axes.grid(axis="x", color=_PALE_GREY, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
