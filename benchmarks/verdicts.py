"""What `check_gradients` says of right gradients and of mistakes, at inputs from 10⁻¹² to 10¹².

    python benchmarks/verdicts.py [--only NAME …] [--draws 2] [--mistakes 2] [--write docs/checking.md]

The targets are every layer, model, loss and penalty of `funcnet.catalogue`. Their inputs are multiplied by each size.
Predictions that have to be probabilities, or their logarithms, are left as they are. A mistake is one of
`checking.mutants`. Where it changes no element by more than rounding does, or by 1e-10 of the element, it is counted
apart: at such inputs it has no effect that anyone could see. `--write` replaces the table between the markers in that
file.
"""

import argparse
import time
from collections import Counter, defaultdict
from pathlib import Path

import jax
import numpy as np

import funcnet as fn
from funcnet.catalogue import CATALOGUE, LOSSES
from funcnet.checking.comparing import ENGINES, Comparison, Limits
from funcnet.checking.judging import VERDICTS, judged
from funcnet.checking.subjects import subjects_of

SIZES = [10.0**power for power in range(-12, 13, 2)]
LIMITS = Limits(engines=ENGINES[:2], most=200, tolerance=1e-10, numeric_tolerance=1e-6)
SAME = 1e-13


def sizes_of(name):
    """The sizes that a target's inputs may have."""
    takes = LOSSES[name].loss.takes if name in LOSSES else None
    return [1.0] if takes is not None and "probabilities" in takes else SIZES


def points(subject, x, y, size, draws):
    """The points of some draws, with the input, the prediction or the penalised tree of another size."""
    for seed in range(draws):
        point = subject.draw(seed, x, y, None, None)
        part = "x" if subject.mode else "prediction" if "target" in point.constants else None
        if part is None:
            yield seed, point._replace(variables=times(size, point.variables))
        else:
            yield seed, point._replace(variables=point.variables | {part: times(size, point.variables[part])})


def times(size, tree):
    return jax.tree.map(lambda leaf: size * leaf, tree)


def verdict(subject, point, engines, seed):
    """The worst verdict of all rows."""
    rows, _ = Comparison(subject, point, LIMITS._replace(engines=engines), seed).rows()
    return max((row.verdict for row in rows), key=VERDICTS.index)


def effect(subject, wrong, point):
    """Whether a mistake changes the gradient at a point: "none", "below rounding" or "visible"."""
    right, mistaken = (Comparison(one, point, LIMITS, 0) for one in (subject, wrong))
    a, b = mistaken.both["backprop"], right.both["backprop"]
    if not judged(a, b, SAME, lambda: np.zeros(a.shape)).any():
        return "none"
    states = judged(a, b, LIMITS.tolerance, lambda: np.maximum(right.rounding, mistaken.rounding))
    return "visible" if (states == VERDICTS.index("wrong")).any() else "below rounding"


def count(name, number, options, tables):
    """Add the verdicts on one target and some of its mistakes to the tables."""
    target, x, y, engines = CATALOGUE[name]
    for subject in subjects_of(target, x, y):
        made = fn.checking.mutants(target, x, y, mode="training" if subject.mode == "both" else subject.mode)
        first = number % max(1, len(made) // options.mistakes)
        mistakes = made[first :: max(1, len(made) // options.mistakes)][: options.mistakes]
        modes = None if not subject.mode else ["training" if subject.mode == "both" else subject.mode]
        wrongs = [subjects_of(mistake.target, x, y, modes=modes)[0] for mistake in mistakes]
        for size in sizes_of(name):
            row = tables[size]
            for seed, point in points(subject, x, y, size, options.draws):
                found = verdict(subject, point, engines, seed)
                row["right draws", found] += 1
                if found != "right":
                    print(f"{name} {subject.mode} at {size:g}, draw {seed}: {found}", flush=True)
            seed, point = next(iter(points(subject, x, y, size, 1)))
            for mistake, wrong in zip(mistakes, wrongs, strict=True):
                seen = effect(subject, wrong, point)
                if seen != "none":
                    found = verdict(wrong, point, ENGINES[:2], seed)
                    row[seen, found] += 1
                    if (seen, found) == ("visible", "right"):
                        print(f"{name} {subject.mode} at {size:g}: passed {mistake.mistake}", flush=True)


COLUMNS = {
    "right gradients": lambda row: total(row, "right draws"),
    "called wrong": lambda row: row["right draws", "wrong"],
    "not decided": lambda row: row["right draws", "not decided"],
    "mistakes": lambda row: total(row, "visible"),
    "called right": lambda row: row["visible", "right"],
    "not decided ": lambda row: row["visible", "not decided"],
    "mistakes below rounding": lambda row: total(row, "below rounding"),
}


def total(row, kind):
    return sum(row[kind, verdict] for verdict in VERDICTS)


def table(tables):
    """The counts as Markdown."""
    lines = ["| size of the inputs | " + " | ".join(map(str.strip, COLUMNS)) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    every = sum(tables.values(), Counter())
    for size, row in [*((f"{size:.0e}", tables[size]) for size in SIZES), ("**all**", every)]:
        lines.append(f"| {size} | " + " | ".join(str(column(row)) for column in COLUMNS.values()) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(CATALOGUE))
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--mistakes", type=int, default=2)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    tables, started = defaultdict(Counter), time.perf_counter()
    for number, name in enumerate(options.only):
        with jax.enable_x64(True):
            count(name, number, options, tables)
        print(f"{time.perf_counter() - started:6.0f} s  {name}", flush=True)
    text = f"{table(tables)}\n\n{len(options.only)} targets, {options.draws} draws of each; jax {jax.__version__}."
    print(text)
    if options.write:
        begin, end = "<!-- benchmarks/verdicts.py -->\n", "\n<!-- end -->"
        before, rest = options.write.read_text(encoding="utf-8").split(begin)
        options.write.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
