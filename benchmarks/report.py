"""The results as tables in Markdown and as a figure."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from statistics import geometric_mean
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image

from benchmarks.compare import Times
from benchmarks.roofline import Limit
from benchmarks.workload import Workload

OURS = "funcnet"
#: No documentation of a peer scans its step by hand. Such a column is shown, but does not count as the peer.
BY_HAND = "scanned by hand"
COLOURS = {"funcnet": "#D55E00", "stax": "#999999", "flax": "#0072B2", "equinox": "#009E73", "torch": "#CC79A7"}
UNITS = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")]


class Result(NamedTuple):
    """A workload, the times of all ways, the first of which is of funcnet, and the least time."""

    workload: Workload
    times: Sequence[Times]
    limit: Limit


def duration(seconds: float) -> str:
    """With three digits: 1.23 ms."""
    unit, name = next(((unit, name) for unit, name in UNITS if seconds >= unit), UNITS[-1])
    value = seconds / unit
    return f"{value:.{max(0, 2 - math.floor(math.log10(max(value, 1e-9))))}f} {name}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def times_table(result: Result) -> str:
    """Every way of one workload, compared with the first one and with the limit."""
    ours, least = result.times[0], result.limit.seconds
    rows = [
        [t.library, t.column, duration(t.median), f"{duration(t.low)} to {duration(t.high)}",
         f"{t.median / ours.median:.2f}", f"{least / t.median:.0%}"]
        for t in result.times
    ]  # fmt: skip
    return table(
        ["library", "way", "median", "quartiles", f"× {ours.column}", f"limit {duration(least)} / median"], rows
    )


def peers(times: Sequence[Times], libraries: Sequence[str] | None = None) -> list[Times]:
    """The ways of the other libraries, or only of `libraries`, that their own documentation shows."""
    return [
        t for t in times
        if t.library != OURS and t.column != BY_HAND and (libraries is None or t.library in libraries)
    ]  # fmt: skip


def summary(results: Sequence[Result]) -> str:
    """Ratios of the first way, which is `fit` with the hand-derived engine where there is a `fit`, and their means."""
    headings = ["workload", "best peer", "its time / ours", "flax / ours", "by hand / ours", "autodiff / backprop"]
    rows, ratios = [], []
    for workload, times, _ in results:
        ours, autodiff = times[0].median, times[1].median
        best = min(peers(times), key=lambda t: t.median, default=None)
        flax = min((t.median for t in peers(times, ["flax"])), default=math.nan)
        by_hand = min((t.median for t in times if t.column == BY_HAND), default=math.nan)
        ratios.append([number / ours for number in (best.median if best else math.nan, flax, by_hand, autodiff)])
        name = f"{best.library}, {best.column}" if best else "none installed"
        rows.append([workload.title, name, *(f"{ratio:.2f}" for ratio in ratios[-1])])
    means = [_mean(column) for column in zip(*ratios, strict=True)]
    return table(headings, [*rows, ["geometric mean", "", *(f"**{mean:.2f}**" for mean in means)]])


def _mean(ratios):
    """The geometric mean of those that are known."""
    known = [ratio for ratio in ratios if not math.isnan(ratio)]
    return geometric_mean(known) if known else math.nan


def figure(results: Sequence[Result], path: Path) -> None:
    """One bar per way and library: its time divided by that of the first way. A dashed line is the limit."""
    picture = Figure(figsize=(9, 1.0 + 2.3 * len(results)), layout="constrained")
    axes = picture.subplots(len(results), squeeze=False)[:, 0]
    for ax, (workload, times, limit) in zip(axes, results, strict=True):
        ours, least = times[0].median, limit.seconds / times[0].median
        names = [f"{t.library}: {t.column}" for t in times]
        ratios = [t.median / ours for t in times]
        bars = ax.barh(names, ratios, color=[COLOURS[t.library] for t in times])
        ax.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=3, fontsize=7)
        ax.invert_yaxis()
        ax.set_xscale("log")
        ax.set_xlim(min(0.5, least, *ratios) * 0.8, max(ratios) * 2)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.axvline(1, color="black", linewidth=0.8)
        ax.axvline(least, color="black", linewidth=0.8, linestyle="--")
        ax.tick_params(axis="y", labelsize=7)
        words = f"{workload.title}: {times[0].column} takes {duration(ours)}, the limit is {duration(limit.seconds)}"
        ax.set_title(words, fontsize=9, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("time of a step over that of the first way (less is faster; dashed: the limit)", fontsize=8)
    drawn = BytesIO()
    picture.savefig(drawn, dpi=72)
    Image.open(drawn).quantize(32).save(path, optimize=True)  # which makes the file smaller
