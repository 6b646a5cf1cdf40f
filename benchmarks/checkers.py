"""How many wrong backward passes funcnet, `jax.test_util.check_grads` and `chex.assert_numerical_grads` find.

    python benchmarks/checkers.py [--only NAME …] [--seeds 20] [--write docs/checking.md]

The targets are every layer, model, loss and penalty of `funcnet.catalogue`. Each mutant of `checking.mutants` whose
gradient differs on the first draw is given to the other checkers as a `jax.custom_vjp`. They judge it at that draw, at
their default tolerances, in float32 and in float64. funcnet judges the same draw, and then all draws. The results are
counts, not times, so other work may run on the machine. `--write` replaces the table between the markers in that file.
"""

import argparse
import re
import time
from collections import Counter, defaultdict
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import jax.test_util

import funcnet as fn
from funcnet.catalogue import CATALOGUE, Entry
from funcnet.checking.subjects import arguments_of, by_hand, parted, run, subjects_of
from funcnet.types import Layer

PEERS = {
    "jax check_grads": lambda f, args: jax.test_util.check_grads(f, args, order=1, modes=("rev",)),
    "chex": lambda f, args: chex.assert_numerical_grads(f, args, order=1, modes=("rev",)),
}
DTYPES = ("float32", "float64")
# The targets of the library are small, so every element weighs much. A layer of ordinary size is harder to judge.
TARGETS = CATALOGUE | {"dense_64_of_128": Entry(fn.layers.dense(64), jax.ShapeDtypeStruct((32, 128), jnp.float32))}
KINDS = {
    r"^.*: ": "",
    r"(first|second) term of sum \d+": "a term",
    r"sum \d+ over axis \d+ for \d+": "sum over the wrong axis",
    r"residual \d+": "a residual",
}
COLUMNS = [f"{peer}, {dtype}" for peer in PEERS for dtype in DTYPES]


def function_and_arguments(target, point):
    """The target as an array function with the mutant's gradient as its rule, and its arguments, the input first."""
    if isinstance(target, Layer):
        wrapped = fn.gradients.as_custom_vjp(target)
        leaves, structure = jax.tree.flatten((point.variables["x"], point.variables["params"]))

        def outputs(*leaves):
            x, params = jax.tree.unflatten(structure, leaves)
            y, _ = run(wrapped.apply, "training", point, {"params": params, "x": x})
            slopes = jax.tree.leaves(parted(y)[0])
            return slopes[0] if len(slopes) == 1 else jnp.concatenate([leaf.ravel() for leaf in slopes])

        return outputs, tuple(leaves)
    leaves, structure = jax.tree.flatten(point.variables)

    @jax.custom_vjp
    def loss(*leaves):
        return target(*arguments_of(point, jax.tree.unflatten(structure, leaves)))

    def backward(leaves, dy):
        gradient = by_hand(target, "", point._replace(variables=jax.tree.unflatten(structure, leaves)))
        return tuple(jnp.asarray(dy) * leaf for leaf in jax.tree.leaves(gradient))

    loss.defvjp(lambda *leaves: (loss(*leaves), leaves), backward)
    return loss, tuple(leaves)


def passes(check, target, point, dtype):
    """Whether a checker lets the target pass."""

    def cast(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    function, args = function_and_arguments(target, jax.tree.map(cast, point))
    try:
        with jax.disable_jit():  # the loop of `repeat` would be compiled again for every mutant
            check(function, args)
    except AssertionError:
        return False
    return True


def kind(mistake):
    """The kind of a mistake, without its array and its place."""
    for pattern, word in KINDS.items():
        mistake = re.sub(pattern, word, mistake)
    return mistake


def count(entry, seeds, tables):
    """Add the results of one target's mutants to the tables. Return the score, and who passes the right target."""
    target, x, y = entry[:3]
    whole = fn.checking.mutation_score(target, x, y, modes=("training",), seeds=seeds)
    first = fn.checking.mutation_score(target, x, y, modes=("training",), seeds=1)
    with jax.enable_x64(True):
        (subject,) = subjects_of(target, x, y, modes=["training"])
        point = subject.draw(0, x, y, None, None)
        right = {
            f"{peer}, {dtype}": passes(check, target, point, dtype) for peer, check in PEERS.items() for dtype in DTYPES
        }
        for mutant in fn.checking.mutants(target, x, y):
            name = f"{subject.mode} {mutant.mistake}".strip()
            row = tables[kind(mutant.mistake)]
            if name not in whole.equivalent:
                row["made"] += 1
                row["funcnet"] += name not in whole.missed
            if name in first.equivalent:
                continue
            row["here"] += 1
            row["funcnet here"] += name not in first.missed
            for peer, check in PEERS.items():
                for dtype in DTYPES:
                    row[f"{peer}, {dtype}"] += not passes(check, mutant.target, point, dtype)
    return whole, right


def table(tables):
    """The counts as Markdown, the most frequent mistakes first."""
    total = sum(tables.values(), Counter())
    head = ["mistake", "funcnet, all draws", "funcnet, one draw", *COLUMNS]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---|" * (len(head) - 1)]
    for name, row in [*sorted(tables.items(), key=lambda item: -item[1]["made"]), ("**all**", total)]:
        counts = [(row["funcnet"], row["made"]), (row["funcnet here"], row["here"])]
        counts += [(row[column], row["here"]) for column in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(f"{caught} of {made}" for caught, made in counts) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(TARGETS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    tables, equivalent, alarms, started = defaultdict(Counter), 0, Counter(), time.perf_counter()
    for name in options.only:
        whole, right = count(TARGETS[name], options.seeds, tables)
        equivalent += len(whole.equivalent)
        alarms.update(column for column, passed in right.items() if not passed)
        print(f"{time.perf_counter() - started:6.0f} s  {name}: {whole}", flush=True)
    alarm = ", ".join(f"{column} {alarms[column]}" for column in COLUMNS)
    text = (
        f"{table(tables)}\n\n{len(options.only)} targets, {options.seeds} draws, {equivalent} equivalent mutants left "
        f"out; jax {jax.__version__}, chex {chex.__version__}. Of the {len(options.only)} right gradients refused: "
        f"funcnet 0, {alarm}."
    )
    print(text)
    if options.write:
        begin, end = "<!-- benchmarks/checkers.py -->\n", "\n<!-- end -->"
        page = options.write.read_text(encoding="utf-8")
        before, after = page.split(begin)[0], page.split(end)[1]
        options.write.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
