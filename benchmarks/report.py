"""The results as tables in Markdown and as a figure."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image

from benchmarks.compare import Times
from benchmarks.workload import Training

OURS = "funcnet"
#: No documentation of a peer scans its step by hand. Such a column is shown, but does not count as the peer.
BY_HAND = "scanned by hand"
COLOURS = {"funcnet": "#D55E00", "stax": "#999999", "flax": "#0072B2", "equinox": "#009E73", "torch": "#CC79A7"}
UNITS = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")]


def duration(seconds: float) -> str:
    """With three digits: 1.23 ms."""
    unit, name = next(((unit, name) for unit, name in UNITS if seconds >= unit), UNITS[-1])
    value = seconds / unit
    return f"{value:.{max(0, 2 - math.floor(math.log10(max(value, 1e-9))))}f} {name}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def times_table(times: Sequence[Times]) -> str:
    """Every column of one workload, compared with the first one, which is of funcnet."""
    ours = times[0].median
    rows = [
        [t.library, t.column, duration(t.median), f"{duration(t.low)} to {duration(t.high)}", f"{t.median / ours:.2f}"]
        for t in times
    ]
    return table(["library", "way", "median", "quartiles", f"× {times[0].column}"], rows)


def peers(times: Sequence[Times], libraries: Sequence[str] | None = None) -> list[Times]:
    """The ways of the other libraries, or only of `libraries`, that their own documentation shows."""
    return [
        t for t in times
        if t.library != OURS and t.column != BY_HAND and (libraries is None or t.library in libraries)
    ]  # fmt: skip


def summary(results: Sequence[tuple[Training, Sequence[Times]]]) -> str:
    """Ratios of `fit` with the hand-derived engine, and their geometric means."""
    headings = ["workload", "best peer", "its time / `fit`", "flax / `fit`", "by hand / `fit`", "autodiff / backprop"]
    rows, ratios = [], []
    for workload, times in results:
        of = {(t.library, t.column): t.median for t in times}
        ours = of[OURS, "fit, backprop"]
        best = min(peers(times), key=lambda t: t.median, default=None)
        flax = min((t.median for t in peers(times, ["flax"])), default=math.nan)
        by_hand = min((t.median for t in times if t.column == BY_HAND), default=math.nan)
        numbers = [best.median if best else math.nan, flax, by_hand, of[OURS, "fit, autodiff"]]
        ratios.append([number / ours for number in numbers])
        name = f"{best.library}, {best.column}" if best else "none installed"
        rows.append([workload.title, name, *(f"{ratio:.2f}" for ratio in ratios[-1])])
    means = [math.exp(sum(map(math.log, column)) / len(column)) for column in zip(*ratios, strict=True)]
    return table(headings, [*rows, ["geometric mean", "", *(f"**{mean:.2f}**" for mean in means)]])


def figure(results: Sequence[tuple[Training, Sequence[Times]]], path: Path) -> None:
    """One bar per way and library: its time divided by that of `fit` with the hand-derived engine."""
    picture = Figure(figsize=(9, 1.0 + 2.3 * len(results)), layout="constrained")
    axes = picture.subplots(len(results), squeeze=False)[:, 0]
    for ax, (workload, times) in zip(axes, results, strict=True):
        ours = times[0].median
        names = [f"{t.library}: {t.column}" for t in times]
        ratios = [t.median / ours for t in times]
        bars = ax.barh(names, ratios, color=[COLOURS[t.library] for t in times])
        ax.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=3, fontsize=7)
        ax.invert_yaxis()
        ax.set_xscale("log")
        ax.set_xlim(min(0.5, *ratios) * 0.8, max(ratios) * 2)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.axvline(1, color="black", linewidth=0.8)
        ax.tick_params(axis="y", labelsize=7)
        ax.set_title(f"{workload.title}: fit takes {duration(ours)}", fontsize=9, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("time of a step over that of fit with the hand-derived engine (less is faster)", fontsize=8)
    drawn = BytesIO()
    picture.savefig(drawn, dpi=80)
    Image.open(drawn).quantize(32).save(path)  # which makes the file smaller
