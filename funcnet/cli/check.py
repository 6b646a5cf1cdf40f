"""`funcnet check`: compare the gradient of every target. It prints a line per target, and a full report of failures."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from funcnet import checking, plotting
from funcnet.catalogue import CATALOGUE, Entry
from funcnet.checking.page import Outcome, page, summary
from funcnet.checkpoints.files import write_whole
from funcnet.cli import options
from funcnet.cli.folders import check_place
from funcnet.cli.tables import print_json
from funcnet.cli.targets import parse_shapes, resolve
from funcnet.errors import ConfigError, MissingExtraError, StructureError
from funcnet.reading import shown
from funcnet.rendering import headed

__all__ = ["check"]


def check(chosen: options.Check) -> int:
    """Check the targets, show what came out, and return the exit code."""
    shape = parse_shapes(chosen.shape) if chosen.shape else None
    if shape is not None and all(target in CATALOGUE for target in chosen.targets):
        raise ConfigError(
            f"--shape {chosen.shape[0]}: expected a TARGET of your own, as module:attribute; those of the library have "
            "their own shapes."
        )
    if chosen.html is not None:
        check_place("--html", chosen.html, "gradients.html")
    entries = {target: resolve(target, shape) for target in chosen.targets or CATALOGUE}
    outcomes = [_outcome(name, entry, chosen) for name, entry in _with_progress(entries)]
    if chosen.json:
        print_json([_plain(outcome) for outcome in outcomes])
    else:
        _show(outcomes)
    if chosen.html is not None:
        _write_page(outcomes, chosen.html)
        if not chosen.json:
            print(f"page: {shown(chosen.html)}")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def _outcome(name: str, entry: Entry, chosen: options.Check) -> Outcome:
    """The outcome of checking one target. A gradient that lacks leaves counts as wrong; other errors go to the user."""
    target, x, y, engines = entry
    try:
        report = checking.check_gradients(
            target, x, y, engines=engines, seeds=chosen.seeds, seed=chosen.seed, most=chosen.most
        )
    except StructureError as error:
        return Outcome(name, problem=str(error))
    if not chosen.mutants:
        return Outcome(name, report)
    return Outcome(name, report, checking.mutation_score(target, x, y, seed=chosen.seed))


def _with_progress(entries: dict[str, Entry]) -> Iterable[tuple[str, Entry]]:
    """The entries. On a terminal a progress bar shows them."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return entries.items()
    return _behind_a_bar(entries, console)


def _behind_a_bar(entries: dict[str, Entry], console: Console) -> Iterator[tuple[str, Entry]]:
    columns = (TextColumn("{task.completed}/{task.total} {task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        console.show_cursor()  # a signal may end the process at any time
        task = progress.add_task("", total=len(entries))
        for name, entry in entries.items():
            progress.update(task, description=escape(shown(name)))
            yield name, entry
            progress.advance(task)


def _show(outcomes: list[Outcome]) -> None:
    """Print the table, then a full report of each target that failed, then the verdict."""
    table = Table(title="largest error of the gradient by hand", title_justify="left", box=box.SIMPLE_HEAD)
    headings, lines = headed(outcomes)
    for heading in headings:
        left = heading in ("", "target")
        table.add_column(heading, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for outcome, line in zip(outcomes, lines, strict=True):
        table.add_row(*(escape(shown(word)) for word in line), style="" if outcome.ok else "bold red")
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file has room for the longest name
    console.print(table)
    for outcome in outcomes:
        if not outcome.ok:
            print(shown("\n".join([f"\n{outcome.name}", *_about(outcome)])))
    failed = not all(outcome.ok for outcome in outcomes)
    print(shown(summary(outcomes)) if failed else f"all {len(outcomes)} agree")


def _plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome for JSON."""
    mutants = None
    if outcome.score is not None:
        mutants = {**outcome.score._asdict(), "made": outcome.score.made}
    report = None if outcome.report is None else outcome.report.to_dict()
    found = {"target": outcome.name, "ok": outcome.ok, "verdict": outcome.verdict(), "problem": outcome.problem or None}
    return {**found, "report": report, "mutants": mutants}


def _about(outcome: Outcome) -> Iterator[str]:
    if outcome.problem:
        yield outcome.problem
    if outcome.report is not None and not outcome.report.ok:
        yield str(outcome.report)
    if outcome.score is not None:
        yield from (f"missed mutant: {mistake}" for mistake in outcome.score.missed)


def _write_page(outcomes: list[Outcome], path: Path) -> None:
    """Write the page, with a picture if matplotlib is installed."""
    reports = {outcome.name: outcome.report for outcome in outcomes if outcome.report is not None}
    try:
        figure = plotting.gradient_errors(reports if len(reports) > 1 else next(iter(reports.values())))
    except (MissingExtraError, StopIteration):
        figure = None
    write_whole(path, page(outcomes, figure).encode(errors="backslashreplace"))
