"""`funcnet report`: everything that is known about a run, on one page."""

import dataclasses
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checking, checkpoints, plotting, summaries
from funcnet.checking.page import Outcome, details, summary
from funcnet.checkpoints.files import write_whole
from funcnet.cli import options
from funcnet.cli.folders import (
    CHECKPOINTS,
    CONFIG,
    HISTORY,
    WEIGHTS,
    check_place,
    check_unchanged,
    facts_of,
    held_out_rows,
    load_run,
)  # fmt: skip
from funcnet.cli.history import read_history
from funcnet.cli.networks import build_model, classes_of, split_rows
from funcnet.cli.sessions import SESSIONS, Session, read_sessions
from funcnet.cli.tables import MOST_CLASSES
from funcnet.errors import CheckpointError, ConfigError, DataError, FuncnetError
from funcnet.reading import shown
from funcnet.rendering import pages
from funcnet.types import Layer

__all__ = ["report"]

STYLE = """
.funcnet .tiles { display: flex; flex-wrap: wrap; gap: .8rem; padding: 0; margin: 1.2rem 0; list-style: none; }
.funcnet .tiles li { background: var(--card); padding: .6rem 1.1rem; border-radius: 6px; min-width: 6.5rem; }
.funcnet .tiles b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.funcnet .sections { display: flex; flex-wrap: wrap; gap: 0 4rem; }
.funcnet section { max-width: 100%; }
.funcnet .sections h2 { margin-top: 1.6rem; }
#learning-curves, #gradient-check, #timing, #network { flex-basis: 100%; }
"""


class _Run(NamedTuple):
    """What the folder of a run holds. The sections read the parts that may be missing."""

    folder: Path
    facts: dict[str, Any]
    trained: options.Train
    verdicts: list[checkpoints.Verdict]
    sessions: list[Session]
    bad_lines: list[int]  #: of the file of sessions

    @property
    def finished(self) -> bool:
        return (self.folder / WEIGHTS).exists()


class _Made(NamedTuple):
    """The network of a run."""

    model: Layer
    shape: tuple[int, ...]  #: of an example

    def rows(self, n: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((n, *self.shape), jnp.float32)

    def summary(self, batch_size: int) -> summaries.Summary:
        return summaries.summary(self.model, self.rows(batch_size))


class _Judged(NamedTuple):
    """The finished network on the rows that training held out."""

    x: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def report(chosen: options.Report) -> int:
    """Write the page, and return the exit code."""
    folder = chosen.run
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder}: expected a folder that funcnet train wrote, with {CONFIG} in it.")
    facts = facts_of(folder)
    trained, verdicts = check_unchanged(folder, facts), checkpoints.verify(folder / CHECKPOINTS, bytes_too=False)
    run = _Run(folder, facts, trained, verdicts, *read_sessions(folder / SESSIONS))
    path = folder / "report.html" if chosen.output is None else chosen.output
    check_place("--output", path, "report.html")
    try:
        write_whole(path, _page(run, chosen.most).encode(errors="backslashreplace"))
    except OSError as error:
        raise ConfigError(f"{path}: the file cannot be written: {error.strerror}.") from error
    print(f"page: {shown(path)}")
    return 0


def _page(run: _Run, most: int) -> str:
    rows, judged, made = _tried(_rows, run), _tried(_judge, run), _tried(_made, run)
    sections = {
        "Learning curves": _then(_curves, rows),
        "Confusion matrix": _then(_confusion, judged),
        "Mistakes": _then(_mistakes, judged),
        "Gradient check": _then(lambda made: _gradients(made, most), made),
        "Timing": _tried(_timing, run),
        "Network": _then(lambda made: _network(made, run.trained.batch_size), made),
        "Configuration": _tried(_configuration, run),
        "Environment": _tried(_environment, run),
        "Checkpoints": _tried(_checkpoints, run),
    }
    body = "".join(
        f'<section id="{title.lower().replace(" ", "-")}"><h2>{title}</h2>\n{_or_why_not(content)}</section>\n'
        for title, content in sections.items()
    )
    title = f"{run.folder.resolve().name}: {run.trained.model} on {run.trained.data}"
    return pages.document(title, f'{_head(run, rows, judged, made)}<div class="sections">{body}</div>', STYLE)


# A part that cannot be made raises an error of the library. The page then shows the message in place of the part.


def _tried(make: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return make(*arguments)
    except FuncnetError as error:
        return error


def _then(make: Callable[[Any], Any], value: Any) -> Any:
    return value if isinstance(value, FuncnetError) else _tried(make, value)


def _or_why_not(content: Any) -> str:
    return f'<p class="missing">{escape(str(content))}</p>\n' if isinstance(content, FuncnetError) else content


# What the folder holds


def _rows(run: _Run) -> list[dict[str, Any]]:
    rows = read_history(run.folder / HISTORY, run.facts.get("metrics", ""))
    if not rows:
        raise DataError(f"No epoch is written down in {HISTORY} yet.")
    return rows


def _made(run: _Run) -> _Made:
    """The network and the shape of an example: from the weights or the checkpoints, else from the data."""
    facts = run.facts
    if not facts:
        (x, target), (_, held_out) = split_rows(run.trained, run.trained.seed)
        facts = {"shape": x.shape[1:], "classes": classes_of(target, held_out)}
    shape = tuple(facts["shape"])
    return _Made(build_model(run.trained, shape, facts["classes"]), shape)


def _judge(run: _Run) -> _Judged:
    if not run.finished:
        raise CheckpointError("This needs the weights, which come at the end of the run.")
    trained, model, params, state, facts = load_run(run.folder)
    x, labels = held_out_rows(run.folder, trained, facts)
    apply = jax.jit(model.apply, static_argnames="train")
    x, labels = np.asarray(x, np.float32), np.asarray(labels)
    parts = [jax.nn.softmax(apply(params, state, x[i : i + 512])[0]) for i in range(0, len(x), 512)]
    return _Judged(x, labels, np.concatenate(parts))


# The sections


def _head(run: _Run, rows: Any, judged: Any, made: Any) -> str:
    tiles = {}
    if not isinstance(judged, FuncnetError):
        right = judged.probabilities.argmax(1) == judged.labels
        tiles = {f"accuracy on {len(right)} held-out rows": f"{right.mean():.2%}"}
    if not isinstance(rows, FuncnetError):
        last = rows[-1]
        tiles |= {"epochs": f"{last['epoch']} of {run.trained.epochs}", "steps": f"{last['step']:,}"}
        tiles |= {"training loss": f"{last['loss']:.4g}"}
    if not isinstance(made, FuncnetError):
        tiles["parameters"] = f"{made.summary(1).parameters:,}"
    if seconds := sum(session.reports[-1][2] for session in run.sessions if session.reports):
        tiles["training time"] = _duration(seconds)
    shown = "".join(f"<li><b>{escape(value)}</b>{escape(name)}</li>\n" for name, value in tiles.items())
    open_end = (
        f'<p class="missing">This run is not finished: it still runs, or it was stopped. '
        f"<code>funcnet train --resume {escape(str(run.folder))}</code> continues it.</p>\n"
    )
    quiet = f'<p class="quiet">{escape(str(run.folder))} · page made with {escape(pages.environment())}</p>\n'
    return quiet + ("" if run.finished else open_end) + (f'<ul class="tiles">{shown}</ul>\n' if tiles else "")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _curves(rows: list[dict[str, Any]]) -> str:
    last = rows[-1]
    values = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in list(last.items())[2:])
    return pages.picture(plotting.learning_curves(rows), f"curves by epoch; at epoch {last['epoch']}: {values}")


def _confusion(judged: _Judged) -> str:
    classes = judged.probabilities.shape[1]
    if classes > MOST_CLASSES:
        return f"<p>A matrix of {classes:,} classes is not drawn. The most are {MOST_CLASSES:,}.</p>\n"
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (judged.labels, judged.probabilities.argmax(1)), 1)
    alt = f"confusion matrix: {np.trace(counts)} of {counts.sum()} held-out rows on the diagonal"
    return pages.picture(plotting.confusion_matrix(counts), alt)


def _mistakes(judged: _Judged) -> str:
    """Pictures of the mistakes if the rows are images, else a table."""
    predicted, images = judged.probabilities.argmax(1), _as_images(judged.x)
    wrong = np.flatnonzero(predicted != judged.labels)
    if not wrong.size:
        return f"<p>None of the {len(predicted)} held-out rows is misclassified.</p>\n"
    if images is not None:
        alt = f"the surest of {len(wrong)} misclassified held-out images, with true and predicted class"
        figure = plotting.misclassified(images, judged.labels, judged.probabilities)
        return pages.picture(figure, alt, photo=True)
    sure = judged.probabilities.max(1)
    surest = wrong[np.argsort(-sure[wrong], kind="stable")][:24]
    lines = [[str(i), str(judged.labels[i]), str(predicted[i]), f"{sure[i]:.1%}"] for i in surest]
    return f"<p>The surest of {len(wrong)}:</p>\n" + pages.table(["row", "true", "predicted", "probability"], lines)


def _as_images(x: np.ndarray) -> np.ndarray | None:
    """The rows as (n, height, width, channels) if they look like images, else `None`.

    A row of numbers looks like an image if it is a square of at least 6 × 6 pixels.
    """
    if x.ndim == 2 and (side := round(x.shape[1] ** 0.5)) >= 6 and side * side == x.shape[1]:
        return x.reshape(-1, side, side, 1)
    if x.ndim == 3:
        return x[..., None]
    return x if x.ndim == 4 and x.shape[3] in (1, 3) else None


def _gradients(made: _Made, most: int) -> str:
    if most == 0:
        raise ConfigError("Left out by --most 0.")
    found = checking.check_gradients(made.model, made.rows(4), most=most)
    verdict = "the hand-derived gradient agrees" if found.ok else summary([Outcome("model", found)])
    worst = {
        " / ".join(engines): max(row.error for row in found.rows if row.engines == engines)
        for engines in dict.fromkeys(row.engines for row in found.rows)
    }
    lines = [[engines, f"{error:.1e}"] for engines, error in worst.items()]
    alt = "norm-relative errors of the gradient, leaf by leaf; the largest: "
    figure = pages.picture(plotting.gradient_errors(found), alt + ", ".join(" ".join(line) for line in lines))
    unfolded = "" if found.ok else " open"
    return (
        f"<p>{pages.marked(verdict, found.ok)}, in float64 and at random parameters.</p>\n"
        f"{pages.table(['engines', 'largest error'], lines, right=1)}\n{figure}"
        f"<details{unfolded}><summary>Leaf by leaf</summary>{details(Outcome('model', found))}</details>\n"
    )


def _timing(run: _Run) -> str:
    if not run.sessions and not run.bad_lines:
        raise DataError(f"{SESSIONS} was not found; train writes there how long it takes.")
    lines = []
    for session in run.sessions:
        epochs = f"{session.reports[0][0]} to {session.reports[-1][0]}" if session.reports else "none"
        pace, first = session.steps_per_second, session.first
        lines.append([
            session.environment["started"].replace("T", " ").replace("+00:00", " UTC"), epochs,
            "" if first is None else f"{first:.2f} s", "" if pace is None else f"{pace:,.0f}",
            _duration(session.reports[-1][2]) if session.reports else "",
        ])  # fmt: skip
    headings = ["started", "epochs", "first epoch, with compilation", "steps per second after it", "total"]
    numbers = ", ".join(map(str, run.bad_lines))
    left_out = f'<p class="missing">Lines of {SESSIONS} that are cut or damaged are left out: {numbers}.</p>\n'
    return left_out * bool(numbers) + pages.table(headings, lines, right=3)


def _network(made: _Made, batch_size: int) -> str:
    summary = made.summary(batch_size)
    lines = [[row.path, row.name, str(row.shape), row.dtype, f"{row.parameters:,}"] for row in summary.rows]
    total = ["", "total", "", "", f"{summary.parameters:,}"]
    return pages.table(["path", "layer", "output", "dtype", "parameters"], [*lines, total], right=1)


def _configuration(run: _Run) -> str:
    default, lines = options.Train(), []
    for field in dataclasses.fields(run.trained):
        value, usual = getattr(run.trained, field.name), getattr(default, field.name)
        if field.name not in options.NOT_KEPT:
            lines.append([field.name, _words(value), "" if value == usual else _words(usual)])
    return pages.table(["option", "value", "default, if different"], lines)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else "–" if value is None else str(value)


def _environment(run: _Run) -> str:
    """The environment of the last session, else that of the newest checkpoint."""
    known = [verdict.manifest.environment for verdict in run.verdicts if verdict.manifest is not None]
    known += [session.environment for session in run.sessions]
    if not known:
        raise DataError(f"Neither {SESSIONS} nor a checkpoint was found.")
    return pages.table(["", ""], [[name, _words(value)] for name, value in known[-1].items() if value != ""])


def _checkpoints(run: _Run) -> str:
    if not run.verdicts:
        raise CheckpointError("No checkpoint was found.")
    lines = []
    for verdict in run.verdicts:
        manifest = verdict.manifest
        if manifest is None:
            lines.append([str(verdict.step), "", "", "", verdict.problem or ""])
            continue
        loss, size = manifest.metrics.get("loss"), sum(file.bytes for file in manifest.files.values())
        lines.append([
            str(verdict.step), str(manifest.epoch), "" if loss is None else f"{loss:.4f}", f"{size / 1e3:,.1f}",
            f"not finite: {', '.join(manifest.not_finite)}" if manifest.not_finite else "",
        ])  # fmt: skip
    return pages.table(["step", "epoch", "loss", "KB", ""], lines)
